//! Bytes on the wire: varints and frames, encode and decode, nothing else.

mod broadcast;
mod data;
mod delivery;
mod frame;
mod opening;
mod reader;

pub use broadcast::Told;
pub use data::{
    Body, DataHeader, FRAGMENT_TRAILER_BYTES, ITEMS_TRAILER_BYTES, Trailer, count_items, split_item,
};
pub use delivery::{Ask, AskHead, HANDED_BYTES_MAX, HEAD_BYTES_MAX, Handed, Outcome, Verdict};
pub use frame::{Close, Frame, Pos, Recall, WindowUpdate, Yield};
pub use opening::{Accept, Announce, Mode, Open, OpenFlow, Purpose, Refuse, RefuseCode};
pub use reader::{Reader, varint_len, write_varint};

/// Why bytes from the peer are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("truncated frame")]
    Truncated,
    /// A varint that is longer than its value needs, or than 64 bits (`WIRE-1`).
    #[error("malformed varint")]
    Varint,
    /// A frame type that this version must understand and does not (`WIRE-3`).
    #[error("unknown frame type {0:#04x}")]
    UnknownFrame(u8),
    /// A field's value is outside what the specification allows.
    #[error("invalid field: {0}")]
    Invalid(&'static str),
    /// The frame has bytes after its last field.
    #[error("trailing bytes in a frame")]
    Trailing,
}
