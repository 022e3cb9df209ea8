//! What every run of the tests shows: seeds, their repetition, and that the auditor can fail.

use netchan_proto::planted::Mutant;
use netchan_sim::context::KINDS;
use netchan_sim::{campaign, planting, world};

/// The seeds every run goes through; the command runs more.
const SEEDS: u64 = 2_000;

#[test]
fn nothing_is_lost_repeated_reordered_or_stuck() {
    let total = campaign::run(SEEDS, false, || (), || ());
    for (seed, findings) in &total.failed {
        eprintln!("seed {seed}: {findings:?}");
        eprintln!("  replay it: cargo run --release -p netchan-sim -- --seed {seed}");
    }
    assert!(total.failed.is_empty(), "{} of {SEEDS} seeds failed", total.failed.len());
    for kind in KINDS {
        assert!(total.counts.get(kind) > 0, "no {kind}: the seeds show nothing about it");
    }
}

#[test]
fn a_seed_takes_the_same_course_every_time() {
    for seed in 0..200 {
        let [first, second] = [world::run(seed, false), world::run(seed, false)];
        assert_eq!((first.hash, &first.counts), (second.hash, &second.counts), "seed {seed}");
    }
    assert_ne!(world::run(1, false).hash, world::run(2, false).hash);
}

#[test]
fn every_planted_bug_is_caught_within_a_thousand_seeds() {
    // Panics are among the findings, and need not be printed.
    std::panic::set_hook(Box::new(|_| ()));
    let survivors: Vec<_> =
        Mutant::ALL.into_iter().filter(|mutant| planting::catch(*mutant, 1_000).is_none()).collect();
    _ = std::panic::take_hook();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

/// Seeds that found a bug of ours once.
#[test]
fn seeds_that_found_something_stay_good() {
    for seed in [448, 1_653, 3_465, 4_867, 2_442, 9_091, 9_310, 10_773, 50_615] {
        let outcome = world::run(seed, false);
        assert!(outcome.findings.clean(), "seed {seed}: {:?}", outcome.findings);
    }
}
