//! Hosting channels, and serving what clients open.

use std::sync::{Arc, Weak};

use netchan_proto::id::ChannelId;
use netchan_proto::limits::CAPACITY_ITEMS_MAX;
use netchan_proto::wire::{Announce, Open, OpenFlow, Purpose, RefuseCode};

use super::authority::unhosted;
use super::{ServerCore, ServerEvent, audit};
use crate::error::{HostError, SessionEnd};
use crate::hub::{Access, Engine, Hub, HubSpec, Keeper};
use crate::limits::MessageLimits;
use crate::names::check_name;
use crate::offer::Offer;
use crate::opening::check_types;
use crate::options::ChannelOptions;
use crate::session::{SessionCore, SessionEvent, Upper};

impl ServerCore {
    pub(super) fn message_limits(&self) -> MessageLimits {
        let limits = self.config.session_limits();
        limits.decode.of(limits.message_bytes_max)
    }

    /// Hosts a queue.
    pub(super) fn host<T: 'static>(
        self: &Arc<Self>,
        name: &str,
        capacity: u64,
        options: &ChannelOptions<T>,
        access: Access,
    ) -> Result<Arc<Hub>, HostError> {
        self.host_with(name, capacity, options, access, Hub::new)
    }

    /// Hosts a channel with an engine of its own.
    pub(super) fn host_with<T: 'static, E: Engine>(
        self: &Arc<Self>,
        name: &str,
        capacity: u64,
        options: &ChannelOptions<T>,
        access: Access,
        engine: impl FnOnce(Weak<dyn Keeper>, HubSpec) -> Arc<E>,
    ) -> Result<Arc<E>, HostError> {
        if let Some(reason) = check_name(name) {
            return Err(HostError::BadName { name: name.to_owned(), reason });
        }
        if capacity > CAPACITY_ITEMS_MAX {
            return Err(HostError::Capacity(CAPACITY_ITEMS_MAX));
        }
        if self.is_closing() {
            return Err(HostError::ShuttingDown);
        }
        let engine = {
            let mut hosted = self.hosted.lock();
            if hosted.get(name).is_some_and(|engine| engine.closed().is_none()) {
                return Err(HostError::NameTaken(name.to_owned()));
            }
            let keeper: Weak<dyn Keeper> = Arc::downgrade(self) as Weak<Self>;
            let spec = HubSpec {
                name: Arc::from(name),
                label: options.label.clone(),
                codec: options.codec.name().to_owned(),
                fingerprint: options.fingerprint,
                access,
                capacity,
                deliveries: options.deliveries,
                bytes_max: options.bytes_max,
                when_slow: options.when_slow.unwrap_or_default().into(),
            };
            let engine = engine(keeper, spec);
            hosted.host(name, Arc::clone(&engine) as Arc<dyn Engine>);
            engine
        };
        // Clients that opened the name a moment too early are served now.
        let hosted = Arc::clone(&engine) as Arc<dyn Engine>;
        for (session, open) in self.offers.take_opened(name) {
            self.serve_late(&session, &open, || serve(&session, &open, &hosted));
        }
        for session in self.sessions() {
            self.announce(&session, &*engine);
        }
        Ok(engine)
    }

    pub(super) fn dead_letters<T: 'static>(
        &self,
        name: &str,
        options: &ChannelOptions<T>,
    ) -> Result<Arc<Hub>, HostError> {
        // Of a channel that has ended, what is left; it comes first.
        let left = self.left_dead.lock().get(name).and_then(|left| {
            let mut left = left.iter();
            left.find(|dead| dead.untaken() > 0).cloned()
        });
        let engine = self.hosted.lock().get(name);
        let dead = left.or_else(|| engine.and_then(|engine| engine.dead_letters()));
        let dead = dead.ok_or_else(|| HostError::NoDeadLetters(name.to_owned()))?;
        // Bytes are bytes, whatever they were to be.
        let raw = options.codec.name() == crate::codec::RAW_NAME;
        if !raw && (&dead.spec.label, &*dead.spec.codec) != (&options.label, options.codec.name()) {
            let theirs = format!("{} by {}", dead.spec.label, dead.spec.codec);
            let ours = format!("{} by {}", options.label, options.codec.name());
            return Err(HostError::TypeMismatch { name: name.to_owned(), ours, theirs });
        }
        Ok(dead)
    }
}

impl Keeper for ServerCore {
    fn runtime(&self) -> Option<tokio::runtime::Handle> {
        Some(self.runtime.clone())
    }

    fn closed(&self, engine: &dyn Engine) {
        if self.is_closing() {
            return;
        }
        for session in self.sessions() {
            session.with_control(|control| control.announce(unhosted(engine)));
        }
    }

    fn finished(&self, engine: &dyn Engine) {
        let last = engine.survey();
        if let Some(dead) = engine.dead_letters() {
            let mut left = self.left_dead.lock();
            left.retain(|_, left| {
                left.retain(|dead| dead.untaken() > 0);
                !left.is_empty()
            });
            if dead.untaken() > 0 {
                left.entry(engine.spec().name.to_string()).or_default().push(dead);
            }
        }
        // The name may have been taken again since the close.
        let removed = self.hosted.lock().forget(engine);
        self.past.lock().add_channel(&last);
        if removed {
            self.forget_channel(&last);
        }
    }
}

/// Answers a client that opens a hosted channel.
fn serve(session: &Arc<SessionCore>, open: &Open, engine: &Arc<dyn Engine>) {
    let spec = engine.spec();
    if let Some((code, theirs)) = check_types(open, &spec.label, &spec.codec, spec.fingerprint) {
        tracing::info!(peer = %session.peer(), channel = %spec.name, ?code, "open refused");
        return session.refuse(open.id, code, theirs);
    }
    let allowed = match open.flow {
        OpenFlow::OpenerSends => spec.access.may_send,
        OpenFlow::OpenerReceives => spec.access.may_receive,
    };
    if !allowed {
        let reason = match open.flow {
            OpenFlow::OpenerSends => "the server only sends here; open it as a receiver",
            OpenFlow::OpenerReceives => "the server only receives here; open it as a sender",
        };
        return session.refuse(open.id, RefuseCode::WrongDirection, reason);
    }
    Arc::clone(engine).open(session, open);
}

impl ServerCore {
    /// Serves a client what it opens and may have: what is hosted, or else an offer to the program.
    fn provide(&self, core: &Arc<SessionCore>, open: Open) {
        let candidates = self.hosted.lock().candidates(&open.name);
        match candidates.answer(&open) {
            Some(engine) => serve(core, &open, &engine),
            None if self.is_closing() => {
                core.refuse(open.id, RefuseCode::NotAvailable, "the server is shutting down")
            }
            None if open.purpose == Purpose::Deliveries => {
                core.refuse(open.id, RefuseCode::NotAvailable, "nothing of that name is hosted")
            }
            None => {
                let name = open.name.clone();
                if !self.offers.push_bounded(Offer::opened(core, open), self.config.limits.offers_total_max) {
                    return audit::limited(&core.peer(), &name, "Limits::offers_total_max");
                }
                // It may have been hosted while the offer was on its way into the queue.
                let engine = self.hosted.lock().get(&name);
                if let Some(engine) = engine {
                    for (session, open) in self.offers.take_opened(&name) {
                        self.serve_late(&session, &open, || serve(&session, &open, &engine));
                    }
                }
            }
        }
    }
}

impl Upper for ServerCore {
    fn tell(&self, core: &Arc<SessionCore>, event: &SessionEvent, change: &mut dyn FnMut()) {
        self.count_session(event);
        self.events.change(change, Some(ServerEvent { peer: core.peer(), event: event.clone() }));
    }

    fn confirmed(&self, core: &Arc<SessionCore>) {
        self.note_arrived(core);
        self.settle_duplicates(core);
        self.announce_all(core);
    }

    fn incoming(&self, core: &Arc<SessionCore>, open: Open) {
        if matches!(open.purpose, Purpose::Acks { .. } | Purpose::Outcomes { .. }) {
            return crate::hub::accept_service(core, &open);
        }
        self.judge_open(core, &open.clone(), || self.provide(core, open));
    }

    fn may_have(&self, core: &Arc<SessionCore>, open: &Open) -> bool {
        let allows = self.allows(core, open);
        if !allows {
            self.deny_late(core, open);
        }
        allows
    }

    fn accepted(&self, core: &Arc<SessionCore>, id: ChannelId) {
        self.enforce_on_channel(core, id);
    }

    fn refused(&self, core: &Arc<SessionCore>, open: &Open, limit: &str) {
        audit::limited(&core.peer(), &open.name, limit);
    }

    fn attached(&self, core: &Arc<SessionCore>, other_rights: bool) {
        self.enforce_again(core, other_rights);
    }

    fn announced(&self, _: &Arc<SessionCore>, _: Announce) {
        // Clients host nothing; an announcement from one is of no use and does no harm.
    }

    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId) {
        drop(self.offers.take_opened_on(core, id));
    }

    fn suspended(&self, core: &Arc<SessionCore>, reason: &str) -> Result<(), SessionEnd> {
        if self.is_closing() {
            // Nobody is let in any more.
            return Err(SessionEnd::Disconnected(reason.to_owned()));
        }
        self.note_suspended(core);
        Ok(())
    }

    fn resumed(&self, core: &Arc<SessionCore>) {
        self.note_resumed(core);
    }

    fn lost(&self, _: &Arc<SessionCore>, _: &SessionEnd) {
        // Only clients set up another session in place of one that is lost.
    }

    fn forgotten(&self, core: &Arc<SessionCore>) {
        if !core.is_greeted() {
            self.note_arrived(core);
        }
        // First what its client is told when it comes back, so that it never finds nothing.
        self.note_farewell(core);
        if let Some(session_id) = core.peer().session_id() {
            let removed = self.sessions.lock().remove(&session_id);
            if removed.is_some() && core.is_greeted() {
                self.past.lock().add(core.stats());
            }
        }
        self.note_resumed(core);
    }

    fn ended(&self, core: &Arc<SessionCore>, end: &SessionEnd) {
        tracing::info!(peer = %core.peer(), %end, "client gone");
        self.offers.remove_session(core);
        self.end_events();
    }
}

#[cfg(test)]
mod tests;
