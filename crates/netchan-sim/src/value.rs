//! Values that say where they come from, and show damage.

/// Which value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The channel it is sent on.
    pub chan: u32,
    /// Who sends it.
    pub sender: u32,
    /// Its number among those of its sender.
    pub number: u64,
}

const HEAD_BYTES: usize = 16;

impl Value {
    /// The value, at least 16 bytes long.
    #[must_use]
    pub fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.max(HEAD_BYTES));
        bytes.extend(self.chan.to_be_bytes());
        bytes.extend(self.sender.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        let fill = self.fill(len);
        bytes.resize(len.max(HEAD_BYTES), fill);
        bytes
    }

    fn fill(&self, len: usize) -> u8 {
        (self.number as u8).wrapping_mul(31) ^ self.chan as u8 ^ (len as u8).wrapping_add(self.sender as u8)
    }

    /// The value that these bytes are, if they are whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let value = Self { chan: number(0..4) as u32, sender: number(4..8) as u32, number: number(8..16) };
        let fill = value.fill(bytes.len());
        tail.iter().all(|byte| *byte == fill).then_some(value)
    }
}
