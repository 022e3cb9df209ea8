//! Which transport serves which scheme.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::{Link, Listener, Memory, Tcp, Transport, TransportError};
use crate::address::Address;

/// The transports a server or a dialer may use, by scheme.
///
/// The default has `tcp`, `memory` and, on Unix, `unix`. A later transport replaces an earlier one of the same scheme.
#[derive(Clone)]
pub struct Transports {
    by_scheme: BTreeMap<String, Arc<dyn Transport>>,
}

impl Transports {
    /// No transport at all, to allow only what is added.
    #[must_use]
    pub fn none() -> Self {
        Self { by_scheme: BTreeMap::new() }
    }

    /// Adds a transport, or replaces the one with the same scheme.
    #[must_use]
    pub fn with(mut self, transport: impl Transport) -> Self {
        self.add(transport);
        self
    }

    /// Adds a transport, or replaces the one with the same scheme.
    pub fn add(&mut self, transport: impl Transport) {
        self.by_scheme.insert(transport.scheme().to_ascii_lowercase(), Arc::new(transport));
    }

    /// The schemes that are served, in alphabetical order.
    pub fn schemes(&self) -> impl Iterator<Item = &str> {
        self.by_scheme.keys().map(String::as_str)
    }

    /// The transport that serves `address`.
    ///
    /// # Errors
    ///
    /// [`TransportError::UnknownScheme`], which lists the schemes that are served.
    pub fn for_address(&self, address: &Address) -> Result<&Arc<dyn Transport>, TransportError> {
        self.by_scheme.get(address.scheme()).ok_or_else(|| TransportError::UnknownScheme {
            scheme: address.scheme().to_owned(),
            known: self.schemes().map(str::to_owned).collect(),
        })
    }

    /// Connects to `address` by the transport of its scheme.
    ///
    /// # Errors
    ///
    /// [`TransportError::UnknownScheme`], or what the transport reports.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it completes, the attempt is given up.
    ///
    /// ```
    /// # use netchan::transport::Transports;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let transports = Transports::default();
    /// let mut listener = transports.listen(&"memory://connect-example".parse()?).await?;
    /// let near = transports.connect(&listener.local_addresses()[0]).await?;
    /// let far = listener.accept().await?;
    /// # let _ = (near, far);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn connect(&self, address: &Address) -> io::Result<Box<dyn Link>> {
        self.for_address(address)?.connect(address).await
    }

    /// Listens on `address` by the transport of its scheme.
    ///
    /// # Errors
    ///
    /// [`TransportError::UnknownScheme`], or what the transport reports.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it completes, nothing goes on listening.
    pub async fn listen(&self, address: &Address) -> io::Result<Box<dyn Listener>> {
        self.for_address(address)?.listen(address).await
    }
}

impl Default for Transports {
    fn default() -> Self {
        let transports = Self::none().with(Tcp::default()).with(Memory);
        #[cfg(unix)]
        let transports = transports.with(super::Unix);
        transports
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transports").field(&self.by_scheme.keys().collect::<Vec<_>>()).finish()
    }
}
