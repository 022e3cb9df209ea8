//! Where a listener listens and a dialer dials.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A scheme and what it needs to find the other end.
///
/// | text | meaning |
/// |---|---|
/// | `host:port`, `tcp://host:port` | TCP; a port of 0 lets the system choose when listening |
/// | `[::1]:9876`, `tcp://[::1]:9876` | TCP over IPv6: brackets keep the colons apart |
/// | `unix:///run/app.sock` | a Unix domain socket; the path is absolute |
/// | `memory://name` | a listener in the same process |
/// | `other://anything` | kept as it is, for a [`Transport`](crate::transport::Transport) of your own |
///
/// ```
/// use netchan::address::Address;
///
/// let address: Address = "localhost:9876".parse()?;
/// assert_eq!(address.host_port(), Some(("localhost", 9876)));
/// assert_eq!(address.to_string(), "tcp://localhost:9876");
/// # Ok::<(), netchan::address::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Kind);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Tcp { host: String, port: u16 },
    Unix(String),
    Memory(String),
    Other { scheme: String, rest: String },
}

impl Address {
    /// A TCP address. An IPv6 `host` is written without brackets.
    ///
    /// # Errors
    ///
    /// When `host` is empty or no host name.
    pub fn tcp(host: &str, port: u16) -> Result<Self, AddressError> {
        check_host(host, host)?;
        Ok(Self(Kind::Tcp { host: host.to_owned(), port }))
    }

    /// The address of a Unix domain socket.
    ///
    /// # Errors
    ///
    /// When the path is relative, or not Unicode and so cannot be part of a ticket.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, AddressError> {
        let path = path.as_ref();
        let text = path.to_str().ok_or_else(|| AddressError::PathNotUnicode(path.display().to_string()))?;
        if !text.starts_with('/') {
            return Err(AddressError::RelativePath(text.to_owned()));
        }
        Ok(Self(Kind::Unix(text.to_owned())))
    }

    /// The address of a listener in this process.
    ///
    /// # Errors
    ///
    /// When the name is empty.
    pub fn memory(name: &str) -> Result<Self, AddressError> {
        if name.is_empty() {
            return Err(AddressError::EmptyName);
        }
        Ok(Self(Kind::Memory(name.to_owned())))
    }

    /// The scheme that chooses the transport, in lower case: `tcp`, `unix`, `memory` or one of your own.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match &self.0 {
            Kind::Tcp { .. } => "tcp",
            Kind::Unix(_) => "unix",
            Kind::Memory(_) => "memory",
            Kind::Other { scheme, .. } => scheme,
        }
    }

    /// What follows `scheme://`.
    #[must_use]
    pub fn rest(&self) -> String {
        match &self.0 {
            Kind::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Kind::Tcp { host, port } => format!("{host}:{port}"),
            Kind::Unix(rest) | Kind::Memory(rest) | Kind::Other { rest, .. } => rest.clone(),
        }
    }

    /// Host (IPv6 without brackets) and port of a TCP address.
    #[must_use]
    pub fn host_port(&self) -> Option<(&str, u16)> {
        match &self.0 {
            Kind::Tcp { host, port } => Some((host, *port)),
            _ => None,
        }
    }

    /// The IP address of a TCP address that is written as numbers.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host_port().and_then(|(host, _)| host.parse().ok())
    }

    /// The path of a Unix domain socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Unix(path) => Some(Path::new(path)),
            _ => None,
        }
    }

    /// The name of a listener in this process.
    #[must_use]
    pub fn memory_name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Memory(name) => Some(name),
            _ => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse_exact(text.trim())
    }
}

impl Address {
    /// As `parse`, but blanks around the text belong to it.
    pub(crate) fn parse_exact(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return parse_tcp(text);
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(valid) {
            return Err(AddressError::BadScheme(scheme.to_owned()));
        }
        match scheme.to_ascii_lowercase().as_str() {
            "tcp" => parse_tcp(rest),
            "unix" => Self::unix(rest),
            "memory" => Self::memory(rest),
            "netchan" => Err(AddressError::Ticket),
            other => Ok(Self(Kind::Other { scheme: other.to_owned(), rest: rest.to_owned() })),
        }
    }
}

fn parse_tcp(text: &str) -> Result<Address, AddressError> {
    let missing_port = |host: &str| AddressError::MissingPort { host: host.to_owned() };
    let (host, port) = if let Some(after) = text.strip_prefix('[') {
        let (host, tail) = after.split_once(']').ok_or_else(|| AddressError::BadIpv6(after.to_owned()))?;
        let bare = host.split_once('%').map_or(host, |(address, _zone)| address);
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::BadIpv6(host.to_owned()));
        }
        (host, tail.strip_prefix(':').ok_or_else(|| missing_port(&format!("[{host}]")))?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| missing_port(text))?;
        if host.contains(':') {
            return Err(AddressError::UnbracketedIpv6(text.to_owned()));
        }
        (host, port)
    };
    if host.is_empty() {
        return Err(AddressError::EmptyHost { port: port.to_owned() });
    }
    if port.is_empty() {
        return Err(missing_port(text.trim_end_matches(':')));
    }
    check_host(host, text)?;
    // `u16::from_str` would also take "+80".
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits => Ok(Address(Kind::Tcp { host: host.to_owned(), port })),
        _ => Err(AddressError::BadPort { host: host.to_owned(), port: port.to_owned() }),
    }
}

/// Letters of any script pass, since resolvers decide about names; what could be read as another part of an address
/// does not.
fn check_host(host: &str, text: &str) -> Result<(), AddressError> {
    if host.is_empty() {
        return Err(AddressError::EmptyHost { port: "9876".to_owned() });
    }
    if host.contains(':') {
        let bare = host.split_once('%').map_or(host, |(address, _zone)| address);
        if bare.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::BadIpv6(host.to_owned()));
        }
    }
    let zone = |c: char| c == ':' || c == '%';
    let valid =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_') || (host.contains(':') && zone(c));
    match host.chars().find(|&c| !valid(c)) {
        Some(found) => Err(AddressError::BadHost { text: text.to_owned(), found }),
        None => Ok(()),
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            // The zone is part of a link-local address: without it nothing can be dialed.
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            other => other.ip().to_string(),
        };
        Self(Kind::Tcp { host, port: address.port() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.rest())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is no address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing was given.
    #[error("the address is empty; write host:port, for example localhost:9876")]
    Empty,
    /// A TCP address without a port.
    #[error("the address {host:?} has no port; add one, for example {host}:9876")]
    MissingPort {
        /// What stands before the missing port.
        host: String,
    },
    /// A TCP address without a host.
    #[error(
        "the address has no host; write 0.0.0.0:{port} to listen on every interface, or localhost:{port} for this machine"
    )]
    EmptyHost {
        /// The port that was given.
        port: String,
    },
    /// A port that is not a number from 0 to 65535.
    #[error("{port:?} is no port; a port is a number from 0 to 65535, for example {host}:9876")]
    BadPort {
        /// The host that was given.
        host: String,
        /// What stands in the port's place.
        port: String,
    },
    /// An IPv6 address whose colons cannot be told from the port's.
    #[error("{0:?} looks like IPv6 without brackets; write it as [::1]:9876")]
    UnbracketedIpv6(String),
    /// Brackets around something that is not IPv6.
    #[error(
        "{0:?} is no IPv6 address; inside brackets write one, for example [::1]:9876 or [2001:db8::7]:9876"
    )]
    BadIpv6(String),
    /// A character that no host name has.
    #[error(
        "{found:?} cannot be part of a host name in {text:?}; write host:port, for example localhost:9876"
    )]
    BadHost {
        /// The whole address.
        text: String,
        /// The first character that does not belong.
        found: char,
    },
    /// Something before `://` that is no scheme.
    #[error(
        "{0:?} is no scheme; write tcp://host:port, unix:///path or memory://name, for example tcp://localhost:9876"
    )]
    BadScheme(String),
    /// A Unix socket's path that is not absolute.
    #[error("the socket path {0:?} is not absolute; write three slashes, for example unix:///run/app.sock")]
    RelativePath(String),
    /// A Unix socket's path that is not Unicode.
    #[error("the socket path {0:?} is not Unicode; choose another, for example unix:///run/app.sock")]
    PathNotUnicode(String),
    /// A memory address without a name.
    #[error("the memory address has no name; write one, for example memory://jobs")]
    EmptyName,
    /// A ticket where an address belongs.
    #[error(
        "this is a ticket, not an address; dial it as it is, or listen on an address such as 0.0.0.0:9876"
    )]
    Ticket,
}
