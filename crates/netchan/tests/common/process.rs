//! Processes of a test's own program in another role.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use netchan::{Config, ListenError, Server, listen_and_serve};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// What a child is to be.
const ROLE: &str = "NETCHAN_TEST_ROLE";
/// What it needs for that.
const WITH: &str = "NETCHAN_TEST_WITH";

/// What this process is to be, and what it has for that; two empty strings if it is the test itself.
pub fn role() -> (String, String) {
    let known = |name| std::env::var(name).unwrap_or_default();
    (known(ROLE), known(WITH))
}

/// A process of this program in another role; its lines are what it says of values.
pub struct Process {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub fn start(role: &str, with: &str, wrapper: &[&str]) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(this);
                command
            }
            None => Command::new(this),
        };
        let mut child = command
            .args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(WITH, with)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that the role says; the test harness says others.
    pub async fn line(&mut self) -> Option<String> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            // The harness leaves its own line open, and ours is appended to it.
            if let Some((_, said)) = line.split_once("@@ ") {
                return Some(said.to_owned());
            }
        }
        None
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }
}

/// Tells the parent.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@@ {line}").and_then(|()| out.flush()).unwrap();
}

/// Listens where a process did that was killed a moment ago: its port comes free before long.
pub async fn serve_again(address: &str, config: &Config) -> Result<Server, ListenError> {
    let started = Instant::now();
    loop {
        match listen_and_serve(address, config.clone()).await {
            Err(_) if started.elapsed() < Duration::from_secs(10) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            served => return served,
        }
    }
}
