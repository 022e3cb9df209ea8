//! Policy files: which rule decides, mistakes and where they stand, expiry, explanations.

use std::fs;
use std::time::{Duration, SystemTime};

use netchan::Fingerprint;
use netchan::policy::{
    Action, Decision, ExplainError, FILE_BYTES_MAX, PEERS_MAX, Pattern, PatternError, Policy, PolicyError,
    PolicyFile, PolicyPeer, PolicyRequest, RULES_MAX, TicketHolders, TimeError, parse_time,
};
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../examples/policy.toml");

fn key(number: u8) -> Fingerprint {
    Fingerprint([number; 32])
}

fn time(text: &str) -> SystemTime {
    parse_time(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn good(text: &str) -> PolicyFile {
    PolicyFile::parse(text, "p.toml").unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// The mistakes in a text, as `line:column message`.
fn mistakes(text: &str) -> Vec<String> {
    let error = PolicyFile::parse(text, "p.toml").expect_err(text);
    error.problems().iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect()
}

fn open(channel: &str, action: Action) -> PolicyRequest<'_> {
    PolicyRequest::Open { channel, action }
}

/// Rules in short, such as `workers jobs.* +recv -send <4`, as TOML beside three peers.
fn policy(rules: &[&str]) -> PolicyFile {
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
fn peer(name: &str) -> PolicyPeer {
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
fn shown(decision: &Decision) -> String {
    let sign = if decision.is_allowed() { "+" } else { "-" };
    let number = decision.why().strip_prefix("rule ").and_then(|rest| rest.split(' ').next());
    format!("{sign}{}", number.unwrap_or_default())
}

#[test]
fn pol_2_and_6_which_rule_decides() {
    use Action::{Receive, Send};
    #[rustfmt::skip]
    let cases: &[(&[&str], &str, &str, Action, &str)] = &[
        // Without rules, and with rules about others.
        (&[], "ann", "jobs", Receive, "-"),
        (&["bob jobs +recv"], "ann", "jobs", Receive, "-"),
        (&["ann jobs +recv"], "ann", "jobs", Receive, "+1"),
        (&["ann jobs +recv"], "ann", "jobs", Send, "-"),
        (&["ann jobs +recv,send"], "ann", "jobs", Send, "+1"),
        // Who.
        (&["group:workers jobs +recv"], "ann", "jobs", Receive, "+1"),
        (&["group:workers jobs +recv"], "bob", "jobs", Receive, "-"),
        (&["group:idle,group:night jobs +recv"], "ann", "jobs", Receive, "+1"),
        (&["ticket jobs +recv"], "stranger", "jobs", Receive, "-"),
        (&["ticket jobs +recv"], "stranger+", "jobs", Receive, "+1"),
        (&["ticket jobs +recv"], "ann+", "jobs", Receive, "+1"),
        (&["everyone jobs +recv"], "stranger", "jobs", Receive, "+1"),
        (&["everyone jobs +recv"], "old", "jobs", Receive, "-"),
        (&["ticket jobs +recv", "old jobs +recv"], "old+", "jobs", Receive, "-"),
        // Literal names.
        (&["ann jobs +recv"], "ann", "jobs.a", Receive, "-"),
        (&["ann jobs.a +recv"], "ann", "jobs", Receive, "-"),
        (&["ann jobs +recv"], "ann", "Jobs", Receive, "-"),
        (&["ann jobs +recv"], "ann", "job", Receive, "-"),
        (&["ann jobs +recv"], "ann", "jobss", Receive, "-"),
        (&["ann a.b.c +recv"], "ann", "a.b.c", Receive, "+1"),
        (&["ann größe.日本 +recv"], "ann", "größe.日本", Receive, "+1"),
        // One token.
        (&["ann * +recv"], "ann", "jobs", Receive, "+1"),
        (&["ann * +recv"], "ann", "jobs.a", Receive, "-"),
        (&["ann jobs.* +recv"], "ann", "jobs.a", Receive, "+1"),
        (&["ann jobs.* +recv"], "ann", "jobs.a.b", Receive, "-"),
        (&["ann jobs.* +recv"], "ann", "jobs", Receive, "-"),
        (&["ann *.a +recv"], "ann", "jobs.a", Receive, "+1"),
        (&["ann a.*.c +recv"], "ann", "a.b.c", Receive, "+1"),
        (&["ann a.*.c +recv"], "ann", "a.b.d", Receive, "-"),
        (&["ann a.*.c +recv"], "ann", "a.c", Receive, "-"),
        (&["ann *.* +recv"], "ann", "a.b", Receive, "+1"),
        // All that follow.
        (&["ann > +recv"], "ann", "a", Receive, "+1"),
        (&["ann > +recv"], "ann", "a.b.c.d", Receive, "+1"),
        (&["ann a.> +recv"], "ann", "a.b", Receive, "+1"),
        (&["ann a.> +recv"], "ann", "a.b.c", Receive, "+1"),
        (&["ann a.> +recv"], "ann", "a", Receive, "-"),
        (&["ann a.> +recv"], "ann", "ab.c", Receive, "-"),
        (&["ann *.> +recv"], "ann", "a", Receive, "-"),
        (&["ann *.> +recv"], "ann", "a.b", Receive, "+1"),
        (&["ann *.b.> +recv"], "ann", "a.b.c", Receive, "+1"),
        // Names that no pattern can spell out.
        (&["ann a.* +recv"], "ann", "a.", Receive, "+1"),
        (&["ann a.*.b +recv"], "ann", "a..b", Receive, "+1"),
        (&["ann a.b +recv"], "ann", "a..b", Receive, "-"),
        (&["ann a.> +recv"], "ann", "a.", Receive, "+1"),
        (&["ann *.a +recv"], "ann", ".a", Receive, "+1"),
        (&["ann a.* +recv"], "ann", "a.*", Receive, "+1"),
        (&["ann a.b +recv"], "ann", "a.*", Receive, "-"),
        (&["ann a +recv"], "ann", ">", Receive, "-"),
        // Several patterns.
        (&["ann a,b.* +recv"], "ann", "b.x", Receive, "+1"),
        (&["ann a,b.* +recv"], "ann", "c", Receive, "-"),
        // The first that denies, else the first that allows; precision and order do not count.
        (&["ann a +recv", "ann * +recv"], "ann", "a", Receive, "+1"),
        (&["ann * +recv", "ann a +recv"], "ann", "a", Receive, "+1"),
        (&["ann b +recv", "ann a +send", "ann a +recv"], "ann", "a", Receive, "+3"),
        (&["ann a +recv", "ann > -recv"], "ann", "a", Receive, "-2"),
        (&["ann > -recv", "ann a +recv"], "ann", "a", Receive, "-1"),
        (&["ann a +recv", "ann a -recv", "ann > -recv"], "ann", "a", Receive, "-2"),
        (&["ann a +recv", "ann a -send"], "ann", "a", Receive, "+1"),
        (&["ann a +recv", "ann a -send"], "ann", "a", Send, "-2"),
        (&["ann a +recv -send"], "ann", "a", Send, "-1"),
        (&["ann a +recv -send"], "ann", "a", Receive, "+1"),
        (&["ann > +send,recv", "group:night secret.> -send,recv"], "ann", "secret.x", Send, "-2"),
        (&["ann > +send,recv", "group:night secret.> -send,recv"], "ann", "secret", Send, "+1"),
        (&["ann a +recv", "group:idle a -recv"], "ann", "a", Receive, "+1"),
        (&["ann a +recv", "everyone a -recv"], "ann", "a", Receive, "-2"),
        (&["ann a +recv", "ticket a -recv"], "ann", "a", Receive, "+1"),
        (&["ann a +recv", "ticket a -recv"], "ann+", "a", Receive, "-2"),
        (&["ticket a +recv", "ann a -recv"], "ann+", "a", Receive, "-2"),
        (&["everyone a +recv", "ticket a +recv", "ann a +recv"], "ann+", "a", Receive, "+1"),
    ];
    assert!(cases.len() >= 30);
    let now = time("2026-01-01");
    for case in cases {
        let (rules, name, channel, action, expected) = *case;
        let policy = policy(rules);
        let decision = policy.check(&peer(name), &open(channel, action), now);
        assert_eq!(shown(&decision), expected, "{case:?}: {decision:?}");
        let (name, ticket) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let asked = if name == "stranger" { key(9).to_string() } else { name.to_owned() };
        let explained = policy.explain(&asked, ticket, channel, action, now).unwrap();
        assert_eq!((explained.allowed, &*explained.why), (decision.is_allowed(), decision.why()), "{case:?}");
        let number = explained.decided_by.as_ref().map(|rule| rule.number.to_string());
        assert_eq!(number.unwrap_or_default(), expected[1..], "{case:?}");
        let others = rules.len() - usize::from(explained.decided_by.is_some());
        assert_eq!(explained.other_rules.len(), others, "{case:?}");
    }
}

#[test]
fn pol_5_connecting_and_resuming_need_a_rule_that_allows_anything() {
    let cases: &[(&[&str], &str, bool)] = &[
        (&[], "ann", false),
        (&["ann a +recv"], "ann", true),
        (&["ann a +recv"], "bob", false),
        (&["ann a -recv"], "ann", false),
        (&["ann a +recv", "ann > -send,recv"], "ann", true),
        (&["group:workers a +recv"], "ann", true),
        (&["ticket a +recv"], "stranger", false),
        (&["ticket a +recv"], "stranger+", true),
        (&["everyone a +recv"], "stranger", true),
        (&["everyone a +recv"], "old+", false),
    ];
    for case in cases {
        let (rules, name, expected) = *case;
        for request in [PolicyRequest::Connect, PolicyRequest::Resume] {
            let decision = policy(rules).check(&peer(name), &request, time("2026-01-01"));
            assert_eq!(decision.is_allowed(), expected, "{case:?}, {request:?}: {decision:?}");
            assert!(decision.bounds().is_empty());
        }
    }
}

#[test]
fn pol_3_every_rule_that_allows_bounds_what_it_allows() {
    let policy =
        policy(&["ann a +recv", "ann > +recv <9", "ann b +recv <8", "ann a,b +recv <7", "ann a +send <6"]);
    let now = time("2026-01-01");
    let bounds = |channel, action| {
        let decision = policy.check(&peer("ann"), &open(channel, action), now);
        let bounds = decision.bounds().iter();
        bounds.map(|bound| (bound.id, bound.max_open, bound.rule.clone())).collect::<Vec<_>>()
    };
    let (second, fourth) = ((1, 9, "rule 2 (p.toml:15)".to_owned()), (3, 7, "rule 4 (p.toml:25)".to_owned()));
    assert_eq!(bounds("a", Action::Receive), [second.clone(), fourth.clone()]);
    let third = (2, 8, "rule 3 (p.toml:20)".to_owned());
    assert_eq!(bounds("b", Action::Receive), [second.clone(), third, fourth]);
    assert_eq!(bounds("c", Action::Receive), [second]);
    assert_eq!(bounds("a", Action::Send), [(4, 6, "rule 5 (p.toml:30)".to_owned())]);
    assert_eq!(bounds("c", Action::Send), []);
}

#[test]
fn pol_4_a_key_expires_at_its_very_moment() {
    let cases = [
        ("2027-01-01", "2027-01-01T00:00:00Z"),
        ("2027-01-01T02:00:00+02:00", "2027-01-01T00:00:00Z"),
        ("2027-01-01 00:00:00.5z", "2027-01-01T00:00:00.5Z"),
        ("2028-02-29", "2028-02-29T00:00:00Z"),
        ("2026-12-31T23:59:60Z", "2026-12-31T23:59:59Z"),
        ("1970-01-01", "1970-01-01T00:00:00Z"),
    ];
    let least = Duration::from_nanos(1);
    for (written, moment) in cases {
        let policy = good(&format!(
            "[peer.ann]\nkey = \"{}\"\nexpires = {written}\n[[rule]]\nwho = [\"everyone\", \"ticket\", \"ann\"]\n\
             channel = \">\"\nallow = [\"send\", \"recv\"]\n",
            key(1)
        ));
        let moment = time(moment);
        let requests = [PolicyRequest::Connect, PolicyRequest::Resume, open("a", Action::Send)];
        for (request, ticket) in requests.iter().flat_map(|request| [(request, false), (request, true)]) {
            let ann = PolicyPeer::new(key(1), ticket);
            assert!(policy.check(&ann, request, moment - least).is_allowed(), "{written} {request:?}");
            for later in [moment, moment + least, moment + Duration::from_secs(1 << 32)] {
                let decision = policy.check(&ann, request, later);
                assert!(!decision.is_allowed(), "{written} {request:?}");
                assert_eq!(decision.why(), format!("peer ann expired {written} (p.toml:1)"));
                let stranger = PolicyPeer::new(key(2), false);
                assert!(policy.check(&stranger, request, later).is_allowed());
            }
        }
        assert_eq!(policy.next_change(moment - least), Some(moment));
        assert_eq!(policy.next_change(moment), None);
    }
    // What was over before clocks began is over.
    let before = good(&format!(
        "[peer.ann]\nkey = \"{}\"\nexpires = 0001-01-01\n[[rule]]\nwho = \"ann\"\nchannel = \"a\"\nallow = \"send\"",
        key(1)
    ));
    assert!(!before.check(&peer("ann"), &PolicyRequest::Connect, SystemTime::UNIX_EPOCH).is_allowed());
}

#[test]
fn the_next_expiry_is_the_next_change() {
    let peer = |name: u8, expires| format!("[peer.p{name}]\nkey = \"{}\"\n{expires}\n", key(name));
    let policy = good(
        &[
            peer(1, "expires = 2027-03-01"),
            peer(2, ""),
            peer(3, "expires = 2027-01-01"),
            peer(4, "expires = 2027-03-01"),
        ]
        .concat(),
    );
    let next = |at| policy.next_change(time(at));
    assert_eq!(next("2026-01-01"), Some(time("2027-01-01")));
    assert_eq!(next("2027-01-01"), Some(time("2027-03-01")));
    assert_eq!(next("2027-02-28T23:59:59Z"), Some(time("2027-03-01")));
    assert_eq!(next("2027-03-01"), None);
    assert_eq!(TicketHolders.next_change(time("2027-03-01")), None);
}

#[test]
fn ticket_holders_may_do_everything() {
    for ticket in [false, true] {
        for request in [PolicyRequest::Connect, PolicyRequest::Resume, open("a", Action::Send)] {
            let decision =
                TicketHolders.check(&PolicyPeer::new(key(1), ticket), &request, time("2027-01-01"));
            assert!(decision.is_allowed() && decision.bounds().is_empty());
        }
    }
}

#[test]
fn moments_are_read() {
    let at = |seconds| Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let cases = [
        ("2000-03-01", at(951_868_800)),
        ("2000-02-29T23:59:59Z", at(951_868_799)),
        (" 2038-01-19 03:14:08Z ", at(1 << 31)),
        ("2027-01-01T00:00Z", parse_time("2027-01-01")),
        ("2027-01-01T00:00:00", Err(TimeError::NoOffset)),
        ("18:00:00", Err(TimeError::NoDate)),
        ("9999-12-31", Err(TimeError::TooLate)),
        ("2027-02-29", Err(TimeError::NotATime)),
        ("\"2027-01-01\"", Err(TimeError::NotATime)),
        ("tomorrow", Err(TimeError::NotATime)),
        ("", Err(TimeError::NotATime)),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_time(text), expected, "{text:?}");
    }
}

#[test]
fn pol_7_mistakes_come_with_line_and_column() {
    let (one, two) = (key(1).to_string(), key(2).to_string());
    let peer = format!("[peer.ann]\nkey = \"{one}\"\ngroups = [\"workers\", \"night\"]\n");
    // Rules start at line 4.
    let rule = |rule: &str| format!("{peer}{rule}");
    let who = |who: &str| rule(&format!("[[rule]]\nwho = {who}\nchannel = \"a\"\nallow = [\"send\"]"));
    let channel =
        |channel: &str| rule(&format!("[[rule]]\nwho = \"ann\"\nchannel = {channel}\nallow = [\"send\"]"));
    let rights = |rights: &str| rule(&format!("[[rule]]\nwho = \"ann\"\nchannel = \"a\"\n{rights}"));
    let of_peer = |line: &str| format!("[peer.ann]\nkey = \"{one}\"\n{line}");
    #[rustfmt::skip]
    let cases: &[(String, usize, usize, &str)] = &[
        // Not TOML.
        ("who = ".into(), 1, 7, "expected"),
        ("# fine\n[[rule]\nwho = \"a\"\n".into(), 2, 8, "expected"),
        ("[peer.ann]\nkey = \"SHA256".into(), 2, 14, "string"),
        ("[peer.ann]\nexpires = 2027-13-01\n".into(), 2, 11, "month"),
        (format!("{peer}key = \"{two}\"\n"), 4, 1, "duplicate key"),
        (format!("{peer}[peer.ann]\nkey = \"{two}\"\n"), 4, 7, "duplicate key"),
        ("a = \"\u{1b}\"".into(), 1, 6, "invalid"),
        // Nothing at all.
        ("".into(), 1, 1, "there is nothing here"),
        (" \n\n".into(), 1, 1, "there is nothing here"),
        // Keys that mean nothing.
        ("[peers.ann]\nkey = 1".into(), 1, 2, "did you mean \"peer\"?"),
        ("[[rules]]\nwho = 1".into(), 1, 3, "did you mean \"rule\"?"),
        ("version = 1".into(), 1, 1, "it may have: peer, rule"),
        (of_peer("expire = 2027-01-01"), 3, 1, "did you mean \"expires\"?"),
        (of_peer("# ü\n  \"größe\" = 1"), 4, 3, "a peer has no \"größe\"; it may have: key, groups, expires"),
        (rights("allow = [\"send\"]\nmaxopen = 3"), 8, 1, "did you mean \"max_open\"?"),
        (rights("allow = [\"send\"]\nrule.who = 3"), 8, 1, "a rule has no \"rule\""),
        // Peers.
        ("peer = 3".into(), 1, 8, "[peer.NAME]"),
        ("[[peer]]\nkey = 1".into(), 1, 1, "[peer.NAME]"),
        ("[peer]\nann = 3".into(), 2, 7, "peer \"ann\" is an integer"),
        (format!("[peer]\nkey = \"{one}\""), 2, 7, "[peer.NAME]"),
        ("[peer.ann]\ngroups = [\"a\"]".into(), 1, 7, "peer \"ann\" has no key"),
        ("[peer.ann]\nkey = 17".into(), 2, 7, "`key` is an integer"),
        ("[peer.ann]\nkey = \"SHA256:abc\"".into(), 2, 7, "not a fingerprint"),
        ("[peer.ann]\nkey =   \"abc\"".into(), 2, 9, "not a fingerprint"),
        (format!("{peer}[peer.bob]\nkey = \"{one}\""), 5, 7, "peer \"ann\" has the same key (line 1)"),
        (format!("[peer.ticket]\nkey = \"{one}\""), 1, 7, "cannot be called \"ticket\""),
        (format!("[peer.everyone]\nkey = \"{one}\""), 1, 7, "cannot be called \"everyone\""),
        (format!("[peer.\"group:a\"]\nkey = \"{one}\""), 1, 7, "no colon"),
        (format!("[peer.\"\"]\nkey = \"{one}\""), 1, 7, "not empty"),
        (format!("[peer.\"a\\tb\"]\nkey = \"{one}\""), 1, 7, "control characters"),
        (format!("[peer.{}]\nkey = \"{one}\"", "x".repeat(256)), 1, 7, "at most 255 bytes"),
        (of_peer("groups = [\"a\", 3]"), 3, 16, "`groups` is an integer"),
        (of_peer("groups = []"), 3, 10, "`groups` is empty"),
        (of_peer("groups = [\"a\", \"b\", \"a\"]"), 3, 21, "stands there twice"),
        (of_peer("groups = [\"a\", \"\"]"), 3, 16, "not empty"),
        (of_peer("groups = [\"group:a\"]"), 3, 11, "write \"a\" here"),
        (of_peer("groups = [\"b:a\"]"), 3, 11, "no colon"),
        (of_peer("expires = \"2027-01-01\""), 3, 11, "without quotes"),
        (of_peer("expires = 2027-01-01T10:00:00"), 3, 11, "without its offset"),
        (of_peer("expires = 10:00:00"), 3, 11, "without a date"),
        (of_peer("expires = 9999-12-31"), 3, 11, "leave it away"),
        (of_peer("expires = 2027"), 3, 11, "not a date"),
        // Rules.
        ("rule = 3".into(), 1, 8, "[[rule]]"),
        ("[rule]\nwho = 1".into(), 1, 1, "two brackets"),
        ("rule = [3]".into(), 1, 9, "[[rule]]"),
        (rule("[[rule]]\nchannel = \"a\"\nallow = [\"send\"]"), 4, 1, "has no `who`"),
        (rule("\n  [[rule]]\nwho = \"ann\"\nallow = [\"send\"]"), 5, 3, "has no `channel`"),
        (rights(""), 4, 1, "neither allows nor denies"),
        (rights("allow = []"), 7, 9, "`allow` is empty"),
        (rights("deny = []"), 7, 8, "`deny` is empty"),
        (rights("allow = [\"send\", \"receive\"]"), 7, 18, "\"receive\" is no action"),
        (rights("allow = [true]"), 7, 10, "`allow` is a boolean"),
        (rights("allow = [\"send\", \"send\"]"), 7, 18, "twice"),
        (rights("allow = [\"send\", \"recv\"]\ndeny = [\"recv\"]"), 8, 9, "allows and denies \"recv\""),
        (rights("max_open = 0\nallow = [\"send\"]"), 7, 12, "from 1 on"),
        (rights("max_open = -1\nallow = [\"send\"]"), 7, 12, "from 1 on"),
        (rights("max_open = 99999999999999999999999\nallow = [\"send\"]"), 7, 12, "from 1 on"),
        (rights("max_open = \"3\"\nallow = [\"send\"]"), 7, 12, "`max_open` is a string"),
        (rights("max_open = 3.0\nallow = [\"send\"]"), 7, 12, "`max_open` is a float"),
        (rights("max_open = 3\ndeny = [\"send\"]"), 7, 1, "allows nothing"),
        (rule("rule = [\n  { who = \"ann\", channel = \"a\" },\n]"), 4, 1, "a peer has no \"rule\""),
        // Who.
        (who("\"anna\""), 5, 7, "no peer \"anna\", did you mean \"ann\"?"),
        (who("[\"ann\", \"xyzzy\"]"), 5, 15, "no peer \"xyzzy\"; add [peer.NAME]"),
        (who("\"tickets\""), 5, 7, "did you mean \"ticket\"?"),
        (who("\"workers\""), 5, 7, "for the group, write \"group:workers\""),
        (who("\"group:worker\""), 5, 7, "did you mean \"workers\"? (the groups: \"workers\", \"night\")"),
        (who("\"group:\""), 5, 7, "(the groups: \"workers\", \"night\")"),
        (who("\"groups:workers\""), 5, 7, "no peer \"groups:workers\""),
        (who(&format!("\"{one}\"")), 5, 7, "a key needs a name"),
        (who("[]"), 5, 7, "`who` is empty"),
        (who("3"), 5, 7, "`who` is an integer"),
        (who("{ a = 1 }"), 5, 7, "`who` is a table"),
        (who("[[\"ann\"]]"), 5, 8, "`who` is an array"),
        // Patterns, and where in them.
        (channel("\"\""), 6, 11, "empty"),
        (channel("[\"a\", \"b..c\"]"), 6, 20, "an empty token"),
        (channel("\".a\""), 6, 12, "an empty token"),
        (channel("\"a.\""), 6, 14, "an empty token"),
        (channel("\"jobs*\""), 6, 16, "a token of its own"),
        (channel("\"größe.j>\""), 6, 19, "a token of its own"),
        (channel("'a.>.b'"), 6, 14, "comes last"),
        (channel("\"\"\"a.**\"\"\""), 6, 16, "a token of its own"),
        (channel("\"\\u0061.**\""), 6, 11, "a token of its own"),
        (channel("\"a\\u0007\""), 6, 11, "a control character"),
        (channel(&format!("\"{}\"", "a".repeat(256))), 6, 12, "longer than 255 bytes"),
        (channel("[\"a\", 2027-01-01]"), 6, 17, "`channel` is a date or time"),
        // A mark of byte order and the line ends of another system do not move anything.
        ("\u{feff}version = 1".into(), 1, 1, "a policy has no \"version\""),
        (of_peer("expire = 2027-01-01").replace('\n', "\r\n"), 3, 1, "did you mean \"expires\"?"),
    ];
    for (text, line, column, message) in cases {
        let found = mistakes(text);
        let [only] = &found[..] else { panic!("{found:#?}\nin\n{text}") };
        let (place, told) = only.split_once(' ').unwrap();
        assert_eq!(place, format!("{line}:{column}"), "{told}\nin\n{text}");
        assert!(told.contains(message), "{told:?} lacks {message:?}");
    }
}

#[test]
fn pol_7_all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "[[rule]]\nwho = [\"bob\", \"group:x\"]\nchannel = [\"a*\", \"b..\"]\ndeny = [\"recieve\"]\nmax_open = 0\n\
                [peer.zoe]\nkey = \"?\"\ntyped = 1\n[peer.ann]\nexpires = 1\n[[rule]]\nwho = \"zoe\"\n";
    let places: Vec<_> = mistakes(text).iter().map(|m| m.split(' ').next().unwrap().to_owned()).collect();
    let expected =
        ["2:8", "2:15", "3:14", "3:21", "4:9", "5:1", "5:12", "7:7", "8:1", "9:7", "10:11", "11:1", "11:1"];
    assert_eq!(places, expected, "{:#?}", mistakes(text));

    let error = PolicyFile::parse(text, "dir/p.toml").unwrap_err();
    let told = error.to_string();
    assert_eq!(told.lines().count(), expected.len());
    assert!(told.starts_with("dir/p.toml:2:8: no peer \"bob\""), "{told}");
    assert!(!told.ends_with('\n'));
}

#[test]
fn the_mistakes_that_are_told_are_bounded() {
    let text: String = (0..200).map(|n| format!("k{n} = 1\n")).collect();
    let error = PolicyFile::parse(&text, "p.toml").unwrap_err();
    assert_eq!(error.problems().len(), 50);
    assert!(error.to_string().ends_with("\nand 150 more"), "{error}");
    let long = format!("[[rule]]\nwho = \"{}\"\nchannel = \"a\"\nallow = \"send\"", "x".repeat(100_000));
    assert!(PolicyFile::parse(&long, "p.toml").unwrap_err().to_string().len() < 300);
}

#[test]
fn pol_8_the_size_of_a_policy_is_bounded() {
    let filled = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    assert!(PolicyFile::parse(&filled(FILE_BYTES_MAX), "p.toml").is_ok());
    let error = PolicyFile::parse(&filled(FILE_BYTES_MAX + 1), "p.toml").unwrap_err();
    assert!(matches!(error, PolicyError::TooLong { .. }), "{error}");

    let peer = |number: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        format!("[peer.p{number}]\nkey=\"{}\"\n", Fingerprint(key))
    };
    let mut text: String = (0..PEERS_MAX).map(peer).collect();
    assert_eq!(good(&text).peers(), PEERS_MAX);
    text += &peer(PEERS_MAX);
    let line = 2 * PEERS_MAX + 1;
    assert!(mistakes(&text)[0].starts_with(&format!("{line}:7 more than {PEERS_MAX} peers")));

    let rule = "[[rule]]\nwho = \"ticket\"\nchannel = \"a\"\nallow = \"send\"\n";
    let mut text = rule.repeat(RULES_MAX);
    assert_eq!(good(&text).rules(), RULES_MAX);
    text += rule;
    let line = 4 * RULES_MAX + 1;
    assert!(mistakes(&text)[0].starts_with(&format!("{line}:1 more than {RULES_MAX} rules")));
}

#[test]
fn files_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let error = PolicyFile::load(&path).unwrap_err();
    assert!(matches!(&error, PolicyError::Io { .. }) && error.to_string().contains("policy.toml"), "{error}");
    assert!(matches!(PolicyFile::load(directory.path()).unwrap_err(), PolicyError::NotAFile { .. }));

    fs::write(&path, SAMPLE).unwrap();
    let policy = PolicyFile::load(&path).unwrap();
    assert_eq!((policy.peers(), policy.rules()), (4, 5));
    assert_eq!(policy.name(), path.display().to_string());
    assert_eq!(format!("{policy:?}"), format!("PolicyFile({}, 4 peers, 5 rules)", path.display()));

    fs::write(&path, b"# gr\xc3\xb6\xc3\x9fe\n# \xc3\xb6 \xff\n").unwrap();
    let error = PolicyFile::load(&path).unwrap_err();
    assert!(error.to_string().contains("policy.toml:2:5: not text in UTF-8"), "{error}");
    fs::write(&path, "ö".repeat(FILE_BYTES_MAX)).unwrap();
    assert!(matches!(PolicyFile::load(&path).unwrap_err(), PolicyError::TooLong { .. }));
}

#[test]
fn the_sample_does_what_its_comments_say() {
    let policy = PolicyFile::parse(SAMPLE, "policy.toml").unwrap();
    let summer = time("2026-07-01");
    let verdict = |name: &str, channel: &str, action| {
        let explained = policy.explain(name, false, channel, action, summer).unwrap();
        explained.decided_by.map(|rule| rule.number as i64 * if explained.allowed { 1 } else { -1 })
    };
    assert_eq!(verdict("worker-7", "jobs.build", Action::Receive), Some(1));
    assert_eq!(verdict("worker-7", "jobs.deploy", Action::Receive), Some(1));
    assert_eq!(verdict("worker-8", "jobs.deploy", Action::Receive), Some(-3));
    assert_eq!(verdict("worker-7", "jobs.build", Action::Send), None);
    assert_eq!(verdict("worker-7", "progress.a.b", Action::Send), Some(2));
    assert_eq!(verdict("supervisor", "anything", Action::Send), Some(4));
    assert_eq!(verdict("supervisor", "news", Action::Send), Some(-5));
    assert_eq!(verdict("old-laptop", "news", Action::Receive), None);
    let key: Fingerprint = "SHA256:sfgVV1DbkhmXojgpTyRfP+UKeikfICiSm3YCMr4fNmA".parse().unwrap();
    assert_eq!(policy.peer_name(&key), Some("worker-7"));
    assert_eq!(policy.next_change(summer), Some(time("2027-01-01")));
}

#[test]
fn explanations_name_the_rule_and_what_else_there_is() {
    let policy = PolicyFile::parse(SAMPLE, "policy.toml").unwrap();
    let summer = time("2026-07-01");
    let explained = policy.explain("worker-7", true, "jobs.build", Action::Receive, summer).unwrap();
    let deciding = explained.decided_by.as_ref().unwrap();
    assert_eq!((deciding.number, deciding.line, &*deciding.why), (1, 27, "allows it"));
    assert!(deciding.text.starts_with("[[rule]]\nwho = ") && deciding.text.ends_with("max_open = 16"));
    assert_eq!(explained.why, "rule 1 (policy.toml:27)");
    assert_eq!(explained.peer.groups, ["workers"]);
    assert_eq!(explained.peer.expires.as_deref(), Some("2027-01-01"));
    assert!(explained.may_connect && !explained.peer.expired);
    let [bound] = &explained.bounds[..] else { panic!("{explained:?}") };
    assert_eq!((bound.rule, bound.line, bound.max_open), (1, 27, 16));
    let others: Vec<_> = explained.other_rules.iter().map(|rule| (rule.number, &*rule.why)).collect();
    let expected = [
        (2, "is about \"results\", \"progress.>\""),
        (3, "is about \"group:night-shift\", and this peer is not"),
        (4, "is about \"supervisor\", and this peer is not"),
        (5, "is about \"news\""),
    ];
    assert_eq!(others, expected);

    let text = explained.to_string();
    let expected = "\
allowed: worker-7 may receive from \"jobs.build\"
  rule 1 (policy.toml:27) allows it:
    [[rule]]
    who = \"group:workers\"
    channel = \"jobs.*\"
    allow = [\"recv\"]
    max_open = 16
  at most 16 open at once for this key: rule 1 (policy.toml:27)
  peer: SHA256:sfgVV1DbkhmXojgpTyRfP+UKeikfICiSm3YCMr4fNmA, in \"workers\", expires 2027-01-01, with an access secret
  session: may connect; all at 2026-07-01T00:00:00Z
  rule 2 (policy.toml:33): is about \"results\", \"progress.>\"
  rule 3 (policy.toml:39): is about \"group:night-shift\", and this peer is not
  rule 4 (policy.toml:44): is about \"supervisor\", and this peer is not
  rule 5 (policy.toml:49): is about \"news\"";
    assert_eq!(text, expected);

    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["decided_by"]["number"], 1);
    assert_eq!((&json["action"], &json["at"]), (&"recv".into(), &"2026-07-01T00:00:00Z".into()));

    let expired = policy.explain("old-laptop", true, "news", Action::Receive, summer).unwrap();
    assert!(expired.peer.expired && !expired.may_connect && !expired.allowed && expired.decided_by.is_none());
    assert_eq!(expired.why, "peer old-laptop expired 2026-03-01 (policy.toml:21)");

    let stranger = key(77).to_string();
    let explained = policy.explain(&stranger, true, "news", Action::Receive, summer).unwrap();
    assert!(explained.allowed && explained.peer.name.is_none());
    assert!(explained.to_string().contains(", which no [peer] names, with an access secret"), "{explained}");
    let explained = policy.explain(&stranger, false, "news", Action::Receive, summer).unwrap();
    assert!(!explained.allowed && !explained.may_connect);
}

#[test]
fn what_cannot_be_explained() {
    let policy = PolicyFile::parse(SAMPLE, "policy.toml").unwrap();
    let explain = |peer, channel| {
        let explained = policy.explain(peer, false, channel, Action::Send, time("2026-07-01"));
        explained.expect_err("no explanation")
    };
    let unknown = explain("worker7", "jobs");
    assert!(
        unknown.to_string().starts_with("no peer \"worker7\" in policy.toml, did you mean \"worker-"),
        "{unknown}"
    );
    assert!(explain("xyzzy", "jobs").to_string().starts_with("no peer \"xyzzy\" in policy.toml; for a key"));
    assert!(matches!(explain("SHA256:no", "jobs"), ExplainError::NotAFingerprint { .. }));
    for name in ["", "a\nb", &"x".repeat(256)] {
        assert!(matches!(explain("worker-7", name), ExplainError::NotAName { .. }), "{name:?}");
    }
}

#[test]
fn pol_6_what_is_no_pattern() {
    let cases = [
        ("", PatternError::Empty),
        (".", PatternError::EmptyToken { at: 0 }),
        ("a..b", PatternError::EmptyToken { at: 2 }),
        ("ö.", PatternError::EmptyToken { at: 3 }),
        ("a.b*", PatternError::Wildcard { at: 3 }),
        ("**", PatternError::Wildcard { at: 0 }),
        (">>", PatternError::Wildcard { at: 0 }),
        (">.a", PatternError::RestNotLast { at: 0 }),
        ("a.>.", PatternError::RestNotLast { at: 2 }),
        ("a.>.>", PatternError::RestNotLast { at: 2 }),
        ("ab\u{7f}", PatternError::Control { at: 2 }),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Pattern>(), Err(error), "{text:?}");
    }
    assert_eq!("a".repeat(256).parse::<Pattern>(), Err(PatternError::TooLong));
    assert!("a".repeat(255).parse::<Pattern>().is_ok());
}

#[test]
fn deep_nesting_is_refused() {
    // Tables within tables through dotted keys and inline tables, deeper than any policy, in the stack of a small thread.
    let path = vec!["a"; 79].join(".");
    let bombs = [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(79), "]".repeat(79)),
        format!("{path} = {}1{}", format!("{{ {path} = ").repeat(79), "}".repeat(79)),
        format!("[{path}]\n{path} = {}1{}", format!("{{{path}=").repeat(79), "}".repeat(79)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[[{path}]]\n").repeat(1_000),
        format!("a = {}1{}", "{a=".repeat(100_000), "}".repeat(100_000)),
        // Brackets that close nothing.
        format!("a = {}", format!("{{ {} = ] ", vec!["b"; 30].join(".")).repeat(79)),
        format!("a = {}", format!("{{ {} = }} ", vec!["b"; 30].join(".")).repeat(79)),
        format!("a = {}", format!("[{{ {} = ]}} ", vec!["b"; 30].join(".")).repeat(79)),
        format!("a = {}", format!("{{ {} = \n", vec!["b"; 30].join(".")).repeat(79)),
    ];
    let parse = move || {
        for bomb in &bombs {
            assert!(PolicyFile::parse(bomb, "p.toml").is_err(), "{}", &bomb[..20]);
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(parse).unwrap().join().unwrap();
}

/// What the grammar says, word by word.
fn reference(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, name @ ..]) => reference(pattern, name),
        ([literal, pattern @ ..], [token, name @ ..]) => literal == token && reference(pattern, name),
        _ => false,
    }
}

/// Few tokens, so that they often meet; names may have any of them, patterns not all.
fn tokens() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "ö", "*", ">", "", "a*"]), 1..6)
}

/// Pieces of policies in any order: closer to what parses than arbitrary text.
fn pieces() -> impl Strategy<Value = String> {
    let key = format!("key = \"{}\"\n", key(1));
    let pieces = [
        "[peer.a]\n",
        "[peer.b]\n",
        "[[rule]]\n",
        "[rule]\n",
        "[peer]\n",
        &key,
        "key = 1\n",
        "who = \"a\"\n",
        "who = [\"group:x\", \"ticket\"]\n",
        "groups = [\"x\"]\n",
        "expires = 2027-01-01\n",
        "expires = 10:00:00\n",
        "channel = \"a.*\"\n",
        "channel = \"ö*\"\n",
        "channel = \"\\u00f6..\"\n",
        "allow = [\"send\"]\n",
        "deny = [\"recv\"]\n",
        "deny = \"send\"\n",
        "max_open = 3\n",
        "max_open = 0\n",
        "peer.c.key = 1\n",
        "\u{feff}",
        "ö",
        "\r\n",
        "# comment\n",
        "rule = [{}, {who = 1}, 3]\n",
        "\"",
        "[",
        "]",
        "=",
        "'''",
        ".",
    ]
    .map(str::to_owned);
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..20).prop_map(|pieces| pieces.concat())
}

/// Either there is a policy, or there is a mistake with a place within the text.
fn parses_or_says_where(text: &str) {
    match PolicyFile::parse(text, "p.toml") {
        Ok(policy) => {
            policy.check(&peer("ann+"), &open("a.b", Action::Send), SystemTime::UNIX_EPOCH);
            let _ = policy.explain("a", true, "a.b", Action::Receive, SystemTime::UNIX_EPOCH);
        }
        Err(error) => {
            assert!(!error.problems().is_empty(), "{error}");
            let lines: Vec<_> = text.split('\n').collect();
            for problem in error.problems() {
                let line = lines[problem.line - 1];
                assert!((1..=line.chars().count() + 1).contains(&problem.column), "{problem}");
                assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "{problem}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn pol_6_patterns_match_as_the_grammar_says(pattern in tokens(), name in tokens()) {
        let text = pattern.join(".");
        let name = name.join(".");
        if let Ok(parsed) = text.parse::<Pattern>() {
            let names: Vec<_> = name.split('.').collect();
            prop_assert_eq!(parsed.matches(&name), reference(&pattern, &names), "{} {}", text, name);
            prop_assert_eq!(parsed.to_string(), text);
        } else {
            let misplaced = pattern.iter().rev().skip(1).any(|token| *token == ">");
            prop_assert!(misplaced || pattern.iter().any(|token| token.is_empty() || *token == "a*"));
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_is_not(text in ".*", name in ".*") {
        match text.parse::<Pattern>() {
            Ok(pattern) => {
                let (pattern_tokens, names): (Vec<_>, Vec<_>) = (text.split('.').collect(), name.split('.').collect());
                prop_assert_eq!(pattern.matches(&name), reference(&pattern_tokens, &names));
            }
            Err(error) => prop_assert!(text.is_char_boundary(error.offset())),
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(?s).{0,200}") {
        parses_or_says_where(&text);
    }

    #[test]
    fn pieces_of_policies_never_panic(text in pieces()) {
        parses_or_says_where(&text);
    }

    #[test]
    fn a_damaged_sample_never_panics(at in 0..SAMPLE.len(), gone in 0..40_usize, put in "(?s).{0,3}") {
        let (at, end) = (SAMPLE.floor_char_boundary(at), SAMPLE.floor_char_boundary(at + gone));
        parses_or_says_where(&format!("{}{put}{}", &SAMPLE[..at], &SAMPLE[end..]));
    }
}
