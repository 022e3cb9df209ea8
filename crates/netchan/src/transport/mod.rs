//! Anything that moves bytes in order, both ways.
//!
//! A [`Transport`] knows one scheme: it connects to an [`Address`] and listens on one. What comes out is a [`Link`]. A link
//! carries bytes and promises nothing else: no secrecy, no identity, no life beyond the wire's. All of that is the
//! session's, so a transport of your own needs a few dozen lines and cannot weaken anything.

mod error;
mod io_link;
pub mod memory;
mod registry;
pub mod tcp;
#[cfg(unix)]
pub mod unix;

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::error::{ConnectAttempt, TransportError};
pub use self::io_link::IoLink;
pub use self::memory::Memory;
pub use self::registry::Transports;
pub use self::tcp::Tcp;
#[cfg(unix)]
pub use self::unix::Unix;
use crate::address::Address;

/// A boxed future, so that transports can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The half of a link that is read.
pub type LinkReader = Box<dyn AsyncRead + Send + Unpin>;

/// The half of a link that is written.
pub type LinkWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// One connection: bytes in order, both ways. It dies freely; the session above it goes on.
///
/// [`IoLink`] makes a link from any stream.
pub trait Link: Send {
    /// Takes the link apart, so that reading and writing go on independently.
    ///
    /// When both halves are dropped, the connection closes.
    fn split(self: Box<Self>) -> (LinkReader, LinkWriter);

    /// Where the other end is, as text for people and for per-address limits.
    fn peer_address(&self) -> String;
}

/// Waits for links.
pub trait Listener: Send {
    /// Waits for the next link.
    ///
    /// # Errors
    ///
    /// When the system cannot hand over a connection. Most such errors pass (the peer left again, descriptors ran out for
    /// a moment), so a caller waits a little and accepts again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it completes, it has accepted nothing.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>>;

    /// Where this listener listens, with the real port where 0 was asked for.
    fn local_addresses(&self) -> Vec<Address>;
}

/// One way to reach other programs, known by its scheme.
///
/// ```
/// use std::io;
/// use netchan::address::Address;
/// use netchan::transport::{BoxFuture, IoLink, Link, Listener, Transport, Transports};
///
/// /// Dials only: `child://` talks to a child process through a pipe.
/// struct Child;
///
/// impl Transport for Child {
///     fn scheme(&self) -> &str {
///         "child"
///     }
///     fn connect<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
///         Box::pin(async {
///             let (near, _far) = tokio::io::duplex(64);
///             Ok(Box::new(IoLink::new(near, "child")) as Box<dyn Link>)
///         })
///     }
///     fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
///         Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
///     }
/// }
///
/// let transports = Transports::default().with(Child);
/// assert!(transports.for_address(&"child://worker".parse()?).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Transport: Send + Sync + 'static {
    /// The scheme this transport serves, in lower case: `tcp` serves `tcp://…`.
    fn scheme(&self) -> &str;

    /// Connects to `address`.
    ///
    /// # Errors
    ///
    /// When nobody can be reached there. The built-in transports put a [`TransportError`] inside.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it completes, the attempt is given up and what was opened is closed.
    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>>;

    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// When the address is taken, foreign or not allowed. The built-in transports put a [`TransportError`] inside.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it completes, nothing goes on listening.
    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}
