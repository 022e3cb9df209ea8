//! A worker process: dials, takes tasks until there are no more, sends results, closes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Plant;
use super::net::Dialled;
use super::task::Done;
use crate::Failure;
use crate::child::{self, Orders};

/// How long a worker's last results may take to arrive.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// What the parent tells a worker, in one line.
#[derive(Serialize, Deserialize)]
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
    /// No more tasks, everything delivered. `planted`: the fault that was asked for has happened. The rest is what the
    /// session has been through.
    Finished { planted: bool, resumes: u64, values_replayed: u64 },
}

/// The whole life of a worker.
pub(crate) async fn run() -> Result<(), Failure> {
    let order: Order = Orders::listen().next().await;
    let worker = order.worker;
    // In a task, not in the main thread: that is where a program's work normally is.
    tokio::spawn(serve(order)).await?.map_err(|e| format!("worker {}: {e}", worker + 1).into())
}

async fn serve(order: Order) -> Result<(), Failure> {
    let dialled = Dialled::dial(&order.ticket).await?;
    child::answer(&News::Ready { key_exchange: dialled.key_exchange(), cipher: dialled.cipher() })?;

    let mut saboteur = Saboteur::new(order.plant);
    while let Some(task) = dialled.tasks.recv().await? {
        let answer = task.work_repeatedly(order.effort);
        let done = Done { task: task.id, worker: order.worker, answer };
        for done in saboteur.pass(done) {
            dialled.results.send(done).await?;
        }
    }
    if let Some(done) = saboteur.held {
        dialled.results.send(done).await?;
    }
    let (resumes, values_replayed) = dialled.resumed();
    dialled.close(CLOSE_DEADLINE).await?;
    child::answer(&News::Finished { planted: saboteur.planted, resumes, values_replayed })
}

/// Plants one fault among the results, at the first chance; without one it passes everything on.
struct Saboteur {
    plant: Option<Plant>,
    planted: bool,
    held: Option<Done>,
}

impl Saboteur {
    fn new(plant: Option<Plant>) -> Self {
        Self { plant, planted: false, held: None }
    }

    /// What to send in place of `done`.
    fn pass(&mut self, done: Done) -> Vec<Done> {
        let Some(plant) = self.plant.filter(|_| !self.planted) else { return vec![done] };
        match (plant, self.held.take()) {
            (Plant::Lose, _) => {
                self.planted = true;
                Vec::new()
            }
            (Plant::Dup, _) => {
                self.planted = true;
                vec![done.clone(), done]
            }
            (Plant::Reorder, None) => {
                self.held = Some(done);
                Vec::new()
            }
            (Plant::Reorder, Some(earlier)) => {
                self.planted = true;
                vec![done, earlier]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::task::Answer;

    fn sent(plant: Option<Plant>) -> Vec<u64> {
        let mut saboteur = Saboteur::new(plant);
        (0..4)
            .flat_map(|task| saboteur.pass(Done { task, worker: 0, answer: Answer::Digest { proof: 0 } }))
            .map(|done| done.task)
            .collect()
    }

    #[test]
    fn exactly_one_fault_is_planted() {
        assert_eq!(sent(None), [0, 1, 2, 3]);
        assert_eq!(sent(Some(Plant::Lose)), [1, 2, 3]);
        assert_eq!(sent(Some(Plant::Dup)), [0, 0, 1, 2, 3]);
        assert_eq!(sent(Some(Plant::Reorder)), [1, 0, 2, 3]);
    }
}
