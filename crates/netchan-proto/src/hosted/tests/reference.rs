//! What a hosted channel means, written for clarity and not for speed: vectors, scanned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::hosted::{Item, Withdraw};

/// Both ends of one sender: what the channel leased, and what the sender itself has committed but not yet sent.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) limit: u64,
    pub(super) committed: u64,
    pub(super) pushed: u64,
    pub(super) settled: BTreeSet<u64>,
    pub(super) want: u64,
    /// Committed as far as the channel can know.
    pub(super) firm: u64,
    pub(super) recalled: bool,
    pub(super) suspended: Option<u64>,
    pub(super) gone: bool,
    pub(super) withdraw_asked: bool,
    pub(super) answer: Option<Withdraw>,
}

impl Peer {
    pub(super) fn waits(&self) -> bool {
        self.want > 0 && !self.recalled && self.suspended.is_none() && !self.gone
    }

    pub(super) fn sits_on_credit(&self) -> bool {
        self.want == 0 && !self.recalled && self.limit > self.firm
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.limit - self.settled.len() as u64
    }

    fn prefix(&self) -> u64 {
        (0..).find(|seq| !self.settled.contains(seq)).unwrap_or(0)
    }
}

pub(super) struct Reference {
    pub(super) capacity: u64,
    pub(super) senders: BTreeMap<SenderKey, Peer>,
    pub(super) queue: Vec<Item>,
    pub(super) demand: VecDeque<ReceiverKey>,
    pub(super) held: BTreeMap<ReceiverKey, Vec<Item>>,
    pub(super) admitted: BTreeSet<(SenderKey, u64)>,
    pub(super) taken: BTreeSet<(SenderKey, u64)>,
    pub(super) withdrawn: BTreeSet<(SenderKey, u64)>,
    first_delivery: BTreeMap<SenderKey, u64>,
    /// Tickets of values that were out before.
    came_back: BTreeSet<u64>,
    /// Values that must go out, by receiver, in order.
    pub(super) outgoing: BTreeMap<ReceiverKey, VecDeque<Item>>,
    next_ticket: u64,
    pub(super) closed: bool,
    pub(super) finished: bool,
    /// The greatest overdraft the resumes so far can explain.
    pub(super) overdraft: u64,
    /// What must come out of the channel, except grants and recalls, which have some freedom.
    pub(super) expected: VecDeque<Effect>,
}

impl Reference {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            senders: BTreeMap::new(),
            queue: Vec::new(),
            demand: VecDeque::new(),
            held: BTreeMap::new(),
            admitted: BTreeSet::new(),
            taken: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            first_delivery: BTreeMap::new(),
            came_back: BTreeSet::new(),
            outgoing: BTreeMap::new(),
            next_ticket: 0,
            closed: false,
            finished: false,
            overdraft: 0,
            expected: VecDeque::new(),
        }
    }

    pub(super) fn lent(&self) -> u64 {
        self.senders.values().map(Peer::outstanding).sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.lent())
    }

    pub(super) fn waiting(&self) -> u64 {
        if self.closed { 0 } else { self.senders.values().filter(|peer| peer.waits()).count() as u64 }
    }

    pub(super) fn admit(&mut self, origin: SenderKey, seq: u64) {
        let peer = self.senders.get_mut(&origin).unwrap();
        peer.pushed += 1;
        peer.committed = peer.committed.max(peer.pushed);
        if self.capacity == 0 {
            peer.limit = peer.pushed;
            (peer.withdraw_asked, peer.answer) = (false, None);
        }
        peer.firm = peer.firm.max(peer.pushed);
        assert!(self.admitted.insert((origin, seq)));
        if self.capacity == 0 && self.closed {
            self.withdraw(origin, seq, true);
        } else {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.queue.push(Item {
                ticket,
                origin,
                seq,
                bytes: value(seq),
                redelivered: false,
                attempts: 0,
                settled: false,
                from: (),
                refused_by: None,
            });
        }
    }

    pub(super) fn withdraw(&mut self, origin: SenderKey, seq: u64, tell: bool) {
        let peer = self.senders.get_mut(&origin).unwrap();
        peer.settled.insert(seq);
        peer.answer = Some(Withdraw::Withdrawn);
        assert!(self.withdrawn.insert((origin, seq)));
        if tell && !peer.gone {
            self.expected.push_back(Effect::Withdrawn { to: origin, seq, withdrawn: true });
        }
    }

    pub(super) fn take(&mut self, key: ReceiverKey, n: usize) {
        let items: Vec<Item> = self.held.get_mut(&key).unwrap().drain(..n).collect();
        let mut touched = Vec::new();
        for item in items {
            assert!(self.taken.insert((item.origin, item.seq)), "taken twice");
            assert!(!self.withdrawn.contains(&(item.origin, item.seq)));
            let peer = self.senders.get_mut(&item.origin).unwrap();
            peer.settled.insert(item.seq);
            peer.answer = Some(Withdraw::Taken);
            if peer.gone {
                continue;
            }
            if peer.withdraw_asked {
                self.expected.push_back(Effect::Withdrawn {
                    to: item.origin,
                    seq: item.seq,
                    withdrawn: false,
                });
            }
            if !touched.contains(&item.origin) {
                touched.push(item.origin);
            }
        }
        for sender in touched {
            let peer = &self.senders[&sender];
            let (prefix, count) = (peer.prefix(), peer.settled.len() as u64);
            self.expected.push_back(Effect::Settled { sender, prefix, count });
        }
    }

    /// What comes back; `doubtful` if it may have been received.
    pub(super) fn return_items(&mut self, items: Vec<Item>, doubtful: bool) {
        for mut item in items {
            let peer = &self.senders[&item.origin];
            if self.capacity == 0 && (peer.gone || peer.withdraw_asked || self.closed) {
                self.withdraw(item.origin, item.seq, true);
            } else {
                item.redelivered |= doubtful;
                self.came_back.insert(item.ticket);
                self.queue.push(item);
            }
        }
        self.queue.sort_by_key(|item| item.ticket);
    }

    /// Expects what must follow from the state, after an operation.
    pub(super) fn settle(&mut self) {
        while !self.queue.is_empty() {
            let Some(to) = self.demand.pop_front() else { break };
            let item = self.queue.remove(0);
            if !self.came_back.contains(&item.ticket) {
                let before = self.first_delivery.insert(item.origin, item.seq);
                assert!(before < Some(item.seq), "order of first delivery per sender");
            }
            self.held.get_mut(&to).unwrap().push(item.clone());
            self.outgoing.entry(to).or_default().push_back(item);
        }
        if self.closed && self.lent() == 0 && !self.finished {
            self.finished = true;
            self.expected.push_back(Effect::Finished);
        }
        self.overdraft = self.overdraft.min(self.lent().saturating_sub(self.capacity));
    }

    /// A grant keeps to the share, and takes turns only among those who wait.
    pub(super) fn granted(&mut self, to: SenderKey, limit: u64) {
        let share = (self.free() / self.waiting().max(1)).max(1);
        assert!(self.free() > 0, "a grant without credit");
        let peer = self.senders.get_mut(&to).unwrap();
        assert!(peer.waits() && !self.closed, "a grant to who does not wait");
        assert!(limit > peer.limit && limit - peer.limit <= share, "a grant beyond the share");
        peer.want = peer.want.saturating_sub(limit - peer.limit);
        peer.limit = limit;
    }

    pub(super) fn recalled(&mut self, from: SenderKey) {
        assert!(self.closed || self.free() == 0, "a recall though credit is free");
        let closed = self.closed;
        let peer = self.senders.get_mut(&from).unwrap();
        // At a close, what was kept before may be let go too.
        let firm = if closed { peer.pushed } else { peer.firm };
        assert!(!peer.gone && !peer.recalled && peer.limit > firm, "a recall without reason");
        peer.firm = firm;
        assert!(closed || peer.want == 0, "a recall from who waits");
        peer.recalled = true;
    }

    /// The laws, after every step.
    pub(super) fn check(&self, hosted: &Hosted) {
        assert_eq!((self.lent(), self.free()), (hosted.lent(), hosted.free()));
        assert_eq!((self.queue.len(), self.closed), (hosted.len(), hosted.is_closed()));
        assert_eq!(self.held.values().map(Vec::len).sum::<usize>(), hosted.in_flight());
        assert_eq!(self.demand.len() as u64, hosted.waiting_units());
        let here = self.queue.iter().chain(self.held.values().flatten());
        assert_eq!(here.map(|item| item.bytes.len() as u64).sum::<u64>(), hosted.held_bytes());
        if self.capacity == 0 {
            assert!(self.senders.values().all(|peer| peer.outstanding() <= 1), "two offers of one sender");
            return;
        }
        assert!(self.lent() <= self.capacity + self.overdraft, "the capacity law");
        for (key, peer) in self.senders.iter().filter(|(_, peer)| !peer.gone) {
            assert_eq!(hosted.limit(*key), Some(peer.limit));
        }
        let starving = |peer: &&Peer| peer.waits() && peer.limit == peer.pushed;
        if self.closed || self.senders.values().filter(starving).count() == 0 {
            return;
        }
        assert_eq!(self.free(), 0, "credit is free and a sender without any waits");
        let due = self.senders.values().filter(|peer| peer.recalled && peer.limit > peer.firm).count();
        assert!(due > 0 || !self.senders.values().any(Peer::sits_on_credit), "a hoarder is left alone");
    }
}
