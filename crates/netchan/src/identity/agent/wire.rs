//! The little of the SSH agent protocol (draft-ietf-sshm-ssh-agent) that is needed, and of SSH's encoding (RFC 4251,
//! RFC 8709): `be32 length ‖ kind u8 ‖ body`, each string with its length in front.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::MESSAGE_BYTES_MAX;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The name of keys and of signatures.
const ED25519: &[u8] = b"ssh-ed25519";

/// Characters of a comment that are kept: it is for people.
const COMMENT_CHARS_MAX: usize = 256;

/// Why there is no answer.
pub(super) enum Failure {
    Connect(io::Error),
    Link(io::Error),
    Malformed(&'static str),
}

/// A request or an answer.
pub(super) struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Message {
    pub(super) const fn request_identities() -> Self {
        Self { kind: REQUEST_IDENTITIES, body: Vec::new() }
    }

    pub(super) fn sign_request(public_key: &[u8; 32], message: &[u8]) -> Self {
        let mut body = string(&key_blob(public_key));
        body.extend(string(message));
        // No flags: they choose among the hashes of RSA.
        body.extend([0; 4]);
        Self { kind: SIGN_REQUEST, body }
    }

    pub(super) const fn is_failure(&self) -> bool {
        self.kind == FAILURE
    }

    /// The Ed25519 keys among those of an answer, with their comments.
    pub(super) fn identities(&self) -> Result<Vec<([u8; 32], String)>, &'static str> {
        if self.kind != IDENTITIES_ANSWER {
            return Err("it does not list its keys when asked to");
        }
        let mut rest = &self.body[..];
        let count = take_u32(&mut rest)?;
        let mut keys = Vec::new();
        // Each takes bytes of the answer, whose length has its bound.
        for _ in 0..count {
            let (blob, comment) = (take_string(&mut rest)?, take_string(&mut rest)?);
            if let Some(public_key) = ed25519(blob) {
                keys.push((public_key, printable(comment)));
            }
        }
        if rest.is_empty() { Ok(keys) } else { Err("bytes follow its list of keys") }
    }

    /// The signature of an answer.
    pub(super) fn signature(&self) -> Result<[u8; 64], &'static str> {
        if self.kind != SIGN_RESPONSE {
            return Err("it does not sign when asked to");
        }
        let mut body = &self.body[..];
        let mut blob = take_string(&mut body)?;
        let (name, signature) = (take_string(&mut blob)?, take_string(&mut blob)?);
        if !body.is_empty() || !blob.is_empty() {
            return Err("bytes follow its signature");
        }
        if name != ED25519 {
            return Err("its signature is not of Ed25519");
        }
        signature.try_into().map_err(|_| "its signature has not the length of one of Ed25519")
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = u32::try_from(1 + self.body.len()).map_err(io::Error::other)?;
        to.write_all(&[&length.to_be_bytes()[..], &[self.kind], &self.body].concat())
    }

    fn read(from: &mut impl Read) -> Result<Self, Failure> {
        let mut head = [0; 5];
        from.read_exact(&mut head).map_err(Failure::Link)?;
        let [a, b, c, d, kind] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length == 0 {
            return Err(Failure::Malformed("its answer is empty"));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(Failure::Malformed("its answer is too long"));
        }
        let mut body = vec![0; length - 1];
        from.read_exact(&mut body).map_err(Failure::Link)?;
        Ok(Self { kind, body })
    }
}

/// Sends a request over a connection of its own, and waits for the answer.
pub(super) fn ask(socket: &Path, request: &Message, timeout: Duration) -> Result<Message, Failure> {
    let deadline = Instant::now() + timeout;
    let stream = connect(socket, timeout).map_err(Failure::Connect)?;
    let mut link = Timed { stream, timeout, deadline };
    request.write(&mut link).map_err(Failure::Link)?;
    Message::read(&mut link)
}

/// The write timeout bounds the wait for a place in the listener's queue as well.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Zero would be none at all.
    socket.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// A connection with one deadline for all that is said on it: byte by byte, an agent could take for ever.
struct Timed {
    stream: UnixStream,
    timeout: Duration,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(left) }
    }

    fn late(&self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("not within {:?}", self.timeout))
    }

    /// What a socket's timeout is called depends on the system.
    fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::WouldBlock { self.late() } else { error }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(|error| self.explain(error))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(|error| self.explain(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A public key as SSH writes it.
pub(super) fn key_blob(public_key: &[u8; 32]) -> Vec<u8> {
    [string(ED25519), string(public_key)].concat()
}

/// The key, if it is one of Ed25519.
fn ed25519(mut blob: &[u8]) -> Option<[u8; 32]> {
    let (name, key) = (take_string(&mut blob).ok()?, take_string(&mut blob).ok()?);
    let key = key.try_into().ok()?;
    (name == ED25519 && blob.is_empty()).then_some(key)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("keys, and what is signed, are short");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, &'static str> {
    let (number, behind) = rest.split_first_chunk().ok_or("its answer ends too early")?;
    *rest = behind;
    Ok(u32::from_be_bytes(*number))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = take_u32(rest)? as usize;
    let (string, behind) = rest.split_at_checked(length).ok_or("its answer ends too early")?;
    *rest = behind;
    Ok(string)
}

/// What a terminal may be given.
fn printable(comment: &[u8]) -> String {
    let text = String::from_utf8_lossy(comment);
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(COMMENT_CHARS_MAX).map(shown).collect()
}
