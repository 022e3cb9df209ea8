//! What a server hosts besides queues: deliveries and broadcasts.

use std::rc::Rc;

use netchan_proto::id::SessionId;
use netchan_proto::wire::{Mode, Open, Purpose};
use rand::Rng;

use super::Server;
use crate::cast::Cast;
use crate::context::Context;
use crate::desk::Desk;
use crate::end::End;

/// Acknowledgements that may be on their way: few, so that there is no room for them now and then.
const ASKS: u64 = 4;

/// One queue of tasks, and one broadcast.
pub(super) fn services(context: &mut Context) -> (Vec<Desk>, Vec<Cast>) {
    let capacity = context.rng.random_range(1..5);
    let attempts_max = context.rng.random_ratio(1, 3).then(|| context.rng.random_range(2..6));
    let (chan, total) = (context.chan(capacity, false), context.rng.random_range(5..25));
    let desk = Desk::new(chan, capacity, total, attempts_max);
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
        match *service {
            Service::Deliveries(chan, who) => {
                let desk = self.desks.iter_mut().find(|desk| desk.chan == chan && !desk.is_finished());
                let Some(desk) = desk else { return false };
                if end.accept(open, Mode::Demand, desk.capacity()) {
                    desk.add_holder(session_id, end, open.id, who, &mut context.audit);
                }
                true
            }
            Service::Beside { of, asks } => {
                let beside = |desk: &mut Desk| desk.add_service(session_id, of, open.id, asks);
                let found = self.desks.iter_mut().any(beside);
                if found {
                    end.accept(open, Mode::Credit, if asks { ASKS } else { open.capacity });
                }
                found
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
