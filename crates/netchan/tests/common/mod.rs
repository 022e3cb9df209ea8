//! What the tests of the shell share.
#![allow(dead_code, unreachable_pub)]

pub mod audit;
pub mod example;
pub mod hosts;
pub mod killed;
pub mod policies;
#[cfg(unix)]
pub mod process;
pub mod proxy;
pub mod raw;
pub mod site;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use netchan::{Config, Receiver, Sender, Server, Session, dial, listen_and_serve};

pub type Anything = Result<(), Box<dyn std::error::Error>>;

/// For what must happen: far longer than it takes on a busy machine, short enough that a hang is noticed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// For closing with everything delivered.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for what must happen.
pub async fn within<F: Future>(what: &'static str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// A fresh `memory://` address.
pub fn memory() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("memory://test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A loopback address to listen at more than once: while nobody does, no connection out of this machine is given its
/// port, as one of 127.0.0.1 may be, which is where all of them leave from.
pub fn own_address() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(target_os = "linux") {
        return "127.0.0.1:0".to_owned();
    }
    let (process, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("127.{}.{}.{}:0", 1 + process / 256 % 254, process % 256, 2 + nth % 250)
}

pub async fn serve() -> Server {
    listen_and_serve(memory(), Config::default()).await.unwrap()
}

pub async fn join(server: &Server) -> Session {
    within("dial", dial(server.ticket(), Config::default())).await.unwrap()
}

/// Sessions that end with their connection.
pub fn mortal() -> Config {
    let mut config = Config::default();
    config.session_lifetime = Duration::ZERO;
    config
}

/// A server and a client, by memory.
pub async fn pair() -> (Server, Session) {
    let server = serve().await;
    let session = join(&server).await;
    (server, session)
}

/// A server and a client, by TCP.
pub async fn tcp_pair() -> (Server, Session) {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await.unwrap();
    let session = join(&server).await;
    (server, session)
}

/// A direct channel from client to server.
pub async fn direct<T: netchan::Message>(
    server: &Server,
    session: &Session,
    capacity: usize,
) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = within("open", async {
        tokio::join!(session.sender::<T>("direct"), async {
            let offer = server.recv().await.unwrap().unwrap();
            offer.accept_receiver::<T>(capacity).await
        })
    })
    .await;
    (sender.unwrap(), receiver.unwrap())
}

/// Polls until it holds; for what has no event of its own.
pub async fn eventually(what: &'static str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Counts wake-ups.
#[derive(Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls a future `polls` times, letting everything else run in between, and drops it; returns what it gave.
pub async fn poll_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Polls a future once, with the task's own waker.
pub async fn poll_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut future).poll(cx))).await
}
