//! Opening, answering and ending channels, and everything else that is said about the session as a whole.
//!
//! Invariants: an id is used once; every channel this end opened is in `channels` until both ends have closed it; what
//! must survive a cut is state here or in a half, never only a queued frame.

mod peer;

use std::collections::{BTreeMap, VecDeque};

use super::announced::Announced;
use super::close_code;
use crate::crypto::{Chain, ChannelKeys, LinkKeys, TrafficSecret};
use crate::id::{ChannelId, Direction, Side};
use crate::limits::{CHANNELS_MAX_DEFAULT, OFFERS_PENDING_MAX_DEFAULT, RECORD_PLAINTEXT_BYTES_MAX};
use crate::planted::{self, Mutant};
use crate::wire::{Accept, Announce, Close, Frame, Open, OpenFlow, Pos, Purpose, Refuse, RefuseCode};

/// No single control frame is longer than this: name, label and codec with their lengths, and the integers.
const FRAME_BYTES_MAX: usize = 4_096;

/// Ends of finished channels that are remembered for a peer whose link broke before it heard of them (`SESS-10`).
const GRAVES_MAX: usize = 1_024;

/// Bounds on what the peer may have open here (`SESS-7`).
#[derive(Clone, Copy, Debug)]
pub struct ControlLimits {
    /// Channels of the session, by both ends.
    pub channels_max: usize,
    /// Channels the peer opened that this end has not answered.
    pub offers_pending_max: usize,
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self { channels_max: CHANNELS_MAX_DEFAULT, offers_pending_max: OFFERS_PENDING_MAX_DEFAULT }
    }
}

/// What an OPEN says.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The channel's name.
    pub name: String,
    /// The label of the type of its values.
    pub label: String,
    /// Their codec.
    pub codec: String,
    /// A structural fingerprint of the type, where there is one.
    pub fingerprint: Option<[u8; 16]>,
    /// Which way values travel.
    pub flow: OpenFlow,
    /// What the channel is for.
    pub purpose: Purpose,
    /// The capacity wanted, when this end receives.
    pub capacity: u64,
    /// The byte window granted, when this end receives.
    pub limit_bytes: u64,
}

/// Why a channel cannot be opened here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session has as many channels as it may have.
    #[error("the session already has {0} channels")]
    TooMany(usize),
    /// Every id has been used.
    #[error("the session has used every channel id")]
    IdsExhausted,
}

#[derive(Debug)]
enum State {
    /// Opened here, not answered.
    Opening,
    /// Opened here, given up before it was answered.
    Abandoned,
    /// Opened by the peer, not answered.
    Offered,
    /// Both ends have it.
    Live(Accept),
}

#[derive(Debug)]
struct Entry {
    open: Open,
    state: State,
    keys: Option<ChannelKeys>,
}

/// The control object of a session.
#[derive(Debug)]
pub struct Control {
    side: Side,
    limits: ControlLimits,
    next_id: Option<ChannelId>,
    highest_peer: u32,
    channels: BTreeMap<ChannelId, Entry>,
    offered: usize,
    graves: BTreeMap<ChannelId, Frame>,
    /// In the order in which they were dug; the oldest is the first to go.
    grave_order: VecDeque<ChannelId>,
    /// Forgotten channels whose keys the write half and the read half still hold.
    stale_sealing: Vec<ChannelId>,
    stale_opening: Vec<ChannelId>,
    outbox: VecDeque<Frame>,
    own_chain: Option<Chain>,
    peer_chain: Option<Chain>,
    own_confirm: Option<[u8; 48]>,
    peer_confirm: [u8; 48],
    confirmed: bool,
    /// The peer has said something behind its confirmation on this link.
    acknowledged: bool,
    /// What this end hosts for the peer, by name, and what it does not any more.
    announced: Announced,
    /// What the peer hosts for this end, as it last said.
    heard: BTreeMap<String, Announce>,
    /// This end's farewell, said again on a link that takes the place of the one it was said on.
    farewell: Option<(u16, String)>,
    /// Frames at the head of the queue that say where everything stands, and answer nothing.
    resync_left: usize,
}

impl Control {
    /// The control object of a new session, without a link.
    #[must_use]
    pub fn new(side: Side, limits: ControlLimits) -> Self {
        Self {
            side,
            limits,
            next_id: Some(ChannelId::first(side)),
            highest_peer: 0,
            channels: BTreeMap::new(),
            offered: 0,
            graves: BTreeMap::new(),
            grave_order: VecDeque::new(),
            stale_sealing: Vec::new(),
            stale_opening: Vec::new(),
            outbox: VecDeque::new(),
            own_chain: None,
            peer_chain: None,
            own_confirm: None,
            peer_confirm: [0; 48],
            confirmed: false,
            acknowledged: false,
            announced: Announced::default(),
            heard: BTreeMap::new(),
            farewell: None,
            resync_left: 0,
        }
    }

    /// This end.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Starts on a new link with its keys; the first frame is CONFIRM (`SESS-2`).
    pub fn attach(&mut self, keys: LinkControlKeys) {
        self.detach();
        self.own_chain = Some(keys.own_chain);
        self.peer_chain = Some(keys.peer_chain);
        self.own_confirm = Some(keys.own_confirm);
        self.peer_confirm = keys.peer_confirm;
    }

    /// As [`Control::attach`] and CONFIRM in one, on a link whose peer has confirmed already (`SESS-16`).
    pub(in crate::session) fn attach_confirmed(&mut self, keys: LinkControlKeys) -> Vec<ChannelId> {
        self.attach(keys);
        self.confirmed = true;
        self.begin_resync()
    }

    /// The link is gone: what was queued is said again from state on the next one.
    pub fn detach(&mut self) {
        if !planted::is(Mutant::FramesSurviveCut) {
            self.outbox.clear();
        }
        self.resync_left = 0;
        self.own_confirm = None;
        self.confirmed = false;
        self.acknowledged = false;
        self.stale_sealing.clear();
        self.stale_opening.clear();
        self.channels.values_mut().for_each(|entry| entry.keys = None);
    }

    /// Whether both ends have proven that they hold the same keys.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether frames wait to be written.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.own_confirm.is_some() || (self.confirmed && !self.outbox.is_empty())
    }

    /// Channels that exist, at whatever stage.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`OpenError`] when this end has no room for another.
    pub fn open(&mut self, request: OpenRequest) -> Result<ChannelId, OpenError> {
        if self.channels.len() >= self.limits.channels_max {
            return Err(OpenError::TooMany(self.limits.channels_max));
        }
        let id = self.next_id.ok_or(OpenError::IdsExhausted)?;
        self.next_id = id.next();
        let OpenRequest { name, label, codec, fingerprint, flow, purpose, capacity, limit_bytes } = request;
        let open = Open { id, name, label, codec, fingerprint, flow, purpose, capacity, limit_bytes };
        self.push_if_confirmed(Frame::Open(open.clone()));
        self.channels.insert(id, Entry { open, state: State::Opening, keys: None });
        Ok(id)
    }

    /// Accepts a channel the peer opened. False when it is not waiting for an answer.
    pub fn accept(&mut self, accept: Accept) -> bool {
        let Some(entry) = self.channels.get_mut(&accept.id) else { return false };
        if !matches!(entry.state, State::Offered) {
            return false;
        }
        entry.state = State::Live(accept.clone());
        self.offered -= 1;
        self.push_if_confirmed(Frame::Accept(accept));
        true
    }

    /// Refuses a channel the peer opened (`SESS-6`). False when it is not waiting for an answer.
    pub fn refuse(&mut self, id: ChannelId, code: RefuseCode, reason: String) -> bool {
        if !self.channels.get(&id).is_some_and(|entry| matches!(entry.state, State::Offered)) {
            return false;
        }
        self.remove(id);
        self.offered -= 1;
        self.bury(id, Frame::Refuse(Refuse { id, code, reason }));
        true
    }

    /// Gives up a channel opened here (`SESS-6`). False when it has been answered already.
    pub fn abandon(&mut self, id: ChannelId) -> bool {
        let Some(entry) = self.channels.get_mut(&id) else { return false };
        if !matches!(entry.state, State::Opening) {
            return false;
        }
        entry.state = State::Abandoned;
        self.push_if_confirmed(Self::abandonment(id));
        true
    }

    fn abandonment(id: ChannelId) -> Frame {
        let reason = "the opener gave up waiting".to_owned();
        Frame::Reset(Close { id, final_seq: 0, code: close_code::ABANDONED, reason })
    }

    /// Forgets a channel that both ends have closed; `last` is remembered for a peer that may not have heard it.
    pub(in crate::session) fn forget(&mut self, id: ChannelId, last: Close) {
        if self.remove(id) {
            self.remember(id, Frame::Close(last));
        }
    }

    /// Takes a channel out; the halves of the link erase what keys they have of it, answered or not.
    fn remove(&mut self, id: ChannelId) -> bool {
        let removed = self.channels.remove(&id).is_some();
        if removed {
            self.stale_sealing.push(id);
            self.stale_opening.push(id);
        }
        removed
    }

    /// Forgotten channels whose sealing keys are to be erased.
    pub(in crate::session) fn take_stale_sealing(&mut self) -> Vec<ChannelId> {
        std::mem::take(&mut self.stale_sealing)
    }

    /// Forgotten channels whose opening keys are to be erased.
    pub(in crate::session) fn take_stale_opening(&mut self) -> Vec<ChannelId> {
        std::mem::take(&mut self.stale_opening)
    }

    /// Announces a hosted channel, or that it is hosted no longer. Said again on each new link (`SESS-5`).
    pub fn announce(&mut self, announce: Announce) {
        if self.announced.note(announce.clone()) {
            self.push_if_confirmed(Frame::Announce(announce));
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self, nonce: u64) {
        self.push_if_confirmed(Frame::Ping { nonce });
    }

    /// Ends the session (`SESS-11`).
    pub fn go_away(&mut self, code: u16, reason: String) {
        self.push_if_confirmed(Frame::GoAway { code, reason: reason.clone() });
        self.farewell = Some((code, reason));
    }

    /// Queues a frame about a channel, such as its position.
    pub(in crate::session) fn push(&mut self, frame: Frame) {
        self.outbox.push_back(frame);
    }

    fn push_if_confirmed(&mut self, frame: Frame) {
        // Before CONFIRM the state is enough: `begin_resync` says all of it.
        if self.confirmed {
            self.outbox.push_back(frame);
        }
    }

    fn bury(&mut self, id: ChannelId, frame: Frame) {
        self.push_if_confirmed(frame.clone());
        self.remember(id, frame);
    }

    fn remember(&mut self, id: ChannelId, frame: Frame) {
        self.graves.insert(id, frame);
        self.grave_order.push_back(id);
        if self.grave_order.len() > GRAVES_MAX
            && let Some(oldest) = self.grave_order.pop_front()
        {
            self.graves.remove(&oldest);
        }
    }

    /// After CONFIRM: queues OPEN for every channel this end opened, in order of id, and returns every live channel, whose
    /// position follows (`SESS-8`).
    ///
    /// A channel that was not answered has a position too, its beginning: the answer may have been lost with the last
    /// link, and then the other end's half waits for it.
    fn begin_resync(&mut self) -> Vec<ChannelId> {
        let mut live = Vec::new();
        self.outbox.extend(self.announced.iter().cloned().map(Frame::Announce));
        for (id, entry) in &self.channels {
            if id.opener() == self.side {
                self.outbox.push_back(Frame::Open(entry.open.clone()));
            }
            match entry.state {
                State::Live(_) => live.push(*id),
                State::Opening => self.outbox.push_back(Frame::Pos(Pos::start(*id))),
                State::Abandoned => {
                    self.outbox.push_back(Frame::Pos(Pos::start(*id)));
                    self.outbox.push_back(Self::abandonment(*id));
                }
                State::Offered => {}
            }
        }
        live
    }

    /// What comes behind everything else that is said on a new link.
    pub(in crate::session) fn end_resync(&mut self) {
        self.outbox.extend(self.farewell.clone().map(|(code, reason)| Frame::GoAway { code, reason }));
        self.resync_left = self.outbox.len();
    }

    /// Writes queued frames, as many as fit one record. An OPEN steps this end's key chain here, in the order in which it
    /// is sealed (`KEY-8`).
    pub fn poll_output(&mut self, out: &mut Vec<u8>) {
        if let Some(mac) = self.own_confirm.take() {
            Frame::Confirm { mac }.write(out);
        }
        if !self.confirmed {
            return;
        }
        while out.len() < RECORD_PLAINTEXT_BYTES_MAX - FRAME_BYTES_MAX {
            let Some(frame) = self.outbox.pop_front() else { break };
            self.resync_left = self.resync_left.saturating_sub(1);
            let start = out.len();
            frame.write(out);
            if let (Frame::Open(open), Some(chain)) = (&frame, &mut self.own_chain) {
                let keys = chain.step(&out[start..]);
                if let Some(entry) = self.channels.get_mut(&open.id) {
                    entry.keys = Some(keys);
                }
            }
        }
    }

    /// The secret under which this end seals data of `id`, if it sends there and both ends have the channel.
    #[must_use]
    pub fn sealing_secret(&self, id: ChannelId) -> Option<TrafficSecret> {
        let live = self.channels.get(&id).is_some_and(|entry| matches!(entry.state, State::Live(_)));
        if live { self.secret(id, self.side) } else { None }
    }

    /// The secret under which the peer seals data of `id`, if it sends there.
    #[must_use]
    pub fn opening_secret(&self, id: ChannelId) -> Option<TrafficSecret> {
        self.secret(id, self.side.peer())
    }

    fn secret(&self, id: ChannelId, sender: Side) -> Option<TrafficSecret> {
        let entry = self.channels.get(&id)?;
        let opener_sends = entry.open.flow == OpenFlow::OpenerSends;
        let sends = (id.opener() == sender) == opener_sends;
        entry.keys.as_ref().filter(|_| sends).map(|keys| keys.secret(Direction::from(sender)))
    }

    /// Frames that wait because the link does not take them, but for those that say where everything stands: the peer has
    /// not asked for them.
    #[must_use]
    pub fn backlog_frames(&self) -> usize {
        self.outbox.len().saturating_sub(self.resync_left)
    }

    /// Whether an offer still waits for its answer.
    #[must_use]
    pub fn is_offered(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|entry| matches!(entry.state, State::Offered))
    }
}

/// The part of a link's keys that the control object needs.
#[derive(Debug)]
pub struct LinkControlKeys {
    own_chain: Chain,
    peer_chain: Chain,
    own_confirm: [u8; 48],
    peer_confirm: [u8; 48],
}

impl LinkControlKeys {
    /// What the peer's CONFIRM must say.
    #[must_use]
    pub const fn peer_confirm(&self) -> &[u8; 48] {
        &self.peer_confirm
    }

    /// Splits a link's keys: the rest goes to the halves of the link.
    #[must_use]
    pub fn split(keys: LinkKeys) -> (Self, crate::crypto::Sealer, crate::crypto::Opener) {
        let LinkKeys { sealer, opener, own_confirm, peer_confirm, own_chain, peer_chain, .. } = keys;
        (Self { own_chain, peer_chain, own_confirm, peer_confirm }, sealer, opener)
    }
}
