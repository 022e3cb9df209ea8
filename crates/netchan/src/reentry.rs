//! What a thread is encoding or decoding, so that a value whose own `Serialize` uses the channel it travels on gets an
//! error and not a deadlock.

use std::cell::RefCell;

use parking_lot::{Mutex, MutexGuard};

thread_local! {
    static BUSY: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn key<T>(mutex: &Mutex<T>) -> usize {
    std::ptr::from_ref(mutex).addr()
}

/// Locks, unless this very thread holds the lock while it runs user code.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().or_else(|| {
        let reentered = BUSY.with_borrow(|busy| busy.contains(&key(mutex)));
        (!reentered).then(|| mutex.lock())
    })
}

/// Whether this thread runs user code under some channel's lock: then nothing may be written, for that locks channels.
pub(crate) fn is_busy() -> bool {
    BUSY.with_borrow(|busy| !busy.is_empty())
}

/// Marks that user code runs under a lock, until dropped.
pub(crate) struct Busy;

impl Busy {
    #[inline]
    pub(crate) fn under<T>(mutex: &Mutex<T>) -> Self {
        BUSY.with_borrow_mut(|busy| busy.push(key(mutex)));
        Self
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        BUSY.with_borrow_mut(|busy| _ = busy.pop());
    }
}
