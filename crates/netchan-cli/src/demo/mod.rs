//! `netchan demo`: the main job for real. A server in this process, workers as processes of their own on loopback, every
//! task handed out first come, first served, every result recomputed and counted.

mod audit;
mod collector;
mod crew;
mod cut;
mod net;
mod progress;
mod report;
mod task;
pub(crate) mod worker;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Failure;
use collector::Collected;
use crew::Crew;
use cut::Cutter;
use net::{Hosted, Sender};
use progress::Progress;
use report::Report;
use task::Task;

/// How long the server's last traffic may take when it shuts down; by then there should be none.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// How many tasks to hand out
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    tasks: u64,
    /// How many worker processes to start; the last is ten times slower if there are several
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Reset every worker's connection N times from outside, in the middle of a record
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    cut: u64,
    /// Print the findings as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// Make the first worker commit a fault, which the audit must find (exit code 1)
    #[arg(long, value_name = "FAULT")]
    plant: Option<Plant>,
}

/// A fault that a worker commits on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Plant {
    /// Swallow one result
    Lose,
    /// Send one result twice
    Dup,
    /// Swap two results
    Reorder,
}

impl Options {
    /// The worker that is ten times slower: the last, if there is another to compare it with.
    fn slow_worker(&self) -> Option<usize> {
        let workers = usize::from(self.workers);
        (workers > 1).then(|| workers - 1)
    }
}

/// Runs the demo; `false` if anything was not as it must be.
pub(crate) async fn run(options: Options) -> Result<bool, Failure> {
    let workers = usize::from(options.workers);
    let hosted = Hosted::host().await?;
    let (cutter, tickets) = match options.cut {
        0 => (None, vec![hosted.ticket(); workers]),
        cuts => {
            let (cutter, addresses) = Cutter::start(hosted.address()?, workers, cuts).await?;
            let tickets = addresses.into_iter().map(|address| hosted.ticket_by_way_of(address));
            (Some(cutter), tickets.collect::<Result<_, _>>()?)
        }
    };
    let mut crew = Crew::start(&tickets, options.slow_worker(), options.plant)?;
    crew.all_ready().await?;

    let started = Instant::now();
    let feeder = tokio::spawn(feed(hosted.tasks.clone(), options.tasks));
    let progress = Progress::new(options.tasks, workers, options.slow_worker());
    // Recomputing is work, so the collector runs as a task like any other, not in the thread that started it.
    let collecting = collector::collect(hosted.results.clone(), crew, options.tasks, progress, cutter);
    let Collected { findings, last_arrival, crew, cutter } = tokio::spawn(collecting).await?;

    let mut problems = crew.problems(options.plant);
    if !feeder.is_finished() {
        feeder.abort();
    }
    match feeder.await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => problems.push(problem),
        Err(_aborted) => {
            problems.push("not every task could be handed out: no worker was left to take them".into())
        }
    }
    let (key_exchange, cipher) = crew.encryption();
    let replayed_here = hosted.values_replayed();
    if let Err(e) = hosted.shutdown(SHUTDOWN_DEADLINE).await {
        problems.push(format!("the server did not shut down cleanly: {e}"));
    }
    problems.extend(cutter.as_ref().and_then(Cutter::problem));
    let (resumes, replayed_there) = crew.resumed();

    let report = Report {
        findings,
        slow_worker: options.slow_worker(),
        elapsed: last_arrival.saturating_duration_since(started),
        key_exchange,
        cipher,
        cuts: cutter.as_ref().map_or(0, Cutter::cuts),
        resumes,
        values_replayed: replayed_here + replayed_there,
        problems,
    };
    print!("{}", report.table());
    for problem in &report.problems {
        eprintln!("netchan demo: {problem}");
    }
    if options.json {
        println!("{}", report.json());
    }
    Ok(report.ok())
}

/// Hands out all tasks and closes the channel behind them.
async fn feed(tasks: Sender<Task>, count: u64) -> Result<(), String> {
    for id in 0..count {
        let sent = tasks.send(Task::numbered(id)).await;
        sent.map_err(|e| format!("task {id} could not be handed out: {e}"))?;
    }
    tasks.close();
    Ok(())
}
