//! Hosting channels, and serving what clients open.

use std::sync::{Arc, Weak};

use netchan_proto::id::ChannelId;
use netchan_proto::limits::CAPACITY_ITEMS_MAX;
use netchan_proto::wire::{Announce, Open, OpenFlow, Purpose, RefuseCode};

use super::ServerCore;
use crate::error::{HostError, SessionEnd};
use crate::hub::{Access, Hub, HubSpec, Keeper};
use crate::offer::Offer;
use crate::opening::{check_name, check_types};
use crate::options::ChannelOptions;
use crate::session::{SessionCore, SessionEvent, Upper};

impl ServerCore {
    pub(super) fn message_bytes_max(&self) -> usize {
        self.config.session_limits().message_bytes_max
    }

    pub(super) fn host<T: 'static>(
        self: &Arc<Self>,
        name: &str,
        capacity: u64,
        options: &ChannelOptions<T>,
        access: Access,
    ) -> Result<Arc<Hub>, HostError> {
        if let Some(reason) = check_name(name) {
            return Err(HostError::BadName { name: name.to_owned(), reason });
        }
        if capacity > CAPACITY_ITEMS_MAX {
            return Err(HostError::Capacity(CAPACITY_ITEMS_MAX));
        }
        if self.is_closing() {
            return Err(HostError::ShuttingDown);
        }
        let hub = {
            let mut hubs = self.hubs.lock();
            if hubs.get(name).is_some_and(|hub| hub.closed().is_none()) {
                return Err(HostError::NameTaken(name.to_owned()));
            }
            let codec = options.codec.name().to_owned();
            let keeper: Weak<dyn Keeper> = Arc::downgrade(self) as Weak<Self>;
            let spec = HubSpec {
                name: Arc::from(name),
                label: options.label.clone(),
                codec,
                fingerprint: options.fingerprint,
                access,
                capacity,
                deliveries: options.deliveries,
            };
            let hub = Hub::new(keeper, spec);
            hubs.insert(name.to_owned(), Arc::clone(&hub));
            hub
        };
        // Clients that opened the name a moment too early are served now.
        for (session, open) in self.offers.take_opened(name) {
            serve(&session, &open, &hub);
        }
        for session in self.sessions() {
            session.with_control(|control| control.announce(announcement(&hub, true)));
        }
        Ok(hub)
    }

    pub(super) fn dead_letters<T: 'static>(
        &self,
        name: &str,
        options: &ChannelOptions<T>,
    ) -> Result<Arc<Hub>, HostError> {
        let hub = self.hubs.lock().get(name).cloned();
        let dead = hub.as_ref().and_then(|hub| hub.dead()).cloned();
        let dead = dead.ok_or_else(|| HostError::NoDeadLetters(name.to_owned()))?;
        if (&dead.spec.label, &*dead.spec.codec) != (&options.label, options.codec.name()) {
            let theirs = format!("{} by {}", dead.spec.label, dead.spec.codec);
            let ours = format!("{} by {}", options.label, options.codec.name());
            return Err(HostError::TypeMismatch { name: name.to_owned(), ours, theirs });
        }
        Ok(dead)
    }
}

impl Keeper for ServerCore {
    fn closed(&self, hub: &Hub) {
        if self.is_closing() {
            return;
        }
        for session in self.sessions() {
            session.with_control(|control| control.announce(announcement(hub, false)));
        }
    }

    fn finished(&self, hub: &Hub) {
        let mut hubs = self.hubs.lock();
        // The name may have been taken again since the close.
        if hubs.get(&*hub.spec.name).is_some_and(|known| std::ptr::eq(&**known, hub)) {
            hubs.remove(&*hub.spec.name);
        }
    }
}

fn announcement(hub: &Hub, hosted: bool) -> Announce {
    Announce {
        name: hub.spec.name.to_string(),
        label: hub.spec.label.clone(),
        codec: hub.spec.codec.clone(),
        may_receive: hub.spec.access.may_receive,
        may_send: hub.spec.access.may_send,
        capacity: hub.capacity(),
        hosted,
    }
}

/// Answers a client that opens a hosted channel.
fn serve(session: &Arc<SessionCore>, open: &Open, hub: &Arc<Hub>) {
    if let Some((code, theirs)) = check_types(open, &hub.spec.label, &hub.spec.codec, hub.spec.fingerprint) {
        tracing::info!(peer = %session.peer(), channel = %hub.spec.name, ?code, "open refused");
        return session.refuse(open.id, code, theirs);
    }
    let allowed = match open.flow {
        OpenFlow::OpenerSends => hub.spec.access.may_send,
        OpenFlow::OpenerReceives => hub.spec.access.may_receive,
    };
    if !allowed {
        let reason = match open.flow {
            OpenFlow::OpenerSends => "the server only sends here; open it as a receiver",
            OpenFlow::OpenerReceives => "the server only receives here; open it as a sender",
        };
        return session.refuse(open.id, RefuseCode::WrongDirection, reason);
    }
    match open.flow {
        OpenFlow::OpenerSends => session.accept_hosted_sender(open, hub),
        OpenFlow::OpenerReceives => session.accept_hosted_receiver(open, hub),
    }
}

impl Upper for ServerCore {
    fn confirmed(&self, core: &Arc<SessionCore>) {
        self.publish(core, SessionEvent::Connected);
        let hubs: Vec<_> = self.hubs.lock().values().cloned().collect();
        core.with_control(|control| {
            for hub in hubs.iter().filter(|hub| hub.closed().is_none()) {
                control.announce(announcement(hub, true));
            }
        });
    }

    fn incoming(&self, core: &Arc<SessionCore>, open: Open) {
        if matches!(open.purpose, Purpose::Acks { .. } | Purpose::Outcomes { .. }) {
            return core.accept_service(&open);
        }
        let hub = self.hubs.lock().get(&open.name).cloned();
        match hub {
            Some(hub) => serve(core, &open, &hub),
            None if self.is_closing() => {
                core.refuse(open.id, RefuseCode::NotAvailable, "the server is shutting down")
            }
            None if open.purpose == Purpose::Deliveries => {
                core.refuse(open.id, RefuseCode::NotAvailable, "nothing of that name is hosted")
            }
            None => {
                let name = open.name.clone();
                self.offers.push(Offer::opened(core, open));
                // It may have been hosted while the offer was on its way into the queue.
                let hub = self.hubs.lock().get(&name).cloned();
                if let Some(hub) = hub {
                    for (session, open) in self.offers.take_opened(&name) {
                        serve(&session, &open, &hub);
                    }
                }
            }
        }
    }

    fn announced(&self, _: &Arc<SessionCore>, _: Announce) {
        // Clients host nothing; an announcement from one is of no use and does no harm.
    }

    fn expired(&self, core: &Arc<SessionCore>, id: ChannelId) {
        self.offers.remove(|offer| offer.is_opened_as(core, id));
    }

    fn suspended(&self, core: &Arc<SessionCore>, reason: &str) -> Result<(), SessionEnd> {
        if self.is_closing() {
            // Nobody is let in any more.
            return Err(SessionEnd::Disconnected(reason.to_owned()));
        }
        self.note_suspended(core)?;
        self.publish(core, SessionEvent::Suspended { reason: reason.to_owned() });
        Ok(())
    }

    fn resumed(&self, core: &Arc<SessionCore>, suspended: bool) {
        self.note_resumed(core);
        if suspended {
            self.publish(core, SessionEvent::Resumed);
        }
    }

    fn lost(&self, _: &Arc<SessionCore>, _: &SessionEnd) {
        // Only clients set up another session in place of one that is lost.
    }

    fn ended(&self, core: &Arc<SessionCore>, end: &SessionEnd) {
        let peer = core.peer();
        tracing::info!(%peer, %end, "client gone");
        if let Some(session_id) = peer.session_id() {
            let removed = self.sessions.lock().remove(&session_id);
            if removed.is_some() {
                self.past.lock().add(core.stats());
            }
        }
        self.note_resumed(core);
        self.publish(core, SessionEvent::Gone(end.clone()));
        self.offers.remove_session(core);
    }
}
