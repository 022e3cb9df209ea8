//! What a sending end owes from a session that was lost.

use std::collections::VecDeque;

use bytes::Bytes;
use netchan_proto::channel::{self, CloseReason, PushError, close_code};

use super::SendState;
use super::claims::{Claims, Stake, Unsettled};
use crate::error::SessionEnd;

/// Values that are sent before anything else is.
#[derive(Default)]
pub(crate) struct Owed {
    /// Oldest first.
    values: VecDeque<OwedValue>,
}

pub(super) struct OwedValue {
    bytes: Bytes,
    /// It may have been received.
    in_doubt: bool,
    /// Its send, if that waited.
    stake: Option<Stake>,
    /// Its send has given it back.
    returned: bool,
}

impl OwedValue {
    pub(super) fn new(value: channel::Unsettled<'_>, claims: &Claims) -> Self {
        let (stake, returned) = (claims.stake_of(value.seq), claims.has_returned(value.seq));
        Self { bytes: value.payload.into_bytes(), in_doubt: value.in_doubt, stake, returned }
    }
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many certainly did not arrive, and how many may have.
    pub(super) fn count(&self) -> (u64, u64) {
        let in_doubt = self.values.iter().filter(|value| value.in_doubt).count() as u64;
        (self.values.len() as u64 - in_doubt, in_doubt)
    }

    pub(super) fn go_before(&mut self, mut values: VecDeque<OwedValue>) {
        values.append(&mut self.values);
        self.values = values;
    }

    /// The sends that waited, in order.
    pub(super) fn stakes(&self) -> impl Iterator<Item = Stake> {
        self.values.iter().filter_map(|value| value.stake)
    }

    pub(super) fn note_returned(&mut self, stake: Stake) {
        let value = self.values.iter_mut().find(|value| value.stake == Some(stake));
        if let Some(value) = value {
            value.returned = true;
        }
    }

    /// Takes out what nobody else gives back.
    pub(super) fn take_free(&mut self, claims: &Claims) -> impl Iterator<Item = Unsettled> {
        let values = std::mem::take(&mut self.values).into_iter().filter(|value| !value.returned);
        let (awaited, free): (VecDeque<_>, VecDeque<_>) =
            values.partition(|value| value.stake.is_some_and(|stake| claims.awaits(stake)));
        self.values = awaited;
        free.into_iter().map(|value| (value.bytes, value.in_doubt))
    }
}

impl SendState {
    /// Sends what is owed, as far as there is credit; then others may send. Says whether there may be something to write.
    pub(super) fn pay(&mut self) -> bool {
        if !self.half.is_held() {
            return false;
        }
        self.half.hold(false);
        while let Some(OwedValue { bytes, in_doubt, stake, returned }) = self.owed.values.front() {
            let bytes = bytes.clone();
            match self.half.push_owed(*in_doubt, |item| item.share(bytes)) {
                Ok(pushed) => {
                    self.claims.paid(*stake, *returned, pushed.seq, self.half.taken());
                    self.owed.values.pop_front();
                }
                Err(PushError::Full) => {
                    self.half.want(self.waiting());
                    self.half.hold(true);
                    return true;
                }
                // What is left stays with what `take_unsettled` finds.
                Err(PushError::Closed) => break,
                Err(PushError::TooLarge { .. } | PushError::Encode(_)) => {
                    let why = "a value to be sent again is longer than the server takes now";
                    self.end.get_or_insert_with(|| SessionEnd::Lost(why.to_owned()));
                    self.half.reset(CloseReason { code: close_code::ABANDONED, reason: why.to_owned() });
                    self.senders.wake_all();
                    self.watchers.wake_all();
                    return true;
                }
            }
        }
        // Those who wait asked in a session that is over.
        self.half.want(self.waiting());
        true
    }

    /// How many values wait for credit.
    pub(crate) fn waiting(&self) -> u64 {
        (self.owed.values.len() + self.senders.len()) as u64
    }
}
