//! What the peer says of opening, answering and ending channels, and of the session as a whole.

use super::{Control, Entry, State};
use crate::crypto::confirm_matches;
use crate::flow::Violation;
use crate::id::ChannelId;
use crate::limits::ANNOUNCED_MAX;
use crate::session::{Event, close_code};
use crate::wire::{Accept, Announce, Close, Frame, Open, Refuse, RefuseCode};

impl Control {
    /// Handles a frame that concerns the session as a whole (`SESS-5`).
    pub(in crate::session) fn handle(&mut self, frame: Frame) -> Result<Option<Event>, Violation> {
        match frame {
            Frame::Open(open) => self.handle_open(open),
            Frame::Accept(accept) => self.handle_accept(accept),
            Frame::Refuse(refuse) => self.handle_refuse(refuse),
            Frame::Announce(announce) => self.handle_announce(announce),
            Frame::Ping { nonce } => {
                self.outbox.push_back(Frame::Pong { nonce });
                Ok(None)
            }
            Frame::Pong { nonce } => Ok(Some(Event::Pong { nonce })),
            Frame::GoAway { code, reason } => Ok(Some(Event::GoAway { code, reason })),
            _ => Ok(None),
        }
    }

    /// Handles CONFIRM and starts to say where everything stands, in one step: a channel opened in between would be said
    /// twice, and steps the key chain twice.
    pub(in crate::session) fn handle_confirm(&mut self, mac: &[u8; 48]) -> Result<Vec<ChannelId>, Violation> {
        if self.confirmed || !confirm_matches(&self.peer_confirm, mac) {
            return Err(Violation("wrong confirmation"));
        }
        self.confirmed = true;
        Ok(self.begin_resync())
    }

    /// Whether this is the first that the peer says behind its confirmation on this link.
    pub(in crate::session) fn note_acknowledged(&mut self) -> bool {
        !std::mem::replace(&mut self.acknowledged, true)
    }

    /// The newest of a name holds, and one that says nothing new is not told (`SESS-5`).
    fn handle_announce(&mut self, announce: Announce) -> Result<Option<Event>, Violation> {
        let known = self.heard.get(&announce.name);
        if known == Some(&announce) || (known.is_none() && !announce.hosted) {
            return Ok(None);
        }
        if announce.hosted {
            if known.is_none() && self.heard.len() >= ANNOUNCED_MAX {
                return Err(Violation("announces more channels than may be hosted"));
            }
            self.heard.insert(announce.name.clone(), announce.clone());
        } else {
            self.heard.remove(&announce.name);
        }
        Ok(Some(Event::Announced(announce)))
    }

    fn handle_open(&mut self, open: Open) -> Result<Option<Event>, Violation> {
        let id = open.id;
        if id.opener() == self.side {
            return Err(Violation("open with an id of this end"));
        }
        let chain = self.peer_chain.as_mut().ok_or(Violation("open without a link"))?;
        let keys = chain.step(&Frame::Open(open.clone()).to_vec());
        if let Some(entry) = self.channels.get_mut(&id) {
            if entry.open != open {
                return Err(Violation("open repeated with other contents"));
            }
            // Said twice on one link, it changes nothing; on another, its keys are new (`SESS-4`).
            entry.keys.get_or_insert(keys);
            if let State::Live(accept) = &entry.state {
                self.outbox.push_back(Frame::Accept(accept.clone()));
            }
            return Ok(None);
        }
        if id.0 <= self.highest_peer {
            let last = self.graves.get(&id).cloned().unwrap_or_else(|| gone(id));
            self.outbox.push_back(last);
            return Ok(None);
        }
        self.highest_peer = id.0;
        let full = self.channels.len() >= self.limits.channels_max;
        if full || self.offered >= self.limits.offers_pending_max {
            let reason = if full {
                format!(
                    "the session already has {} channels (Limits::channels_max at the other end); close those that are not used",
                    self.limits.channels_max
                )
            } else {
                format!(
                    "{} channels wait for an answer already (Limits::offers_pending_max at the other end); open fewer at once",
                    self.limits.offers_pending_max
                )
            };
            self.bury(id, Frame::Refuse(Refuse { id, code: RefuseCode::LimitReached, reason }));
            let limit = if full { "channels_max" } else { "offers_pending_max" };
            return Ok(Some(Event::Limited { open, limit }));
        }
        self.offered += 1;
        self.channels.insert(id, Entry { open: open.clone(), state: State::Offered, keys: Some(keys) });
        Ok(Some(Event::Incoming(open)))
    }

    fn handle_accept(&mut self, accept: Accept) -> Result<Option<Event>, Violation> {
        let Some(entry) = self.channels.get_mut(&accept.id) else {
            return self.check_known(accept.id).map(|()| None);
        };
        if accept.id.opener() != self.side {
            return Err(Violation("accept of a channel that was not opened here"));
        }
        match entry.state {
            State::Opening => {
                entry.state = State::Live(accept.clone());
                Ok(Some(Event::Opened { open: entry.open.clone(), accept }))
            }
            State::Abandoned | State::Live(_) => Ok(None),
            State::Offered => Err(Violation("accept of an offer")),
        }
    }

    fn handle_refuse(&mut self, refuse: Refuse) -> Result<Option<Event>, Violation> {
        match self.channels.get(&refuse.id).map(|entry| &entry.state) {
            Some(State::Opening) => {
                self.remove(refuse.id);
                Ok(Some(Event::Refused(refuse)))
            }
            Some(State::Abandoned) => {
                self.remove(refuse.id);
                Ok(None)
            }
            Some(_) => Err(Violation("refusal of a channel that is open")),
            None => self.check_known(refuse.id).map(|()| None),
        }
    }

    /// Handles CLOSE or RESET of a channel that has no half here.
    pub(in crate::session) fn handle_close(&mut self, close: &Close) -> Result<Option<Event>, Violation> {
        let id = close.id;
        match self.channels.get(&id).map(|entry| &entry.state) {
            Some(State::Opening) => {
                // Accepted and ended while this end had no link: the other end waits for the last word on it.
                self.remove(id);
                self.bury(id, never_begun(id));
                let (code, reason) = (RefuseCode::NotAvailable, close.reason.clone());
                Ok(Some(Event::Refused(Refuse { id, code, reason })))
            }
            Some(State::Abandoned) => {
                self.remove(id);
                Ok(None)
            }
            Some(State::Offered) => {
                // The opener gave up: the offer is void, and its opener hears that this end knows.
                self.remove(id);
                self.offered -= 1;
                self.bury(id, gone(id));
                Ok(Some(Event::OfferExpired(id)))
            }
            Some(State::Live(_)) | None => self.check_known(id).map(|()| None),
        }
    }

    /// Answers a position of a channel that has no half here: it ended while the peer was away.
    pub(in crate::session) fn handle_lost_pos(&mut self, id: ChannelId) -> Result<(), Violation> {
        self.check_known(id)?;
        if !self.channels.contains_key(&id) {
            let last = self.graves.get(&id).cloned().unwrap_or_else(|| gone(id));
            self.outbox.push_back(last);
        }
        Ok(())
    }

    /// A frame about a channel that is gone is old news; about one that never was, a violation (`SESS-12`).
    pub(in crate::session) fn check_known(&self, id: ChannelId) -> Result<(), Violation> {
        let known = if id.opener() == self.side {
            self.next_id.is_none_or(|next| id < next)
        } else {
            id.0 <= self.highest_peer
        };
        if known { Ok(()) } else { Err(Violation("frame for a channel that was never opened")) }
    }
}

fn never_begun(id: ChannelId) -> Frame {
    let reason = "the channel had ended before its opener heard of it".to_owned();
    Frame::Close(Close { id, final_seq: 0, code: close_code::ABANDONED, reason })
}

fn gone(id: ChannelId) -> Frame {
    let reason = "the channel had come to its end".to_owned();
    Frame::Close(Close { id, final_seq: 0, code: close_code::GONE, reason })
}
