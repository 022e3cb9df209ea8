//! Transports that note what passes: how far a handshake came, and who answered.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use netchan::address::Address;
use netchan::transport::{BoxFuture, Link, LinkReader, LinkWriter, Listener, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of an answer that are kept: enough to tell by what kind of server it was given.
const FIRST_BYTES_MAX: usize = 48;

/// The one record that a client sends before it has checked the server's key, for old boxes on the way: a ChangeCipherSpec.
const BEFORE_KEY_BYTES_MAX: usize = 6;

/// What passed on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Who took the connection.
    pub(super) peer: Option<String>,
    /// The first bytes that came.
    pub(super) first: Vec<u8>,
    /// Bytes that went out after something had come.
    pub(super) replied_bytes: usize,
}

impl Seen {
    pub(super) fn is_answered(&self) -> bool {
        !self.first.is_empty()
    }

    /// In a handshake: this end went on after the server's key, so that key was the right one.
    pub(super) fn is_key_right(&self) -> bool {
        self.is_tls_handshake() && self.replied_bytes > BEFORE_KEY_BYTES_MAX
    }

    /// Whether what came is the beginning of a TLS handshake, as a netchan server answers.
    pub(super) fn is_tls_handshake(&self) -> bool {
        matches!(self.first[..], [0x16, 0x03, ..] | [0x16])
    }
}

/// What all connections of one attempt write into.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    pub(super) fn read(&self) -> Seen {
        self.change(|seen| seen.clone())
    }

    fn change<R>(&self, f: impl FnOnce(&mut Seen) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A transport that notes what passes on the connections it makes.
pub(super) struct Tap<T> {
    inner: T,
    notes: Notes,
}

impl<T> Tap<T> {
    pub(super) fn new(inner: T, notes: &Notes) -> Self {
        Self { inner, notes: notes.clone() }
    }
}

impl<T: Transport> Transport for Tap<T> {
    fn scheme(&self) -> &str {
        self.inner.scheme()
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let link = self.inner.connect(address).await?;
            self.notes.change(|seen| *seen = Seen { peer: Some(link.peer_address()), ..Seen::default() });
            Ok(Box::new(Tapped { link, notes: self.notes.clone() }) as Box<dyn Link>)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.inner.listen(address)
    }
}

struct Tapped {
    link: Box<dyn Link>,
    notes: Notes,
}

impl Link for Tapped {
    fn split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = self.link.split();
        let notes = self.notes.clone();
        (Box::new(Half { inner: reader, notes }), Box::new(Half { inner: writer, notes: self.notes }))
    }

    fn peer_address(&self) -> String {
        self.link.peer_address()
    }
}

struct Half<T> {
    inner: T,
    notes: Notes,
}

impl AsyncRead for Half<LinkReader> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            self.notes.change(|seen| {
                let room = FIRST_BYTES_MAX.saturating_sub(seen.first.len()).min(came.len());
                seen.first.extend_from_slice(&came[..room]);
            });
        }
        polled
    }
}

impl AsyncWrite for Half<LinkWriter> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.notes.change(|seen| seen.replied_bytes += if seen.is_answered() { written } else { 0 });
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
