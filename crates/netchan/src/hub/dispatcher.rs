//! The task that sends out what a queue's own senders have left to go together.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Hub;

/// Made when it is first needed; it goes with the queue.
#[derive(Default)]
pub(super) struct Dispatcher {
    due: Arc<Notify>,
    task: OnceLock<AbortHandle>,
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Dispatcher {
    pub(super) fn notify(&self, hub: &Hub) {
        if self.task.get().is_none_or(AbortHandle::is_finished) && !self.start(hub) {
            return hub.dispatch();
        }
        self.due.notify_one();
    }

    /// False where no runtime is there to run it.
    fn start(&self, hub: &Hub) -> bool {
        let Some(runtime) = hub.runtime() else { return false };
        let (this, due) = (hub.this.clone(), Arc::clone(&self.due));
        let task = runtime.spawn(async move {
            loop {
                due.notified().await;
                let Some(hub) = this.upgrade() else { return };
                hub.dispatch();
            }
        });
        if let Err(second) = self.task.set(task.abort_handle()) {
            second.abort();
        }
        self.task.get().is_some_and(|task| !task.is_finished())
    }
}

impl Hub {
    fn dispatch(&self) {
        self.run(netchan_proto::exchange::Queue::dispatch);
    }
}
