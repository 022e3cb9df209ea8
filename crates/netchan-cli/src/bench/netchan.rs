//! netchan itself, as any program would use it: the default configuration, direct channels where the workload does not say
//! otherwise, one `send` and one `recv` for each value.

use std::time::{Duration, Instant};

use ::netchan::{
    ChannelOptions, Config, Offer, Receiver, Sender, Server, Session, WhenSlow, dial, listen_and_serve,
};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::hosted::{self, Stage};
use super::job::{
    BULK_CAPACITY, CHANNELS, CHANNELS_CAPACITY, CLOSE_DEADLINE, Driven, FAN_CAPACITY, Job, Meter,
    PINGPONG_CAPACITY, Pace, STREAM_CAPACITY, Tally, Workload,
};
use super::message::{Message, block, block_checksum};
use super::{tasks, wire};
use crate::Failure;

/// A server for one round, on a port of the system's choice.
pub(super) async fn listen() -> Result<Server, Failure> {
    Ok(listen_and_serve("127.0.0.1:0", Config::default()).await?)
}

/// The server's side of one round: it consumes, or says what there was to consume.
pub(super) async fn serve(
    server: Server,
    stage: Stage,
    job: Job,
    finish: oneshot::Receiver<()>,
) -> Result<Tally, Failure> {
    let tally = match stage {
        Stage::Empty if job.workload.fans_out() => {
            let sent = fan_out(&server, &job).await?;
            _ = finish.await;
            sent
        }
        Stage::Empty => consume(&server, &job, finish).await?,
        Stage::Stream(sender) => {
            let sent = hosted::stream(&server, sender, job).await?;
            _ = finish.await;
            sent
        }
        Stage::Pingpong { pings, pongs } => hosted::pingpong(pings, pongs, finish).await?,
        Stage::Tasks(tasks) => tasks.serve(&server, job, finish).await?,
    };
    server.shutdown(CLOSE_DEADLINE).await?;
    Ok(tally)
}

/// Consumes what one client sends on direct channels.
async fn consume(server: &Server, job: &Job, finish: oneshot::Receiver<()>) -> Result<Tally, Failure> {
    let meter = match job.workload {
        Workload::Stream => {
            let receiver = next_offer(server).await?.accept_receiver(STREAM_CAPACITY).await?;
            consume_messages(receiver).await?
        }
        Workload::Bulk => {
            let offer = next_offer(server).await?;
            consume_blocks(offer.accept_receiver_with(BULK_CAPACITY, ChannelOptions::raw()).await?).await?
        }
        Workload::Pingpong => {
            let pings = next_offer(server).await?.accept_receiver(PINGPONG_CAPACITY).await?;
            echo(pings, next_offer(server).await?.accept_sender().await?).await?
        }
        Workload::Channels => consume_channels(server).await?,
        Workload::Queue | Workload::Broadcast | Workload::Tasks | Workload::Idle => {
            return Err("it is served elsewhere".into());
        }
        Workload::Connect => {
            // Set-ups happen inside the server, and the client's `dial` returns only when they have.
            let _ = finish.await;
            Meter::default()
        }
    };
    Ok(meter.tally())
}

/// Waits until so many receives wait at the server, over all that it hosts.
pub(super) async fn wait_for_receivers(server: &Server, receivers: u64) {
    while server.hosted().iter().map(|hosted| hosted.receivers).sum::<u64>() < receivers {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends to as many clients as there are consumers; tells what must arrive there.
async fn fan_out(server: &Server, job: &Job) -> Result<Tally, Failure> {
    let template = Message::template(job.size);
    let mut sent = 0;
    if job.workload == Workload::Broadcast {
        // They wait for each other, as they do over plain connections: every message arrives everywhere.
        let options = ChannelOptions::<Message>::default().when_slow(WhenSlow::Block);
        let all = server.broadcast_with("fan", FAN_CAPACITY, options)?;
        wait_for_receivers(server, job.ends as u64).await;
        let mut pace = Pace::of_messages(job.seconds);
        while pace.more() {
            all.send(template.numbered(sent)).await?;
            sent += 1;
        }
        all.close();
        return Ok(job.expected_of_all(sent));
    }
    let queue = server.sender::<Message>("fan", STREAM_CAPACITY)?;
    wait_for_receivers(server, (job.ends * FAN_CAPACITY) as u64).await;
    let mut pace = Pace::of_messages(job.seconds);
    while pace.more() {
        queue.send(template.numbered(sent)).await?;
        sent += 1;
    }
    queue.close();
    Ok(job.expected(sent))
}

/// One of the consumers.
async fn consume_fanned(ticket: String) -> Result<Meter, Failure> {
    let session = dial(ticket.as_str(), Config::default()).await?;
    let options = ChannelOptions::default().prefetch(FAN_CAPACITY).capacity(FAN_CAPACITY);
    // The name is hosted in a moment.
    let receiver = session.receiver_with("fan", options).await?;
    let meter = consume_messages(receiver).await?;
    session.close(CLOSE_DEADLINE).await?;
    Ok(meter)
}

async fn next_offer(server: &Server) -> Result<Offer, Failure> {
    Ok(server.recv().await?.ok_or("the server stopped before the channel was opened")?)
}

async fn consume_messages(receiver: Receiver<Message>) -> Result<Meter, Failure> {
    let mut meter = Meter::default();
    while let Some(message) = receiver.recv().await? {
        meter.arrive(message.checksum());
    }
    meter.stop();
    Ok(meter)
}

async fn consume_blocks(receiver: Receiver<Bytes>) -> Result<Meter, Failure> {
    let mut meter = Meter::default();
    while let Some(block) = receiver.recv().await? {
        meter.arrive(block_checksum(&block));
    }
    meter.stop();
    Ok(meter)
}

async fn consume_channels(server: &Server) -> Result<Meter, Failure> {
    let mut consumers = JoinSet::new();
    for _ in 0..CHANNELS {
        let receiver = next_offer(server).await?.accept_receiver(CHANNELS_CAPACITY).await?;
        consumers.spawn(consume_messages(receiver));
    }
    let mut all = Meter::default();
    while let Some(meter) = consumers.join_next().await {
        all.merge(&meter??);
    }
    Ok(all)
}

/// Sends every message back until there are no more.
pub(super) async fn echo(pings: Receiver<Message>, pongs: Sender<Message>) -> Result<Meter, Failure> {
    let mut meter = Meter::default();
    while let Some(message) = pings.recv().await? {
        meter.arrive(message.checksum());
        pongs.send(message).await?;
    }
    meter.stop();
    pongs.close();
    Ok(meter)
}

/// The driving side of one round.
pub(super) async fn drive(ticket: String, job: Job) -> Result<Driven, Failure> {
    if job.workload == Workload::Connect {
        return wire::connects(job.seconds, || set_up_once(ticket.clone())).await;
    }
    if job.workload.fans_out() {
        let mut consumers = JoinSet::new();
        for _ in 0..job.ends {
            consumers.spawn(consume_fanned(ticket.clone()));
        }
        let mut all = Meter::default();
        while let Some(meter) = consumers.join_next().await {
            all.merge(&meter??);
        }
        return Ok(Driven::Fanned(all.tally()));
    }
    if job.workload == Workload::Tasks {
        return tasks::drive(ticket, job).await;
    }
    let session = dial(ticket.as_str(), Config::default()).await?;
    let driven = match job.workload {
        Workload::Stream if job.is_hosted() => {
            Driven::Fanned(consume_messages(session.receiver("stream").await?).await?.tally())
        }
        Workload::Bulk => Driven::Sent(vec![produce_blocks(&session, &job).await?]),
        Workload::Pingpong => Driven::Trips(ping(&session, &job).await?),
        Workload::Channels => Driven::Sent(produce_on_channels(&session, job).await?),
        _ => {
            let sender = session.sender("stream").await?;
            Driven::Sent(vec![produce_messages(sender, job).await?])
        }
    };
    session.close(CLOSE_DEADLINE).await?;
    Ok(driven)
}

async fn set_up_once(ticket: String) -> Result<(), Failure> {
    dial(ticket.as_str(), Config::default()).await?.close(CLOSE_DEADLINE).await?;
    Ok(())
}

pub(super) async fn produce_messages(sender: Sender<Message>, job: Job) -> Result<u64, Failure> {
    let template = Message::template(job.size);
    let mut sent = 0;
    let mut pace = Pace::of_messages(job.seconds);
    while pace.more() {
        sender.send(template.numbered(sent)).await?;
        sent += 1;
    }
    sender.close();
    Ok(sent)
}

async fn produce_blocks(session: &Session, job: &Job) -> Result<u64, Failure> {
    let sender = session.sender_with::<Bytes>("bulk", ChannelOptions::raw()).await?;
    let block = block(job.size);
    let mut sent = 0;
    let mut pace = Pace::of_large_things(job.seconds);
    while pace.more() {
        sender.send(block.clone()).await?;
        sent += 1;
    }
    sender.close();
    Ok(sent)
}

async fn produce_on_channels(session: &Session, job: Job) -> Result<Vec<u64>, Failure> {
    let mut senders = Vec::with_capacity(CHANNELS);
    for channel in 0..CHANNELS {
        senders.push(session.sender(&format!("channel-{channel}")).await?);
    }
    let producers: Vec<_> =
        senders.into_iter().map(|sender| tokio::spawn(produce_messages(sender, job))).collect();
    let mut sent = Vec::with_capacity(CHANNELS);
    for producer in producers {
        sent.push(producer.await??);
    }
    Ok(sent)
}

async fn ping(session: &Session, job: &Job) -> Result<Vec<u64>, Failure> {
    let pings = session.sender::<Message>("ping").await?;
    let pongs = session.receiver::<Message>("pong").await?;
    let template = Message::template(job.size);
    let mut trips = Vec::new();
    let mut pace = Pace::of_large_things(job.seconds);
    while pace.more() {
        let n = trips.len() as u64;
        let message = template.numbered(n);
        let begun = Instant::now();
        pings.send(message).await?;
        let echo = pongs.recv().await?.ok_or("the channel closed before the echo came")?;
        trips.push(begun.elapsed().as_nanos() as u64);
        if !echo.is_numbered(n) {
            return Err("another message came back than was sent".into());
        }
    }
    pings.close();
    Ok(trips)
}
