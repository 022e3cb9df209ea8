//! Go's channels over the network: typed, encrypted, authenticated channels between processes and machines.

pub mod address;
pub mod codec;
pub mod identity;
pub mod ticket;
pub mod transport;
