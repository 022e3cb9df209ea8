//! Sends of this process into a channel of capacity 0.

use std::task::{Context, Poll};

use super::{Offer, Offered};
use crate::channel::{CloseReason, Payload};
use crate::exchange::{Output, Ports, Queue};
use crate::hosted::{SenderKey, Withdraw};

/// Offering, with capacity 0.
impl<P: Ports> Queue<P> {
    /// Puts a value on offer.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn offer(&mut self, value: Payload<'_>, out: &mut Output<P>) -> Result<SenderKey, CloseReason> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        let key = SenderKey(self.new_key());
        self.hosted.add_sender(key);
        self.local.offers.insert(key, Offer::default());
        let bytes = self.store.keep(value);
        if self.hosted.push_from(key, 0, None, bytes, false).is_err() {
            self.local.offers.remove(&key);
            return Err(CloseReason::plain());
        }
        self.carry_out(out);
        Ok(key)
    }

    /// Waits for the outcome of an offer: true when it was taken.
    pub fn poll_offer(&mut self, cx: &Context<'_>, key: SenderKey, out: &mut Output<P>) -> Poll<bool> {
        let Some(offer) = self.local.offers.get_mut(&key) else { return Poll::Ready(false) };
        let Some(taken) = offer.outcome else {
            offer.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.drop_offer(key, out);
        Poll::Ready(taken)
    }

    fn drop_offer(&mut self, key: SenderKey, out: &mut Output<P>) {
        self.local.offers.remove(&key);
        self.hosted.remove_sender(key);
        self.carry_out(out);
    }

    /// Wants an offer back.
    pub fn withdraw_offer(&mut self, key: SenderKey, out: &mut Output<P>) -> Offered {
        let outcome = match self.hosted.withdraw(key, 0) {
            Ok(Withdraw::Withdrawn) => Offered::Withdrawn,
            Ok(Withdraw::Taken) | Err(_) => Offered::Taken,
            Ok(Withdraw::Dispatched) => return Offered::Unknown,
        };
        self.drop_offer(key, out);
        outcome
    }

    /// Nobody waits for the outcome of an offer any more.
    pub fn abandon_offer(&mut self, key: SenderKey, out: &mut Output<P>) {
        if self.withdraw_offer(key, out) != Offered::Unknown {
            return;
        }
        let settled = self.local.offers.get_mut(&key).is_none_or(|offer| {
            offer.orphan = true;
            offer.outcome.is_some()
        });
        if settled {
            self.drop_offer(key, out);
        }
    }

    /// Says whether that was a local offer.
    pub(in crate::exchange) fn settle_offer(
        &mut self,
        key: SenderKey,
        taken: bool,
        out: &mut Output<P>,
    ) -> bool {
        let Some(offer) = self.local.offers.get_mut(&key) else { return false };
        offer.outcome.get_or_insert(taken);
        out.wakers.extend(offer.waker.take());
        if offer.orphan {
            self.local.offers.remove(&key);
            self.hosted.remove_sender(key);
        }
        true
    }
}
