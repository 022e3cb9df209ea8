//! The handshake, sans-IO: bytes go in and out, and at the end there are [`LinkKeys`].
//!
//! Feed [`handle_input`](Handshake::handle_input) and drain the `poll_` methods after each call. It takes no byte past the
//! handshake's last one, so what is left over belongs to the record layer. An error is final: close the connection and send
//! nothing, not even what `poll_output` might have had (`HS-12`).
//!
//! A server pauses twice for judgement: for the [`Gate`](super::Gate), which is asked by
//! [`check_gate`](Handshake::check_gate) when the first flight is whole, and for the Hello, which comes out of
//! [`poll_hello`](Handshake::poll_hello) and must be answered by `accept` or `refuse`.

pub mod client;
mod input;
mod pipe;
pub mod server;
pub mod stub;
#[cfg(test)]
mod tests;
mod tls;

use zeroize::Zeroizing;

use super::error::HandshakeError;
use super::gate::GateTime;
use super::hello::{Accepted, Hello, RefusalCode};
use super::schedule::{Hash, LinkKeys};
use super::secret::{Fingerprint, ResumeSecret, SECRET_BYTES};

/// The protocol's name in TLS (`HS-5`).
pub const ALPN: &[u8] = b"netchan/1";

/// One side's handshake on one connection, whichever side and whichever kind.
pub trait Handshake: Send + std::fmt::Debug {
    /// Takes bytes from the peer and says how many it used. Fewer than given means that the handshake waits for its gate to
    /// be checked or for an answer to a Hello, or is over.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the handshake is over and has no output left.
    fn handle_input(&mut self, input: &[u8]) -> Result<usize, HandshakeError>;

    /// Whether gate and ClientHello are here, at a server, and wait to be checked. What is costly comes after that.
    fn awaits_gate(&self) -> bool {
        false
    }

    /// Checks the gate (`GATE-1`), and goes on if it opens.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::NotNow`] where [`awaits_gate`](Self::awaits_gate) says no; else as for `handle_input`.
    fn check_gate(&mut self, now: GateTime) -> Result<(), HandshakeError> {
        _ = now;
        Err(HandshakeError::NotNow)
    }

    /// What the end of the connection means at this point: the peer's silence or a cut (`HS-13`).
    fn handle_end(&mut self) -> HandshakeError;

    /// Bytes for the peer.
    fn poll_output(&mut self) -> Option<Vec<u8>>;

    /// The client's Hello, once, at a server.
    fn poll_hello(&mut self) -> Option<PeerHello>;

    /// Lets the client of the Hello in; `resumed` goes on with its earlier session. The field `accepted.resumed` is set
    /// from it.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::NotNow`] without an unanswered Hello; else as for `handle_input`.
    fn accept(&mut self, accepted: Accepted, resumed: Option<ProvenResume>) -> Result<(), HandshakeError>;

    /// Turns the client of the Hello away, saying why. The handshake is over once the output is sent.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::NotNow`] without an unanswered Hello; else as for `handle_input`.
    fn refuse(&mut self, code: RefusalCode, reason: &str) -> Result<(), HandshakeError>;

    /// The link, once, when the handshake has succeeded; the TLS state is gone by then (`HS-14`).
    fn poll_established(&mut self) -> Option<Established>;

    /// Whether the handshake is over: failed, refused, or its link taken. Output may be left only after a refusal or
    /// beside the link.
    fn is_over(&self) -> bool;
}

/// A client that has proven its key and asks to come in.
#[derive(Debug)]
pub struct PeerHello {
    /// What it says.
    pub hello: Hello,
    /// Who it is: the key it signed with.
    pub fingerprint: Fingerprint,
    /// The index of the gate key it used.
    pub candidate: usize,
    /// Whether it holds an access secret, rather than only the server's pin.
    pub has_secret: bool,
    resume_exporter: ResumeExporter,
}

impl PeerHello {
    /// Checks the Hello's resume proof against a secret that the server kept; none if it does not fit (`KEY-5`).
    ///
    /// The caller compares [`fingerprint`](Self::fingerprint) with the session's: a session goes on by the same key only.
    #[must_use]
    pub fn prove(&self, kept: &ResumeSecret) -> Option<ProvenResume> {
        let resume = self.hello.resume.as_ref()?;
        kept.verify(&self.resume_exporter.0, &resume.proof).then(|| ProvenResume(kept.clone()))
    }
}

/// Shows that a client proved a resume secret; nothing else makes one, so an unproven session cannot go on.
#[derive(Debug)]
pub struct ProvenResume(ResumeSecret);

/// A finished handshake.
#[derive(Debug)]
pub struct Established {
    /// The link's keys.
    pub keys: LinkKeys,
    /// Who the peer is.
    pub peer: Fingerprint,
    /// What the client said.
    pub hello: Hello,
    /// What the server answered.
    pub accepted: Accepted,
    /// The key exchange that was used.
    pub key_exchange: &'static str,
    /// The cipher of the link's records.
    pub cipher: &'static str,
}

/// What a resume proof is made over: tied to one TLS connection.
struct ResumeExporter(Zeroizing<[u8; SECRET_BYTES]>);

impl std::fmt::Debug for ResumeExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeExporter(…)")
    }
}

/// SHA-384 over gate and ClientHello record: what both ends saw first.
fn opening_hash(gate: &[u8], client_hello: &[u8]) -> Hash {
    super::schedule::hash(&[gate, client_hello])
}
