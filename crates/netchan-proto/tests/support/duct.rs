//! The two halves of one channel, joined without a session: frames and records travel as plain bytes, in order.

use std::collections::VecDeque;

use netchan_proto::channel::{CloseReason, RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, Violation, WindowKind};
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Frame, Mode, Reader};

/// The channel's id in every duct.
pub const ID: ChannelId = ChannelId(1);

enum Unit {
    Frames(Vec<u8>),
    Record(Vec<u8>),
}

/// What a delivery asks of the owner of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Take the values from here on back, then rewind.
    Rewind(u64),
    /// The outcome of a withdrawal.
    Withdrawn(u64, bool),
    /// The sender wants credit up to here.
    Want(u64),
    /// The sender gave credit back down to here.
    Yielded(u64),
    /// An offer that was handed over is wanted back.
    WithdrawAsked(u64),
}

/// Both halves and what is between them.
pub struct Duct {
    pub tx: SendHalf,
    pub rx: RecvHalf,
    forward: VecDeque<Unit>,
    back: VecDeque<Vec<u8>>,
    pub asked: VecDeque<Ask>,
    /// Whether each call back that arrived was followed.
    pub called_back: VecDeque<bool>,
}

/// What a duct starts with.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub kind: WindowKind,
    pub window_bytes: u64,
    pub message_bytes_max: usize,
}

impl Shape {
    pub fn fixed(capacity: u64, window_bytes: u64) -> Self {
        let kind = if capacity == 0 { WindowKind::Rendezvous } else { WindowKind::Fixed { capacity } };
        Self { kind, window_bytes, message_bytes_max: 256 * 1_024 }
    }
}

impl Duct {
    pub fn new(shape: Shape) -> Self {
        let (mode, capacity) = match shape.kind {
            WindowKind::Fixed { capacity } => (Mode::Credit, capacity),
            WindowKind::Rendezvous => (Mode::Rendezvous, 0),
            WindowKind::Demand { .. } => (Mode::Demand, 4),
            WindowKind::Lease => (Mode::Lease, 4),
        };
        let Shape { kind, window_bytes, message_bytes_max } = shape;
        let send = SendOptions { mode, capacity, limit_bytes: window_bytes, message_bytes_max };
        let recv = RecvOptions { kind, window_bytes, window_bytes_max: 2 * window_bytes, message_bytes_max };
        Self {
            tx: SendHalf::new(ID, &send),
            rx: RecvHalf::new(ID, &recv),
            forward: VecDeque::new(),
            back: VecDeque::new(),
            asked: VecDeque::new(),
            called_back: VecDeque::new(),
        }
    }

    /// One turn of the sender's end at the link, as a session takes it. Says whether anything was written.
    pub fn write_forward(&mut self) -> bool {
        let mut frames = Vec::new();
        self.tx.poll_control(&mut frames);
        let mut wrote = !frames.is_empty();
        if wrote {
            self.forward.push_back(Unit::Frames(frames));
        }
        if let Some(record) = self.tx.take_record() {
            let record = [record.body(), record.header.trailer().as_slice()].concat();
            self.forward.push_back(Unit::Record(record));
            wrote = true;
        }
        assert!(wrote || !self.tx.has_output(), "has_output without output would spin: {:?}", self.tx);
        wrote
    }

    /// The receiver's end says what is at least this urgent. Says whether anything was written.
    pub fn write_back(&mut self, least: Urgency) -> bool {
        if self.rx.urgency() < least.max(Urgency::Idle) {
            return false;
        }
        let mut frames = Vec::new();
        self.rx.poll_control(&mut frames);
        assert!(!frames.is_empty(), "urgency without a word: {:?}", self.rx);
        self.back.push_back(frames);
        true
    }

    /// Delivers the oldest thing under way to the receiver. Says whether there was one.
    pub fn deliver_forward(&mut self) -> Result<bool, Violation> {
        match self.forward.pop_front() {
            None => return Ok(false),
            Some(Unit::Record(record)) => {
                let (mut buffer, start) = self.rx.buffer(record.len()).for_record(record.len());
                buffer[start..].copy_from_slice(&record);
                self.rx.handle_record(buffer, record.len())?;
            }
            Some(Unit::Frames(bytes)) => {
                for frame in frames(&bytes) {
                    self.receiver_hears(frame)?;
                }
            }
        }
        Ok(true)
    }

    fn receiver_hears(&mut self, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Want { limit, .. } => self.asked.push_back(Ask::Want(limit)),
            Frame::Poll { .. } => self.rx.handle_poll(),
            Frame::Yield(answer) => {
                self.asked.extend(self.rx.handle_yield(&answer)?.map(Ask::Yielded));
            }
            Frame::Withdraw { seq, .. } => {
                if self.rx.handle_withdraw(seq)? {
                    self.asked.push_back(Ask::WithdrawAsked(seq));
                }
            }
            Frame::CallBack { generation, .. } => {
                self.called_back.push_back(self.rx.handle_call_back(generation)?);
            }
            Frame::Close(close) => self.rx.handle_close(&close, false)?,
            Frame::Reset(close) => self.rx.handle_close(&close, true)?,
            Frame::Pos(pos) => {
                // What a cut gave back is as good as yielded.
                self.asked.extend(self.rx.handle_pos(&pos)?.map(Ask::Yielded));
            }
            other => panic!("a sending end says {other:?}"),
        }
        Ok(())
    }

    /// Delivers the oldest thing under way to the sender. Says whether there was one.
    pub fn deliver_back(&mut self) -> Result<bool, Violation> {
        let Some(bytes) = self.back.pop_front() else { return Ok(false) };
        for frame in frames(&bytes) {
            match frame {
                Frame::Window(window) => _ = self.tx.handle_window(&window)?,
                Frame::Recall(recall) => {
                    self.asked.extend(self.tx.handle_recall(&recall)?.map(Ask::Rewind));
                }
                Frame::Withdrawn { seq, withdrawn, .. } => {
                    let outcome = self.tx.handle_withdrawn(seq, withdrawn)?;
                    self.asked.extend(outcome.map(|(seq, withdrawn)| Ask::Withdrawn(seq, withdrawn)));
                }
                Frame::Close(close) => self.tx.handle_close(&close)?,
                Frame::Closing { code, reason, .. } => {
                    self.tx.handle_closing(CloseReason { code, reason });
                }
                Frame::Pos(pos) => self.tx.handle_pos(&pos)?,
                other => panic!("a receiving end says {other:?}"),
            }
        }
        Ok(true)
    }

    /// Writes and delivers until nothing moves but by the owners.
    pub fn pump(&mut self) -> Result<(), Violation> {
        for turn in 0.. {
            assert!(turn < 10_000, "the halves never come to rest: {:?} {:?}", self.tx, self.rx);
            let wrote = self.write_forward() | self.write_back(Urgency::Idle);
            let delivered = self.deliver_forward()? | self.deliver_back()?;
            if !wrote && !delivered {
                break;
            }
        }
        Ok(())
    }

    /// The link is cut, with all that was under way, and another takes its place: positions are the first to travel.
    pub fn cut(&mut self) {
        self.forward.clear();
        self.back.clear();
        self.tx.detach();
        self.rx.detach();
        self.forward.push_back(Unit::Frames(Frame::Pos(self.tx.pos()).to_vec()));
        self.back.push_back(Frame::Pos(self.rx.pos()).to_vec());
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty() && self.back.is_empty()
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut reader = Reader::new(bytes);
    let mut frames = Vec::new();
    while !reader.is_empty() {
        frames.extend(Frame::read(&mut reader).expect("what a half writes is well formed"));
    }
    frames
}
