//! Why a policy file decides as it does.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::error::ExplainError;
use super::file::{PolicyFile, Verdict};
use super::link::Rule;
use super::source::nearest;
use super::time::format_time;
use super::{Action, PolicyPeer, PolicyRequest};
use crate::identity::Fingerprint;
use crate::names::check_name;

/// What a policy says of one open, and why. Its text is for people, its serialisation for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The name of the policy file.
    pub policy: String,
    /// Who asks.
    pub peer: ExplainedPeer,
    /// The channel.
    pub channel: String,
    /// `send` or `recv`, seen from the peer.
    pub action: &'static str,
    /// The time in question, in RFC 3339.
    pub at: String,
    /// The verdict.
    pub allowed: bool,
    /// What decided, as in [`Decision::why`](super::Decision::why).
    pub why: String,
    /// The rule that decided; none where nothing allows it, or the key's time is over.
    pub decided_by: Option<ExplainedRule>,
    /// How many channels may be open at once; each of them holds.
    pub bounds: Vec<ExplainedBound>,
    /// Whether the peer may have a session at all.
    pub may_connect: bool,
    /// Every other rule, and why it did not decide.
    pub other_rules: Vec<ExplainedRule>,
}

/// A peer as a policy file sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedPeer {
    /// Its name in the file, if it has one.
    pub name: Option<String>,
    /// Its key.
    pub fingerprint: String,
    /// Whether it came in with an access secret.
    pub has_access_secret: bool,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// When its key expires, as the file writes it.
    pub expires: Option<String>,
    /// Whether that time is over.
    pub expired: bool,
}

/// A rule and its part in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedRule {
    /// Its number, from 1 on.
    pub number: usize,
    /// The line it starts at.
    pub line: usize,
    /// Its text in the file.
    pub text: String,
    /// What it did, or why it did nothing.
    pub why: String,
}

/// A bound of an open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedBound {
    /// The number of the rule it stands in, from 1 on.
    pub rule: usize,
    /// Where that rule starts.
    pub line: usize,
    /// How many channels of one key the rule allows at once.
    pub max_open: usize,
}

impl PolicyFile {
    /// Says whether a peer may open a channel, and why.
    ///
    /// `peer` is a name of the file, or any key's fingerprint.
    ///
    /// # Errors
    ///
    /// When the file has no such peer, the fingerprint is none, or no channel can have such a name.
    pub fn explain(
        &self,
        peer: &str,
        has_access_secret: bool,
        channel: &str,
        action: Action,
        now: SystemTime,
    ) -> Result<Explanation, ExplainError> {
        if let Some(reason) = check_name(channel) {
            return Err(ExplainError::NotAName { name: channel.chars().take(256).collect(), reason });
        }
        let asking = PolicyPeer::new(self.resolve(peer)?, has_access_secret);
        let request = PolicyRequest::Open { channel, action };
        let verdict = self.judge(&asking, &request, now);
        let may_connect = matches!(self.judge(&asking, &PolicyRequest::Connect, now), Verdict::Allowed(_));
        let (decided, bounds) = match &verdict {
            Verdict::Expired(_) => (None, Vec::new()),
            Verdict::Denied(rule) => (*rule, Vec::new()),
            Verdict::Allowed(rules) => (rules.first().copied(), self.bounds(rules)),
        };
        let about = self.about(&asking);
        let explained = |(index, rule): (usize, &Rule)| {
            let is_about = about.binary_search(&index).is_ok();
            let why = match &verdict {
                Verdict::Expired(_) => "not looked at, since the key's time is over".to_owned(),
                _ if !is_about => format!("is about {}, and this peer is not", list(&rule.who)),
                _ if !rule.covers(channel) => format!("is about {}", list(&rule.patterns)),
                _ if rule.deny.has(action) && decided == Some(index) => "denies it".to_owned(),
                _ if rule.deny.has(action) => "denies it too, after another".to_owned(),
                _ if !rule.allow.has(action) => format!("says nothing of {action}"),
                Verdict::Denied(_) => "allows it, but what denies wins".to_owned(),
                _ if decided == Some(index) => "allows it".to_owned(),
                _ => "allows it too, after another".to_owned(),
            };
            ExplainedRule { number: index + 1, line: rule.line, text: rule.text.clone(), why }
        };
        let (deciding, other_rules): (Vec<_>, Vec<_>) = (self.linked.rules.iter().enumerate())
            .map(explained)
            .partition(|rule| decided.is_some_and(|index| rule.number == index + 1));
        Ok(Explanation {
            policy: self.name().to_owned(),
            peer: self.explained_peer(&asking, now),
            channel: channel.to_owned(),
            action: action.as_str(),
            at: format_time(now),
            allowed: matches!(verdict, Verdict::Allowed(_)),
            why: self.why(&verdict, &request),
            decided_by: deciding.into_iter().next(),
            bounds: bounds
                .into_iter()
                .map(|bound| self.explained_bound(bound.id as usize, bound.max_open))
                .collect(),
            may_connect,
            other_rules,
        })
    }

    /// A name of the file, or a fingerprint.
    fn resolve(&self, peer: &str) -> Result<Fingerprint, ExplainError> {
        if let Some(index) = self.linked.by_name.get(peer) {
            return Ok(self.linked.peers[*index].key);
        }
        // What is quoted in an error must not become a wall of text.
        let quoted = || peer.chars().take(256).collect();
        if peer.starts_with("SHA256:") {
            return peer.parse().map_err(|_| ExplainError::NotAFingerprint { text: quoted() });
        }
        let near = nearest(peer, self.linked.peers.iter().map(|peer| peer.name.as_str()));
        let (policy, suggestion) = (self.name().to_owned(), near.map(str::to_owned));
        Err(ExplainError::UnknownPeer { name: quoted(), policy, suggestion })
    }

    fn explained_peer(&self, peer: &PolicyPeer, now: SystemTime) -> ExplainedPeer {
        let named = self.peer_of(&peer.fingerprint).map(|(_, named)| named);
        ExplainedPeer {
            name: named.map(|named| named.name.clone()),
            fingerprint: peer.fingerprint.to_string(),
            has_access_secret: peer.has_access_secret,
            groups: named.map(|named| named.groups.clone()).unwrap_or_default(),
            expires: named.and_then(|named| named.expires.as_ref()).map(|expiry| expiry.text.clone()),
            expired: named.is_some_and(|named| named.is_expired(now)),
        }
    }

    fn explained_bound(&self, rule: usize, max_open: usize) -> ExplainedBound {
        ExplainedBound { rule: rule + 1, line: self.rule(rule).line, max_open }
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("{:?}", item.to_string())).collect();
    items.join(", ")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.peer.name.as_deref().unwrap_or(&self.peer.fingerprint);
        let verdict = if self.allowed { "allowed" } else { "denied" };
        let may = if self.allowed { "may" } else { "may not" };
        let does = if self.action == Action::Send.as_str() { "send into" } else { "receive from" };
        writeln!(f, "{verdict}: {who} {may} {does} {:?}", self.channel)?;
        match &self.decided_by {
            Some(rule) => {
                writeln!(f, "  {} {}:", self.why, rule.why)?;
                for line in rule.text.lines() {
                    writeln!(f, "    {}", line.trim_end())?;
                }
            }
            None => writeln!(f, "  {}", self.why)?,
        }
        for bound in &self.bounds {
            let ExplainedBound { rule, line, max_open } = bound;
            writeln!(
                f,
                "  at most {max_open} open at once for this key: rule {rule} ({}:{line})",
                self.policy
            )?;
        }
        writeln!(f, "  peer: {}", self.peer)?;
        let session = if self.may_connect { "may connect" } else { "may not connect" };
        write!(f, "  session: {session}; all at {}", self.at)?;
        for rule in &self.other_rules {
            write!(f, "\n  rule {} ({}:{}): {}", rule.number, self.policy, rule.line, rule.why)?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint)?;
        f.write_str(if self.name.is_some() { "" } else { ", which no [peer] names" })?;
        if !self.groups.is_empty() {
            write!(f, ", in {}", list(&self.groups))?;
        }
        if let Some(expires) = &self.expires {
            write!(f, ", {} {expires}", if self.expired { "expired" } else { "expires" })?;
        }
        f.write_str(if self.has_access_secret {
            ", with an access secret"
        } else {
            ", without an access secret"
        })
    }
}
