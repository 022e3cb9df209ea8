//! A session's links: what a new one brings, and how it takes the place of the last.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchan_proto::crypto::{Accepted, Established, Sealer};
use netchan_proto::id::{Epoch, SessionId};
use netchan_proto::session::{LinkControlKeys, ReadHalf, WriteHalf, begin};
use tokio::io::AsyncReadExt;

use super::host::ShellHost;
use super::{Chan, SessionCore};
use crate::error::SessionEnd;
use crate::hold::Hold;
use crate::peer::Peer;
use crate::transport::{LinkReader, LinkWriter};

/// A link whose handshake is done.
pub(crate) struct NewLink {
    pub(super) control: LinkControlKeys,
    pub(super) sealer: Sealer,
    pub(super) half: ReadHalf,
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    pub(super) peer: Peer,
    pub(super) accepted: Accepted,
    pub(super) secret: netchan_proto::crypto::ResumeSecret,
    pub(super) key_exchange: &'static str,
    pub(super) cipher: &'static str,
    /// The longest message the peer takes.
    pub(super) peer_bytes_max: usize,
    /// The peer has confirmed it before it became the session's (`SESS-16`, and at first use of a server).
    pub(super) confirmed: bool,
    /// The peer came in with an access secret.
    pub(crate) has_access_secret: bool,
    /// Lasts as long as the link.
    pub(super) hold: Option<Hold>,
}

/// What the driver finds in its mailbox.
pub(super) enum Arrival {
    /// Another link, for the same session or, at a client whose session was lost, for a new one.
    Link(Box<NewLink>),
    /// At a client: the server does not know the session any more.
    Unknown(String),
    /// At a client: there will be no other link.
    Final(SessionEnd),
}

impl NewLink {
    /// From what a handshake established. `early` are bytes that arrived behind it.
    pub(crate) fn new(
        established: Established,
        link: (LinkReader, LinkWriter),
        early: &[u8],
        address: String,
        peer_bytes_max: u64,
    ) -> Self {
        let Established { keys, accepted, key_exchange, cipher, peer, .. } = established;
        let peer = Peer::new(peer, accepted.session_id, address);
        let secret = keys.resume_secret.clone();
        let (control, sealer, opener) = LinkControlKeys::split(keys);
        Self {
            control,
            sealer,
            half: ReadHalf::new(opener, early),
            reader: link.0,
            writer: link.1,
            peer,
            accepted,
            secret,
            key_exchange,
            cipher,
            peer_bytes_max: usize::try_from(peer_bytes_max).unwrap_or(usize::MAX),
            confirmed: false,
            has_access_secret: false,
            hold: None,
        }
    }
}

impl NewLink {
    /// Keeps something for as long as the link is there.
    pub(crate) fn keep(&mut self, hold: Hold) {
        self.hold = Some(hold);
    }

    /// For the record of the session's links.
    pub(crate) fn secret(&self) -> netchan_proto::crypto::ResumeSecret {
        self.secret.clone()
    }

    /// Who is at the other end.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) const fn session_id(&self) -> SessionId {
        self.accepted.session_id
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.accepted.epoch
    }

    pub(crate) fn log(&self, what: &'static str) {
        let (key_exchange, cipher) = (self.key_exchange, self.cipher);
        tracing::info!(peer = %self.peer, epoch = self.accepted.epoch.0, key_exchange, cipher, "{what}");
    }

    /// Waits until the peer has confirmed the link.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the link is of no use.
    pub(crate) async fn await_confirm(&mut self) -> Result<(), String> {
        while !self.half.await_confirm(self.control.peer_confirm()).map_err(|fault| fault.to_string())? {
            let bytes = self.reader.read(self.half.space()).await.map_err(|error| error.to_string())?;
            if bytes == 0 {
                return Err("the other end closed it".to_owned());
            }
            self.half.filled(bytes);
        }
        self.confirmed = true;
        Ok(())
    }
}

impl SessionCore {
    /// Leaves something for the driver, from an attempt that it numbered. What it has not looked at yet is replaced.
    pub(super) fn post(&self, attempt: u64, arrival: Arrival) {
        let replaced = {
            let mut there = self.arrival.lock();
            if there.as_ref().is_some_and(|(number, _)| *number > attempt) {
                // A later attempt has been quicker than this one's end.
                return;
            }
            there.replace((attempt, arrival))
        };
        drop(replaced);
        self.posted();
    }

    fn posted(&self) {
        self.arrived.store(true, Ordering::SeqCst);
        self.wake_driver();
        if self.end.get().is_some() {
            // Nobody looks any more, and a link would stay open for as long as the program keeps its handles.
            self.drop_arrival();
        }
    }

    pub(super) fn drop_arrival(&self) {
        let arrival = self.arrival.lock().take();
        drop(arrival);
    }

    /// A link that the client has confirmed takes the place of this session's, if it has any.
    pub(crate) fn relink(&self, link: NewLink) {
        let replaced = {
            let mut arrival = self.arrival.lock();
            let newer = |(_, there): &(u64, Arrival)| matches!(there, Arrival::Link(there) if there.epoch() > link.epoch());
            if arrival.as_ref().is_some_and(newer) {
                // Two came at once, and this one is fenced.
                return;
            }
            arrival.replace((0, Arrival::Link(Box::new(link))))
        };
        drop(replaced);
        self.posted();
    }

    pub(super) fn take_arrival(&self) -> Option<(u64, Arrival)> {
        if !self.arrived.swap(false, Ordering::SeqCst) {
            return None;
        }
        self.arrival.lock().take()
    }

    /// The link is gone, or is to be replaced: nothing is read from it or written to it any more, and every half notes where
    /// it stands.
    pub(super) fn detach(self: &Arc<Self>, replaced: bool) -> Option<LinkWriter> {
        let writer = self.take_link();
        self.control.lock().detach();
        for chan in self.channels() {
            match chan {
                Chan::Send(chan) => chan.detach(replaced),
                Chan::Recv(chan) => chan.detach(replaced),
            }
        }
        writer
    }

    /// Puts a link in place. The driver reads it from here on.
    pub(super) fn attach(self: &Arc<Self>, link: NewLink) -> (LinkReader, ReadHalf, Option<Hold>) {
        let NewLink { control, mut sealer, half, reader, writer, confirmed, .. } = link;
        sealer.set_rekey_limits(self.limits.rekey);
        let other_rights = {
            let mut facts = self.facts.lock();
            facts.peer = link.peer;
            (facts.key_exchange, facts.cipher) = (link.key_exchange, link.cipher);
            std::mem::replace(&mut facts.has_access_secret, link.has_access_secret) != link.has_access_secret
        };
        self.message_bytes_max
            .store(self.limits.message_bytes_max.min(link.peer_bytes_max), Ordering::Relaxed);
        self.links_count.fetch_add(1, Ordering::Relaxed);
        self.traffic.mark();
        self.traffic.forget_round_trips();
        self.epoch.store(link.accepted.epoch.0, Ordering::SeqCst);
        self.set_link(WriteHalf::new(sealer), writer);
        if confirmed {
            begin(&ShellHost::new(self), control);
            for chan in self.channels() {
                if let Chan::Send(chan) = chan
                    && let Some(owner) = chan.owner()
                {
                    owner.attached();
                }
            }
        } else {
            self.control.lock().attach(control);
        }
        self.upper.attached(self, other_rights);
        self.wake_flusher();
        (reader, half, link.hold)
    }
}
