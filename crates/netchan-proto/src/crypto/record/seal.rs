//! Sealing: one direction's write half.

use aws_lc_rs::aead::Aad;

use super::{SealBuf, header};
use crate::crypto::cipher::{Aead, HeaderMask, RecordCipher, SAMPLE_BYTES};
use crate::crypto::error::SealError;
use crate::crypto::secret::TrafficSecret;
use crate::id::{ChannelId, ChannelMap};
use crate::limits::{
    RECORD_HEADER_BYTES, RECORD_PLAINTEXT_BYTES_MAX, REKEY_BYTES, REKEY_MILLIS, REKEY_RECORDS, TAG_BYTES,
};

/// When a channel's key has done enough (`REC-8`). Whichever comes first; each key seals at least one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyLimits {
    /// Plaintext bytes under one key. Default [`REKEY_BYTES`].
    pub bytes: u64,
    /// Records under one key. Default [`REKEY_RECORDS`].
    pub records: u64,
    /// Milliseconds since a key sealed its first record. Default [`REKEY_MILLIS`].
    pub millis: u64,
}

impl Default for RekeyLimits {
    fn default() -> Self {
        Self { bytes: REKEY_BYTES, records: REKEY_RECORDS, millis: REKEY_MILLIS }
    }
}

/// Seals one link direction, all channels under one sequence number.
///
/// The order of the calls must be the order of the bytes on the wire: what is sealed must be sent, in this order.
#[derive(Debug)]
pub struct Sealer {
    aead: Aead,
    mask: HeaderMask,
    pub(super) sequence: u64,
    bytes: u64,
    rekeys: u64,
    limits: RekeyLimits,
    channels: ChannelMap<SealChannel>,
    /// Every key (by its traffic secret) and nonce used, and for which channel: for the tests that none repeats.
    #[cfg(test)]
    pub(in crate::crypto) used: Vec<(ChannelId, [u8; 48], [u8; 12])>,
}

#[derive(Debug)]
struct SealChannel {
    secret: TrafficSecret,
    cipher: Option<Box<RecordCipher>>,
    phase: bool,
    bytes: u64,
    records: u64,
    since_millis: u64,
}

impl Sealer {
    pub(in crate::crypto) fn new(aead: Aead, mask: HeaderMask, control: TrafficSecret) -> Self {
        Self {
            aead,
            mask,
            sequence: 0,
            bytes: 0,
            rekeys: 0,
            limits: RekeyLimits::default(),
            channels: ChannelMap::from_iter([(ChannelId::CONTROL, SealChannel::new(control))]),
            #[cfg(test)]
            used: Vec::new(),
        }
    }

    /// Seals `body ‖ trailer` for a channel into the end of `out` and returns the record's length on the wire.
    ///
    /// The body is read where it lies: it is neither copied nor changed.
    ///
    /// # Errors
    ///
    /// [`SealError`]; nothing is written and no sequence number is used.
    pub fn seal(
        &mut self,
        channel: ChannelId,
        body: &[u8],
        trailer: &[u8],
        now_millis: u64,
        out: &mut SealBuf,
    ) -> Result<usize, SealError> {
        let plaintext_bytes = body.len().saturating_add(trailer.len());
        if plaintext_bytes > RECORD_PLAINTEXT_BYTES_MAX {
            return Err(SealError::TooLarge { bytes: plaintext_bytes });
        }
        let record_bytes = RECORD_HEADER_BYTES + plaintext_bytes + TAG_BYTES;
        let next_sequence = self.sequence.checked_add(1).ok_or(SealError::SequenceExhausted)?;
        let state = self.channels.get_mut(&channel).ok_or(SealError::UnknownChannel(channel))?;
        let record = out.reserve(record_bytes).ok_or(SealError::NoSpace { bytes: record_bytes })?;

        if state.is_due(plaintext_bytes as u64, now_millis, self.limits) {
            state.rekey();
            self.rekeys += 1;
        }
        let cipher =
            state.cipher.get_or_insert_with(|| Box::new(RecordCipher::new(self.aead, &state.secret)));
        #[cfg(test)]
        self.used.push((channel, *state.secret.0, cipher.nonce_bytes(self.sequence)));

        let mut head = header(plaintext_bytes + TAG_BYTES, channel, state.phase);
        let (head_out, sealed) = record.split_at_mut(RECORD_HEADER_BYTES);
        let (body_out, trailer_out) = sealed.split_at_mut(body.len());
        cipher
            .key
            .seal_out_of_place_scatter(
                cipher.nonce(self.sequence),
                Aad::from(head),
                body,
                body_out,
                trailer,
                trailer_out,
            )
            .map_err(|_| SealError::Cipher)?;
        let sample: &[u8; SAMPLE_BYTES] = sealed.first_chunk().ok_or(SealError::Cipher)?;
        self.mask.apply(&mut head, sample);
        head_out.copy_from_slice(&head);

        out.commit(record_bytes);
        self.sequence = next_sequence;
        self.bytes += record_bytes as u64;
        state.count(plaintext_bytes as u64, now_millis);
        Ok(record_bytes)
    }

    /// Gives a channel its key.
    ///
    /// # Errors
    ///
    /// [`SealError::ChannelExists`]; the channel keeps the key it has.
    pub fn add_channel(&mut self, channel: ChannelId, secret: TrafficSecret) -> Result<(), SealError> {
        if self.channels.contains_key(&channel) {
            return Err(SealError::ChannelExists(channel));
        }
        self.channels.insert(channel, SealChannel::new(secret));
        Ok(())
    }

    /// Whether a channel has a key here.
    #[must_use]
    pub fn has_channel(&self, channel: ChannelId) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Erases a channel's key; `false` if it had none. The control channel stays.
    pub fn remove_channel(&mut self, channel: ChannelId) -> bool {
        channel != ChannelId::CONTROL && self.channels.remove(&channel).is_some()
    }

    /// Drops an idle channel's cipher context, about 600 bytes; the next record makes it again (`REC-9`).
    pub fn park(&mut self, channel: ChannelId) {
        if let Some(state) = self.channels.get_mut(&channel) {
            state.cipher = None;
        }
    }

    /// Sets when keys are renewed, from the next record on.
    pub fn set_rekey_limits(&mut self, limits: RekeyLimits) {
        self.limits = limits;
    }

    /// The sequence number of the next record, which is how many this link has sealed.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes sealed on this link, headers and tags included.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        self.bytes
    }

    /// How many times a channel's key was renewed on this link.
    #[must_use]
    pub fn rekeys(&self) -> u64 {
        self.rekeys
    }
}

impl SealChannel {
    fn new(secret: TrafficSecret) -> Self {
        Self { secret, cipher: None, phase: false, bytes: 0, records: 0, since_millis: 0 }
    }

    fn is_due(&self, bytes: u64, now_millis: u64, limits: RekeyLimits) -> bool {
        self.records > 0
            && (self.records >= limits.records
                || self.bytes.saturating_add(bytes) > limits.bytes
                || now_millis.saturating_sub(self.since_millis) >= limits.millis)
    }

    fn rekey(&mut self) {
        *self = Self { phase: !self.phase, ..Self::new(self.secret.next()) };
    }

    fn count(&mut self, bytes: u64, now_millis: u64) {
        if self.records == 0 {
            self.since_millis = now_millis;
        }
        self.records += 1;
        self.bytes += bytes;
    }
}
