//! The demo's use of netchan: everything else in it is ordinary code.

use std::net::SocketAddr;
use std::time::Duration;

use netchan::address::Address;
use netchan::{Config, Server, Session};
pub(super) use netchan::{Receiver, Sender};

use super::task::{Done, Task};
use crate::Failure;

/// Where the server listens: a port of the system's choice, this machine only.
const ADDRESS: &str = "127.0.0.1:0";
/// Tasks that may wait at the server for a worker.
const TASKS_CAPACITY: usize = 64;
/// Results that may wait at the server for the collector, over all workers together.
const RESULTS_CAPACITY: usize = 256;

/// The server's side.
pub(super) struct Hosted {
    server: Server,
    /// Each task goes to the worker that has waited longest.
    pub(super) tasks: Sender<Task>,
    pub(super) results: Receiver<Done>,
}

impl Hosted {
    pub(super) async fn host() -> Result<Self, Failure> {
        let server = netchan::listen_and_serve(ADDRESS, Config::default()).await?;
        let tasks = server.sender("tasks", TASKS_CAPACITY)?;
        let results = server.receiver("results", RESULTS_CAPACITY)?;
        Ok(Self { server, tasks, results })
    }

    pub(super) fn ticket(&self) -> String {
        self.server.ticket().to_string()
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        let address = self.server.addresses().first().and_then(|address| address.host_port());
        let (host, port) = address.ok_or("the server has no address")?;
        Ok(SocketAddr::new(host.parse()?, port))
    }

    /// The ticket for who is to go through another address.
    pub(super) fn ticket_by_way_of(&self, address: SocketAddr) -> Result<String, Failure> {
        Ok(self.server.ticket().clone().with_addresses(vec![Address::from(address)])?.to_string())
    }

    /// Values that the server sent again because a connection was lost before they arrived.
    pub(super) fn values_replayed(&self) -> u64 {
        self.server.stats().values_replayed
    }

    pub(super) async fn shutdown(self, deadline: Duration) -> Result<(), Failure> {
        self.server.shutdown(deadline).await?;
        Ok(())
    }
}

/// A worker's side.
pub(super) struct Dialled {
    session: Session,
    pub(super) tasks: Receiver<Task>,
    pub(super) results: Sender<Done>,
}

impl Dialled {
    pub(super) async fn dial(ticket: &str) -> Result<Self, Failure> {
        let session = netchan::dial(ticket, Config::default()).await?;
        let tasks = session.receiver("tasks").await?;
        let results = session.sender("results").await?;
        Ok(Self { session, tasks, results })
    }

    pub(super) fn key_exchange(&self) -> String {
        self.session.key_exchange().to_string()
    }

    pub(super) fn cipher(&self) -> String {
        self.session.cipher().to_string()
    }

    /// How often the session went on over another connection, and how many values it sent again for that.
    pub(super) fn resumed(&self) -> (u64, u64) {
        let stats = self.session.stats();
        (stats.resumes, stats.values_replayed)
    }

    /// Leaves once everything sent has arrived.
    pub(super) async fn close(self, deadline: Duration) -> Result<(), Failure> {
        self.session.close(deadline).await?;
        Ok(())
    }
}
