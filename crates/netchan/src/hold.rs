//! What is kept only to be dropped in time.

use std::any::Any;

/// Something that lasts as long as a channel of the peer's, or a link.
pub(crate) type Hold = Box<dyn Any + Send + Sync>;
