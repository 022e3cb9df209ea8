//! What a broadcast sends to a subscriber: values of a channel, like those of deliveries (`CAST-8`).

use super::{Reader, WireError, write_varint};

/// One value of a subscriber's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// A value of the program's, encoded.
    Value(&'a [u8]),
    /// So many values were lost here.
    Lagged(u64),
}

impl<'a> Told<'a> {
    /// Stands before a value.
    pub const VALUE: u8 = 0;

    /// Stands before the number of values that were lost.
    pub const LAGGED: u8 = 1;

    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) => {
                out.push(Self::VALUE);
                out.extend_from_slice(value);
            }
            Self::Lagged(lost) => {
                out.push(Self::LAGGED);
                write_varint(out, lost);
            }
        }
    }

    /// Reads one that is all of `bytes`.
    ///
    /// # Errors
    /// [`WireError`] that says what is wrong with the bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            Self::VALUE => Ok(Self::Value(reader.rest())),
            Self::LAGGED => {
                let lost = reader.varint()?;
                if reader.is_empty() { Ok(Self::Lagged(lost)) } else { Err(WireError::Trailing) }
            }
            _ => Err(WireError::Invalid("broadcast")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cast_8_round_trips_and_has_one_encoding() {
        for told in [Told::Value(b""), Told::Value(b"\x01\x02"), Told::Lagged(0), Told::Lagged(u64::MAX)] {
            let mut bytes = Vec::new();
            told.write(&mut bytes);
            assert_eq!(Told::read(&bytes), Ok(told));
            bytes.push(0);
            match told {
                Told::Value(_) => assert_eq!(Told::read(&bytes), Ok(Told::Value(&bytes[1..]))),
                Told::Lagged(_) => assert_eq!(Told::read(&bytes), Err(WireError::Trailing)),
            }
        }
        assert_eq!(Told::read(&[]), Err(WireError::Truncated));
        assert_eq!(Told::read(&[1]), Err(WireError::Truncated));
        assert_eq!(Told::read(&[1, 0x80, 0]), Err(WireError::Varint));
        assert_eq!(Told::read(&[2, 0]), Err(WireError::Invalid("broadcast")));
    }
}
