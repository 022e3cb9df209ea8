//! What peers make this end keep: bytes of values that have arrived and that nobody has taken, for each session, for each key
//! and for the server (`BOUND-1`), and byte windows that fit in (`BOUND-2`).
//!
//! Nothing here is on the way of a small message: a channel is counted anew when it keeps [`STEP_BYTES`] more or less than
//! it did.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::identity::Fingerprint;
use crate::limits::Limits;

/// Beyond this much more, or less, a channel is counted anew: values smaller than that come and go uncounted.
const STEP_BYTES: u64 = 4 * 1_024;

/// Channels of a session that begin with the whole byte window, and those that begin with an eighth of it; all others begin with
/// a five-hundredth. So all that a session may fill before anything is taken is less than it may make this end keep, and a channel
/// that is used has its window grow.
const WHOLE_WINDOWS: usize = 64;
const SMALL_WINDOWS: usize = 1_024;
const SMALL_WINDOW_SHARE: u64 = 8;
const TINY_WINDOW_SHARE: u64 = 512;

/// No window is smaller unless it was asked for: a handful of small values.
const WINDOW_BYTES_MIN: u64 = 1_024;

/// The part of what a session may make this end keep by which its windows may grow, in all.
const GROWTH_SHARE: u64 = 4;

/// Over which limit it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverLimit {
    Session,
    Identity,
    Server,
}

impl OverLimit {
    /// The limit by the name that it has in [`Limits`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Session => "kept_bytes_per_session_max",
            Self::Identity => "kept_bytes_per_identity_max",
            Self::Server => "kept_bytes_max",
        }
    }
}

/// The accounts of a server.
#[derive(Debug)]
pub(crate) struct Accounts {
    kept: AtomicU64,
    session_max: u64,
    identity_max: u64,
    server_max: u64,
    stopped: AtomicU64,
    identities: Mutex<HashMap<Fingerprint, Weak<IdentityAccount>>>,
}

#[derive(Debug)]
struct IdentityAccount {
    owner: Fingerprint,
    kept: AtomicU64,
    all: Arc<Accounts>,
}

impl Drop for IdentityAccount {
    fn drop(&mut self) {
        let mut identities = self.all.identities.lock();
        if identities.get(&self.owner).is_some_and(|account| account.strong_count() == 0) {
            identities.remove(&self.owner);
        }
    }
}

/// What one session makes this end keep.
#[derive(Debug)]
pub(crate) struct Account {
    kept: AtomicU64,
    /// What its windows have grown by.
    grown: AtomicU64,
    max: u64,
    identity: Option<Arc<IdentityAccount>>,
}

/// What one channel has in its session's account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    kept: u64,
    grown: u64,
}

impl Entry {
    /// Whether so much is worth counting anew.
    #[inline]
    pub(crate) const fn differs(&self, kept: u64) -> bool {
        kept.abs_diff(self.kept) >= STEP_BYTES || kept == 0 && self.kept > 0
    }
}

/// A message of its own must fit in, and another beside it.
fn session_max(limits: &Limits) -> u64 {
    limits.kept_bytes_per_session_max.max(2 * limits.message_bytes_max as u64)
}

impl Accounts {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let session_max = session_max(limits);
        let identity_max = limits.kept_bytes_per_identity_max.max(session_max);
        Arc::new(Self {
            kept: AtomicU64::new(0),
            session_max,
            identity_max,
            server_max: limits.kept_bytes_max.max(identity_max),
            stopped: AtomicU64::new(0),
            identities: Mutex::default(),
        })
    }

    /// The account of a session of this key.
    pub(crate) fn open(self: &Arc<Self>, owner: Option<Fingerprint>) -> Arc<Account> {
        let identity = owner.map(|owner| {
            let mut identities = self.identities.lock();
            if let Some(there) = identities.get(&owner).and_then(Weak::upgrade) {
                return there;
            }
            let account = Arc::new(IdentityAccount { owner, kept: AtomicU64::new(0), all: Arc::clone(self) });
            identities.insert(owner, Arc::downgrade(&account));
            account
        });
        Arc::new(Account {
            kept: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            max: self.session_max,
            identity,
        })
    }

    /// What all sessions make the server keep.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Channels that were ended because they made the server keep too much, so far.
    pub(crate) fn stopped(&self) -> u64 {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl IdentityAccount {
    /// Whether it keeps more than its share of what is too much.
    fn is_greedy(&self) -> bool {
        let identities = self.all.identities.lock().len().max(1) as u64;
        self.kept.load(Ordering::Relaxed) > self.all.server_max / identities
    }
}

impl Account {
    /// Of an end that has one peer.
    pub(crate) fn alone(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            kept: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            max: session_max(limits),
            identity: None,
        })
    }

    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// The byte window with which the next channel begins, if so many are open.
    pub(crate) fn first_window(channels: usize, window_bytes: u64) -> u64 {
        let share = match channels {
            ..WHOLE_WINDOWS => return window_bytes,
            WHOLE_WINDOWS..SMALL_WINDOWS => SMALL_WINDOW_SHARE,
            _ => TINY_WINDOW_SHARE,
        };
        (window_bytes / share).max(WINDOW_BYTES_MIN).min(window_bytes)
    }

    /// Whether a channel's window may grow by so much.
    pub(crate) fn has_room_to_grow(&self, bytes: u64) -> bool {
        self.grown.load(Ordering::Relaxed).saturating_add(bytes) <= self.max / GROWTH_SHARE
    }

    /// The channel's window has grown by so much more.
    pub(crate) fn note_grown(&self, entry: &mut Entry, by: u64) {
        entry.grown += by;
        self.grown.fetch_add(by, Ordering::Relaxed);
    }

    /// The channel keeps so much now.
    ///
    /// # Errors
    /// That is more, and now it is too much.
    pub(crate) fn count(&self, entry: &mut Entry, kept: u64) -> Result<(), OverLimit> {
        if !entry.differs(kept) {
            return Ok(());
        }
        let before = std::mem::replace(&mut entry.kept, kept);
        let own = move_by(&self.kept, before, kept);
        let over = self.identity.as_ref().and_then(|identity| {
            let of_identity = move_by(&identity.kept, before, kept);
            let of_all = move_by(&identity.all.kept, before, kept);
            if of_identity > identity.all.identity_max {
                Some(OverLimit::Identity)
            } else if of_all > identity.all.server_max && identity.is_greedy() {
                Some(OverLimit::Server)
            } else {
                None
            }
        });
        let over = if own > self.max { Some(OverLimit::Session) } else { over };
        over.filter(|_| kept > before).map_or(Ok(()), Err)
    }

    /// A channel was ended for it.
    pub(crate) fn note_stopped(&self) {
        if let Some(identity) = &self.identity {
            identity.all.stopped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The channel is gone.
    pub(crate) fn close(&self, entry: &mut Entry) {
        _ = self.count(entry, 0);
        self.grown.fetch_sub(std::mem::take(&mut entry.grown), Ordering::Relaxed);
    }
}

/// Returns what it comes to.
fn move_by(sum: &AtomicU64, before: u64, after: u64) -> u64 {
    if after >= before {
        sum.fetch_add(after - before, Ordering::Relaxed) + (after - before)
    } else {
        sum.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limits() -> Limits {
        Limits {
            message_bytes_max: 1 << 20,
            kept_bytes_per_session_max: 4 * MIB,
            kept_bytes_per_identity_max: 6 * MIB,
            kept_bytes_max: 10 * MIB,
            ..Limits::default()
        }
    }

    fn key(n: u8) -> Option<Fingerprint> {
        Some(Fingerprint([n; 32]))
    }

    #[test]
    fn bound_1_each_session_each_key_and_the_server_have_their_limit() {
        let accounts = Accounts::new(&limits());
        let sessions: Vec<_> = [1, 1, 2, 3].map(|n| accounts.open(key(n))).into();
        let mut entries = [Entry::default(); 4];
        assert_eq!(sessions[0].count(&mut entries[0], 4 * MIB), Ok(()));
        assert_eq!(sessions[0].count(&mut entries[0], 5 * MIB), Err(OverLimit::Session));
        assert_eq!(sessions[0].count(&mut entries[0], 4 * MIB), Ok(()), "less is never too much");
        assert_eq!(sessions[1].count(&mut entries[1], 3 * MIB), Err(OverLimit::Identity));
        assert_eq!(sessions[1].count(&mut entries[1], 2 * MIB), Ok(()));
        assert_eq!(sessions[2].count(&mut entries[2], 4 * MIB), Ok(()));
        // Who keeps more than its share of what is too much has to stop, and nobody else.
        assert_eq!(sessions[3].count(&mut entries[3], MIB), Ok(()));
        assert_eq!(sessions[2].count(&mut entries[2], 4 * MIB + STEP_BYTES), Err(OverLimit::Session));
        assert_eq!(accounts.kept(), 11 * MIB + STEP_BYTES);
        assert_eq!(sessions[1].count(&mut entries[1], 2 * MIB - STEP_BYTES), Ok(()));
        assert_eq!(sessions[1].count(&mut entries[1], 2 * MIB), Err(OverLimit::Server));
        sessions.iter().zip(&mut entries).for_each(|(session, entry)| session.close(entry));
        assert_eq!(accounts.kept(), 0);
        drop(sessions);
        assert!(accounts.identities.lock().is_empty(), "a key without sessions is forgotten");
    }

    #[test]
    fn bound_2_all_windows_of_a_session_fit_into_what_it_may_make_this_end_keep() {
        let limits = Limits::default();
        let windows: u64 =
            (0..limits.channels_max).map(|n| Account::first_window(n, limits.window_bytes)).sum();
        let growth = limits.kept_bytes_per_session_max / GROWTH_SHARE;
        assert!(windows + growth <= limits.kept_bytes_per_session_max, "{windows} {growth}");
        let account = Account::alone(&limits);
        let mut entry = Entry::default();
        assert!(account.has_room_to_grow(growth));
        account.note_grown(&mut entry, growth);
        assert!(!account.has_room_to_grow(1));
        account.close(&mut entry);
        assert!(account.has_room_to_grow(growth));
    }

    #[test]
    fn small_values_come_and_go_uncounted() {
        let account = Account::alone(&Limits::default());
        let mut entry = Entry::default();
        account.count(&mut entry, STEP_BYTES - 1).unwrap();
        assert_eq!(account.kept(), 0);
        account.count(&mut entry, STEP_BYTES).unwrap();
        assert_eq!(account.kept(), STEP_BYTES);
        account.count(&mut entry, 0).unwrap();
        assert_eq!(account.kept(), 0);
    }
}
