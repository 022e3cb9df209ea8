//! A server in the place of another, which says what becomes of each visitor.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::time::Duration;

use netchan::{Config, Identity, ListenError, PolicySource, listen_and_serve};
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::Options;
use super::report::{Check, Report, Verdict, clock, plain};

/// What is kept for the report. A stranger may come as often as it likes.
const VISITORS_MAX: usize = 1_000;

/// Events on their way from the server to the report, some kilobytes in all; those that find no room are counted.
const EVENTS_MAX: usize = 1_024;

const AUDIT: &str = "netchan::audit";

/// One line of the server's audit.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Visitor {
    at: String,
    event: String,
    verdict: Verdict,
    /// Why it was turned away, in one word: `gate`, `clock`, `pin`, `replay`, or else `handshake`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    /// All that the audit says of it.
    #[serde(flatten)]
    fields: BTreeMap<&'static str, String>,
}

impl Visitor {
    fn new(mut fields: BTreeMap<&'static str, String>) -> Self {
        let event = fields.remove("event").unwrap_or_default();
        let reason = fields.get("reason").map(String::as_str).unwrap_or_default();
        let cause = (event == "turned away").then(|| cause_of(reason));
        let verdict = match event.as_str() {
            "let in" | "open allowed" | "policy replaced" => Verdict::Ok,
            _ => Verdict::Failed,
        };
        Self { at: clock(), event, verdict, cause, fields }
    }

    fn line(&self) -> String {
        let mut line = format!("{} {}  {}", self.verdict.label(), self.at, self.event);
        // Who, from where, what, and why; the rest is for programs.
        for name in ["client", "address", "source", "action", "channel", "from"] {
            if let Some(value) = self.fields.get(name) {
                line = format!("{line} {value}");
            }
        }
        match self.fields.get("reason") {
            Some(reason) => format!("{line}: {reason}"),
            None => line,
        }
    }
}

fn cause_of(reason: &str) -> &'static str {
    let first = reason.split_once(':').map_or("", |(first, _)| first);
    let known = ["gate", "clock", "pin", "replay"];
    known.into_iter().find(|cause| *cause == first).unwrap_or("handshake")
}

/// Hears the server's audit and nothing else.
struct Audit(mpsc::Sender<Visitor>);

impl Subscriber for Audit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == AUDIT
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Whoever floods the port sees to it that lines are lost, and that nothing else is.
        _ = self.0.try_send(Visitor::new(fields.0));
    }

    // Spans are not enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// Listens in the server's place until its time is over.
pub(super) async fn receive(options: &Options, address: &str, identity: Identity, report: &mut Report) {
    let mut config = Config::with_identity(identity);
    config.admit_without_secret = options.admit_without_secret;
    config.session_lifetime = Duration::ZERO;
    if let Some(policy) = &options.policy {
        config.policy = PolicySource::File(policy.clone());
    }
    let (audit, mut events) = mpsc::channel(EVENTS_MAX);
    if tracing::subscriber::set_global_default(Audit(audit)).is_err() {
        return report
            .add(Check::unknown("listen", "somebody else hears the audit of this process").of(address));
    }
    let server = match listen_and_serve(address, config).await {
        Ok(server) => server,
        Err(error) => {
            let check = Check::failed("listen", error.to_string()).of(address);
            let is_taken = matches!(error, ListenError::Listen(_));
            return report.add(if is_taken {
                check.advise("stop the server first: this listens in its place")
            } else {
                check
            });
        }
    };
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut over = std::pin::pin!(tokio::time::sleep(Duration::from_secs(options.seconds)));
    let listening = server.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    eprintln!("listening on {listening} for {} s; Ctrl-C ends it sooner", options.seconds);
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupted => break,
            () = &mut over => break,
            Some(visitor) = events.recv() => tally.note(visitor, report.is_json()),
        }
    }
    drop(server);
    while let Ok(visitor) = events.try_recv() {
        tally.note(visitor, report.is_json());
    }
    report.add(tally.check().of(listening));
    report.visitors = tally.last.into();
}

/// Who came, in all.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    failed: bool,
    last: VecDeque<Visitor>,
}

impl Tally {
    fn note(&mut self, visitor: Visitor, quietly: bool) {
        if !quietly {
            out!("{}", plain(&visitor.line()));
        }
        let what =
            visitor.cause.map_or(visitor.event.clone(), |cause| format!("{} ({cause})", visitor.event));
        *self.counts.entry(what).or_default() += 1;
        self.failed |= visitor.verdict == Verdict::Failed;
        if self.last.len() == VISITORS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(visitor);
    }

    fn check(&self) -> Check {
        if self.counts.is_empty() {
            return Check::unknown("visitors", "nobody came")
                .advise("dial from the client while this listens; if it is seen to connect and nobody comes here, it dials somewhere else");
        }
        let each: Vec<_> = self.counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        Check::new("visitors", if self.failed { Verdict::Failed } else { Verdict::Ok }, each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_begin_with_their_cause() {
        for (reason, cause) in [
            ("gate: no access secret of this server made it", "gate"),
            ("clock: the access secret is right, and", "clock"),
            ("tls: invalid certificate", "handshake"),
            ("the connection ended during the handshake", "handshake"),
        ] {
            assert_eq!(cause_of(reason), cause, "{reason}");
        }
    }
}
