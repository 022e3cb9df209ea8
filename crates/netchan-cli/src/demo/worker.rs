//! A worker process: dials, applies the settings, takes tasks until there are no more, acknowledges each with its result,
//! closes.

use std::collections::VecDeque;
use std::time::Duration;

use netchan::{AckError, AckWith, AckWithError, Delivery};
use serde::{Deserialize, Serialize};

use super::Plant;
use super::net::Dialled;
use super::task::{Done, Setting, Task};
use crate::Failure;
use crate::child::{self, Orders};

/// Acknowledgements that may be on their way while the next task is worked at.
const UNDER_WAY_MAX: usize = 8;

/// How long a worker's last results may take to arrive.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// What the parent tells a worker, in one line.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) ticket: String,
    pub(super) worker: usize,
    /// How many times over to do each task's work.
    pub(super) effort: u32,
    pub(super) plant: Option<Plant>,
}

/// What a worker tells its parent.
#[derive(Serialize, Deserialize)]
pub(super) enum News {
    /// Dialled, both channels open.
    Ready { key_exchange: String, cipher: String },
    /// No more tasks, everything acknowledged. `planted`: the fault that was asked for has happened; `fenced`: results that
    /// came too late, because another had the task by then.
    Finished { planted: bool, fenced: u64, values_replayed: u64 },
}

/// The whole life of a worker.
pub(crate) async fn run() -> Result<(), Failure> {
    // Ctrl-C reaches the whole group of processes; the parent has the workers drain.
    let deaf = tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    tokio::task::yield_now().await;
    let order: Order = Orders::listen().next().await;
    let worker = order.worker;
    // In a task, not in the main thread: that is where a program's work normally is.
    let served = tokio::spawn(serve(order)).await?.map_err(|e| format!("worker {}: {e}", worker + 1).into());
    deaf.abort();
    served
}

async fn serve(order: Order) -> Result<(), Failure> {
    let dialled = Dialled::dial(&order.ticket).await?;
    // What is set comes first, whenever a worker joins: without it the first task could not be done.
    let mut setting: Setting =
        dialled.settings.recv().await?.ok_or("the settings ended before they began")?;
    child::answer(&News::Ready { key_exchange: dialled.key_exchange(), cipher: dialled.cipher() })?;

    let mut saboteur = Saboteur::new(order.plant);
    let mut desk = Desk::new(&dialled);
    let mut settings_go_on = true;
    loop {
        let task = tokio::select! {
            newer = dialled.settings.recv(), if settings_go_on => {
                match newer? {
                    // Whoever joins between the two steps of a change gets it twice.
                    Some(newer) if newer.version >= setting.version => setting = newer,
                    Some(newer) => {
                        let (newer, older) = (newer.version, setting.version);
                        return Err(format!("settings {newer} came behind settings {older}").into());
                    }
                    None => settings_go_on = false,
                }
                continue;
            }
            task = dialled.tasks.recv() => task?,
        };
        let Some(task) = task else { break };
        let answer = task.work_repeatedly(order.effort, setting.key);
        let done = Done { task: task.id, worker: order.worker, answer, redelivered: task.redelivered() };
        for act in saboteur.pass(task, done) {
            desk.act(act).await?;
        }
    }
    if let Some(act) = saboteur.rest() {
        desk.act(act).await?;
    }
    let fenced = desk.close().await?;
    let values_replayed = dialled.values_replayed();
    dialled.close(CLOSE_DEADLINE).await?;
    child::answer(&News::Finished { planted: saboteur.planted, fenced, values_replayed })
}

/// What is done about a task.
enum Act {
    /// Its result is committed with its acknowledgement.
    Finish(Delivery<Task>, Done),
    /// It is acknowledged, and its result swallowed.
    Swallow(Delivery<Task>),
    /// A result is sent without any acknowledgement.
    SendAlone(Done),
}

/// Acknowledges in order, a few at a time.
struct Desk<'a> {
    dialled: &'a Dialled,
    under_way: VecDeque<AckWith<Done>>,
    fenced: u64,
}

impl<'a> Desk<'a> {
    fn new(dialled: &'a Dialled) -> Self {
        Self { dialled, under_way: VecDeque::new(), fenced: 0 }
    }

    async fn act(&mut self, act: Act) -> Result<(), Failure> {
        match act {
            Act::Finish(task, done) => {
                if self.under_way.len() >= UNDER_WAY_MAX {
                    self.settle_oldest().await?;
                }
                self.under_way.push_back(task.ack_with(&self.dialled.results, done));
            }
            Act::Swallow(task) => task.ack().await?,
            Act::SendAlone(done) => self.dialled.results.send(done).await?,
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> Result<(), Failure> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
        let outcome = oldest.await;
        self.settle(outcome)
    }

    fn settle(&mut self, outcome: Result<(), AckWithError<Done>>) -> Result<(), Failure> {
        match outcome {
            Ok(()) => Ok(()),
            // Another has the task, because this worker could not be reached for too long: its result is thrown away.
            Err(AckWithError { reason: AckError::Fenced, .. }) => {
                self.fenced += 1;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for what is under way; returns how many results came too late.
    async fn close(mut self) -> Result<u64, Failure> {
        while !self.under_way.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(self.fenced)
    }
}

/// Plants one fault among the results, at the first chance; without one it passes everything on.
struct Saboteur {
    plant: Option<Plant>,
    planted: bool,
    held: Option<(Delivery<Task>, Done)>,
}

impl Saboteur {
    fn new(plant: Option<Plant>) -> Self {
        Self { plant, planted: false, held: None }
    }

    /// What to do about a task that is done.
    fn pass(&mut self, task: Delivery<Task>, done: Done) -> Vec<Act> {
        let Some(plant) = self.plant.filter(|_| !self.planted) else { return vec![Act::Finish(task, done)] };
        match (plant, self.held.take()) {
            (Plant::Lose, _) => {
                self.planted = true;
                vec![Act::Swallow(task)]
            }
            (Plant::Dup, _) => {
                self.planted = true;
                vec![Act::SendAlone(done.clone()), Act::Finish(task, done)]
            }
            (Plant::Reorder, None) => {
                self.held = Some((task, done));
                Vec::new()
            }
            (Plant::Reorder, Some((earlier, earlier_done))) => {
                self.planted = true;
                vec![Act::Finish(task, done), Act::Finish(earlier, earlier_done)]
            }
        }
    }

    /// What was held back for a fault that found no chance.
    fn rest(&mut self) -> Option<Act> {
        self.held.take().map(|(task, done)| Act::Finish(task, done))
    }
}
