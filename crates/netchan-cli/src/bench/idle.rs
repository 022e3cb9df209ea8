//! `netchan bench idle`: what a connection costs that does nothing, and whether a server that has ten thousand is still there
//! for the others.
//!
//! Each contestant has two fresh processes, a server and a client with all the connections. What is told is the growth of
//! the memory in use (the resident set) from before the first connection to a moment after the last, for each.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::netchan::{Config, Server, ServerEvent, Session, SessionEvent, SessionId, dial, listen_and_serve};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::job::{Contestant, Workload};
use super::report::percentile;
use super::tls::Identity;
use super::wire::{Plain, Upgrade};
use crate::Failure;
use crate::child::{self, Orders, Subprocess};
use crate::text::{figure, table};

/// Set-ups under way at a time.
const AT_ONCE: usize = 16;
/// From the last connection to the measurement: buffers that were needed to set up are given back by then.
const SETTLES_AFTER: Duration = Duration::from_secs(2);
/// How long the server is asked whether it is still there.
const ASKED_FOR: Duration = Duration::from_secs(2);
/// Descriptors beside those of the connections.
const SPARE_DESCRIPTORS: u64 = 256;
/// How long it may take until a server knows who is here: the connections are there, or gone, by then.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// How long any step may take.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// What the parent orders.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Say the public key, for TLS.
    Key,
    /// Serve; the client has this key.
    Serve { contestant: Contestant, key: Vec<u8>, connections: usize },
    /// Make the connections.
    Dial { contestant: Contestant, address: String, key: Vec<u8>, connections: usize },
    /// Say how much memory is in use.
    Measure,
    /// Give up so many of the connections.
    Leave { connections: usize },
    /// Ask the server for something, beside a stream that keeps it busy.
    AskBesideStream,
}

/// What an end answers.
#[derive(Serialize, Deserialize)]
enum News {
    Key(Vec<u8>),
    Listening {
        address: String,
    },
    Done,
    /// `sessions`: those that the server knows of. `followed`: those that its events told of.
    Measured {
        resident_bytes: u64,
        sessions: usize,
        followed: usize,
    },
    /// Round trips in microseconds.
    Asked {
        p50: f64,
        p99: f64,
    },
    Failed(String),
}

/// What was found of one contestant, in bytes for each connection.
struct Found {
    server: f64,
    client: f64,
}

/// Runs it; `true` unless something failed.
pub(super) async fn run(connections: usize, json: bool) -> Result<bool, Failure> {
    raise_descriptors(connections as u64 + SPARE_DESCRIPTORS)?;
    let mut found = BTreeMap::new();
    let mut asked = (0.0, 0.0);
    for &contestant in Workload::Idle.contestants(false) {
        let name = contestant.name();
        let (one, trips) =
            measure(contestant, connections).await.map_err(|error| format!("{name}: {error}"))?;
        asked = trips.unwrap_or(asked);
        found.insert(name, one);
    }
    let kib = |bytes: f64| bytes / 1_024.0;
    let mut rows = vec![["", "server", "client"].map(str::to_owned).to_vec()];
    for (name, one) in &found {
        rows.push(vec![(*name).to_owned(), figure(kib(one.server)), figure(kib(one.client))]);
    }
    print!("idle, {connections} connections, KiB for each, less is better\n{}", table(&rows));
    println!("the server's list of clients, and its events, were right throughout");
    println!(
        "beside them and a busy stream, netchan answers in {} us (p50), {} us (p99)",
        figure(asked.0),
        figure(asked.1)
    );
    if json {
        let servers: Map<String, Value> =
            found.iter().map(|(name, one)| ((*name).to_owned(), json!(kib(one.server)))).collect();
        let clients: Map<String, Value> =
            found.iter().map(|(name, one)| ((*name).to_owned(), json!(kib(one.client)))).collect();
        let netchan = found.get("netchan").map_or(0.0, |one| one.server);
        let ratio: Map<String, Value> = found
            .iter()
            .filter(|(name, _)| **name != "netchan")
            .map(|(name, one)| ((*name).to_owned(), json!(netchan / one.server)))
            .collect();
        println!(
            "{}",
            json!({
                "workload": "idle", "size_bytes": 0, "unit": Workload::Idle.unit(), "connections": connections,
                "median": servers, "min": servers, "max": servers, "ratio": ratio,
                "server": servers, "client": clients,
                "answer_us": {"p50": asked.0, "p99": asked.1}, "clients_right": true,
            })
        );
    }
    Ok(true)
}

/// Lets this process, and those that it starts, have so many descriptors.
fn raise_descriptors(needed: u64) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|error| {
        format!(
            "{needed} descriptors are needed, and this process may have {} ({error}); run `ulimit -n {needed}` before, as \
             root if need be, or take fewer --connections",
            current.unwrap_or(0)
        )
        .into()
    })
}

async fn measure(contestant: Contestant, connections: usize) -> Result<(Found, Option<(f64, f64)>), Failure> {
    let (mut server, mut client) = (Subprocess::start("bench-idle")?, Subprocess::start("bench-idle")?);
    let News::Key(client_key) = ask(&mut client, &Order::Key).await? else { return Err(out_of_step()) };
    let News::Key(key) = ask(&mut server, &Order::Key).await? else { return Err(out_of_step()) };
    let serve = Order::Serve { contestant, key: client_key, connections };
    let News::Listening { address } = ask(&mut server, &serve).await? else { return Err(out_of_step()) };
    let before = (resident(&mut server).await?.0, resident(&mut client).await?.0);
    let News::Done = ask(&mut client, &Order::Dial { contestant, address, key, connections }).await? else {
        return Err(out_of_step());
    };
    tokio::time::sleep(SETTLES_AFTER).await;
    let at_server = settled(&mut server, contestant, connections).await?;
    let at_client = resident(&mut client).await?.0;
    let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / connections as f64;
    let found = Found { server: each(at_server, before.0), client: each(at_client, before.1) };
    if contestant != Contestant::Netchan {
        return Ok((found, None));
    }
    let News::Asked { p50, p99 } = ask(&mut client, &Order::AskBesideStream).await? else {
        return Err(out_of_step());
    };
    // Who is here stays right when a part of them goes.
    settled(&mut server, contestant, connections).await?;
    let leaving = connections / 2;
    ask(&mut client, &Order::Leave { connections: leaving }).await?;
    settled(&mut server, contestant, connections - leaving).await?;
    Ok((found, Some((p50, p99))))
}

fn out_of_step() -> Failure {
    "an end is out of step".into()
}

async fn ask(end: &mut Subprocess, order: &Order) -> Result<News, Failure> {
    end.tell(order).await?;
    match tokio::time::timeout(STEP_LIMIT, end.hear()).await {
        Ok(heard) => match heard? {
            Some(News::Failed(why)) => Err(why.into()),
            Some(news) => Ok(news),
            None => Err("an end has ended early".into()),
        },
        Err(_) => Err(format!("not done after {} s", STEP_LIMIT.as_secs()).into()),
    }
}

/// Memory in use, sessions that are known, and those that events told of.
async fn resident(end: &mut Subprocess) -> Result<(u64, usize, usize), Failure> {
    match ask(end, &Order::Measure).await? {
        News::Measured { resident_bytes, sessions, followed } => Ok((resident_bytes, sessions, followed)),
        _ => Err(out_of_step()),
    }
}

/// Waits until the server knows of so many connections, by its list and by its events; tells what memory it uses.
async fn settled(server: &mut Subprocess, contestant: Contestant, wanted: usize) -> Result<u64, Failure> {
    let begun = Instant::now();
    loop {
        let (bytes, sessions, followed) = resident(server).await?;
        if sessions == wanted && (followed == wanted || contestant != Contestant::Netchan) {
            return Ok(bytes);
        }
        if begun.elapsed() > SETTLE_LIMIT {
            return Err(format!(
                "the server knows of {sessions} connections, and its events of {followed}, instead of {wanted}"
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What an end holds.
#[derive(Default)]
struct Held {
    server: Option<Server>,
    sessions: Vec<Session>,
    /// Who is here, by what events told; or what was wrong with them.
    following: Option<Arc<Mutex<Following>>>,
    accepting: Option<(JoinHandle<()>, std::sync::Arc<std::sync::atomic::AtomicUsize>)>,
    streams: Vec<Box<dyn std::any::Any + Send>>,
    address: String,
}

/// Who is here, as the server's events tell it.
#[derive(Default)]
struct Following {
    here: HashSet<SessionId>,
    wrong: Option<String>,
}

impl Following {
    fn note(&mut self, event: &ServerEvent) {
        let Some(session) = event.peer.session_id() else {
            self.wrong.get_or_insert_with(|| format!("an event of nobody: {}", event.event));
            return;
        };
        let expected = match &event.event {
            SessionEvent::Connected => self.here.insert(session),
            SessionEvent::Gone(_) => self.here.remove(&session),
            SessionEvent::Suspended { .. } | SessionEvent::Resumed => self.here.contains(&session),
            _ => false,
        };
        if !expected {
            self.wrong.get_or_insert_with(|| format!("{session}: {} out of turn", event.event));
        }
    }
}

/// The whole life of an end.
pub(crate) async fn end() -> Result<(), Failure> {
    let mut orders = Orders::<Order>::listen();
    let identity = Identity::generate()?;
    let mut held = Held::default();
    loop {
        let news = match held.obey(orders.next().await, &identity).await {
            Ok(news) => news,
            Err(error) => News::Failed(error.to_string()),
        };
        child::answer(&news)?;
    }
}

impl Held {
    async fn obey(&mut self, order: Order, identity: &Identity) -> Result<News, Failure> {
        Ok(match order {
            Order::Key => News::Key(identity.public_key().to_vec()),
            Order::Serve { contestant, key, connections } => {
                raise_descriptors(connections as u64 + SPARE_DESCRIPTORS)?;
                let address = match contestant {
                    Contestant::Netchan => self.serve_netchan().await?,
                    Contestant::Tls => self.serve(identity.acceptor(key)?).await?,
                    Contestant::Tcp | Contestant::Direct | Contestant::Mpsc => self.serve(Plain).await?,
                };
                News::Listening { address }
            }
            Order::Dial { contestant, address, key, connections } => {
                raise_descriptors(connections as u64 + SPARE_DESCRIPTORS)?;
                self.address.clone_from(&address);
                match contestant {
                    Contestant::Netchan => {
                        let dialed = many(connections, || dial_once(address.clone())).await?;
                        self.sessions = dialed;
                    }
                    Contestant::Tls => self.dial(address, identity.connector(key)?, connections).await?,
                    Contestant::Tcp | Contestant::Direct | Contestant::Mpsc => {
                        self.dial(address, Plain, connections).await?
                    }
                }
                News::Done
            }
            Order::Measure => {
                let (sessions, followed) = (self.count(), self.followed()?);
                News::Measured { resident_bytes: resident_bytes()?, sessions, followed }
            }
            Order::Leave { connections } => {
                let leaving = self.sessions.split_off(self.sessions.len() - connections);
                for session in leaving {
                    session.close(STEP_LIMIT).await?;
                }
                News::Done
            }
            Order::AskBesideStream => {
                let mut trips = ask_beside_stream(&self.address).await?;
                trips.sort_unstable();
                let at = |part| percentile(&trips, part).map_or(0.0, |nanos| nanos as f64 / 1_000.0);
                News::Asked { p50: at(0.50), p99: at(0.99) }
            }
        })
    }

    fn count(&self) -> usize {
        let accepted =
            self.accepting.as_ref().map(|(_, count)| count.load(std::sync::atomic::Ordering::SeqCst));
        self.server.as_ref().map(|server| server.clients().len()).or(accepted).unwrap_or(0)
    }

    fn followed(&self) -> Result<usize, Failure> {
        let Some(following) = &self.following else { return Ok(0) };
        let following = following.lock().map_err(|_| "whoever followed the events panicked")?;
        match &following.wrong {
            Some(wrong) => Err(wrong.clone().into()),
            None => Ok(following.here.len()),
        }
    }

    async fn serve_netchan(&mut self) -> Result<String, Failure> {
        let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
        let pings = server.receiver::<u64>("pings", 16)?;
        let pongs = server.sender::<u64>("pongs", 16)?;
        let stream = server.receiver::<Vec<u8>>("stream", 1_024)?;
        tokio::spawn(async move {
            while let Ok(Some(ping)) = pings.recv().await {
                if pongs.send(ping).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move { while let Ok(Some(_)) = stream.recv().await {} });
        let following = Arc::new(Mutex::new(Following::default()));
        let mut events = server.events();
        self.following = Some(Arc::clone(&following));
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Ok(mut following) = following.lock() else { return };
                following.note(&event);
            }
        });
        let ticket = server.ticket().to_string();
        self.server = Some(server);
        Ok(ticket)
    }

    async fn serve<U: Upgrade>(&mut self, upgrade: U) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let count = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let counted = std::sync::Arc::clone(&count);
        let accepting = tokio::spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (upgrade, counted) = (upgrade.clone(), std::sync::Arc::clone(&counted));
                // A task for each, as a server has that waits for something to read.
                streams.spawn(async move {
                    let Ok(mut stream) = upgrade.upgrade(tcp).await else { return };
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await;
                });
            }
        });
        self.accepting = Some((accepting, count));
        Ok(address)
    }

    async fn dial<U: Upgrade>(
        &mut self,
        address: String,
        upgrade: U,
        connections: usize,
    ) -> Result<(), Failure> {
        let streams = many(connections, || {
            let (address, upgrade) = (address.clone(), upgrade.clone());
            async move { Ok(upgrade.upgrade(TcpStream::connect(address).await?).await?) }
        })
        .await?;
        self.streams =
            streams.into_iter().map(|stream| Box::new(stream) as Box<dyn std::any::Any + Send>).collect();
        Ok(())
    }
}

async fn dial_once(ticket: String) -> Result<Session, Failure> {
    Ok(dial(ticket.as_str(), Config::default()).await?)
}

/// Makes so many of something, several at a time.
async fn many<T, F>(count: usize, make: impl Fn() -> F) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    let (mut begun, mut made) = (0, Vec::with_capacity(count));
    while made.len() < count {
        while begun < count && under_way.len() < AT_ONCE {
            under_way.spawn(make());
            begun += 1;
        }
        match under_way.join_next().await {
            Some(one) => made.push(one??),
            None => break,
        }
    }
    Ok(made)
}

/// Round trips on one session, in nanoseconds, while another streams.
async fn ask_beside_stream(ticket: &str) -> Result<Vec<u64>, Failure> {
    let (asks, streams) = (dial_once(ticket.to_owned()).await?, dial_once(ticket.to_owned()).await?);
    let stream = streams.sender::<Vec<u8>>("stream").await?;
    let streaming = tokio::spawn(async move { while stream.send(vec![7; 64]).await.is_ok() {} });
    let (pings, pongs) = (asks.sender::<u64>("pings").await?, asks.receiver::<u64>("pongs").await?);
    let until = Instant::now() + ASKED_FOR;
    let mut trips = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        pings.send(trips.len() as u64).await?;
        pongs.recv().await?.ok_or("the server stopped answering")?;
        trips.push(begun.elapsed().as_nanos() as u64);
    }
    streaming.abort();
    Ok(trips)
}

/// Memory of this process that is in use.
fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("memory can be measured on Linux only: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1_024)
}
