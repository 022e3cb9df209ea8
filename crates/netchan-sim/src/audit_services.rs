//! What the auditor knows of deliveries and broadcasts: I8 a task has one holder at a time as far as acknowledgements go, and its
//! result is committed once, with its acknowledgement or not at all; I9 a subscriber sees what was assigned when it came and
//! then a run without gaps, but for those of which it is told the exact length.

use std::collections::{BTreeMap, VecDeque};

/// A holder, and the number of one of its deliveries.
pub type By = (u32, u64);

/// What was seen of one task.
#[derive(Clone, Debug, Default)]
struct Task {
    /// Whose result was committed, and for which of its deliveries, in order.
    committed: Vec<By>,
    dead: bool,
    /// The result of a client was received.
    collected: bool,
    /// How often it was tried in vain, and whether it was given to anybody since.
    attempts: u32,
    handed: bool,
}

#[derive(Clone, Debug, Default)]
struct Desk {
    tasks: Vec<Task>,
    gone: bool,
}

#[derive(Clone, Debug, Default)]
struct Subscriber {
    initial: VecDeque<u64>,
    /// Where it is in what was sent.
    at: usize,
}

#[derive(Clone, Debug, Default)]
struct Cast {
    sent: Vec<u64>,
    subscribers: BTreeMap<u32, Subscriber>,
}

/// Deliveries and broadcasts of one run.
#[derive(Debug, Default)]
pub struct Services {
    desks: BTreeMap<u32, Desk>,
    casts: BTreeMap<u32, Cast>,
    /// Results that were committed.
    pub results: u64,
    /// Acknowledgements that were refused.
    pub fenced: u64,
    /// Values of broadcasts that were received.
    pub cast_values: u64,
    /// Values that subscribers were told they had lost.
    pub lagged: u64,
}

/// What is wrong, if anything.
pub type Verdict = Result<(), String>;

impl Services {
    /// A task is handed out for the first time some day.
    pub fn task(&mut self, chan: u32) {
        self.desks.entry(chan).or_default().tasks.push(Task::default());
    }

    /// The server's process ended.
    pub fn died(&mut self, chan: u32) {
        if let Some(desk) = self.desks.get_mut(&chan) {
            desk.gone = true;
        }
    }

    /// The server has committed a holder's result.
    ///
    /// # Errors
    /// It is there twice, or its task is dead.
    pub fn committed(&mut self, chan: u32, task: u64, by: By) -> Verdict {
        self.results += 1;
        let Some(seen) = self.desks.get_mut(&chan).and_then(|desk| desk.tasks.get_mut(task as usize)) else {
            return Err(format!("desk {chan}: a result for task {task}, which there is not"));
        };
        seen.committed.push(by);
        if seen.committed.len() > 1 || seen.dead {
            return Err(format!(
                "desk {chan}: task {task} has results of {:?}, dead {}",
                seen.committed, seen.dead
            ));
        }
        Ok(())
    }

    /// A result was received.
    ///
    /// # Errors
    /// It was before, or there is none.
    pub fn collected(&mut self, chan: u32, task: u64) -> Verdict {
        match self.task_of(chan, task) {
            Some(seen) if !seen.committed.is_empty() && !seen.collected => seen.collected = true,
            _ => {
                return Err(format!(
                    "desk {chan}: the result of task {task} was received, and should not be"
                ));
            }
        }
        Ok(())
    }

    /// A task was given to a holder.
    pub fn handed(&mut self, chan: u32, task: u64) {
        self.task_of(chan, task).into_iter().for_each(|seen| seen.handed = true);
    }

    /// A task waits again, and was tried in vain so often.
    ///
    /// # Errors
    /// More attempts are counted than there were.
    pub fn tried(&mut self, chan: u32, task: u64, attempts: u32) -> Verdict {
        let Some(seen) = self.task_of(chan, task) else {
            return Err(format!("desk {chan}: task {task} is back, which there is not"));
        };
        let most = seen.attempts + u32::from(std::mem::take(&mut seen.handed));
        let counted = (seen.attempts..=most).contains(&attempts);
        seen.attempts = attempts;
        if counted { Ok(()) } else { Err(format!("desk {chan}: task {task} has {attempts} attempts")) }
    }

    fn task_of(&mut self, chan: u32, task: u64) -> Option<&mut Task> {
        self.desks.get_mut(&chan)?.tasks.get_mut(task as usize)
    }

    /// Nobody acknowledged a task.
    ///
    /// # Errors
    /// It has a result.
    pub fn dead(&mut self, chan: u32, task: u64) -> Verdict {
        let Some(seen) = self.desks.get_mut(&chan).and_then(|desk| desk.tasks.get_mut(task as usize)) else {
            return Err(format!("desk {chan}: dead task {task}, which there is not"));
        };
        seen.dead = true;
        if seen.committed.is_empty() {
            Ok(())
        } else {
            Err(format!("desk {chan}: task {task} is done, and dead"))
        }
    }

    /// A holder was told what became of its result.
    ///
    /// # Errors
    /// That is not what became of it.
    pub fn told(&mut self, chan: u32, task: u64, by: By, done: bool) -> Verdict {
        self.fenced += u64::from(!done);
        let seen = self.desks.get(&chan).and_then(|desk| desk.tasks.get(task as usize));
        let committed = seen.is_some_and(|seen| seen.committed.contains(&by));
        if committed == done {
            return Ok(());
        }
        Err(format!("desk {chan}: {by:?} was told that its result of task {task} is done: {done}"))
    }

    /// A value is sent to those who subscribe now.
    pub fn sent(&mut self, chan: u32, number: u64) {
        self.casts.entry(chan).or_default().sent.push(number);
    }

    /// Someone subscribes, and is owed what is assigned.
    pub fn joined(&mut self, chan: u32, who: u32, assigned: Vec<u64>) {
        let cast = self.casts.entry(chan).or_default();
        cast.subscribers.insert(who, Subscriber { initial: assigned.into(), at: cast.sent.len() });
    }

    /// A subscriber received a value.
    ///
    /// # Errors
    /// It is not the one that is next.
    pub fn received(&mut self, chan: u32, who: u32, number: u64) -> Verdict {
        self.cast_values += 1;
        let Some(cast) = self.casts.get_mut(&chan) else { return Err(format!("no broadcast {chan}")) };
        let Some(subscriber) = cast.subscribers.get_mut(&who) else {
            return Err(format!("{who} did not subscribe"));
        };
        let expected = subscriber.initial.pop_front().or_else(|| {
            subscriber.at += 1;
            cast.sent.get(subscriber.at - 1).copied()
        });
        if expected == Some(number) {
            return Ok(());
        }
        Err(format!("broadcast {chan}: {who} received {number} instead of {expected:?}"))
    }

    /// A subscriber was told that it lost so many.
    ///
    /// # Errors
    /// There were not so many, or not yet.
    pub fn lagged(&mut self, chan: u32, who: u32, lost: u64) -> Verdict {
        self.lagged += lost;
        let Some(cast) = self.casts.get_mut(&chan) else { return Err(format!("no broadcast {chan}")) };
        let Some(subscriber) = cast.subscribers.get_mut(&who) else {
            return Err(format!("{who} did not subscribe"));
        };
        subscriber.at += lost as usize;
        if subscriber.initial.is_empty() && subscriber.at <= cast.sent.len() {
            return Ok(());
        }
        Err(format!("broadcast {chan}: {who} lost {lost}, more than were sent"))
    }

    /// A subscriber found the end.
    ///
    /// # Errors
    /// It has not had everything.
    pub fn ended(&mut self, chan: u32, who: u32) -> Verdict {
        let Some(cast) = self.casts.get(&chan) else { return Err(format!("no broadcast {chan}")) };
        let Some(subscriber) = cast.subscribers.get(&who) else { return Ok(()) };
        if subscriber.initial.is_empty() && subscriber.at == cast.sent.len() {
            return Ok(());
        }
        Err(format!(
            "broadcast {chan}: the end came to {who} before {} values",
            cast.sent.len() - subscriber.at
        ))
    }

    /// Everything is over: tasks that were neither done nor declared dead.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let left = self.desks.iter().filter(|(_, desk)| !desk.gone).flat_map(|(chan, desk)| {
            // A client's result is received; the server's own program has none.
            let open = |task: &Task| match task.committed.first() {
                _ if task.dead => false,
                Some((who, _)) => *who != 0 && !task.collected,
                None => true,
            };
            let tasks = desk.tasks.iter().enumerate().filter(move |(_, task)| open(task));
            tasks.map(move |(task, _)| format!("desk {chan}: task {task} has no result, or nobody has it"))
        });
        left.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_there_twice_is_found_and_a_task_that_is_not_done() {
        let mut services = Services::default();
        (0..3).for_each(|_| services.task(1));
        assert_eq!(services.committed(1, 0, (7, 0)), Ok(()));
        assert_eq!(services.told(1, 0, (7, 0), true), Ok(()));
        assert_eq!(services.told(1, 0, (8, 0), false), Ok(()));
        assert_eq!(services.collected(1, 0), Ok(()));
        assert!(services.collected(1, 0).is_err(), "again");
        assert!(services.committed(1, 0, (8, 0)).is_err());
        assert!(services.told(1, 1, (7, 1), true).is_err(), "there is no result");
        assert_eq!(services.dead(1, 1), Ok(()));
        assert!(services.committed(1, 1, (7, 1)).is_err());
        assert_eq!(services.unfinished().len(), 1);
        assert_eq!(services.committed(1, 2, (7, 2)), Ok(()));
        assert_eq!(services.unfinished().len(), 1, "a result that is not received");
        services.handed(1, 2);
        assert_eq!(services.tried(1, 2, 1), Ok(()));
        assert!(services.tried(1, 2, 2).is_err(), "nobody had it since");
    }

    #[test]
    fn gaps_repeats_and_wrong_counts_are_found() {
        let mut services = Services::default();
        services.sent(1, 10);
        services.joined(1, 7, vec![5, 6]);
        (11..16).for_each(|number| services.sent(1, number));
        assert!([5, 6, 11].into_iter().all(|number| services.received(1, 7, number).is_ok()));
        assert_eq!(services.lagged(1, 7, 2), Ok(()));
        assert!(services.ended(1, 7).is_err());
        assert_eq!(services.received(1, 7, 14), Ok(()));
        assert!(services.received(1, 7, 14).is_err(), "again");
        assert!(services.lagged(1, 7, 1).is_err());
    }
}
