//! The examples, each run as real processes.

mod common;

use std::process::Stdio;

use common::example::example;
use common::{Anything, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A program under test.
struct Program {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(example(name)?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("a pipe")?;
        let lines = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
        Ok(Self { child, input, lines })
    }

    async fn line(&mut self) -> Result<String, Box<dyn std::error::Error>> {
        Ok(within("a line", self.lines.next_line()).await?.ok_or("it said nothing more")?)
    }

    async fn say(&mut self, line: &str) -> Anything {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    /// Its input ends, and with it the program; returns what it said last.
    async fn end(mut self) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        drop(self.input);
        let mut rest = Vec::new();
        while let Some(line) = within("its end", self.lines.next_line()).await? {
            rest.push(line);
        }
        let status = within("its end", self.child.wait()).await?;
        assert!(status.success(), "{status}, after {rest:?}");
        Ok(rest)
    }
}

#[tokio::test]
async fn a_fleet_finishes_although_a_worker_is_killed() -> Anything {
    let mut server = Program::start("fleet", &[])?;
    let ticket = server.line().await?;
    let (mut killed, other) = (Program::start("fleet", &[&ticket])?, Program::start("fleet", &[&ticket])?);
    for _ in 0..20 {
        assert!(server.line().await?.contains(" squared is "));
    }
    killed.child.kill().await?;
    let rest = server.end().await?;
    let sum: u64 = (0..200_u64).map(|n| n * n).sum();
    let last = rest.last().ok_or("a last line")?;
    assert!(last.starts_with(&format!("the sum is {sum}, ")), "{last}");
    assert_eq!(rest.len(), 200 - 20 + 1);
    other.end().await?;
    Ok(())
}

#[tokio::test]
async fn everybody_hears_everybody_in_a_chat() -> Anything {
    let mut server = Program::start("chat", &[])?;
    let ticket = server.line().await?;
    let (mut anna, mut ben) =
        (Program::start("chat", &[&ticket, "anna"])?, Program::start("chat", &[&ticket, "ben"])?);
    for program in [&mut anna, &mut ben] {
        assert_eq!(program.line().await?, "server: be kind");
    }
    anna.say("hello").await?;
    for program in [&mut anna, &mut ben] {
        assert_eq!(program.line().await?, "anna: hello");
    }
    ben.say("hello yourself").await?;
    server.say("it is late").await?;
    for program in [&mut anna, &mut ben] {
        let mut heard = [program.line().await?, program.line().await?];
        heard.sort();
        assert_eq!(heard, ["ben: hello yourself", "server: it is late"]);
    }
    assert!(anna.end().await?.is_empty());
    server.end().await?;
    ben.end().await?;
    Ok(())
}

#[tokio::test]
async fn settings_reach_those_who_are_here_and_those_who_come_later() -> Anything {
    let mut server = Program::start("settings", &[])?;
    let ticket = server.line().await?;
    let mut early = Program::start("settings", &[&ticket])?;
    assert_eq!(early.line().await?, r#"{"colour": "blue"}"#);
    assert_eq!(early.line().await?, r#"{"colour": "blue", "size": "3"}"#);
    server.say("nonsense").await?;
    server.say("colour=red").await?;
    assert_eq!(early.line().await?, r#"{"colour": "red", "size": "3"}"#);
    let mut late = Program::start("settings", &[&ticket])?;
    assert_eq!(late.line().await?, r#"{"colour": "red"}"#);
    assert_eq!(late.line().await?, r#"{"colour": "red", "size": "3"}"#);
    server.say("size=4").await?;
    for program in [&mut early, &mut late] {
        assert_eq!(program.line().await?, r#"{"colour": "red", "size": "4"}"#);
    }
    server.end().await?;
    assert!(early.end().await?.is_empty());
    assert!(late.end().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_pipeline_ends_with_the_sum() -> Anything {
    let mut source = Program::start("pipeline", &[])?;
    let ticket = source.line().await?;
    let sum = Program::start("pipeline", &[&ticket, "sum"])?;
    let stages = [
        Program::start("pipeline", &[&ticket, "square"])?,
        Program::start("pipeline", &[&ticket, "square"])?,
    ];
    let expected: u64 = (1..=1_000_u64).map(|n| n * n).sum();
    assert_eq!(sum.end().await?, [expected.to_string()]);
    for stage in stages {
        stage.end().await?;
    }
    source.end().await?;
    Ok(())
}

#[tokio::test]
async fn one_select_serves_everything() -> Anything {
    let mut server = Program::start("select", &[])?;
    let ticket = server.line().await?;
    let client = Program::start("select", &[&ticket])?;
    let said = client.end().await?;
    assert!(said[0].contains("there is no such thing here"), "{said:?}");
    assert_eq!(said[1..], ["ONE", "TWO", "THREE", "ticks rise: true"]);
    let served = server.end().await?;
    assert!(served.iter().any(|line| line.ends_with("opens words")), "{served:?}");
    assert!(served.iter().any(|line| line == "THREE"), "{served:?}");
    Ok(())
}

#[tokio::test]
async fn programs_that_carry_their_keys_need_no_files() -> Anything {
    // In a directory with nothing in it, and nothing in the environment.
    let nothing = tempfile::tempdir()?;
    let run = |name: &str| -> Result<Child, Box<dyn std::error::Error>> {
        let mut command = Command::new(example(name)?);
        command.env_clear().current_dir(nothing.path()).stdout(Stdio::piped()).kill_on_drop(true);
        Ok(command.spawn()?)
    };
    let mut server = run("embedded_server")?;
    let mut lines = BufReader::new(server.stdout.take().ok_or("a pipe")?).lines();
    assert_eq!(within("it serves", lines.next_line()).await?.as_deref(), Some("serving"));
    let mut worker = run("embedded_worker")?;
    for n in 1..=10_u64 {
        let line = within("a result", lines.next_line()).await?;
        assert_eq!(line, Some(format!("{n} squared is {}", n * n)));
    }
    assert!(within("the worker's end", worker.wait()).await?.success());
    assert!(within("the server's end", server.wait()).await?.success());
    assert_eq!(std::fs::read_dir(nothing.path())?.count(), 0);
    Ok(())
}
