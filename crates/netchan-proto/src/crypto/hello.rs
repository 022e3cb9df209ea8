//! Hello and Welcome: the two messages that travel inside TLS, and all that the ends agree on before they have keys.

use std::fmt;

use super::cipher::Aead;
use super::error::HelloError;
use crate::id::{Epoch, Incarnation, SessionId};
use crate::limits::TEXT_BYTES_MAX;

/// The protocol version this crate speaks.
pub const VERSION: u16 = 1;

/// What the client says first (`HS-8`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version; [`VERSION`].
    pub version: u16,
    /// Name and version of the client's software, for people; at most [`TEXT_BYTES_MAX`] bytes.
    pub agent: String,
    /// Whether the client has AES hardware.
    pub aes_hardware: bool,
    /// The largest message the client receives.
    pub message_bytes_max: u64,
    /// The session to go on with, or none for a new one.
    pub resume: Option<Resume>,
}

/// Asks to go on with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The session.
    pub session_id: SessionId,
    /// The last epoch the client saw confirmed.
    pub last_epoch: Epoch,
    /// Proves the resume secret of that epoch over this TLS connection (`KEY-5`).
    pub proof: [u8; 48],
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// Come in.
    Accepted(Accepted),
    /// Stay out.
    Refused {
        /// The class of reason.
        code: RefusalCode,
        /// The reason, for people.
        reason: String,
    },
}

/// The terms of the link that now begins (`HS-9`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The session.
    pub session_id: SessionId,
    /// The server's life.
    pub incarnation: Incarnation,
    /// Which link of the session this is.
    pub epoch: Epoch,
    /// The cipher of the records.
    pub aead: Aead,
    /// Whether the session goes on from an earlier link; the handshake sets it from the proof.
    pub resumed: bool,
    /// The largest message the server receives.
    pub message_bytes_max: u64,
    /// How many channels the session may have.
    pub channels_max: u32,
    /// Name and version of the server's software, for people; at most [`TEXT_BYTES_MAX`] bytes.
    pub agent: String,
}

/// Why a server refuses an authenticated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The server does not speak the client's version.
    VersionUnsupported,
    /// Policy says no.
    Denied,
    /// The server has as many sessions as it wants.
    TooManySessions,
    /// The server is going away.
    ShuttingDown,
    /// There is no such session to go on with, or the proof does not fit.
    SessionUnknown,
    /// The session was given up because too many were without a link; the reason says which limit.
    TooManySuspended,
    /// The server takes one session of a key at a time, and has one.
    AlreadyConnected,
    /// The server has ended the session that the client would go on with; the reason is what it said then.
    SessionEnded,
    /// A code that a later version defines.
    Other(u16),
}

impl RefusalCode {
    const fn code(self) -> u16 {
        match self {
            Self::VersionUnsupported => 1,
            Self::Denied => 2,
            Self::TooManySessions => 3,
            Self::ShuttingDown => 4,
            Self::SessionUnknown => 5,
            Self::TooManySuspended => 6,
            Self::AlreadyConnected => 7,
            Self::SessionEnded => 8,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::VersionUnsupported,
            2 => Self::Denied,
            3 => Self::TooManySessions,
            4 => Self::ShuttingDown,
            5 => Self::SessionUnknown,
            6 => Self::TooManySuspended,
            7 => Self::AlreadyConnected,
            8 => Self::SessionEnded,
            code => Self::Other(code),
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VersionUnsupported => f.write_str("version unsupported"),
            Self::Denied => f.write_str("denied"),
            Self::TooManySessions => f.write_str("too many sessions"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::SessionUnknown => f.write_str("session unknown"),
            Self::TooManySuspended => f.write_str("too many suspended sessions"),
            Self::AlreadyConnected => f.write_str("already connected"),
            Self::SessionEnded => f.write_str("the server has ended the session"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}

const AES_HARDWARE: u8 = 1;
const RESUME: u8 = 2;
const RESUMED: u8 = 1;
const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

impl Hello {
    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// [`HelloError::TextTooLong`] for an agent over [`TEXT_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, HelloError> {
        let aes_hardware = if self.aes_hardware { AES_HARDWARE } else { 0 };
        let resume = if self.resume.is_some() { RESUME } else { 0 };
        let mut out = Vec::with_capacity(96 + self.agent.len().min(TEXT_BYTES_MAX));
        out.extend(self.version.to_be_bytes());
        out.push(aes_hardware | resume);
        out.extend(self.message_bytes_max.to_be_bytes());
        put_text(&mut out, &self.agent)?;
        if let Some(resume) = &self.resume {
            out.extend(resume.session_id.0);
            out.extend(resume.last_epoch.0.to_be_bytes());
            out.extend(resume.proof);
        }
        Ok(out)
    }

    /// Decodes a whole message.
    ///
    /// # Errors
    ///
    /// [`HelloError`] for anything but exactly one well-formed Hello.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut input = Input(bytes);
        let version = u16::from_be_bytes(input.array()?);
        let flags = input.flags(AES_HARDWARE | RESUME)?;
        let message_bytes_max = u64::from_be_bytes(input.array()?);
        let agent = input.text()?;
        let resume = if flags & RESUME != 0 {
            let session_id = SessionId(input.array()?);
            let last_epoch = Epoch(u32::from_be_bytes(input.array()?));
            Some(Resume { session_id, last_epoch, proof: input.array()? })
        } else {
            None
        };
        input.end()?;
        Ok(Self { version, agent, aes_hardware: flags & AES_HARDWARE != 0, message_bytes_max, resume })
    }
}

impl Welcome {
    /// Encodes the message. A reason over [`TEXT_BYTES_MAX`] is cut.
    ///
    /// # Errors
    ///
    /// [`HelloError::TextTooLong`] for an agent over [`TEXT_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, HelloError> {
        let mut out = Vec::new();
        match self {
            Self::Accepted(accepted) => {
                out.push(ACCEPTED);
                out.extend(accepted.session_id.0);
                out.extend(accepted.incarnation.0.to_be_bytes());
                out.extend(accepted.epoch.0.to_be_bytes());
                out.push(accepted.aead.code());
                out.push(if accepted.resumed { RESUMED } else { 0 });
                out.extend(accepted.message_bytes_max.to_be_bytes());
                out.extend(accepted.channels_max.to_be_bytes());
                put_text(&mut out, &accepted.agent)?;
            }
            Self::Refused { code, reason } => {
                out.push(REFUSED);
                out.extend(code.code().to_be_bytes());
                put_text(&mut out, cut(reason))?;
            }
        }
        Ok(out)
    }

    /// Decodes a whole message.
    ///
    /// # Errors
    ///
    /// [`HelloError`] for anything but exactly one well-formed Welcome.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let mut input = Input(bytes);
        let welcome = match input.byte()? {
            ACCEPTED => Self::Accepted(Accepted {
                session_id: SessionId(input.array()?),
                incarnation: Incarnation(u64::from_be_bytes(input.array()?)),
                epoch: Epoch(u32::from_be_bytes(input.array()?)),
                aead: input
                    .byte()
                    .and_then(|value| Aead::from_code(value).ok_or(HelloError::Undefined { value }))?,
                resumed: input.flags(RESUMED)? != 0,
                message_bytes_max: u64::from_be_bytes(input.array()?),
                channels_max: u32::from_be_bytes(input.array()?),
                agent: input.text()?,
            }),
            REFUSED => Self::Refused {
                code: RefusalCode::from_code(u16::from_be_bytes(input.array()?)),
                reason: input.text()?,
            },
            value => return Err(HelloError::Undefined { value }),
        };
        input.end()?;
        Ok(welcome)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), HelloError> {
    let too_long = HelloError::TextTooLong { bytes: text.len(), max: TEXT_BYTES_MAX };
    let bytes = u16::try_from(text.len()).map_err(|_| too_long)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(too_long);
    }
    out.extend(bytes.to_be_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(HelloError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, HelloError> {
        self.array().map(|[byte]| byte)
    }

    fn flags(&mut self, defined: u8) -> Result<u8, HelloError> {
        let value = self.byte()?;
        if value & !defined == 0 { Ok(value) } else { Err(HelloError::Undefined { value }) }
    }

    fn text(&mut self) -> Result<String, HelloError> {
        let bytes = usize::from(u16::from_be_bytes(self.array()?));
        if bytes > TEXT_BYTES_MAX {
            return Err(HelloError::TextTooLong { bytes, max: TEXT_BYTES_MAX });
        }
        let (text, rest) = self.0.split_at_checked(bytes).ok_or(HelloError::Truncated)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| HelloError::TextNotUtf8)
    }

    fn end(&self) -> Result<(), HelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(HelloError::TrailingBytes) }
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
