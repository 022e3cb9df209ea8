//! Opening: one direction's read half.

use aws_lc_rs::aead::Aad;

use super::{LENGTH_BYTES, LENGTHS, PHASE, length};
use crate::crypto::cipher::{Aead, HeaderMask, RecordCipher, SAMPLE_BYTES};
use crate::crypto::error::RecordError;
use crate::crypto::secret::TrafficSecret;
use crate::id::{ChannelId, ChannelMap};
use crate::limits::{RECORD_HEADER_BYTES, TAG_BYTES};

/// What stands at the front of a read buffer. Nothing in it is authenticated before [`Opener::open`] succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// The record is not complete.
    Incomplete {
        /// How many bytes the buffer must hold before another look is worth while.
        need: usize,
    },
    /// A whole record.
    Record {
        /// The channel it claims to be for, which has an opening key here.
        channel: ChannelId,
        /// Its key epoch bit.
        phase: bool,
        /// Its length on the wire.
        record_len: usize,
        /// The length of what it holds.
        plaintext_len: usize,
    },
}

/// Opens one link direction, all channels under one sequence number.
#[derive(Debug)]
pub struct Opener {
    aead: Aead,
    mask: HeaderMask,
    pub(super) sequence: u64,
    rekeys: u64,
    channels: ChannelMap<OpenChannel>,
}

#[derive(Debug)]
struct OpenChannel {
    secret: TrafficSecret,
    cipher: Option<Box<RecordCipher>>,
    phase: bool,
    retired: bool,
}

impl Opener {
    pub(in crate::crypto) fn new(aead: Aead, mask: HeaderMask, control: TrafficSecret) -> Self {
        let channels = ChannelMap::from_iter([(ChannelId::CONTROL, OpenChannel::new(control))]);
        Self { aead, mask, sequence: 0, rekeys: 0, channels }
    }

    /// Looks at the front of a read buffer. The length is checked as soon as its three bytes are there, so a caller never
    /// waits for, or makes room for, a record that is too long (`REC-1`).
    ///
    /// # Errors
    ///
    /// [`RecordError`], an unauthenticated fault: the link is dead.
    pub fn peek(&self, buf: &[u8]) -> Result<Peek, RecordError> {
        let Some(field) = buf.first_chunk() else {
            return Ok(Peek::Incomplete { need: RECORD_HEADER_BYTES + TAG_BYTES });
        };
        let record_len = record_len(*field)?;
        let Some(record) = buf.get(..record_len) else {
            return Ok(Peek::Incomplete { need: record_len });
        };
        let head = self.unmask(record)?;
        if !self.channels.contains_key(&head.channel) {
            return Err(RecordError::UnknownChannel);
        }
        let plaintext_len = record_len - RECORD_HEADER_BYTES - TAG_BYTES;
        Ok(Peek::Record { channel: head.channel, phase: head.phase, record_len, plaintext_len })
    }

    /// Opens exactly one record into `out`, which is exactly as long as the plaintext, and says whose it is.
    ///
    /// A record of the other phase is tried with the channel's next key only, and that key is kept only if the tag fits
    /// (`REC-7`). On an error the sequence number and all keys stay as they were, and `out` is cleared.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; all but `OutputLength` mean that the link is dead.
    pub fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<ChannelId, RecordError> {
        let field = record.first_chunk().ok_or(RecordError::Length { bytes: record.len() })?;
        if record_len(*field)? != record.len() {
            return Err(RecordError::Length { bytes: length(*field) });
        }
        let need = record.len() - RECORD_HEADER_BYTES - TAG_BYTES;
        if out.len() != need {
            return Err(RecordError::OutputLength { need, given: out.len() });
        }
        let head = self.unmask(record)?;
        let next_sequence = self.sequence.checked_add(1).ok_or(RecordError::SequenceExhausted)?;
        let state = self.channels.get_mut(&head.channel).ok_or(RecordError::UnknownChannel)?;

        let (ciphertext, tag) = record[RECORD_HEADER_BYTES..].split_at(need);
        let mut open = |cipher: &RecordCipher| {
            let opened = cipher.key.open_separate_gather(
                cipher.nonce(self.sequence),
                Aad::from(head.bytes),
                ciphertext,
                tag,
                out,
            );
            opened.map_err(|_| {
                out.fill(0);
                RecordError::BadTag
            })
        };
        if head.phase == state.phase {
            let cipher =
                state.cipher.get_or_insert_with(|| Box::new(RecordCipher::new(self.aead, &state.secret)));
            open(cipher)?;
        } else {
            let secret = state.secret.next();
            let cipher = Box::new(RecordCipher::new(self.aead, &secret));
            open(&cipher)?;
            *state = OpenChannel { secret, cipher: Some(cipher), phase: head.phase, retired: state.retired };
            self.rekeys += 1;
        }
        self.sequence = next_sequence;
        Ok(head.channel)
    }

    /// Gives a channel its key.
    ///
    /// # Errors
    ///
    /// [`RecordError::ChannelExists`]; the channel keeps the key it has.
    pub fn add_channel(&mut self, channel: ChannelId, secret: TrafficSecret) -> Result<(), RecordError> {
        if self.channels.contains_key(&channel) {
            return Err(RecordError::ChannelExists(channel));
        }
        self.channels.insert(channel, OpenChannel::new(secret));
        Ok(())
    }

    /// Erases a channel's key; `false` if it had none. Records for it are faults from now on. The control channel stays.
    pub fn remove_channel(&mut self, channel: ChannelId) -> bool {
        channel != ChannelId::CONTROL && self.channels.remove(&channel).is_some()
    }

    /// Marks a channel whose data is no longer wanted: records still open, until the peer has closed too (`REC-10`).
    pub fn retire(&mut self, channel: ChannelId) {
        if let Some(state) = self.channels.get_mut(&channel) {
            state.retired = true;
            state.cipher = None;
        }
    }

    /// Whether records of this channel are to be opened and thrown away.
    #[must_use]
    pub fn is_retired(&self, channel: ChannelId) -> bool {
        self.channels.get(&channel).is_some_and(|state| state.retired)
    }

    /// Drops an idle channel's cipher context, about 600 bytes; the next record makes it again (`REC-9`).
    pub fn park(&mut self, channel: ChannelId) {
        if let Some(state) = self.channels.get_mut(&channel) {
            state.cipher = None;
        }
    }

    /// The sequence number of the next record, which is how many this link has opened.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many times the peer renewed a channel's key on this link.
    #[must_use]
    pub fn rekeys(&self) -> u64 {
        self.rekeys
    }

    fn unmask(&self, record: &[u8]) -> Result<Head, RecordError> {
        let short = RecordError::Length { bytes: record.len() };
        let (head, sealed) = record.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or(short)?;
        let sample: &[u8; SAMPLE_BYTES] = sealed.first_chunk().ok_or(short)?;
        let mut bytes = *head;
        self.mask.apply(&mut bytes, sample);
        let [_, _, _, a, b, c, d, flags] = bytes;
        if flags & !PHASE != 0 {
            return Err(RecordError::UndefinedFlags);
        }
        let channel = ChannelId(u32::from_be_bytes([a, b, c, d]));
        Ok(Head { bytes, channel, phase: flags & PHASE != 0 })
    }
}

impl OpenChannel {
    fn new(secret: TrafficSecret) -> Self {
        Self { secret, cipher: None, phase: false, retired: false }
    }
}

struct Head {
    bytes: [u8; RECORD_HEADER_BYTES],
    channel: ChannelId,
    phase: bool,
}

fn record_len(field: [u8; LENGTH_BYTES]) -> Result<usize, RecordError> {
    let bytes = length(field);
    if LENGTHS.contains(&bytes) {
        Ok(RECORD_HEADER_BYTES + bytes)
    } else {
        Err(RecordError::Length { bytes })
    }
}
