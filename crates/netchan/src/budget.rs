//! How much of tokio's cooperative budget the values of a channel cost.

use std::task::{Context, Poll};

use tokio::task::coop::{self, RestoreOnPending};

/// Values for one unit. A task has 128 units, and each is meant for one operation on a socket, some microseconds; so many
/// values that move between a task and a batch take about as long. To give way costs as much again, and wakes another
/// thread to look for work: a stream that gave way after every 128 values would do little else.
const VALUES_PER_UNIT: u64 = 64;

/// Encoded bytes for one unit: long values cost more.
const BYTES_PER_UNIT: u64 = 4 * 1_024;

/// What has been paid for on a channel so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    values: u64,
    bytes: u64,
}

/// What a value costs: a unit, or nothing.
pub(crate) struct Charge(Option<RestoreOnPending>);

impl Charge {
    #[inline]
    pub(crate) fn made_progress(self) {
        if let Some(unit) = self.0 {
            unit.made_progress();
        }
    }
}

impl Meter {
    /// Takes a unit of the budget if one is due, now that `values` values with `bytes` bytes have passed.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, values: u64, bytes: u64) -> Poll<Charge> {
        let due = values.wrapping_sub(self.values) >= VALUES_PER_UNIT
            || bytes.wrapping_sub(self.bytes) >= BYTES_PER_UNIT;
        if !due {
            return Poll::Ready(Charge(None));
        }
        coop::poll_proceed(cx).map(|unit| {
            *self = Self { values, bytes };
            Charge(Some(unit))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test]
    async fn a_task_gives_way_after_so_many_values_or_bytes() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut meter = Meter::default();
        let mut passed = |values: u64, bytes_each: u64| {
            let mut count = 0;
            while let Poll::Ready(charge) = meter.poll(&mut cx, count * values, count * bytes_each) {
                charge.made_progress();
                count += 1;
                assert!(count < 1 << 20, "it never gives way");
            }
            count
        };
        assert!((8_000..8_400).contains(&passed(1, 1)));
        tokio::task::yield_now().await;
        assert!(passed(1, 1 << 20) <= 129, "a long value costs a unit");
    }
}
