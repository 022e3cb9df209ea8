//! Many seeds, over all processors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::audit::Findings;
use crate::context::Counts;
use crate::world;

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// How many seeds were run.
    pub seeds: u64,
    /// What was found, over all.
    pub findings: Findings,
    /// What happened, over all.
    pub counts: Counts,
    /// The seeds in which something was found, with what it was, in order.
    pub failed: Vec<(u64, Findings)>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: world::Outcome) {
        self.seeds += 1;
        self.counts.merge(&outcome.counts);
        let found = &outcome.findings;
        self.findings.lost += found.lost;
        self.findings.duplicated += found.duplicated;
        self.findings.reordered += found.reordered;
        self.findings.stuck += found.stuck;
        self.findings.wrong += found.wrong;
        if !found.clean() {
            self.failed.push((seed, outcome.findings));
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.counts.merge(&other.counts);
        self.findings.lost += other.findings.lost;
        self.findings.duplicated += other.findings.duplicated;
        self.findings.reordered += other.findings.reordered;
        self.findings.stuck += other.findings.stuck;
        self.findings.wrong += other.findings.wrong;
        self.failed.extend(other.failed);
        self.failed.sort_by_key(|(seed, _)| *seed);
    }
}

/// Runs every seed below `seeds`, until one fails if `first` is all that is wanted. `each` is called once for every seed
/// that is done, and `enter` in each thread before its first.
pub fn run(seeds: u64, first: bool, enter: impl Fn() + Sync, each: impl Fn() + Sync) -> Total {
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let threads = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut total = Total::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    enter();
                    let mut part = Total::default();
                    while !enough.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            break;
                        }
                        part.add(seed, world::run(seed, false));
                        each();
                        if first && !part.failed.is_empty() {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                    part
                })
            })
            .collect();
        for worker in workers {
            // A run's panic is a finding; only the campaign's own could be here.
            total.merge(worker.join().expect("a worker of the campaign"));
        }
    });
    total
}
