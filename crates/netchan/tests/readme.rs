//! The README's server and client, built and run as two processes.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::example::example;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

type Anything<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// From the start of the server to the end of both.
const DEADLINE: Duration = Duration::from_secs(60);

const README: &str = include_str!("../../../README.md");
const SERVER: &str = include_str!("../examples/server.rs");
const CLIENT: &str = include_str!("../examples/client.rs");

#[test]
fn the_readme_has_the_examples_word_for_word() {
    for (name, program) in [("server", SERVER), ("client", CLIENT)] {
        assert!(
            README.contains(&format!("```rust,no_run\n{program}```")),
            "the {name} differs from its example"
        );
        let lines = program.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
        assert_eq!(lines.count(), 10, "the {name} has ten lines");
    }
}

#[test]
fn the_readme_names_the_two_commands() {
    for command in ["cargo run --release -p netchan-cli -- demo", "cargo test --workspace"] {
        assert!(README.lines().any(|line| line.trim() == command), "{command}");
    }
}

#[tokio::test]
async fn the_two_programs_of_the_readme_talk() -> Anything {
    let (server, client) = (example("server")?, example("client")?);
    tokio::time::timeout(DEADLINE, async {
        let mut server = Command::new(server).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut said = BufReader::new(server.stdout.take().ok_or("a pipe")?).lines();
        let ticket = said.next_line().await?.ok_or("the server prints its ticket")?;
        assert!(ticket.starts_with("netchan://127.0.0.1:"), "{ticket}");
        let client = Command::new(client).arg(&ticket).kill_on_drop(true).output().await?;
        assert!(client.status.success(), "the client: {}", String::from_utf8_lossy(&client.stderr));
        assert_eq!(said.next_line().await?.as_deref(), Some("paint the fence: done"));
        assert!(server.wait().await?.success(), "the server ends well");
        Ok(())
    })
    .await?
}

#[tokio::test]
async fn a_client_without_a_ticket_says_so() -> Anything {
    let client = tokio::time::timeout(DEADLINE, Command::new(example("client")?).kill_on_drop(true).output());
    let client = client.await??;
    assert!(!client.status.success());
    assert!(String::from_utf8_lossy(&client.stderr).contains("no ticket"));
    Ok(())
}
