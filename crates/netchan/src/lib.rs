//! Go's channels over the network: typed channels between processes and machines that synchronise, buffer, block, close
//! and `select`, with every channel encrypted under its own keys and both ends authenticated.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use netchan::{Config, dial, listen_and_serve};
//!
//! let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
//! let tasks = server.sender::<String>("tasks", 64)?;
//! tasks.send("paint the fence".to_owned()).await?;
//!
//! // Elsewhere, with the ticket that the server printed:
//! let session = dial(&server.ticket().to_string(), Config::default()).await?;
//! let tasks = session.receiver::<String>("tasks").await?;
//! assert_eq!(tasks.recv().await?.as_deref(), Some("paint the fence"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Three concepts carry everything: a *hosted channel* lives at a server under a name, with any number of senders and
//! receivers ([`Server::sender`], [`Server::receiver`], [`Server::channel`]); an [`Offer`] is a channel that arrives, to be
//! accepted or refused, because [`Server`] and [`Session`] are themselves channels of channels; and a [`Ticket`] is one
//! string that holds where a server is, who it is, and the secret that lets a client in.
//!
//! A session outlives its connections. When one is cut, falls silent or goes with a sleeping laptop, the client connects again,
//! proves that the session is its own, and every channel goes on where it was: nothing lost, repeated or reordered. Only when a
//! server starts anew, or nobody comes for [`Config::session_lifetime`], is a session lost; then [`Sender::take_unsettled`] gives
//! every value back that is not known to have been taken, or the channel's [`LossPolicy`] sees to them.

mod account;
pub mod address;
mod blocking;
mod broadcast;
mod budget;
mod client;
pub mod codec;
mod config;
mod delivery;
mod dialer;
mod error;
mod first_use;
mod handshake;
mod hold;
mod hub;
pub mod identity;
pub mod known_hosts;
mod limits;
mod lookup;
mod names;
mod offer;
mod opening;
mod options;
mod patience;
mod peer;
pub mod policy;
mod private_file;
mod rate;
mod receiver;
mod reentry;
mod sender;
mod server;
mod session;
mod stats;
mod system;
pub mod ticket;
pub mod transport;
mod wait;

pub use broadcast::Broadcast;
pub use client::{Session, dial};
pub use codec::Message;
pub use config::{Config, DuplicateSessions};
pub use delivery::{Ack, AckWith, Deliveries, Delivery, Receipt, WorkReport};
pub use dialer::{DialError, IntoTicket};
pub use error::{
    AckError, AckWithError, AssignError, CloseReason, FailedAck, Fault, FlushAcksError, FlushError,
    HostError, InDoubt, OpenError, RecvError, RecvTimeoutError, ReserveError, SendError, SendTimeoutError,
    SessionEnd, SessionLost, SinkError, TryRecvError, TrySendError, WorkError,
};
pub use hub::HostedInfo;
pub use identity::Identity;
pub use known_hosts::{FirstUse, KnownHosts};
pub use limits::Limits;
pub use lookup::{IDENTITY_VARIABLE, IdentityLookup, TICKET_VARIABLE, TicketLookup};
pub use netchan_embed::{EmbeddedKey, EmbeddedTicket, embed_key, embed_ticket};
pub use netchan_proto::crypto::{Fingerprint, HandshakeError, RefusalCode, RekeyLimits};
pub use netchan_proto::id::SessionId;
pub use offer::{Offer, OfferKind};
pub use options::{ChannelOptions, LossPolicy, WhenSlow};
pub use peer::Peer;
pub use policy::{Policy, PolicyFile, PolicySource};
pub use receiver::{Received, Receiver};
pub use sender::{Permit, PermitIterator, Sender, Unsettled};
pub use server::{AccessError, Client, ListenError, Server, ServerEvent, ServerStats, listen_and_serve};
pub use session::{
    ChannelDirection, ChannelInfo, CloseReport, Events, SessionEvent, SessionState, SessionStats,
};
pub use stats::{ReceiverStats, SenderStats};
pub use ticket::Ticket;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
