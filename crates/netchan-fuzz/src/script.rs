//! Bytes read as choices. Where they end, every choice is the first and every piece is empty.

/// Choices that are left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of so many.
    pub(crate) fn one_of(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    /// A place in something so long, its end included.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        usize::from(self.u16()) % (len + 1)
    }

    /// The next bytes, as many as there are of so many.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// A number of any size; small ones, and those near the ends, are likely.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=0xdf => u64::from(small),
            high @ 0xe0..=0xef => u64::MAX - u64::from(high & 0xf),
            0xf0..=0xf7 => u64::from(self.u16()),
            _ => u64::from_be_bytes(self.array()),
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
