//! Where no memory may be locked, everything works all the same. In a process of its own, whose limit it lowers.

#![cfg(target_os = "linux")]

use netchan_embed::{EmbeddedKey, Locked, embed_key};
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};

static KEY: EmbeddedKey = embed_key!("sample/worker.key", readable_by_others);

#[test]
fn refused_locks_are_told_and_harm_nothing() {
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).expect("a lower limit");
    let mut memory = Locked::zeroed(32);
    // The superuser is not bound by it.
    assert!(!memory.is_locked() || geteuid().is_root());
    memory.as_bytes_mut().fill(7);
    assert_eq!(memory.as_bytes(), [7; 32]);
    assert!(KEY.with_secrets(|seed, access| !access.contains(seed)));
}
