//! What the peer has opened: what is kept for as long as it is, and how it is taken away.

use std::sync::Arc;
use std::time::Duration;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::id::ChannelId;
use netchan_proto::wire::{Open, RefuseCode};

use super::{Chan, Owner, SessionCore};
use crate::config::SessionLimits;
use crate::hold::Hold;
use crate::policy::{Action, PolicyPeer};
use crate::rate::TokenBucket;

/// Opens that are read in a second for each that is allowed in the long run. A program that opens thousands when it begins is slowed
/// down by this, not refused; whoever opens and closes without end has some percent of a core, and others keep theirs.
const READ_FOR_EACH_ALLOWED: u32 = 4;

/// The part of those allowed at once that is read without a pause: by default 1,024, as many as may wait for an answer.
const READ_AT_ONCE_SHARE: u32 = 16;

/// How many channels the peer may open, and how fast that is read (`PORT-7`).
///
/// A peer that opens faster is read more slowly. Its session is not ended for that: whoever means harm would be back at once in a new
/// one with a full allowance, and a program that only went too far would lose what it has.
pub(super) struct Opens {
    allowed: TokenBucket,
    read: TokenBucket,
    /// The link is read again then, in time since the session began.
    read_at: Duration,
}

impl Opens {
    pub(super) fn new(limits: &SessionLimits) -> Self {
        let (rate, at_once) = (limits.opens_per_second, limits.opens_at_once_max);
        let read = TokenBucket::new(rate.saturating_mul(READ_FOR_EACH_ALLOWED), at_once / READ_AT_ONCE_SHARE);
        Self { allowed: TokenBucket::new(rate, at_once), read, read_at: Duration::ZERO }
    }

    /// Counts a channel that the peer opens, and may.
    ///
    /// # Errors
    /// One too many: how long until it may open one.
    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.note_read(now);
        self.allowed.take(now)
    }

    /// Counts what was read, whatever becomes of it.
    fn note_read(&mut self, now: Duration) {
        if let Some(owed) = self.read.owe(now) {
            self.read_at = now + owed;
        }
    }

    /// How long the link is to be read no further.
    fn pause(&self, now: Duration) -> Option<Duration> {
        self.read_at.checked_sub(now).filter(|pause| !pause.is_zero())
    }
}

/// What a client has opened and was let have: from when its OPEN was judged until it has closed it, or, where the
/// owner of its other end says so, for longer.
pub(crate) struct Grant {
    name: Arc<str>,
    action: Action,
    /// Where it is counted, if anywhere.
    counted: Option<Hold>,
    /// What is at this end, once the channel is in place.
    owner: Option<Arc<dyn Owner>>,
}

/// A grant, to be judged again.
pub(crate) struct Granted {
    pub(crate) id: ChannelId,
    pub(crate) name: Arc<str>,
    pub(crate) action: Action,
}

impl SessionCore {
    /// Who the peer is, for a policy.
    pub(crate) fn subject(&self) -> Option<PolicyPeer> {
        let facts = self.facts.lock();
        let fingerprint = facts.peer.fingerprint()?;
        Some(PolicyPeer::new(fingerprint, facts.has_access_secret))
    }

    /// The peer may have the channel that it asks for.
    pub(crate) fn grant(&self, id: ChannelId, name: &str, action: Action, counted: Option<Hold>) {
        let grant = Grant { name: Arc::from(name), action, counted, owner: None };
        let mut grants = self.grants.lock();
        if self.end.get().is_none() {
            grants.insert(id, grant);
        }
    }

    /// Where a grant is counted from here on. One that is gone by now is not counted.
    pub(crate) fn recount(&self, id: ChannelId, counted: Option<Hold>) {
        let before = match self.grants.lock().get_mut(&id) {
            Some(grant) => std::mem::replace(&mut grant.counted, counted),
            None => counted,
        };
        drop(before);
    }

    /// Whether a grant is counted where `is` says yes.
    pub(crate) fn is_counted(&self, id: ChannelId, is: impl FnOnce(&Hold) -> bool) -> bool {
        self.grants.lock().get(&id).and_then(|grant| grant.counted.as_ref()).is_some_and(is)
    }

    /// The owner is told when the grant is taken away, even if the channel is closed by then.
    pub(super) fn granted_by(&self, id: ChannelId, owner: &Arc<dyn Owner>) {
        if let Some(grant) = self.grants.lock().get_mut(&id) {
            grant.owner = Some(Arc::clone(owner));
        }
    }

    /// The peer has the channel no more.
    pub(crate) fn let_go(&self, id: ChannelId) {
        let grant = self.grants.lock().remove(&id);
        drop(grant);
    }

    pub(super) fn let_all_go(&self) {
        let grants = std::mem::take(&mut *self.grants.lock());
        drop(grants);
    }

    /// One grant, to be judged again.
    pub(crate) fn grant_of(&self, id: ChannelId) -> Option<Granted> {
        let grants = self.grants.lock();
        let grant = grants.get(&id)?;
        Some(Granted { id, name: Arc::clone(&grant.name), action: grant.action })
    }

    /// What the peer has: in the order in which it came, so that who came first keeps what there is no longer enough of.
    pub(crate) fn granted(&self) -> Vec<Granted> {
        let grants = self.grants.lock();
        let granted = |(id, grant): (&ChannelId, &Grant)| Granted {
            id: *id,
            name: Arc::clone(&grant.name),
            action: grant.action,
        };
        let mut granted: Vec<_> = grants.iter().map(granted).collect();
        drop(grants);
        granted.sort_by_key(|granted| granted.id);
        granted
    }

    /// An OPEN of the peer's that the session takes (`PORT-7`): more come in a second than may, and the rest is refused.
    pub(super) fn incoming(self: &Arc<Self>, open: Open) {
        let taken = self.opens.lock().take(self.started.elapsed());
        let Err(wait) = taken else { return self.upper.incoming(self, open) };
        self.upper.refused(self, &open, "Limits::opens_per_second");
        let reason = format!(
            "no more than {} channels may be opened in a second (Limits::opens_per_second at the other end); try again in {wait:.1?}",
            self.limits.opens_per_second
        );
        self.refuse(open.id, RefuseCode::LimitReached, reason);
    }

    /// One that the session has refused, for another limit.
    pub(super) fn limited(self: &Arc<Self>, open: &Open, limit: &str) {
        self.opens.lock().note_read(self.started.elapsed());
        self.upper.refused(self, open, limit);
    }

    /// How long the link is to be read no further, for its peer opens without end.
    pub(super) fn reading_pause(&self) -> Option<Duration> {
        self.opens.lock().pause(self.started.elapsed())
    }

    /// Whether the peer may still have what it opened.
    pub(crate) fn may_have(self: &Arc<Self>, open: &Open) -> bool {
        self.upper.may_have(self, open)
    }

    /// Takes a channel from the peer that opened it, at once: what is on its way either way does not arrive, and what a hosted
    /// channel had sent goes back to it, even if it waits to be acknowledged only.
    pub(crate) fn revoke(self: &Arc<Self>, id: ChannelId, reason: ProtoReason) {
        let grant = self.grants.lock().remove(&id);
        match self.get(id) {
            Some(Chan::Send(chan)) => chan.revoke(reason),
            Some(Chan::Recv(chan)) => chan.revoke(reason),
            None => {
                // It waits to be accepted, or is closed.
                if let Some(owner) = grant.and_then(|grant| grant.owner) {
                    owner.revoked(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens sixteen at a time whenever it is read, until then: how many were allowed, and how many refused.
    fn flood(opens: &mut Opens, now: &mut Duration, until: Duration) -> (usize, usize) {
        let (mut allowed, mut refused) = (0, 0);
        while *now < until {
            for _ in 0..16 {
                match opens.take(*now) {
                    Ok(()) => allowed += 1,
                    Err(_) => refused += 1,
                }
            }
            *now += opens.pause(*now).unwrap_or(Duration::from_millis(1));
        }
        (allowed, refused)
    }

    #[test]
    fn port_7_beyond_a_multiple_of_the_rate_reading_waits() {
        let mut limits = crate::Limits::default();
        (limits.opens_per_second, limits.opens_at_once_max) = (100, 1_000);
        let config = crate::Config { limits, ..crate::Config::default() };
        let mut opens = Opens::new(&config.session_limits());
        let (mut now, second) = (Duration::ZERO, Duration::from_secs(1));
        let (allowed, refused) = flood(&mut opens, &mut now, second);
        assert_eq!(refused, 0, "a program that begins is not refused");
        assert!((450..=490).contains(&allowed), "a sixteenth at once, and four hundred: {allowed}");
        _ = flood(&mut opens, &mut now, second * 5);
        let (allowed, refused) = flood(&mut opens, &mut now, second * 15);
        assert!((990..=1_010).contains(&allowed), "ten seconds at a hundred: {allowed}");
        assert!((2_970..=3_030).contains(&refused), "and no more read than four times as many: {refused}");
        assert!(opens.pause(now + second).is_none() && opens.take(now + second).is_ok());
    }
}
