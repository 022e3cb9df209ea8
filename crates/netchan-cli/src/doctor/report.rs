//! What was checked and what came of it: for people as it comes, for programs as one object at the end.

use std::fmt::Write as _;

use jiff::Timestamp;
use netchan::policy::PolicyProblem;
use serde::Serialize;

use super::channels::Channel;
use super::visitors::Visitor;

/// What one check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Failed,
    /// It was not reached, or only the other side can know.
    Unknown,
}

impl Verdict {
    /// As wide as the widest, so that what follows stands in a column. A failure is to be seen from afar.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok     ",
            Self::Failed => "FAILED ",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    pub(super) check: &'static str,
    /// Which of several: an address, a channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    pub(super) verdict: Verdict,
    pub(super) seen: String,
    #[serde(rename = "try", skip_serializing_if = "Vec::is_empty")]
    advice: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<PolicyProblem>,
}

impl Check {
    pub(super) fn new(check: &'static str, verdict: Verdict, seen: impl Into<String>) -> Self {
        Self { check, of: None, verdict, seen: seen.into(), advice: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, seen)
    }

    pub(super) fn failed(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, seen)
    }

    pub(super) fn unknown(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, seen)
    }

    pub(super) fn of(mut self, subject: impl Into<String>) -> Self {
        self.of = Some(subject.into());
        self
    }

    /// What to try.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    pub(super) fn with_problems(mut self, problems: &[PolicyProblem]) -> Self {
        self.problems = problems.to_vec();
        self
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    json: bool,
    ok: bool,
    side: &'static str,
    /// This machine's, to be compared with the other's.
    pub(super) clock: String,
    checks: Vec<Check>,
    pub(super) channels: Vec<Channel>,
    pub(super) visitors: Vec<Visitor>,
}

impl Report {
    pub(super) fn new(side: &'static str, json: bool) -> Self {
        let clock = clock();
        if !json {
            out!("netchan doctor, the {side}'s side; this machine's clock says {clock}");
        }
        Self { json, ok: true, side, clock, checks: Vec::new(), channels: Vec::new(), visitors: Vec::new() }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) fn add(&mut self, check: Check) {
        if !self.json {
            if check.of.is_some() && check.of != self.checks.last().and_then(|last| last.of.clone()) {
                out!("{}", plain(check.of.as_deref().unwrap_or_default()));
            }
            print!("{}", lines(&check));
        }
        self.ok &= check.verdict == Verdict::Ok;
        self.checks.push(check);
    }

    /// What belongs to the check before, for people only: programs find it in its own place.
    pub(super) fn detail(&self, line: &str) {
        if !self.json {
            out!("{:25}{}", "", plain(line));
        }
    }

    /// Prints what is to be printed at the end, and says whether all is in order.
    pub(super) fn finish(self) -> bool {
        if self.json {
            match serde_json::to_string(&self) {
                Ok(text) => out!("{text}"),
                Err(error) => {
                    eprintln!("netchan: {error}");
                    return false;
                }
            }
        } else {
            let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
            let [ok, failed, unknown] = [Verdict::Ok, Verdict::Failed, Verdict::Unknown].map(count);
            out!("{failed} failed, {unknown} unknown, {ok} ok");
        }
        self.ok
    }
}

/// This machine's time, to the second.
pub(super) fn clock() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn lines(check: &Check) -> String {
    let mut out = String::new();
    let mut heading = format!("{}  {:14}", check.verdict.label(), check.check);
    for line in check.seen.lines() {
        _ = writeln!(out, "{heading}  {}", plain(line));
        heading = " ".repeat(heading.chars().count());
    }
    for advice in &check.advice {
        _ = writeln!(out, "{:25}try: {}", "", plain(advice));
    }
    out
}

/// Some of it comes from the other end, which is not to write to this terminal what it likes.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_a_line_for_each_thing_to_say() {
        let check = Check::failed("policy", "p.toml:1:1: no\np.toml:2:1: no\u{1b}[2J").advise("another file");
        assert_eq!(
            lines(&check),
            "FAILED   policy          p.toml:1:1: no\n                         p.toml:2:1: no\\u{1b}[2J\n                         try: another file\n"
        );
    }
}
