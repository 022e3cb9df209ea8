//! The typed work of the demo: a task is a function of its number, and its answer a function of the task.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

/// Steps of mixing that one task costs: about 20 µs, so that work and not only messaging decides a worker's share.
const EFFORT: u32 = 16_000;

/// How many times more work the slow worker does for the same answer.
pub(crate) const SLOWNESS: u32 = 10;

/// What a worker is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) numbers: Vec<u32>,
    pub(crate) text: String,
}

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A digest of the text.
    Digest,
    /// The sum and the largest of the numbers.
    Total,
    /// The text with its words in reverse order.
    Reverse,
}

/// What a worker sends back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) task: u64,
    pub(crate) worker: usize,
    pub(crate) answer: Answer,
    /// The task had been handed out before: it may stand behind later ones.
    pub(crate) redelivered: bool,
}

/// What every worker must have applied before its first task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Counts changes; the first is 1.
    pub(crate) version: u64,
    /// Goes into every answer: who has not applied it computes nonsense.
    pub(crate) key: u64,
}

impl Setting {
    /// The demo's. Only its version changes while it runs.
    pub(crate) const fn version(version: u64) -> Self {
        Self { version, key: 0x6e65_7463_6861_6e21 }
    }
}

/// The answer to a task. `proof` can only be had by doing the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Digest { proof: u64 },
    Total { sum: u64, largest: u32, proof: u64 },
    Reverse { text: String, proof: u64 },
}

impl Task {
    /// The task with this number.
    pub(crate) fn numbered(id: u64) -> Self {
        const WORDS: [&str; 8] =
            ["typed", "tasks", "first", "come", "served", "over", "encrypted", "channels"];
        let mut state = id;
        let mut draw = || {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            state
        };
        let kind = [Kind::Digest, Kind::Total, Kind::Reverse][(draw() % 3) as usize];
        let numbers = (0..4).map(|_| draw() as u32).collect();
        let words: Vec<&str> = (0..4).map(|_| WORDS[(draw() % 8) as usize]).collect();
        Self { id, kind, numbers, text: words.join(" ") }
    }

    /// Does the work, as the setting's key says.
    pub(crate) fn work(&self, key: u64) -> Answer {
        let seed = self.text.bytes().map(u64::from).chain(self.numbers.iter().map(|&n| u64::from(n)));
        let mut proof = seed.fold(self.id ^ key, |state, item| mix(state ^ item));
        for _ in 0..EFFORT {
            proof = mix(proof);
        }
        match self.kind {
            Kind::Digest => Answer::Digest { proof },
            Kind::Total => Answer::Total {
                sum: self.numbers.iter().map(|&n| u64::from(n)).sum(),
                largest: self.numbers.iter().copied().max().unwrap_or(0),
                proof,
            },
            Kind::Reverse => {
                let words: Vec<&str> = self.text.rsplit(' ').collect();
                Answer::Reverse { text: words.join(" "), proof }
            }
        }
    }

    /// Does the work `times` over, as a slow machine would.
    pub(crate) fn work_repeatedly(&self, times: u32, key: u64) -> Answer {
        for _ in 1..times {
            black_box(black_box(self).work(key));
        }
        self.work(key)
    }
}

/// One step of a mixing function (the first half of splitmix64's finaliser).
fn mix(state: u64) -> u64 {
    (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_a_function_of_its_number_and_its_answer_of_the_task() {
        for id in 0..50 {
            let task = Task::numbered(id);
            assert_eq!(task, Task::numbered(id));
            assert_eq!(task.work(7), task.work_repeatedly(SLOWNESS, 7));
            assert_ne!(task.work(7), Task::numbered(id + 1).work(7));
            assert_ne!(task.work(7), task.work(8), "the setting is part of it");
        }
    }

    #[test]
    fn every_kind_occurs() {
        for kind in [Kind::Digest, Kind::Total, Kind::Reverse] {
            assert!((0..50).any(|id| Task::numbered(id).kind == kind));
        }
    }
}
