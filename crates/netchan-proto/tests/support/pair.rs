//! Two endpoints under virtual time, joined by a link that can be cut and replaced.

use std::collections::VecDeque;

use netchan_proto::crypto::LinkKeys;
use netchan_proto::id::Side;
use netchan_proto::session::{ControlLimits, Fault, LinkControlKeys, ReadHalf, WriteHalf};
use rand::Rng;
use rand::rngs::StdRng;

use super::endpoint::Endpoint;

/// How the bytes of the link arrive.
pub enum Slices<'a> {
    Whole,
    Single,
    Random(&'a mut StdRng),
}

struct Link {
    write: WriteHalf,
    read: ReadHalf,
}

/// One end, its halves of the link, and the bytes on their way to it.
pub struct Node {
    pub end: Endpoint,
    link: Option<Link>,
    pub inbox: VecDeque<u8>,
    /// Bytes delivered to this end, over all links.
    pub delivered: u64,
    /// The link is cut when this many bytes have been delivered to this end.
    pub cut_at: Option<u64>,
}

/// Both ends.
pub struct Pair {
    pub client: Node,
    pub server: Node,
    pub now_millis: u64,
    pub links: u32,
    seed: Vec<u8>,
}

impl Node {
    fn new(side: Side, limits: ControlLimits) -> Self {
        let end = Endpoint::with_limits(side, limits);
        Self { end, link: None, inbox: VecDeque::new(), delivered: 0, cut_at: None }
    }

    fn attach(&mut self, keys: LinkKeys) {
        let (control, sealer, opener) = LinkControlKeys::split(keys);
        self.end.control.borrow_mut().attach(control);
        self.link = Some(Link { write: WriteHalf::new(sealer), read: ReadHalf::new(opener, &[]) });
    }

    /// Seals what is ready and lets the link take it.
    fn write(&mut self, now_millis: u64, out: &mut VecDeque<u8>) {
        let Some(link) = &mut self.link else { return };
        self.end.mark_ready();
        for turn in 0.. {
            assert!(turn < 10_000, "fill never comes to an end");
            link.write.fill(&self.end, now_millis).expect("the link seals");
            let len = link.write.output().len();
            if len == 0 {
                break;
            }
            out.extend(link.write.output());
            link.write.consume(len);
        }
        if now_millis.is_multiple_of(8) {
            link.write.idle();
            link.read.idle();
        }
    }

    /// Delivers what is on its way. Says whether the link is to be cut.
    fn read(&mut self, slices: &mut Slices<'_>) -> Result<bool, Fault> {
        let Some(link) = &mut self.link else { return Ok(false) };
        loop {
            if self.cut_at.is_some_and(|cut_at| self.delivered >= cut_at) {
                self.cut_at = None;
                return Ok(true);
            }
            if self.inbox.is_empty() {
                return Ok(false);
            }
            let space = link.read.space();
            assert!(!space.is_empty(), "nowhere to read into");
            let left = self.cut_at.map_or(usize::MAX, |cut_at| (cut_at - self.delivered) as usize);
            let most = space.len().min(self.inbox.len()).min(left);
            let len = match slices {
                Slices::Whole => most,
                Slices::Single => 1,
                Slices::Random(rng) => rng.random_range(1..=most),
            };
            for (to, byte) in space.iter_mut().zip(self.inbox.drain(..len)) {
                *to = byte;
            }
            self.delivered += len as u64;
            link.read.filled(len);
            link.read.process(&self.end)?;
        }
    }
}

impl Pair {
    /// Two ends that were never linked.
    pub fn unlinked(seed: u64, limits: ControlLimits) -> Self {
        Self {
            client: Node::new(Side::Client, limits),
            server: Node::new(Side::Server, limits),
            now_millis: 0,
            links: 0,
            seed: seed.to_be_bytes().to_vec(),
        }
    }

    /// Two ends on their first link.
    pub fn new(seed: u64) -> Self {
        let mut pair = Self::unlinked(seed, ControlLimits::default());
        pair.attach();
        pair
    }

    /// A new link takes the place of the one that was cut.
    pub fn attach(&mut self) {
        self.client.attach(LinkKeys::stub(Side::Client, &self.seed, self.links));
        self.server.attach(LinkKeys::stub(Side::Server, &self.seed, self.links));
        self.links += 1;
    }

    /// The link is gone, with what was on its way.
    pub fn cut(&mut self) {
        for node in [&mut self.client, &mut self.server] {
            node.link = None;
            node.inbox.clear();
            node.end.detach();
        }
    }

    /// Both ends write once and read once. Says whether bytes moved; cuts and replaces the link where it is told to.
    pub fn exchange(&mut self, slices: &mut Slices<'_>) -> Result<bool, Fault> {
        self.write();
        self.read(slices)
    }

    /// Both ends write what they have.
    pub fn write(&mut self) {
        self.now_millis += 1;
        self.client.write(self.now_millis, &mut self.server.inbox);
        self.server.write(self.now_millis, &mut self.client.inbox);
    }

    /// Both ends read what has come. Says whether bytes moved; cuts and replaces the link where it is told to.
    pub fn read(&mut self, slices: &mut Slices<'_>) -> Result<bool, Fault> {
        let moved = !self.client.inbox.is_empty() || !self.server.inbox.is_empty();
        if self.server.read(slices)? || self.client.read(slices)? {
            self.cut();
            self.attach();
            return Ok(true);
        }
        Ok(moved)
    }

    /// Exchanges until nothing moves.
    pub fn try_pump(&mut self, slices: &mut Slices<'_>) -> Result<(), Fault> {
        for turn in 0.. {
            assert!(turn < 10_000, "the ends never come to rest");
            if !self.exchange(slices)? {
                break;
            }
        }
        Ok(())
    }

    /// Exchanges until nothing moves; faults are not expected.
    pub fn pump(&mut self) {
        self.try_pump(&mut Slices::Whole).expect("no fault");
    }
}
