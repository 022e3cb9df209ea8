//! Channels that arrive: offers, and the queue in which they wait.

mod queue;

use std::fmt;
use std::sync::Arc;

use netchan_proto::wire::{Announce, Open, OpenFlow, RefuseCode};

pub(crate) use self::queue::{NextOffer, OfferQueue};
use crate::codec::Message;
use crate::error::OpenError;
use crate::opening::{self, check_types};
use crate::options::ChannelOptions;
use crate::peer::Peer;
use crate::policy::DENIED;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{Direction, SessionCore};

/// Which handles an offered channel can be accepted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferKind {
    /// The peer sends; accept it with [`Offer::accept_receiver`].
    PeerSends,
    /// The peer receives; accept it with [`Offer::accept_sender`].
    PeerReceives,
    /// The server hosts it, and this end may receive from it, send into it, or both.
    Hosted {
        /// Whether [`Offer::accept_receiver`] is allowed.
        may_receive: bool,
        /// Whether [`Offer::accept_sender`] is allowed.
        may_send: bool,
    },
}

enum What {
    Opened(Open),
    Hosted(Announce),
}

/// A channel that the peer opened toward this end, or hosts for it: to be accepted, refused, or dropped, which declines it.
pub struct Offer {
    core: Arc<SessionCore>,
    /// The session's, in which it was offered.
    life: u64,
    what: What,
    answered: bool,
}

impl Offer {
    pub(crate) fn opened(core: &Arc<SessionCore>, open: Open) -> Self {
        Self { core: Arc::clone(core), life: core.life(), what: What::Opened(open), answered: false }
    }

    pub(crate) fn hosted(core: &Arc<SessionCore>, announce: Announce) -> Self {
        Self { core: Arc::clone(core), life: core.life(), what: What::Hosted(announce), answered: false }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.what {
            What::Opened(open) => &open.name,
            What::Hosted(announce) => &announce.name,
        }
    }

    /// What the type of its values is called at the other end.
    #[must_use]
    pub fn type_label(&self) -> &str {
        match &self.what {
            What::Opened(open) => &open.label,
            What::Hosted(announce) => &announce.label,
        }
    }

    /// The codec of its values at the other end.
    #[must_use]
    pub fn codec(&self) -> &str {
        match &self.what {
            What::Opened(open) => &open.codec,
            What::Hosted(announce) => &announce.codec,
        }
    }

    /// Which handles it can be accepted as.
    #[must_use]
    pub fn kind(&self) -> OfferKind {
        match &self.what {
            What::Opened(Open { flow: OpenFlow::OpenerSends, .. }) => OfferKind::PeerSends,
            What::Opened(Open { flow: OpenFlow::OpenerReceives, .. }) => OfferKind::PeerReceives,
            What::Hosted(a) => OfferKind::Hosted { may_receive: a.may_receive, may_send: a.may_send },
        }
    }

    /// The capacity, where the other end sets it.
    #[must_use]
    pub fn capacity(&self) -> Option<usize> {
        let items = match &self.what {
            What::Opened(Open { flow: OpenFlow::OpenerSends, .. }) => return None,
            What::Opened(open) => open.capacity,
            What::Hosted(announce) => announce.capacity,
        };
        usize::try_from(items).ok()
    }

    /// Who offers it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.core.peer()
    }

    /// Accepts it and receives from it. The capacity is this end's to choose, unless the channel is hosted at the other.
    ///
    /// # Errors
    /// [`OpenError`]. On a mismatch of type or codec, and in the wrong direction, the peer gets the same error.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is declined.
    pub async fn accept_receiver<T: Message>(self, capacity: usize) -> Result<Receiver<T>, OpenError> {
        self.accept_receiver_with(capacity, ChannelOptions::default()).await
    }

    /// As [`accept_receiver`](Self::accept_receiver), with options.
    ///
    /// # Errors
    /// As [`accept_receiver`](Self::accept_receiver).
    ///
    /// # Cancel safety
    /// As [`accept_receiver`](Self::accept_receiver).
    pub async fn accept_receiver_with<T: Send + 'static>(
        mut self,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<Receiver<T>, OpenError> {
        self.check(Direction::Receive, &options)?;
        let open = match &self.what {
            What::Opened(open) => open.clone(),
            What::Hosted(announce) => {
                let name = announce.name.clone();
                self.answered = true;
                return opening::receiver(&self.core, &name, options).await;
            }
        };
        self.answered = true;
        let handle =
            self.core.accept_recv(&open, capacity as u64, self.life).ok_or_else(|| self.expired())?;
        Ok(Receiver::wire(handle, options.codec))
    }

    /// Accepts it and sends into it.
    ///
    /// # Errors
    /// [`OpenError`]. On a mismatch of type or codec, and in the wrong direction, the peer gets the same error.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the channel is declined.
    pub async fn accept_sender<T: Message>(self) -> Result<Sender<T>, OpenError> {
        self.accept_sender_with(ChannelOptions::default()).await
    }

    /// As [`accept_sender`](Self::accept_sender), with options.
    ///
    /// # Errors
    /// As [`accept_sender`](Self::accept_sender).
    ///
    /// # Cancel safety
    /// As [`accept_sender`](Self::accept_sender).
    pub async fn accept_sender_with<T: Send + 'static>(
        mut self,
        options: ChannelOptions<T>,
    ) -> Result<Sender<T>, OpenError> {
        self.check(Direction::Send, &options)?;
        let open = match &self.what {
            What::Opened(open) => open.clone(),
            What::Hosted(announce) => {
                let name = announce.name.clone();
                self.answered = true;
                return opening::sender(&self.core, &name, options).await;
            }
        };
        self.answered = true;
        let handle = self.core.accept_send(&open, self.life).ok_or_else(|| self.expired())?;
        Ok(Sender::wire(handle, options.codec))
    }

    /// Refuses it, saying why.
    pub fn refuse(mut self, reason: impl Into<String>) {
        self.answer(RefuseCode::Declined, reason.into());
    }

    fn answer(&mut self, code: RefuseCode, reason: String) {
        if let What::Opened(open) = &self.what
            && !self.answered
        {
            self.core.decline(open.id, self.life, code, reason);
        }
        self.answered = true;
    }

    fn expired(&self) -> OpenError {
        let name = self.name().to_owned();
        match self.core.end_reason() {
            Some(end) => OpenError::Lost { name, end: end.clone() },
            None => OpenError::Expired { name },
        }
    }

    /// The policy does not let the opener have it.
    pub(crate) fn deny(mut self) {
        self.answer(RefuseCode::Denied, DENIED.to_owned());
    }

    fn check<T: 'static>(
        &mut self,
        direction: Direction,
        options: &ChannelOptions<T>,
    ) -> Result<(), OpenError> {
        let What::Opened(open) = &self.what else { return Ok(()) };
        if !self.core.may_have(open) {
            let name = open.name.clone();
            self.answer(RefuseCode::Denied, DENIED.to_owned());
            return Err(OpenError::Denied { name });
        }
        let peer_sends = open.flow == OpenFlow::OpenerSends;
        let refusal = if peer_sends != (direction == Direction::Receive) {
            let does =
                if peer_sends { "sends: accept it as a receiver" } else { "receives: accept it as a sender" };
            let error =
                OpenError::WrongDirection { name: open.name.clone(), reason: format!("the peer {does}") };
            Some((RefuseCode::WrongDirection, "the other end uses it the same way".to_owned(), error))
        } else {
            check_types(open, &options.label, options.codec.name(), options.fingerprint).map(
                |(code, theirs)| {
                    let error =
                        opening::mismatch(code, &open.name, (&options.label, options.codec.name()), open);
                    (code, theirs, error)
                },
            )
        };
        let Some((code, reason, error)) = refusal else { return Ok(()) };
        self.answer(code, reason);
        Err(error)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.answer(RefuseCode::Declined, "nobody there wanted it".to_owned());
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("name", &self.name())
            .field("type", &self.type_label())
            .field("kind", &self.kind())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// Whether its opener has given up.
    fn is_stale(&self) -> bool {
        match &self.what {
            What::Opened(open) => !self.core.is_offered(open.id, self.life),
            What::Hosted(_) => self.core.is_closing(),
        }
    }
}
