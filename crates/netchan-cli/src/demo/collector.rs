//! The collector: takes every result as it comes until no more can come.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::audit::{Audit, Findings};
use super::crew::Crew;
use super::cut::Cutter;
use super::net::Receiver;
use super::progress::Progress;
use super::task::Done;
use crate::text::counted;

/// With workers running but no result for this long, something hangs, and the demo says so instead of hanging with it.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// How often the silence is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A worker leaves only once its results are here; with every worker gone, this much silence means drained.
const DRAIN_SILENCE: Duration = Duration::from_millis(300);

/// What the collector hands back.
pub(super) struct Collected {
    pub(super) findings: Findings,
    pub(super) last_arrival: Instant,
    pub(super) crew: Crew,
    pub(super) cutter: Option<Cutter>,
}

/// Kills workers as the run goes on.
pub(super) struct Killer {
    /// How many are still to be killed.
    pub(super) left: u64,
    pub(super) of: u64,
    pub(super) workers: usize,
}

impl Killer {
    /// Whose turn it is, with so many results here. A worker whose connection has just been cut is let find another first:
    /// else the cut would be no test of resuming.
    fn turn(&mut self, results: u64, tasks: u64, cutter: Option<&Cutter>) -> Option<usize> {
        let killed = self.of - self.left;
        // The first a little beyond the middle of the run, where no cut is due.
        let due = tasks.saturating_mul(2 * killed + 11) / (2 * self.of + 18);
        if self.left == 0 || results < due.max(1) {
            return None;
        }
        // Never the first, which commits the planted faults, nor the last, which is slow, if there are others.
        let worker = if self.workers > 2 { 1 + (killed as usize) % (self.workers - 2) } else { 0 };
        if cutter.is_some_and(|cutter| !cutter.is_settled(worker)) {
            return None;
        }
        self.left -= 1;
        Some(worker)
    }
}

/// Counts results until all workers have left and the channel is drained. It does not stop at the expected number:
/// duplicates come after it.
pub(super) async fn collect(
    results: Receiver<Done>,
    mut crew: Crew,
    tasks: u64,
    progress: Progress,
    cutter: Option<Cutter>,
    mut killer: Killer,
    mut handed_out: watch::Receiver<Option<u64>>,
) -> Collected {
    let mut audit = Audit::new(tasks, progress.workers());
    let mut last_arrival = Instant::now();
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        let arrival = if crew.running() > 0 {
            tokio::select! {
                arrival = results.recv() => arrival,
                () = crew.next() => continue,
                _ = look.tick() => {
                    if last_arrival.elapsed() > SILENCE_LIMIT {
                        let running = counted(crew.running() as u64, "worker");
                        crew.dismiss(format!("no result for {} s with {running} running", SILENCE_LIMIT.as_secs()));
                    }
                    continue;
                }
            }
        } else {
            match timeout(DRAIN_SILENCE, results.recv()).await {
                Ok(arrival) => arrival,
                Err(_silence) => break,
            }
        };
        match arrival {
            Ok(Some(done)) => {
                last_arrival = Instant::now();
                audit.arrive(&done);
                if let Some(cutter) = &cutter {
                    cutter.progress(audit.results(), tasks);
                }
                if let Some(worker) = killer.turn(audit.results(), tasks, cutter.as_ref()) {
                    crew.kill(worker);
                }
                progress.show(audit.results(), done.worker, audit.results_of(done.worker));
            }
            Ok(None) => {
                crew.dismiss("the results channel closed by itself".into());
                break;
            }
            // Not every error ends a channel, but none may happen here; a run that had one has failed already.
            Err(e) => {
                crew.fault(format!("receiving results failed: {e}"));
                crew.dismiss("the workers were dismissed for that".into());
                break;
            }
        }
    }
    progress.clear();
    if let Some(tasks) = *handed_out.borrow_and_update() {
        // It was interrupted, and drained.
        audit.limit(tasks);
    }
    Collected { findings: audit.findings(), last_arrival, crew, cutter }
}
