//! What a hosted channel does when its time has come, and where dead values go.

use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use netchan_proto::hosted::Item;

use super::{Access, Acquired, Engine, Hub, HubSpec, Keeper};
use crate::options::DeliveryLimits;
use crate::peer::Peer;

/// Nobody hosts a channel of dead values: it ends with the channel that they come from.
struct Nobody;

impl Keeper for Nobody {
    fn closed(&self, _: &dyn Engine) {}

    fn finished(&self, _: &dyn Engine) {}
}

impl Hub {
    /// The channel of the values that nobody acknowledges. It has room for as many as the channel itself: what finds none
    /// goes on being tried (`DEL-7`).
    pub(super) fn new_dead(spec: &HubSpec) -> Arc<Self> {
        let spec = HubSpec {
            name: Arc::clone(&spec.name),
            label: spec.label.clone(),
            codec: spec.codec.clone(),
            fingerprint: spec.fingerprint,
            access: Access { may_send: false, may_receive: false },
            capacity: spec.capacity.max(1),
            deliveries: DeliveryLimits { attempts_max: None, ..spec.deliveries },
            when_slow: spec.when_slow,
        };
        Self::new(Weak::<Nobody>::new(), spec)
    }

    /// Where dead values are received, if values die here.
    pub(crate) const fn dead(&self) -> Option<&Arc<Self>> {
        self.dead.as_ref()
    }

    pub(super) fn bury(&self, item: Item, peer: Peer) {
        let place = self.dead.as_ref().map(|dead| (dead, dead.poll_acquire(None, &mut None, None)));
        if let Some((dead, Poll::Ready(Acquired::Reserved))) = place {
            dead.commit_reserved_for(peer, item.bytes);
            tracing::debug!(channel = %self.spec.name, attempts = item.attempts, "a value is dead");
            self.run(|state| state.hosted.buried());
        } else {
            tracing::debug!(channel = %self.spec.name, "no room for a dead value: it is tried again");
            self.run(|state| state.hosted.revive(item));
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn millis_from_now(&self, delay: Duration) -> u64 {
        // What is due at the end of a millisecond is due.
        self.millis().saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)).saturating_add(1)
    }

    /// Sees that somebody looks when time has come for something.
    pub(super) fn arm(self: &Arc<Self>) {
        let at = {
            let mut state = self.state.lock();
            let Some(at) = state.hosted.poll_timeout() else { return };
            if state.timer_at.is_some_and(|armed| armed <= at) {
                return;
            }
            state.timer_at = Some(at);
            at
        };
        let hub = Arc::downgrade(self);
        let wait = Duration::from_millis(at.saturating_sub(self.millis())).min(SLEEP_MAX);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(hub) = hub.upgrade() {
                hub.tick(at);
            }
        });
    }

    /// The timer that was set for `at` has gone off.
    fn tick(self: &Arc<Self>, at: u64) {
        let now = self.millis();
        self.run(|state| {
            if state.timer_at.is_some_and(|armed| armed <= at.max(now)) {
                state.timer_at = None;
            }
            state.hosted.handle_timeout(now);
        });
        self.arm();
    }
}

/// No timer sleeps longer; it looks then, and sleeps again.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3_600);
