//! How much of tokio's cooperative budget an operation costs.

use std::task::{Context, Poll};

use tokio::task::coop::{self, RestoreOnPending};

/// Values sent or received for one unit of the budget. A unit is meant for one operation that may cost a system call, and
/// a task has 128 of them. A value that moves between a task and a batch costs some 50 ns; giving way after every 128 of
/// those would cost more than they do. So a task gives way after 1,024 values, about 100 microseconds.
const VALUES_PER_UNIT: u64 = 8;

/// What a value may cost: a unit, or nothing.
pub(crate) struct Charge(Option<RestoreOnPending>);

impl Charge {
    #[inline]
    pub(crate) fn made_progress(self) {
        if let Some(unit) = self.0 {
            unit.made_progress();
        }
    }
}

/// Takes a unit of the budget for the value that is number `count` on its channel, if it is that one's turn to pay.
#[inline]
pub(crate) fn poll_unit(cx: &mut Context<'_>, count: u64) -> Poll<Charge> {
    if !count.is_multiple_of(VALUES_PER_UNIT) {
        return Poll::Ready(Charge(None));
    }
    coop::poll_proceed(cx).map(|unit| Charge(Some(unit)))
}
