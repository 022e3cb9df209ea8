//! Files of known hosts, and servers to be found in them.

use std::fs;
use std::path::PathBuf;

use netchan::identity::AccessSecret;
use netchan::known_hosts::KnownHostsError;
use netchan::{
    Config, DialError, Fingerprint, FirstUse, Identity, KnownHosts, Server, Session, listen_and_serve,
};
use tempfile::TempDir;

use super::within;

pub const SECRET: [u8; 32] = [5; 32];

pub fn secret() -> Option<AccessSecret> {
    Some(AccessSecret::new(SECRET))
}

pub fn key(seed: u8) -> Fingerprint {
    Identity::from_seed([seed; 32]).fingerprint()
}

/// A file in a directory of its own.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    pub fn open(&self) -> KnownHosts {
        KnownHosts::open(self.path()).unwrap()
    }

    pub fn with(text: &str) -> Self {
        let place = Self::new();
        place.write(text);
        place
    }

    pub fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).unwrap();
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    pub fn error(&self) -> KnownHostsError {
        KnownHosts::open(self.path()).unwrap_err()
    }
}

/// A server with the key of a seed, and the secret of these tests.
pub async fn serve(address: &str, seed: u8) -> Server {
    serve_with(address, seed, SECRET).await
}

pub async fn serve_with(address: &str, seed: u8, secret: [u8; 32]) -> Server {
    let identity = Identity::from_seed([seed; 32]).with_access_secret(AccessSecret::new(secret));
    let config = Config::with_identity(identity);
    listen_and_serve(address, config).await.unwrap()
}

pub async fn dial(
    hosts: &KnownHosts,
    address: &str,
    secret: Option<AccessSecret>,
    first_use: FirstUse,
) -> Result<Session, DialError> {
    within("dial", hosts.dial(address, secret, first_use, Config::default())).await
}

pub fn known_hosts_error(result: Result<Session, DialError>) -> KnownHostsError {
    match result.expect_err("refused") {
        DialError::KnownHosts(error) => error,
        other => panic!("{other}"),
    }
}
