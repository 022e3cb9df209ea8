//! Who may do what, and what follows when that changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::crypto::Fingerprint;
use netchan_proto::session::close_code;
use netchan_proto::wire::{Announce, Open, OpenFlow, RefuseCode};
use parking_lot::{Mutex, RwLock};

use super::{ServerCore, audit};
use crate::hub::Engine;
use crate::policy::{Action, DENIED, Decision, OpenBound, Policy, PolicyPeer, PolicyRequest};
use crate::session::{Hold, SessionCore};

/// The policy that holds. Whoever judges an open holds the lock until the channel is in its table, so that a new policy
/// finds it there.
pub(super) struct Authority {
    now: RwLock<InForce>,
    /// The first policy does not hold any more.
    replaced: AtomicBool,
}

struct InForce {
    policy: Arc<dyn Policy>,
    ledger: Arc<Ledger>,
}

/// How many channels each key has open under each bound of one policy.
#[derive(Default)]
struct Ledger(Mutex<HashMap<(Fingerprint, u64), usize>>);

/// One open channel, in the ledger for as long as it is open.
struct Counted {
    ledger: Arc<Ledger>,
    entry: (Fingerprint, u64),
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut entries = self.ledger.0.lock();
        if let Some(count) = entries.get_mut(&self.entry) {
            *count -= 1;
            if *count == 0 {
                entries.remove(&self.entry);
            }
        }
    }
}

impl Ledger {
    /// Enters a channel under all its bounds, or under none.
    ///
    /// # Errors
    /// The bound that is reached.
    fn enter<'a>(
        self: &Arc<Self>,
        key: Fingerprint,
        bounds: &'a [OpenBound],
    ) -> Result<Option<Hold>, &'a OpenBound> {
        let mut counted = Vec::with_capacity(bounds.len());
        for bound in bounds {
            let entry = (key, bound.id);
            let mut entries = self.0.lock();
            let count = entries.entry(entry).or_default();
            if *count >= bound.max_open {
                return Err(bound);
            }
            *count += 1;
            counted.push(Counted { ledger: Arc::clone(self), entry });
        }
        Ok(if counted.is_empty() { None } else { Some(Box::new(counted)) })
    }

    /// Whether that is one of its entries.
    fn has(self: &Arc<Self>, hold: &Hold) -> bool {
        let counted = hold.downcast_ref::<Vec<Counted>>();
        counted.is_some_and(|counted| counted.iter().all(|entry| Arc::ptr_eq(&entry.ledger, self)))
    }
}

impl Authority {
    pub(super) fn new(policy: Arc<dyn Policy>) -> Self {
        let now = RwLock::new(InForce { policy, ledger: Arc::default() });
        Self { now, replaced: AtomicBool::new(false) }
    }

    fn check(&self, peer: &PolicyPeer, request: &PolicyRequest<'_>) -> Decision {
        // Recursive: an open may lead to another look while somebody waits to replace the policy.
        self.now.read_recursive().policy.check(peer, request, SystemTime::now())
    }

    pub(super) fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        self.now.read().policy.next_change(now)
    }
}

fn action_of(open: &Open) -> Action {
    match open.flow {
        OpenFlow::OpenerSends => Action::Send,
        OpenFlow::OpenerReceives => Action::Receive,
    }
}

impl ServerCore {
    /// Whether a client may have a session, or go on with one (`POL-9`).
    pub(super) fn may_come(&self, peer: &PolicyPeer, request: &PolicyRequest<'_>) -> Decision {
        self.authority.check(peer, request)
    }

    /// Judges an open, and calls `serve` if it is allowed. Otherwise refuses it (`POL-9`, `POL-10`).
    pub(super) fn judge_open(&self, session: &Arc<SessionCore>, open: &Open, serve: impl FnOnce()) {
        let in_force = self.authority.now.read_recursive();
        let (peer, action, channel) = (session.peer(), action_of(open), open.name.as_str());
        let Some(subject) = session.subject() else { return serve() };
        let request = PolicyRequest::Open { channel, action };
        let (why, bounds) = match in_force.policy.check(&subject, &request, SystemTime::now()) {
            Decision::Allow { why, bounds } => (why, bounds),
            Decision::Deny { why } => {
                audit::denied(&peer, channel, action, &why);
                return session.refuse(open.id, RefuseCode::Denied, DENIED);
            }
        };
        match in_force.ledger.enter(subject.fingerprint, &bounds) {
            Ok(hold) => {
                audit::opened(&peer, channel, action, &why);
                session.keep_with(open.id, hold);
                serve();
            }
            Err(bound) => {
                audit::denied(
                    &peer,
                    channel,
                    action,
                    &format!("{} has max_open {}", bound.rule, bound.max_open),
                );
                let reason = format!(
                    "the server's policy lets this key have {} such channels open at once; close one first",
                    bound.max_open
                );
                session.refuse(open.id, RefuseCode::LimitReached, reason);
            }
        }
    }

    /// Whether a client may still have what it opened and the program is about to accept.
    pub(super) fn allows(&self, session: &Arc<SessionCore>, open: &Open) -> bool {
        let Some(subject) = session.subject() else { return true };
        let request = PolicyRequest::Open { channel: &open.name, action: action_of(open) };
        self.authority.check(&subject, &request).is_allowed()
    }

    /// What a client is told of a hosted channel: what the server lets everybody do there, as far as the policy lets this one.
    /// `None` where that is nothing: it does not learn the name.
    pub(super) fn announcement(&self, session: &SessionCore, engine: &dyn Engine) -> Option<Announce> {
        let spec = engine.spec();
        let subject = session.subject();
        let allows = |action| {
            let request = PolicyRequest::Open { channel: &spec.name, action };
            subject.is_none_or(|subject| self.authority.check(&subject, &request).is_allowed())
        };
        let announce = Announce {
            name: spec.name.to_string(),
            label: spec.label.clone(),
            codec: spec.codec.clone(),
            may_receive: spec.access.may_receive && allows(Action::Receive),
            may_send: spec.access.may_send && allows(Action::Send),
            capacity: spec.capacity,
            hosted: true,
        };
        (announce.may_receive || announce.may_send).then_some(announce)
    }

    /// From here on another policy holds, for those as well that are here already.
    pub(super) fn replace_policy(&self, policy: Arc<dyn Policy>) {
        self.authority.replaced.store(true, Ordering::SeqCst);
        *self.authority.now.write() = InForce { policy, ledger: Arc::default() };
        self.enforce_policy();
    }

    /// Ends what is allowed no more, and tells clients what they may use (`POL-11`).
    pub(super) fn enforce_policy(&self) {
        for session in self.sessions() {
            self.enforce_on(&session);
        }
    }

    /// For what was judged a while ago: the policy may be another by now.
    pub(super) fn enforce_if_replaced(&self, session: &Arc<SessionCore>) {
        if self.authority.replaced.load(Ordering::SeqCst) {
            self.enforce_on(session);
        }
    }

    /// The same for one session. Whoever was judged under an earlier policy is judged again.
    pub(super) fn enforce_on(&self, session: &Arc<SessionCore>) {
        let (Some(subject), peer) = (session.subject(), session.peer()) else { return };
        let reason = || ProtoReason { code: close_code::DENIED, reason: DENIED.to_owned() };
        if let Decision::Deny { why } = self.authority.check(&subject, &PolicyRequest::Resume) {
            if !session.is_closing() {
                audit::session_revoked(&peer, &why);
            }
            // Its channels first: a client that does not hang up is heard no more.
            for opened in session.opened_by_client() {
                session.revoke(&opened.chan, reason());
            }
            self.offers.remove(|offer| offer.is_of(session));
            return session.say_goodbye(close_code::DENIED, DENIED.to_owned());
        }
        for opened in session.opened_by_client() {
            let in_force = self.authority.now.read();
            let action = opened.action;
            let request = PolicyRequest::Open { channel: &opened.name, action };
            let why = match in_force.policy.check(&subject, &request, SystemTime::now()) {
                Decision::Deny { why } => why,
                Decision::Allow { bounds, .. } => {
                    if session.is_kept_with(opened.id, |hold| in_force.ledger.has(hold)) {
                        continue;
                    }
                    // What was counted under an earlier policy counts no more.
                    session.keep_with(opened.id, None);
                    match in_force.ledger.enter(subject.fingerprint, &bounds) {
                        Ok(hold) => {
                            session.keep_with(opened.id, hold);
                            continue;
                        }
                        Err(bound) => format!("{} has max_open {}", bound.rule, bound.max_open),
                    }
                }
            };
            drop(in_force);
            audit::channel_revoked(&peer, &opened.name, action, &why);
            session.revoke(&opened.chan, reason());
        }
        let denied = self
            .offers
            .take_if(|offer| offer.opened_by(session).is_some_and(|open| !self.allows(session, open)));
        denied.into_iter().for_each(crate::offer::Offer::deny);
        self.announce_all(session);
    }

    /// Tells a client of every hosted channel that it may use, and takes back what it may use no more.
    pub(super) fn announce_all(&self, session: &Arc<SessionCore>) {
        let engines: Vec<_> = self.hosted.lock().values().cloned().collect();
        for engine in engines.iter().filter(|engine| engine.closed().is_none()) {
            self.announce(session, &**engine);
        }
    }

    /// Tells a client of a hosted channel, as far as it may use it. Nothing is said twice, and nothing taken back that was not
    /// said.
    pub(super) fn announce(&self, session: &Arc<SessionCore>, engine: &dyn Engine) {
        let announce = self.announcement(session, engine).unwrap_or_else(|| unhosted(engine));
        session.with_control(|control| control.announce(announce));
    }
}

/// A channel that is hosted no more, or not for this client.
pub(super) fn unhosted(engine: &dyn Engine) -> Announce {
    let spec = engine.spec();
    Announce {
        name: spec.name.to_string(),
        label: spec.label.clone(),
        codec: spec.codec.clone(),
        may_receive: spec.access.may_receive,
        may_send: spec.access.may_send,
        capacity: spec.capacity,
        hosted: false,
    }
}
