//! What can go wrong, and whose fault it is.

use thiserror::Error;

use super::hello::RefusalCode;
use super::secret::Fingerprint;
use crate::id::ChannelId;

/// A signer could not sign: a hardware key that was pulled out, an agent that went away. Our own side's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the identity key could not sign")]
pub struct SignError;

/// A text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a fingerprint: expected SHA256: and 43 characters of base64")]
pub struct ParseFingerprintError;

/// Why a gate was not opened. For the server's audit only: the peer sees a closed connection in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GateReject {
    /// No candidate key made this tag: a stranger, a stale ticket, or bytes that changed on the way.
    #[error("no candidate key made this gate")]
    BadTag,
    /// The tag is right, the time is not: the peers' clocks disagree, or this is an old recording.
    #[error("the peer's clock is {skew_seconds} s ahead of ours")]
    Clock {
        /// The peer's clock minus ours.
        skew_seconds: i64,
    },
    /// This very gate came before.
    #[error("this gate was used before")]
    Replay,
}

/// A Hello or Welcome that breaks the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The message ends too early.
    #[error("the message ends too early")]
    Truncated,
    /// Bytes follow the end of the message.
    #[error("bytes follow the end of the message")]
    TrailingBytes,
    /// A text is longer than allowed.
    #[error("a text of {bytes} bytes is over the limit of {max}")]
    TextTooLong {
        /// The text's length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    TextNotUtf8,
    /// A flag, kind or cipher this version does not define.
    #[error("undefined value {value:#04x}")]
    Undefined {
        /// The byte that means nothing here.
        value: u8,
    },
}

/// Why a handshake ended without a link.
///
/// Except for [`Refused`](Self::Refused), which the authenticated server said, the peer is told nothing (`HS-12`).
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server closed before sending a byte.
    #[error(
        "closed without answering: the access secret or the server's key in the ticket is wrong or out of date, the \
         clocks differ too much, the server is overloaded, or something else listens there"
    )]
    NoAnswer,
    /// The connection ended in the middle of the handshake.
    #[error("the connection ended during the handshake")]
    Truncated,
    /// The gate stayed shut (server only).
    #[error("gate: {0}")]
    Gate(#[from] GateReject),
    /// A record of a type that is not allowed at this point.
    #[error("a TLS record of type {0} is not allowed here")]
    RecordType(u8),
    /// A record whose legacy version is not the one TLS 1.3 writes.
    #[error("a TLS record of version {0:?} is not allowed here")]
    RecordVersion([u8; 2]),
    /// A record longer than the handshake allows, or empty.
    #[error("a TLS record of {0} bytes is not allowed in the handshake")]
    RecordLength(usize),
    /// The peer sent more than a handshake may take.
    #[error("the handshake takes more bytes than allowed")]
    InputLimit,
    /// The server's key is not the pinned one.
    #[error("the server showed the key {shown}, which is not the one it is to have")]
    WrongPin {
        /// What it showed, and has not proven to hold: anybody can show a public key.
        shown: Fingerprint,
    },
    /// Trust on first use was asked for without an access secret. Nothing was sent.
    #[error(
        "trust on first use needs an access secret: without one anybody on the way could pose as the server; give the \
         secret, or pin the server's key"
    )]
    FirstUseWithoutSecret,
    /// Trust on first use was asked for to go on with a session, whose server is known. Nothing was sent.
    #[error("a session goes on with the server that it was begun with: pin that server's key")]
    FirstUseResumes,
    /// TLS failed.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS agreed on something other than `netchan/1` over TLS 1.3 with X25519MLKEM768 and Ed25519 keys.
    #[error("the peer negotiated something this protocol does not allow")]
    Negotiation,
    /// After the TLS handshake something other than exactly one message in one record.
    #[error("unexpected TLS record after the handshake")]
    UnexpectedRecord,
    /// The peer's Hello or Welcome is malformed, or ours cannot be encoded.
    #[error("hello: {0}")]
    Hello(#[from] HelloError),
    /// The server refused, and said why.
    #[error("the server refused ({code}): {reason}")]
    Refused {
        /// The class of reason.
        code: RefusalCode,
        /// The reason, for people.
        reason: String,
    },
    /// A call that does not fit the handshake's state: the caller's fault.
    #[error("the handshake does not expect this call now")]
    NotNow,
}

/// Why a record was not sealed. Nothing was written and no sequence number was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The channel has no sealing key here: the caller's fault.
    #[error("channel {0} has no sealing key")]
    UnknownChannel(ChannelId),
    /// The channel has a key already, and giving it another would hide a mistake: the caller's fault.
    #[error("channel {0} has a sealing key already")]
    ChannelExists(ChannelId),
    /// The plaintext is over the record limit: the caller's fault.
    #[error("a plaintext of {bytes} bytes does not fit one record")]
    TooLarge {
        /// Body and trailer together.
        bytes: usize,
    },
    /// The write buffer has no room for the record now.
    #[error("the record needs {bytes} bytes of buffer")]
    NoSpace {
        /// What the record needs.
        bytes: usize,
    },
    /// The link has used all its sequence numbers.
    #[error("the link has used all its sequence numbers")]
    SequenceExhausted,
    /// The cipher failed: our fault.
    #[error("the cipher failed")]
    Cipher,
}

/// Why a record was not opened.
///
/// All but [`ChannelExists`](Self::ChannelExists) and [`OutputLength`](Self::OutputLength), which are the caller's fault,
/// are unauthenticated faults: whoever stands between the peers can cause them, so the link dies silently (`REC-11`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The length field is out of bounds, or is not the length of the record given.
    #[error("a record length of {bytes} bytes is not allowed")]
    Length {
        /// What the length field says.
        bytes: usize,
    },
    /// The masked channel id names no channel here.
    #[error("a record for an unknown channel")]
    UnknownChannel,
    /// A flag that this version does not define is set.
    #[error("a record with undefined flags")]
    UndefinedFlags,
    /// The tag does not fit: changed, dropped, reordered or replayed bytes.
    #[error("a record that fails authentication")]
    BadTag,
    /// The link has used all its sequence numbers.
    #[error("the link has used all its sequence numbers")]
    SequenceExhausted,
    /// The output slice is not exactly the plaintext's length: the caller's fault.
    #[error("the output holds {given} bytes, the plaintext has {need}")]
    OutputLength {
        /// The plaintext's length.
        need: usize,
        /// The slice's length.
        given: usize,
    },
    /// The channel has an opening key already: the caller's fault.
    #[error("channel {0} has an opening key already")]
    ChannelExists(ChannelId),
}
