//! `netchan bench`, run as its users run it, with rounds too short to judge by.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netchan"))
        .arg("bench")
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Runs a workload and checks the object on the last line against the contestants and the unit it must have.
fn check(workload: &str, more: &[&str], size: u64, unit: &str, limits: &[&str]) {
    let output = bench(&[&[workload, "--seconds", "0.1", "--json"], more].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{workload}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let json: Value =
        serde_json::from_str(text.lines().last().expect("output")).expect("JSON on the last line");

    assert_eq!(json["workload"], workload);
    assert_eq!(json["size_bytes"], size);
    assert_eq!(json["unit"], unit);
    let figures =
        |of: &str, who: &str| json[of][who].as_f64().unwrap_or_else(|| panic!("no {of}.{who} in {json}"));
    for who in [&["netchan"], limits].concat() {
        let (min, median, max) = (figures("min", who), figures("median", who), figures("max", who));
        assert!(0.0 < min && min <= median && median <= max, "{who}: {min} {median} {max}");
    }
    for limit in limits {
        let ratio = figures("median", "netchan") / figures("median", limit);
        assert!((figures("ratio", limit) - ratio).abs() < 1e-9 * ratio, "{limit}: {json}");
    }
    for of in ["median", "min", "max"] {
        assert_eq!(json[of].as_object().unwrap().len(), limits.len() + 1, "{of}");
    }
    assert_eq!(json["ratio"].as_object().unwrap().len(), limits.len());
}

#[test]
fn stream() {
    check("stream", &[], 64, "messages/s", &["tcp", "tls", "mpsc"]);
}

#[test]
fn bulk() {
    check("bulk", &["--size", "100000"], 100_000, "MiB/s", &["tcp", "tls"]);
}

#[test]
fn pingpong() {
    check("pingpong", &[], 64, "us", &["tcp", "tls"]);
}

#[test]
fn channels() {
    check("channels", &[], 64, "messages/s", &["tcp", "tls"]);
}

#[test]
fn connect() {
    check("connect", &[], 0, "sessions/s", &["tcp", "tls"]);
}

#[test]
fn queue() {
    check("queue", &["--workers", "3"], 64, "messages/s", &["tcp", "tls"]);
}

#[test]
fn broadcast() {
    check("broadcast", &["--subscribers", "5"], 64, "deliveries/s", &["tcp", "tls"]);
}

#[test]
fn tasks() {
    check("tasks", &["--workers", "3"], 64, "tasks/s", &["tcp", "tls"]);
    check("tasks", &["--workers", "3", "--ahead", "8"], 64, "tasks/s", &["tcp", "tls"]);
}

#[test]
fn hosted() {
    // What fills the channel when the time is over is still consumed: one round is enough.
    let one = &["--hosted", "--rounds", "1"];
    check("stream", one, 64, "messages/s", &["direct", "tcp", "tls", "mpsc"]);
    check("pingpong", one, 64, "us", &["direct", "tcp", "tls"]);
}

#[cfg(target_os = "linux")]
#[test]
fn idle() {
    check("idle", &["--connections", "40"], 0, "KiB/session", &["tcp", "tls"]);
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["stream", "--size", "10"][..], "at least 64 bytes"),
        (&["connect", "--size", "64"], "has no --size"),
        (&["stream", "--seconds", "0"], "must be from 0.01 to 3600"),
        (&["stream", "--workers", "4"], "--workers is for `queue` and `tasks`, not for `stream`"),
        (&["queue", "--ahead", "4"], "--ahead is for `tasks`, not for `queue`"),
        (&["tasks", "--ahead", "1000", "--size", "1000"], "at most 65536 bytes can be ahead"),
        (&["bulk", "--hosted"], "--hosted is for `stream` and `pingpong`, not for `bulk`"),
        (&["idle", "--rounds", "2"], "has no --rounds"),
        (
            &["flood"],
            "possible values: stream, bulk, pingpong, channels, connect, queue, broadcast, tasks, idle",
        ),
    ] {
        let output = bench(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(reason), "{arguments:?}: {errors}");
    }
}
