//! What a hosted channel does when its time has come, and where dead values go.

use std::sync::{Arc, Weak};
use std::time::Duration;

use netchan_proto::hosted::Item;
use tokio::time::Instant;

use super::{Access, Engine, Hub, HubSpec, Keeper};

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
            deliveries: super::DeliveryLimits { attempts_max: None, ..spec.deliveries },
            when_slow: spec.when_slow,
        };
        Self::new(Weak::<Nobody>::new(), spec)
    }

    /// Where dead values are received, if values die here.
    pub(crate) const fn dead(&self) -> Option<&Arc<Self>> {
        self.dead.as_ref()
    }

    pub(super) fn bury(&self, item: Item) {
        let place = self.dead.as_ref().map(|dead| dead.poll_acquire(None, &mut None, Some(&item.bytes)));
        if matches!(place, Some(std::task::Poll::Ready(super::Acquired::Committed(_)))) {
            tracing::warn!(channel = %self.spec.name, attempts = item.attempts, "a value is dead");
            self.run(|state| state.hosted.buried());
        } else {
            tracing::warn!(channel = %self.spec.name, "no room for a dead value: it is tried again");
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
        let (hub, at) = (Arc::downgrade(self), self.started + Duration::from_millis(at.min(MILLIS_MAX)));
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            if let Some(hub) = hub.upgrade() {
                hub.tick(at);
            }
        });
    }

    fn tick(self: &Arc<Self>, at: Instant) {
        let now = self.millis();
        self.run(|state| {
            let armed =
                state.timer_at.map(|armed| self.started + Duration::from_millis(armed.min(MILLIS_MAX)));
            if armed.is_some_and(|armed| armed <= at) {
                state.timer_at = None;
            }
            state.hosted.handle_timeout(now);
        });
        self.arm();
    }
}

/// No timer is set further ahead: a year.
const MILLIS_MAX: u64 = 365 * 24 * 3_600 * 1_000;
