//! What a client opens.

use netchan_proto::wire::OpenFlow;
use rand::Rng;

use super::Client;
use crate::context::Context;
use crate::programs::{RecvProgram, SendProgram};
use crate::services::{HolderProgram, SubscriberProgram};

impl Client {
    /// Opens a channel now and then: with capacity 0 or more, either way, direct or hosted; some that are refused, some that
    /// nobody answers.
    pub(super) fn open_channels(&mut self, context: &mut Context, hubs: &[(u32, u64)]) {
        let most = if self.generation == 0 { 5 } else { 2 };
        if context.calm || self.opened >= most || !context.rng.random_ratio(1, 8) {
            return;
        }
        self.opened += 1;
        if context.services && context.rng.random_bool(0.6) {
            return self.open_service(context);
        }
        let (long, name) = (context.weather.long_values, self.name());
        let total = context.rng.random_range(1..12);
        match context.rng.random_range(0..12) {
            0..3 => {
                let capacity = *pick(context, &[0, 1, 2, 5]);
                let chan = context.chan(capacity, true);
                let id = self.end.open(&direct(chan, capacity, 0), OpenFlow::OpenerSends, capacity, 0);
                let patient = context.rng.random_bool(0.5);
                self.senders.push(SendProgram::new(chan, name, id, total, long, patient));
            }
            3..5 => {
                let capacity = *pick(context, &[0, 1, 3]);
                let chan = context.chan(capacity, true);
                let id = self.end.open(&direct(chan, capacity, total), OpenFlow::OpenerReceives, capacity, 0);
                let stop_after = context.rng.random_ratio(1, 5).then(|| context.rng.random_range(0..4));
                self.receivers.push(RecvProgram::new(chan, name, id, stop_after));
            }
            5..8 if !hubs.is_empty() => {
                let (chan, _) = *pick(context, hubs);
                // Several senders of one session are several senders.
                let sender = name * 10 + self.opened;
                let id = self.end.open(&format!("h:{chan}:{sender}"), OpenFlow::OpenerSends, 0, 0);
                let patient = context.rng.random_bool(0.5);
                let mut program = SendProgram::new(chan, sender, id, total, long, patient);
                program.lingers = context.rng.random_ratio(1, 3);
                self.senders.push(program);
            }
            8..11 if !hubs.is_empty() => {
                let (chan, _) = *pick(context, hubs);
                let prefetch = *pick(context, &[0, 0, 2]);
                let who = name * 10 + self.opened;
                // Some take values that they have not asked for.
                let ahead = u64::from(context.rng.random_bool(0.7));
                let id = self.end.open(&format!("h:{chan}:{who}"), OpenFlow::OpenerReceives, ahead, prefetch);
                let stop_after = context.rng.random_ratio(1, 4).then(|| context.rng.random_range(0..4));
                self.receivers.push(RecvProgram::new(chan, who, id, stop_after));
            }
            _ => {
                let nobody = context.rng.random_bool(0.5);
                let id = self.end.open(
                    if nobody { "nobody answers" } else { "refused" },
                    OpenFlow::OpenerSends,
                    0,
                    0,
                );
                if nobody {
                    self.abandons.push(id);
                }
            }
        }
    }

    fn open_service(&mut self, context: &mut Context) {
        let who = self.name() * 10 + self.opened;
        let stop_after = context.rng.random_ratio(1, 4).then(|| context.rng.random_range(0..8));
        if context.rng.random_bool(0.5) {
            let Some(chan) = context.desks.first().copied() else { return };
            let prefetch = *pick(context, &[0, 0, 2]);
            let ahead = context.rng.random_bool(0.7);
            self.holders.push(HolderProgram::open(&self.end, chan, who, ahead, prefetch, stop_after));
        } else {
            let Some(chan) = context.casts.first().copied() else { return };
            let capacity = *pick(context, &[1, 2, 4]);
            self.subscribers.push(SubscriberProgram::open(&self.end, chan, who, capacity, stop_after));
        }
    }
}

fn pick<'a, T>(context: &mut Context, from: &'a [T]) -> &'a T {
    &from[context.rng.random_range(0..from.len())]
}

/// The name of a direct channel: its number, its capacity, and how much the acceptor is to send.
#[must_use]
pub fn direct(chan: u32, capacity: u64, total: u64) -> String {
    format!("d:{chan}:{capacity}:{total}")
}

/// Number and capacity.
#[must_use]
pub fn parse_direct(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("d:")?.split(':');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
