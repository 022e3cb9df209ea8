//! What stands around the objects of a session: halves in maps, a queue of those that have something to write, events.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use netchan_proto::channel::{CloseReason, RecvHalf, RecvOptions, SendHalf, SendOptions};
use netchan_proto::flow::{Urgency, WindowKind};
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::limits::{BACKLOG_FRAMES_MAX, RECORD_BYTES_MAX};
use netchan_proto::session::{Control, ControlLimits, Event, Host, LinkControlKeys, OpenRequest};
use netchan_proto::wire::{Accept, Mode, Open, OpenFlow, Purpose, RefuseCode};

use crate::script::Script;

const WINDOW_BYTES: u64 = 4_000;
const MESSAGE_BYTES_MAX: usize = 2_000;

/// So few that a run meets them.
const LIMITS: ControlLimits = ControlLimits { channels_max: 8, offers_pending_max: 4 };

/// The honest end.
pub(super) struct Shell {
    control: RefCell<Control>,
    senders: RefCell<BTreeMap<ChannelId, SendHalf>>,
    receivers: RefCell<BTreeMap<ChannelId, RecvHalf>>,
    ready: RefCell<(VecDeque<ChannelId>, BTreeSet<ChannelId>)>,
    events: RefCell<Vec<Event>>,
    offers: RefCell<VecDeque<Open>>,
}

impl Shell {
    pub(super) fn new() -> Self {
        Self {
            control: RefCell::new(Control::new(Side::Server, LIMITS)),
            senders: RefCell::default(),
            receivers: RefCell::default(),
            ready: RefCell::default(),
            events: RefCell::default(),
            offers: RefCell::default(),
        }
    }

    pub(super) fn attach(&self, keys: LinkControlKeys) {
        self.control.borrow_mut().attach(keys);
    }

    pub(super) fn detach(&self) {
        self.control.borrow_mut().detach();
        self.senders.borrow_mut().values_mut().for_each(SendHalf::detach);
        self.receivers.borrow_mut().values_mut().for_each(RecvHalf::detach);
    }

    /// The number of the next value that is due on a channel.
    pub(super) fn received(&self, id: ChannelId) -> u64 {
        self.receivers.borrow().get(&id).map_or(0, RecvHalf::received)
    }

    /// What is kept for the peer, and because of it, is bounded.
    pub(super) fn check(&self) {
        let control = self.control.borrow();
        assert!(control.channel_count() <= LIMITS.channels_max + 1, "more channels than there may be");
        assert!(control.backlog_frames() <= BACKLOG_FRAMES_MAX, "answers without end");
        let halves = self.senders.borrow().len() + self.receivers.borrow().len();
        assert!(halves <= LIMITS.channels_max, "{halves} halves");
        for half in self.senders.borrow().values() {
            // `FLOW-9`: whatever the peer grants.
            let kept = half.retained_bytes();
            assert!(
                kept as u64 <= WINDOW_BYTES + RECORD_BYTES_MAX as u64,
                "{kept} bytes are kept for the peer"
            );
        }
        for half in self.receivers.borrow().values() {
            assert!(half.taken() <= half.received() && half.ready() <= half.received() - half.taken());
        }
        assert!(self.offers.borrow().len() <= LIMITS.offers_pending_max, "offers without end");
    }

    /// Every half with something to say is ready.
    pub(super) fn mark_ready(&self) {
        for (id, half) in &*self.senders.borrow() {
            if half.has_output() {
                self.set_ready(*id);
            }
        }
        for (id, half) in &*self.receivers.borrow() {
            if half.urgency() > Urgency::None {
                self.set_ready(*id);
            }
        }
    }

    /// Answers whatever asks for an answer.
    pub(super) fn settle_events(&self) {
        for event in self.events.take() {
            match event {
                Event::Incoming(open) => self.offers.borrow_mut().push_back(open),
                Event::OfferExpired(id) => self.offers.borrow_mut().retain(|open| open.id != id),
                Event::RewindAsked { id, limit } => self.send(id, |half| {
                    half.for_each_unsettled(|value| {
                        assert!(value.seq >= limit, "what was taken stays taken")
                    });
                    _ = half.rewind(limit);
                }),
                Event::WithdrawAsked { id, seq } => {
                    self.recv(id, |half| half.answer_withdraw(seq, seq % 2 == 0));
                }
                Event::RecallDeferred(id) => self.send(id, SendHalf::answer_recall),
                _ => {}
            }
        }
    }

    /// What the program at this end does.
    pub(super) fn act(&self, action: u8, script: &mut Script<'_>) {
        match action {
            0 => self.answer_offer(script),
            1 => self.open(script),
            2 => {
                let (id, len) = (self.some_sender(script), script.place(300));
                self.send(id, |half| _ = half.push(|item| item.extend(&vec![3; len])));
            }
            3 => self.act_on_receiver(script),
            4 => self.act_on_sender(script),
            _ => {
                let id = crate::peer::id(script);
                _ = self.control.borrow_mut().abandon(id);
            }
        }
        self.settle_events();
    }

    fn answer_offer(&self, script: &mut Script<'_>) {
        let Some(open) = self.offers.borrow_mut().pop_front() else { return };
        if !self.control.borrow().is_offered(open.id) {
            return;
        }
        if script.one_of(8) == 0 {
            self.control.borrow_mut().refuse(open.id, RefuseCode::Denied, String::new());
            return;
        }
        let receives = open.flow == OpenFlow::OpenerSends;
        let (mode, capacity) = match crate::peer::mode(script) {
            // Those that a shell would not choose for this direction.
            (Mode::Demand | Mode::Cast, capacity) if receives => (Mode::Lease, capacity),
            (Mode::Lease, capacity) if !receives => (Mode::Demand, capacity),
            chosen => chosen,
        };
        let limit_bytes = if receives { WINDOW_BYTES } else { 0 };
        let accept = Accept { id: open.id, mode, capacity, limit_bytes };
        self.make_half(&open, &accept, receives);
        assert!(self.control.borrow_mut().accept(accept), "it is offered");
        self.set_ready(open.id);
    }

    fn open(&self, script: &mut Script<'_>) {
        let receives = script.flag();
        let request = OpenRequest {
            name: "y".to_owned(),
            label: "bytes".to_owned(),
            codec: "raw".to_owned(),
            fingerprint: None,
            flow: if receives { OpenFlow::OpenerReceives } else { OpenFlow::OpenerSends },
            purpose: Purpose::Values,
            capacity: if receives { 4 } else { 0 },
            limit_bytes: if receives { WINDOW_BYTES } else { 0 },
        };
        // It may have as many as it may have.
        _ = self.control.borrow_mut().open(request);
    }

    fn act_on_receiver(&self, script: &mut Script<'_>) {
        let id = crate::peer::id(script);
        let (action, number) = (script.one_of(10), u64::from(script.byte()));
        self.recv(id, |half| match action {
            0..=2 => drop(half.take().map(|payload| payload.as_slice().len())),
            3 => drop(half.hand_over()),
            4 => half.settle(half.received()),
            5 => half.set_waiting(number),
            6 => half.give_back(),
            7 => half.lease(half.received() + number),
            8 => half.recall_lease(),
            _ => half.stop(CloseReason::plain()),
        });
    }

    fn act_on_sender(&self, script: &mut Script<'_>) {
        let id = self.some_sender(script);
        let (action, number) = (script.one_of(7), u64::from(script.byte()));
        self.send(id, |half| match action {
            0 => half.want(number),
            1 => half.request_report(),
            2 => drop(half.withdraw(half.committed().saturating_sub(1))),
            3 => _ = half.reserve().then(|| half.release()),
            4 => half.close(CloseReason::plain()),
            5 => half.reset(CloseReason::plain()),
            _ => _ = half.park(),
        });
    }

    fn some_sender(&self, script: &mut Script<'_>) -> ChannelId {
        let senders = self.senders.borrow();
        let nth = usize::from(script.byte()) % senders.len().max(1);
        senders.keys().nth(nth).copied().unwrap_or(ChannelId(1))
    }

    fn make_half(&self, open: &Open, accept: &Accept, receives: bool) {
        let Accept { id, mode, capacity, .. } = *accept;
        if receives {
            let kind = match mode {
                Mode::Credit | Mode::Cast => WindowKind::Fixed { capacity },
                Mode::Rendezvous => WindowKind::Rendezvous,
                Mode::Lease => WindowKind::Lease,
                Mode::Demand => WindowKind::Demand { prefetch: 0, ahead: 0 },
            };
            let options = RecvOptions {
                kind,
                window_bytes: WINDOW_BYTES,
                window_bytes_max: 2 * WINDOW_BYTES,
                message_bytes_max: MESSAGE_BYTES_MAX,
            };
            let before = self.receivers.borrow_mut().insert(id, RecvHalf::new(id, &options));
            assert!(before.is_none(), "{id} twice");
        } else {
            let by_open = open.flow == OpenFlow::OpenerReceives;
            let limit_bytes = if by_open { open.limit_bytes } else { accept.limit_bytes };
            let options = SendOptions { mode, capacity, limit_bytes, message_bytes_max: MESSAGE_BYTES_MAX };
            let mut half = SendHalf::new(id, &options);
            half.bound(WINDOW_BYTES);
            let before = self.senders.borrow_mut().insert(id, half);
            assert!(before.is_none(), "{id} twice");
        }
    }

    fn send(&self, id: ChannelId, act: impl FnOnce(&mut SendHalf)) {
        if let Some(half) = self.senders.borrow_mut().get_mut(&id) {
            act(half);
            self.set_ready(id);
        }
    }

    fn recv(&self, id: ChannelId, act: impl FnOnce(&mut RecvHalf)) {
        if let Some(half) = self.receivers.borrow_mut().get_mut(&id) {
            act(half);
            self.set_ready(id);
        }
    }
}

impl Host for Shell {
    fn with_control<R>(&self, f: impl FnOnce(&mut Control) -> R) -> R {
        f(&mut self.control.borrow_mut())
    }

    fn with_send<R>(&self, id: ChannelId, f: impl FnOnce(&mut SendHalf) -> R) -> Option<R> {
        self.senders.borrow_mut().get_mut(&id).map(f)
    }

    fn with_recv<R>(&self, id: ChannelId, f: impl FnOnce(&mut RecvHalf) -> R) -> Option<R> {
        self.receivers.borrow_mut().get_mut(&id).map(f)
    }

    fn next_ready(&self) -> Option<ChannelId> {
        let mut ready = self.ready.borrow_mut();
        let id = ready.0.pop_front()?;
        ready.1.remove(&id);
        Some(id)
    }

    fn set_ready(&self, id: ChannelId) {
        let mut ready = self.ready.borrow_mut();
        if ready.1.insert(id) {
            ready.0.push_back(id);
        }
    }

    fn event(&self, event: Event) {
        match &event {
            // It must be there before this returns.
            Event::Opened { open, accept } => {
                self.make_half(open, accept, open.flow == OpenFlow::OpenerReceives);
            }
            Event::Finished(id) => {
                self.senders.borrow_mut().remove(id);
                self.receivers.borrow_mut().remove(id);
            }
            _ => {}
        }
        self.events.borrow_mut().push(event);
    }
}
