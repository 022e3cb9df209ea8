//! The whole stack over a simulated network, in simulated time: partitions, one-way and whole, held messages, delays, crashes.
//!
//! `NETCHAN_SEED=<n>` replays one seed, `NETCHAN_SEEDS=<times>` runs so many times as many.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netchan::address::Address;
use netchan::transport::{BoxFuture, IoLink, Link, Listener, Transport, Transports};
use netchan::{
    Config, Identity, SendError, SendTimeoutError, SessionEvent, SessionState, Ticket, Unsettled, dial,
    listen_and_serve,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

const SEEDS: u64 = 24;
const VALUES: u32 = 80;

type Failure = Box<dyn std::error::Error>;

/// Bytes over the simulated network.
struct Simulated;

struct Door(TcpListener);

fn place(address: &Address) -> io::Result<(String, u16)> {
    address.host_port().map(|(host, port)| (host.to_owned(), port)).ok_or(io::ErrorKind::InvalidInput.into())
}

impl Transport for Simulated {
    fn scheme(&self) -> &str {
        "tcp"
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(place(address)?).await?;
            Ok(Box::new(IoLink::new(stream, "simulated")) as Box<dyn Link>)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (_, port) = place(address)?;
            Ok(Box::new(Door(TcpListener::bind(("0.0.0.0", port)).await?)) as Box<dyn Listener>)
        })
    }
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let (stream, _) = self.0.accept().await?;
            Ok(Box::new(IoLink::new(stream, "simulated")) as Box<dyn Link>)
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        vec!["tcp://server:1700".parse().expect("an address")]
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.transports = Transports::default().with(Simulated);
    config
}

fn ticket(identity: &Identity) -> Ticket {
    Ticket::new(vec!["tcp://server:1700".parse().expect("an address")], identity).expect("a ticket")
}

fn simulation(seed: u64) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(2))
        .simulation_duration(Duration::from_secs(400))
        .max_message_latency(Duration::from_millis(40))
        .tcp_capacity(4_096)
        .build()
}

fn for_seeds(count: u64, run: impl Fn(u64)) {
    let times = std::env::var("NETCHAN_SEEDS").map_or(1, |times| times.parse().expect("a number"));
    let only = std::env::var("NETCHAN_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    for seed in only.map_or(0..count * times, |seed| seed..seed + 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("failed with NETCHAN_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// What a server received from each client, in order; over all its lives.
type Seen = Arc<Mutex<BTreeMap<u32, Vec<u32>>>>;

/// A server that writes down what it receives, and hands out tasks.
async fn serve(identity: Identity, seen: Seen) -> Result<(), Failure> {
    let mut config = config();
    config.identity = Some(identity);
    let server = listen_and_serve("tcp://server:1700", config).await?;
    let results = server.receiver::<(u32, u32)>("results", 8)?;
    let tasks = server.sender::<u32>("tasks", 8)?;
    tokio::spawn(async move {
        for n in 0.. {
            if tasks.send(n).await.is_err() {
                break;
            }
        }
    });
    while let Some((client, n)) = results.recv().await? {
        seen.lock().unwrap().entry(client).or_default().push(n);
    }
    Ok(())
}

/// Sends every value once, receives tasks, and leaves when everything has arrived.
async fn work(ticket: Ticket, client: u32) -> Result<(), Failure> {
    let session = loop {
        match dial(&ticket, config()).await {
            Ok(session) => break session,
            // The network may fail from the start.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let results = open(|| session.sender::<(u32, u32)>("results")).await;
    let tasks = open(|| session.receiver::<u32>("tasks")).await;
    let mut last = None;
    for n in 0..VALUES {
        results.send((client, n)).await?;
        if n % 4 == 0 {
            let task = tasks.recv().await?.ok_or("the tasks have ended")?;
            assert!(last < Some(task), "{last:?} before {task}");
            last = Some(task);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    results.flush().await?;
    session.close(Duration::from_secs(200)).await?;
    Ok(())
}

/// Opens a channel, however often the opening is not answered in time.
async fn open<T, F: Future<Output = Result<T, netchan::OpenError>>>(attempt: impl Fn() -> F) -> T {
    loop {
        match attempt().await {
            Ok(channel) => return channel,
            Err(netchan::OpenError::NotAvailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// One step of bad luck, or none.
fn misfortune(sim: &turmoil::Sim<'_>, rng: &mut StdRng, clients: u32) {
    let client = format!("client-{}", rng.random_range(0..clients));
    match rng.random_range(0..7) {
        0 => sim.partition("server", client.as_str()),
        1 => sim.partition_oneway("server", client.as_str()),
        2 => sim.partition_oneway(client.as_str(), "server"),
        3 => sim.hold("server", client.as_str()),
        4 => sim.release("server", client.as_str()),
        _ => sim.repair("server", client.as_str()),
    }
}

fn mend(sim: &turmoil::Sim<'_>, clients: u32) {
    for client in 0..clients {
        let client = format!("client-{client}");
        sim.repair("server", client.as_str());
        sim.release("server", client.as_str());
    }
}

#[test]
fn partitions_and_held_messages_are_invisible() {
    for_seeds(SEEDS, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let clients = rng.random_range(1..4);
        let mut sim = simulation(seed);
        let (identity, seen) = (Identity::generate(), Seen::default());
        sim.host("server", {
            let (identity, seen) = (identity.clone(), Arc::clone(&seen));
            move || serve(identity.clone(), Arc::clone(&seen))
        });
        for client in 0..clients {
            sim.client(format!("client-{client}"), work(ticket(&identity), client));
        }
        let trouble_until = Duration::from_secs(rng.random_range(10..60));
        let mut next = Duration::from_millis(rng.random_range(0..1_500));
        let mut mended = false;
        while !sim.step().expect("every program ends well") {
            if sim.elapsed() < trouble_until {
                if sim.elapsed() >= next {
                    misfortune(&sim, &mut rng, clients);
                    next = sim.elapsed() + Duration::from_millis(rng.random_range(10..4_000));
                }
            } else if !mended {
                mended = true;
                mend(&sim, clients);
            }
        }
        let all: Vec<_> = (0..VALUES).collect();
        let seen = seen.lock().unwrap();
        for client in 0..clients {
            assert_eq!(seen.get(&client), Some(&all), "once, and in order");
        }
    });
}

/// What a client was given back.
type Back = Arc<Mutex<Vec<Unsettled<(u32, u32)>>>>;

/// A client that goes on over lost sessions, and keeps what comes back. What is in doubt is not sent again.
async fn go_on(ticket: Ticket, back: Back) -> Result<(), Failure> {
    let session = loop {
        match dial(&ticket, config()).await {
            Ok(session) => break session,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let mut results = open(|| session.sender::<(u32, u32)>("results")).await;
    let mut n = 0;
    while n < VALUES {
        match results.send((0, n)).await {
            Ok(()) => n += 1,
            Err(SendError::Lost { .. }) => {
                back.lock().unwrap().extend(results.take_unsettled());
                session.wait_connected().await?;
                results = open(|| session.sender::<(u32, u32)>("results")).await;
            }
            Err(error) => return Err(error.to_string().into()),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    // The server may be killed once more while the last of them are on their way.
    if results.flush().await.is_err() || session.close(Duration::from_secs(60)).await.is_err() {
        back.lock().unwrap().extend(results.take_unsettled());
    }
    Ok(())
}

#[test]
fn a_server_that_crashes_leaves_every_value_in_one_place() {
    for_seeds(SEEDS, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sim = simulation(seed);
        let (identity, seen) = (Identity::generate(), Seen::default());
        sim.host("server", {
            let (identity, seen) = (identity.clone(), Arc::clone(&seen));
            move || serve(identity.clone(), Arc::clone(&seen))
        });
        let back = Back::default();
        sim.client("client-0", go_on(ticket(&identity), Arc::clone(&back)));
        let mut crashes = rng.random_range(1..4);
        let mut next = Duration::from_millis(rng.random_range(200..2_000));
        while !sim.step().expect("every program ends well") {
            if crashes > 0 && sim.elapsed() >= next {
                crashes -= 1;
                sim.crash("server");
                sim.bounce("server");
                next = sim.elapsed() + Duration::from_millis(rng.random_range(300..2_500));
            }
        }
        let seen = seen.lock().unwrap().get(&0).cloned().unwrap_or_default();
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, once: {seen:?}");
        let back = back.lock().unwrap();
        for n in 0..VALUES {
            let received = seen.binary_search(&n).is_ok();
            let places: Vec<_> = back.iter().filter(|value| (*value).clone().into_inner().1 == n).collect();
            match places[..] {
                [] => assert!(received, "{n} is lost"),
                [Unsettled::Undelivered(_)] => assert!(!received, "{n} was received"),
                [Unsettled::InDoubt(_)] => {}
                _ => panic!("{n} came back as {places:?}"),
            }
        }
    });
}

/// Both ends find a link dead on which nothing passes, in time, and deadlines come true meanwhile.
#[test]
fn a_link_on_which_nothing_passes_is_found_in_ten_seconds() {
    for (seed, both_ways) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut sim = simulation(seed);
        let identity = Identity::generate();
        let ticket = ticket(&identity);
        let found = Arc::new(Mutex::new(None));
        sim.host("server", {
            let (identity, found) = (identity.clone(), Arc::clone(&found));
            move || {
                let (identity, found) = (identity.clone(), Arc::clone(&found));
                async move {
                    let mut config = config();
                    config.identity = Some(identity);
                    let server = listen_and_serve("tcp://server:1700", config).await?;
                    let _values = server.receiver::<u32>("values", 0)?;
                    let mut events = server.events();
                    while let Some(event) = events.recv().await {
                        if matches!(event.event, SessionEvent::Suspended { .. }) {
                            found.lock().unwrap().get_or_insert(turmoil::sim_elapsed());
                        }
                    }
                    Ok(())
                }
            }
        });
        sim.client("client-0", async move {
            let session = dial(&ticket, config()).await?;
            let sender = session.sender::<u32>("values").await?;
            let mut events = session.events();
            if both_ways {
                turmoil::partition("server", "client-0");
            } else {
                turmoil::partition_oneway("server", "client-0");
            }
            let begun = Instant::now();
            let slack = Duration::from_millis(100);
            while !matches!(events.recv().await, Some(SessionEvent::Suspended { .. })) {}
            assert!(begun.elapsed() <= Duration::from_secs(10) + slack, "{:?}", begun.elapsed());
            let before = Instant::now();
            let outcome = sender.send_timeout(1, Duration::from_secs(2)).await;
            assert!(matches!(outcome, Err(SendTimeoutError::Timeout(1))), "{outcome:?}");
            assert!(before.elapsed() <= Duration::from_secs(2) + slack, "{:?}", before.elapsed());
            assert_eq!(session.state(), SessionState::Suspended);
            turmoil::repair("server", "client-0");
            while events.recv().await != Some(SessionEvent::Resumed) {}
            Ok(())
        });
        sim.run().expect("every program ends well");
        let found = found.lock().unwrap().flatten().expect("the server found it too");
        assert!(found <= Duration::from_secs(12), "{found:?}");
    }
}
