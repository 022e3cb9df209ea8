//! What of a hosted channel would have to survive a restart, told as facts.
//!
//! A fact is one change; [`Durable`] is what they add up to. What a lost link makes void anyway is not told: credit that was
//! lent, demand, who is called back. So a journal underneath has what it needs, and the model test checks after every step
//! that the facts so far add up to what the channel is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Hosted, Item, ReceiverKey, SenderKey};

/// One change of what must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T = ()> {
    /// A sender has come.
    Sender {
        /// Its key.
        key: SenderKey,
    },
    /// A sender has gone; what it sent stays.
    SenderGone {
        /// Its key.
        key: SenderKey,
    },
    /// A value was admitted, into the queue.
    Admitted {
        /// The value.
        item: Item<T>,
    },
    /// A number was used up by an offer that is not here.
    Skipped {
        /// Its sender.
        origin: SenderKey,
        /// The number.
        seq: u64,
    },
    /// A value is on its way to a receiver, behind those that it has.
    Dispatched {
        /// The value.
        ticket: u64,
        /// The receiver.
        to: ReceiverKey,
    },
    /// A holder has taken a value.
    Held {
        /// The value.
        ticket: u64,
        /// The holder.
        by: ReceiverKey,
        /// The number under which it holds the value.
        number: u64,
        /// Its sender knows it taken.
        settled: bool,
    },
    /// A value is in the queue again.
    Back {
        /// The value.
        ticket: u64,
        /// It may have been received.
        redelivered: bool,
        /// How often it was tried in vain.
        attempts: u32,
    },
    /// A value waits to be tried again.
    Delayed {
        /// The value.
        ticket: u64,
        /// How often it was tried in vain.
        attempts: u32,
        /// When it is tried again.
        at: u64,
    },
    /// A dead value found no other place, and is here again.
    Revived {
        /// The value.
        item: Item<T>,
    },
    /// A value is no longer here: taken, acknowledged, withdrawn or dead.
    Gone {
        /// The value.
        ticket: u64,
    },
    /// The channel was closed.
    Closed,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurablePlace {
    /// In the queue.
    Queue,
    /// On its way to a receiver.
    Flight(ReceiverKey),
    /// Held by a receiver that is to acknowledge it, under this number.
    Held(ReceiverKey, u64),
    /// It is tried again then.
    Delayed(u64),
}

/// A value and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableItem<T = ()> {
    /// The value.
    pub item: Item<T>,
    /// Where it is.
    pub place: DurablePlace,
}

/// A sender's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableSender {
    /// How many of its values were admitted.
    pub pushed: u64,
    /// Those that are not settled.
    pub unsettled: BTreeSet<u64>,
    /// It has gone.
    pub gone: bool,
}

/// What of a hosted channel must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable<T = ()> {
    /// The values that are here, by ticket.
    pub items: BTreeMap<u64, DurableItem<T>>,
    /// The senders that have values here, or may send more.
    pub senders: BTreeMap<SenderKey, DurableSender>,
    /// The ticket of the next value.
    pub next_ticket: u64,
    /// It takes no more values.
    pub closed: bool,
}

impl<T> Default for Durable<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), senders: BTreeMap::new(), next_ticket: 0, closed: false }
    }
}

impl<T: Clone> Durable<T> {
    /// Takes one fact into account.
    pub fn fold(&mut self, fact: Fact<T>) {
        match fact {
            Fact::Sender { key } => _ = self.senders.entry(key).or_default(),
            Fact::SenderGone { key } => {
                if let Some(sender) = self.senders.get_mut(&key) {
                    sender.gone = true;
                }
                self.forget(key);
            }
            Fact::Admitted { item } => {
                let sender = self.senders.entry(item.origin).or_default();
                sender.pushed = item.seq + 1;
                sender.unsettled.insert(item.seq);
                self.next_ticket = item.ticket + 1;
                self.items.insert(item.ticket, DurableItem { item, place: DurablePlace::Queue });
            }
            Fact::Skipped { origin, seq } => {
                if let Some(sender) = self.senders.get_mut(&origin) {
                    sender.pushed = seq + 1;
                }
                self.forget(origin);
            }
            Fact::Dispatched { ticket, to } => self.move_to(ticket, DurablePlace::Flight(to)),
            Fact::Held { ticket, by, number, settled } => {
                self.move_to(ticket, DurablePlace::Held(by, number));
                if settled {
                    self.settle(ticket);
                }
            }
            Fact::Back { ticket, redelivered, attempts } => {
                self.move_to(ticket, DurablePlace::Queue);
                if let Some(here) = self.items.get_mut(&ticket) {
                    (here.item.redelivered, here.item.attempts) = (redelivered, attempts);
                }
            }
            Fact::Delayed { ticket, attempts, at } => {
                self.move_to(ticket, DurablePlace::Delayed(at));
                if let Some(here) = self.items.get_mut(&ticket) {
                    (here.item.redelivered, here.item.attempts) = (true, attempts);
                }
            }
            Fact::Revived { item } => {
                self.items.insert(item.ticket, DurableItem { item, place: DurablePlace::Queue });
            }
            Fact::Gone { ticket } => {
                self.settle(ticket);
                self.items.remove(&ticket);
            }
            Fact::Closed => self.closed = true,
        }
    }

    fn move_to(&mut self, ticket: u64, place: DurablePlace) {
        if let Some(here) = self.items.get_mut(&ticket) {
            here.place = place;
        }
    }

    fn settle(&mut self, ticket: u64) {
        let Some(here) = self.items.get_mut(&ticket) else { return };
        let (origin, seq) = (here.item.origin, here.item.seq);
        if !std::mem::replace(&mut here.item.settled, true)
            && let Some(sender) = self.senders.get_mut(&origin)
        {
            sender.unsettled.remove(&seq);
        }
        self.forget(origin);
    }

    fn forget(&mut self, key: SenderKey) {
        if self.senders.get(&key).is_some_and(|sender| sender.gone && sender.unsettled.is_empty()) {
            self.senders.remove(&key);
        }
    }
}

impl<T: Clone> Hosted<T> {
    /// Facts are told from here on; see [`Self::poll_fact`].
    pub fn tell_facts(&mut self) {
        self.facts.get_or_insert_default();
    }

    /// The next change that must survive, in order.
    pub fn poll_fact(&mut self) -> Option<Fact<T>> {
        self.facts.as_mut().and_then(VecDeque::pop_front)
    }

    #[inline]
    pub(super) fn note(&mut self, fact: impl FnOnce() -> Fact<T>) {
        if let Some(facts) = &mut self.facts {
            facts.push_back(fact());
        }
    }

    /// What of the channel must survive.
    #[must_use]
    pub fn durable(&self) -> Durable<T> {
        let mut items = BTreeMap::new();
        let mut add = |item: &Item<T>, place| {
            // Who refused it last is forgotten with the receivers.
            let item = Item { refused_by: None, ..item.clone() };
            items.insert(item.ticket, DurableItem { item, place });
        };
        self.queue.iter().for_each(|item| add(item, DurablePlace::Queue));
        self.delayed.iter().for_each(|((at, _), (_, item))| add(item, DurablePlace::Delayed(*at)));
        for (key, receiver) in &self.receivers.map {
            receiver.in_flight.iter().flatten().for_each(|item| add(item, DurablePlace::Flight(*key)));
            for (number, item) in receiver.held.iter().flat_map(super::held::Held::iter) {
                add(item, DurablePlace::Held(*key, number));
            }
        }
        let senders = self.senders.progress().map(|(key, pushed, progress, gone)| {
            let settled: BTreeSet<_> = progress.ahead().collect();
            let unsettled = (progress.prefix()..pushed).filter(|seq| !settled.contains(seq)).collect();
            (key, DurableSender { pushed, unsettled, gone })
        });
        Durable {
            items,
            senders: senders.collect(),
            next_ticket: self.queue.next_ticket(),
            closed: self.is_closed(),
        }
    }

    /// A channel of this capacity as it was, without receivers: what was on its way, or held, is with nobody now. It goes back to
    /// the queue, since it may have been received.
    #[must_use]
    pub fn restore(capacity: u64, durable: Durable<T>) -> Self {
        let mut hosted = Self::new(capacity);
        for (key, sender) in durable.senders {
            let settled = (0..sender.pushed).filter(|seq| !sender.unsettled.contains(seq));
            hosted.senders.restore(key, sender.pushed, settled, sender.gone);
        }
        hosted.queue.start_at(durable.next_ticket);
        for (_, DurableItem { mut item, place }) in durable.items {
            hosted.held_bytes += item.bytes.len() as u64;
            match place {
                DurablePlace::Delayed(at) => {
                    hosted.delayed.insert((at, item.ticket), (ReceiverKey(u64::MAX), item));
                }
                place => {
                    item.redelivered |= place != DurablePlace::Queue;
                    hosted.queue.put_back(item);
                }
            }
        }
        if durable.closed {
            hosted.close();
        }
        hosted
    }
}
