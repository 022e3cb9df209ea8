//! An open port under abuse, in real processes: memory and descriptors stay bounded, and an honest client keeps working, about as
//! fast as before.

#![cfg(target_os = "linux")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use common::process::{Process, role, say};
use common::{Anything, within};
use netchan::{Config, Identity, Receiver, Sender, Session, Ticket, dial, listen_and_serve};
use netchan_proto::crypto::{ClientHandshake, ClientSettings, Handshake, Hello, ServerTrust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// What a server with one client may have in memory, beyond what it had before it was abused.
const GROWTH_KIB_MAX: u64 = 64 * 1_024;

/// Round trips of which the slowest of a hundred are compared.
const ROUND_TRIPS: usize = 1_000;

/// Calm and abuse, in turns.
const ROUNDS: usize = 7;

/// So many connections of half handshakes in all.
const HALF_HANDSHAKES: usize = 100_000;

/// New connections in a second: bounded, and abuse enough for two processors that the attacker needs as well.
const PER_SECOND: usize = 4_000;

/// Connections that an attacker holds at once.
const AT_ONCE: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_process() -> Anything {
    let (role, with) = role();
    match role.as_str() {
        "server" => serve(&with).await,
        "attacker" => attack(&with).await,
        _ => Ok(()),
    }
}

/// Sends back what it receives. `greedy`: takes more connections than it can have descriptors.
async fn serve(with: &str) -> Anything {
    let mut config = Config::with_identity(Identity::generate());
    config.limits.handshake_timeout = Duration::from_secs(2);
    if with == "greedy" {
        config.limits.connections_max = Some(usize::MAX);
    }
    let server = listen_and_serve("127.0.0.1:0", config).await?;
    let (there, back) = (server.receiver::<u32>("there", 1)?, server.sender::<u32>("back", 1)?);
    say(&format!("ticket {}", server.ticket()));
    while let Some(value) = there.recv().await? {
        back.send(value).await?;
    }
    Ok(())
}

/// `kind|address|connections|ticket`: abuses the port, and stops by itself.
async fn attack(with: &str) -> Anything {
    let mut parts = with.split('|');
    let kind = parts.next().ok_or("a kind")?.to_owned();
    let address: SocketAddr = parts.next().ok_or("an address")?.parse()?;
    let connections: usize = parts.next().ok_or("a number")?.parse()?;
    let ticket: Ticket = parts.next().ok_or("a ticket")?.parse()?;
    let mut visits = JoinSet::new();
    let started = Instant::now();
    for n in 0..connections {
        if visits.len() >= AT_ONCE {
            visits.join_next().await;
        }
        visits.spawn(visit(kind.clone(), address, n, ticket.clone()));
        if n % 4 == 3 {
            let due = Duration::from_secs(1) * u32::try_from(n)? / u32::try_from(PER_SECOND)?;
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
        while visits.try_join_next().is_some() {}
    }
    say("all came");
    while visits.join_next().await.is_some() {}
    say("all left");
    Ok(())
}

/// The first flight of somebody who holds a ticket.
fn first_flight(ticket: &Ticket, n: usize) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let agent = String::new();
    let settings = ClientSettings {
        key: Identity::generate().key().clone(),
        server: ServerTrust::Pinned(ticket.server_pin()),
        secret: ticket.access_secret().cloned(),
        hello: Hello { version: 1, agent, aes_hardware: true, message_bytes_max: 1, resume: None },
        resume: None,
    };
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&(n as u64 ^ u64::from(std::process::id()) << 32).to_be_bytes());
    let mut client = ClientHandshake::new(settings, now, salt).expect("starts");
    client.poll_output().expect("a first flight")
}

async fn visit(kind: String, address: SocketAddr, n: usize, ticket: Ticket) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if kind == "half handshakes" {
        // Each from an address of its own, so that no bound on one of them helps.
        let source = Ipv4Addr::new(127, (1 + n % 250) as u8, (n / 250 % 250) as u8, 1);
        socket.bind((source, 0).into())?;
    }
    let mut stream = socket.connect(address).await?;
    // Made once: the attacker's own work is not what is looked at.
    static NOISE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..70_000_usize).map(|at| (at * 131 + 7) as u8).collect());
    let noise = &NOISE[..];
    match kind.as_str() {
        // A byte now and then, for as long as the server bears it.
        "slowloris" => {
            for byte in noise.chunks(1) {
                stream.write_all(byte).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // One in thirty has a right key, and stops behind its gate.
        "half handshakes" if n.is_multiple_of(30) => {
            stream.write_all(&first_flight(&ticket, n)).await?;
            let mut answer = Vec::new();
            _ = stream.read_to_end(&mut answer).await;
        }
        // One in seven says a part, and stays.
        "half handshakes" if n.is_multiple_of(7) => {
            stream.write_all(&noise[n % 100..][..n % 56]).await?;
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0, "a stranger gets zero bytes");
        }
        // A whole first flight that fits no key, or half of one.
        "half handshakes" => {
            let part = if n.is_multiple_of(2) { 1_024 } else { 512 };
            stream.write_all(&[&noise[n % 100..][..56], &[22, 3, 1, 4, 0], &noise[..part]].concat()).await?;
        }
        // Says nothing, and stays.
        "flood" => {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0, "a stranger gets zero bytes");
        }
        // The longest record that can be announced, and all of it.
        "huge lengths" => {
            stream.write_all(&[&noise[..56], &[22, 3, 1, 0xff, 0xff]].concat()).await?;
            stream.write_all(&noise[..65_535]).await?;
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
        }
        other => panic!("{other}"),
    }
    Ok(())
}

/// One at a time: each looks at how long things take.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Site {
    _alone: tokio::sync::MutexGuard<'static, ()>,
    server: Process,
    /// What it is to have open at most.
    descriptors_max: usize,
    ticket: String,
    address: String,
}

impl Site {
    async fn start(descriptors: usize) -> Self {
        Self::start_as("", descriptors).await
    }

    /// With so many file descriptors.
    async fn start_as(with: &str, descriptors: usize) -> Self {
        let alone = ALONE.lock().await;
        let limit = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        let mut server = Process::start("server", with, &["sh", "-c", &limit]);
        let line = within("its ticket", server.line()).await.expect("a server");
        let ticket = line.strip_prefix("ticket ").expect("a ticket").to_owned();
        let address = ticket.split(['/', '#']).nth(2).expect("an address").to_owned();
        // One that is not greedy leaves some.
        let descriptors_max = if with == "greedy" { descriptors } else { descriptors - 1 };
        Self { _alone: alone, server, descriptors_max, ticket, address }
    }

    fn memory_kib(&self) -> u64 {
        let pid = self.server.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number")
    }

    fn descriptors(&self) -> usize {
        let pid = self.server.child.id().expect("it runs");
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    fn attack(&self, kind: &str, connections: usize) -> Process {
        // Last in line for a processor, since it would have another machine's.
        let nice = ["nice", "-n", "19"];
        let with = format!("{kind}|{}|{connections}|{}", self.address, self.ticket);
        Process::start("attacker", &with, &nice)
    }
}

struct Honest {
    _session: Session,
    there: Sender<u32>,
    back: Receiver<u32>,
}

impl Honest {
    async fn dial(site: &Site) -> Self {
        let session = within("dial", dial(&site.ticket, Config::default())).await.unwrap();
        let there = session.sender::<u32>("there").await.unwrap();
        let back = session.receiver::<u32>("back").await.unwrap();
        Self { _session: session, there, back }
    }

    /// How long the slowest of a hundred round trips take.
    async fn p99(&self) -> Duration {
        let mut took = Vec::with_capacity(ROUND_TRIPS);
        for n in 0..ROUND_TRIPS {
            let begun = Instant::now();
            self.there.send(n as u32).await.unwrap();
            assert_eq!(within("an echo", self.back.recv()).await.unwrap(), Some(n as u32));
            took.push(begun.elapsed());
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        took.sort_unstable();
        took[ROUND_TRIPS * 99 / 100]
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Calm and abuse in turns, so that whatever else this machine does befalls both.
async fn abused(kind: &str, connections: usize) {
    abused_at(Site::start(1_024).await, kind, connections).await;
}

async fn abused_at(site: Site, kind: &str, connections: usize) {
    let honest = Honest::dial(&site).await;
    honest.p99().await;
    let before_kib = site.memory_kib();
    let (mut calm, mut under) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        calm.push(honest.p99().await);
        let mut attacker = site.attack(kind, connections / ROUNDS);
        let came = within("all of them", async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::join!(attacker.line(), async { under.push(honest.p99().await) }).0
        });
        assert_eq!(came.await.as_deref(), Some("all came"));
        assert!(site.descriptors() <= site.descriptors_max);
        // Somebody else gets in, while those are still here that hold on.
        within("a newcomer", async { while dial(&site.ticket, Config::default()).await.is_err() {} }).await;
    }
    let (calm, under) = (median(calm), median(under));
    let grown = site.memory_kib() - before_kib;
    println!("{kind}: p99 {calm:?} calm, {under:?} under abuse; {grown} KiB more");
    assert!(under <= 2 * calm, "{kind}: p99 {calm:?} calm, {under:?} under abuse");
    assert!(grown < GROWTH_KIB_MAX, "{kind}: {grown} KiB more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowloris_is_borne() {
    abused("slowloris", 7 * 6_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_half_handshakes_are_borne() {
    abused("half handshakes", HALF_HANDSHAKES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_lengths_are_borne() {
    abused("huge lengths", 7 * 6_000).await;
}

/// Many more connections than the server may have descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_beyond_the_descriptors_is_borne() {
    abused_at(Site::start(64).await, "flood", 7 * 5_000).await;
}

/// The same where nothing keeps it from having none left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_descriptor_left_goes_on() {
    abused_at(Site::start_as("greedy", 64).await, "flood", 7 * 5_000).await;
}
