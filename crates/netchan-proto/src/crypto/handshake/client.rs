//! The client's handshake.

use std::mem;

use super::input::RecordReader;
use super::pipe::Pipe;
use super::{Established, Handshake, PeerHello, ProvenResume, opening_hash, tls};
use crate::crypto::error::HandshakeError;
use crate::crypto::gate::{GateKey, make_gate};
use crate::crypto::hello::{Accepted, Hello, RefusalCode, Resume, Welcome};
use crate::crypto::identity::{LocalKey, SPKI_BYTES};
use crate::crypto::schedule::{Hash, LinkKeys, RootSecret, Transcript};
use crate::crypto::secret::{AccessSecret, Fingerprint, ResumeSecret, ServerTrust};
use crate::id::{Epoch, SessionId, Side};
use crate::limits::CLIENT_HELLO_BYTES_MAX;

/// What a client brings to a handshake.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Who we are.
    pub key: LocalKey,
    /// Which server we accept.
    pub server: ServerTrust,
    /// The ticket's secret; without one the gate is made from the pin.
    pub secret: Option<AccessSecret>,
    /// What we say. Its `resume` is filled in from [`resume`](Self::resume), because the proof needs the TLS connection.
    pub hello: Hello,
    /// The session to go on with.
    pub resume: Option<ResumeFrom>,
}

/// What a client keeps of a session in order to go on with it.
#[derive(Clone, Debug)]
pub struct ResumeFrom {
    /// The session.
    pub session_id: SessionId,
    /// Its last confirmed epoch.
    pub last_epoch: Epoch,
    /// The resume secret of that epoch.
    pub secret: ResumeSecret,
}

/// The client's side of one handshake.
#[derive(Debug)]
pub struct ClientHandshake {
    state: State,
    output: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Tls(Box<InTls>),
    AwaitWelcome(Box<AwaitWelcome>),
    Established(Box<Established>),
    Over,
}

/// The TLS handshake is running.
#[derive(Debug)]
struct InTls {
    pipe: Pipe,
    settings: ClientSettings,
    opening: Hash,
}

/// TLS is done, the Hello is sent.
#[derive(Debug)]
struct AwaitWelcome {
    pipe: Pipe,
    settings: ClientSettings,
    opening: Hash,
    server_spki: [u8; SPKI_BYTES],
    key_exchange: &'static str,
    hello: Hello,
    hello_bytes: Vec<u8>,
}

impl ClientHandshake {
    /// Starts: gate and ClientHello are the first output. `salt` is 16 random bytes, new for every connection.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::FirstUseWithoutSecret`] and [`HandshakeError::FirstUseResumes`], before anything is made to be
    /// sent; [`HandshakeError::Tls`] when rustls cannot start, which is our side's fault.
    pub fn new(settings: ClientSettings, unix_seconds: u64, salt: [u8; 16]) -> Result<Self, HandshakeError> {
        let key = match (&settings.secret, settings.server) {
            (_, ServerTrust::FirstUse) if settings.resume.is_some() => {
                return Err(HandshakeError::FirstUseResumes);
            }
            (Some(secret), _) => GateKey::Secret(secret.clone()),
            (None, ServerTrust::Pinned(pin)) => GateKey::Pin(pin),
            (None, ServerTrust::FirstUse) => return Err(HandshakeError::FirstUseWithoutSecret),
        };
        let config = tls::client_config(&settings.key, settings.server)?;
        let connection = rustls::ClientConnection::new(config, tls::server_name()?)?;
        let mut pipe = Pipe::new(connection.into(), RecordReader::new());
        let client_hello = pipe.output();
        if client_hello.len() > CLIENT_HELLO_BYTES_MAX {
            return Err(HandshakeError::RecordLength(client_hello.len()));
        }
        let gate = make_gate(&key, unix_seconds, salt, &client_hello);
        let opening = opening_hash(&gate, &client_hello);
        let output = [&gate[..], &client_hello].concat();
        Ok(Self { state: State::Tls(Box::new(InTls { pipe, settings, opening })), output })
    }

    /// One step of one state; `None` in place of the next state asks for more input.
    fn step(&mut self, input: &mut &[u8]) -> Result<bool, HandshakeError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Tls(mut state) => {
                let progress = state.pipe.handle_handshake(input)?;
                self.output.extend(state.pipe.output());
                self.state = match progress {
                    Some(true) => State::AwaitWelcome(Box::new(state.say_hello(&mut self.output)?)),
                    _ => State::Tls(state),
                };
                Ok(progress.is_some())
            }
            State::AwaitWelcome(mut state) => {
                let message = state.pipe.handle_message(input)?;
                let progress = message.is_some();
                self.state = match message {
                    Some(message) => State::Established(Box::new(state.hear_welcome(&message)?)),
                    None => State::AwaitWelcome(state),
                };
                Ok(progress)
            }
            over => {
                self.state = over;
                Ok(false)
            }
        }
    }
}

impl InTls {
    fn say_hello(self, output: &mut Vec<u8>) -> Result<AwaitWelcome, HandshakeError> {
        let Self { mut pipe, settings, opening } = self;
        let negotiated = pipe.negotiated()?;
        let mut hello = settings.hello.clone();
        hello.resume = match &settings.resume {
            Some(resume) => Some(Resume {
                session_id: resume.session_id,
                last_epoch: resume.last_epoch,
                proof: resume.secret.proof(&pipe.resume_exporter()?.0),
            }),
            None => None,
        };
        let hello_bytes = hello.encode()?;
        output.extend(pipe.send(&hello_bytes)?);
        Ok(AwaitWelcome {
            pipe,
            settings,
            opening,
            server_spki: negotiated.peer_spki,
            key_exchange: negotiated.key_exchange,
            hello,
            hello_bytes,
        })
    }
}

impl AwaitWelcome {
    fn hear_welcome(self, welcome_bytes: &[u8]) -> Result<Established, HandshakeError> {
        let accepted = match Welcome::decode(welcome_bytes)? {
            Welcome::Accepted(accepted) => accepted,
            Welcome::Refused { code, reason } => return Err(HandshakeError::Refused { code, reason }),
        };
        let resume = match (&self.settings.resume, accepted.resumed) {
            (_, false) => None,
            (Some(resume), true) if resume.session_id == accepted.session_id => Some(&resume.secret),
            (_, true) => return Err(HandshakeError::Negotiation),
        };
        let transcript = Transcript {
            version: self.hello.version,
            opening: &self.opening,
            client_spki: self.settings.key.spki(),
            server_spki: &self.server_spki,
            hello: &self.hello_bytes,
            welcome: welcome_bytes,
        };
        let ctx = transcript.context();
        let exporter = self.pipe.exporter(&ctx)?;
        let root = RootSecret::extract(&exporter, self.settings.secret.as_ref(), resume);
        Ok(Established {
            keys: LinkKeys::derive(Side::Client, accepted.aead, root, &ctx),
            peer: Fingerprint::of_spki(&self.server_spki),
            key_exchange: self.key_exchange,
            cipher: accepted.aead.name(),
            hello: self.hello,
            accepted,
        })
    }
}

impl Handshake for ClientHandshake {
    fn handle_input(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let mut rest = input;
        loop {
            match self.step(&mut rest) {
                Ok(true) => {}
                Ok(false) => return Ok(input.len() - rest.len()),
                Err(error) => {
                    self.output.clear();
                    return Err(error);
                }
            }
        }
    }

    fn handle_end(&mut self) -> HandshakeError {
        self.output.clear();
        match mem::replace(&mut self.state, State::Over) {
            State::Tls(state) if state.pipe.is_untouched() => HandshakeError::NoAnswer,
            _ => HandshakeError::Truncated,
        }
    }

    fn poll_output(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| mem::take(&mut self.output))
    }

    fn poll_hello(&mut self) -> Option<PeerHello> {
        None
    }

    fn accept(&mut self, _: Accepted, _: Option<ProvenResume>) -> Result<(), HandshakeError> {
        Err(HandshakeError::NotNow)
    }

    fn refuse(&mut self, _: RefusalCode, _: &str) -> Result<(), HandshakeError> {
        Err(HandshakeError::NotNow)
    }

    fn poll_established(&mut self) -> Option<Established> {
        match mem::replace(&mut self.state, State::Over) {
            State::Established(established) => Some(*established),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
}
