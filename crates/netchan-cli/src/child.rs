//! Processes of this very program, and the lines that pass between them and their parent.
//!
//! Orders go down a child's standard input and answers come up its standard output, one JSON object a line. Secrets (a
//! ticket) travel there too, so that they are neither in an argument list nor in an environment that others may read. A
//! child never outlives its parent: it is killed when its handle drops, and it leaves by itself when its standard input
//! ends, which covers a parent that was killed.

use std::io::{BufRead, Write};
use std::process::{ExitStatus, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::Failure;

/// The exit code of a child whose parent is gone.
const ORPHANED: i32 = 3;

/// A child process as its parent sees it.
pub(crate) struct Subprocess {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Subprocess {
    /// Starts this program again with a (hidden) subcommand.
    pub(crate) fn start(subcommand: &str) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|e| format!("cannot find this program's own file: {e}"))?;
        let mut child = Command::new(&program)
            .arg(subcommand)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {} {subcommand}: {e}", program.display()))?;
        let orders = child.stdin.take().expect("standard input was piped above");
        let answers = BufReader::new(child.stdout.take().expect("standard output was piped above")).lines();
        Ok(Self { child, orders, answers })
    }

    /// Sends one order.
    pub(crate) async fn tell(&mut self, order: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await?;
        Ok(self.orders.flush().await?)
    }

    /// The next answer; `None` when the child has closed its output, as it does by ending. Safe to cancel.
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        match self.answers.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_str(&line)?)),
            None => Ok(None),
        }
    }

    /// Kills the process, as `kill -9` does, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Waits until the process has ended. (Its standard input stays open until then: closing it would make it leave.)
    pub(crate) async fn ended(mut self) -> std::io::Result<ExitStatus> {
        // `Child::wait` closes an input it still owns; ours was taken out and lives until this function returns.
        self.child.wait().await
    }
}

/// The parent as a child sees it: the orders that come down standard input.
///
/// A thread of its own reads them, because a runtime cannot be shut down around a blocked read.
pub(crate) struct Orders<T>(mpsc::UnboundedReceiver<T>);

impl<T: DeserializeOwned + Send + 'static> Orders<T> {
    /// Starts listening to the parent; the process exits when the parent is gone.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                match serde_json::from_str(&line) {
                    Ok(order) => drop(sender.send(order)),
                    Err(e) => eprintln!("netchan: this subcommand takes orders from its parent only ({e})"),
                }
            }
            std::process::exit(ORPHANED);
        });
        Self(receiver)
    }

    /// The next order. Safe to cancel.
    pub(crate) async fn next(&mut self) -> T {
        match self.0.recv().await {
            Some(order) => order,
            // The reading thread is about to end the process.
            None => std::future::pending().await,
        }
    }
}

/// Sends one answer up to the parent.
pub(crate) fn answer(answer: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
