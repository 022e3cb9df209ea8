//! Varints (`WIRE-1`) and a checked cursor over received bytes.

use super::WireError;

/// Appends `value` as an unsigned LEB128 varint.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes `value` takes as a varint.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads fields from the front of a slice; every length is checked before it is used.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when none is left.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    /// The next varint.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Varint`] when it is not in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.varint_long(),
        }
    }

    fn varint_long(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(WireError::Varint);
            }
            value |= part << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(WireError::Varint) } else { Ok(value) };
            }
        }
        Err(WireError::Varint)
    }

    /// The next varint, which must fit 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`], or [`WireError::Invalid`] when it does not fit.
    pub fn varint_u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.varint()?).map_err(|_| WireError::Invalid("more than 32 bits"))
    }

    /// The next text: a varint length of at most `bytes_max`, then UTF-8 (`WIRE-4`).
    ///
    /// # Errors
    /// As [`Reader::varint`], or [`WireError::Invalid`] when it is too long or not UTF-8.
    pub fn text(&mut self, bytes_max: usize) -> Result<String, WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Invalid("text too long"))?;
        if len > bytes_max {
            return Err(WireError::Invalid("text too long"));
        }
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Invalid("text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wire_1_varints_round_trip(value: u64) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn wire_1_any_accepted_varint_is_the_shortest(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let used = bytes.len() - reader.rest().len();
                prop_assert_eq!(used, varint_len(value));
            }
        }
    }

    #[test]
    fn wire_1_overlong_and_overflowing_varints_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 10], &[0xff; 9]] {
            assert!(Reader::new(bytes).varint().is_err(), "{bytes:?}");
        }
    }
}
