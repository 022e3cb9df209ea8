//! The time of a queue, and the one timer that sees to what time has come for.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Hub;

/// When somebody looks what time has come for, and the task that does.
#[derive(Default)]
pub(super) struct Timer(Mutex<Option<(u64, AbortHandle)>>);

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((_, task)) = self.0.get_mut() {
            task.abort();
        }
    }
}

/// In milliseconds; what is due at the end of a millisecond is due.
pub(super) fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Hub {
    pub(super) fn millis(&self) -> u64 {
        millis_of(self.started.elapsed())
    }

    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Sees that somebody looks at `timeout`. An earlier look stays: there is nothing to do then, and it looks again.
    #[inline]
    pub(super) fn arm(&self, timeout: Option<u64>) {
        if let Some(at) = timeout {
            self.arm_at(at);
        }
    }

    fn arm_at(&self, at: u64) {
        let mut timer = self.timer.0.lock();
        if timer.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return;
        }
        let Some(runtime) = self.runtime() else { return };
        let hub = self.this.clone();
        let wait = Duration::from_millis(at.saturating_sub(self.millis()).saturating_add(1)).min(SLEEP_MAX);
        let task = runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(hub) = hub.upgrade() {
                hub.tick();
            }
        });
        if let Some((_, earlier)) = timer.replace((at, task.abort_handle())) {
            earlier.abort();
        }
    }

    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        let kept = self.keeper.upgrade().and_then(|keeper| keeper.runtime());
        kept.or_else(|| tokio::runtime::Handle::try_current().ok())
    }

    /// The timer has gone off.
    fn tick(&self) {
        *self.timer.0.lock() = None;
        let now = self.millis();
        self.run(|queue, out| queue.handle_timeout(now, out));
    }
}

/// No timer sleeps longer; it looks then, and sleeps again.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3_600);
