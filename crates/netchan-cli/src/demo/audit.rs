//! The audit: counts what arrived, as it arrived, and compares it with what had to arrive.

use super::task::{Done, Setting, Task};

/// Every raw arrival, counted; nothing is ever deduplicated or put in order here.
pub(super) struct Audit {
    /// How often each task's result arrived, by the task's number.
    arrivals: Vec<u32>,
    workers: Vec<Tally>,
    results: u64,
    wrong: u64,
    reordered: u64,
}

/// What one worker has sent.
#[derive(Clone, Default)]
struct Tally {
    results: u64,
    last_task: Option<u64>,
}

/// What the audit found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) tasks: u64,
    /// Raw arrivals.
    pub(super) results: u64,
    /// Tasks of which no result arrived.
    pub(super) lost: u64,
    /// Arrivals beyond a task's first.
    pub(super) duplicated: u64,
    /// How often a worker's sequence of tasks fell.
    pub(super) reordered: u64,
    /// Results that differ from the recomputed one, or belong to no task or no worker.
    pub(super) wrong: u64,
    /// Raw arrivals from each worker.
    pub(super) per_worker: Vec<u64>,
}

impl Audit {
    pub(super) fn new(tasks: u64, workers: usize) -> Self {
        let tasks = usize::try_from(tasks).expect("the number of tasks is limited far below this");
        Self {
            arrivals: vec![0; tasks],
            workers: vec![Tally::default(); workers],
            results: 0,
            wrong: 0,
            reordered: 0,
        }
    }

    /// Takes one arrival into account, recomputing its answer from the task.
    pub(super) fn arrive(&mut self, done: &Done) {
        self.results += 1;
        let known_task = usize::try_from(done.task).ok().and_then(|at| self.arrivals.get_mut(at));
        let (Some(arrivals), Some(tally)) = (known_task, self.workers.get_mut(done.worker)) else {
            self.wrong += 1;
            return;
        };
        *arrivals += 1;
        tally.results += 1;
        // Tasks are numbered as they are sent, so each worker sees rising numbers only, but for those that come again.
        if !done.redelivered {
            if tally.last_task.is_some_and(|last| done.task < last) {
                self.reordered += 1;
            }
            tally.last_task = Some(done.task);
        }
        if done.answer != Task::numbered(done.task).work(Setting::version(1).key) {
            self.wrong += 1;
        }
    }

    pub(super) fn results(&self) -> u64 {
        self.results
    }

    pub(super) fn results_of(&self, worker: usize) -> u64 {
        self.workers.get(worker).map_or(0, |tally| tally.results)
    }

    /// Nothing more was handed out than this many tasks.
    pub(super) fn limit(&mut self, tasks: u64) {
        self.arrivals.truncate(usize::try_from(tasks).unwrap_or(usize::MAX));
    }

    pub(super) fn findings(&self) -> Findings {
        Findings {
            tasks: self.arrivals.len() as u64,
            results: self.results,
            lost: self.arrivals.iter().filter(|&&n| n == 0).count() as u64,
            duplicated: self.arrivals.iter().map(|&n| u64::from(n.saturating_sub(1))).sum(),
            reordered: self.reordered,
            wrong: self.wrong,
            per_worker: self.workers.iter().map(|tally| tally.results).collect(),
        }
    }
}

impl Findings {
    /// Whether every task's right result arrived exactly once and in order.
    pub(super) fn clean(&self) -> bool {
        self.results == self.tasks
            && [self.lost, self.duplicated, self.reordered, self.wrong].iter().all(|&n| n == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::task::Answer;

    fn done(task: u64, worker: usize) -> Done {
        Done { task, worker, answer: Task::numbered(task).work(Setting::version(1).key), redelivered: false }
    }

    fn audit(tasks: u64, arrivals: &[(u64, usize)]) -> Findings {
        let mut audit = Audit::new(tasks, 2);
        for &(task, worker) in arrivals {
            audit.arrive(&done(task, worker));
        }
        audit.findings()
    }

    #[test]
    fn a_clean_run_is_clean_however_workers_interleave() {
        let findings = audit(5, &[(1, 1), (0, 0), (4, 1), (2, 0), (3, 0)]);
        assert!(findings.clean(), "{findings:?}");
        assert_eq!(findings.per_worker, [3, 2]);
    }

    #[test]
    fn a_missing_result_is_lost() {
        let findings = audit(3, &[(0, 0), (2, 0)]);
        assert_eq!((findings.lost, findings.duplicated, findings.reordered), (1, 0, 0));
        assert!(!findings.clean());
    }

    #[test]
    fn a_second_arrival_is_a_duplicate_and_no_reordering() {
        let findings = audit(2, &[(0, 0), (0, 0), (1, 0)]);
        assert_eq!((findings.lost, findings.duplicated, findings.reordered), (0, 1, 0));
        assert_eq!(findings.results, 3);
        assert!(!findings.clean());
    }

    #[test]
    fn a_duplicate_does_not_hide_a_loss() {
        let findings = audit(2, &[(0, 0), (0, 1)]);
        assert_eq!((findings.results, findings.lost, findings.duplicated), (2, 1, 1));
        assert!(!findings.clean());
    }

    #[test]
    fn a_falling_sequence_of_one_worker_is_reordered() {
        let findings = audit(3, &[(1, 0), (0, 0), (2, 0)]);
        assert_eq!((findings.lost, findings.duplicated, findings.reordered), (0, 0, 1));
        assert!(!findings.clean());
    }

    #[test]
    fn a_task_that_comes_again_may_stand_behind_later_ones() {
        let mut audit = Audit::new(3, 1);
        audit.arrive(&done(1, 0));
        audit.arrive(&Done { redelivered: true, ..done(0, 0) });
        audit.arrive(&done(2, 0));
        assert!(audit.findings().clean());
    }

    #[test]
    fn an_answer_without_the_setting_is_wrong() {
        let mut audit = Audit::new(1, 1);
        audit.arrive(&Done { answer: Task::numbered(0).work(0), ..done(0, 0) });
        assert_eq!(audit.findings().wrong, 1);
    }

    #[test]
    fn wrong_answers_and_strangers_are_wrong() {
        let mut audit = Audit::new(2, 1);
        audit.arrive(&Done { redelivered: false, task: 0, worker: 0, answer: Answer::Digest { proof: 1 } });
        audit.arrive(&done(1, 0));
        assert_eq!(audit.findings().wrong, 1);
        audit.arrive(&done(2, 0));
        audit.arrive(&done(1, 7));
        let findings = audit.findings();
        assert_eq!((findings.wrong, findings.results, findings.lost), (3, 4, 0));
        assert!(!findings.clean());
    }
}
