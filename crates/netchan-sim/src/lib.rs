//! A seeded simulation of netchan's protocol: the objects of `netchan-proto` that the shell ships, over a network that cuts,
//! delays, stalls and slices, in virtual time and one thread, with an auditor that sees only what programs see.
//!
//! One seed is one run, the same every time. `planted` shows that the auditor can fail.

pub mod audit;
pub mod audit_services;
pub mod campaign;
pub mod cast;
pub mod client;
pub mod context;
pub mod desk;
pub mod end;
pub mod hub;
pub mod link;
pub mod planting;
pub mod programs;
pub mod server;
pub mod services;
pub mod value;
pub mod wire;
pub mod world;

pub use world::{Outcome, run};
