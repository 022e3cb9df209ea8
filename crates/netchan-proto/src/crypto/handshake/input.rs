//! Cuts the input into TLS records, one at a time and never a byte more.

use crate::crypto::error::HandshakeError;
use crate::limits::{CLIENT_HELLO_BYTES_MAX, UNAUTHENTICATED_BYTES_MAX};

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Which records may come next. What rustls does not authenticate of a record that it decrypts, its type and its legacy
/// version, is pinned here (`HS-6`, `HS-7`): no bit can be changed unnoticed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    kinds: &'static [u8],
    version: [u8; 2],
}

impl Expected {
    /// The ClientHello, behind the gate.
    pub(super) const CLIENT_HELLO: Self = Self { kinds: &[HANDSHAKE], version: [3, 1] };

    /// The ServerHello, the last record in the clear.
    pub(super) const SERVER_HELLO: Self = Self { kinds: &[HANDSHAKE], version: [3, 3] };

    /// The rest of the TLS handshake, which is encrypted. Plaintext alerts are not in it: anyone could have written them.
    pub(super) const FLIGHT: Self = Self { kinds: &[CHANGE_CIPHER_SPEC, APPLICATION_DATA], version: [3, 3] };

    /// Hello or Welcome.
    pub(super) const MESSAGE: Self = Self { kinds: &[APPLICATION_DATA], version: [3, 3] };
}

const RECORD_HEADER_BYTES: usize = 5;

/// Collects a prefix or one record. Its buffer grows to a length only after that length was checked.
#[derive(Debug)]
pub(super) struct RecordReader {
    partial: Vec<u8>,
    /// What this handshake may still take from its peer (`HS-11`).
    budget: usize,
}

impl RecordReader {
    pub(super) fn new() -> Self {
        Self { partial: Vec::new(), budget: UNAUTHENTICATED_BYTES_MAX }
    }

    /// Takes a prefix of exactly `N` bytes from the front of `input`; none while it is incomplete.
    pub(super) fn take_prefix<const N: usize>(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<[u8; N]>, HandshakeError> {
        if !self.fill(N, input)? {
            return Ok(None);
        }
        let prefix = std::mem::take(&mut self.partial);
        Ok(prefix.first_chunk().copied())
    }

    /// Takes one record, header included, from the front of `input`; none while it is incomplete.
    ///
    /// Type, version and length are checked as soon as the header is there.
    pub(super) fn take_record(
        &mut self,
        expected: &Expected,
        input: &mut &[u8],
    ) -> Result<Option<Vec<u8>>, HandshakeError> {
        if !self.fill(RECORD_HEADER_BYTES, input)? {
            return Ok(None);
        }
        let Some(&[kind, major, minor, high, low]) = self.partial.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(None);
        };
        if !expected.kinds.contains(&kind) {
            return Err(HandshakeError::RecordType(kind));
        }
        if [major, minor] != expected.version {
            return Err(HandshakeError::RecordVersion([major, minor]));
        }
        let body = usize::from(u16::from_be_bytes([high, low]));
        let record = RECORD_HEADER_BYTES + body;
        if body == 0 || record > CLIENT_HELLO_BYTES_MAX {
            return Err(HandshakeError::RecordLength(record));
        }
        if !self.fill(record, input)? {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// Whether the peer has sent nothing yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.budget == UNAUTHENTICATED_BYTES_MAX
    }

    fn fill(&mut self, target: usize, input: &mut &[u8]) -> Result<bool, HandshakeError> {
        let missing = target.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.budget = self.budget.checked_sub(taken.len()).ok_or(HandshakeError::InputLimit)?;
        self.partial.reserve_exact(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
        Ok(taken.len() == missing)
    }
}
