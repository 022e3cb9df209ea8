//! What an operation costs does not grow with how many receivers and senders there are.

use super::*;

/// A value's way through the channel, and a look at the time.
fn round(hosted: &mut Hosted, seq: u64, holder: ReceiverKey) {
    assert!(hosted.try_lease(A));
    hosted.push(A, seq, value(seq)).unwrap();
    hosted.demand(holder, 1).unwrap();
    while let Some(effect) = hosted.poll_effect() {
        if let Effect::Deliver { to } = effect {
            sent(hosted, to);
        }
    }
    hosted.taken(holder, 1).unwrap();
    assert!(hosted.ack(holder, seq));
    hosted.handle_timeout(0);
    _ = hosted.poll_timeout();
    drain(hosted);
}

fn cost(others: u64) -> std::time::Duration {
    let mut hosted = Hosted::new(64);
    hosted.add_sender(A);
    let holder = ReceiverKey(1);
    hosted.add_holder(holder, HolderOptions::new(8));
    for key in 100..100 + others {
        hosted.add_receiver(ReceiverKey(key));
        hosted.add_holder(ReceiverKey(key + others), HolderOptions::new(8));
        hosted.holder_away(ReceiverKey(key + others), u64::MAX);
        hosted.add_sender(SenderKey(key));
    }
    (0..200).for_each(|seq| round(&mut hosted, seq, holder));
    let begun = std::time::Instant::now();
    (200..2_200).for_each(|seq| round(&mut hosted, seq, holder));
    begun.elapsed()
}

#[test]
fn nothing_is_linear_in_receivers_or_senders() {
    // A thousand times as many; ten times as long would be far from linear.
    let ratios = (0..5).map(|_| cost(10_000).as_secs_f64() / cost(20).as_secs_f64().max(1e-9));
    let least = ratios.fold(f64::MAX, f64::min);
    assert!(least < 20.0, "{least} times as long");
}
