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
fn a_worker_that_is_killed_is_replaced_and_its_tasks_are_done_by_others() {
    let (code, json) = findings(&["--kill", "3", "--cut", "2"]);
    assert_eq!(code, Some(0), "{json}");
    for fault in ["lost", "duplicated", "reordered", "wrong"] {
        assert_eq!(json[fault], 0, "{fault}: {json}");
    }
    assert_eq!((&json["killed"], &json["cuts"]), (&3.into(), &8.into()), "{json}");
    assert!(json["redelivered"].as_u64().unwrap() > 0, "{json}");
    let (code, json) = findings(&["--kill", "1", "--cut", "0", "--workers", "1"]);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!((&json["killed"], &json["cuts"]), (&1.into(), &0.into()));
}

#[test]
fn faults_from_outside_belong_to_the_job() {
    let (code, json) = findings(&[]);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!((&json["killed"], &json["cuts"]), (&1.into(), &4.into()), "{json}");
    let (_, json) = findings(&["--plant", "lose"]);
    assert_eq!((&json["killed"], &json["cuts"]), (&0.into(), &0.into()), "{json}");
}

/// Ctrl-C hands nothing more out, and what was handed out is finished.
#[cfg(unix)]
#[test]
fn an_interrupt_drains() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_netchan"))
        .args(["demo", "--tasks", "50000000", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It has no event of its own for "at work"; too early an interrupt would end it before it listens.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let interrupted =
        Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill runs");
    assert!(interrupted.success());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut demo.stdout.take().expect("piped"), &mut text).expect("text");
    let json: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(demo.wait().expect("it ends").code(), Some(0), "{json}");
    assert_eq!((&json["interrupted"], &json["ok"]), (&true.into(), &true.into()), "{json}");
    assert!(json["results"].as_u64() > Some(0) && json["results"] == json["tasks"], "{json}");
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
    let (code, json) = findings(&["--cut", "5", "--kill", "0"]);
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
