//! Gate, handshake, key schedule and record layer: everything that keeps strangers out and bytes secret.
//!
//! The order of events on a connection:
//!
//! 1. The client sends a [`gate`] and its ClientHello; the server stays silent unless the gate is right (`GATE-1`).
//! 2. A TLS 1.3 [`handshake`] with raw public keys carries one Hello and one Welcome ([`hello`]).
//! 3. The key [`schedule`] turns the TLS exporter into [`LinkKeys`]; the TLS state is dropped.
//! 4. The [`record`] layer seals and opens everything after that.
//!
//! Time and randomness are arguments; only rustls draws randomness of its own, for its key exchange.

pub mod cipher;
pub mod error;
pub mod gate;
pub mod handshake;
pub mod hello;
pub mod identity;
#[cfg(test)]
mod link_vectors;
pub mod record;
pub mod schedule;
pub mod secret;
#[cfg(test)]
mod uniqueness_tests;
#[cfg(test)]
mod vectors;

pub use cipher::Aead;
pub use error::{
    GateReject, HandshakeError, HelloError, ParseFingerprintError, RecordError, SealError, SignError,
};
pub use gate::{Gate, GateKeeper, GateKey, GateMatch, GateName, GateTime, make_gate};
pub use handshake::client::{ClientHandshake, ClientSettings, ResumeFrom};
pub use handshake::server::{ServerHandshake, ServerSettings};
pub use handshake::{Established, Handshake, PeerHello, ProvenResume};
pub use hello::{Accepted, Hello, RefusalCode, Resume, Welcome};
pub use identity::{LocalKey, Signer};
pub use record::{Opener, Peek, RekeyLimits, SealBuf, Sealer};
pub use schedule::{Chain, ChannelKeys, LinkKeys, confirm_matches};
pub use secret::{AccessSecret, Fingerprint, ResumeSecret, ServerPin, ServerTrust, TrafficSecret};
