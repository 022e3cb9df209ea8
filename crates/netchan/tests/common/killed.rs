//! Servers that end as killed processes do.

use netchan::{Config, Events, Identity, Server, SessionEvent, listen_and_serve};

use super::{PATIENCE, within};

/// A server in a runtime of its own, so that it can end as a killed process does: without a word.
pub struct Mortal {
    runtime: Option<tokio::runtime::Runtime>,
    server: Option<Server>,
}

impl Mortal {
    pub async fn start(address: &str, identity: &Identity) -> Self {
        let (address, config) = (address.to_owned(), Config::with_identity(identity.clone()));
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let server = runtime.block_on(listen_and_serve(address, config)).unwrap();
            Self { runtime: Some(runtime), server: Some(server) }
        })
        .await
        .unwrap()
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn address(&self) -> String {
        self.server().addresses()[0].to_string()
    }

    /// Everything stops at once. The sockets are closed when this returns, as a kernel closes those of a process.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        std::mem::forget(self.server.take());
        let Some(runtime) = self.runtime.take() else { return };
        // Not in the background: whoever comes next listens at the same address. In a thread, since a runtime is not
        // to be waited for inside of another.
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
        assert!(ended.is_ok() || std::thread::panicking(), "the runtime panicked at its end");
    }
}

/// Waits for an event.
pub async fn until(
    events: &mut Events<SessionEvent>,
    wanted: impl Fn(&SessionEvent) -> bool,
) -> SessionEvent {
    within("an event", async {
        loop {
            match events.recv().await {
                Some(event) if wanted(&event) => return event,
                Some(_) => {}
                None => panic!("no more events"),
            }
        }
    })
    .await
}
