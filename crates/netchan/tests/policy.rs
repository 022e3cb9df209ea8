//! Policy files: which rule decides, expiry, explanations.

mod common;

use std::time::{Duration, SystemTime};

use common::policies::{good, key, open, peer, policy, shown, time};
use netchan::Fingerprint;
use netchan::policy::{
    Action, ExplainError, Policy, PolicyFile, PolicyPeer, PolicyRequest, TicketHolders, TimeError, parse_time,
};

const SAMPLE: &str = include_str!("../examples/policy.toml");

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
