//! Which policy a server goes by.

use std::path::PathBuf;
use std::sync::Arc;

use super::Policy;

/// Where a server's policy comes from: [`Config::policy`](crate::Config::policy).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum PolicySource {
    /// Whoever is let in may do everything that the server's channels allow: [`TicketHolders`](super::TicketHolders). The default.
    #[default]
    TicketHolders,
    /// A policy of the program's own.
    Policy(Arc<dyn Policy>),
    /// A file, as [`PolicyFile`](super::PolicyFile) reads it. It is read when the server starts, which fails if it cannot be, and
    /// again within a second of every change: then a file that cannot be read changes nothing. To change it, write another beside it
    /// and rename it over: what is written slowly in place may be read halfway.
    File(PathBuf),
}
