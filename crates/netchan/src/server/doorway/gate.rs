//! Places for handshakes whose gates are to be opened (`PORT-4`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Doorway, below, say_farewell};
use crate::handshake::Places;
use crate::hold::Hold;
use crate::transport::BoxFuture;

/// When all places for handshakes are taken and none has come free for so long, some who hold one are sent away: a round trip
/// and the work of a handshake are done by then.
const STUCK_AFTER: Duration = Duration::from_millis(250);

/// One in so many of them.
const STUCK_SHARE: usize = 4;

/// Waits for a place among those whose gates are open.
pub(in crate::server) struct AtGate {
    pub(super) doorway: Arc<Doorway>,
    pub(super) id: u64,
}

/// A place.
struct Place {
    doorway: Arc<Doorway>,
    id: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.doorway.freed.lock() = Instant::now();
        self.doorway.inside.lock().set_at_work(self.id, false);
    }
}

/// Counts one that waits for a place.
struct Waiting<'a>(&'a Doorway);

impl<'a> Waiting<'a> {
    fn new(doorway: &'a Doorway) -> Self {
        doorway.waiting.fetch_add(1, Ordering::SeqCst);
        Self(doorway)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.open.fewer.notify_waiters();
    }
}

impl Places for AtGate {
    fn enter(&self) -> BoxFuture<'_, Hold> {
        Box::pin(async {
            let doorway = Arc::clone(&self.doorway);
            doorway.inside.lock().set_spoke(self.id);
            let waiting = Waiting::new(&doorway);
            let permit = loop {
                let place = Arc::clone(&doorway.places).acquire_owned();
                match tokio::time::timeout(STUCK_AFTER, place).await {
                    // Nobody closes it.
                    Ok(permit) => break permit.ok(),
                    Err(_) => doorway.unstick(),
                }
            };
            drop(waiting);
            doorway.inside.lock().set_at_work(self.id, true);
            Box::new(Place { doorway, id: self.id, _permit: permit }) as Hold
        })
    }
}

impl Doorway {
    /// All places are taken, and none has come free for a while: whoever holds one and goes no further, as an honest handshake
    /// does, is likely to be among those the lot falls on.
    fn unstick(&self) {
        let mut freed = self.freed.lock();
        if freed.elapsed() < STUCK_AFTER {
            return;
        }
        *freed = Instant::now();
        drop(freed);
        let mut inside = self.inside.lock();
        let mut at_work: Vec<_> =
            inside.entries.iter().filter(|entry| entry.at_work).map(|entry| entry.id).collect();
        let away: Vec<_> = (0..at_work.len().div_ceil(STUCK_SHARE))
            .filter_map(|_| below(at_work.len()).and_then(|nth| inside.remove(at_work.swap_remove(nth))))
            .collect();
        drop(inside);
        say_farewell(away);
    }
}
