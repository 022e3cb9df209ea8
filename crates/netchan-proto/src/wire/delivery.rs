//! What the channels of a delivery carry (`DEL-10` to `DEL-12`): values of channels, not control frames, so they survive a
//! lost link as all values do.

use super::{Reader, WireError, write_varint};
use crate::id::ChannelId;

/// The most that stands before a value of a program's on a channel of deliveries, of acknowledgements or of a broadcast: such
/// channels carry messages that are so much longer (`FLOW-8`).
pub const HEAD_BYTES_MAX: usize = 32;

/// The longest [`Handed`].
pub const HANDED_BYTES_MAX: usize = 5;

/// Stands before each value that is handed to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// How often it was handed to a holder before, as far as is known.
    pub attempts: u32,
    /// It may have been received before.
    pub redelivered: bool,
}

impl Handed {
    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(self.attempts) << 1 | u64::from(self.redelivered));
    }

    /// The same, in a buffer of the caller's.
    #[must_use]
    pub fn encode(self, buffer: &mut [u8; HANDED_BYTES_MAX]) -> &[u8] {
        let mut word = u64::from(self.attempts) << 1 | u64::from(self.redelivered);
        let mut len = 0;
        while word >= 0x80 {
            buffer[len] = word as u8 | 0x80;
            word >>= 7;
            len += 1;
        }
        buffer[len] = word as u8;
        &buffer[..=len]
    }

    /// Splits it from the value behind it.
    ///
    /// # Errors
    /// [`WireError`] when the bytes do not start with one.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut reader = Reader::new(bytes);
        let word = reader.varint()?;
        let attempts = u32::try_from(word >> 1).map_err(|_| WireError::Invalid("attempts"))?;
        Ok((Self { attempts, redelivered: word & 1 != 0 }, reader.rest()))
    }
}

/// What a holder does with a delivery, by its number in the channel of the deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// It is done.
    Ack {
        /// The delivery.
        number: u64,
    },
    /// It is given back.
    Nack {
        /// The delivery.
        number: u64,
        /// Nobody gets it before so many milliseconds have passed.
        delay_millis: u64,
    },
    /// It stays with this holder for so many milliseconds from now, even one that cannot be reached.
    Extend {
        /// The delivery.
        number: u64,
        /// For how long.
        millis: u64,
    },
    /// It is done, and this is its result: both or neither.
    AckWith {
        /// The delivery.
        number: u64,
        /// The channel, of this session, that the result goes into.
        results: ChannelId,
        /// The encoded result.
        value: &'a [u8],
    },
}

/// An [`Ask`] without the value of its result, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct AskHead {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl AskHead {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }
}

impl std::ops::Deref for AskHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<'a> Ask<'a> {
    /// Appends it. `token` names it in the answer; 0 wants none.
    pub fn write(&self, token: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head(token));
        if let Self::AckWith { value, .. } = self {
            out.extend_from_slice(value);
        }
    }

    /// Everything but the value of a result, which comes behind it. `token` names the ask in the answer; 0 wants none.
    #[must_use]
    pub fn head(&self, token: u64) -> AskHead {
        let (kind, number, rest) = match *self {
            Self::Ack { number } => (0, number, None),
            Self::Nack { number, delay_millis } => (1, number, Some(delay_millis)),
            Self::Extend { number, millis } => (2, number, Some(millis)),
            Self::AckWith { number, results, .. } => (3, number, Some(u64::from(results.0))),
        };
        // Three varints of ten bytes at most, and the kind.
        let mut head = AskHead { bytes: [0; HEAD_BYTES_MAX], len: 0 };
        head.varint(token);
        head.push(kind);
        head.varint(number);
        if let Some(rest) = rest {
            head.varint(rest);
        }
        head
    }

    /// Reads one that is all of `bytes`, and its token.
    ///
    /// # Errors
    /// [`WireError`] that says what is wrong with the bytes.
    pub fn read(bytes: &'a [u8]) -> Result<(u64, Self), WireError> {
        let mut reader = Reader::new(bytes);
        let (token, kind, number) = (reader.varint()?, reader.u8()?, reader.varint()?);
        let ask = match kind {
            0 => Self::Ack { number },
            1 => Self::Nack { number, delay_millis: reader.varint()? },
            2 => Self::Extend { number, millis: reader.varint()? },
            3 => {
                let results = ChannelId(reader.varint_u32()?);
                return Ok((token, Self::AckWith { number, results, value: reader.rest() }));
            }
            _ => return Err(WireError::Invalid("ask")),
        };
        if reader.is_empty() { Ok((token, ask)) } else { Err(WireError::Trailing) }
    }
}

/// What became of an [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was done.
    Done,
    /// The asker does not hold the delivery any more: nothing was done (`DEL-2`).
    Fenced,
    /// The channel for the result is closed: nothing was done.
    ResultsClosed,
    /// The channel for the result is none that takes results: nothing was done.
    NoResults,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Done, Self::Fenced, Self::ResultsClosed, Self::NoResults];
}

/// What a server tells a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to an ask.
    Answer {
        /// Its token.
        token: u64,
        /// What became of it.
        verdict: Verdict,
    },
    /// A delivery is not this holder's any more, whether it has arrived or not.
    Fenced {
        /// The delivery.
        number: u64,
    },
}

impl Outcome {
    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::Answer { token, verdict } => (verdict as u8, token),
            Self::Fenced { number } => (0x10, number),
        };
        out.push(kind);
        write_varint(out, number);
    }

    /// Reads one that is all of `bytes`.
    ///
    /// # Errors
    /// [`WireError`] that says what is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (kind, number) = (reader.u8()?, reader.varint()?);
        if !reader.is_empty() {
            return Err(WireError::Trailing);
        }
        match (kind, Verdict::ALL.get(usize::from(kind))) {
            (0x10, _) => Ok(Self::Fenced { number }),
            (_, Some(verdict)) => Ok(Self::Answer { token: number, verdict: *verdict }),
            _ => Err(WireError::Invalid("outcome")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn del_10_to_12_round_trip_and_have_one_encoding() {
        let value = [7, 8, 9];
        let asks = [
            Ask::Ack { number: 300 },
            Ask::Nack { number: 1, delay_millis: 0 },
            Ask::Extend { number: u64::MAX, millis: 60_000 },
            Ask::AckWith { number: 2, results: ChannelId(5), value: &value },
        ];
        for ask in asks {
            let mut bytes = Vec::new();
            ask.write(1_000, &mut bytes);
            assert_eq!(Ask::read(&bytes), Ok((1_000, ask)));
            assert!(bytes.starts_with(&ask.head(1_000)));
            let shorter = bytes.len() - 1;
            assert!(Ask::read(&bytes[..shorter]) != Ok((1_000, ask)));
            if !matches!(ask, Ask::AckWith { .. }) {
                bytes.push(0);
                assert_eq!(Ask::read(&bytes), Err(WireError::Trailing));
            }
        }
        let longest = Ask::Nack { number: u64::MAX, delay_millis: u64::MAX };
        assert!(longest.head(u64::MAX).len() <= HEAD_BYTES_MAX);
        let outcomes = Verdict::ALL.map(|verdict| Outcome::Answer { token: 9, verdict });
        for outcome in outcomes.into_iter().chain([Outcome::Fenced { number: 1 << 40 }]) {
            let mut bytes = Vec::new();
            outcome.write(&mut bytes);
            assert_eq!(Outcome::read(&bytes), Ok(outcome));
        }
        assert_eq!(Outcome::read(&[4, 0]), Err(WireError::Invalid("outcome")));
        for handed in
            [Handed { attempts: 0, redelivered: true }, Handed { attempts: u32::MAX, redelivered: false }]
        {
            let mut bytes = Vec::new();
            handed.write(&mut bytes);
            assert!(bytes.len() <= HANDED_BYTES_MAX);
            assert_eq!(handed.encode(&mut [0; HANDED_BYTES_MAX]), bytes);
            bytes.extend_from_slice(&value);
            assert_eq!(Handed::split(&bytes), Ok((handed, &value[..])));
        }
    }
}
