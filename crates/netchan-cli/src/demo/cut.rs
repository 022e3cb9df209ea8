//! A man in the middle who cuts: between each worker and the server, outside both.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a worker has sent on a connection before that is cut: its handshake, and some results.
const BYTES_BEFORE_CUT: usize = 2_500;

/// How much of the record that is under way still passes: not even its header.
const BYTES_OF_RECORD: usize = 5;

/// Resets the workers' connections, all of them a number of times over the run.
pub(super) struct Cutter {
    cuts_each: u64,
    workers: Vec<Arc<Worker>>,
    carriers: JoinSet<()>,
}

#[derive(Default)]
struct Worker {
    wanted: AtomicU64,
    done: AtomicU64,
    /// Connections so far.
    connections: AtomicU64,
}

impl Cutter {
    /// Listens for each worker, and passes on to the server. Returns the addresses that the workers are to dial.
    pub(super) async fn start(
        server: SocketAddr,
        workers: usize,
        cuts_each: u64,
    ) -> io::Result<(Self, Vec<SocketAddr>)> {
        let mut cutter = Self { cuts_each, workers: Vec::new(), carriers: JoinSet::new() };
        let mut addresses = Vec::new();
        for _ in 0..workers {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            let worker = Arc::new(Worker::default());
            cutter.workers.push(Arc::clone(&worker));
            cutter.carriers.spawn(accept(listener, server, worker));
        }
        Ok((cutter, addresses))
    }

    /// So many of all results are here: cuts whatever is due by now.
    pub(super) fn progress(&self, results: u64, tasks: u64) {
        let due = (results * (self.cuts_each + 1) / tasks.max(1)).min(self.cuts_each);
        for worker in &self.workers {
            worker.wanted.store(due, Ordering::Relaxed);
        }
    }

    /// Whether nothing is to be cut for this worker now, and it has found its way back since the last.
    pub(super) fn is_settled(&self, worker: usize) -> bool {
        let Some(worker) = self.workers.get(worker) else { return true };
        let done = worker.done.load(Ordering::Relaxed);
        done >= worker.wanted.load(Ordering::Relaxed) && worker.connections.load(Ordering::Relaxed) > done
    }

    /// How many connections have been cut.
    pub(super) fn cuts(&self) -> u64 {
        self.workers.iter().map(|worker| worker.done.load(Ordering::Relaxed)).sum()
    }

    /// What was to be cut and was not.
    pub(super) fn problem(&self) -> Option<String> {
        let wanted = self.cuts_each * self.workers.len() as u64;
        let cuts = self.cuts();
        (cuts < wanted).then(|| {
            format!(
                "only {cuts} of {wanted} cuts could be made: too little traffic; use more tasks or fewer cuts"
            )
        })
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, worker: Arc<Worker>) {
    let mut carriers = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((near, _)) => {
                worker.connections.fetch_add(1, Ordering::Relaxed);
                carriers.spawn(carry(near, server, Arc::clone(&worker)));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, worker: Arc<Worker>) {
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    for stream in [&near, &far] {
        // Slower without, and nothing else.
        _ = stream.set_nodelay(true);
    }
    let cut = {
        let (mut near_reader, mut near_writer) = near.split();
        let (mut far_reader, mut far_writer) = far.split();
        let up = async {
            let mut buffer = vec![0; 64 * 1_024];
            let mut passed = 0;
            loop {
                let count = near_reader.read(&mut buffer).await?;
                if count == 0 {
                    far_writer.shutdown().await?;
                    return Ok(false);
                }
                let due = worker.wanted.load(Ordering::Relaxed) > worker.done.load(Ordering::Relaxed);
                if due && passed >= BYTES_BEFORE_CUT {
                    far_writer.write_all(&buffer[..count.min(BYTES_OF_RECORD)]).await?;
                    return Ok(true);
                }
                far_writer.write_all(&buffer[..count]).await?;
                passed += count;
            }
        };
        let down = async {
            tokio::io::copy(&mut far_reader, &mut near_writer).await?;
            near_writer.shutdown().await
        };
        let up = std::pin::pin!(up);
        let both = async {
            tokio::pin!(down);
            let mut up = up;
            tokio::select! {
                cut = &mut up => {
                    if matches!(cut, Ok(false)) {
                        // The worker is done; the server may not be.
                        _ = down.await;
                    }
                    cut
                }
                _ = &mut down => Ok::<_, io::Error>(false),
            }
        };
        both.await.unwrap_or(false)
    };
    if cut {
        worker.done.fetch_add(1, Ordering::Relaxed);
        for stream in [&near, &far] {
            // Closing with nothing left to say becomes a reset.
            _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}
