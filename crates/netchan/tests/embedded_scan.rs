//! The programs of the examples that carry keys hold none of their bytes in a row, with all of the library linked in.

mod common;
#[allow(dead_code, reason = "the scan of builds uses more of it")]
#[path = "../../netchan-embed/tests/scan/mod.rs"]
mod scan;

use common::Anything;
use common::example::example;
use netchan::{EmbeddedKey, Ticket};
use scan::Forbidden;

const SERVER: EmbeddedKey = netchan::embed_key!("examples/keys/server.key", readable_by_others);
const WORKER: EmbeddedKey = netchan::embed_key!("examples/keys/worker.key", readable_by_others);

#[test]
fn programs_that_carry_keys_hold_no_eight_bytes_of_them() -> Anything {
    let ticket: Ticket = include_str!("../examples/keys/server.ticket").trim().parse()?;
    let secret = *ticket.access_secret().ok_or("a secret")?.expose();
    for (name, key) in [("embedded_server", SERVER), ("embedded_worker", WORKER)] {
        let mut forbidden = Forbidden::new();
        key.with_secrets(|seed, access| forbidden.key(seed, access));
        forbidden.secret("the ticket's access secret", &secret);
        let found = forbidden.search_file(&example(name)?);
        assert!(found.is_empty(), "{name}: {found:?}");
    }
    // This very program holds the ticket's text, so the same search finds something here.
    let mut naive = Forbidden::new();
    naive.ticket(&ticket.to_string());
    assert!(!naive.search_file(&std::env::current_exe()?).is_empty());
    Ok(())
}
