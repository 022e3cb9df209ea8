//! Policies in short.

use std::time::SystemTime;

use netchan::Fingerprint;
use netchan::policy::{Action, Decision, PolicyFile, PolicyPeer, PolicyRequest, parse_time};

pub fn key(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

pub fn time(text: &str) -> SystemTime {
    parse_time(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn good(text: &str) -> PolicyFile {
    PolicyFile::parse(text, "p.toml").unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// The mistakes in a text, as `line:column message`.
pub fn mistakes(text: &str) -> Vec<String> {
    let error = PolicyFile::parse(text, "p.toml").expect_err(text);
    error.problems().iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect()
}

pub fn open(channel: &str, action: Action) -> PolicyRequest<'_> {
    PolicyRequest::Open { channel, action }
}

/// Rules in short, such as `workers jobs.* +recv -send <4`, as TOML beside three peers.
pub fn policy(rules: &[&str]) -> PolicyFile {
    let mut text = format!(
        "[peer.ann]\nkey = \"{}\"\ngroups = [\"workers\", \"night\"]\n[peer.bob]\nkey = \"{}\"\ngroups = [\"idle\"]\n\
         [peer.old]\nkey = \"{}\"\ngroups = [\"workers\"]\nexpires = 2020-01-01\n",
        key(1),
        key(2),
        key(3)
    );
    for rule in rules {
        let mut words = rule.split(' ');
        let mut word = || words.next().expect("who and channel");
        let quoted =
            |list: &str| list.split(',').map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
        let (who, channel) = (quoted(word()), quoted(word()));
        text += &format!("[[rule]]\nwho = [{who}]\nchannel = [{channel}]\n");
        for word in words {
            text += &match word.split_at(1) {
                ("+", actions) => format!("allow = [{}]\n", quoted(actions)),
                ("-", actions) => format!("deny = [{}]\n", quoted(actions)),
                (_, bound) => format!("max_open = {bound}\n"),
            };
        }
    }
    good(&text)
}

/// A peer of `policy`, or a stranger; with `+` behind its name it holds a ticket.
pub fn peer(name: &str) -> PolicyPeer {
    let (name, ticket) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
    let number = match name {
        "ann" => 1,
        "bob" => 2,
        "old" => 3,
        "stranger" => 9,
        other => panic!("{other}"),
    };
    PolicyPeer::new(key(number), ticket)
}

/// `+2`: allowed by rule 2; `-1`: denied by rule 1; `-`: nothing allows it.
pub fn shown(decision: &Decision) -> String {
    let sign = if decision.is_allowed() { "+" } else { "-" };
    let number = decision.why().strip_prefix("rule ").and_then(|rest| rest.split(' ').next());
    format!("{sign}{}", number.unwrap_or_default())
}
