//! Control frames: `type u8 ‖ length varint ‖ fields` (`WIRE-2`).

use super::opening::{self, Accept, Announce, Open, Refuse};
use super::{Reader, WireError, write_varint};
use crate::id::ChannelId;
use crate::limits::TEXT_BYTES_MAX;

/// What the receiving end of a channel has and grants. Absolute and cumulative: repeats are harmless (`FLOW-2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowUpdate {
    /// The channel.
    pub id: ChannelId,
    /// Counts recalls: a window of an older generation is ignored.
    pub generation: u32,
    /// Every value numbered below this has arrived.
    pub received: u64,
    /// Every value numbered below this has been taken.
    pub taken: u64,
    /// Values numbered below this may be sent.
    pub limit: u64,
    /// A value may start while fewer bytes than this have been sent on the channel.
    pub limit_bytes: u64,
}

/// Asks the sending end to give leased credit back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The channel.
    pub id: ChannelId,
    /// The generation that the answer starts.
    pub generation: u32,
    /// Credit down to here is asked for.
    pub limit: u64,
    /// The receiving end has discarded every value from `limit` on: the sender takes them back and numbers anew.
    pub rewind: bool,
}

/// Gives leased credit back: the answer to [`Recall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yield {
    /// The channel.
    pub id: ChannelId,
    /// The generation of the recall.
    pub generation: u32,
    /// The sender's new limit.
    pub limit: u64,
    /// How many values it has committed.
    pub committed: u64,
}

/// Ends one end's use of a channel. The channel is gone when both ends have sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The channel.
    pub id: ChannelId,
    /// From the sending end: how many values there were. From the receiving end: how many it took.
    pub final_seq: u64,
    /// Why, as a number for programs; 0 is a plain close.
    pub code: u16,
    /// Why, for people.
    pub reason: String,
}

/// One end's positions in a channel, exchanged on every new link (`SESS-8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pos {
    /// The channel.
    pub id: ChannelId,
    /// The generation of the credit.
    pub generation: u32,
    /// The receiving end: the next value it expects.
    pub next_expected: u64,
    /// The receiving end: how many values it took.
    pub taken: u64,
    /// The receiving end: the credit it grants.
    pub limit: u64,
    /// The receiving end: the bytes it grants.
    pub limit_bytes: u64,
    /// The sending end: how many values it has committed.
    pub committed: u64,
}

impl Pos {
    /// The position of an end that has sent and received nothing.
    #[must_use]
    pub const fn start(id: ChannelId) -> Self {
        Self { id, generation: 0, next_expected: 0, taken: 0, limit: 0, limit_bytes: 0, committed: 0 }
    }
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Proves that the sender derived the same keys from the same handshake.
    Confirm {
        /// The sender's confirmation code.
        mac: [u8; 48],
    },
    /// Opens a channel.
    Open(Open),
    /// Accepts a channel.
    Accept(Accept),
    /// Refuses a channel.
    Refuse(Refuse),
    /// Announces a hosted channel.
    Announce(Announce),
    /// What the receiving end has and grants.
    Window(WindowUpdate),
    /// A sender is blocked and asks for a lease.
    Want {
        /// The channel.
        id: ChannelId,
        /// The limit that would let every waiting send go; at or below the present one takes the request back.
        limit: u64,
    },
    /// The sender waits for news: the receiving end reports at once.
    Poll {
        /// The channel.
        id: ChannelId,
    },
    /// The sending end asks for the values that have not been taken (`CHAN-11`): the receiving end answers with
    /// [`Self::Recall`].
    CallBack {
        /// The channel.
        id: ChannelId,
        /// The generation of the credit under which they were sent.
        generation: u32,
    },
    /// The receiving end takes no more sends; what was committed still arrives (`CHAN-12`).
    Closing {
        /// The channel.
        id: ChannelId,
        /// Why, as a number for programs.
        code: u16,
        /// Why, for people.
        reason: String,
    },
    /// Asks for leased credit back.
    Recall(Recall),
    /// Gives leased credit back.
    Yield(Yield),
    /// Ends one end's use of a channel, after its data.
    Close(Close),
    /// Ends a channel at once, without regard to data.
    Reset(Close),
    /// Asks for an offer of a rendezvous channel back.
    Withdraw {
        /// The channel.
        id: ChannelId,
        /// The offer.
        seq: u64,
    },
    /// Says what became of an offer that was asked back.
    Withdrawn {
        /// The channel.
        id: ChannelId,
        /// The offer.
        seq: u64,
        /// True when nobody took it and nobody will; false when it was taken.
        withdrawn: bool,
    },
    /// Positions after a new link.
    Pos(Pos),
    /// Asks for a sign of life.
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// A sign of life.
    Pong {
        /// From the ping.
        nonce: u64,
    },
    /// Ends the session.
    GoAway {
        /// Why, as a number for programs; 0 is a plain close.
        code: u16,
        /// Why, for people.
        reason: String,
    },
}

mod kind {
    pub(super) const CONFIRM: u8 = 0x01;
    pub(super) const OPEN: u8 = 0x02;
    pub(super) const ACCEPT: u8 = 0x03;
    pub(super) const REFUSE: u8 = 0x04;
    pub(super) const ANNOUNCE: u8 = 0x05;
    pub(super) const WINDOW: u8 = 0x10;
    pub(super) const WANT: u8 = 0x11;
    pub(super) const RECALL: u8 = 0x12;
    pub(super) const YIELD: u8 = 0x13;
    pub(super) const POLL: u8 = 0x14;
    pub(super) const CALL_BACK: u8 = 0x15;
    pub(super) const CLOSING: u8 = 0x16;
    pub(super) const CLOSE: u8 = 0x18;
    pub(super) const RESET: u8 = 0x19;
    pub(super) const WITHDRAW: u8 = 0x1a;
    pub(super) const WITHDRAWN: u8 = 0x1b;
    // 0x1c to 0x1e are reserved for OFFER, CLAIM and COMMIT; 0x20 to 0x27 for deliveries.
    pub(super) const POS: u8 = 0x28;
    pub(super) const PING: u8 = 0x30;
    pub(super) const PONG: u8 = 0x31;
    pub(super) const GOAWAY: u8 = 0x32;
    /// Types from here on may be skipped by a peer that does not know them.
    pub(super) const OPTIONAL: u8 = 0x80;
}

impl Frame {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        // Most frames are shorter than 128 bytes, so one length byte is written first and widened if need be.
        let len_at = out.len();
        out.push(0);
        self.write_fields(out);
        let len = out.len() - len_at - 1;
        if len < 0x80 {
            out[len_at] = len as u8;
        } else {
            let mut prefix = Vec::with_capacity(3);
            write_varint(&mut prefix, len as u64);
            out.splice(len_at..=len_at, prefix);
        }
    }

    /// The frame alone.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        out
    }

    /// Reads the next frame, or `None` for one that may be skipped (`WIRE-3`).
    ///
    /// # Errors
    /// A [`WireError`] that says what is wrong with the bytes.
    pub fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let kind = reader.u8()?;
        let len = usize::try_from(reader.varint()?).map_err(|_| WireError::Truncated)?;
        let mut fields = Reader::new(reader.bytes(len)?);
        if kind >= kind::OPTIONAL {
            return Ok(None);
        }
        let frame = Self::read_fields(kind, &mut fields)?;
        if fields.is_empty() { Ok(Some(frame)) } else { Err(WireError::Trailing) }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Confirm { .. } => kind::CONFIRM,
            Self::Open(_) => kind::OPEN,
            Self::Accept(_) => kind::ACCEPT,
            Self::Refuse(_) => kind::REFUSE,
            Self::Announce(_) => kind::ANNOUNCE,
            Self::Window(_) => kind::WINDOW,
            Self::Want { .. } => kind::WANT,
            Self::Poll { .. } => kind::POLL,
            Self::CallBack { .. } => kind::CALL_BACK,
            Self::Closing { .. } => kind::CLOSING,
            Self::Recall(_) => kind::RECALL,
            Self::Yield(_) => kind::YIELD,
            Self::Close(_) => kind::CLOSE,
            Self::Reset(_) => kind::RESET,
            Self::Withdraw { .. } => kind::WITHDRAW,
            Self::Withdrawn { .. } => kind::WITHDRAWN,
            Self::Pos(_) => kind::POS,
            Self::Ping { .. } => kind::PING,
            Self::Pong { .. } => kind::PONG,
            Self::GoAway { .. } => kind::GOAWAY,
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        let mut ints = |values: &[u64]| values.iter().for_each(|value| write_varint(out, *value));
        match self {
            Self::Confirm { mac } => out.extend_from_slice(mac),
            Self::Open(open) => open.write(out),
            Self::Accept(accept) => accept.write(out),
            Self::Refuse(refuse) => refuse.write(out),
            Self::Announce(announce) => announce.write(out),
            Self::Window(w) => {
                ints(&[
                    u64::from(w.id.0),
                    u64::from(w.generation),
                    w.received,
                    w.taken,
                    w.limit,
                    w.limit_bytes,
                ]);
            }
            Self::Want { id, limit } => ints(&[u64::from(id.0), *limit]),
            Self::Poll { id } => ints(&[u64::from(id.0)]),
            Self::CallBack { id, generation } => ints(&[u64::from(id.0), u64::from(*generation)]),
            Self::Closing { id, code, reason } => {
                ints(&[u64::from(id.0), u64::from(*code)]);
                opening::write_text(out, reason, TEXT_BYTES_MAX);
            }
            Self::Recall(r) => {
                ints(&[u64::from(r.id.0), u64::from(r.generation), r.limit, u64::from(r.rewind)]);
            }
            Self::Yield(y) => ints(&[u64::from(y.id.0), u64::from(y.generation), y.limit, y.committed]),
            Self::Close(c) | Self::Reset(c) => {
                ints(&[u64::from(c.id.0), c.final_seq, u64::from(c.code)]);
                opening::write_text(out, &c.reason, TEXT_BYTES_MAX);
            }
            Self::Withdraw { id, seq } => ints(&[u64::from(id.0), *seq]),
            Self::Withdrawn { id, seq, withdrawn } => ints(&[u64::from(id.0), *seq, u64::from(*withdrawn)]),
            Self::Pos(p) => ints(&[
                u64::from(p.id.0),
                u64::from(p.generation),
                p.next_expected,
                p.taken,
                p.limit,
                p.limit_bytes,
                p.committed,
            ]),
            Self::Ping { nonce } | Self::Pong { nonce } => ints(&[*nonce]),
            Self::GoAway { code, reason } => {
                ints(&[u64::from(*code)]);
                opening::write_text(out, reason, TEXT_BYTES_MAX);
            }
        }
    }

    fn read_fields(kind: u8, r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match kind {
            kind::CONFIRM => Self::Confirm { mac: r.array()? },
            kind::OPEN => Self::Open(Open::read(r)?),
            kind::ACCEPT => Self::Accept(Accept::read(r)?),
            kind::REFUSE => Self::Refuse(Refuse::read(r)?),
            kind::ANNOUNCE => Self::Announce(Announce::read(r)?),
            kind::WINDOW => Self::Window(WindowUpdate {
                id: opening::read_id(r)?,
                generation: r.varint_u32()?,
                received: r.varint()?,
                taken: r.varint()?,
                limit: r.varint()?,
                limit_bytes: r.varint()?,
            }),
            kind::WANT => Self::Want { id: opening::read_id(r)?, limit: r.varint()? },
            kind::POLL => Self::Poll { id: opening::read_id(r)? },
            kind::CALL_BACK => Self::CallBack { id: opening::read_id(r)?, generation: r.varint_u32()? },
            kind::CLOSING => Self::Closing {
                id: opening::read_id(r)?,
                code: read_u16(r)?,
                reason: r.text(TEXT_BYTES_MAX)?,
            },
            kind::RECALL => Self::Recall(Recall {
                id: opening::read_id(r)?,
                generation: r.varint_u32()?,
                limit: r.varint()?,
                rewind: read_bool(r)?,
            }),
            kind::YIELD => Self::Yield(Yield {
                id: opening::read_id(r)?,
                generation: r.varint_u32()?,
                limit: r.varint()?,
                committed: r.varint()?,
            }),
            kind::CLOSE => Self::Close(read_close(r)?),
            kind::RESET => Self::Reset(read_close(r)?),
            kind::WITHDRAW => Self::Withdraw { id: opening::read_id(r)?, seq: r.varint()? },
            kind::WITHDRAWN => {
                Self::Withdrawn { id: opening::read_id(r)?, seq: r.varint()?, withdrawn: read_bool(r)? }
            }
            kind::POS => Self::Pos(Pos {
                id: opening::read_id(r)?,
                generation: r.varint_u32()?,
                next_expected: r.varint()?,
                taken: r.varint()?,
                limit: r.varint()?,
                limit_bytes: r.varint()?,
                committed: r.varint()?,
            }),
            kind::PING => Self::Ping { nonce: r.varint()? },
            kind::PONG => Self::Pong { nonce: r.varint()? },
            kind::GOAWAY => Self::GoAway { code: read_u16(r)?, reason: r.text(TEXT_BYTES_MAX)? },
            unknown => return Err(WireError::UnknownFrame(unknown)),
        })
    }
}

fn read_close(r: &mut Reader<'_>) -> Result<Close, WireError> {
    Ok(Close {
        id: opening::read_id(r)?,
        final_seq: r.varint()?,
        code: read_u16(r)?,
        reason: r.text(TEXT_BYTES_MAX)?,
    })
}

fn read_u16(r: &mut Reader<'_>) -> Result<u16, WireError> {
    u16::try_from(r.varint()?).map_err(|_| WireError::Invalid("more than 16 bits"))
}

fn read_bool(r: &mut Reader<'_>) -> Result<bool, WireError> {
    match r.varint()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("not a boolean")),
    }
}
