//! The server's handshake.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::input::{Expected, RecordReader};
use super::pipe::{Negotiated, Pipe};
use super::{Established, Handshake, PeerHello, ProvenResume, opening_hash, tls};
use crate::crypto::error::HandshakeError;
use crate::crypto::gate::{Gate, GateMatch, GateTime};
use crate::crypto::hello::{Accepted, Hello, RefusalCode, VERSION, Welcome};
use crate::crypto::identity::LocalKey;
use crate::crypto::schedule::{Hash, LinkKeys, RootSecret, Transcript};
use crate::crypto::secret::Fingerprint;
use crate::id::Side;
use crate::limits::GATE_BYTES;

/// What a listener brings to all its handshakes; cheap to clone.
#[derive(Clone)]
pub struct ServerSettings {
    key: LocalKey,
    config: Arc<rustls::ServerConfig>,
    gate: Arc<dyn Gate>,
}

impl ServerSettings {
    /// Settings for a server with this identity, behind this gate. A `Mutex<GateKeeper>` is a [`Gate`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Tls`] when rustls does not take the settings, which is our side's fault.
    pub fn new(key: LocalKey, gate: Arc<dyn Gate>) -> Result<Self, HandshakeError> {
        let config = tls::server_config(&key)?;
        Ok(Self { key, config, gate })
    }

    /// The server's identity.
    #[must_use]
    pub fn key(&self) -> &LocalKey {
        &self.key
    }
}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The server's side of one handshake.
#[derive(Debug)]
pub struct ServerHandshake {
    settings: ServerSettings,
    state: State,
    output: Vec<u8>,
}

#[derive(Debug)]
enum State {
    AwaitGate(RecordReader),
    AwaitClientHello(RecordReader, [u8; GATE_BYTES]),
    /// The first flight waits for its gate to be checked.
    AtGate(Box<FirstFlight>),
    Tls(Box<InTls>),
    AwaitHello(Box<Authenticated>),
    /// The Hello waits to be polled, then to be answered (`HS-10`).
    Paused(Box<Paused>),
    Established(Box<Established>),
    Over,
}

/// Nothing in it has been believed yet.
#[derive(Debug)]
struct FirstFlight {
    reader: RecordReader,
    gate: [u8; GATE_BYTES],
    client_hello: Vec<u8>,
}

/// The gate is open and the TLS handshake is running.
#[derive(Debug)]
struct InTls {
    pipe: Pipe,
    opening: Hash,
    matched: GateMatch,
}

/// The client has proven its key.
struct Authenticated {
    pipe: Pipe,
    opening: Hash,
    matched: GateMatch,
    negotiated: Negotiated,
}

#[derive(Debug)]
struct Paused {
    authenticated: Authenticated,
    hello: Hello,
    hello_bytes: Vec<u8>,
    polled: bool,
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({})", Fingerprint::of_spki(&self.negotiated.peer_spki))
    }
}

impl ServerHandshake {
    /// Waits for a client's gate.
    #[must_use]
    pub fn new(settings: &ServerSettings) -> Self {
        let state = State::AwaitGate(RecordReader::new());
        Self { settings: settings.clone(), state, output: Vec::new() }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<bool, HandshakeError> {
        let (state, progress) = match mem::replace(&mut self.state, State::Over) {
            State::AwaitGate(mut reader) => match reader.take_prefix(input)? {
                Some(gate) => (State::AwaitClientHello(reader, gate), true),
                None => (State::AwaitGate(reader), false),
            },
            State::AwaitClientHello(mut reader, gate) => {
                match reader.take_record(&Expected::CLIENT_HELLO, input)? {
                    Some(client_hello) => {
                        (State::AtGate(Box::new(FirstFlight { reader, gate, client_hello })), true)
                    }
                    None => (State::AwaitClientHello(reader, gate), false),
                }
            }
            State::Tls(mut state) => {
                let progress = state.pipe.handle_handshake(input)?;
                self.output.extend(state.pipe.output());
                match progress {
                    Some(true) => {
                        let authenticated = state.authenticated()?;
                        // `GATE-6`
                        self.settings.gate.note_proven(authenticated.matched.name);
                        (State::AwaitHello(Box::new(authenticated)), true)
                    }
                    progress => (State::Tls(state), progress.is_some()),
                }
            }
            State::AwaitHello(mut state) => match state.pipe.handle_message(input)? {
                Some(message) => (self.hear_hello(*state, message)?, true),
                None => (State::AwaitHello(state), false),
            },
            waiting => (waiting, false),
        };
        self.state = state;
        Ok(progress)
    }

    /// The only way to TLS state, and it leads through the gate (`GATE-1`).
    fn open_gate(&mut self, flight: FirstFlight, now: GateTime) -> Result<InTls, HandshakeError> {
        let FirstFlight { reader, gate, client_hello } = flight;
        let matched = self.settings.gate.check(&gate, &client_hello, now)?;
        let connection = rustls::ServerConnection::new(Arc::clone(&self.settings.config))?;
        let mut pipe = Pipe::new(connection.into(), reader);
        pipe.feed(&client_hello)?;
        // rustls lets a client pass that offers no protocol at all.
        if !pipe.has_alpn() {
            return Err(HandshakeError::Negotiation);
        }
        self.output.extend(pipe.output());
        Ok(InTls { pipe, opening: opening_hash(&gate, &client_hello), matched })
    }

    fn hear_hello(
        &mut self,
        authenticated: Authenticated,
        hello_bytes: Vec<u8>,
    ) -> Result<State, HandshakeError> {
        let hello = Hello::decode(&hello_bytes)?;
        let version = hello.version;
        let mut paused = Paused { authenticated, hello, hello_bytes, polled: false };
        if version == VERSION {
            return Ok(State::Paused(Box::new(paused)));
        }
        let reason =
            format!("this server speaks version {VERSION}, not {version}; update the older of the two");
        self.output.extend(paused.refusal(RefusalCode::VersionUnsupported, &reason)?);
        Ok(State::Over)
    }

    /// The Hello that was handed out and is not answered (`HS-10`); taking it ends the handshake unless it goes on.
    fn take_paused(&mut self) -> Result<Paused, HandshakeError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Paused(paused) if paused.polled => Ok(*paused),
            other => {
                self.state = other;
                Err(HandshakeError::NotNow)
            }
        }
    }
}

impl InTls {
    fn authenticated(self) -> Result<Authenticated, HandshakeError> {
        let negotiated = self.pipe.negotiated()?;
        Ok(Authenticated { pipe: self.pipe, opening: self.opening, matched: self.matched, negotiated })
    }
}

impl Paused {
    fn refusal(&mut self, code: RefusalCode, reason: &str) -> Result<Vec<u8>, HandshakeError> {
        let welcome = Welcome::Refused { code, reason: reason.to_owned() };
        self.authenticated.pipe.send(&welcome.encode()?)
    }

    fn peer_hello(&self) -> Result<PeerHello, HandshakeError> {
        let Authenticated { pipe, matched, negotiated, .. } = &self.authenticated;
        Ok(PeerHello {
            hello: self.hello.clone(),
            fingerprint: Fingerprint::of_spki(&negotiated.peer_spki),
            candidate: matched.candidate,
            has_secret: matched.secret.is_some(),
            resume_exporter: pipe.resume_exporter()?,
        })
    }

    fn establish(
        mut self,
        key: &LocalKey,
        accepted: Accepted,
        resumed: Option<&ProvenResume>,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        let welcome = Welcome::Accepted(accepted.clone()).encode()?;
        let output = self.authenticated.pipe.send(&welcome)?;
        let Authenticated { pipe, opening, matched, negotiated } = self.authenticated;
        let transcript = Transcript {
            version: self.hello.version,
            opening: &opening,
            client_spki: &negotiated.peer_spki,
            server_spki: key.spki(),
            hello: &self.hello_bytes,
            welcome: &welcome,
        };
        let ctx = transcript.context();
        let exporter = pipe.exporter(&ctx)?;
        let root = RootSecret::extract(&exporter, matched.secret.as_ref(), resumed.map(|resumed| &resumed.0));
        let established = Established {
            keys: LinkKeys::derive(Side::Server, accepted.aead, root, &ctx),
            peer: Fingerprint::of_spki(&negotiated.peer_spki),
            key_exchange: negotiated.key_exchange,
            cipher: accepted.aead.name(),
            hello: self.hello,
            accepted,
        };
        Ok((established, output))
    }
}

impl Handshake for ServerHandshake {
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

    fn awaits_gate(&self) -> bool {
        matches!(self.state, State::AtGate(_))
    }

    fn check_gate(&mut self, now: GateTime) -> Result<(), HandshakeError> {
        match mem::replace(&mut self.state, State::Over) {
            State::AtGate(flight) => {
                let opened = self.open_gate(*flight, now).inspect_err(|_| self.output.clear())?;
                self.state = State::Tls(Box::new(opened));
                Ok(())
            }
            other => {
                self.state = other;
                Err(HandshakeError::NotNow)
            }
        }
    }

    fn handle_end(&mut self) -> HandshakeError {
        self.output.clear();
        self.state = State::Over;
        HandshakeError::Truncated
    }

    fn poll_output(&mut self) -> Option<Vec<u8>> {
        (!self.output.is_empty()).then(|| mem::take(&mut self.output))
    }

    fn poll_hello(&mut self) -> Option<PeerHello> {
        match &mut self.state {
            State::Paused(paused) if !paused.polled => {
                paused.polled = true;
                paused.peer_hello().ok()
            }
            _ => None,
        }
    }

    fn accept(
        &mut self,
        mut accepted: Accepted,
        resumed: Option<ProvenResume>,
    ) -> Result<(), HandshakeError> {
        let paused = self.take_paused()?;
        accepted.resumed = resumed.is_some();
        let (established, output) = paused.establish(&self.settings.key, accepted, resumed.as_ref())?;
        self.output.extend(output);
        self.state = State::Established(Box::new(established));
        Ok(())
    }

    fn refuse(&mut self, code: RefusalCode, reason: &str) -> Result<(), HandshakeError> {
        let output = self.take_paused()?.refusal(code, reason)?;
        self.output.extend(output);
        Ok(())
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
