//! Keys and tickets embedded in this test, with what the files hold.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use netchan_embed::{EmbeddedKey, EmbeddedTicket, embed_key, embed_ticket};

static KEY: EmbeddedKey = embed_key!("sample/worker.key", readable_by_others);
const SEEDED: EmbeddedKey = embed_key!("sample/worker.key", seed = "a seed", readable_by_others,);
static TICKET: EmbeddedTicket = embed_ticket!("sample/server.ticket", readable_by_others);

fn sample(name: &str) -> String {
    fs::read_to_string(Path::new("sample").join(name)).expect("the sample")
}

/// The values of the lines that begin with `label`.
fn fields(label: &str) -> Vec<Vec<u8>> {
    let text = sample("worker.key");
    let values = text.lines().filter_map(|line| line.strip_prefix(label));
    values.map(|value| STANDARD.decode(value).expect("base64")).collect()
}

#[test]
fn a_key_is_what_its_file_says() {
    for key in [KEY, SEEDED] {
        assert_eq!(key.with_seed(|seed| seed.to_vec()), fields("key ")[0]);
        let access: Vec<_> =
            key.with_access_secrets(|access| access.iter().map(|one| one.to_vec()).collect());
        assert_eq!(access, fields("access "));
        assert_eq!(access.len(), 2);
    }
}

#[test]
fn a_ticket_is_what_its_file_says() {
    assert_eq!(TICKET.with_text(str::to_owned), sample("server.ticket").trim());
}

#[test]
fn several_threads_and_uses_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                KEY.with_seed(|outer| KEY.with_secrets(|inner, _| assert_eq!(outer, inner)));
            });
        }
    });
}

/// A crate's own wrapper, as one that re-exports these macros would have it.
mod wrapper {
    macro_rules! embed_key {
        ($($arguments:tt)*) => { netchan_embed::__private::embed_key!(::netchan_embed ; $($arguments)*) };
    }
    pub(crate) use embed_key;

    /// A literal that went through another macro arrives in a group.
    macro_rules! embed_from {
        ($path:literal) => {
            netchan_embed::embed_key!($path, readable_by_others)
        };
    }
    pub(crate) use embed_from;
}

#[test]
fn wrappers_can_hand_on_another_path() {
    let seed = KEY.with_seed(|seed| *seed);
    assert_eq!(wrapper::embed_key!("sample/worker.key", readable_by_others).with_seed(|seed| *seed), seed);
    assert_eq!(wrapper::embed_from!("sample/worker.key").with_seed(|seed| *seed), seed);
}
