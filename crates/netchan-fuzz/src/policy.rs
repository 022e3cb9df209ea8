//! Policy files.

use std::time::SystemTime;

use netchan::Fingerprint;
use netchan::policy::{Action, Policy, PolicyFile, PolicyPeer, PolicyRequest};

/// The bytes are a policy file.
///
/// # Panics
/// When a file is accepted that does not keep what it promises.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = match PolicyFile::parse(text, "policy.toml") {
        Ok(policy) => policy,
        Err(error) => {
            // Every mistake has its place in the text.
            let lines = text.lines().count().max(1);
            assert!(error.problems().iter().all(|problem| problem.line <= lines + 1), "{error}");
            return;
        }
    };
    let now = SystemTime::UNIX_EPOCH;
    for has_access_secret in [false, true] {
        let peer = PolicyPeer::new(Fingerprint([7; 32]), has_access_secret);
        let connects = policy.check(&peer, &PolicyRequest::Connect, now).is_allowed();
        for channel in ["jobs", "jobs.build", "a..b", "*", ">", ""] {
            for action in [Action::Send, Action::Receive] {
                let opens = policy.check(&peer, &PolicyRequest::Open { channel, action }, now);
                assert!(connects || !opens.is_allowed(), "who may not come may not open");
                assert!(opens.bounds().iter().all(|bound| bound.max_open > 0));
            }
        }
    }
}
