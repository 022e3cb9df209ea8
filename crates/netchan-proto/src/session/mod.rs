//! A session: channels over a link that may be replaced.
//!
//! Four objects, each usable alone, so that a shell can put a lock around each: [`WriteHalf`] and [`ReadHalf`] belong to
//! one link; [`Control`] and the channel halves belong to the session. They meet through [`Host`], which knows where the
//! halves are. Locks, where there are any, are taken in the order write half (or read half), control, channel.

mod announced;
mod control;
mod event;
mod read;
mod resume;
mod write;

pub use crate::channel::close_code;
pub use control::{Control, ControlLimits, LinkControlKeys, OpenError, OpenRequest};
pub use event::{Event, Host};
pub use read::{Fault, ReadHalf, begin};
pub use resume::{ClientLinks, NotResumed, ResumeRefusal, ServerLinks, Superseded};
pub use write::WriteHalf;
