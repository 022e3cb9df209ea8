//! The README's server and client, built and run as two processes.

use std::path::PathBuf;
use std::process::{Command as Build, Stdio};
use std::time::Duration;

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

/// The program of an example, beside this test's own. Cargo builds it with all tests; where only this test was asked for,
/// it is built here.
fn example(name: &str) -> Anything<PathBuf> {
    let test = std::env::current_exe()?;
    let profile =
        test.parent().and_then(|deps| deps.parent()).ok_or("tests live in target/<profile>/deps")?;
    let program = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        let profile_name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
        let mut build = Build::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "netchan", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().ok_or("the target directory")?);
        if profile_name != "debug" {
            build.args(["--profile", profile_name]);
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
        assert!(built.success() && program.is_file(), "{} was not built", program.display());
    }
    Ok(program)
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
