//! A server that goes by a policy file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netchan::{
    CloseReason, Config, DialError, Identity, PolicySource, Server, Session, dial, listen_and_serve,
};
use tempfile::TempDir;

use super::{memory, within};

/// What a policy no longer allows ends within a second; threefold, for a busy machine.
pub const REVOKED_WITHIN: Duration = Duration::from_secs(3);

pub const DENIED: u16 = CloseReason::DENIED;

pub struct Site {
    _directory: TempDir,
    pub file: PathBuf,
    pub server: Server,
}

impl Site {
    /// A server that goes by a policy file.
    pub async fn start(address: &str, policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.toml");
        fs::write(&file, policy).unwrap();
        let mut config = Config::default();
        config.policy = PolicySource::File(file.clone());
        let server = listen_and_serve(address, config).await.unwrap();
        Self { _directory: directory, file, server }
    }

    pub async fn memory(policy: &str) -> Self {
        Self::start(&memory(), policy).await
    }

    /// In one step, as an editor or a deployment does it.
    pub fn replace(&self, policy: &str) {
        replace(&self.file, policy);
    }

    pub async fn dial(&self, identity: &Identity) -> Result<Session, DialError> {
        within("dial", dial(self.server.ticket(), Config::with_identity(identity.clone()))).await
    }
}

pub fn replace(file: &Path, policy: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, policy).unwrap();
    fs::rename(&draft, file).unwrap();
}

pub fn peer(name: &str, identity: &Identity, more: &str) -> String {
    format!("[peer.{name}]\nkey = \"{}\"\n{more}\n", identity.fingerprint())
}

pub fn rule(who: &str, channel: &str, verdict: &str) -> String {
    format!("[[rule]]\nwho = \"{who}\"\nchannel = \"{channel}\"\n{verdict}\n")
}
