//! The write half of a link: seals what the session has to say, in the order of the bytes.

use super::Host;
use super::read::finish_if_done;
use crate::crypto::{SealBuf, SealError, Sealer};
use crate::id::ChannelId;
use crate::limits::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, TAG_BYTES, WRITE_BUFFER_BYTES};

/// Control frames are sealed once this many bytes have gathered, or nothing else is left to gather.
const CONTROL_BATCH_BYTES: usize = 16 * 1_024;

/// What a link writes from at first: some control records. One with data soon has the whole.
const WRITE_BUFFER_BYTES_IDLE: usize = 1_024;

/// What a record has beside its plaintext.
const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + TAG_BYTES;

/// The write half of a link. Only its holder seals, so that sealed bytes are never reordered or dropped (`REC-6`).
#[derive(Debug)]
pub struct WriteHalf {
    sealer: Sealer,
    out: SealBuf,
    control: Vec<u8>,
}

impl WriteHalf {
    /// The write half of a link with these keys.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer, out: SealBuf::new(0), control: Vec::new() }
    }

    /// Sealed bytes that wait for the link.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.filled()
    }

    /// The link has taken the first `bytes` of [`WriteHalf::output`].
    pub fn consume(&mut self, bytes: usize) {
        self.out.consume(bytes);
    }

    /// Gives the buffers back while the link is idle; the next [`WriteHalf::fill`] takes new ones.
    pub fn idle(&mut self) {
        if self.out.is_empty() {
            self.out = SealBuf::new(0);
            self.control = Vec::new();
        }
    }

    /// The link is gone for good: what waited for it goes with it.
    pub fn discard(&mut self) {
        self.out = SealBuf::new(0);
        self.control = Vec::new();
    }

    /// Access to the sealer, for rekey limits and figures.
    pub fn sealer(&mut self) -> &mut Sealer {
        &mut self.sealer
    }

    /// Seals what is ready, one record per channel in turn, until the buffer is full or nothing is left.
    ///
    /// # Errors
    /// [`SealError`] when the link can seal no more and must be replaced.
    pub fn fill<H: Host>(&mut self, host: &H, now_millis: u64) -> Result<(), SealError> {
        if self.out.capacity() == 0 {
            self.out = SealBuf::begun_with(WRITE_BUFFER_BYTES_IDLE, WRITE_BUFFER_BYTES);
        }
        loop {
            if !self.has_room() {
                return Ok(());
            }
            let control = &mut self.control;
            let (confirmed, stale) = host.with_control(|c| {
                c.poll_output(control);
                (c.is_confirmed(), c.take_stale_sealing())
            });
            stale.into_iter().for_each(|id| _ = self.sealer.remove_channel(id));
            if !self.control.is_empty() {
                self.seal_control(now_millis)?;
                continue;
            }
            if !confirmed {
                return Ok(());
            }
            let look_again = self.fill_from_channels(host, now_millis)?;
            if !self.control.is_empty() {
                self.seal_control(now_millis)?;
            } else if !look_again {
                return Ok(());
            }
        }
    }

    /// Room for one record of either kind.
    fn has_room(&self) -> bool {
        self.out.space() >= RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES
    }

    /// Says whether frames that must go first have been queued meanwhile (`SESS-3`). Channels take turns, a record each
    /// (`CHAN-5`).
    fn fill_from_channels<H: Host>(&mut self, host: &H, now_millis: u64) -> Result<bool, SealError> {
        while self.has_room() && self.control.len() < CONTROL_BATCH_BYTES {
            let Some(id) = host.next_ready() else { break };
            if !self.sealer.has_channel(id) {
                // The frame that gives the peer its key may have been queued since the outbox was last looked at.
                let (queued, secret) = host.with_control(|c| (c.has_output(), c.sealing_secret(id)));
                if queued {
                    host.set_ready(id);
                    return Ok(true);
                }
                if let Some(secret) = secret {
                    self.sealer.add_channel(id, secret)?;
                }
            }
            let has_key = self.sealer.has_channel(id);
            let (control, room) = (&mut self.control, self.out.space());
            // What is to be sealed is taken under the channel's lock, and sealed without it.
            let taken = host.with_send(id, |half| {
                half.poll_control(control);
                // A half can be older than its key: the channel was accepted without a link, and its OPEN is still to come.
                let fits = room >= RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES + control.len();
                let record = if has_key && fits { half.take_record() } else { None };
                (record, has_key && half.has_output())
            });
            let Some((record, more)) = taken else {
                host.with_recv(id, |half| half.poll_control(&mut self.control));
                finish_if_done(host, id);
                continue;
            };
            if !self.control.is_empty() {
                // An answer to a recall must go before the data that it lets through.
                self.seal_control(now_millis)?;
            }
            if let Some(record) = record {
                let trailer = record.header.trailer();
                self.sealer.seal(id, record.body(), trailer.as_slice(), now_millis, &mut self.out)?;
            }
            if more {
                host.set_ready(id);
            } else {
                finish_if_done(host, id);
            }
        }
        Ok(false)
    }

    fn seal_control(&mut self, now_millis: u64) -> Result<(), SealError> {
        self.sealer.seal(ChannelId::CONTROL, &self.control, &[], now_millis, &mut self.out)?;
        self.control.clear();
        Ok(())
    }
}
