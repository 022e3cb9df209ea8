//! What the rounds say, for people and for programs.

use serde_json::{Map, Value, json};

use super::job::{Contestant, Workload};
use crate::text::{counted, figure, table};

/// The figures of all rounds of one contestant.
pub(super) struct Rounds {
    pub(super) contestant: Contestant,
    pub(super) figures: Vec<f64>,
    /// Beside the figure, where there is one: the 99th percentile of the round trips.
    pub(super) tails: Vec<f64>,
}

impl Rounds {
    pub(super) fn new(contestant: Contestant) -> Self {
        Self { contestant, figures: Vec::new(), tails: Vec::new() }
    }

    fn summary(&self) -> Summary {
        Summary::of(&self.figures)
    }
}

/// What is left of several figures.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    median: f64,
    min: f64,
    max: f64,
}

impl Summary {
    /// Summarises at least one figure.
    fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

/// The value below which `part` of the sorted samples lie (nearest rank); `None` without samples.
pub(super) fn percentile(sorted: &[u64], part: f64) -> Option<u64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The outcome of a bench.
pub(super) struct Report {
    pub(super) workload: Workload,
    pub(super) size: usize,
    pub(super) seconds: f64,
    /// Workers or subscribers, where there are several.
    pub(super) ends: usize,
    /// Tasks ahead of each worker, where the user has said so.
    pub(super) ahead: Option<usize>,
    pub(super) hosted: bool,
    pub(super) contestants: Vec<Rounds>,
}

impl Report {
    /// netchan's median over a contestant's.
    fn ratio(&self, of: &Rounds) -> Option<f64> {
        let netchan = self.contestants.iter().find(|rounds| rounds.contestant == Contestant::Netchan)?;
        (of.contestant != Contestant::Netchan).then(|| netchan.summary().median / of.summary().median)
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let rounds = self.contestants.first().map_or(0, |first| first.figures.len());
        let size = if self.size > 0 { format!(" of {} bytes", self.size) } else { String::new() };
        let better = if self.workload.is_cost() { "p50, lower is better" } else { "higher is better" };
        let tails = self.workload == Workload::Pingpong;
        let heading = ["", "median", "min", "max", "netchan's over it"].map(str::to_string);
        let mut rows = vec![heading.to_vec()];
        if tails {
            rows[0].push("p99".into());
        }
        for rounds in &self.contestants {
            let Summary { median, min, max } = rounds.summary();
            let ratio = self.ratio(rounds).map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let name = rounds.contestant.name().to_string();
            let mut row = vec![name, figure(median), figure(min), figure(max), ratio];
            if tails {
                row.push(figure(Summary::of(&rounds.tails).median));
            }
            rows.push(row);
        }
        let ends = match self.workload {
            Workload::Queue => format!(" to {} workers", self.ends),
            Workload::Broadcast => format!(" to {} subscribers", self.ends),
            Workload::Tasks => {
                let ahead = self.ahead.map_or("one at a time".into(), |ahead| format!("{ahead} ahead"));
                format!(" to {} workers, {ahead}", self.ends)
            }
            _ if self.hosted => " over hosted channels".into(),
            _ => String::new(),
        };
        format!(
            "{}{size}{ends}, {}, {better}; {} of {} s\n{}",
            self.workload.name(),
            self.workload.unit(),
            counted(rounds as u64, "round"),
            self.seconds,
            table(&rows),
        )
    }

    /// One JSON object.
    pub(super) fn json(&self) -> Value {
        let each = |value: fn(Summary) -> f64| -> Map<String, Value> {
            self.contestants.iter().map(|r| (r.contestant.name().into(), json!(value(r.summary())))).collect()
        };
        let ratio: Map<String, Value> = self
            .contestants
            .iter()
            .filter_map(|rounds| Some((rounds.contestant.name().into(), json!(self.ratio(rounds)?))))
            .collect();
        let mut object = json!({
            "workload": self.workload.name(),
            "size_bytes": self.size,
            "unit": self.workload.unit(),
            "median": each(|summary| summary.median),
            "min": each(|summary| summary.min),
            "max": each(|summary| summary.max),
            "ratio": ratio,
        });
        let ends = match self.workload {
            Workload::Queue | Workload::Tasks => Some("workers"),
            Workload::Broadcast => Some("subscribers"),
            _ => None,
        };
        if let Some(ends) = ends {
            object[ends] = json!(self.ends);
        }
        if let Some(ahead) = self.ahead {
            object["ahead"] = json!(ahead);
        }
        if self.hosted {
            object["hosted"] = json!(true);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let rounds =
            |contestant, figures: [f64; 5]| Rounds { contestant, figures: figures.into(), tails: vec![] };
        Report {
            workload: Workload::Stream,
            size: 64,
            seconds: 1.0,
            ends: 1,
            ahead: None,
            hosted: false,
            contestants: vec![
                rounds(Contestant::Netchan, [5.0e6, 1.0e6, 3.0e6, 2.0e6, 4.0e6]),
                rounds(Contestant::Tcp, [6.0e6; 5]),
            ],
        }
    }

    #[test]
    fn a_median_is_the_middle_of_the_sorted() {
        assert_eq!(Summary::of(&[5.0, 1.0, 3.0]), Summary { median: 3.0, min: 1.0, max: 5.0 });
        assert_eq!(Summary::of(&[4.0, 1.0]).median, 2.5);
        assert_eq!(Summary::of(&[7.0]), Summary { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let samples: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&samples, 0.50), Some(50));
        assert_eq!(percentile(&samples, 0.99), Some(99));
        assert_eq!(percentile(&samples, 1.0), Some(100));
        assert_eq!(percentile(&[7], 0.5), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn the_json_has_the_agreed_fields() {
        let expected = json!({
            "workload": "stream", "size_bytes": 64, "unit": "messages/s",
            "median": {"netchan": 3.0e6, "tcp": 6.0e6},
            "min": {"netchan": 1.0e6, "tcp": 6.0e6},
            "max": {"netchan": 5.0e6, "tcp": 6.0e6},
            "ratio": {"tcp": 0.5},
        });
        assert_eq!(report().json(), expected);
    }

    #[test]
    fn the_json_says_how_it_was_set_up_where_it_could_be_otherwise() {
        let mut tasks = Report { workload: Workload::Tasks, ends: 3, ..report() };
        assert_eq!((&tasks.json()["workers"], &tasks.json()["ahead"]), (&json!(3), &Value::Null));
        tasks.ahead = Some(8);
        assert_eq!(tasks.json()["ahead"], 8);
        assert!(tasks.table().starts_with("tasks of 64 bytes to 3 workers, 8 ahead, tasks/s, higher"));
        let hosted = Report { hosted: true, ..report() };
        assert_eq!(hosted.json()["hosted"], true);
        assert!(hosted.table().starts_with("stream of 64 bytes over hosted channels, messages/s"));
    }

    #[test]
    fn the_table_compares() {
        let table = report().table();
        assert!(
            table.starts_with("stream of 64 bytes, messages/s, higher is better; 5 rounds of 1 s\n"),
            "{table}"
        );
        assert!(table.contains("netchan  3,000,000  1,000,000  5,000,000\n"), "{table}");
        assert!(table.contains("tcp      6,000,000  6,000,000  6,000,000               0.50\n"), "{table}");
    }
}
