//! The link is cut at every byte of an exchange, and a new one takes its place: nothing is lost, repeated or reordered.

mod support;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::apps::Apps;
use support::pair::{Pair, Slices};
use support::seed::for_seeds;

const SHORT: usize = 900;
/// Two records of fragments, and more than the byte window.
const LONG: usize = 70_000;

/// Runs the exchange, cut when these many bytes have reached the server and the client; returns what reached each.
fn run(long: usize, to_server: Option<u64>, to_client: Option<u64>, slices: &mut Slices<'_>) -> (u64, u64) {
    let mut pair = Pair::new(7);
    (pair.server.cut_at, pair.client.cut_at) = (to_server, to_client);
    Apps::new(long).run(&mut pair, slices);
    (pair.server.delivered, pair.client.delivered)
}

#[test]
fn sess_9_the_exchange_without_a_cut() {
    for_seeds(20, |seed, rng| {
        let whole = run(LONG, None, None, &mut Slices::Whole);
        let random = run(LONG, None, None, &mut Slices::Random(rng));
        assert_eq!(whole, random, "how bytes arrive changes nothing");
        if seed == 0 {
            assert_eq!(whole, run(LONG, None, None, &mut Slices::Single));
        }
    });
}

#[test]
fn sess_9_cut_at_every_byte_to_the_server() {
    let (total, _) = run(SHORT, None, None, &mut Slices::Whole);
    for at in 0..total {
        run_named(SHORT, Some(at), None);
    }
}

#[test]
fn sess_9_cut_at_every_byte_to_the_client() {
    let (_, total) = run(SHORT, None, None, &mut Slices::Whole);
    for at in 0..total {
        run_named(SHORT, None, Some(at));
    }
}

#[test]
fn sess_9_cut_inside_a_message_of_several_records() {
    let (total, _) = run(LONG, None, None, &mut Slices::Whole);
    for at in (0..total).step_by(197) {
        run_named(LONG, Some(at), None);
    }
}

/// Names the cut in what a failure prints.
fn run_named(long: usize, to_server: Option<u64>, to_client: Option<u64>) {
    let result = std::panic::catch_unwind(|| run(long, to_server, to_client, &mut Slices::Whole));
    if let Err(panic) = result {
        eprintln!(
            "failed with a cut at {to_server:?} to the server, {to_client:?} to the client, long {long}"
        );
        std::panic::resume_unwind(panic);
    }
}

fn random_cut(rng: &mut StdRng, total: u64) -> Option<u64> {
    rng.random_bool(0.7).then(|| rng.random_range(0..total))
}

#[test]
fn sess_9_cuts_in_a_row_in_both_directions_and_during_resync() {
    let (server, client) = run(SHORT, None, None, &mut Slices::Whole);
    for_seeds(4_000, |seed, rng| {
        let mut pair = Pair::new(seed);
        let mut apps = Apps::new(SHORT);
        (pair.server.cut_at, pair.client.cut_at) = (random_cut(rng, server), random_cut(rng, client));
        let cuts = rng.random_range(1..6);
        // Resync takes some 600 bytes: half of the cuts hit it.
        let gap = if rng.random_bool(0.5) { 700 } else { 3_000 };
        let mut choices = StdRng::seed_from_u64(seed);
        apps.run_with(&mut pair, &mut Slices::Random(rng), |pair| {
            let rng = &mut choices;
            if pair.links <= cuts && pair.server.cut_at.is_none() && pair.client.cut_at.is_none() {
                let node = if rng.random_bool(0.5) { &mut pair.server } else { &mut pair.client };
                node.cut_at = Some(node.delivered + rng.random_range(0..gap));
            }
        });
    });
}
