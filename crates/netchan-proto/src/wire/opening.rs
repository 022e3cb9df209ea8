//! Frames that open, answer and announce channels (`WIRE-10` to `WIRE-14`).

use super::{Reader, WireError, write_varint};
use crate::id::ChannelId;
use crate::limits::{AHEAD_ITEMS_MAX, CAPACITY_ITEMS_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};

/// Which way values travel, seen from the end that opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFlow {
    /// The opener sends values.
    OpenerSends,
    /// The opener receives values.
    OpenerReceives,
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Values of the programs.
    #[default]
    Values,
    /// Values of a hosted channel that the opener acknowledges one by one (`DEL-1`).
    Deliveries,
    /// What the opener does with the deliveries of a channel (`DEL-10`).
    Acks {
        /// The channel of the deliveries.
        of: ChannelId,
    },
    /// What became of that (`DEL-11`).
    Outcomes {
        /// The channel of the deliveries.
        of: ChannelId,
    },
    /// Values of a hosted broadcast, by a subscriber that says what is to become of it when it is slow (`CAST-5`): 0 it
    /// lags, 1 senders wait for it, 2 it is disconnected.
    Subscription {
        /// What is to become of it.
        when_slow: u8,
    },
}

/// How the sending end of a channel obtains leave to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A direct channel of capacity ≥ 1: credit is held at all times.
    Credit,
    /// Capacity 0: one offer in flight.
    Rendezvous,
    /// Into a hosted channel: credit is leased from the pool of all senders, on demand.
    Lease,
    /// Out of a hosted channel: a value leaves only for a waiting receive.
    Demand,
    /// Out of a hosted broadcast: credit as in [`Mode::Credit`], and what is sent says whether it is a value (`CAST-8`).
    Cast,
}

/// Opens a channel. Sent again, with the same id, on every link until the channel is closed at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The new channel's id.
    pub id: ChannelId,
    /// Its name.
    pub name: String,
    /// The label of the type of its values.
    pub label: String,
    /// The codec of its values.
    pub codec: String,
    /// A structural fingerprint of the type, where there is one.
    pub fingerprint: Option<[u8; 16]>,
    /// Which way values travel.
    pub flow: OpenFlow,
    /// What the channel is for.
    pub purpose: Purpose,
    /// The capacity the opener wants when it receives; 0 and without meaning otherwise.
    pub capacity: u64,
    /// Bytes the acceptor may send at once when the opener receives.
    pub limit_bytes: u64,
}

/// Accepts a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The channel.
    pub id: ChannelId,
    /// How its sending end obtains leave to send.
    pub mode: Mode,
    /// Its capacity.
    pub capacity: u64,
    /// Bytes the opener may send at once when the acceptor receives.
    pub limit_bytes: u64,
}

/// Why a channel was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefuseCode {
    /// Nothing of that name is hosted, and nobody accepted it in time.
    NotAvailable,
    /// This peer may not use the name.
    Denied,
    /// The two ends disagree on the type of the values.
    TypeMismatch,
    /// The two ends disagree on the codec.
    CodecMismatch,
    /// The hosted channel does not carry values in this direction.
    WrongDirection,
    /// A limit of the acceptor; the reason names it.
    LimitReached,
    /// The program at the other end declined.
    Declined,
}

/// Refuses a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The channel.
    pub id: ChannelId,
    /// Why.
    pub code: RefuseCode,
    /// Why, for people; on a mismatch, what the refusing end has.
    pub reason: String,
}

/// Announces a hosted channel that the peer may use, or takes the announcement back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The channel's name.
    pub name: String,
    /// The label of the type of its values.
    pub label: String,
    /// Its codec.
    pub codec: String,
    /// Whether the peer may receive from it.
    pub may_receive: bool,
    /// Whether the peer may send into it.
    pub may_send: bool,
    /// Its capacity.
    pub capacity: u64,
    /// False when the channel is hosted no longer.
    pub hosted: bool,
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    write_varint(out, end as u64);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// A channel's id; the control channel is none (`WIRE-4`).
pub(super) fn read_id(reader: &mut Reader<'_>) -> Result<ChannelId, WireError> {
    match reader.varint_u32()? {
        0 => Err(WireError::Invalid("the control channel has no such frame")),
        id => Ok(ChannelId(id)),
    }
}

fn read_capacity(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let capacity = reader.varint()?;
    if capacity > CAPACITY_ITEMS_MAX { Err(WireError::Invalid("capacity")) } else { Ok(capacity) }
}

impl Open {
    /// Values that may be with an opener that receives from a hosted channel although it has not asked for them (`FLOW-10`).
    #[must_use]
    pub fn ahead_max(&self) -> u64 {
        let takes = self.flow == OpenFlow::OpenerReceives && self.capacity > 0;
        if takes { AHEAD_ITEMS_MAX } else { 0 }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(self.id.0));
        write_text(out, &self.name, NAME_BYTES_MAX);
        write_text(out, &self.label, TEXT_BYTES_MAX);
        write_text(out, &self.codec, TEXT_BYTES_MAX);
        let receives = self.flow == OpenFlow::OpenerReceives;
        let special = self.purpose != Purpose::Values;
        out.push(u8::from(receives) | u8::from(self.fingerprint.is_some()) << 1 | u8::from(special) << 2);
        if let Some(fingerprint) = &self.fingerprint {
            out.extend_from_slice(fingerprint);
        }
        write_varint(out, self.capacity);
        write_varint(out, self.limit_bytes);
        self.purpose.write(out);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = read_id(reader)?;
        let name = reader.text(NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(WireError::Invalid("empty channel name"));
        }
        let label = reader.text(TEXT_BYTES_MAX)?;
        let codec = reader.text(TEXT_BYTES_MAX)?;
        let flags = reader.u8()?;
        if flags > 7 {
            return Err(WireError::Invalid("open flags"));
        }
        let flow = if flags & 1 == 0 { OpenFlow::OpenerSends } else { OpenFlow::OpenerReceives };
        let fingerprint = if flags & 2 == 0 { None } else { Some(reader.array()?) };
        let capacity = read_capacity(reader)?;
        let limit_bytes = reader.varint()?;
        let purpose = if flags & 4 == 0 { Purpose::Values } else { Purpose::read(reader, flow)? };
        Ok(Self { id, name, label, codec, fingerprint, flow, purpose, capacity, limit_bytes })
    }
}

impl Purpose {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Values => {}
            Self::Deliveries => out.push(1),
            Self::Acks { of } => {
                out.push(2);
                write_varint(out, u64::from(of.0));
            }
            Self::Outcomes { of } => {
                out.push(3);
                write_varint(out, u64::from(of.0));
            }
            Self::Subscription { when_slow } => out.extend_from_slice(&[4, when_slow]),
        }
    }

    fn read(reader: &mut Reader<'_>, flow: OpenFlow) -> Result<Self, WireError> {
        match (reader.u8()?, flow) {
            (1, OpenFlow::OpenerReceives) => Ok(Self::Deliveries),
            (2, OpenFlow::OpenerSends) => Ok(Self::Acks { of: read_id(reader)? }),
            (3, OpenFlow::OpenerReceives) => Ok(Self::Outcomes { of: read_id(reader)? }),
            (4, OpenFlow::OpenerReceives) => match reader.u8()? {
                when_slow @ 0..=2 => Ok(Self::Subscription { when_slow }),
                _ => Err(WireError::Invalid("purpose")),
            },
            _ => Err(WireError::Invalid("purpose")),
        }
    }
}

impl Mode {
    const ALL: [Self; 5] = [Self::Credit, Self::Rendezvous, Self::Lease, Self::Demand, Self::Cast];
}

impl Accept {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(self.id.0));
        out.push(self.mode as u8);
        write_varint(out, self.capacity);
        write_varint(out, self.limit_bytes);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = read_id(reader)?;
        let mode = *Mode::ALL.get(usize::from(reader.u8()?)).ok_or(WireError::Invalid("mode"))?;
        let capacity = read_capacity(reader)?;
        match (mode, capacity) {
            (Mode::Credit | Mode::Cast, 0) => Err(WireError::Invalid("credit without capacity")),
            (Mode::Rendezvous, 1..) => Err(WireError::Invalid("rendezvous with capacity")),
            _ => Ok(Self { id, mode, capacity, limit_bytes: reader.varint()? }),
        }
    }
}

impl RefuseCode {
    const ALL: [Self; 7] = [
        Self::NotAvailable,
        Self::Denied,
        Self::TypeMismatch,
        Self::CodecMismatch,
        Self::WrongDirection,
        Self::LimitReached,
        Self::Declined,
    ];
}

impl Refuse {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(self.id.0));
        out.push(self.code as u8);
        write_text(out, &self.reason, TEXT_BYTES_MAX);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = read_id(reader)?;
        // A code from a newer peer still refuses; its reason still reads (`WIRE-12`).
        let code = RefuseCode::ALL.get(usize::from(reader.u8()?)).copied().unwrap_or(RefuseCode::Declined);
        Ok(Self { id, code, reason: reader.text(TEXT_BYTES_MAX)? })
    }
}

impl Announce {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_text(out, &self.name, NAME_BYTES_MAX);
        write_text(out, &self.label, TEXT_BYTES_MAX);
        write_text(out, &self.codec, TEXT_BYTES_MAX);
        out.push(u8::from(self.may_receive) | u8::from(self.may_send) << 1 | u8::from(self.hosted) << 2);
        write_varint(out, self.capacity);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = reader.text(NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(WireError::Invalid("empty channel name"));
        }
        let label = reader.text(TEXT_BYTES_MAX)?;
        let codec = reader.text(TEXT_BYTES_MAX)?;
        let flags = reader.u8()?;
        if flags > 7 {
            return Err(WireError::Invalid("announce flags"));
        }
        Ok(Self {
            name,
            label,
            codec,
            may_receive: flags & 1 != 0,
            may_send: flags & 2 != 0,
            hosted: flags & 4 != 0,
            capacity: read_capacity(reader)?,
        })
    }
}
