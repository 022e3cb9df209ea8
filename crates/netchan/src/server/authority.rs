//! Who may do what, and what follows when that changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use netchan_proto::channel::CloseReason as ProtoReason;
use netchan_proto::crypto::Fingerprint;
use netchan_proto::id::ChannelId;
use netchan_proto::session::close_code;
use netchan_proto::wire::{Announce, Open, OpenFlow, RefuseCode};
use parking_lot::{Mutex, RwLock};

use super::{ServerCore, audit};
use crate::hold::Hold;
use crate::hub::Engine;
use crate::policy::{Action, DENIED, Decision, OpenBound, Policy, PolicyPeer, PolicyRequest};
use crate::session::{Granted, SessionCore};

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
                if *count == 0 {
                    entries.remove(&entry);
                }
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

/// Why a channel is not to be had.
enum Denial {
    Denied(String),
    /// The client may know: it may use such channels.
    Full {
        rule: String,
        max_open: usize,
    },
}

impl InForce {
    /// Whether a client may open a channel: why, and where it is counted.
    fn judge(
        &self,
        subject: &PolicyPeer,
        channel: &str,
        action: Action,
    ) -> Result<(String, Option<Hold>), Denial> {
        let request = PolicyRequest::Open { channel, action };
        match self.policy.check(subject, &request, SystemTime::now()) {
            Decision::Deny { why } => Err(Denial::Denied(why)),
            Decision::Allow { why, bounds } => match self.ledger.enter(subject.fingerprint, &bounds) {
                Ok(counted) => Ok((why, counted)),
                Err(bound) => Err(Denial::Full { rule: bound.rule.clone(), max_open: bound.max_open }),
            },
        }
    }
}

fn full(rule: &str, max_open: usize) -> String {
    format!("{rule} has max_open {max_open}")
}

fn denied() -> ProtoReason {
    ProtoReason { code: close_code::DENIED, reason: DENIED.to_owned() }
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
        let (action, channel) = (action_of(open), open.name.as_str());
        let Some(subject) = session.subject() else { return serve() };
        let judged = {
            // Not recursively: whoever opens without end must not keep a new policy waiting.
            let in_force = self.authority.now.read();
            in_force.judge(&subject, channel, action).map(|(why, counted)| {
                session.grant(open.id, channel, action, counted);
                serve();
                why
            })
        };
        let peer = session.peer();
        match judged {
            Ok(why) => audit::opened(&peer, channel, action, &why),
            Err(Denial::Denied(why)) => {
                audit::denied(&peer, channel, action, &why);
                session.refuse(open.id, RefuseCode::Denied, DENIED);
            }
            Err(Denial::Full { rule, max_open }) => {
                audit::denied(&peer, channel, action, &full(&rule, max_open));
                let reason = format!(
                    "the server's policy lets this key have {max_open} such channels open at once; close one first"
                );
                session.refuse(open.id, RefuseCode::LimitReached, reason);
            }
        }
    }

    /// What a client opened a moment too early, and is hosted now: served if it may still have it.
    pub(super) fn serve_late(&self, session: &Arc<SessionCore>, open: &Open, serve: impl FnOnce()) {
        // As in `judge_open`, which may be what calls this.
        let in_force = self.authority.now.read_recursive();
        if self.allows(session, open) {
            return serve();
        }
        drop(in_force);
        self.deny_late(session, open);
        session.refuse(open.id, RefuseCode::Denied, DENIED);
    }

    /// Whether a client may still have what it opened and the program is about to accept.
    pub(super) fn allows(&self, session: &Arc<SessionCore>, open: &Open) -> bool {
        let Some(subject) = session.subject() else { return true };
        let request = PolicyRequest::Open { channel: &open.name, action: action_of(open) };
        self.authority.check(&subject, &request).is_allowed()
    }

    /// Writes down that what waited was denied after all.
    pub(super) fn deny_late(&self, session: &Arc<SessionCore>, open: &Open) {
        audit::denied(&session.peer(), &open.name, action_of(open), "the policy has changed while it waited");
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
        let next = InForce { policy, ledger: Arc::default() };
        let before = std::mem::replace(&mut *self.authority.now.write(), next);
        // A program's own may do anything when it is dropped: not under the lock.
        drop(before);
        self.enforce_policy();
    }

    /// Decisions have changed by the passing of time alone.
    pub(super) fn enforce_changes_of_time(&self) {
        self.authority.replaced.store(true, Ordering::SeqCst);
        // Whoever was judged a moment ago is in place when this returns.
        drop(self.authority.now.write());
        self.enforce_policy();
    }

    /// Ends what is allowed no more, and tells clients what they may use (`POL-11`). Those who must go are first.
    fn enforce_policy(&self) {
        let mut sessions = self.sessions();
        sessions.retain(|session| self.enforce_on(session));
        sessions.iter().for_each(|session| self.announce_all(session));
    }

    /// For a session that was judged a while ago, or comes with other rights.
    pub(super) fn enforce_again(&self, session: &Arc<SessionCore>, other_rights: bool) {
        if (other_rights || self.authority.replaced.load(Ordering::SeqCst)) && self.enforce_on(session) {
            self.announce_all(session);
        }
    }

    /// For a channel that was judged a while ago.
    pub(super) fn enforce_on_channel(&self, session: &Arc<SessionCore>, id: ChannelId) {
        if self.authority.replaced.load(Ordering::SeqCst)
            && let (Some(subject), Some(granted)) = (session.subject(), session.grant_of(id))
        {
            self.judge_again(session, &subject, &granted);
        }
    }

    /// Judges a session again, and everything that it has opened. Says whether it stays.
    fn enforce_on(&self, session: &Arc<SessionCore>) -> bool {
        let Some(subject) = session.subject() else { return true };
        let granted = session.granted();
        // Not whether it may resume: it is here.
        if let Decision::Deny { why } = self.authority.check(&subject, &PolicyRequest::Connect) {
            if !session.is_closing() {
                audit::session_revoked(&session.peer(), &why);
            }
            // Its channels first: a client that does not hang up is heard no more.
            granted.iter().for_each(|granted| session.revoke(granted.id, denied()));
            self.offers.remove_session(session);
            session.say_goodbye(close_code::DENIED, DENIED.to_owned());
            return false;
        }
        granted.iter().for_each(|granted| self.judge_again(session, &subject, granted));
        true
    }

    fn judge_again(&self, session: &Arc<SessionCore>, subject: &PolicyPeer, granted: &Granted) {
        let Granted { id, name, action } = granted;
        let why = {
            let in_force = self.authority.now.read_recursive();
            let same = |hold: &Hold| in_force.ledger.has(hold);
            let request = PolicyRequest::Open { channel: name, action: *action };
            match in_force.policy.check(subject, &request, SystemTime::now()) {
                Decision::Deny { why } => why,
                Decision::Allow { bounds, .. } if !bounds.is_empty() && session.is_counted(*id, same) => {
                    return;
                }
                Decision::Allow { bounds, .. } => match in_force.ledger.enter(subject.fingerprint, &bounds) {
                    // What was counted under an earlier policy counts no more.
                    Ok(counted) => return session.recount(*id, counted),
                    Err(bound) => full(&bound.rule, bound.max_open),
                },
            }
        };
        audit::channel_revoked(&session.peer(), name, *action, &why);
        session.revoke(*id, denied());
        if let Some(waiting) = self.offers.take_opened_on(session, *id) {
            waiting.deny();
        }
    }

    /// Tells a client of every hosted channel that it may use, and takes back what it may use no more.
    pub(super) fn announce_all(&self, session: &Arc<SessionCore>) {
        let engines: Vec<_> = self.hosted.lock().current();
        for engine in engines.iter().filter(|engine| engine.closed().is_none()) {
            self.announce(session, &**engine);
        }
    }

    /// Tells a client of a hosted channel, as far as it may use it. Nothing is said twice, and nothing taken back that was not
    /// said.
    pub(super) fn announce(&self, session: &Arc<SessionCore>, engine: &dyn Engine) {
        // Until it is said, lest a newer word be overtaken by an older one.
        let _in_force = self.authority.now.read_recursive();
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
