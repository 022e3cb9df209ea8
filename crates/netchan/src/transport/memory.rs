//! Listeners in the same process, by name: for tests, and for programs that may later become two.

use std::collections::HashMap;
use std::io;
use std::sync::LazyLock;

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::{BoxFuture, IoLink, Link, Listener, Transport, TransportError};
use crate::address::Address;

/// Bytes on the way in one direction, as in a socket's buffers: about four full records.
const PIPE_BYTES: usize = 256 * 1_024;

/// Connections that wait for `accept`, as in a socket's backlog; further ones wait their turn.
const BACKLOG: usize = 128;

static LISTENERS: LazyLock<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>> =
    LazyLock::new(Mutex::default);

/// `memory://name`: a pipe to a listener in this process.
///
/// Names are shared by the whole process and are free again when their listener drops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

impl Transport for Memory {
    fn scheme(&self) -> &str {
        "memory"
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let name = name_of(address)?;
            let unknown = || TransportError::NameUnknown { name: name.to_owned() };
            let backlog = LISTENERS.lock().get(name).cloned().ok_or_else(unknown)?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            backlog.send(far).await.map_err(|_| unknown())?;
            Ok(Box::new(IoLink::new(near, address.to_string())) as Box<dyn Link>)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let name = name_of(address)?;
            let mut listeners = LISTENERS.lock();
            if listeners.contains_key(name) {
                return Err(TransportError::NameTaken { name: name.to_owned() }.into());
            }
            let (backlog, arrivals) = mpsc::channel(BACKLOG);
            listeners.insert(name.to_owned(), backlog);
            Ok(Box::new(MemoryListener { address: address.clone(), arrivals }) as Box<dyn Listener>)
        })
    }
}

fn name_of(address: &Address) -> Result<&str, TransportError> {
    address
        .memory_name()
        .ok_or_else(|| TransportError::WrongScheme { address: address.clone(), transport: "memory" })
}

struct MemoryListener {
    address: Address,
    arrivals: mpsc::Receiver<DuplexStream>,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            // The registry keeps a sender for as long as this listener lives, so there is always a next one.
            let stream = self.arrivals.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(Box::new(IoLink::new(stream, self.address.to_string())) as Box<dyn Link>)
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        vec![self.address.clone()]
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        if let Some(name) = self.address.memory_name() {
            LISTENERS.lock().remove(name);
        }
    }
}
