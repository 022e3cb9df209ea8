//! Senders whose link is gone, and that are back (`HOST-15`).

use super::Senders;
use crate::hosted::{SenderKey, Violation};

impl Senders {
    pub(in crate::hosted) fn suspend(&mut self, key: SenderKey) {
        let Some(sender) = self.map.get_mut(&key).filter(|sender| !sender.gone) else { return };
        let lease = &mut sender.lease;
        if lease.suspended.is_some() {
            return;
        }
        sender.asked_since = None;
        lease.suspended = Some(lease.limit);
        lease.recalled = false;
        lease.want = 0;
        self.pool.restore(lease.shrink(lease.pushed));
        self.pool.place(key, lease);
    }

    /// `admits` is false once the channel is finished. Returns the limit the sender now has.
    pub(in crate::hosted) fn resume(
        &mut self,
        key: SenderKey,
        committed: u64,
        admits: bool,
    ) -> Result<u64, Violation> {
        let rendezvous = self.is_rendezvous();
        let sender = self.map.get_mut(&key).filter(|sender| !sender.gone).ok_or(Violation::UnknownSender)?;
        let lease = &mut sender.lease;
        if !rendezvous && (committed < lease.pushed || committed > lease.suspended.unwrap_or(lease.limit)) {
            return Err(Violation::FalseResume);
        }
        if lease.suspended.take().is_some() && !rendezvous && admits {
            self.pool.overdraw(committed - lease.limit);
            lease.limit = committed;
            lease.firm = committed;
        }
        self.pool.place(key, lease);
        let limit = lease.limit;
        if lease.unused() > 0 {
            // What it says that it has committed is to come.
            self.watch(key);
        }
        Ok(limit)
    }
}
