//! Work that one task does at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who asked for the work since whoever is at it last looked.
#[derive(Default)]
pub(super) struct OneAtATime(AtomicUsize);

impl OneAtATime {
    /// Does the work, again and again until nobody has asked for it meanwhile. False, and nothing is done, if another task is
    /// at it, which does it once more then.
    pub(super) fn run(&self, mut work: impl FnMut()) -> bool {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return false;
        }
        loop {
            let asked = self.0.load(Ordering::SeqCst);
            work();
            if self.0.compare_exchange(asked, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return true;
            }
        }
    }
}
