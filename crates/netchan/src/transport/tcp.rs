//! TCP over IPv4 and IPv6.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{BoxFuture, ConnectAttempt, Link, LinkReader, LinkWriter, Listener, Transport, TransportError};
use crate::address::Address;

/// Silence after which the kernel asks whether the peer's machine is there. The session pings sooner; this also frees
/// links that never became a session.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Between two of the kernel's questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Connections the kernel completes ahead of `accept`: a fleet that reconnects at once fits.
const BACKLOG: i32 = 1_024;

/// When a host has several addresses, how long each but the last may take: far above any healthy round trip, and so short
/// that the next has its turn within a dial's own deadline of 5 s.
const ATTEMPT_DEFAULT: Duration = Duration::from_secs(2);

/// `tcp://host:port`: names are resolved, and every address of a name is tried in turn.
#[derive(Clone, Debug)]
pub struct Tcp {
    attempt: Duration,
}

impl Tcp {
    /// TCP with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { attempt: ATTEMPT_DEFAULT }
    }

    /// When a host has several addresses: how long each but the last may take before the next is tried. Default 2 s;
    /// less finds a working address sooner, more bears with slower networks.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt = timeout;
        self
    }

    async fn connect_any(&self, address: &Address) -> io::Result<TcpLink> {
        let candidates = resolve(address).await?;
        let mut attempts = Vec::new();
        for (index, &candidate) in candidates.iter().enumerate() {
            let connecting = TcpStream::connect(candidate);
            let outcome = if index + 1 == candidates.len() {
                connecting.await
            } else {
                let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
                tokio::time::timeout(self.attempt, connecting).await.unwrap_or_else(late)
            };
            match outcome.and_then(|stream| TcpLink::new(stream, candidate)) {
                Ok(link) => return Ok(link),
                Err(error) => attempts.push(ConnectAttempt { address: candidate, error }),
            }
        }
        Err(TransportError::Unreachable { address: address.clone(), attempts }.into())
    }

    async fn listen_any(&self, address: &Address) -> io::Result<TcpLinks> {
        let mut candidates = resolve(address).await?;
        // As in Go: where a name means both families, listen where clients look first.
        candidates.sort_by_key(SocketAddr::is_ipv6);
        let mut failure = None;
        for candidate in candidates {
            match bind(candidate) {
                Ok(listener) => return Ok(TcpLinks { listener }),
                Err(error) => failure = failure.or(Some(listen_error(address, candidate, error))),
            }
        }
        Err(failure.unwrap_or_else(|| unresolved(address, io::ErrorKind::NotFound.into())).into())
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for Tcp {
    fn scheme(&self) -> &str {
        "tcp"
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move { Ok(Box::new(self.connect_any(address).await?) as Box<dyn Link>) })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(self.listen_any(address).await?) as Box<dyn Listener>) })
    }
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, TransportError> {
    let (host, port) = address
        .host_port()
        .ok_or_else(|| TransportError::WrongScheme { address: address.clone(), transport: "tcp" })?;
    if let Some(ip) = address.ip() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await.map_err(|error| unresolved(address, error))?;
    let mut candidates = Vec::new();
    for candidate in found {
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    if candidates.is_empty() {
        return Err(unresolved(address, io::ErrorKind::NotFound.into()));
    }
    Ok(candidates)
}

fn unresolved(address: &Address, source: io::Error) -> TransportError {
    let host = address.host_port().map_or_else(|| address.rest(), |(host, _)| host.to_owned());
    TransportError::Resolve { host, source }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Unix this only skips TIME_WAIT, so that a server restarts at once; on Windows it would let others steal the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // [::] means every interface and both families, whatever this system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn listen_error(address: &Address, candidate: SocketAddr, source: io::Error) -> TransportError {
    match source.kind() {
        io::ErrorKind::AddrInUse => TransportError::PortInUse { address: candidate },
        io::ErrorKind::PermissionDenied => TransportError::PortForbidden { address: candidate },
        io::ErrorKind::AddrNotAvailable => TransportError::NotOurAddress { address: candidate },
        _ => TransportError::Listen { address: address.clone(), source },
    }
}

struct TcpLink {
    stream: TcpStream,
    peer: SocketAddr,
}

impl TcpLink {
    fn new(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self { stream, peer })
    }
}

impl Link for TcpLink {
    fn split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = self.stream.into_split();
        (Box::new(reader), Box::new(writer))
    }

    fn peer_address(&self) -> String {
        self.peer.to_string()
    }
}

struct TcpLinks {
    listener: TcpListener,
}

impl Listener for TcpLinks {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            loop {
                let (stream, peer) = self.listener.accept().await?;
                match TcpLink::new(stream, peer) {
                    Ok(link) => return Ok(Box::new(link) as Box<dyn Link>),
                    // Some systems refuse options on a connection whose peer has left already.
                    Err(error) => {
                        tracing::debug!(%peer, %error, "a connection was gone before it was accepted")
                    }
                }
            }
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        self.listener.local_addr().map(Address::from).into_iter().collect()
    }
}
