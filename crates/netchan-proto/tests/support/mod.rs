//! What the tests of the protocol core share: a byte duct for two halves, a pair of endpoints, seeds.
#![allow(dead_code, unreachable_pub)]

pub mod apps;
pub mod duct;
pub mod endpoint;
pub mod frames;
pub mod pair;
pub mod seed;
