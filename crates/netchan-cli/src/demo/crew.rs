//! The worker processes as their parent sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::Plant;
use super::task::SLOWNESS;
use super::worker::{News, Order};
use crate::Failure;
use crate::child::Subprocess;
use crate::text::counted;

/// How long workers may take from their start until they have both channels open.
const START_LIMIT: Duration = Duration::from_secs(30);

/// All workers, and what is known of them. Dropping it kills those that still run.
pub(super) struct Crew {
    events: mpsc::UnboundedReceiver<Event>,
    watchers: JoinSet<()>,
    /// For those that take the place of others.
    news: mpsc::UnboundedSender<Event>,
    workers: Vec<Member>,
    faults: Vec<String>,
    killed: u64,
}

struct Member {
    order: Order,
    encryption: Option<(String, String)>,
    planted: bool,
    fenced: u64,
    values_replayed: u64,
    ended: bool,
    /// Kills the process.
    kill: Option<oneshot::Sender<()>>,
}

/// Something that a worker has done.
struct Event {
    worker: usize,
    what: What,
}

enum What {
    Told(News),
    /// The process is gone; the text says why that was not as agreed.
    Ended(Result<(), String>),
    /// The process was killed, as was wanted.
    Killed,
}

impl Crew {
    /// Starts a process for each ticket and gives it its order.
    pub(super) fn start(
        tickets: &[String],
        slow: Option<usize>,
        plant: Option<Plant>,
    ) -> Result<Self, Failure> {
        let (news, events) = mpsc::unbounded_channel();
        let watchers = JoinSet::new();
        let mut crew = Self { events, watchers, news, workers: Vec::new(), faults: Vec::new(), killed: 0 };
        for (worker, ticket) in tickets.iter().enumerate() {
            let effort = if slow == Some(worker) { SLOWNESS } else { 1 };
            let plant = plant.filter(|_| worker == 0);
            let order = Order { ticket: ticket.clone(), worker, effort, plant };
            let member = crew.enlist(order)?;
            crew.workers.push(member);
        }
        Ok(crew)
    }

    fn enlist(&mut self, order: Order) -> Result<Member, Failure> {
        let (kill, killed) = oneshot::channel();
        let process = Subprocess::start("demo-worker")?;
        self.watchers.spawn(watch(process, order.clone(), killed, self.news.clone()));
        Ok(Member {
            order,
            encryption: None,
            planted: false,
            fenced: 0,
            values_replayed: 0,
            ended: false,
            kill: Some(kill),
        })
    }

    /// Kills a worker with SIGKILL, whatever it is at; another takes its place.
    pub(super) fn kill(&mut self, worker: usize) {
        if let Some(kill) = self.workers[worker].kill.take() {
            // A process that has ended already hears nothing.
            _ = kill.send(());
        }
    }

    /// How many were killed.
    pub(super) const fn killed(&self) -> u64 {
        self.killed
    }

    /// Waits until every worker has its channels open, so that all start the race together. One that fails is noted and
    /// the others go on; it is an error if none is left.
    pub(super) async fn all_ready(&mut self) -> Result<(), Failure> {
        let waiting = async {
            while self.workers.iter().any(|member| member.encryption.is_none() && !member.ended) {
                self.next().await;
            }
        };
        if tokio::time::timeout(START_LIMIT, waiting).await.is_err() {
            let late =
                self.workers.iter().filter(|member| member.encryption.is_none() && !member.ended).count();
            let late = counted(late as u64, "worker");
            return Err(format!("{late} did not connect within {} s", START_LIMIT.as_secs()).into());
        }
        if self.running() == 0 {
            return Err(format!("no worker could start: {}", self.faults.join("; ")).into());
        }
        Ok(())
    }

    /// Waits for the next piece of news and notes it. Safe to cancel.
    pub(super) async fn next(&mut self) {
        let Some(Event { worker, what }) = self.events.recv().await else {
            // Every watcher has reported its process's end and is gone.
            return std::future::pending().await;
        };
        let member = &mut self.workers[worker];
        match what {
            What::Told(News::Ready { key_exchange, cipher }) => {
                member.encryption = Some((key_exchange, cipher))
            }
            What::Told(News::Finished { planted, fenced, values_replayed }) => {
                member.planted = planted;
                (member.fenced, member.values_replayed) = (fenced, values_replayed);
            }
            What::Killed => {
                self.killed += 1;
                let order = member.order.clone();
                match self.enlist(order) {
                    Ok(member) => self.workers[worker] = member,
                    Err(error) => {
                        self.workers[worker].ended = true;
                        self.faults.push(format!("worker {} could not be replaced: {error}", worker + 1));
                    }
                }
            }
            What::Ended(outcome) => {
                member.ended = true;
                self.faults.extend(outcome.err().map(|why| format!("worker {} {why}", worker + 1)));
            }
        }
    }

    /// How many processes have not ended.
    pub(super) fn running(&self) -> usize {
        self.workers.iter().filter(|member| !member.ended).count()
    }

    /// Kills whoever still runs, for the reason given.
    pub(super) fn dismiss(&mut self, reason: String) {
        self.watchers.abort_all();
        self.workers.iter_mut().for_each(|member| member.ended = true);
        self.faults.push(reason);
    }

    /// Notes something that must not be.
    pub(super) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    /// Everything that was not as it must be, including a planted fault that found no chance.
    pub(super) fn problems(&self, plant: Option<Plant>) -> Vec<String> {
        let mut problems = self.faults.clone();
        if plant.is_some() && !self.workers[0].planted {
            problems.push("worker 1 got too few tasks to plant the fault".into());
        }
        problems
    }

    /// How many values the workers' sessions sent again, and results that came too late.
    pub(super) fn replayed_and_fenced(&self) -> (u64, u64) {
        let replayed = self.workers.iter().map(|member| member.values_replayed).sum();
        (replayed, self.workers.iter().map(|member| member.fenced).sum())
    }

    /// The key exchange and the cipher in use (all of them, should workers differ).
    pub(super) fn encryption(&self) -> (String, String) {
        let known = || self.workers.iter().filter_map(|member| member.encryption.as_ref());
        let join = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        (
            join(known().map(|(exchange, _)| exchange.as_str()).collect()),
            join(known().map(|(_, c)| c.as_str()).collect()),
        )
    }
}

/// Follows one process to its end.
async fn watch(
    mut process: Subprocess,
    order: Order,
    mut kill: oneshot::Receiver<()>,
    events: mpsc::UnboundedSender<Event>,
) {
    let worker = order.worker;
    let tell = |what| drop(events.send(Event { worker, what }));
    // A process that cannot be told anything has ended: its exit status, below, says more than the broken pipe.
    let _ = process.tell(&order).await;
    let mut finished = false;
    let silenced = loop {
        let heard = tokio::select! {
            Ok(()) = &mut kill => {
                let what = match process.kill().await {
                    Ok(()) => What::Killed,
                    Err(e) => What::Ended(Err(format!("could not be killed: {e}"))),
                };
                return tell(what);
            }
            heard = process.hear::<News>() => heard,
        };
        match heard {
            Ok(Some(news)) => {
                finished |= matches!(news, News::Finished { .. });
                tell(What::Told(news));
            }
            Ok(None) => break None,
            Err(e) => break Some(format!("said something unintelligible: {e}")),
        }
    };
    let outcome = match (silenced, process.ended().await) {
        (Some(why), _) => Err(why),
        (None, Ok(status)) if finished && status.success() => Ok(()),
        (None, Ok(status)) => Err(format!("ended early ({status})")),
        (None, Err(e)) => Err(format!("cannot be waited for: {e}")),
    };
    tell(What::Ended(outcome));
}
