//! One string that lets a client in.

mod advertise;
mod text;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::advertise::{AdvertiseError, advertised_addresses};
use crate::address::{Address, AddressError};
use crate::identity::{AccessSecret, Fingerprint, Identity, ServerPin};

/// Addresses of one server in a ticket: a machine's interfaces fit, and a dialer that tries them all ends in reasonable
/// time.
pub const TICKET_ADDRESSES_MAX: usize = 32;

/// Characters of a ticket: the addresses above at the longest host names there are.
pub const TICKET_CHARS_MAX: usize = 16 * 1_024;

/// Where a server is, which key it has, and (in most tickets) the secret that admits the holder.
///
/// As text: `netchan://host:port,host2:port2#code`. Addresses other than TCP are written in full, as in
/// `netchan://unix:///run/app.sock#code`; in both, what is not a letter, a digit or one of `-._~/:@+=[]` is
/// percent-encoded. The code is base64url over a version byte, the pin (32 bytes), the access secret (32 bytes, absent in
/// a ticket that only pins) and the first 4 bytes of SHA-256 over all of the ticket before them. So a typo anywhere is
/// noticed, in the addresses too.
///
/// Whoever has the text can connect: hand it over as you would a password. [`Display`](fmt::Display) and serde write it
/// whole, `Debug` leaves the secret out.
///
/// ```
/// use netchan::identity::Identity;
/// use netchan::ticket::Ticket;
///
/// let ticket = Ticket::new(vec!["10.0.0.7:9876".parse()?], &Identity::generate())?;
/// let text = ticket.to_string();
/// assert!(text.starts_with("netchan://10.0.0.7:9876#"));
///
/// let received: Ticket = text.parse()?;
/// assert_eq!(received.addresses(), ticket.addresses());
/// assert_eq!(received.server_pin(), ticket.server_pin());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Ticket {
    addresses: Vec<Address>,
    server_pin: ServerPin,
    access_secret: Option<AccessSecret>,
}

impl Ticket {
    /// A ticket that admits its holder to the server with this identity.
    ///
    /// # Errors
    ///
    /// When there is no address, or more than [`TICKET_ADDRESSES_MAX`].
    pub fn new(addresses: Vec<Address>, identity: &Identity) -> Result<Self, TicketError> {
        Self::from_parts(addresses, identity.server_pin(), Some(identity.access_secret().clone()))
    }

    /// A ticket of its parts.
    ///
    /// Without an access secret it tells where the server is and proves nothing about its holder, who then needs a key the
    /// server's policy names.
    ///
    /// # Errors
    ///
    /// When there is no address, or more than [`TICKET_ADDRESSES_MAX`], or they are too long together.
    pub fn from_parts(
        addresses: Vec<Address>,
        server_pin: ServerPin,
        access_secret: Option<AccessSecret>,
    ) -> Result<Self, TicketError> {
        if addresses.is_empty() {
            return Err(TicketError::NoAddress);
        }
        if addresses.len() > TICKET_ADDRESSES_MAX {
            return Err(TicketError::TooManyAddresses { count: addresses.len() });
        }
        let ticket = Self { addresses, server_pin, access_secret };
        if ticket.to_string().len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        Ok(ticket)
    }

    /// A ticket for the server whose key has this fingerprint, as its operator reads it out.
    ///
    /// # Errors
    ///
    /// As [`from_parts`](Self::from_parts).
    ///
    /// ```
    /// use netchan::Ticket;
    ///
    /// let fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".parse()?;
    /// let ticket = Ticket::pinned(vec!["server.example.org:9876".parse()?], fingerprint, None)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pinned(
        addresses: Vec<Address>,
        fingerprint: Fingerprint,
        access_secret: Option<AccessSecret>,
    ) -> Result<Self, TicketError> {
        Self::from_parts(addresses, fingerprint.into(), access_secret)
    }

    /// The same ticket for other addresses, such as those of a proxy in front of the server.
    ///
    /// # Errors
    ///
    /// As [`from_parts`](Self::from_parts).
    pub fn with_addresses(self, addresses: Vec<Address>) -> Result<Self, TicketError> {
        Self::from_parts(addresses, self.server_pin, self.access_secret)
    }

    /// The same ticket without the access secret: safe to publish.
    #[must_use]
    pub fn pin_only(mut self) -> Self {
        self.access_secret = None;
        self
    }

    /// Where the server is, in the order to try.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The server's key, which the dialer insists on.
    #[must_use]
    pub fn server_pin(&self) -> ServerPin {
        self.server_pin
    }

    /// What admits the holder.
    #[must_use]
    pub fn access_secret(&self) -> Option<&AccessSecret> {
        self.access_secret.as_ref()
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::write(self))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        text::read(text.trim())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("addresses", &self.addresses)
            .field("server_pin", &format_args!("{}", Fingerprint(self.server_pin.0)))
            .field(
                "access_secret",
                &format_args!("{}", if self.access_secret.is_some() { "…" } else { "none" }),
            )
            .finish()
    }
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ticket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is no ticket, or a ticket cannot be made. The text itself is never quoted: it may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text is something else.
    #[error(
        "this is not a ticket; a ticket starts with netchan:// and has a code after #, as the server prints it"
    )]
    NotATicket,
    /// The text ends early.
    #[error(
        "the ticket is cut off or has extra characters; copy all of it, in quotes where a shell reads it"
    )]
    Truncated,
    /// The text was changed.
    #[error(
        "the ticket has a typo: its checksum does not match; copy it again, and to change its addresses use \
         Ticket::with_addresses instead of editing"
    )]
    Typo,
    /// The ticket has a format of a later version.
    #[error(
        "the ticket has format {version}, and this version knows only format 1; update this program, or copy the ticket \
         again in case it is mistyped"
    )]
    NewerVersion {
        /// The format's number.
        version: u8,
    },
    /// One of its addresses cannot be used.
    #[error("the ticket has an address that cannot be used: {0}")]
    Address(#[from] AddressError),
    /// It pins another server's key than the ticket that it would replace.
    #[error("this ticket is another server's: it pins another key; dial that server with it instead")]
    OtherServer,
    /// A file holds no ticket that can be used.
    #[error("the ticket in {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A ticket was given where the path of a file is wanted. It is not quoted.
    #[error("this is a ticket, and not the path of a file that holds one")]
    NotAFile,
    /// There is no ticket anywhere that a program looks for one.
    #[error("no ticket was found: {}{variable} is not set, and none is embedded; the server prints its ticket, and so does: netchan ticket", .file.as_ref().map(|file| format!("there is no file {}, ", file.display())).unwrap_or_default())]
    Nowhere {
        /// The file that was looked for.
        file: Option<PathBuf>,
        /// The environment variable.
        variable: String,
    },
    /// It has no address.
    #[error("a ticket needs an address; give at least one, for example server.example.org:9876")]
    NoAddress,
    /// It has too many addresses.
    #[error(
        "a ticket has at most {TICKET_ADDRESSES_MAX} addresses, not {count}; choose the ones that clients reach"
    )]
    TooManyAddresses {
        /// How many were given.
        count: usize,
    },
    /// It is too long.
    #[error("a ticket has at most {TICKET_CHARS_MAX} characters; give fewer or shorter addresses")]
    TooLong,
}
