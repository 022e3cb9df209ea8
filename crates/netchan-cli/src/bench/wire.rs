//! The contestants that are byte streams. TCP and TLS differ only in what becomes of a fresh connection.

use std::io;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::job::{CONNECTS_AT_ONCE, Driven, Job, Meter, Pace, Tally, Workload};
use super::{framed, tasks};
use crate::Failure;

/// Makes the stream that carries the work out of a TCP connection.
pub(super) trait Upgrade: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn upgrade(&self, tcp: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// A fresh connection to `address`, made into what carries the work.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            self.upgrade(tcp).await
        }
    }

    /// As many connections as there are clients.
    fn accept(
        &self,
        listener: &TcpListener,
        clients: usize,
    ) -> impl Future<Output = io::Result<Vec<Self::Stream>>> + Send {
        async move {
            let mut streams = Vec::with_capacity(clients);
            while streams.len() < clients {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                streams.push(self.upgrade(tcp).await?);
            }
            Ok(streams)
        }
    }
}

/// Plain TCP: the connection as it is.
#[derive(Clone)]
pub(super) struct Plain;

impl Upgrade for Plain {
    type Stream = TcpStream;

    async fn upgrade(&self, tcp: TcpStream) -> io::Result<TcpStream> {
        Ok(tcp)
    }
}

/// The consuming side of one round.
pub(super) async fn serve<U: Upgrade>(
    listener: TcpListener,
    upgrade: U,
    job: Job,
    finish: oneshot::Receiver<()>,
) -> Result<Tally, Failure> {
    if job.workload == Workload::Connect {
        return tokio::select! {
            failure = welcome_all(&listener, &upgrade) => Err(failure.into()),
            _ = finish => Ok(Tally::default()),
        };
    }
    if job.workload.fans_out() {
        return fan_out(upgrade.accept(&listener, job.ends).await?, job).await;
    }
    if job.workload == Workload::Tasks {
        return tasks::hand_out_all(upgrade.accept(&listener, job.ends).await?, job).await;
    }
    let (tcp, _) = listener.accept().await?;
    tcp.set_nodelay(true)?;
    let mut stream = upgrade.upgrade(tcp).await?;
    let meter = match job.workload {
        Workload::Bulk => framed::consume_blocks(&mut stream, &job).await?,
        Workload::Pingpong => framed::echo(&mut stream, &job).await?,
        _ => framed::consume_messages(&mut stream, &job).await?,
    };
    Ok(meter.tally())
}

/// Sends to as many connections as there are consumers; tells what must arrive there.
async fn fan_out<S>(streams: Vec<S>, job: Job) -> Result<Tally, Failure>
where
    S: AsyncWrite + Unpin + Send + 'static,
{
    if job.workload == Workload::Broadcast {
        let sent = framed::broadcast_messages(streams, &job).await?;
        return Ok(job.expected_of_all(sent));
    }
    // Each worker has its own part of the messages: nothing has to be decided for each.
    let mut producers = JoinSet::new();
    for mut stream in streams {
        producers.spawn(async move { framed::produce_messages(&mut stream, &job).await });
    }
    let mut all = Tally::default();
    while let Some(sent) = producers.join_next().await {
        let one = job.expected(sent??);
        all =
            Tally { count: all.count + one.count, checksum: all.checksum.wrapping_add(one.checksum), ..all };
    }
    Ok(all)
}

/// Accepts connections and confirms each with one byte.
async fn welcome_all<U: Upgrade>(listener: &TcpListener, upgrade: &U) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let upgrade = upgrade.clone();
                tokio::spawn(async move {
                    tcp.set_nodelay(true)?;
                    let mut stream = upgrade.upgrade(tcp).await?;
                    stream.write_all(&[1]).await?;
                    stream.flush().await
                });
            }
            Err(e) => return e,
        }
    }
}

/// The driving side of one round.
pub(super) async fn drive<U: Upgrade>(address: String, upgrade: U, job: Job) -> Result<Driven, Failure> {
    if job.workload == Workload::Connect {
        return connects(job.seconds, || connect_once(address.clone(), upgrade.clone())).await;
    }
    if job.workload.fans_out() {
        let mut consumers = JoinSet::new();
        for _ in 0..job.ends {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let upgrade = upgrade.clone();
            consumers.spawn(async move {
                let mut stream = upgrade.upgrade(tcp).await?;
                framed::consume_messages(&mut stream, &job).await
            });
        }
        let mut all = Meter::default();
        while let Some(meter) = consumers.join_next().await {
            all.merge(&meter??);
        }
        return Ok(Driven::Fanned(all.tally()));
    }
    if job.workload == Workload::Tasks {
        return tasks::drive_streams(address, upgrade, job).await;
    }
    let mut stream = upgrade.connect(&address).await?;
    Ok(match job.workload {
        Workload::Bulk => Driven::Sent(vec![framed::produce_blocks(&mut stream, &job).await?]),
        Workload::Pingpong => Driven::Trips(framed::ping(&mut stream, &job).await?),
        _ => Driven::Sent(vec![framed::produce_messages(&mut stream, &job).await?]),
    })
}

/// One set-up, up to the other side's confirmation.
async fn connect_once<U: Upgrade>(address: String, upgrade: U) -> Result<(), Failure> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    // Without this, thousands of closed connections would wait out their time and use up the ports.
    tcp.set_zero_linger()?;
    let mut stream = upgrade.upgrade(tcp).await?;
    stream.read_exact(&mut [0]).await?;
    Ok(())
}

/// Repeats a set-up, several at a time, until the time is over.
pub(super) async fn connects<F>(seconds: f64, connect: impl Fn() -> F) -> Result<Driven, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let started = Instant::now();
    let mut pace = Pace::of_large_things(seconds);
    let mut under_way = JoinSet::new();
    let mut count = 0;
    loop {
        while under_way.len() < CONNECTS_AT_ONCE && pace.more() {
            under_way.spawn(connect());
        }
        match under_way.join_next().await {
            Some(outcome) => outcome??,
            None => return Ok(Driven::SetUps { count, seconds: started.elapsed().as_secs_f64() }),
        }
        count += 1;
    }
}
