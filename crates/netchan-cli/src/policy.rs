//! `netchan policy`: checks a policy file, and explains what it decides.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use netchan::policy::{Action, PolicyFile, parse_time};
use serde_json::json;

use crate::Failure;
use crate::text::counted;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Say whether a policy file is good, and where it is not
    Check(Check),
    /// Say whether a peer may use a channel, and which rule decides
    Explain(Explain),
}

#[derive(Args, Clone, Debug)]
struct Check {
    /// The policy file
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct Explain {
    /// The policy file
    file: PathBuf,
    /// A peer's name in the file, or a key's fingerprint, SHA256:…
    #[arg(long)]
    peer: String,
    /// The name of a channel
    #[arg(long)]
    channel: String,
    /// What the peer does with the channel [default: both]
    #[arg(long)]
    action: Option<Asked>,
    /// The peer comes with a ticket
    #[arg(long)]
    ticket: bool,
    /// When: 2027-01-01, or 2027-01-01T18:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<SystemTime>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Asked {
    Send,
    Recv,
}

/// Whether the file was good, or the question could be answered, whatever the answer.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    match &options.command {
        Command::Check(options) => Ok(check(options)),
        Command::Explain(options) => explain(options),
    }
}

fn check(options: &Check) -> bool {
    let loaded = PolicyFile::load(&options.file);
    match &loaded {
        _ if options.json => out!("{}", found(&loaded)),
        Ok(policy) => {
            let [peers, rules] = [policy.peers(), policy.rules()].map(|count| count as u64);
            let note = if rules == 0 { "; without a rule that allows, nobody may connect" } else { "" };
            out!("ok: {}, {}{note}", counted(peers, "peer"), counted(rules, "rule"));
        }
        Err(error) => eprintln!("{error}"),
    }
    loaded.is_ok()
}

fn found(loaded: &Result<PolicyFile, netchan::policy::PolicyError>) -> serde_json::Value {
    match loaded {
        Ok(policy) => json!({ "ok": true, "peers": policy.peers(), "rules": policy.rules(), "problems": [] }),
        Err(error) => json!({ "ok": false, "problems": error.problems(), "error": error.to_string() }),
    }
}

fn explain(options: &Explain) -> Result<bool, Failure> {
    let policy = match PolicyFile::load(&options.file) {
        Ok(policy) => policy,
        Err(error) => {
            eprintln!("{error}");
            return Ok(false);
        }
    };
    let actions = match options.action {
        None => &[Action::Send, Action::Receive][..],
        Some(Asked::Send) => &[Action::Send],
        Some(Asked::Recv) => &[Action::Receive],
    };
    let at = options.at.unwrap_or_else(SystemTime::now);
    let explain =
        |action: &Action| policy.explain(&options.peer, options.ticket, &options.channel, *action, at);
    let explanations = actions.iter().map(explain).collect::<Result<Vec<_>, _>>()?;
    if options.json {
        out!("{}", json!({ "explanations": explanations }));
    } else {
        let texts: Vec<_> = explanations.iter().map(ToString::to_string).collect();
        out!("{}", texts.join("\n\n"));
    }
    Ok(true)
}
