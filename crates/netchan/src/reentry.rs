//! What a thread is encoding or decoding, so that a value whose own `Serialize` uses the channel it travels on gets an
//! error and not a deadlock.

use std::cell::Cell;

use parking_lot::{Mutex, MutexGuard};

use crate::patience;

/// Nested encodings that are told apart; deeper ones count as re-entering whenever a lock is taken.
const DEPTH_MAX: usize = 4;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static BUSY: [Cell<usize>; DEPTH_MAX] = const { [const { Cell::new(0) }; DEPTH_MAX] };
}

fn key<T>(mutex: &Mutex<T>) -> usize {
    std::ptr::from_ref(mutex).addr()
}

/// Locks, unless this very thread holds the lock while it runs user code.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().or_else(|| lock_contended(mutex))
}

/// Locks for an operation that has no error to say that it was called by the value's own encoding.
///
/// # Panics
/// When this very thread holds the lock while it runs user code: the panic ends that, and leaves the channel as it was.
#[inline]
#[track_caller]
pub(crate) fn enter<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    lock(mutex).expect("Serialize and Deserialize may not use the channel that their own value travels on")
}

#[cold]
fn lock_contended<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let depth = DEPTH.get();
    let held = BUSY.with(|busy| busy.iter().take(depth).any(|held| held.get() == key(mutex)));
    (!held && depth <= DEPTH_MAX).then(|| patience::lock(mutex))
}

/// Whether this thread runs user code under some channel's lock: then nothing may be written, for that locks channels.
#[inline]
pub(crate) fn is_busy() -> bool {
    DEPTH.get() > 0
}

/// Marks that user code runs under a lock, until dropped.
pub(crate) struct Busy;

impl Busy {
    #[inline]
    pub(crate) fn under<T>(mutex: &Mutex<T>) -> Self {
        let depth = DEPTH.get();
        BUSY.with(|busy| {
            if let Some(slot) = busy.get(depth) {
                slot.set(key(mutex));
            }
        });
        DEPTH.set(depth + 1);
        Self
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
