//! Where a program has its identity and its ticket from: what is nearest to whoever runs it comes first (`STORE-6`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use netchan_embed::{EmbeddedKey, EmbeddedTicket};
use zeroize::Zeroizing;

use crate::dialer::IntoTicket;
use crate::identity::{Identity, IdentityError};
use crate::ticket::{TICKET_CHARS_MAX, Ticket, TicketError};

/// Finds a program's identity: what the program was given, else its key file, else what the environment names, else what is
/// embedded. Made by [`Identity::lookup`].
///
/// What is there and cannot be used is an error. It is never passed over for something further down.
///
/// ```
/// use netchan::Identity;
///
/// let identity = Identity::lookup()
///     .file("worker.identity") // if there is such a file
///     .embedded(netchan::embed_key!("examples/keys/worker.key", readable_by_others))
///     .find()?;
/// println!("{}", identity.fingerprint());
/// # Ok::<(), netchan::identity::IdentityError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "it finds nothing before find is called"]
pub struct IdentityLookup {
    given: Option<Identity>,
    file: Option<PathBuf>,
    variable: String,
    embedded: Option<EmbeddedKey>,
}

/// The environment variable that names an identity's file, unless the program says another.
pub const IDENTITY_VARIABLE: &str = "NETCHAN_IDENTITY";

/// The environment variable that holds a ticket, unless the program says another.
pub const TICKET_VARIABLE: &str = "NETCHAN_TICKET";

impl Identity {
    /// Looks for the program's identity where whoever runs it may have put one: by itself in the environment variable
    /// [`NETCHAN_IDENTITY`](IDENTITY_VARIABLE), which names a file.
    pub fn lookup() -> IdentityLookup {
        IdentityLookup { given: None, file: None, variable: IDENTITY_VARIABLE.to_owned(), embedded: None }
    }
}

impl IdentityLookup {
    /// First of all, if there is one: what the program itself was given.
    pub fn given(mut self, identity: Option<Identity>) -> Self {
        self.given = identity;
        self
    }

    /// Next, if it exists: a file of the program's.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Next, if it is set: an environment variable of this name, which names a file. The key itself never stands in the
    /// environment, where every child of the process has it.
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.variable = name.into();
        self
    }

    /// Last: the identity inside the program.
    pub fn embedded(mut self, key: EmbeddedKey) -> Self {
        self.embedded = Some(key);
        self
    }

    /// The first there is.
    ///
    /// # Errors
    /// [`IdentityError`]: what is there cannot be used, or there is none anywhere.
    pub fn find(self) -> Result<Identity, IdentityError> {
        if let Some(identity) = self.given {
            return Ok(identity);
        }
        if let Some(path) = &self.file {
            match Identity::load(path) {
                // A link that leads nowhere is there.
                Err(IdentityError::Missing { .. }) if fs::symlink_metadata(path).is_err() => {}
                found => return found,
            }
        }
        if let Some(path) = set(&self.variable) {
            return Identity::load(path);
        }
        let Self { file, variable, embedded, .. } = self;
        embedded.map(Identity::embedded).ok_or(IdentityError::Nowhere { file, variable })
    }
}

/// Finds the ticket that a program dials with: what the program was given, else its file, else what the environment holds, else
/// what is embedded. Made by [`Ticket::lookup`].
///
/// What is there and cannot be used is an error. It is never passed over for something further down.
#[derive(Clone)]
#[must_use = "it finds nothing before find is called"]
pub struct TicketLookup {
    given: Option<Zeroizing<String>>,
    file: Option<PathBuf>,
    variable: String,
    embedded: Option<EmbeddedTicket>,
}

impl Ticket {
    /// The ticket that the program carries, as [`embed_ticket!`](crate::embed_ticket) put it there.
    ///
    /// # Errors
    /// None for one that this version could read when the program was built.
    pub fn embedded(ticket: EmbeddedTicket) -> Result<Self, TicketError> {
        ticket.with_text(str::parse)
    }

    /// Looks for the program's ticket where whoever runs it may have put one: by itself in the environment variable
    /// [`NETCHAN_TICKET`](TICKET_VARIABLE).
    pub fn lookup() -> TicketLookup {
        TicketLookup { given: None, file: None, variable: TICKET_VARIABLE.to_owned(), embedded: None }
    }

    /// Reads a ticket from a file that holds its text and nothing else.
    ///
    /// # Errors
    /// [`TicketError`]: there is no such file, others may read it although it lets its holder in, or it holds no ticket.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TicketError> {
        let path = path.as_ref();
        read(path)?.ok_or_else(|| TicketError::File {
            path: path.to_owned(),
            reason: "there is no such file; check the path".to_owned(),
        })
    }
}

impl TicketLookup {
    /// First of all, if there is one: what the program itself was given, as on its command line.
    pub fn given(mut self, ticket: Option<String>) -> Self {
        self.given = ticket.map(Zeroizing::new);
        self
    }

    /// Next, if it exists: a file of the program's that holds a ticket.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Next, if it is set: an environment variable of this name, which holds a ticket.
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.variable = name.into();
        self
    }

    /// Last: the ticket inside the program.
    pub fn embedded(mut self, ticket: EmbeddedTicket) -> Self {
        self.embedded = Some(ticket);
        self
    }

    /// The first there is.
    ///
    /// # Errors
    /// [`TicketError`]: what is there is no ticket, or there is none anywhere.
    pub fn find(self) -> Result<Ticket, TicketError> {
        if let Some(text) = self.given {
            return text.parse();
        }
        if let Some(path) = &self.file
            && let Some(ticket) = read(path)?
        {
            return Ok(ticket);
        }
        if let Some(text) = set(&self.variable) {
            return text.to_str().ok_or(TicketError::NotATicket)?.parse();
        }
        let Self { file, variable, embedded, .. } = self;
        embedded.map_or(Err(TicketError::Nowhere { file, variable }), Ticket::embedded)
    }
}

/// Without what lets somebody in.
impl fmt::Debug for TicketLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketLookup")
            .field("given", &self.given.is_some())
            .field("file", &self.file)
            .field("variable", &self.variable)
            .field("embedded", &self.embedded.is_some())
            .finish()
    }
}

impl IntoTicket for EmbeddedTicket {
    fn into_ticket(self) -> Result<Ticket, TicketError> {
        Ticket::embedded(self)
    }
}

/// An environment variable that is set to something.
fn set(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The ticket in a file; `None` where there is no file.
fn read(path: &Path) -> Result<Option<Ticket>, TicketError> {
    if path.to_string_lossy().starts_with("netchan://") {
        // Never quoted: it lets its holder in.
        return Err(TicketError::NotAFile);
    }
    let failed = |reason: String| TicketError::File { path: path.to_owned(), reason };
    let metadata = match fs::metadata(path) {
        // A link that leads nowhere is there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            return Ok(None);
        }
        found => found.map_err(|error| failed(error.to_string()))?,
    };
    // Not read before: a pipe would be waited for, and anything may be long.
    if !metadata.is_file() || metadata.len() > TICKET_CHARS_MAX as u64 + 64 {
        return Err(failed("it is not a file that holds a ticket and nothing else".to_owned()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| failed(error.to_string()))?);
    let ticket: Ticket = text.parse()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = metadata.permissions().mode() & 0o7777;
        if ticket.access_secret().is_some() && mode & 0o077 != 0 {
            let reason = format!(
                "others may use it (mode {mode:04o}), and it lets its holder in; run: chmod 600 {}",
                path.display()
            );
            return Err(failed(reason));
        }
    }
    Ok(Some(ticket))
}
