//! `netchan bench stream --hosted` and `pingpong --hosted`: the same over channels that the server hosts by name, with the
//! default options, as any number of clients could use them.

use ::netchan::{Receiver, Sender, Server};
use tokio::sync::oneshot;

use super::job::{Contestant, Job, PINGPONG_CAPACITY, STREAM_CAPACITY, Tally, Workload};
use super::message::Message;
use super::netchan::{echo, produce_messages, wait_for_receivers};
use super::tasks;
use crate::Failure;

/// What a server hosts before anybody knows its ticket, so that whoever comes finds it.
pub(super) enum Stage {
    /// Clients open what there is, or it is hosted once they are there.
    Empty,
    Stream(Sender<Message>),
    Pingpong {
        pings: Receiver<Message>,
        pongs: Sender<Message>,
    },
    Tasks(tasks::Hosted),
}

impl Stage {
    pub(super) fn set(server: &Server, job: &Job) -> Result<Self, Failure> {
        Ok(match job.workload {
            Workload::Tasks => Self::Tasks(tasks::Hosted::host(server, job)?),
            _ if !job.hosted || job.contestant == Contestant::Direct => Self::Empty,
            Workload::Stream => Self::Stream(server.sender("stream", STREAM_CAPACITY)?),
            Workload::Pingpong => Self::Pingpong {
                pings: server.receiver("ping", PINGPONG_CAPACITY)?,
                pongs: server.sender("pong", PINGPONG_CAPACITY)?,
            },
            other => return Err(format!("`{}` cannot be hosted", other.name()).into()),
        })
    }
}

/// Sends to the client once it is there; tells what must arrive.
pub(super) async fn stream(server: &Server, sender: Sender<Message>, job: Job) -> Result<Tally, Failure> {
    wait_for_receivers(server, 1).await;
    Ok(job.expected(produce_messages(sender, job).await?))
}

/// Sends every message back until the client says that it is done.
pub(super) async fn pingpong(
    pings: Receiver<Message>,
    pongs: Sender<Message>,
    finish: oneshot::Receiver<()>,
) -> Result<Tally, Failure> {
    // One client that has done does not end a channel that others could send into.
    let ending = pings.clone();
    tokio::spawn(async move {
        _ = finish.await;
        ending.close();
    });
    Ok(echo(pings, pongs).await?.tally())
}
