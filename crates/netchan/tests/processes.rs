//! Real processes, killed, stopped and cut off for real.
//!
//! A test starts this very binary again with a role in its environment; the child then runs `the_other_process` and nothing
//! else.

#![cfg(unix)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::process::{Process, role, say, serve_again};
use common::{Anything, eventually, within};
use netchan::{
    ChannelOptions, Config, Identity, LossPolicy, SendError, SessionEvent, SessionState, Unsettled, dial,
    listen_and_serve,
};

/// Short, so that a test need not wait long for a link to be found dead.
fn quick() -> Config {
    let mut config = Config::default();
    config.keepalive_idle = Duration::from_millis(300);
    config.keepalive_dead = Duration::from_secs(1);
    config
}

/// What a child runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_process() -> Anything {
    let (role, with) = role();
    match role.as_str() {
        "server" => serve(&with).await,
        "client" => send(&with).await,
        _ => Ok(()),
    }
}

/// `path of the identity|address`: says its ticket, then every value that it receives, before it receives the next.
async fn serve(with: &str) -> Anything {
    let (path, address) = with.split_once('|').ok_or("what to serve with")?;
    let mut config = quick();
    config.identity = Some(Identity::load_or_generate(path)?);
    let server = serve_again(address, &config).await?;
    let values = server.receiver::<u32>("values", 8)?;
    say(&format!("ticket {}", server.ticket()));
    while let Some(received) = values.recv_message().await? {
        say(&format!("value {} {}", received.value, received.redelivered));
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    Ok(())
}

/// `ticket`: sends for as long as it may.
async fn send(ticket: &str) -> Anything {
    let session = dial(ticket, quick()).await?;
    let sender = session.sender::<u32>("values").await?;
    for n in 0.. {
        sender.send(n).await?;
        say(&format!("sent {n}"));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn number(line: &str, word: &str) -> Option<u32> {
    line.strip_prefix(word)?.split_whitespace().next()?.parse().ok()
}

/// What a server process received, by value: how often, and how often without the flag.
type Seen = BTreeMap<u32, (u32, u32)>;

/// Notes what a server process says, until it ends. Returns the value that it may have received and not have said any more.
async fn watch(mut process: Process, seen: std::sync::Arc<std::sync::Mutex<Seen>>) -> u32 {
    let mut unsaid = 0;
    while let Some(line) = process.line().await {
        if let Some(n) = number(&line, "value ") {
            let entry = &mut *seen.lock().unwrap();
            let (times, plain) = entry.entry(n).or_default();
            *times += 1;
            *plain += u32::from(line.ends_with("false"));
            unsaid = n + 1;
        }
    }
    unsaid
}

/// What came of killing a server twice while values are sent.
struct Killed {
    /// What its processes said, over all.
    seen: Seen,
    sent: u32,
    /// What the client was given back.
    back: Vec<Unsettled<u32>>,
    /// What a process may have received and not have said any more when it was killed.
    unsaid: BTreeSet<u32>,
}

async fn killed(policy: LossPolicy) -> Killed {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Seen::new()));
    let mut first = Process::start("server", &format!("{}|{}", path.display(), common::own_address()), &[]);
    let line = within("the ticket", first.line()).await.unwrap();
    let ticket: netchan::Ticket = line.strip_prefix("ticket ").unwrap().parse().unwrap();
    let (host, port) = ticket.addresses()[0].host_port().unwrap();
    let with = format!("{}|{host}:{port}", path.display());
    let session = dial(&ticket, quick()).await.unwrap();
    let options = || ChannelOptions::<u32>::default().on_loss(policy);
    let mut sender = session.sender_with("values", options()).await.unwrap();
    let mut server_pid = first.child.id().unwrap();
    let mut watching = vec![tokio::spawn(watch(first, seen.clone()))];
    let (mut next, mut kills, mut back) = (0, 0, Vec::new());
    while next < 600 {
        if kills < 2 && next == 200 * (kills + 1) {
            kills += 1;
            let status = std::process::Command::new("kill").args(["-KILL", &server_pid.to_string()]).status();
            assert!(status.unwrap().success());
            let again = Process::start("server", &with, &[]);
            server_pid = again.child.id().unwrap();
            watching.push(tokio::spawn(watch(again, seen.clone())));
        }
        match within("send", sender.send(next)).await {
            Ok(()) => next += 1,
            Err(SendError::Lost { .. }) => {
                back.extend(sender.take_unsettled());
                within("connected", session.wait_connected()).await.unwrap();
                sender = within("open", session.sender_with("values", options())).await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    within("flush", sender.flush()).await.unwrap();
    // What has been flushed is at the server, and is said there before the channel ends.
    eventually("everything is taken", || sender.stats().taken == sender.stats().sent).await;
    sender.close();
    session.close(Duration::from_secs(10)).await.unwrap();
    let last = next - 1;
    eventually("the last value", || seen.lock().unwrap().contains_key(&last)).await;
    let status = std::process::Command::new("kill").args(["-KILL", &server_pid.to_string()]).status();
    assert!(status.unwrap().success());
    let mut unsaid = BTreeSet::new();
    for watcher in watching {
        unsaid.insert(within("the watchers", watcher).await.unwrap());
    }
    let seen = seen.lock().unwrap().clone();
    Killed { seen, sent: next, back, unsaid }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_every_value_in_one_place() {
    let Killed { seen, sent, back, unsaid } = killed(LossPolicy::Fail).await;
    let mut undelivered = BTreeSet::new();
    let mut in_doubt = BTreeSet::new();
    for value in back {
        let (n, fresh) = match value {
            Unsettled::Undelivered(n) => (n, undelivered.insert(n)),
            Unsettled::InDoubt(n) => (n, in_doubt.insert(n)),
        };
        assert!(fresh, "{n} came back twice");
    }
    assert!(undelivered.is_disjoint(&in_doubt));
    for n in 0..sent {
        let times = seen.get(&n).map_or(0, |(times, _)| *times);
        assert!(times <= 1, "{n} was received {times} times");
        let places = u32::from(undelivered.contains(&n)) + u32::from(in_doubt.contains(&n));
        assert!(times == 1 || places == 1 || unsaid.contains(&n), "{n} is lost");
        assert!(times == 0 || !undelivered.contains(&n), "{n} was received, and reported as undelivered");
    }
    println!("{sent} sent, {} undelivered, {} in doubt", undelivered.len(), in_doubt.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_resent_to_a_new_server_arrives_and_says_so() {
    let Killed { seen, sent, back, unsaid } = killed(LossPolicy::Resend).await;
    assert!(back.is_empty());
    for n in 0..sent {
        let (times, plain) = seen.get(&n).copied().unwrap_or_default();
        assert!(times >= 1 || unsaid.contains(&n), "{n} is lost");
        assert!(plain <= 1, "{n} was received {times} times, {plain} of them unmarked");
    }
}

/// Reads what the client says it sent, and what the server here receives, until both have gone on by so much.
async fn both_go_on(client: &mut Process, values: &netchan::Receiver<u32>, next: &mut u32, by: u32) {
    let until = *next + by;
    while *next < until {
        tokio::select! {
            received = within("a value", values.recv()) => {
                assert_eq!(received.unwrap(), Some(*next), "in order, once");
                *next += 1;
            }
            line = client.line() => assert!(line.is_some(), "the client ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_stopped_for_longer_than_the_keepalive_goes_on() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", quick()).await?;
    let values = server.receiver::<u32>("values", 8)?;
    let mut events = server.events();
    let mut client = Process::start("client", &server.ticket().to_string(), &[]);
    let mut next = 0;
    both_go_on(&mut client, &values, &mut next, 50).await;
    client.signal("-STOP");
    let gone =
        async { while !matches!(events.recv().await.unwrap().event, SessionEvent::Suspended { .. }) {} };
    let stopped = Instant::now();
    within("the server finds it dead", gone).await;
    assert!(stopped.elapsed() < Duration::from_secs(3), "three times the keepalive");
    client.signal("-CONT");
    within("resumed", async { while events.recv().await.unwrap().event != SessionEvent::Resumed {} }).await;
    both_go_on(&mut client, &values, &mut next, 50).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_for_longer_than_the_keepalive_goes_on() -> Anything {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("identity");
    let mut server = Process::start("server", &format!("{}|{}", path.display(), common::own_address()), &[]);
    let line = within("the ticket", server.line()).await.ok_or("no ticket")?;
    let mut config = quick();
    config.limits.handshake_timeout = Duration::from_secs(1);
    let session = dial(line.strip_prefix("ticket ").ok_or("no ticket")?, config).await?;
    let sender = session.sender::<u32>("values").await?;
    let mut events = session.events();
    for n in 0..50 {
        sender.send(n).await?;
    }
    server.signal("-STOP");
    let suspended = async { while !matches!(events.recv().await, Some(SessionEvent::Suspended { .. })) {} };
    let stopped = Instant::now();
    within("the client finds it dead", suspended).await;
    assert!(stopped.elapsed() < Duration::from_secs(3), "three times the keepalive");
    // An attempt to connect meets a socket whose process does not answer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(session.state(), SessionState::Suspended);
    server.signal("-CONT");
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    for n in 50..100 {
        within("send", sender.send(n)).await?;
    }
    for n in 0..100 {
        let line = within("a value", server.line()).await.ok_or("the server ended")?;
        assert_eq!(line, format!("value {n} false"), "in order, once");
    }
    Ok(())
}

/// A network namespace of this test's own, joined to the machine by a pair of interfaces.
struct Namespace {
    name: String,
    near: String,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Namespace {
    fn new() -> Result<Self, String> {
        let pid = std::process::id() % 10_000;
        let space = Self { name: format!("netchan-{pid}"), near: format!("nc{pid}a") };
        let far = format!("nc{pid}b");
        ip(&["netns", "add", &space.name])?;
        ip(&["link", "add", &space.near, "type", "veth", "peer", "name", &far, "netns", &space.name])?;
        ip(&["addr", "add", "10.213.77.1/24", "dev", &space.near])?;
        ip(&["link", "set", &space.near, "up"])?;
        ip(&["-n", &space.name, "addr", "add", "10.213.77.2/24", "dev", &far])?;
        ip(&["-n", &space.name, "link", "set", &far, "up"])?;
        Ok(space)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair goes with either end.
        _ = ip(&["link", "del", &self.near]);
        _ = ip(&["netns", "del", &self.name]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_goes_down_without_a_word_is_found_and_replaced() -> Anything {
    let space = match Namespace::new() {
        Ok(space) => space,
        Err(why) => {
            eprintln!("SKIPPED: no network namespace of our own can be made here ({why})");
            return Ok(());
        }
    };
    let server = listen_and_serve("10.213.77.1:0", quick()).await?;
    let values = server.receiver::<u32>("values", 8)?;
    let mut events = server.events();
    let wrapper = ["ip", "netns", "exec", &space.name];
    let mut client = Process::start("client", &server.ticket().to_string(), &wrapper);
    let mut next = 0;
    both_go_on(&mut client, &values, &mut next, 50).await;
    ip(&["link", "set", &space.near, "down"])?;
    let down = Instant::now();
    let gone =
        async { while !matches!(events.recv().await.unwrap().event, SessionEvent::Suspended { .. }) {} };
    within("the server finds it dead", gone).await;
    assert!(down.elapsed() < Duration::from_secs(3), "three times the keepalive");
    ip(&["link", "set", &space.near, "up"])?;
    within("resumed", async { while events.recv().await.unwrap().event != SessionEvent::Resumed {} }).await;
    both_go_on(&mut client, &values, &mut next, 50).await;
    Ok(())
}
