//! Whose a value is to give back once its channel has ended: its own send's, which still waits and returns it with an
//! error, or that of whoever asks for what is unsettled. Each value goes back once.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::SendState;

/// An encoded value that is not known taken, and whether it may have been received.
pub(crate) type Unsettled = (Bytes, bool);

/// A value whose send waits for its fate, as that send knows it: by the life of the channel and the number in which it was
/// committed. What was committed earlier is less.
pub(super) type Stake = (u64, u64);

/// A value whose send waits, and where it is.
struct Awaited {
    stake: Stake,
    /// Its number in the channel's present life; none yet while it is owed.
    seq: Option<u64>,
}

/// Claims to the values of one life of a channel.
#[derive(Default)]
pub(crate) struct Claims {
    life: u64,
    /// In order; what is owed is sent before anything newer, so that the numbers are in order too.
    awaited: VecDeque<Awaited>,
    /// Numbers of values that went back with an error.
    returned: BTreeSet<u64>,
    /// Awaited values that stayed behind when the others were handed out.
    kept: Vec<(u64, Unsettled)>,
}

impl Claims {
    /// Claims to the values of another life: what is owed from earlier ones is still awaited, if it was.
    pub(super) fn go_on(&mut self, life: u64, owed: impl Iterator<Item = Stake>) {
        let awaited = owed.filter(|stake| self.awaits(*stake)).map(|stake| Awaited { stake, seq: None });
        *self = Self { life, awaited: awaited.collect(), ..Self::default() };
    }

    /// Whether the numbers of that life are those of now.
    pub(crate) const fn are_of(&self, life: u64) -> bool {
        self.life == life
    }

    /// Whether that value went back already.
    pub(super) fn has_returned(&self, seq: u64) -> bool {
        self.returned.contains(&seq)
    }

    /// That value's send, if it waits.
    pub(super) fn stake_of(&self, seq: u64) -> Option<Stake> {
        let of_number = |awaited: &Awaited| awaited.seq.unwrap_or(u64::MAX);
        let at = self.awaited.binary_search_by_key(&seq, of_number).ok()?;
        Some(self.awaited[at].stake)
    }

    fn find(&self, stake: Stake) -> Option<usize> {
        self.awaited.binary_search_by_key(&stake, |awaited| awaited.stake).ok()
    }

    pub(super) fn awaits(&self, stake: Stake) -> bool {
        self.find(stake).is_some()
    }

    /// A send waits for the fate of its value, the newest.
    #[inline]
    pub(crate) fn stake(&mut self, seq: u64) {
        self.awaited.push_back(Awaited { stake: (self.life, seq), seq: Some(seq) });
    }

    /// The send waits no more, and has not given its value back.
    #[inline]
    pub(crate) fn drop_stake(&mut self, life: u64, seq: u64) {
        _ = self.end_stake((life, seq));
    }

    fn end_stake(&mut self, stake: Stake) -> Option<Awaited> {
        self.awaited.remove(self.find(stake)?)
    }

    /// What was owed has been sent, under this number. Everything below `taken` is settled.
    pub(super) fn paid(&mut self, stake: Option<Stake>, returned: bool, seq: u64, taken: u64) {
        if returned {
            self.note_returned(seq, taken);
        } else if let Some(at) = stake.and_then(|stake| self.find(stake)) {
            self.awaited[at].seq = Some(seq);
        }
    }

    fn note_returned(&mut self, seq: u64, taken: u64) {
        self.returned = self.returned.split_off(&taken);
        self.returned.insert(seq);
    }
}

impl SendState {
    /// The send of a value waits no more, and gives it back.
    pub(crate) fn give_back(&mut self, life: u64, seq: u64) {
        let claims = &mut self.claims;
        // One that is neither here nor owed has been settled, or dropped, with an earlier life.
        let Some(Awaited { stake, seq }) = claims.end_stake((life, seq)) else { return };
        let Some(seq) = seq else { return self.owed.note_returned(stake) };
        let kept = claims.kept.len();
        claims.kept.retain(|(number, _)| *number != seq);
        if claims.kept.len() == kept {
            claims.note_returned(seq, self.half.taken());
        }
    }

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
            found.into_iter().partition(|(seq, _)| claims.stake_of(*seq).is_some());
        claims.kept = kept;
        free.into_iter().map(|(_, value)| value).chain(self.owed.take_free(claims)).collect()
    }
}
