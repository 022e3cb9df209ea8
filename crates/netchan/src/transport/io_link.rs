//! A link over any stream.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Link, LinkReader, LinkWriter};

/// Turns anything that reads and writes into a [`Link`]: a pipe, a serial line, a tunnel, a test.
///
/// ```
/// use netchan::transport::{IoLink, Link};
///
/// let (near, _far) = tokio::io::duplex(1024);
/// let link = IoLink::new(near, "the other side of a pipe");
/// assert_eq!(link.peer_address(), "the other side of a pipe");
/// ```
pub struct IoLink<S> {
    stream: S,
    peer: String,
}

impl<S> IoLink<S> {
    /// A link over `stream`, to a peer that people know as `peer`.
    pub fn new(stream: S, peer: impl Into<String>) -> Self {
        Self { stream, peer: peer.into() }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Link for IoLink<S> {
    fn split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = tokio::io::split(self.stream);
        (Box::new(reader), Box::new(writer))
    }

    fn peer_address(&self) -> String {
        self.peer.clone()
    }
}

impl<S> fmt::Debug for IoLink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoLink").field("peer", &self.peer).finish_non_exhaustive()
    }
}
