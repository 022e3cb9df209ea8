//! Fuzz targets: each a function that takes any bytes, drives what netchan ships with them, and asserts what must hold.
//!
//! `fuzz/` has a thin binary for libFuzzer around each. The corpora in `fuzz/corpus` and whatever is kept in
//! `fuzz/artifacts-kept` go through the same functions in plain tests.

mod decode;
mod edit;
mod frames;
mod handshake;
mod hosted;
mod peer;
mod policy;
mod records;
mod script;
pub mod seeds;
mod session;
mod ticket;

pub use decode::decode;
pub use frames::frames;
pub use handshake::{client, server};
pub use hosted::hosted;
pub use policy::policy;
pub use records::records;
pub use session::session;
pub use ticket::ticket;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its binary and of its corpus.
    pub name: &'static str,
    /// What it does with its bytes; it panics when something does not hold that must.
    pub run: fn(&[u8]),
    /// Bytes of the longest input worth trying.
    pub bytes_max: usize,
}

/// Every target there is.
pub const TARGETS: [Target; 9] = [
    // Several frames, or one of the longest texts.
    Target { name: "frames", run: frames, bytes_max: 2_048 },
    // A few short records and what is done to them.
    Target { name: "records", run: records, bytes_max: 512 },
    // A ClientHello has 1.3 KiB, and a record of the handshake at most 4.
    Target { name: "server", run: server, bytes_max: 4_500 },
    Target { name: "client", run: client, bytes_max: 4_500 },
    // Some dozens of steps.
    Target { name: "session", run: session, bytes_max: 1_024 },
    Target { name: "hosted", run: hosted, bytes_max: 1_024 },
    // A policy of some dozens of lines.
    Target { name: "policy", run: policy, bytes_max: 4_096 },
    // Three of the longest addresses.
    Target { name: "ticket", run: ticket, bytes_max: 1_024 },
    // Deep enough to go over the default depth, with bytes to spare.
    Target { name: "decode", run: decode, bytes_max: 1_024 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
