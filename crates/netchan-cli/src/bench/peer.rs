//! The far side of `bench`: a process that serves one round after another as its parent orders.

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::hosted::Stage;
use super::job::{Contestant, Job, Tally};
use super::tls::Identity;
use super::wire::{self, Plain};
use crate::Failure;
use crate::child::{self, Orders};

/// What the parent orders.
#[derive(Serialize, Deserialize)]
pub(super) enum Order {
    /// Serve a round; for TLS, the parent has this public key.
    Serve { job: Job, key: Vec<u8> },
    /// The parent has done its part of the round.
    Finish,
}

/// What the peer answers.
#[derive(Serialize, Deserialize)]
pub(super) enum News {
    /// Ready at this address (netchan: this ticket); for TLS, with this public key.
    Listening { address: String, key: Vec<u8> },
    /// The round is over.
    Served(Tally),
    /// The round failed.
    Failed(String),
}

/// The whole life of the peer: it ends when its parent's orders do.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut orders = Orders::<Order>::listen();
    let identity = Identity::generate()?;
    loop {
        // A finish without a round is one for a round that failed here before the parent knew.
        let Order::Serve { job, key } = orders.next().await else { continue };
        let news = match serve(job, key, &identity, &mut orders).await {
            Ok(tally) => News::Served(tally),
            Err(e) => News::Failed(e.to_string()),
        };
        child::answer(&news)?;
    }
}

async fn serve(
    job: Job,
    key: Vec<u8>,
    identity: &Identity,
    orders: &mut Orders<Order>,
) -> Result<Tally, Failure> {
    let (finish, finished) = oneshot::channel();
    let listening =
        |address: String| child::answer(&News::Listening { address, key: identity.public_key().to_vec() });
    let mut serving = match job.contestant {
        Contestant::Netchan | Contestant::Direct => {
            let server = super::netchan::listen().await?;
            let stage = Stage::set(&server, &job)?;
            listening(server.ticket().to_string())?;
            tokio::spawn(super::netchan::serve(server, stage, job, finished))
        }
        Contestant::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            listening(listener.local_addr()?.to_string())?;
            tokio::spawn(wire::serve(listener, Plain, job, finished))
        }
        Contestant::Tls => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let accept = identity.acceptor(key)?;
            listening(listener.local_addr()?.to_string())?;
            tokio::spawn(wire::serve(listener, accept, job, finished))
        }
        Contestant::Mpsc => return Err("the channel inside one process needs no peer".into()),
    };
    tokio::select! {
        served = &mut serving => served?,
        _ = orders.next() => {
            // The round may have ended by itself already; then nobody hears this.
            let _ = finish.send(());
            serving.await?
        }
    }
}
