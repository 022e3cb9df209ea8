//! Failures of acknowledgements whose futures were dropped, until somebody asks for them.

use parking_lot::Mutex;

use crate::error::{AckError, FailedAck, FlushAcksError};

/// Failures that are kept one by one; of later ones only the number. A session that is lost fails everything that is under
/// way at once, by default 256.
const FAILURES_MAX: usize = 1_024;

/// Shared by all lives of a subscription.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    failed: Vec<FailedAck>,
    more: u64,
}

impl Failures {
    pub(super) fn note(&self, delivery: u64, reason: AckError) {
        let mut kept = self.0.lock();
        if kept.failed.len() < FAILURES_MAX {
            kept.failed.push(FailedAck { delivery, reason });
        } else {
            kept.more += 1;
        }
    }

    /// Takes them all.
    pub(super) fn take(&self) -> Result<(), FlushAcksError> {
        let Kept { failed, more } = std::mem::take(&mut *self.0.lock());
        if failed.is_empty() { Ok(()) } else { Err(FlushAcksError { failed, more }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_bounded_and_taken_once() {
        let failures = Failures::default();
        (0..FAILURES_MAX as u64 + 3).for_each(|id| failures.note(id, AckError::Fenced));
        let error = failures.take().expect_err("there were some");
        assert_eq!((error.failed.len(), error.failed[7].delivery, error.more), (FAILURES_MAX, 7, 3));
        assert!(failures.take().is_ok());
    }
}
