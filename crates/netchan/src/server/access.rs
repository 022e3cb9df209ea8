//! What lets clients in, and what a server lets them do: changed while it runs.

use std::sync::{Arc, PoisonError};

use netchan_proto::crypto::{GateKeeper, GateKey};

use super::{AccessError, Server, ServerCore, audit};
use crate::config::Config;
use crate::identity::Identity;
use crate::policy::{Policy, PolicyError, PolicySource};
use crate::ticket::Ticket;

impl Server {
    /// Goes by the access secrets of this identity from here on: its current one is in [`ticket`](Self::ticket), and all of them
    /// let clients in. The server's key stays what it is.
    ///
    /// Sessions that are here stay, whatever secret they came with; but a connection that is lost, or has served its time, is
    /// replaced with the secret of its client's ticket. So add a secret, hand the new ticket out
    /// ([`Session::use_ticket`](crate::Session::use_ticket)), and retire the old one when everybody has it.
    ///
    /// # Errors
    /// [`AccessError`]: the identity has another key, or more secrets than a listener tries.
    pub fn use_access_secrets(&self, identity: &Identity) -> Result<(), AccessError> {
        self.core.use_access_secrets(identity)
    }

    /// Goes by another policy from here on. What it does not allow ends at once, for those as well that are here already.
    ///
    /// A policy that was read from a file ([`PolicySource::File`]) takes its place again when that file changes.
    pub fn set_policy(&self, policy: Arc<dyn Policy>) {
        audit::policy_replaced(&"the program");
        self.core.replace_policy(policy);
    }

    /// Reads the policy's file again now, rather than when it is next seen to have changed. Nothing where there is none.
    ///
    /// # Errors
    /// [`PolicyError`] when it cannot be read; the old policy stays.
    pub fn reload_policy(&self) -> Result<(), PolicyError> {
        match &self.core.config.policy {
            PolicySource::File(path) => self.core.reload_policy(path),
            _ => Ok(()),
        }
    }
}

impl ServerCore {
    /// Lets clients in by the access secrets of this identity, and by no others (`STORE-2`, `STORE-3`).
    pub(super) fn use_access_secrets(&self, identity: &Identity) -> Result<(), AccessError> {
        let mut current = self.identity.write();
        if identity.public_key() != current.public_key() {
            return Err(AccessError::OtherKey {
                ours: current.fingerprint(),
                theirs: identity.fingerprint(),
            });
        }
        let changed = current.clone().with_access_secrets_of(identity);
        let mut ticket = self.ticket.write();
        let (addresses, pin) = (ticket.addresses().to_vec(), ticket.server_pin());
        *ticket = Ticket::from_parts(addresses, pin, Some(changed.access_secret().clone()))?;
        let keys = gate_keys(&changed, &self.config);
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).set_keys(keys).expect(FEWER_KEYS);
        let secrets = changed.access_secrets().len();
        *current = changed;
        drop((current, ticket));
        audit::access_changed(secrets);
        Ok(())
    }
}

const FEWER_KEYS: &str = "an identity has fewer access secrets than a gate tries keys";

/// At least one key, and never more than the gate tries: an identity holds no more.
fn gate_keys(identity: &Identity, config: &Config) -> Vec<GateKey> {
    let mut keys: Vec<_> = identity.access_secrets().iter().cloned().map(GateKey::Secret).collect();
    if config.admit_without_secret {
        keys.push(GateKey::Pin(identity.server_pin()));
    }
    keys
}

pub(super) fn gate_keeper(identity: &Identity, config: &Config) -> GateKeeper {
    let window = config.limits.clock_window.map(|window| window.as_secs());
    let keeper = GateKeeper::new(gate_keys(identity, config), window, config.limits.gates_max);
    keeper.expect(FEWER_KEYS)
}
