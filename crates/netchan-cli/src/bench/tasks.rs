//! `netchan bench tasks`: the main job. A server hands out tasks, and workers answer each with its result.
//!
//! Over netchan the tasks are deliveries of a hosted channel, and each result is committed with its task's acknowledgement.
//! The streams of TCP and TLS have nothing of the kind: a worker that dies takes its tasks with it. They show what the same
//! exchange of messages costs.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::netchan::{ChannelOptions, Config, Deliveries, Receiver, Sender, Server, dial};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::framed::{Inbox, Outbox};
use super::job::{CLOSE_DEADLINE, Driven, Job, Meter, Pace, Tally};
use super::message::Message;
use super::netchan::wait_for_receivers;
use super::wire::Upgrade;
use crate::Failure;

/// Deliveries that one worker may hold where the server says nothing else.
const UNACKED_MAX_DEFAULT: usize = 256;

/// The two channels as the server hosts them.
pub(super) struct Hosted {
    tasks: Sender<Message>,
    results: Receiver<Message>,
}

impl Hosted {
    pub(super) fn host(server: &Server, job: &Job) -> Result<Self, Failure> {
        // As many as come ahead, and as many whose acknowledgement is under way.
        let held = 2 * job.tasks_at_once();
        let options = ChannelOptions::default().unacked_max(held.max(UNACKED_MAX_DEFAULT));
        let tasks = server.sender_with("tasks", job.tasks_capacity(), options)?;
        let results = server.receiver("results", job.tasks_capacity())?;
        Ok(Self { tasks, results })
    }

    /// One round at the server: what has come of the tasks.
    pub(super) async fn serve(
        self,
        server: &Server,
        job: Job,
        finish: oneshot::Receiver<()>,
    ) -> Result<Tally, Failure> {
        wait_for_receivers(server, (job.ends * job.tasks_at_once()) as u64).await;
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let producing = tokio::spawn(produce(self.tasks, Arc::clone(&total), job));
        let (meter, ()) = tokio::try_join!(collect(&self.results, &total), async {
            producing.await.map_err(Failure::from)?
        })?;
        // The workers have gone by then, and whatever they have committed is here.
        _ = finish.await;
        match self.results.try_recv() {
            Ok(Some(_)) => Err("there are more results than tasks".into()),
            _ => Ok(meter.tally()),
        }
    }
}

/// Hands tasks out until the time is over. The total is known before the last of them is sent.
async fn produce(tasks: Sender<Message>, total: Arc<AtomicU64>, job: Job) -> Result<(), Failure> {
    let template = Message::template(job.size);
    let mut pace = Pace::of_messages(job.seconds);
    let mut sent = 0;
    loop {
        let last = !pace.more();
        if last {
            total.store(sent + 1, Ordering::Release);
        }
        tasks.send(template.numbered(sent)).await?;
        sent += 1;
        if last {
            tasks.close();
            return Ok(());
        }
    }
}

/// Takes results until there are as many as tasks.
async fn collect(results: &Receiver<Message>, total: &AtomicU64) -> Result<Meter, Failure> {
    let mut meter = Meter::default();
    while meter.count() < total.load(Ordering::Acquire) {
        let result = results.recv().await?.ok_or("the results ended before all were there")?;
        meter.arrive(result.checksum());
    }
    meter.stop();
    Ok(meter)
}

/// The workers of one round, each with a session of its own.
pub(super) async fn drive(ticket: String, job: Job) -> Result<Driven, Failure> {
    let mut workers = JoinSet::new();
    for _ in 0..job.ends {
        workers.spawn(be_worker(ticket.clone(), job));
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker??;
    }
    Ok(Driven::Sent(vec![done]))
}

/// One worker; tells how many results it has committed.
async fn be_worker(ticket: String, job: Job) -> Result<u64, Failure> {
    let session = dial(ticket.as_str(), Config::default()).await?;
    let results = session.sender("results").await?;
    let done = match job.ahead {
        None => one_at_a_time(&session.deliveries("tasks").await?, &results).await?,
        Some(ahead) => {
            let options = ChannelOptions::default().prefetch(ahead);
            several_at_a_time(&session.deliveries_with("tasks", options).await?, &results, ahead).await?
        }
    };
    session.close(CLOSE_DEADLINE).await?;
    Ok(done)
}

async fn one_at_a_time(tasks: &Deliveries<Message>, results: &Sender<Message>) -> Result<u64, Failure> {
    let mut done = 0;
    while let Some(task) = tasks.recv().await? {
        let result = task.result();
        task.ack_with(results, result).await?;
        done += 1;
    }
    Ok(done)
}

async fn several_at_a_time(
    tasks: &Deliveries<Message>,
    results: &Sender<Message>,
    under_way_max: usize,
) -> Result<u64, Failure> {
    let mut under_way = VecDeque::with_capacity(under_way_max);
    let mut done = 0;
    let mut more = true;
    while more || !under_way.is_empty() {
        tokio::select! {
            biased;
            // They are answered in their order. The oldest is polled even while there is room for more, so that one that
            // could not leave at once does.
            outcome = async { under_way.front_mut().expect("checked beside").await }, if !under_way.is_empty() => {
                outcome?;
                under_way.pop_front();
                done += 1;
            }
            task = tasks.recv(), if more && under_way.len() < under_way_max => match task? {
                Some(task) => {
                    let result = task.result();
                    under_way.push_back(task.ack_with(results, result));
                }
                None => more = false,
            },
        }
    }
    Ok(done)
}

/// The server's side over byte streams, one for each worker. What there is to do is a list of which the next number is kept;
/// whoever has room takes as many as that from it.
pub(super) async fn hand_out_all<S>(streams: Vec<S>, job: Job) -> Result<Tally, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for mut stream in streams {
        let next = Arc::clone(&next);
        connections.spawn(async move { hand_out(&mut stream, &next, &job).await });
    }
    let mut all = Meter::default();
    while let Some(meter) = connections.join_next().await {
        all.merge(&meter??);
    }
    if all.count() != next.load(Ordering::Relaxed) {
        return Err("there are not as many results as tasks".into());
    }
    Ok(all.tally())
}

/// Keeps one worker supplied until the time is over and its last result is here.
async fn hand_out(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    next: &AtomicU64,
    job: &Job,
) -> io::Result<Meter> {
    let mut task = Message::template(job.size);
    let (mut outbox, mut inbox) = (Outbox::new(job.size), Inbox::new(job.size));
    let mut meter = Meter::default();
    let mut pace = Pace::of_large_things(job.seconds);
    let (mut room, mut with_worker) = (job.tasks_at_once() as u64, 0);
    loop {
        if pace.more() {
            let first = next.fetch_add(room, Ordering::Relaxed);
            for n in first..first + room {
                if outbox.full() {
                    outbox.send(stream).await?;
                }
                task.stamp(n);
                outbox.put(&task)?;
            }
            outbox.send(stream).await?;
            stream.flush().await?;
            with_worker += room;
        }
        if with_worker == 0 {
            break;
        }
        let before = meter.count();
        while meter.count() == before {
            if !inbox.fill(stream).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Some(result) = inbox.take()? {
                meter.arrive(result.checksum());
            }
        }
        room = meter.count() - before;
        with_worker = u64::checked_sub(with_worker, room)
            .ok_or_else(|| io::Error::other("there are more results than tasks"))?;
    }
    meter.stop();
    stream.shutdown().await?;
    Ok(meter)
}

/// The workers of one round over byte streams.
pub(super) async fn drive_streams<U: Upgrade>(
    address: String,
    upgrade: U,
    job: Job,
) -> Result<Driven, Failure> {
    let mut workers = JoinSet::new();
    for _ in 0..job.ends {
        let (address, upgrade) = (address.clone(), upgrade.clone());
        workers.spawn(async move {
            let mut stream = upgrade.connect(&address).await?;
            work(&mut stream, &job).await
        });
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker??;
    }
    Ok(Driven::Sent(vec![done]))
}

/// Answers each task with its result, as many in one write as tasks came in one read; tells how many.
async fn work(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), job: &Job) -> io::Result<u64> {
    let (mut outbox, mut inbox) = (Outbox::new(job.size), Inbox::new(job.size));
    let mut done = 0;
    while inbox.fill(stream).await? {
        let before = done;
        while let Some(mut task) = inbox.take()? {
            if outbox.full() {
                outbox.send(stream).await?;
            }
            task.work();
            outbox.put(&task)?;
            done += 1;
        }
        if done > before {
            outbox.send(stream).await?;
            stream.flush().await?;
        }
    }
    stream.shutdown().await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::job::{Contestant, Workload};
    use super::*;

    #[tokio::test]
    async fn every_task_over_a_stream_has_one_result() {
        for ahead in [None, Some(1), Some(7), Some(1_024)] {
            let job = Job {
                contestant: Contestant::Tcp,
                workload: Workload::Tasks,
                size: Message::SMALLEST,
                seconds: 0.02,
                ends: 2,
                ahead,
                hosted: false,
            };
            let (mut workers, mut streams) = (JoinSet::new(), Vec::new());
            for _ in 0..job.ends {
                let (near, mut far) = tokio::io::duplex(1 << 16);
                streams.push(near);
                workers.spawn(async move { work(&mut far, &job).await });
            }
            let tally = hand_out_all(streams, job).await.unwrap();
            let done: u64 = workers.join_all().await.into_iter().map(Result::unwrap).sum();
            assert!(done >= job.tasks_at_once() as u64, "ahead {ahead:?}: {done}");
            assert_eq!((tally.count, tally.checksum), (done, Message::checksum_of_results(job.size, done)));
        }
    }

    #[tokio::test]
    async fn a_worker_that_leaves_with_its_task_is_an_error() {
        let job = Job {
            contestant: Contestant::Tcp,
            workload: Workload::Tasks,
            size: Message::SMALLEST,
            seconds: 60.0,
            ends: 1,
            ahead: None,
            hosted: false,
        };
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let next = AtomicU64::new(0);
        let leave = async {
            assert!(Inbox::new(job.size).fill(&mut far).await.unwrap());
            drop(far);
        };
        let (outcome, ()) = tokio::join!(hand_out(&mut near, &next, &job), leave);
        assert_eq!(outcome.err().map(|error| error.kind()), Some(io::ErrorKind::UnexpectedEof));
    }
}
