//! What is sent: a typed message of about 64 bytes, and a block of bytes; each with a checksum for the consumer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A small typed message: three integers, a float, a 16-byte id, an enum and a string; 58 bytes in postcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    sequence: u64,
    time_us: u64,
    quantity: u32,
    price: f64,
    id: [u8; 16],
    side: Side,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Side {
    Buy,
    Sell,
    Cancel,
    Amend,
}

/// The first sequence number: from here on its varint has four bytes for 266 million messages.
const FIRST: u64 = 1 << 21;

impl Message {
    /// The nominal size of the smallest message, as the user gives it; a larger one has a longer string.
    pub(super) const SMALLEST: usize = 64;
    /// The string of the smallest message: 17 characters.
    const TEXT: &'static str = "order/desk-7/EURX";

    /// A message of the given nominal size, to be stamped with a number or copied.
    pub(super) fn template(size: usize) -> Self {
        let mut text = Self::TEXT.to_string();
        text.extend(std::iter::repeat_n('x', size.saturating_sub(Self::SMALLEST)));
        let mut message =
            Self { sequence: 0, time_us: 0, quantity: 0, price: 0.0, id: [0x5a; 16], side: Side::Buy, text };
        message.stamp(0);
        message
    }

    /// Turns this message into the n-th one, in place.
    #[inline]
    pub(super) fn stamp(&mut self, n: u64) {
        self.sequence = FIRST + n;
        self.time_us = 1_700_000_000_000_000 + n;
        self.quantity = 16_384 + (n % 1_000_000) as u32;
        self.price = n as f64 * 0.25;
        self.id[..8].copy_from_slice(&n.to_le_bytes());
        self.side = [Side::Buy, Side::Sell, Side::Cancel, Side::Amend][(n % 4) as usize];
    }

    /// The n-th message as a value of its own, for those who send values.
    #[inline]
    pub(super) fn numbered(&self, n: u64) -> Self {
        let mut message = self.clone();
        message.stamp(n);
        message
    }

    /// Turns a task into its result, in place. The result has a field that only those know who have read another of the
    /// task's, and as many bytes.
    #[inline]
    pub(super) fn work(&mut self) {
        self.time_us += u64::from(self.quantity);
    }

    /// The result as a value of its own, for those who send values.
    #[inline]
    pub(super) fn result(&self) -> Self {
        let mut result = self.clone();
        result.work();
        result
    }

    /// Whether this is the n-th message.
    pub(super) fn is_numbered(&self, n: u64) -> bool {
        self.sequence == FIRST + n
    }

    /// A checksum over all fields, cheap beside decoding.
    #[inline]
    pub(super) fn checksum(&self) -> u64 {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        let words = self.text.as_bytes().chunks_exact(8);
        let tail = words.remainder().iter().fold(self.text.len() as u64, |sum, &b| sum + u64::from(b));
        words
            .fold(tail, |sum, chunk| sum.wrapping_add(word(chunk)))
            .wrapping_add(self.sequence)
            .wrapping_add(self.time_us.wrapping_mul(3))
            .wrapping_add(u64::from(self.quantity).wrapping_mul(5))
            .wrapping_add(self.price.to_bits())
            .wrapping_add(word(&self.id[..8]).wrapping_mul(7))
            .wrapping_add(word(&self.id[8..]))
            .wrapping_add(self.side as u64)
    }

    /// The sum of the checksums of the first `count` messages.
    pub(super) fn checksum_of_first(size: usize, count: u64) -> u64 {
        Self::checksum_of(size, count, |_| ())
    }

    /// The sum of the checksums of the results of the first `count` tasks.
    pub(super) fn checksum_of_results(size: usize, count: u64) -> u64 {
        Self::checksum_of(size, count, Self::work)
    }

    fn checksum_of(size: usize, count: u64, change: impl Fn(&mut Self)) -> u64 {
        let mut message = Self::template(size);
        (0..count).fold(0, |sum: u64, n| {
            message.stamp(n);
            change(&mut message);
            sum.wrapping_add(message.checksum())
        })
    }
}

/// A block of bytes without a pattern that anything could exploit.
pub(super) fn block(size: usize) -> Bytes {
    let mut state = 0x243f_6a88_85a3_08d3_u64;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(byte).take(size).collect::<Vec<u8>>().into()
}

/// A checksum that touches every cache line of a block.
#[inline]
pub(super) fn block_checksum(block: &[u8]) -> u64 {
    block
        .chunks(64)
        .filter_map(|line| line.first_chunk::<8>())
        .fold(block.len() as u64, |sum, &word| sum.wrapping_add(u64::from_le_bytes(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_message_has_58_bytes_in_postcard() {
        let mut message = Message::template(Message::SMALLEST);
        for n in [0, 1, 999_999, 1_000_000, 200_000_000] {
            message.stamp(n);
            let bytes = postcard::to_stdvec(&message).unwrap();
            assert_eq!(bytes.len(), 58, "message {n}");
            assert_eq!(postcard::from_bytes::<Message>(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn a_larger_size_is_a_longer_string() {
        let large = postcard::to_stdvec(&Message::template(1000)).unwrap();
        assert_eq!(large.len(), 58 + (1000 - 64) + 1, "one byte more for the string's length");
    }

    #[test]
    fn a_result_has_as_many_bytes_as_its_task_and_another_checksum() {
        for n in [0, 1, 999_999, 200_000_000] {
            let task = Message::template(Message::SMALLEST).numbered(n);
            let result = task.result();
            assert_eq!(postcard::to_stdvec(&result).unwrap().len(), 58, "result {n}");
            assert_ne!(result.checksum(), task.checksum(), "result {n}");
        }
        let of_two = [0, 1].map(|n| Message::template(80).numbered(n).result().checksum());
        assert_eq!(Message::checksum_of_results(80, 2), of_two[0].wrapping_add(of_two[1]));
    }

    #[test]
    fn every_field_counts() {
        let message = Message::template(80);
        let sum = message.checksum();
        let changes: [fn(&mut Message); 8] = [
            |m| m.sequence += 1,
            |m| m.time_us += 1,
            |m| m.quantity += 1,
            |m| m.price += 1.0,
            |m| m.id[0] += 1,
            |m| m.id[15] += 1,
            |m| m.side = Side::Amend,
            |m| m.text.replace_range(16..17, "!"),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut changed = message.clone();
            change(&mut changed);
            assert_ne!(changed.checksum(), sum, "change {at}");
        }
        assert_eq!(
            Message::checksum_of_first(80, 2),
            message.numbered(0).checksum().wrapping_add(message.numbered(1).checksum())
        );
    }

    #[test]
    fn a_block_checksum_touches_every_line() {
        let good = block(1000);
        for at in (0..1000).step_by(64) {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert_ne!(block_checksum(&bad), block_checksum(&good), "line at {at}");
        }
    }
}
