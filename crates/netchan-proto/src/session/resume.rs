//! What lets a session go on over a new link: who may, and which link counts (`SESS-14`).
//!
//! Each end keeps the resume secret of the newest epoch that it knows both ends have. A server gives a new epoch to every
//! proven Hello, commits it when the client confirms, and keeps the one before until the client has shown that it heard of
//! that: whatever is lost on the way, there is always one epoch of which both ends hold the secret (`SESS-16`).

use crate::crypto::{Accepted, Fingerprint, PeerHello, ProvenResume, ResumeFrom, ResumeSecret};
use crate::id::{Epoch, Incarnation, SessionId};
use crate::planted::{self, Mutant};

/// Why a client may not go on with a session. For the audit: toward the client all are one answer (`SESS-15`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeRefusal {
    /// The session belongs to another key.
    #[error("the session belongs to another key")]
    OtherIdentity,
    /// The epoch is neither of those kept: a newer link has taken its place.
    #[error("a newer link has taken the place of that epoch")]
    Fenced,
    /// The proof does not fit the secret of that epoch.
    #[error("the proof does not fit")]
    WrongProof,
    /// Every epoch has been used.
    #[error("the session has used every epoch")]
    Exhausted,
}

/// A link that is not the session's newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a newer link has taken its place")]
pub struct Superseded;

/// The peer's Welcome does not go on with the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotResumed {
    /// It names another session, or another life of the server.
    #[error("the server answered with another session")]
    OtherSession,
    /// Its epoch is not newer than the last.
    #[error("the server answered with an epoch that has been used")]
    StaleEpoch,
}

#[derive(Clone, Debug)]
struct Kept {
    epoch: Epoch,
    secret: ResumeSecret,
}

/// A link that was let in and has not been confirmed.
#[derive(Debug)]
struct Pending {
    epoch: Epoch,
    /// From its own keys, once there are any.
    secret: Option<ResumeSecret>,
    /// What the client proved: what it goes back to if this link comes to nothing.
    proven: Kept,
}

/// A server's record of one session's links.
#[derive(Debug)]
pub struct ServerLinks {
    session_id: SessionId,
    owner: Fingerprint,
    newest: Kept,
    /// What the client may still hold, until it has shown that it heard of the newest.
    previous: Option<Kept>,
    pending: Option<Pending>,
    assigned: Epoch,
}

impl ServerLinks {
    /// A session of `owner`, whose first link has this epoch and resume secret.
    #[must_use]
    pub fn new(session_id: SessionId, owner: Fingerprint, epoch: Epoch, secret: ResumeSecret) -> Self {
        let newest = Kept { epoch, secret };
        Self { session_id, owner, newest, previous: None, pending: None, assigned: epoch }
    }

    /// The session.
    #[must_use]
    pub const fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The epoch of the newest link that the client confirmed.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.newest.epoch
    }

    /// Whether the secret of an older epoch than the newest is still accepted.
    #[must_use]
    pub const fn keeps_previous(&self) -> bool {
        self.previous.is_some()
    }

    /// Judges a Hello that asks to go on with this session (`SESS-15`). On success the link's epoch is assigned, and any
    /// earlier one that was not confirmed is void.
    ///
    /// # Errors
    /// [`ResumeRefusal`]; nothing has changed then.
    pub fn judge(&mut self, hello: &PeerHello) -> Result<(Epoch, ProvenResume), ResumeRefusal> {
        let resume = hello.hello.resume.as_ref().ok_or(ResumeRefusal::WrongProof)?;
        if hello.fingerprint != self.owner || resume.session_id != self.session_id {
            return Err(ResumeRefusal::OtherIdentity);
        }
        let kept = [Some(&self.newest), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|kept| kept.epoch == resume.last_epoch)
            .ok_or(ResumeRefusal::Fenced)?;
        let proof = hello.prove(&kept.secret).ok_or(ResumeRefusal::WrongProof)?;
        let epoch = self.assigned.0.checked_add(1).map(Epoch).ok_or(ResumeRefusal::Exhausted)?;
        self.pending = Some(Pending { epoch, secret: None, proven: kept.clone() });
        self.assigned = epoch;
        Ok((epoch, proof))
    }

    /// The handshake of the link with this epoch is done; its CONFIRM is still to come.
    ///
    /// # Errors
    /// [`Superseded`] when a later Hello was let in meanwhile.
    pub fn established(&mut self, epoch: Epoch, secret: ResumeSecret) -> Result<(), Superseded> {
        let pending = self.pending.as_mut().filter(|pending| pending.epoch == epoch).ok_or(Superseded)?;
        pending.secret = Some(secret);
        Ok(())
    }

    /// The client has confirmed the link with this epoch: it is the session's from now on, and every older one is fenced
    /// (`SESS-16`).
    ///
    /// # Errors
    /// [`Superseded`] when a later Hello was let in meanwhile: that link must not be used.
    pub fn commit(&mut self, epoch: Epoch) -> Result<(), Superseded> {
        let newest =
            |pending: &mut Pending| pending.epoch == epoch || planted::is(Mutant::StaleEpochAccepted);
        let pending = self.pending.take_if(newest).ok_or(Superseded)?;
        let secret = pending.secret.ok_or(Superseded)?;
        self.newest = Kept { epoch, secret };
        self.previous = Some(pending.proven);
        Ok(())
    }

    /// The client has said something behind the CONFIRM of the link with this epoch. If that is the newest, it has this
    /// end's, and will not fall back (`SESS-16`); what is still read from an older link says nothing.
    pub fn acknowledged(&mut self, epoch: Epoch) {
        if epoch == self.newest.epoch && !planted::is(Mutant::OldSecretAcceptedTwice) {
            self.previous = None;
        }
    }
}

/// A client's record of its session's links.
#[derive(Debug)]
pub struct ClientLinks {
    session_id: SessionId,
    incarnation: Incarnation,
    confirmed: Kept,
    pending: Option<Kept>,
}

impl ClientLinks {
    /// The session that a first handshake set up.
    #[must_use]
    pub fn new(accepted: &Accepted, secret: ResumeSecret) -> Self {
        Self {
            session_id: accepted.session_id,
            incarnation: accepted.incarnation,
            confirmed: Kept { epoch: accepted.epoch, secret },
            pending: None,
        }
    }

    /// What the next Hello must prove.
    #[must_use]
    pub fn resume_from(&self) -> ResumeFrom {
        ResumeFrom {
            session_id: self.session_id,
            last_epoch: self.confirmed.epoch,
            secret: self.confirmed.secret.clone(),
        }
    }

    /// The epoch of the newest link that both ends confirmed.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.confirmed.epoch
    }

    /// A handshake that was to go on with the session is done. From here on the old link must not be used any more.
    ///
    /// # Errors
    /// [`NotResumed`] when the server's answer does not go on with it.
    pub fn established(&mut self, accepted: &Accepted, secret: ResumeSecret) -> Result<(), NotResumed> {
        let same = accepted.session_id == self.session_id && accepted.incarnation == self.incarnation;
        if !same || !accepted.resumed {
            return Err(NotResumed::OtherSession);
        }
        if accepted.epoch <= self.confirmed.epoch {
            return Err(NotResumed::StaleEpoch);
        }
        self.pending = Some(Kept { epoch: accepted.epoch, secret });
        Ok(())
    }

    /// The server has confirmed the newest link: the secret of the one before is erased (`SESS-16`).
    pub fn confirmed(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.confirmed = pending;
        }
    }
}
