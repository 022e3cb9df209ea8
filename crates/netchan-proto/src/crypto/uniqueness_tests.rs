//! No key and nonce repeat, and no two channels or directions share a key, over 10^5 channel openings, rekeys and resumes.
//!
//! The world is unkinder than ours: TLS gives the same exporter and the same context for every link of a session, and many
//! OPEN frames read alike. What keeps keys apart is then only what the key schedule does, each part of which is left out once
//! to see that it is missed.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cipher::Aead;
use super::record::{Opener, Peek, RekeyLimits, SealBuf, Sealer};
use super::schedule::{ChannelKeys, Hash, LinkKeys, RootSecret, expand, prk};
use super::secret::{AccessSecret, ResumeSecret};
use crate::id::{ChannelId, Direction, Side};

/// So few that links come and go, and keys are renewed, all the time.
const LIVE_MAX: usize = 8;

/// What the key schedule is made to leave out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The chain does not step on (`KEY-8`).
    ChainStands,
    /// Both openers use one chain (`KEY-4`).
    OneChain,
    /// Both directions use one secret (`KEY-7`).
    OneDirection,
    /// The resume secret does not go into the next link (`KEY-3`).
    ResumeForgotten,
}

/// Whose key it is: a link over all sessions, a channel, and who sends.
type Owner = (u64, ChannelId, Side);

/// Sees every key and nonce that is used.
#[derive(Default)]
struct Collector {
    owners: HashMap<[u8; 32], Owner>,
    pairs: HashSet<([u8; 32], [u8; 12])>,
    /// The keys of the traffic secrets seen, so that each is derived once.
    keys: HashMap<[u8; 48], [u8; 32]>,
    repeated_pairs: u64,
    shared_keys: u64,
}

impl Collector {
    fn see(&mut self, link: u64, sender: Side, sealer: &mut Sealer) {
        for (channel, secret, nonce) in sealer.used.drain(..) {
            let key = *self.keys.entry(secret).or_insert_with(|| {
                let mut key = [0; 32];
                expand(&prk(&secret), b"key", &[], &mut key);
                key
            });
            let owner = (link, channel, sender);
            self.shared_keys += u64::from(*self.owners.entry(key).or_insert(owner) != owner);
            self.repeated_pairs += u64::from(!self.pairs.insert((key, nonce)));
        }
    }
}

/// A session, with both ends of the link it has.
struct Session {
    fault: Fault,
    psk: AccessSecret,
    exporter: [u8; 48],
    ctx: Hash,
    aead: Aead,
    resume: Option<ResumeSecret>,
    ends: [LinkKeys; 2],
    /// The same keys again, for [`Fault::OneChain`].
    shadow: [LinkKeys; 2],
    live: Vec<ChannelId>,
    next: [Option<ChannelId>; 2],
    out: SealBuf,
}

/// What has happened.
#[derive(Debug, Default)]
struct Counts {
    openings: u64,
    rekeys: u64,
    resumes: u64,
}

impl Session {
    fn new(fault: Fault, rng: &mut StdRng) -> Self {
        let aead = Aead::choose(rng.random(), true);
        let (psk, exporter, ctx) = (AccessSecret::new(rng.random()), array(rng), array(rng));
        let [ends, shadow] = [(); 2].map(|()| ends(&exporter, &psk, None, &ctx, aead));
        let next = [Side::Client, Side::Server].map(|side| Some(ChannelId::first(side)));
        let (live, out) = (Vec::new(), SealBuf::new(1_024));
        Self { fault, psk, exporter, ctx, aead, resume: None, ends, shadow, live, next, out }
    }

    /// Another link takes the place of this one, and every channel is opened there anew (`SESS-8`).
    fn resume(&mut self, counts: &mut Counts, rng: &mut StdRng) {
        counts.resumes += 1;
        if self.fault != Fault::ResumeForgotten {
            self.resume = Some(self.ends[0].resume_secret.clone());
        }
        if rng.random_ratio(1, 2) && self.fault == Fault::None {
            self.exporter = array(rng);
        }
        self.ends = self.new_ends();
        if self.fault == Fault::OneChain {
            self.shadow = self.new_ends();
        }
        for id in self.live.clone() {
            self.give_keys(id, counts, rng);
        }
    }

    /// Opens a channel, or does nothing when the session has enough of them.
    fn open(&mut self, opener: Side, counts: &mut Counts, rng: &mut StdRng) -> Option<ChannelId> {
        if self.live.len() >= LIVE_MAX {
            return None;
        }
        let next = &mut self.next[opener as usize];
        let id = (*next)?;
        *next = id.next();
        self.live.push(id);
        self.give_keys(id, counts, rng);
        Some(id)
    }

    fn give_keys(&mut self, id: ChannelId, counts: &mut Counts, rng: &mut StdRng) {
        counts.openings += 1;
        let frame = if rng.random() { vec![2, 0] } else { [&[2, 4][..], &id.0.to_be_bytes()].concat() };
        let [client, server] = self.step_both(id.opener(), &frame);
        let server_sends =
            if self.fault == Fault::OneDirection { Direction::FromClient } else { Direction::FromServer };
        let [one, other] = &mut self.ends;
        one.sealer.add_channel(id, client.secret(Direction::FromClient)).expect("new");
        one.opener.add_channel(id, client.secret(server_sends)).expect("new");
        other.sealer.add_channel(id, server.secret(server_sends)).expect("new");
        other.opener.add_channel(id, server.secret(Direction::FromClient)).expect("new");
    }

    /// The keys of a channel as both ends derive them.
    fn step_both(&mut self, opener: Side, frame: &[u8]) -> [ChannelKeys; 2] {
        let step = |ends: &mut [LinkKeys; 2], opener| {
            let [client, server] = ends;
            match opener {
                Side::Client => [client.own_chain.step(frame), server.peer_chain.step(frame)],
                Side::Server => [client.peer_chain.step(frame), server.own_chain.step(frame)],
            }
        };
        match self.fault {
            Fault::ChainStands => step(&mut self.new_ends(), opener),
            Fault::OneChain if opener == Side::Server => step(&mut self.shadow, Side::Client),
            _ => step(&mut self.ends, opener),
        }
    }

    fn new_ends(&self) -> [LinkKeys; 2] {
        ends(&self.exporter, &self.psk, self.resume.as_ref(), &self.ctx, self.aead)
    }

    /// Each end says something; the other reads it.
    fn talk(&mut self, id: ChannelId) {
        let [client, server] = &mut self.ends;
        say(&mut client.sealer, &mut server.opener, id, &mut self.out);
        say(&mut server.sealer, &mut client.opener, id, &mut self.out);
    }

    /// The channel is over at both ends, and its keys are gone.
    fn close(&mut self, at: usize) {
        let id = self.live.swap_remove(at);
        for end in &mut self.ends {
            assert!(end.sealer.remove_channel(id) && end.opener.remove_channel(id));
        }
    }

    fn show(&mut self, link: u64, collector: &mut Collector, counts: &mut Counts) {
        for (side, end) in [Side::Client, Side::Server].into_iter().zip(&mut self.ends) {
            counts.rekeys += end.sealer.rekeys();
            collector.see(link, side, &mut end.sealer);
        }
    }
}

fn array(rng: &mut StdRng) -> [u8; 48] {
    std::array::from_fn(|_| rng.random())
}

fn ends(
    exporter: &[u8; 48],
    psk: &AccessSecret,
    resume: Option<&ResumeSecret>,
    ctx: &Hash,
    aead: Aead,
) -> [LinkKeys; 2] {
    [Side::Client, Side::Server].map(|side| {
        let mut end = LinkKeys::derive(side, aead, RootSecret::extract(exporter, Some(psk), resume), ctx);
        end.sealer.set_rekey_limits(RekeyLimits { records: 2, ..RekeyLimits::default() });
        end
    })
}

fn say(sealer: &mut Sealer, opener: &mut Opener, id: ChannelId, out: &mut SealBuf) {
    sealer.seal(id, b"alike", b"", 0, out).expect("it fits");
    let record = out.filled();
    assert!(matches!(opener.peek(record), Ok(Peek::Record { channel, .. }) if channel == id));
    assert_eq!(opener.open(record, &mut [0; 5]), Ok(id));
    out.consume(usize::MAX);
}

/// Sessions one after the other, until as much has happened as asked for.
fn live(fault: Fault, seed: u64, happenings: u64) -> (Collector, Counts) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut collector, mut counts, mut links) = (Collector::default(), Counts::default(), 0);
    while counts.openings + counts.rekeys + counts.resumes < happenings {
        let mut session = Session::new(fault, &mut rng);
        for _ in 0..rng.random_range(1..20) {
            session.talk(ChannelId::CONTROL);
            for _ in 0..rng.random_range(1..40) {
                let opener = if rng.random() { Side::Client } else { Side::Server };
                match session.open(opener, &mut counts, &mut rng) {
                    Some(id) => session.talk(id),
                    None => session.close(rng.random_range(0..LIVE_MAX)),
                }
                if let Some(id) = session.live.get(rng.random_range(0..LIVE_MAX)) {
                    session.talk(*id);
                }
            }
            for id in session.live.clone() {
                session.talk(id);
            }
            session.show(links, &mut collector, &mut counts);
            links += 1;
            session.resume(&mut counts, &mut rng);
        }
    }
    (collector, counts)
}

#[test]
fn key_8_no_key_and_nonce_repeat_over_100_000_openings_rekeys_and_resumes() {
    let (collector, counts) = live(Fault::None, 5, 100_000);
    assert_eq!((collector.repeated_pairs, collector.shared_keys), (0, 0));
    assert!(counts.openings > 20_000 && counts.rekeys > 20_000 && counts.resumes > 1_000, "{counts:?}");
    // The control channel, every opening of a channel and every rekey, each way.
    let links = counts.resumes;
    assert!(collector.owners.len() as u64 > counts.openings + counts.rekeys + links);
}

#[test]
fn key_8_a_schedule_that_leaves_anything_out_is_caught() {
    for (fault, shares_keys, repeats_pairs) in [
        (Fault::ChainStands, true, false),
        (Fault::OneChain, true, false),
        (Fault::OneDirection, true, true),
        (Fault::ResumeForgotten, true, true),
    ] {
        let (collector, _) = live(fault, 5, 2_000);
        assert!(!shares_keys || collector.shared_keys > 0, "{fault:?}: no key is shared");
        assert!(!repeats_pairs || collector.repeated_pairs > 0, "{fault:?}: no pair repeats");
    }
}
