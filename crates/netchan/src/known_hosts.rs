//! Servers' keys by address, in a file: for servers that are dialed by address rather than by ticket.

mod error;
mod file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::error::{KeyChanged, KnownHostsError};
use self::file::{Contents, place};
use crate::address::Address;
use crate::identity::{AccessSecret, Fingerprint};
use crate::ticket::Ticket;

/// Length of a file of known hosts: some ten thousand servers. It is read and replaced whole.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys of one address. A change of keys takes two; each further one may cost a dialer a connection.
pub const KEYS_PER_ADDRESS_MAX: usize = 8;

/// What to do about a server whose key is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstUse {
    /// It is not dialed. The default.
    #[default]
    Refuse,
    /// It is trusted if it shows that it knows the access secret, and its key is remembered; without an access secret it is
    /// not dialed.
    ///
    /// Whoever does not know the secret cannot pose as the server. Everybody who does know it can, this once: use it only where
    /// you would hand the secret's holders the server's key as well.
    TrustAndRemember,
}

/// A file of servers' keys by address, like SSH's `known_hosts`: lines `ADDRESS SHA256:…`, with comments from `#` on.
///
/// Several lines of one address are all accepted, so that a server can change its key: add the new one, change it, remove
/// the old one. A line that cannot be read makes the whole file unreadable, lest it be weaker than it was meant to be.
///
/// Programs may share a file: changes are made under a lock, on what the file says then, and in one step. Clones are one
/// and the same.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use netchan::{Config, FirstUse, KnownHosts};
///
/// let server = netchan::listen_and_serve("memory://known-hosts-example", Config::default()).await?;
/// let secret = server.ticket().access_secret().cloned(); // handed over by another way
///
/// let directory = tempfile::tempdir()?;
/// let hosts = KnownHosts::open(directory.path().join("known_hosts"))?;
/// let address = "memory://known-hosts-example";
/// hosts.dial(address, secret.clone(), FirstUse::Refuse, Config::default()).await.unwrap_err();
/// hosts.dial(address, secret.clone(), FirstUse::TrustAndRemember, Config::default()).await?;
///
/// // From here on this key and no other is accepted there.
/// assert_eq!(hosts.pins(address), [server.identity().fingerprint()]);
/// hosts.dial(address, secret, FirstUse::Refuse, Config::default()).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KnownHosts(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// As last read.
    contents: Mutex<Contents>,
    /// Held while the file is read or replaced, so that what is read last is what stays. Not needed to look a host up.
    reading: Mutex<()>,
}

impl KnownHosts {
    /// Reads a file of known hosts. A missing one knows none, and is made when the first is added.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when others than its owner may change it, or when a line of it is not understood.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KnownHostsError> {
        let path = path.into();
        let contents = Mutex::new(Contents::read(&path)?);
        Ok(Self(Arc::new(Shared { path, contents, reading: Mutex::new(()) })))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads the file again. [`dial`](Self::dial) does so by itself.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); what was read before stays then.
    pub fn reload(&self) -> Result<(), KnownHostsError> {
        let _reading = self.0.reading.lock();
        *self.0.contents.lock() = Contents::read(self.path())?;
        Ok(())
    }

    /// The keys of an address as the file last said, in its order; none for what is no address.
    #[must_use]
    pub fn pins(&self, address: &str) -> Vec<Fingerprint> {
        let Ok(address) = address.parse() else { return Vec::new() };
        self.known(&place(&address)).into_iter().map(|(_, key)| key).collect()
    }

    /// A ticket for a known server. Where an address has several keys it is for the first: [`dial`](Self::dial) tries all.
    ///
    /// # Errors
    ///
    /// [`KnownHostsError::UnknownHost`], which says what to do, and when `address` is none.
    pub fn ticket(
        &self,
        address: &str,
        access_secret: Option<AccessSecret>,
    ) -> Result<Ticket, KnownHostsError> {
        let address = parse(address)?;
        match self.known(&address)[..] {
            [(_, key), ..] => Ok(Ticket::pinned(vec![address], key, access_secret)?),
            [] => Err(self.unknown(&address)),
        }
    }

    /// Adds a key of an address, beside those it has; does nothing if it has this one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or replaced, or has too much in it; when another program holds its lock for seconds.
    pub fn add(&self, address: &str, key: Fingerprint) -> Result<(), KnownHostsError> {
        let address = parse(address)?;
        self.update(|contents| contents.with(self.path(), &address, key))
    }

    /// Removes a key of an address, or all of them if `key` is `None`. Says how many lines went.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or replaced; when another program holds its lock for seconds.
    pub fn remove(&self, address: &str, key: Option<Fingerprint>) -> Result<usize, KnownHostsError> {
        let address = parse(address)?;
        let mut removed = 0;
        self.update(|contents| {
            let (text, count) = contents.without(&address, key);
            removed = count;
            Ok((count > 0).then_some(text))
        })?;
        Ok(removed)
    }

    /// Adds the first key of an address. Of several that meet a server at once the first decides which key is its own.
    pub(crate) fn add_first(&self, address: &Address, key: Fingerprint) -> Result<(), KnownHostsError> {
        self.update(|contents| {
            let known = contents.of(address);
            if !known.is_empty() && known.iter().all(|(_, there)| *there != key) {
                return Err(self.changed(address, known.to_vec(), key));
            }
            contents.with(self.path(), address, key)
        })
    }

    fn update(
        &self,
        change: impl FnOnce(&Contents) -> Result<Option<String>, KnownHostsError>,
    ) -> Result<(), KnownHostsError> {
        let _reading = self.0.reading.lock();
        *self.0.contents.lock() = file::update(self.path(), change)?;
        Ok(())
    }

    /// Runs what waits for a disk, or another program, where it holds nothing up.
    pub(crate) async fn aside(
        &self,
        action: &'static str,
        f: impl FnOnce(&Self) -> Result<(), KnownHostsError> + Send + 'static,
    ) -> Result<(), KnownHostsError> {
        let hosts = self.clone();
        let done = tokio::task::spawn_blocking(move || f(&hosts)).await;
        done.map_err(|error| KnownHostsError::io(self.path(), action, error.into()))?
    }

    pub(crate) fn known(&self, address: &Address) -> Vec<(usize, Fingerprint)> {
        self.0.contents.lock().of(address).to_vec()
    }

    /// `STORE-7`
    pub(crate) fn unknown(&self, address: &Address) -> KnownHostsError {
        KnownHostsError::UnknownHost { address: address.clone(), path: self.path().to_owned() }
    }

    pub(crate) fn changed(
        &self,
        address: &Address,
        known: Vec<(usize, Fingerprint)>,
        shown: Fingerprint,
    ) -> KnownHostsError {
        let (address, path) = (address.clone(), self.path().to_owned());
        KnownHostsError::KeyChanged(Box::new(KeyChanged { address, path, known, shown }))
    }
}

impl fmt::Debug for KnownHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownHosts").field("path", &self.path()).finish_non_exhaustive()
    }
}

pub(crate) fn parse(address: &str) -> Result<Address, KnownHostsError> {
    Ok(place(&address.parse()?))
}
