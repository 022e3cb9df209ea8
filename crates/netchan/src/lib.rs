//! The netchan protocol, sans-IO.
