//! `netchan policy`, run as its users run it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../netchan/examples/policy.toml");

/// Its exit code, what it printed, and what it complained of.
fn policy(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netchan"));
    let output = command.arg("policy").args(arguments).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, out, errors) = policy(&[arguments, &["--json"]].concat());
    assert_eq!(errors, "");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out:?}")))
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    fs::write(&path, text).expect("a file");
    (directory, path)
}

#[test]
fn a_good_file_is_ok() {
    assert_eq!(policy(&["check", SAMPLE]), (Some(0), "ok: 4 peers, 5 rules\n".into(), String::new()));
    let (code, found) = json(&["check", SAMPLE]);
    assert_eq!(code, Some(0));
    assert_eq!((&found["ok"], &found["peers"], &found["rules"]), (&true.into(), &4.into(), &5.into()));
}

#[test]
fn mistakes_come_with_line_and_column() {
    let (_directory, path) =
        file("broken.toml", "[[rule]]\nwho = \"nobody\"\nchanel = \"a\"\nallow = [\"send\"]\n");
    let path = path.to_str().expect("a path");
    let (code, out, errors) = policy(&["check", path]);
    assert_eq!((code, &*out), (Some(1), ""));
    let lines: Vec<_> = errors.lines().collect();
    let expected = [
        "1:1: the rule has no `channel`; add channel = \"jobs.*\"",
        "2:7: no peer \"nobody\"; add [peer.NAME], or write \"group:NAME\", \"ticket\" or \"everyone\"",
        "3:1: a rule has no \"chanel\", did you mean \"channel\"?",
    ];
    assert_eq!(lines, expected.map(|line| format!("{path}:{line}")));

    let (code, found) = json(&["check", path]);
    assert_eq!((code, &found["ok"]), (Some(1), &false.into()));
    let places: Vec<_> = found["problems"].as_array().expect("a list").iter().collect();
    assert_eq!((&places[1]["line"], &places[1]["column"]), (&2.into(), &7.into()));
    assert_eq!(places[1]["file"], path);

    let (code, out, errors) = policy(&["explain", path, "--peer", "a", "--channel", "b"]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert_eq!(errors.lines().count(), 3);
    let (code, _, errors) = policy(&["check", "/no/such/policy.toml"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("/no/such/policy.toml"), "{errors}");
}

#[test]
fn the_deciding_rule_is_named() {
    let ask = ["explain", SAMPLE, "--channel", "jobs.deploy", "--at", "2026-07-01", "--peer"];
    let (code, out, _) = policy(&[&ask[..], &["worker-8", "--action", "recv"]].concat());
    assert_eq!(code, Some(0));
    assert!(out.starts_with("denied: worker-8 may not receive from \"jobs.deploy\"\n  rule 3 ("), "{out}");
    assert!(
        out.contains("policy.toml:39) denies it:\n    [[rule]]\n    who = \"group:night-shift\"\n"),
        "{out}"
    );

    let (code, out, _) = policy(&[&ask[..], &["supervisor"]].concat());
    assert_eq!(code, Some(0));
    let verdicts: Vec<_> = out.lines().filter(|line| line.starts_with("allowed: ")).collect();
    let expected =
        ["send into", "receive from"].map(|does| format!("allowed: supervisor may {does} \"jobs.deploy\""));
    assert_eq!(verdicts, expected);

    let (code, found) = json(&[&ask[..], &["worker-8"]].concat());
    assert_eq!(code, Some(0));
    let [send, recv] = &found["explanations"].as_array().expect("a list")[..] else { panic!("{found}") };
    assert_eq!((&send["allowed"], &send["decided_by"]), (&false.into(), &Value::Null));
    assert_eq!((&recv["action"], &recv["decided_by"]["number"]), (&"recv".into(), &3.into()));
    assert_eq!(recv["decided_by"]["line"], 39);
}

#[test]
fn tickets_and_times_are_taken_into_account() {
    let stranger = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let allowed = |peer: &str, channel: &str, more: &[&str]| {
        let ask = ["explain", SAMPLE, "--peer", peer, "--channel", channel, "--action", "recv"];
        let (code, found) = json(&[&ask[..], more].concat());
        assert_eq!(code, Some(0));
        found["explanations"][0]["allowed"].as_bool().expect("a verdict")
    };
    assert!(allowed(stranger, "news", &["--ticket"]));
    assert!(!allowed(stranger, "news", &[]));
    assert!(allowed("worker-7", "jobs.a", &["--at", "2026-12-31T23:59:59Z"]));
    assert!(!allowed("worker-7", "jobs.a", &["--at", "2027-01-01"]));
    assert!(!allowed("worker-7", "jobs.a", &["--at", "2027-01-01T00:00:00Z", "--ticket"]));
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let (code, _, errors) = policy(&["explain", SAMPLE, "--peer", "wrker-7", "--channel", "a"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("did you mean \"worker-7\"?"), "{errors}");
    let (code, _, errors) =
        policy(&["explain", SAMPLE, "--peer", "worker-7", "--channel", "a", "--at", "noon"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("not a date"), "{errors}");
}
