//! The netchan protocol, sans-IO: bytes, time and random bytes go in; bytes, events and the next timeout come out.
//!
//! Nothing in this crate opens a socket, reads a clock, draws a random number or spawns a task. The state machines are
//! separate and lock-free on purpose: a shell puts locks around them, a simulation puts them in one thread, and both
//! drive the very same objects. `docs/SPEC.md` is the authority; rule ids such as `CHAN-3` in the code point there.

pub mod channel;
pub mod crypto;
pub mod exchange;
pub mod flow;
pub mod hosted;
pub mod id;
pub mod limits;
pub mod planted;
pub mod session;
pub mod wire;
