//! The netchan command.
fn main() {}
