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
use tokio::sync::watch;

use crate::Failure;
use collector::{Collected, Killer};
use crew::Crew;
use cut::Cutter;
use net::{Broadcast, Hosted, Sender};
use progress::Progress;
use report::Report;
use task::{Setting, Task};

/// How long the server's last traffic may take when it shuts down; by then there should be none.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// The exit code of a program that Ctrl-C has stopped.
const INTERRUPTED: i32 = 130;

/// With fewer tasks, a worker may be done before it could be cut off or killed.
const LONG_RUN_TASKS: u64 = 2_000;

/// How often the settings change while tasks are handed out.
const SETTINGS_PERIOD: Duration = Duration::from_millis(200);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// How many tasks to hand out
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    tasks: u64,
    /// How many worker processes to start; the last is ten times slower if there are several
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Reset every worker's connection N times from outside, in the middle of a record (default: once in a long run)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000))]
    cut: Option<u64>,
    /// Kill N workers with SIGKILL in the middle of their work, and replace them (default: one in a long run)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100))]
    kill: Option<u64>,
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

    /// Faults from outside belong to the job, unless one from inside is to be found, or there is too little to do.
    fn is_long(&self) -> bool {
        self.plant.is_none() && self.tasks >= LONG_RUN_TASKS
    }

    fn cuts(&self) -> u64 {
        self.cut.unwrap_or(u64::from(self.is_long()))
    }

    fn kills(&self) -> u64 {
        self.kill.unwrap_or(u64::from(self.is_long() && self.workers > 1))
    }
}

/// Runs the demo; `false` if anything was not as it must be.
pub(crate) async fn run(options: Options) -> Result<bool, Failure> {
    let workers = usize::from(options.workers);
    let hosted = Hosted::host().await?;
    let (cutter, tickets) = match options.cuts() {
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
    let (handed_out, interrupted) = watch::channel(None);
    let feeder = tokio::spawn(feed(hosted.tasks.clone(), options.tasks, handed_out));
    let setter = tokio::spawn(change_settings(hosted.settings.clone()));
    let progress = Progress::new(options.tasks, workers, options.slow_worker());
    // Recomputing is work, so the collector runs as a task like any other, not in the thread that started it.
    let killer = Killer { left: options.kills(), of: options.kills(), workers };
    let collecting = collector::collect(
        hosted.results.clone(),
        crew,
        options.tasks,
        progress,
        cutter,
        killer,
        interrupted.clone(),
    );
    let Collected { findings, last_arrival, crew, cutter } = tokio::spawn(collecting).await?;
    setter.abort();

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
    let interrupted = interrupted.borrow().is_some();
    let (key_exchange, cipher) = crew.encryption();
    let replayed_here = hosted.values_replayed();
    let (resumes, redelivered) = hosted.resumed_and_redelivered();
    if let Err(e) = hosted.shutdown(SHUTDOWN_DEADLINE).await {
        problems.push(format!("the server did not shut down cleanly: {e}"));
    }
    if !interrupted {
        problems.extend(cutter.as_ref().and_then(Cutter::problem));
        if crew.killed() < options.kills() {
            problems.push(format!(
                "only {} of {} workers could be killed: use more tasks, or kill fewer",
                crew.killed(),
                options.kills()
            ));
        }
    }
    let (replayed_there, fenced) = crew.replayed_and_fenced();

    let report = Report {
        findings,
        slow_worker: options.slow_worker(),
        elapsed: last_arrival.saturating_duration_since(started),
        key_exchange,
        cipher,
        cuts: cutter.as_ref().map_or(0, Cutter::cuts),
        resumes,
        values_replayed: replayed_here + replayed_there,
        killed: crew.killed(),
        redelivered,
        fenced,
        interrupted,
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

/// Hands every task out. Ctrl-C ends that early: `handed_out` says how many went out, and the workers drain them.
async fn feed(tasks: Sender<Task>, count: u64, handed_out: watch::Sender<Option<u64>>) -> Result<(), String> {
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    for id in 0..count {
        tokio::select! {
            biased;
            Ok(()) = &mut interrupt => {
                eprintln!("netchan demo: interrupted; what was handed out is being finished (again to stop at once)");
                handed_out.send_replace(Some(id));
                tokio::spawn(stop_at_the_next());
                tasks.close();
                return Ok(());
            }
            sent = tasks.send(Task::numbered(id)) => {
                sent.map_err(|e| format!("task {id} could not be handed out: {e}"))?;
            }
        }
    }
    tasks.close();
    // Nothing is left to hold back, but whoever insists is obeyed.
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("netchan demo: everything is handed out and is being finished (again to stop at once)");
            stop_at_the_next().await;
        }
    });
    Ok(())
}

async fn stop_at_the_next() {
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

/// Changes the settings as the run goes on: for those who are here, and for those who come later.
async fn change_settings(settings: Broadcast<Setting>) {
    for version in 2.. {
        tokio::time::sleep(SETTINGS_PERIOD).await;
        let newer = Setting::version(version);
        if settings.set_assignments(vec![newer.clone()]).is_err() || settings.send(newer).await.is_err() {
            return;
        }
    }
}
