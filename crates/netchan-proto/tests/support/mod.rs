#![allow(dead_code, unreachable_pub)]

pub mod frames;
pub mod seed;
