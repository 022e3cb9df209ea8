//! One test per rule, then all rules at once against a model.

mod ahead;
mod broadcast;
mod buffered;
mod costs;
mod delivery;
mod explore;
mod holders;
mod lifetime;
mod model;
mod reference;
mod rendezvous;
mod shares;

use bytes::Bytes;

use super::{Effect, HolderOptions, Hosted, Item, Leave, ReceiverKey, SenderKey};

const A: SenderKey = SenderKey(1);
const B: SenderKey = SenderKey(2);
const D: SenderKey = SenderKey(3);
const X: ReceiverKey = ReceiverKey(1);
const Y: ReceiverKey = ReceiverKey(2);

/// A channel with senders A, B, D and receivers X, Y.
fn channel(capacity: u64) -> Hosted {
    let mut hosted = Hosted::new(capacity);
    assert!([A, B, D].into_iter().all(|key| hosted.add_sender(key)));
    assert!([X, Y].into_iter().all(|key| hosted.add_receiver(key)));
    hosted
}

/// What the channel wants done; values that go out are taken along.
fn drain(hosted: &mut Hosted) -> Vec<Effect> {
    let effects: Vec<_> = std::iter::from_fn(|| hosted.poll_effect()).collect();
    for effect in &effects {
        if let Effect::Deliver { to } = effect {
            sent(hosted, *to);
        }
    }
    effects
}

/// The values that go out to a receiver now.
fn sent(hosted: &mut Hosted, to: ReceiverKey) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(item) = hosted.next_unsent(to).cloned() {
        hosted.mark_sent(to);
        items.push(item);
    }
    items
}

fn value(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Leases and pushes values `seqs` of a sender, each carrying its number.
fn send(hosted: &mut Hosted, key: SenderKey, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        assert!(hosted.try_lease(key), "no credit for value {seq}");
        hosted.push(key, seq, value(seq)).unwrap();
    }
}

/// Pushes values for which the sender has a lease already, or which are offers.
fn push(hosted: &mut Hosted, key: SenderKey, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        hosted.push(key, seq, value(seq)).unwrap();
    }
}

/// What was delivered: to whom, whose, which number, and whether again.
fn delivered(hosted: &mut Hosted) -> Vec<(ReceiverKey, SenderKey, u64, bool)> {
    let mut all = Vec::new();
    while let Some(effect) = hosted.poll_effect() {
        if let Effect::Deliver { to } = effect {
            all.extend(
                sent(hosted, to).into_iter().map(|item| (to, item.origin, item.seq, item.redelivered)),
            );
        }
    }
    all
}

/// What was granted: to whom, up to where.
fn granted(hosted: &mut Hosted) -> Vec<(SenderKey, u64)> {
    let pick = |effect| match effect {
        Effect::Grant { to, limit } => Some((to, limit)),
        _ => None,
    };
    drain(hosted).into_iter().filter_map(pick).collect()
}

/// Who was asked to yield.
fn recalled(hosted: &mut Hosted) -> Vec<SenderKey> {
    let pick = |effect| match effect {
        Effect::Recall { from } => Some(from),
        _ => None,
    };
    drain(hosted).into_iter().filter_map(pick).collect()
}
