//! A handshake without cryptography, for simulations: same states, same messages, keys from a seed that both ends know.

use std::mem;

use super::{Established, Handshake, PeerHello, ProvenResume, ResumeExporter};
use crate::crypto::error::{HandshakeError, HelloError};
use crate::crypto::hello::{Accepted, Hello, RefusalCode, Resume, Welcome};
use crate::crypto::schedule::{LinkKeys, hash};
use crate::crypto::secret::Fingerprint;
use crate::id::Side;
use crate::limits::CLIENT_HELLO_BYTES_MAX;
use zeroize::Zeroizing;

use super::client::ResumeFrom;

/// Believes whatever the peer says of itself. **No security at all**; deterministic, which rustls is not.
///
/// Each message is `len u16 ‖ fingerprint ‖ Hello or Welcome`.
#[derive(Debug)]
pub struct InsecureStub {
    side: Side,
    seed: Vec<u8>,
    own: Fingerprint,
    resume: Option<ResumeFrom>,
    partial: Vec<u8>,
    output: Vec<u8>,
    /// The Hello message as it travels: fingerprint and encoding.
    hello: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    AwaitHello,
    Paused { polled: bool },
    AwaitWelcome,
    Established(Box<Established>),
    Over,
}

impl InsecureStub {
    /// A client named `own`. Both ends of a link need the same `seed`, and every link another one.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Hello`] when the Hello cannot be encoded.
    pub fn client(
        seed: &[u8],
        own: Fingerprint,
        mut hello: Hello,
        resume: Option<ResumeFrom>,
    ) -> Result<Self, HandshakeError> {
        hello.resume = resume.as_ref().map(|resume| Resume {
            session_id: resume.session_id,
            last_epoch: resume.last_epoch,
            proof: resume.secret.proof(&exporter(seed).0),
        });
        let message = [&own.0[..], &hello.encode()?].concat();
        let mut stub = Self::new(Side::Client, seed, own, State::AwaitWelcome);
        stub.resume = resume;
        stub.send(&message)?;
        stub.hello = message;
        Ok(stub)
    }

    /// A server named `own`.
    #[must_use]
    pub fn server(seed: &[u8], own: Fingerprint) -> Self {
        Self::new(Side::Server, seed, own, State::AwaitHello)
    }

    fn new(side: Side, seed: &[u8], own: Fingerprint, state: State) -> Self {
        let (partial, output, hello) = (Vec::new(), Vec::new(), Vec::new());
        Self { side, seed: seed.to_vec(), own, resume: None, partial, output, hello, state }
    }

    fn send(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let bytes = u16::try_from(message.len()).map_err(|_| HandshakeError::RecordLength(message.len()))?;
        self.output.extend(bytes.to_be_bytes());
        self.output.extend(message);
        Ok(())
    }

    fn take_message(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, HandshakeError> {
        for target in 0..2 {
            let target = match (target, self.partial.first_chunk()) {
                (0, _) => 2,
                (_, Some(len)) => 2 + usize::from(u16::from_be_bytes(*len)),
                (_, None) => return Ok(None),
            };
            if target > CLIENT_HELLO_BYTES_MAX {
                return Err(HandshakeError::RecordLength(target));
            }
            let missing = target.saturating_sub(self.partial.len());
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
        }
        Ok(Some(mem::take(&mut self.partial).split_off(2)))
    }

    fn hear_welcome(&self, message: &[u8]) -> Result<Established, HandshakeError> {
        let (peer, welcome) = split(message)?;
        match Welcome::decode(welcome)? {
            Welcome::Accepted(accepted) => {
                let resumes =
                    self.resume.as_ref().is_some_and(|resume| resume.session_id == accepted.session_id);
                if accepted.resumed && !resumes {
                    return Err(HandshakeError::Negotiation);
                }
                self.establish(peer, accepted, message)
            }
            Welcome::Refused { code, reason } => Err(HandshakeError::Refused { code, reason }),
        }
    }

    fn establish(
        &self,
        peer: Fingerprint,
        accepted: Accepted,
        welcome: &[u8],
    ) -> Result<Established, HandshakeError> {
        let seed = hash(&[&hash(&[&self.seed]), &hash(&[&self.hello]), &hash(&[welcome])]);
        Ok(Established {
            keys: LinkKeys::stub(self.side, &seed, accepted.epoch.0),
            peer,
            hello: Hello::decode(split(&self.hello)?.1)?,
            accepted,
            key_exchange: "none",
            cipher: "stub",
        })
    }

    fn take_paused(&mut self) -> Result<(), HandshakeError> {
        if !matches!(self.state, State::Paused { polled: true }) {
            return Err(HandshakeError::NotNow);
        }
        self.state = State::Over;
        Ok(())
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<(), HandshakeError> {
        if !matches!(self.state, State::AwaitHello | State::AwaitWelcome) {
            return Ok(());
        }
        let Some(message) = self.take_message(input)? else {
            return Ok(());
        };
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::AwaitHello => {
                Hello::decode(split(&message)?.1)?;
                self.hello = message;
                State::Paused { polled: false }
            }
            _ => State::Established(Box::new(self.hear_welcome(&message)?)),
        };
        Ok(())
    }
}

fn exporter(seed: &[u8]) -> ResumeExporter {
    ResumeExporter(Zeroizing::new(hash(&[b"stub resume", seed])))
}

fn split(message: &[u8]) -> Result<(Fingerprint, &[u8]), HandshakeError> {
    let (name, rest) = message.split_first_chunk().ok_or(HelloError::Truncated)?;
    Ok((Fingerprint(*name), rest))
}

impl Handshake for InsecureStub {
    fn handle_input(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let mut rest = input;
        match self.step(&mut rest) {
            Ok(()) => Ok(input.len() - rest.len()),
            Err(error) => {
                self.state = State::Over;
                self.output.clear();
                Err(error)
            }
        }
    }

    fn handle_end(&mut self) -> HandshakeError {
        let untouched = self.partial.is_empty() && matches!(self.state, State::AwaitWelcome);
        self.state = State::Over;
        self.output.clear();
        if untouched { HandshakeError::NoAnswer } else { HandshakeError::Truncated }
    }

    fn poll_output(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| mem::take(&mut self.output))
    }

    fn poll_hello(&mut self) -> Option<PeerHello> {
        if !matches!(self.state, State::Paused { polled: false }) {
            return None;
        }
        self.state = State::Paused { polled: true };
        let (fingerprint, hello) = split(&self.hello).ok()?;
        Some(PeerHello {
            hello: Hello::decode(hello).ok()?,
            fingerprint,
            candidate: 0,
            has_secret: true,
            resume_exporter: exporter(&self.seed),
        })
    }

    fn accept(
        &mut self,
        mut accepted: Accepted,
        resumed: Option<ProvenResume>,
    ) -> Result<(), HandshakeError> {
        self.take_paused()?;
        accepted.resumed = resumed.is_some();
        let message = [&self.own.0[..], &Welcome::Accepted(accepted.clone()).encode()?].concat();
        let established = self.establish(split(&self.hello)?.0, accepted, &message)?;
        self.send(&message)?;
        self.state = State::Established(Box::new(established));
        Ok(())
    }

    fn refuse(&mut self, code: RefusalCode, reason: &str) -> Result<(), HandshakeError> {
        self.take_paused()?;
        let welcome = Welcome::Refused { code, reason: reason.to_owned() }.encode()?;
        self.send(&[&self.own.0[..], &welcome].concat())
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
