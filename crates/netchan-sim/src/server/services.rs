//! What a server hosts besides queues: deliveries and broadcasts.

use std::rc::Rc;

use netchan_proto::id::SessionId;
use netchan_proto::limits::ATTEMPTS_MAX_DEFAULT;
use netchan_proto::wire::{Mode, Open, Purpose};
use rand::Rng;

use super::Server;
use crate::cast::Cast;
use crate::context::Context;
use crate::desk::Desk;
use crate::end::End;
use crate::hub::ports::Port;

/// Acknowledgements that may be on their way: few, so that there is no room for them now and then.
const ASKS: u64 = 4;

/// One queue of tasks, and one broadcast.
pub(super) fn services(context: &mut Context) -> (Vec<Desk>, Vec<Cast>) {
    let capacity = context.rng.random_range(1..5);
    let few = context.rng.random_ratio(1, 3);
    let attempts_max = Some(if few { context.rng.random_range(2..6) } else { ATTEMPTS_MAX_DEFAULT });
    let (chan, total) = (context.chan(capacity, false), context.rng.random_range(5..25));
    let desk = Desk::new(chan, capacity, context.rng.random_range(1..4), total, attempts_max);
    let capacity = context.rng.random_range(1..8);
    let (chan, total) = (context.chan(capacity, false), context.rng.random_range(10..60));
    (vec![desk], vec![Cast::new(chan, capacity, total)])
}

/// What a client opens.
pub(super) enum Service {
    /// Tasks, by channel and holder.
    Deliveries(u32, u32),
    /// Beside the tasks' channel.
    Beside { of: netchan_proto::id::ChannelId, asks: bool },
    /// Where results of tasks go, by the tasks' channel and holder.
    Results(u32, u32),
    /// A broadcast, by channel and subscriber.
    Broadcast(u32, u32),
}

impl Service {
    pub(super) fn of(open: &Open) -> Option<Self> {
        let (kind, rest) = open.name.split_once(':')?;
        let (chan, who) = rest.split_once(':')?;
        let (chan, who) = (chan.parse().ok()?, who.parse().ok());
        match (kind, open.purpose) {
            ("q", Purpose::Deliveries) => Some(Self::Deliveries(chan, who?)),
            ("q", Purpose::Acks { of }) => Some(Self::Beside { of, asks: true }),
            ("q", Purpose::Outcomes { of }) => Some(Self::Beside { of, asks: false }),
            ("r", Purpose::Values) => Some(Self::Results(chan, who?)),
            ("b", _) => Some(Self::Broadcast(chan, who?)),
            _ => None,
        }
    }
}

impl Server {
    /// Opens it. False if there is no such thing here.
    pub(super) fn open_service(
        &mut self,
        context: &mut Context,
        session_id: SessionId,
        end: &Rc<End>,
        open: &Open,
        service: &Service,
    ) -> bool {
        let port = Port { end: Rc::clone(end), id: open.id };
        match *service {
            Service::Deliveries(chan, who) => {
                let desk = self.desks.iter_mut().find(|desk| desk.chan == chan && !desk.is_over());
                let Some(desk) = desk else { return false };
                if end.accept(open, Mode::Demand, desk.capacity()) {
                    desk.add_holder(session_id, port, who, open, &mut context.audit);
                }
                true
            }
            Service::Beside { of, asks } => {
                let desk = self.desks.iter_mut().find(|desk| desk.has_holder(session_id, of));
                let Some(desk) = desk else { return false };
                if end.accept(open, Mode::Credit, if asks { ASKS } else { open.capacity })
                    && !desk.add_service(session_id, of, port, asks)
                {
                    context.audit.wrong("a second channel beside a holder's");
                }
                true
            }
            Service::Results(chan, who) => {
                let desk = self.desks.iter_mut().find(|desk| desk.chan == chan && !desk.is_over());
                let Some(desk) = desk else { return false };
                if end.accept(open, Mode::Lease, 1) {
                    desk.add_results(session_id, port, who, &mut context.audit);
                }
                true
            }
            Service::Broadcast(chan, who) => {
                let cast = self.casts.iter_mut().find(|cast| cast.chan == chan && !cast.is_closed());
                let Some(cast) = cast else { return false };
                if end.accept(open, Mode::Cast, open.capacity) {
                    cast.subscribe(session_id, end, open.id, who, who % 3 == 0, &mut context.audit);
                }
                true
            }
        }
    }
}
