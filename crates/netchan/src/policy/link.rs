//! Resolves the names of a policy file: who is who, and which rules speak of whom.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use netchan_proto::limits::NAME_BYTES_MAX;

use super::file::{PEERS_MAX, RULES_MAX};
use super::pattern::Pattern;
use super::read::{Actions, Expiry, ReadPeer, ReadRule, Text};
use super::source::{Problems, Source, did_you_mean, quote};
use crate::identity::Fingerprint;

/// Group names that a message lists.
const GROUPS_LISTED_MAX: usize = 20;

const GROUP: &str = "group:";
const TICKET: &str = "ticket";
const EVERYONE: &str = "everyone";

/// Whom a rule is about; a peer is several of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Everyone,
    Ticket,
    Peer(usize),
    Group(usize),
}

pub(super) struct Peer {
    pub(super) name: String,
    pub(super) key: Fingerprint,
    pub(super) groups: Vec<String>,
    pub(super) expires: Option<Expiry>,
    pub(super) line: usize,
    /// Itself and its groups.
    pub(super) is: Vec<Who>,
}

pub(super) struct Rule {
    /// Such as `rule 3 (policy.toml:14)`.
    pub(super) label: String,
    pub(super) line: usize,
    pub(super) text: String,
    /// As the file writes them.
    pub(super) who: Vec<String>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) allow: Actions,
    pub(super) deny: Actions,
    pub(super) max_open: Option<usize>,
}

/// A policy with its names resolved. Rules and peers are known by their places.
pub(super) struct Linked {
    pub(super) peers: Vec<Peer>,
    pub(super) rules: Vec<Rule>,
    pub(super) by_key: HashMap<Fingerprint, usize>,
    pub(super) by_name: HashMap<String, usize>,
    /// The rules that are about somebody, in ascending order.
    pub(super) about: HashMap<Who, Vec<usize>>,
}

/// Whatever cannot be resolved becomes a problem, and what comes back is then of no use.
pub(super) fn link(
    source: &Source<'_>,
    problems: &mut Problems<'_>,
    peers: Vec<ReadPeer>,
    rules: Vec<ReadRule>,
) -> Linked {
    if let Some(peer) = peers.get(PEERS_MAX) {
        let message = || format!("more than {PEERS_MAX} peers; give several machines one key, or tickets");
        problems.add(peer.name.at, message);
    }
    if let Some(rule) = rules.get(RULES_MAX) {
        let message = || format!("more than {RULES_MAX} rules; join some by groups and lists of patterns");
        problems.add(rule.range.start, message);
    }
    let mut linker = Linker { source, problems, names: HashMap::new(), groups: HashMap::new() };
    let (peers, by_key) = linker.peers(peers);
    let (rules, about) = linker.rules(rules);
    Linked { peers, rules, by_key, by_name: linker.names, about }
}

struct Linker<'l, 's> {
    source: &'l Source<'l>,
    problems: &'l mut Problems<'s>,
    names: HashMap<String, usize>,
    groups: HashMap<String, usize>,
}

impl Linker<'_, '_> {
    fn peers(&mut self, read: Vec<ReadPeer>) -> (Vec<Peer>, HashMap<Fingerprint, usize>) {
        let mut peers = Vec::<Peer>::new();
        let mut by_key = HashMap::new();
        for (index, peer) in read.into_iter().enumerate() {
            self.peer_name(&peer.name);
            self.names.insert(peer.name.text.clone(), index);
            let mut is = vec![Who::Peer(index)];
            for group in &peer.groups {
                self.group_name(group);
                let next = self.groups.len();
                is.push(Who::Group(*self.groups.entry(group.text.clone()).or_insert(next)));
            }
            let line = self.source.line(peer.name.at);
            if let Some((key, at)) = peer.key {
                match by_key.entry(key) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(index);
                    }
                    Entry::Occupied(first) => {
                        let first: &Peer = &peers[*first.get()];
                        self.problems.add(at, || {
                            let Peer { name, line, .. } = first;
                            format!("peer {} has the same key (line {line}); a key has one name", quote(name))
                        });
                    }
                }
            }
            peers.push(Peer {
                name: peer.name.text,
                // Where there is none the policy is refused.
                key: peer.key.map_or(Fingerprint([0; 32]), |(key, _)| key),
                groups: peer.groups.into_iter().map(|group| group.text).collect(),
                expires: peer.expires,
                line,
                is,
            });
        }
        (peers, by_key)
    }

    fn peer_name(&mut self, name: &Text) {
        if [TICKET, EVERYONE].contains(&name.text.as_str()) {
            let message =
                || format!("a peer cannot be called {:?}, which means something else in `who`", name.text);
            self.problems.add(name.at, message);
        }
        self.name("a peer", name);
    }

    fn group_name(&mut self, name: &Text) {
        if let Some(group) = name.text.strip_prefix(GROUP) {
            let message = || format!("write {} here; only `who` has {GROUP:?} before it", quote(group));
            self.problems.add(name.at, message);
        } else {
            self.name("a group", name);
        }
    }

    fn name(&mut self, what: &str, name: &Text) {
        let wrong = if name.text.is_empty() {
            "has a name that is not empty"
        } else if name.text.len() > NAME_BYTES_MAX {
            "has a name of at most 255 bytes"
        } else if name.text.contains(':') {
            "has no colon in its name"
        } else if name.text.chars().any(char::is_control) {
            "has no control characters in its name"
        } else {
            return;
        };
        self.problems.add(name.at, || format!("{what} {wrong}; give {} another one", quote(&name.text)));
    }

    fn rules(&mut self, read: Vec<ReadRule>) -> (Vec<Rule>, HashMap<Who, Vec<usize>>) {
        let mut rules = Vec::new();
        let mut about = HashMap::<Who, Vec<usize>>::new();
        for (index, rule) in read.into_iter().enumerate() {
            for who in rule.who.iter().filter_map(|text| self.who(text)) {
                about.entry(who).or_default().push(index);
            }
            let line = self.source.line(rule.range.start);
            rules.push(Rule {
                label: format!("rule {} ({}:{line})", index + 1, self.source.name()),
                line,
                text: self.source.text().get(rule.range).unwrap_or_default().to_owned(),
                who: rule.who.into_iter().map(|text| text.text).collect(),
                patterns: rule.patterns,
                allow: rule.allow,
                deny: rule.deny,
                max_open: rule.max_open,
            });
        }
        (rules, about)
    }

    fn who(&mut self, text: &Text) -> Option<Who> {
        let who = text.text.as_str();
        let found = match (who, who.strip_prefix(GROUP)) {
            (TICKET, _) => Some(Who::Ticket),
            (EVERYONE, _) => Some(Who::Everyone),
            (_, Some(group)) => self.groups.get(group).copied().map(Who::Group),
            (name, None) => self.names.get(name).copied().map(Who::Peer),
        };
        if found.is_none() {
            let Self { names, groups, .. } = self;
            self.problems.add(text.at, || unknown(who, names, groups));
        }
        found
    }
}

/// What to say of somebody in `who` whom nobody knows.
fn unknown(who: &str, names: &HashMap<String, usize>, groups: &HashMap<String, usize>) -> String {
    if let Some(group) = who.strip_prefix(GROUP) {
        let near = did_you_mean(group, groups.keys().map(String::as_str));
        return format!("no peer is in a group {}{near} {}", quote(group), listed(groups));
    }
    if groups.contains_key(who) {
        return format!("no peer {}; for the group, write {}", quote(who), quote(&format!("{GROUP}{who}")));
    }
    if who.starts_with("SHA256:") {
        return "a key needs a name here: add [peer.NAME] with this key, and write NAME".to_owned();
    }
    let known = [TICKET, EVERYONE].into_iter().chain(names.keys().map(String::as_str));
    match did_you_mean(who, known) {
        near if near.is_empty() => {
            format!(
                "no peer {}; add [peer.NAME], or write \"{GROUP}NAME\", {TICKET:?} or {EVERYONE:?}",
                quote(who)
            )
        }
        near => format!("no peer {}{near}", quote(who)),
    }
}

/// The groups there are, as the end of a message.
fn listed(groups: &HashMap<String, usize>) -> String {
    // By their numbers, and so in the order of the file.
    let mut names: Vec<_> = groups.iter().map(|(name, number)| (number, name)).collect();
    names.sort_unstable();
    let shown: Vec<_> = names.iter().take(GROUPS_LISTED_MAX).map(|(_, name)| quote(name)).collect();
    match names.len().saturating_sub(shown.len()) {
        _ if names.is_empty() => "(there are no groups; add groups = [\"…\"] to a peer)".to_owned(),
        0 => format!("(the groups: {})", shown.join(", ")),
        more => format!("(the groups: {} and {more} more)", shown.join(", ")),
    }
}
