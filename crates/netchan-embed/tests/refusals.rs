//! What the compiler says where a key cannot be embedded, and what it does not say.

#[allow(dead_code, reason = "each test uses some of it")]
mod builds;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use builds::{Fixture, key_file, random, set_mode, ticket};

#[test]
fn the_compiler_says_what_is_wrong_and_shows_no_key() {
    let directory = tempfile::tempdir().expect("a directory");
    // Kept from one run to the next: what is searched here is what the compiler prints.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refusals");
    let fixture = Fixture::copy(directory.path().join("crate"), target);
    let (seed, access) = (random(), [random()]);
    let key = STANDARD.encode(random::<32>());
    let code = ticket("host:7000", &random(), &access[0]);
    fixture.write("keys/good.key", &key_file(&seed, &access));
    fixture.write("keys/open.key", &key_file(&seed, &access));
    set_mode(&fixture.root.join("keys/open.key"), 0o644);
    fixture.write("keys/wrong.key", &format!("netchan identity 1\nkey {key}\naccess {key}\ncheck AAAA\n"));

    let cases = [
        ("embed_key!(\"keys/missing.key\")".to_owned(), "make one: `netchan keygen keys/missing.key`"),
        (
            "embed_key!(\"keys/open.key\")".to_owned(),
            "keys/open.key: others can read or change it (mode 0644)",
        ),
        (
            "embed_key!(\"keys/wrong.key\")".to_owned(),
            "keys/wrong.key: the key file is damaged: the check does",
        ),
        ("embed_ticket!(\"keys/good.key\")".to_owned(), "keys/good.key: this is a key file, not a ticket"),
        (format!("embed_key!(\"{key}\")"), "src/main.rs:5: embed_key!: the argument is the path of a file"),
        (format!("embed_ticket!(\"{code}\")"), "src/main.rs:6: embed_ticket!: this is the content of a key"),
        (
            format!("embed_key!({:?})", key_file(&seed, &access)),
            "src/main.rs:7: embed_key!: this is the content",
        ),
        (
            "embed_key!(env!(\"CARGO_PKG_NAME\"))".to_owned(),
            "src/main.rs:8: embed_key!: the argument is the path",
        ),
        (
            format!("embed_key!(\"keys/good.key\", key = \"{key}\")"),
            "src/main.rs:9: embed_key!: unknown, repeated",
        ),
        ("embed_key!(\"keys/good.key\")".to_owned(), ""),
    ];
    let calls: Vec<_> = cases.iter().map(|(call, _)| format!("let _ = netchan_embed::{call};\n")).collect();
    fixture.write("src/main.rs", &format!("fn main() {{{}}}\n", calls.concat()));

    let output = fixture.cargo(&["build"]);
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(!output.status.success(), "{printed}");
    for (call, expected) in &cases {
        assert!(printed.contains(expected), "of {call}: {expected:?} is not in:\n{printed}");
    }
    let refused = cases.iter().filter(|(_, expected)| !expected.is_empty()).count();
    assert!(printed.contains(&format!("{refused} previous errors")), "{refused} and no more:\n{printed}");
    for secret in
        [&key, &STANDARD.encode(seed), &STANDARD.encode(access[0]), code.split_once('#').expect("a code").1]
    {
        assert!(!printed.contains(&secret[..12]), "a secret was printed:\n{printed}");
    }
}
