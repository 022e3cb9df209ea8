//! From TOML to peers and rules, each value with the place where it stands. Names are not resolved here.

use std::collections::HashSet;
use std::ops::Range;
use std::time::SystemTime;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Action;
use super::pattern::Pattern;
use super::source::{Problems, Source, did_you_mean, quote};
use super::time::time_of;
use crate::identity::Fingerprint;

const ROOT_KEYS: [&str; 2] = ["peer", "rule"];
const PEER_KEYS: [&str; 3] = ["key", "groups", "expires"];
const RULE_KEYS: [&str; 5] = ["who", "channel", "allow", "deny", "max_open"];

type Value<'a> = Spanned<DeValue<'a>>;

/// A string of the file and where it starts.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) at: usize,
}

/// Both actions, or one, or none.
#[derive(Clone, Copy, Default)]
pub(super) struct Actions {
    send: bool,
    receive: bool,
}

impl Actions {
    pub(super) fn has(self, action: Action) -> bool {
        match action {
            Action::Send => self.send,
            Action::Receive => self.receive,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        !self.send && !self.receive
    }
}

/// When a key's time is over, and how the file writes it.
#[derive(Clone)]
pub(super) struct Expiry {
    pub(super) at: SystemTime,
    pub(super) text: String,
}

pub(super) struct ReadPeer {
    pub(super) name: Text,
    /// Absent where it is a mistake.
    pub(super) key: Option<(Fingerprint, usize)>,
    pub(super) groups: Vec<Text>,
    pub(super) expires: Option<Expiry>,
}

pub(super) struct ReadRule {
    /// From its first bracket to the end of its last value.
    pub(super) range: Range<usize>,
    pub(super) who: Vec<Text>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) allow: Actions,
    pub(super) deny: Actions,
    pub(super) max_open: Option<usize>,
}

pub(super) struct Reader<'s, 'p> {
    pub(super) source: &'s Source<'s>,
    pub(super) problems: &'p mut Problems<'s>,
}

impl Reader<'_, '_> {
    pub(super) fn document(&mut self, root: &DeTable<'_>) -> (Vec<ReadPeer>, Vec<ReadRule>) {
        self.refuse_unknown(root, &ROOT_KEYS, "a policy");
        let peers = root.get("peer").map(|value| self.peers(value)).unwrap_or_default();
        let rules = root.get("rule").map(|value| self.rules(value)).unwrap_or_default();
        (peers, rules)
    }

    fn peers(&mut self, value: &Value<'_>) -> Vec<ReadPeer> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(value, "`peer`", "a table for each peer: [peer.NAME]");
            return Vec::new();
        };
        in_order(table).into_iter().map(|(name, value)| self.peer(name, value)).collect()
    }

    fn peer(&mut self, name: &Spanned<DeString<'_>>, value: &Value<'_>) -> ReadPeer {
        let name = Text { text: name.get_ref().clone().into_owned(), at: name.span().start };
        let mut peer = ReadPeer { name, key: None, groups: Vec::new(), expires: None };
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("peer {}", quote(&peer.name.text));
            self.wrong_type(value, &what, "a table: [peer.NAME], and below it key = \"SHA256:…\"");
            return peer;
        };
        self.refuse_unknown(table, &PEER_KEYS, "a peer");
        match table.get("key") {
            Some(value) => peer.key = self.fingerprint(value),
            None => self.problems.add(peer.name.at, || {
                format!("peer {} has no key; add key = \"SHA256:…\"", quote(&peer.name.text))
            }),
        }
        if let Some(value) = table.get("groups") {
            peer.groups = self.texts(value, "groups", "[\"workers\"]");
        }
        peer.expires = table.get("expires").and_then(|value| self.expiry(value));
        peer
    }

    fn fingerprint(&mut self, value: &Value<'_>) -> Option<(Fingerprint, usize)> {
        let at = value.span().start;
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(value, "`key`", "a fingerprint: key = \"SHA256:…\"");
            return None;
        };
        match text.parse() {
            Ok(fingerprint) => Some((fingerprint, at)),
            Err(error) => {
                self.problems.add(at, || format!("{error}, as netchan id prints it; found {}", quote(text)));
                None
            }
        }
    }

    fn expiry(&mut self, value: &Value<'_>) -> Option<Expiry> {
        match time_of(value.get_ref()) {
            Ok(at) => {
                let text = self.source.text().get(value.span()).unwrap_or_default().to_owned();
                Some(Expiry { at, text })
            }
            Err(error) => {
                self.problems.add(value.span().start, || format!("`expires`: {error}"));
                None
            }
        }
    }

    fn rules(&mut self, value: &Value<'_>) -> Vec<ReadRule> {
        match value.get_ref() {
            DeValue::Array(rules) => rules.iter().map(|value| self.rule(value)).collect(),
            DeValue::Table(_) => {
                let message = || "write [[rule]] with two brackets, since there may be many".to_owned();
                self.problems.add(value.span().start, message);
                Vec::new()
            }
            _ => {
                self.wrong_type(value, "`rule`", "a table for each rule: [[rule]]");
                Vec::new()
            }
        }
    }

    fn rule(&mut self, value: &Value<'_>) -> ReadRule {
        let empty = &DeTable::new();
        let table = value.get_ref().as_table().unwrap_or_else(|| {
            self.wrong_type(value, "a rule", "a table: [[rule]]");
            empty
        });
        let at = value.span().start;
        let end = table.iter().map(|(_, value)| value.span().end).fold(value.span().end, usize::max);
        if !value.get_ref().is_table() {
            return ReadRule::empty(at..end);
        }
        self.refuse_unknown(table, &RULE_KEYS, "a rule");
        let who = self.required(table, at, "who", "\"group:workers\"");
        let channel = self.required(table, at, "channel", "\"jobs.*\"");
        let patterns = channel.iter().filter_map(|text| self.pattern(text)).collect();
        let (allow, allowed) = self.actions(table, "allow");
        let (deny, denied) = self.actions(table, "deny");
        if !table.contains_key("allow") && !table.contains_key("deny") {
            let message = || "the rule neither allows nor denies; add allow = [\"recv\"], or deny".to_owned();
            self.problems.add(at, message);
        }
        for text in denied.iter().filter(|text| allowed.iter().any(|other| other.text == text.text)) {
            let message = || format!("the rule allows and denies {}; leave one of them", quote(&text.text));
            self.problems.add(text.at, message);
        }
        let max_open = table.get_key_value("max_open").and_then(|(key, value)| {
            if !table.contains_key("allow") {
                let message =
                    || "`max_open` bounds what a rule allows, and this one allows nothing".to_owned();
                self.problems.add(key.span().start, message);
            }
            self.max_open(value)
        });
        ReadRule { range: at..end, who, patterns, allow, deny, max_open }
    }

    fn required(&mut self, table: &DeTable<'_>, at: usize, key: &str, example: &str) -> Vec<Text> {
        if let Some(value) = table.get(key) {
            return self.texts(value, key, example);
        }
        self.problems.add(at, || format!("the rule has no `{key}`; add {key} = {example}"));
        Vec::new()
    }

    fn pattern(&mut self, text: &Text) -> Option<Pattern> {
        let parsed = text.text.parse::<Pattern>();
        if let Err(error) = &parsed {
            // Within the quotes, as long as the text stands there as it is, without escapes.
            let raw = self.source.text().get(text.at..).unwrap_or_default();
            let inside =
                (1..=3).find(|quotes| raw.get(*quotes..).is_some_and(|raw| raw.starts_with(&text.text)));
            let at = text.at
                + inside.filter(|_| !text.text.is_empty()).map_or(0, |quotes| quotes + error.offset());
            self.problems.add(at, || error.to_string());
        }
        parsed.ok()
    }

    fn actions(&mut self, table: &DeTable<'_>, key: &str) -> (Actions, Vec<Text>) {
        let Some(value) = table.get(key) else { return Default::default() };
        let texts = self.texts(value, key, "[\"send\", \"recv\"]");
        let mut actions = Actions::default();
        for text in &texts {
            match text.text.as_str() {
                "send" => actions.send = true,
                "recv" => actions.receive = true,
                other => {
                    let message = || format!("{} is no action; write \"send\" or \"recv\"", quote(other));
                    self.problems.add(text.at, message);
                }
            }
        }
        (actions, texts)
    }

    fn max_open(&mut self, value: &Value<'_>) -> Option<usize> {
        const EXPECTED: &str = "a whole number from 1 on: max_open = 16";
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value, "`max_open`", EXPECTED);
            return None;
        };
        let max_open =
            usize::from_str_radix(number.as_str(), number.radix()).ok().filter(|max_open| *max_open > 0);
        if max_open.is_none() {
            let message = || format!("`max_open` is {number}; write {EXPECTED}, or use deny");
            self.problems.add(value.span().start, message);
        }
        max_open
    }

    /// One string or a list of them, none of them twice.
    fn texts(&mut self, value: &Value<'_>, key: &str, example: &str) -> Vec<Text> {
        let values = match value.get_ref() {
            DeValue::Array(values) if values.is_empty() => {
                let message = || format!("`{key}` is empty; write {key} = {example}, or leave it away");
                self.problems.add(value.span().start, message);
                return Vec::new();
            }
            DeValue::Array(values) => &values[..],
            _ => std::slice::from_ref(value),
        };
        let mut seen = HashSet::new();
        let mut texts = Vec::new();
        for value in values {
            let at = value.span().start;
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(
                    value,
                    &format!("`{key}`"),
                    &format!("a string or several: {key} = {example}"),
                );
                continue;
            };
            if seen.insert(text) {
                texts.push(Text { text: text.clone().into_owned(), at });
            } else {
                self.problems.add(at, || format!("{} stands there twice; leave one of them", quote(text)));
            }
        }
        texts
    }

    fn refuse_unknown(&mut self, table: &DeTable<'_>, known: &[&str], what: &str) {
        for (key, _) in in_order(table) {
            let text = key.get_ref();
            if known.contains(&&**text) {
                continue;
            }
            self.problems.add(key.span().start, || match did_you_mean(text, known.iter().copied()) {
                near if near.is_empty() => {
                    format!("{what} has no {}; it may have: {}", quote(text), known.join(", "))
                }
                near => format!("{what} has no {}{near}", quote(text)),
            });
        }
    }

    fn wrong_type(&mut self, value: &Value<'_>, what: &str, expected: &str) {
        let found = match value.get_ref() {
            DeValue::Array(_) => "an array",
            DeValue::Integer(_) => "an integer",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Table(_) => "a table",
        };
        self.problems.add(value.span().start, || format!("{what} is {found}; write {expected}"));
    }
}

impl ReadRule {
    fn empty(range: Range<usize>) -> Self {
        Self {
            range,
            who: Vec::new(),
            patterns: Vec::new(),
            allow: Actions::default(),
            deny: Actions::default(),
            max_open: None,
        }
    }
}

/// A table's entries as the file has them; the table itself is sorted by its keys.
fn in_order<'t, 'a>(table: &'t DeTable<'a>) -> Vec<(&'t Spanned<DeString<'a>>, &'t Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
