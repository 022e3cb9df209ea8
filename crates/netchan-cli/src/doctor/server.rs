//! The server's side: what it goes by, and what that makes of a ticket and a peer.

use std::path::Path;
use std::time::{Duration, SystemTime};

use netchan::identity::AccessSecret;
use netchan::policy::{Explanation, PolicyPeer, PolicyRequest};
use netchan::{Fingerprint, Identity, Limits, Policy as _, PolicyFile, Ticket};

use super::report::{Check, Report, Verdict};
use super::{Given, Options, actions, client, visitors};
use crate::keys::{quoted, secrets};
use crate::text::{counted, grouped};

/// File systems keep coarser times than clocks.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// A name that any channel could have, where a question is about none.
const ANY_CHANNEL: &str = "any";

pub(super) async fn run(options: &Options, given: Option<Given>) -> Report {
    let mut report = Report::new("server", options.json);
    let path = options.identity.as_deref().unwrap_or(Path::new(""));
    let identity = Identity::load(path);
    report.add(match &identity {
        Ok(identity) => about_identity(path, identity),
        Err(error) => Check::failed("identity", error.to_string()),
    });
    report.add(clock(path, &report.clock));
    report.add(descriptors());
    let policy = options.policy.as_deref().map(|path| (path, PolicyFile::load(path)));
    if let Some((path, loaded)) = &policy {
        report.add(about_policy(path, loaded.as_ref()));
    }
    let mut holds_secret = options.ticket_holder;
    if let Some(given) = &given {
        report.add(client::about_ticket(given));
        if let (Ok(ticket), Ok(identity)) = (&given.ticket, &identity) {
            report.add(key(ticket, identity));
            report.add(secret(ticket, identity, options.admit_without_secret));
            holds_secret |= ticket.access_secret().is_some_and(|secret| place(secret, identity).is_some());
        }
    }
    if let Some(peer) = &options.peer {
        let checks = match policy {
            None => vec![without_policy(peer, holds_secret, options.admit_without_secret)],
            Some((_, Ok(ref policy))) => about_peer(options, policy, peer, holds_secret),
            Some((_, Err(_))) => vec![Check::unknown("peer", "the policy cannot be used").of(peer)],
        };
        checks.into_iter().for_each(|check| report.add(check));
    }
    if let Some(address) = &options.listen {
        match identity {
            Ok(identity) => visitors::receive(options, address, identity, &mut report).await,
            Err(_) => report.add(Check::unknown("listen", "not without the identity").of(address)),
        }
    }
    report
}

fn about_identity(path: &Path, identity: &Identity) -> Check {
    let (print, secrets) = (identity.fingerprint(), secrets(identity));
    Check::ok("identity", format!("{print}, {secrets}, {}for its owner only", mode(path)))
}

#[cfg(unix)]
fn mode(path: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = path.metadata().map(|found| found.permissions().mode() & 0o7777);
    mode.map_or(String::new(), |mode| format!("mode {mode:04o}, "))
}

#[cfg(not(unix))]
fn mode(_: &Path) -> String {
    String::new()
}

/// A clock can be seen to be wrong, and never to be right.
fn clock(identity: &Path, clock: &str) -> Check {
    let written = identity.metadata().and_then(|found| found.modified());
    let ahead = written.ok().and_then(|written| written.duration_since(SystemTime::now()).ok());
    match ahead.filter(|ahead| *ahead > CLOCK_SLACK) {
        Some(ahead) => Check::failed(
            "clock",
            format!(
                "it says {clock}, and the identity file was written {} s after that",
                grouped(ahead.as_secs())
            ),
        )
        .advise(
            "set the clock (timedatectl, chronyc tracking): clients whose clocks are right are turned away",
        ),
        None => Check::ok("clock", format!("it says {clock}; compare it with the client's (date -u)")),
    }
}

/// A server may be run with other limits than this shell's.
fn descriptors() -> Check {
    let limits = Limits::default();
    let [connections, sessions] = [limits.effective_connections_max(), limits.effective_sessions_max()]
        .map(|count| grouped(count as u64));
    let room = format!("by default {connections} connections and {sessions} sessions");
    let Some((soft, hard)) = descriptor_limits() else { return Check::ok("descriptors", room) };
    let check = Check::ok(
        "descriptors",
        format!("{} for a process of this shell: {room}", soft.map_or("without limit".to_owned(), grouped)),
    );
    match soft {
        Some(_) if limits.effective_sessions_max() < limits.sessions_max => {
            let hard = hard.map_or("any number".to_owned(), grouped);
            check.advise(format!(
                "for more: ulimit -n, up to {hard} here, or LimitNOFILE= of the service that runs the server"
            ))
        }
        _ => check,
    }
}

/// The soft limit and the hard one.
#[cfg(unix)]
fn descriptor_limits() -> Option<(Option<u64>, Option<u64>)> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Some((limit.current, limit.maximum))
}

#[cfg(not(unix))]
fn descriptor_limits() -> Option<(Option<u64>, Option<u64>)> {
    None
}

fn about_policy(path: &Path, loaded: Result<&PolicyFile, &netchan::policy::PolicyError>) -> Check {
    match loaded {
        Ok(policy) => {
            let [peers, rules] = [policy.peers(), policy.rules()].map(|count| count as u64);
            let (peers, rules) = (counted(peers, "peer"), counted(rules, "rule"));
            Check::ok("policy", format!("{}: {peers}, {rules}", path.display()))
        }
        Err(error) => Check::failed("policy", error.to_string())
            .with_problems(error.problems())
            .advise("mend it: a server does not start with it, and one that runs keeps the policy it has"),
    }
}

fn key(ticket: &Ticket, identity: &Identity) -> Check {
    if ticket.server_pin() == identity.server_pin() {
        return Check::ok("key", "the ticket pins this server's");
    }
    let (theirs, ours) = (client::pinned(ticket), identity.fingerprint());
    Check::failed("key", format!("the ticket pins {theirs}, and this server's is {ours}"))
        .advise("the identity that the ticket was made with, if this is the server meant; or a new ticket: netchan ticket")
}

/// Which of the server's access secrets that is, the current one first.
fn place(secret: &AccessSecret, identity: &Identity) -> Option<usize> {
    identity.access_secrets().iter().position(|known| known == secret)
}

fn secret(ticket: &Ticket, identity: &Identity, admits_without: bool) -> Check {
    const NAME: &str = "secret";
    let count = identity.access_secrets().len();
    let is_ours = ticket.server_pin() == identity.server_pin();
    match ticket.access_secret().map(|secret| place(secret, identity)) {
        Some(Some(0)) => Check::ok(NAME, format!("the current one of {count} in the file; a server that runs goes by what it last read")),
        Some(Some(place)) => Check::ok(
            NAME,
            format!("an older one, number {} of {count}: good until it is retired", place + 1),
        )
        .advise("a new ticket in time: netchan ticket"),
        Some(None) if is_ours => Check::failed(
            NAME,
            format!(
                "none of the file's {count}: it was retired or is another server's, and the client is turned away at the gate"
            ),
        )
        .advise("a new ticket: netchan ticket"),
        Some(None) => Check::failed(NAME, format!("none of this server's {count}: another server's")),
        None if !is_ours => Check::failed(
            NAME,
            "none, and the key pinned instead is not this server's: turned away at the gate",
        ),
        None if admits_without => {
            Check::ok(NAME, "none: the gate opens, and the policy has to name the client's key")
        }
        None => Check::failed(NAME, "none: the server turns it away at the gate")
            .advise("a ticket with an access secret: netchan ticket without --pin-only")
            .advise("--admit-without-secret here, if the server's program sets Config::admit_without_secret"),
    }
}

/// The policy of a server that was given none.
fn without_policy(peer: &str, holds_secret: bool, admits_without: bool) -> Check {
    let check = if holds_secret {
        Check::ok("peer", "it may do everything: there is no --policy, and it holds an access secret")
    } else if admits_without {
        Check::ok(
            "peer",
            "it may do everything: there is no --policy, and the server admits clients without a secret",
        )
    } else {
        no_secret("peer")
    };
    check.of(peer)
}

fn no_secret(name: &'static str) -> Check {
    Check::failed(name, "without an access secret it is turned away at the gate, whatever the policy says")
        .advise("--ticket-holder, or the ticket itself, if it comes with one")
        .advise("--admit-without-secret, if the server's program sets Config::admit_without_secret")
}

fn about_peer(options: &Options, policy: &PolicyFile, peer: &str, holds_secret: bool) -> Vec<Check> {
    let now = SystemTime::now();
    let channel = options.channel.as_deref();
    let explain = |action| policy.explain(peer, holds_secret, channel.unwrap_or(ANY_CHANNEL), action, now);
    let actions = actions(options.action);
    let explanations = match actions.iter().map(|action| explain(*action)).collect::<Result<Vec<_>, _>>() {
        Ok(explanations) => explanations,
        Err(error) => return vec![Check::failed("peer", error.to_string()).of(peer)],
    };
    let mut checks = Vec::new();
    let asking = explanations.first().map(|explanation| &explanation.peer);
    if let Some(Ok(key)) = asking.map(|asking| asking.fingerprint.parse::<Fingerprint>()) {
        if !holds_secret && !options.admit_without_secret {
            checks.push(no_secret("gate").of(peer));
        }
        let decision = policy.check(&PolicyPeer::new(key, holds_secret), &PolicyRequest::Connect, now);
        let about = asking.map(ToString::to_string).unwrap_or_default();
        checks.push(
            verdict("connect", decision.is_allowed(), &format!("{}; it is {about}", decision.why())).of(peer),
        );
    }
    let Some(channel) = channel else { return checks };
    // What it may not do is no fault, unless that was asked for; what it may do neither way is.
    let allowed = explanations.iter().any(|explanation| explanation.allowed);
    let seen: Vec<_> = explanations.iter().map(decision).collect();
    let check = Check::new("channel", if allowed { Verdict::Ok } else { Verdict::Failed }, seen.join("\n"));
    let [file, name, of] = [policy.name(), peer, channel].map(|text| quoted(text.as_ref()));
    let every_rule = format!("netchan policy explain {file} --peer {name} --channel {of}");
    checks.push(check.of(peer).advise(format!("for what each rule says: {every_rule}")));
    checks
}

/// `recv jobs: allowed: rule 3 (policy.toml:14)`, and the rule.
fn decision(explanation: &Explanation) -> String {
    let verdict = if explanation.allowed { "allowed" } else { "denied" };
    let rule = explanation
        .decided_by
        .as_ref()
        .map(|rule| format!("\n  {}", rule.text.trim_end().replace('\n', "\n  ")));
    let Explanation { action, channel, why, .. } = explanation;
    format!("{action} {channel}: {verdict}: {why}{}", rule.unwrap_or_default())
}

fn verdict(name: &'static str, allowed: bool, seen: &str) -> Check {
    if allowed {
        Check::ok(name, format!("allowed: {seen}"))
    } else {
        Check::failed(name, format!("denied: {seen}"))
    }
}
