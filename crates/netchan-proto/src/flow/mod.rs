//! The arithmetic of flow control, and nothing else: all of it lives in [`Credit`] (the sending end) and [`Window`] (the
//! receiving end).

mod credit;
mod window;

pub use credit::Credit;
pub use window::{Urgency, Window, WindowKind};

/// The peer broke a rule that an honest peer cannot break; the session ends (`SESS-12`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol violation: {0}")]
pub struct Violation(pub &'static str);
