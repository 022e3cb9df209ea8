//! What the demo found, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::audit::Findings;
use super::task::SLOWNESS;
use crate::text::{figure, grouped, table};

/// The outcome of a run.
pub(super) struct Report {
    pub(super) findings: Findings,
    pub(super) slow_worker: Option<usize>,
    /// From the first task handed out to the last result.
    pub(super) elapsed: Duration,
    pub(super) key_exchange: String,
    pub(super) cipher: String,
    /// Connections that were cut from outside, sessions that went on over another, and values that were sent again for that.
    pub(super) cuts: u64,
    pub(super) resumes: u64,
    pub(super) values_replayed: u64,
    /// Workers that were killed and replaced, tasks that were handed out again, and results that came too late for their task.
    pub(super) killed: u64,
    pub(super) redelivered: u64,
    pub(super) fenced: u64,
    /// Not all tasks were handed out, because the user had enough.
    pub(super) interrupted: bool,
    /// What went wrong beside the counts.
    pub(super) problems: Vec<String>,
}

impl Report {
    /// Whether everything was as it must be.
    pub(super) fn ok(&self) -> bool {
        self.findings.clean() && self.problems.is_empty()
    }

    fn rate_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.findings.results as f64 / seconds } else { 0.0 }
    }

    /// The part of all results that came from each worker.
    fn shares(&self) -> impl Iterator<Item = (u64, f64)> {
        let all = self.findings.results.max(1) as f64;
        self.findings.per_worker.iter().map(move |&results| (results, results as f64 / all))
    }

    /// The closing table.
    pub(super) fn table(&self) -> String {
        let found = &self.findings;
        let counts = [
            ("tasks", found.tasks),
            ("results", found.results),
            ("lost", found.lost),
            ("duplicated", found.duplicated),
            ("reordered", found.reordered),
            ("wrong", found.wrong),
        ];
        let mut rows: Vec<Vec<String>> =
            counts.iter().map(|&(name, count)| vec![name.to_string(), grouped(count)]).collect();
        for (worker, (results, share)) in self.shares().enumerate() {
            let mut row =
                vec![format!("worker {}", worker + 1), grouped(results), format!("{:.1} %", share * 100.0)];
            if self.slow_worker == Some(worker) {
                row.push(format!("{SLOWNESS} times slower"));
            }
            rows.push(row);
        }
        if self.cuts > 0 {
            let figures =
                [("cuts", self.cuts), ("resumes", self.resumes), ("replayed", self.values_replayed)];
            rows.extend(figures.map(|(name, count)| vec![name.to_string(), grouped(count)]));
        }
        if self.killed + self.redelivered + self.fenced > 0 {
            let figures =
                [("killed", self.killed), ("redelivered", self.redelivered), ("fenced", self.fenced)];
            rows.extend(figures.map(|(name, count)| vec![name.to_string(), grouped(count)]));
        }
        let verdict = match (self.ok(), self.interrupted) {
            (true, false) => "every task was done once and in order",
            (true, true) => "interrupted; every task that was handed out was done once and in order",
            (false, _) => "FAILED",
        };
        format!(
            "{}rate          {} results/s in {:.2} s\nkey exchange  {}\ncipher        {}\n{verdict}\n",
            table(&rows),
            figure(self.rate_per_second()),
            self.elapsed.as_secs_f64(),
            self.key_exchange,
            self.cipher,
        )
    }

    /// One JSON object.
    pub(super) fn json(&self) -> Value {
        let workers: Vec<Value> = self
            .shares()
            .enumerate()
            .map(|(worker, (results, share))| {
                json!({
                    "name": format!("worker {}", worker + 1),
                    "results": results,
                    "share": share,
                    "slow": self.slow_worker == Some(worker),
                })
            })
            .collect();
        json!({
            "tasks": self.findings.tasks,
            "results": self.findings.results,
            "lost": self.findings.lost,
            "duplicated": self.findings.duplicated,
            "reordered": self.findings.reordered,
            "wrong": self.findings.wrong,
            "workers": workers,
            "rate": self.rate_per_second(),
            "rate_per_second": self.rate_per_second(),
            "seconds": self.elapsed.as_secs_f64(),
            "key_exchange": self.key_exchange,
            "cipher": self.cipher,
            "cuts": self.cuts,
            "resumes": self.resumes,
            "values_replayed": self.values_replayed,
            "killed": self.killed,
            "redelivered": self.redelivered,
            "fenced": self.fenced,
            "interrupted": self.interrupted,
            "problems": self.problems,
            "ok": self.ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            findings: Findings {
                tasks: 1000,
                results: 1000,
                per_worker: vec![900, 100],
                ..Findings::default()
            },
            slow_worker: Some(1),
            elapsed: Duration::from_millis(500),
            key_exchange: "X25519MLKEM768".into(),
            cipher: "AES-256-GCM".into(),
            cuts: 0,
            resumes: 0,
            values_replayed: 0,
            killed: 0,
            redelivered: 0,
            fenced: 0,
            interrupted: false,
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_table_says_all() {
        let table = report().table();
        for line in [
            "tasks       1,000",
            "worker 2      100  10.0 %  10 times slower",
            "rate          2,000 results/s in 0.50 s",
            "key exchange  X25519MLKEM768",
            "cipher        AES-256-GCM",
            "every task was done once and in order",
        ] {
            assert!(table.lines().any(|l| l == line), "no line {line:?} in\n{table}");
        }
    }

    #[test]
    fn the_json_has_the_agreed_fields() {
        let json = report().json();
        assert_eq!(json["ok"], true);
        assert_eq!(json["rate_per_second"], 2000.0);
        assert_eq!(
            json["workers"][1],
            json!({"name": "worker 2", "results": 100, "share": 0.1, "slow": true})
        );
        for field in
            ["tasks", "results", "lost", "duplicated", "reordered", "seconds", "key_exchange", "cipher"]
        {
            assert!(!json[field].is_null(), "no {field}");
        }
    }

    #[test]
    fn a_fault_or_a_problem_is_a_failure() {
        let mut lossy = report();
        lossy.findings.lost = 1;
        assert!(!lossy.ok());
        let mut troubled = report();
        troubled.problems.push("worker 1 ended early".into());
        assert!(!troubled.ok());
        assert!(troubled.table().ends_with("FAILED\n"));
    }
}
