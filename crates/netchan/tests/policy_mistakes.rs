//! Policy files: patterns, and mistakes and where they stand.

mod common;

use std::fs;
use std::time::SystemTime;

use common::policies::{good, key, mistakes, open, peer};
use netchan::Fingerprint;
use netchan::policy::{
    Action, FILE_BYTES_MAX, PEERS_MAX, Pattern, PatternError, Policy, PolicyError, PolicyFile, RULES_MAX,
};
use proptest::prelude::*;

const SAMPLE: &str = include_str!("../examples/policy.toml");

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
