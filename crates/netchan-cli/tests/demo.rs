//! `netchan demo`, run as its users run it.

use std::process::{Command, Output};

use serde_json::Value;

const TASKS: u64 = 2000;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netchan")).arg("demo").args(arguments).output().expect("the binary runs")
}

/// The demo with few tasks, its exit code and its last line.
fn findings(arguments: &[&str]) -> (Option<i32>, Value) {
    let tasks = TASKS.to_string();
    let output = demo(&[&["--tasks", &tasks, "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("no output; errors:\n{errors}"));
    let json = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e} in {last:?}; errors:\n{errors}"));
    (output.status.code(), json)
}

#[test]
fn every_task_is_done_once_and_in_order() {
    let (code, json) = findings(&[]);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(json["ok"], true);
    assert_eq!((&json["tasks"], &json["results"]), (&TASKS.into(), &TASKS.into()));
    for fault in ["lost", "duplicated", "reordered"] {
        assert_eq!(json[fault], 0, "{fault}");
    }
    assert!(json["rate_per_second"].as_f64().unwrap() > 0.0);
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    for name in ["key_exchange", "cipher"] {
        assert!(!json[name].as_str().unwrap().is_empty(), "{name}");
    }

    let workers = json["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 4);
    let results = |worker: &Value| worker["results"].as_u64().unwrap();
    assert_eq!(workers.iter().map(results).sum::<u64>(), TASKS);
    let (slow, fast): (Vec<_>, Vec<_>) = workers.iter().partition(|worker| worker["slow"] == true);
    assert_eq!(slow.len(), 1);
    let least = fast.into_iter().map(results).min().unwrap();
    assert!(results(slow[0]) < least, "the slow worker did as much as others: {json}");
    assert!(results(slow[0]) > 0, "the slow worker did nothing: {json}");
}

#[test]
fn a_lost_result_is_found() {
    let (code, json) = findings(&["--plant", "lose"]);
    assert_eq!(code, Some(1), "{json}");
    assert_eq!((&json["lost"], &json["duplicated"], &json["reordered"]), (&1.into(), &0.into(), &0.into()));
    assert_eq!((&json["results"], &json["ok"]), (&(TASKS - 1).into(), &false.into()));
}

#[test]
fn a_duplicated_result_is_found() {
    let (code, json) = findings(&["--plant", "dup"]);
    assert_eq!(code, Some(1), "{json}");
    assert_eq!((&json["lost"], &json["duplicated"], &json["reordered"]), (&0.into(), &1.into(), &0.into()));
    assert_eq!((&json["results"], &json["ok"]), (&(TASKS + 1).into(), &false.into()));
}

#[test]
fn a_reordered_result_is_found() {
    let (code, json) = findings(&["--plant", "reorder"]);
    assert_eq!(code, Some(1), "{json}");
    assert_eq!((&json["lost"], &json["duplicated"], &json["reordered"]), (&0.into(), &0.into(), &1.into()));
    assert_eq!((&json["results"], &json["ok"]), (&TASKS.into(), &false.into()));
}

#[test]
fn connections_that_are_cut_change_nothing() {
    let (code, json) = findings(&["--cut", "5"]);
    assert_eq!(code, Some(0), "{json}");
    for fault in ["lost", "duplicated", "reordered", "wrong"] {
        assert_eq!(json[fault], 0, "{fault}");
    }
    assert_eq!(json["cuts"], 20, "each of four workers five times");
    assert_eq!(json["resumes"], 20);
    assert!(json["values_replayed"].as_u64().unwrap() > 0, "{json}");
}

#[test]
fn a_single_worker_does_everything() {
    let (code, json) = findings(&["--workers", "1"]);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(json["workers"].as_array().unwrap().len(), 1);
    assert_eq!(json["workers"][0]["share"], 1.0);
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (["--workers", "0"], "0 is not in 1..=256"),
        (["--tasks", "0"], "0 is not in 1..="),
        (["--plant", "fire"], "possible values: lose, dup, reorder"),
    ] {
        let output = demo(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
    }
}
