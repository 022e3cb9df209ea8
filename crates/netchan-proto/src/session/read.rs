//! The read half of a link: opens records and hands what they hold to the session.

use super::{Event, Host, LinkControlKeys};
use crate::crypto::{Opener, Peek, RecordError, confirm_matches};
use crate::flow::{Urgency, Violation};
use crate::id::ChannelId;
use crate::limits::{BACKLOG_FRAMES_MAX, RECORD_BYTES_MAX};
use crate::wire::{Frame, Reader};

/// What an idle link reads into.
const BUFFER_BYTES_IDLE: usize = 2 * 1_024;

/// Four records: the unread part of a record moves to the front once in four, not every time.
const BUFFER_BYTES_BUSY: usize = 4 * RECORD_BYTES_MAX;

/// What the handling of a data record costs, beside opening it: a lock, a look-up and a wake-up (`PORT-10`).
const WORK_OF_RECORD: u32 = 4;

/// What an OPEN costs: keys, a policy, a channel and its entry everywhere. Every other frame costs one.
const WORK_OF_OPEN: u32 = 32;

/// Why a link cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Unauthenticated: the bytes were not the peer's, or were damaged. The link dies, silently.
    #[error("the link carried bytes that the peer did not seal: {0}")]
    Link(#[from] RecordError),
    /// Authenticated: the peer broke the protocol. The session ends, loudly (`SESS-12`).
    #[error(transparent)]
    Peer(#[from] Violation),
}

/// The read half of a link.
#[derive(Debug)]
pub struct ReadHalf {
    opener: Opener,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    scratch: Vec<u8>,
    /// Where in `scratch` the frames begin that are still to be handled.
    frames_at: Option<usize>,
}

impl ReadHalf {
    /// The read half of a link with these keys. `early` arrived behind the handshake.
    #[must_use]
    pub fn new(opener: Opener, early: &[u8]) -> Self {
        let mut buffer = early.to_vec();
        buffer.resize(early.len().max(BUFFER_BYTES_IDLE), 0);
        Self { opener, buffer, start: 0, end: early.len(), scratch: Vec::new(), frames_at: None }
    }

    /// Where the link is to read into.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let need = match self.opener.peek(&self.buffer[self.start..self.end]) {
            Ok(Peek::Incomplete { need }) => need.max(self.end - self.start + 1),
            _ => 1,
        };
        if self.start + need > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if need > self.buffer.len() {
                self.buffer.resize(BUFFER_BYTES_BUSY, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// The link has read `bytes` into [`ReadHalf::space`].
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
        if self.end == self.buffer.len() && self.buffer.len() < BUFFER_BYTES_BUSY {
            self.buffer.resize(BUFFER_BYTES_BUSY, 0);
        }
    }

    /// Gives the buffer back while the link is idle.
    pub fn idle(&mut self) {
        if self.start == self.end && self.buffer.len() > BUFFER_BYTES_IDLE {
            (self.start, self.end) = (0, 0);
            self.buffer = vec![0; BUFFER_BYTES_IDLE];
            if self.frames_at.is_none() {
                self.scratch = Vec::new();
            }
        }
    }

    /// Opens the first record alone, which must be the peer's CONFIRM and nothing else, before the link is the session's
    /// (`SESS-16`). False while it has not arrived whole.
    ///
    /// # Errors
    /// [`Fault`]; this link comes to nothing, and the session stays as it is.
    pub fn await_confirm(&mut self, peer_confirm: &[u8; 48]) -> Result<bool, Fault> {
        let Peek::Record { channel, record_len, plaintext_len, .. } =
            self.opener.peek(&self.buffer[self.start..self.end])?
        else {
            return Ok(false);
        };
        let record = self.start..self.start + record_len;
        self.scratch.resize(plaintext_len, 0);
        self.opener.open(&self.buffer[record], &mut self.scratch)?;
        self.start += record_len;
        let mut reader = Reader::new(&self.scratch);
        let frame = Frame::read(&mut reader).map_err(|_| Violation("malformed control frame"))?;
        match frame {
            Some(Frame::Confirm { mac })
                if channel == ChannelId::CONTROL
                    && reader.is_empty()
                    && confirm_matches(peer_confirm, &mac) =>
            {
                Ok(true)
            }
            _ => Err(Violation("wrong confirmation").into()),
        }
    }

    /// Opens every whole record that has been read. Says whether there were any.
    ///
    /// # Errors
    /// [`Fault`]; nothing more may be read from this link.
    pub fn process<H: Host>(&mut self, host: &H) -> Result<bool, Fault> {
        let before = self.start;
        // As much as there is: each turn has work for four thousand million frames.
        while !self.process_some(host, &mut { u32::MAX })? {}
        Ok(self.start > before)
    }

    /// As [`ReadHalf::process`], for so much work, in units of one small frame; what is used of it is taken off. Says whether
    /// everything that has been read is handled: otherwise nothing more may be read before the rest is (`PORT-10`).
    ///
    /// # Errors
    /// [`Fault`]; nothing more may be read from this link.
    pub fn process_some<H: Host>(&mut self, host: &H, work: &mut u32) -> Result<bool, Fault> {
        loop {
            if let Some(at) = self.frames_at.take() {
                self.frames_at = self.handle_control(host, at, work)?;
                if self.frames_at.is_some() {
                    return Ok(false);
                }
            }
            let Peek::Record { channel, record_len, plaintext_len, .. } =
                self.opener.peek(&self.buffer[self.start..self.end])?
            else {
                return Ok(true);
            };
            if *work == 0 {
                return Ok(false);
            }
            let record = self.start..self.start + record_len;
            self.start += record_len;
            if channel == ChannelId::CONTROL {
                self.scratch.resize(plaintext_len, 0);
                self.opener.open(&self.buffer[record], &mut self.scratch)?;
                self.frames_at = Some(0);
            } else {
                self.open_data(host, channel, record, plaintext_len)?;
                *work = work.saturating_sub(WORK_OF_RECORD);
            }
        }
    }

    fn open_data<H: Host>(
        &mut self,
        host: &H,
        channel: ChannelId,
        record: std::ops::Range<usize>,
        plaintext_len: usize,
    ) -> Result<(), Fault> {
        let Some(buffer) = host.with_recv(channel, |half| half.buffer(plaintext_len)) else {
            // The half is gone and the peer's CLOSE is on its way: open, to keep the sequence, and discard (`CHAN-7`).
            self.scratch.resize(plaintext_len, 0);
            self.opener.open(&self.buffer[record], &mut self.scratch)?;
            return Ok(());
        };
        let (mut buffer, start) = buffer.for_record(plaintext_len);
        self.opener.open(&self.buffer[record], &mut buffer[start..])?;
        let urgency = host.with_recv(channel, |half| {
            half.handle_record(buffer, plaintext_len)?;
            Ok::<_, Violation>(half.urgency())
        });
        if let Some(urgency) = urgency.transpose()? {
            if urgency == Urgency::Now {
                // The sender asked for a report with the data.
                host.set_ready(channel);
            }
            host.event(Event::Readable(channel));
        }
        Ok(())
    }

    /// Handles the frames of an opened record from `at` on. Says where those begin that there was no work left for.
    fn handle_control<H: Host>(
        &mut self,
        host: &H,
        at: usize,
        work: &mut u32,
    ) -> Result<Option<usize>, Fault> {
        let scratch = std::mem::take(&mut self.scratch);
        let mut reader = Reader::new(&scratch[at..]);
        while !reader.is_empty() && *work > 0 {
            let frame = Frame::read(&mut reader).map_err(|_| Violation("malformed control frame"))?;
            let cost = if matches!(frame, Some(Frame::Open(_))) { WORK_OF_OPEN } else { 1 };
            *work = work.saturating_sub(cost);
            let Some(frame) = frame else { continue };
            let confirmed = host.with_control(|c| c.is_confirmed());
            if !confirmed && !matches!(frame, Frame::Confirm { .. }) {
                return Err(Violation("a frame before the confirmation").into());
            }
            if confirmed && host.with_control(super::Control::note_acknowledged) {
                host.event(Event::Acknowledged);
            }
            self.handle_frame(host, frame)?;
        }
        let left = reader.rest().len();
        let rest = (left > 0).then(|| scratch.len() - left);
        self.scratch = scratch;
        let stale = host.with_control(|c| {
            let full = c.backlog_frames() > BACKLOG_FRAMES_MAX;
            if full { Err(Violation("asks without reading the answers")) } else { Ok(c.take_stale_opening()) }
        })?;
        stale.into_iter().for_each(|id| _ = self.opener.remove_channel(id));
        Ok(rest)
    }

    fn handle_frame<H: Host>(&mut self, host: &H, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Open(_) | Frame::Accept(_) => {
                let id = match &frame {
                    Frame::Open(open) => open.id,
                    Frame::Accept(accept) => accept.id,
                    _ => return Ok(()),
                };
                let (event, secret) = host.with_control(|c| {
                    let event = c.handle(frame)?;
                    Ok((event, c.opening_secret(id)))
                })?;
                if let Some(secret) = secret {
                    // A repeated OPEN or ACCEPT finds the key in place.
                    _ = self.opener.add_channel(id, secret);
                }
                event.into_iter().for_each(|event| host.event(event));
                // What was accepted while there was no link could not be sealed before.
                host.set_ready(id);
                Ok(())
            }
            Frame::Confirm { mac } => {
                let live = host.with_control(|c| c.handle_confirm(&mac))?;
                resync(host, live);
                Ok(())
            }
            _ => dispatch(host, frame),
        }
    }
}

/// Says on a new link where every channel stands (`SESS-8`).
fn resync<H: Host>(host: &H, live: Vec<ChannelId>) {
    for id in live {
        let pos = host.with_send(id, |half| half.pos());
        let pos = pos.or_else(|| host.with_recv(id, |half| half.pos()));
        if let Some(pos) = pos {
            host.with_control(|c| c.push(Frame::Pos(pos)));
        }
    }
    host.with_control(super::Control::end_resync);
    host.event(Event::Confirmed);
}

/// Goes on with a session on a link that the peer has confirmed already: confirms it, and says where everything stands
/// (`SESS-8`, `SESS-16`).
pub fn begin<H: Host>(host: &H, keys: LinkControlKeys) {
    let live = host.with_control(|c| c.attach_confirmed(keys));
    resync(host, live);
}

/// Hands a frame to the half, or the control object, that it concerns.
fn dispatch<H: Host>(host: &H, frame: Frame) -> Result<(), Violation> {
    let known = |id| host.with_control(|c| c.check_known(id));
    match frame {
        Frame::Window(window) => {
            let moved =
                host.with_send(window.id, |half| Ok((half.handle_window(&window)?, half.has_output())));
            let Some((moved, has_output)) = moved.transpose()? else { return known(window.id) };
            if has_output {
                host.set_ready(window.id);
            }
            if moved {
                host.event(Event::Writable(window.id));
            }
        }
        Frame::Want { id, limit } => match host.with_recv(id, |_| ()) {
            Some(()) => host.event(Event::Wanted { id, limit }),
            None => known(id)?,
        },
        Frame::Poll { id } => match host.with_recv(id, |half| half.handle_poll()) {
            Some(()) => host.set_ready(id),
            None => known(id)?,
        },
        Frame::CallBack { id, generation } => {
            match host.with_recv(id, |half| half.handle_call_back(generation)).transpose()? {
                Some(true) => host.set_ready(id),
                Some(false) => {}
                None => known(id)?,
            }
        }
        Frame::Closing { id, code, reason } => {
            let reason = crate::channel::CloseReason { code, reason };
            match host.with_send(id, |half| half.handle_closing(reason)) {
                Some(()) => {
                    host.event(Event::Writable(id));
                    host.set_ready(id);
                }
                None => known(id)?,
            }
        }
        Frame::Recall(recall) => {
            match host.with_send(recall.id, |half| half.handle_recall(&recall)).transpose()? {
                Some(Some(limit)) => host.event(Event::RewindAsked { id: recall.id, limit }),
                Some(None) => {
                    host.set_ready(recall.id);
                    if host.with_send(recall.id, |half| half.defers_recall()) == Some(true) {
                        host.event(Event::RecallDeferred(recall.id));
                    }
                }
                None => known(recall.id)?,
            }
        }
        Frame::Yield(answer) => {
            match host.with_recv(answer.id, |half| half.handle_yield(&answer)).transpose()? {
                Some(Some(limit)) => {
                    host.set_ready(answer.id);
                    host.event(Event::Yielded { id: answer.id, limit });
                }
                Some(None) => {}
                None => known(answer.id)?,
            }
        }
        Frame::Withdraw { id, seq } => {
            match host.with_recv(id, |half| half.handle_withdraw(seq)).transpose()? {
                Some(true) => host.event(Event::WithdrawAsked { id, seq }),
                Some(false) => host.set_ready(id),
                None => known(id)?,
            }
        }
        Frame::Withdrawn { id, seq, withdrawn } => {
            match host.with_send(id, |half| half.handle_withdrawn(seq, withdrawn)).transpose()? {
                Some(Some((seq, withdrawn))) => host.event(Event::Withdrawn { id, seq, withdrawn }),
                Some(None) => {}
                None => known(id)?,
            }
        }
        Frame::Close(close) => handle_close(host, &close, false)?,
        Frame::Reset(close) => handle_close(host, &close, true)?,
        Frame::Pos(pos) => {
            let id = pos.id;
            if host.with_send(id, |half| half.handle_pos(&pos)).transpose()?.is_some() {
                host.set_ready(id);
                host.event(Event::Writable(id));
            } else if let Some(lease) = host.with_recv(id, |half| half.handle_pos(&pos)).transpose()? {
                if let Some(limit) = lease {
                    host.event(Event::LeaseTold { id, limit });
                }
                host.set_ready(id);
            } else {
                host.with_control(|c| c.handle_lost_pos(id))?;
            }
        }
        session_frame => {
            let event = host.with_control(|c| c.handle(session_frame))?;
            event.into_iter().for_each(|event| host.event(event));
        }
    }
    Ok(())
}

fn handle_close<H: Host>(host: &H, close: &crate::wire::Close, reset: bool) -> Result<(), Violation> {
    let id = close.id;
    if host.with_send(id, |half| half.handle_close(close)).transpose()?.is_some() {
        // Told first: once it is ready, another thread may write its last word and let it be forgotten.
        host.event(Event::Writable(id));
        host.set_ready(id);
        finish_if_done(host, id);
    } else if host.with_recv(id, |half| half.handle_close(close, reset)).transpose()?.is_some() {
        host.event(Event::Readable(id));
        host.set_ready(id);
        finish_if_done(host, id);
    } else {
        let event = host.with_control(|c| c.handle_close(close))?;
        event.into_iter().for_each(|event| host.event(event));
    }
    Ok(())
}

/// Forgets a channel that both ends have closed.
pub(super) fn finish_if_done<H: Host>(host: &H, id: ChannelId) {
    let last = host.with_send(id, |half| half.is_finished().then(|| half.last_close()));
    let last = last.or_else(|| host.with_recv(id, |half| half.is_finished().then(|| half.last_close())));
    if let Some(Some(last)) = last {
        host.with_control(|c| c.forget(id, last));
        host.event(Event::Finished(id));
    }
}
