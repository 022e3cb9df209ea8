//! The demo's use of netchan: everything else in it is ordinary code.

use std::net::SocketAddr;
use std::time::Duration;

use netchan::address::Address;
pub(super) use netchan::{Broadcast, Receiver, Sender};
use netchan::{ChannelOptions, Config, Deliveries, Server, Session};

use super::task::{Done, Setting, Task};
use crate::Failure;

/// Where the server listens: a port of the system's choice, this machine only.
const ADDRESS: &str = "127.0.0.1:0";
/// Tasks that may wait at the server for a worker.
const TASKS_CAPACITY: usize = 64;
/// Results that may wait at the server for the collector, over all workers together.
const RESULTS_CAPACITY: usize = 256;
/// Settings that a slow worker may be behind.
const SETTINGS_CAPACITY: usize = 16;
/// Tasks that come to a worker ahead of its asking: enough to keep it busy while an acknowledgement is on its way.
const PREFETCH: usize = 4;

/// The server's side.
pub(super) struct Hosted {
    server: Server,
    /// Each task goes to the worker that has waited longest.
    pub(super) tasks: Sender<Task>,
    pub(super) results: Receiver<Done>,
    /// Whoever comes gets what is set first.
    pub(super) settings: Broadcast<Setting>,
}

impl Hosted {
    pub(super) async fn host() -> Result<Self, Failure> {
        let server = netchan::listen_and_serve(ADDRESS, Config::default()).await?;
        let tasks = server.sender("tasks", TASKS_CAPACITY)?;
        let results = server.receiver("results", RESULTS_CAPACITY)?;
        let settings = server.broadcast("settings", SETTINGS_CAPACITY)?;
        settings.assign(Setting::version(1)).await?;
        Ok(Self { server, tasks, results, settings })
    }

    /// Sessions that went on over another connection, and tasks that were handed out again.
    pub(super) fn resumed_and_redelivered(&self) -> (u64, u64) {
        let stats = self.server.stats();
        (stats.resumes, stats.redelivered)
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
        Ok(self.server.ticket().with_addresses(vec![Address::from(address)])?.to_string())
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
    pub(super) tasks: Deliveries<Task>,
    pub(super) results: Sender<Done>,
    pub(super) settings: Receiver<Setting>,
}

impl Dialled {
    pub(super) async fn dial(ticket: &str) -> Result<Self, Failure> {
        let session = netchan::dial(ticket, Config::default()).await?;
        let settings = session.receiver("settings").await?;
        let results = session.sender("results").await?;
        let tasks = session.deliveries_with("tasks", ChannelOptions::default().prefetch(PREFETCH)).await?;
        Ok(Self { session, tasks, results, settings })
    }

    pub(super) fn key_exchange(&self) -> String {
        self.session.key_exchange().to_string()
    }

    pub(super) fn cipher(&self) -> String {
        self.session.cipher().to_string()
    }

    /// How many values the session sent again because a connection was lost.
    pub(super) fn values_replayed(&self) -> u64 {
        self.session.stats().values_replayed
    }

    /// Leaves once everything sent has arrived.
    pub(super) async fn close(self, deadline: Duration) -> Result<(), Failure> {
        self.session.close(deadline).await?;
        Ok(())
    }
}
