//! Whose a value is to give back once its channel has ended: its own send's, which still waits and returns it with an
//! error, or that of whoever asks for what is unsettled. Each value goes back once.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::SendState;

/// An encoded value that is not known taken, and whether it may have been received.
pub(crate) type Unsettled = (Bytes, bool);

/// Claims to the values of one life of a channel, by number.
#[derive(Default)]
pub(crate) struct Claims {
    life: u64,
    /// Values whose sends wait for their fate, in order.
    awaited: VecDeque<u64>,
    /// Values that went back with an error.
    returned: BTreeSet<u64>,
    /// Awaited values that stayed behind when the others were handed out.
    kept: Vec<(u64, Unsettled)>,
}

impl Claims {
    /// Claims to the values of another life.
    pub(super) fn new(life: u64) -> Self {
        Self { life, ..Self::default() }
    }

    /// Whether the numbers of that life still mean these values.
    pub(crate) const fn are_of(&self, life: u64) -> bool {
        self.life == life
    }

    /// Whether a send has given that value back, or will.
    pub(super) fn has(&self, seq: u64) -> bool {
        self.returned.contains(&seq) || self.awaited.binary_search(&seq).is_ok()
    }

    /// A send waits for the fate of its value, the newest.
    #[inline]
    pub(crate) fn stake(&mut self, seq: u64) {
        self.awaited.push_back(seq);
    }

    /// The send waits no more, and has not given its value back.
    #[inline]
    pub(crate) fn drop_stake(&mut self, seq: u64) {
        if let Ok(at) = self.awaited.binary_search(&seq) {
            self.awaited.remove(at);
        }
    }

    /// The send waits no more, and gives its value back. Everything below `taken` is settled.
    pub(crate) fn give_back(&mut self, seq: u64, taken: u64) {
        self.drop_stake(seq);
        let kept = self.kept.len();
        self.kept.retain(|(number, _)| *number != seq);
        if self.kept.len() == kept {
            self.returned = self.returned.split_off(&taken);
            self.returned.insert(seq);
        }
    }
}

impl SendState {
    /// Takes every value out that is not known taken and that nobody else gives back, oldest first; none before the end.
    pub(crate) fn take_unsettled(&mut self) -> Vec<Unsettled> {
        if self.end.is_none() && self.half.peer_closed().is_none() {
            return Vec::new();
        }
        let claims = &mut self.claims;
        let mut found = std::mem::take(&mut claims.kept);
        self.half.for_each_unsettled(|value| {
            if !claims.returned.remove(&value.seq) {
                found.push((value.seq, (value.payload.into_bytes(), value.in_doubt)));
            }
        });
        self.half.drop_unsettled();
        let (kept, free): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(seq, _)| claims.awaited.binary_search(seq).is_ok());
        claims.kept = kept;
        free.into_iter().map(|(_, value)| value).chain(self.owed.take()).collect()
    }
}
