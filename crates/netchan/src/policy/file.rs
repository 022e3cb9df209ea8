//! A policy of peers and rules.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use toml::de::DeTable;

use super::error::PolicyError;
use super::link::{Linked, Peer, Rule, Who, link};
use super::nesting::too_deep;
use super::read::Reader;
use super::source::{Problems, Source};
use super::{Decision, OpenBound, Policy, PolicyPeer, PolicyRequest};
use crate::identity::Fingerprint;

/// Bytes of a policy file: ten thousand peers fit. What is longer is something else, and is not read.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Peers of a policy file: about as many as fit into it.
pub const PEERS_MAX: usize = 10_000;

/// Rules of a policy file: each open may look at all of them.
pub const RULES_MAX: usize = 1_000;

/// A policy of peers and rules, as [the module](super) describes it.
pub struct PolicyFile {
    name: String,
    pub(super) linked: Linked,
    /// Every moment at which a key expires, in order.
    expiries: Vec<SystemTime>,
}

/// What the rules say of one request. Rules are meant by their places.
pub(super) enum Verdict {
    /// The peer's key is named here, and its time is over.
    Expired(usize),
    /// The first rule that denies, if any does; otherwise none allows.
    Denied(Option<usize>),
    /// Every rule that allows, at least one, in order.
    Allowed(Vec<usize>),
}

impl PolicyFile {
    /// Reads a policy from its file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, and as [`parse`](Self::parse).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let path = path.as_ref();
        let failed = |source| PolicyError::Io { path: path.to_owned(), source };
        // Before opening, which would wait for ever at a pipe.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(PolicyError::NotAFile { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
            if mode & 0o002 != 0 {
                return Err(PolicyError::TooOpen { path: path.to_owned(), mode });
            }
        }
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let name = path.display().to_string();
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &name),
            // A character cut in two by the limit is not the mistake.
            Err(_) if bytes.len() > FILE_BYTES_MAX => Err(PolicyError::TooLong { name }),
            Err(error) => {
                let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
                let source = Source::new(&name, valid);
                let mut problems = Problems::new(&source);
                problems.add(valid.len(), || "not text in UTF-8; save the file as UTF-8".to_owned());
                Err(problems.into_error())
            }
        }
    }

    /// Reads a policy from a text; `name` is what errors and decisions call it, such as `policy.toml`.
    ///
    /// # Errors
    ///
    /// When the text is not TOML, the first mistake; otherwise every mistake that can be found. A blank text is one: it is
    /// more likely a file that is just being written than a policy that denies everything.
    // POL-7
    pub fn parse(text: &str, name: &str) -> Result<Self, PolicyError> {
        // POL-8
        if text.len() > FILE_BYTES_MAX {
            return Err(PolicyError::TooLong { name: name.to_owned() });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source::new(name, text);
        let mut problems = Problems::new(&source);
        if text.trim().is_empty() {
            problems.add(0, || {
                "there is nothing here; a policy that denies everything has at least a comment".to_owned()
            });
            return Err(problems.into_error());
        }
        if let Some(at) = too_deep(text) {
            problems
                .add(at, || "nested deeper than any policy; look for a bracket that is missing".to_owned());
            return Err(problems.into_error());
        }
        let root = match DeTable::parse(text) {
            Ok(root) => root,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                problems.add(at, || error.message().to_owned());
                return Err(problems.into_error());
            }
        };
        let (peers, rules) = Reader { source: &source, problems: &mut problems }.document(root.get_ref());
        let linked = link(&source, &mut problems, peers, rules);
        if !problems.is_empty() {
            return Err(problems.into_error());
        }
        let mut expiries: Vec<_> =
            linked.peers.iter().filter_map(|peer| peer.expires.as_ref()).map(|expiry| expiry.at).collect();
        expiries.sort_unstable();
        Ok(Self { name: name.to_owned(), linked, expiries })
    }

    /// What it is called in errors and decisions: the path it was loaded from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many peers it names.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.linked.peers.len()
    }

    /// How many rules it has.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.linked.rules.len()
    }

    /// What it calls a key.
    #[must_use]
    pub fn peer_name(&self, key: &Fingerprint) -> Option<&str> {
        self.linked.by_key.get(key).map(|peer| self.linked.peers[*peer].name.as_str())
    }

    pub(super) fn rule(&self, index: usize) -> &Rule {
        &self.linked.rules[index]
    }

    pub(super) fn peer_of(&self, key: &Fingerprint) -> Option<(usize, &Peer)> {
        self.linked.by_key.get(key).map(|index| (*index, &self.linked.peers[*index]))
    }

    /// The rules that are about a peer, in order.
    pub(super) fn about(&self, peer: &PolicyPeer) -> Vec<usize> {
        let named = self.peer_of(&peer.fingerprint).map_or(&[][..], |(_, named)| &named.is);
        let ticket = peer.has_access_secret.then_some(Who::Ticket);
        let who = named.iter().copied().chain([Who::Everyone]).chain(ticket);
        let mut rules: Vec<_> =
            who.filter_map(|who| self.linked.about.get(&who)).flatten().copied().collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    pub(super) fn judge(&self, peer: &PolicyPeer, request: &PolicyRequest<'_>, now: SystemTime) -> Verdict {
        // POL-4: before any rule is looked at.
        if let Some((index, named)) = self.peer_of(&peer.fingerprint)
            && named.is_expired(now)
        {
            return Verdict::Expired(index);
        }
        let about = self.about(peer);
        let PolicyRequest::Open { channel, action } = *request else {
            // POL-5
            let allowing = about.into_iter().find(|index| !self.rule(*index).allow.is_empty());
            return allowing.map_or(Verdict::Denied(None), |index| Verdict::Allowed(vec![index]));
        };
        let mut allowing = Vec::new();
        for index in about {
            let rule = self.rule(index);
            let (denies, allows) = (rule.deny.has(action), rule.allow.has(action));
            if !(denies || allows) || !rule.covers(channel) {
                continue;
            }
            // POL-2
            if denies {
                return Verdict::Denied(Some(index));
            }
            allowing.push(index);
        }
        // POL-1
        if allowing.is_empty() { Verdict::Denied(None) } else { Verdict::Allowed(allowing) }
    }

    /// What decides, for people.
    pub(super) fn why(&self, verdict: &Verdict, request: &PolicyRequest<'_>) -> String {
        match verdict {
            Verdict::Expired(index) => {
                let peer = &self.linked.peers[*index];
                let expired = peer.expires.as_ref().map_or("", |expiry| &expiry.text);
                format!("peer {} expired {expired} ({}:{})", peer.name, self.name, peer.line)
            }
            Verdict::Denied(Some(index)) => self.rule(*index).label.clone(),
            Verdict::Denied(None) => match request {
                PolicyRequest::Open { .. } => format!("no rule of {} allows it", self.name),
                _ => format!("no rule of {} allows this peer anything", self.name),
            },
            Verdict::Allowed(rules) => {
                rules.first().map(|index| self.rule(*index).label.clone()).unwrap_or_default()
            }
        }
    }

    /// The bounds of the rules that allow, each its own.
    // POL-3
    pub(super) fn bounds(&self, rules: &[usize]) -> Vec<OpenBound> {
        let bound = |index: &usize| {
            let rule = self.rule(*index);
            let max_open = rule.max_open?;
            Some(OpenBound { id: *index as u64, max_open, rule: rule.label.clone() })
        };
        rules.iter().filter_map(bound).collect()
    }
}

impl Policy for PolicyFile {
    fn check(&self, peer: &PolicyPeer, request: &PolicyRequest<'_>, now: SystemTime) -> Decision {
        let verdict = self.judge(peer, request, now);
        let why = self.why(&verdict, request);
        match (verdict, request) {
            (Verdict::Allowed(rules), PolicyRequest::Open { .. }) => {
                Decision::Allow { why, bounds: self.bounds(&rules) }
            }
            (Verdict::Allowed(_), _) => Decision::allow(why),
            (Verdict::Expired(_) | Verdict::Denied(_), _) => Decision::deny(why),
        }
    }

    fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        self.expiries.get(self.expiries.partition_point(|expiry| *expiry <= now)).copied()
    }
}

impl fmt::Debug for PolicyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyFile({}, {} peers, {} rules)", self.name, self.peers(), self.rules())
    }
}

impl Peer {
    /// Its time is over from the very moment on.
    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.as_ref().is_some_and(|expiry| now >= expiry.at)
    }
}

impl Rule {
    pub(super) fn covers(&self, channel: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(channel))
    }
}
