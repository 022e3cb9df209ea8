//! Waiting for locks that are never held for long.

use parking_lot::{Mutex, MutexGuard};

/// Looks at a lock before a thread goes to sleep over it: about two microseconds' worth, longer than a value takes and
/// shorter than the system calls of sleeping and being woken.
const LOOKS_MAX: u32 = 128;

/// Locks what others lock and release many times a microsecond: a channel in a stream. It comes free in no time; a lock that
/// queues would put this thread to sleep, and its next holder through a system call, for every batch.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.try_lock().unwrap_or_else(|| wait(mutex))
}

#[cold]
fn wait<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..LOOKS_MAX {
        std::hint::spin_loop();
        if !mutex.is_locked()
            && let Some(guard) = mutex.try_lock()
        {
            return guard;
        }
    }
    mutex.lock()
}
