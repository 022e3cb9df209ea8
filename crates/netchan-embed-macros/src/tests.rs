//! The macros as functions from tokens to tokens.

use std::fs;
use std::path::Path;

use proc_macro2::TokenStream;
use quote::quote;

use crate::key_file::tests::file_of;
use crate::ticket_file::tests::ticket_of;
use crate::{KEY, Kind, TICKET, expand};

fn error_of(kind: &Kind, arguments: TokenStream) -> String {
    match expand(quote! { runtime ; #arguments }, kind) {
        Err(refusal) => refusal.message().to_owned(),
        Ok(_) => panic!("taken: {arguments}"),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> String {
    fs::write(path, text).expect("a file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    path.to_str().expect("a path of characters").to_owned()
}

#[test]
fn a_seed_makes_the_same_code_and_chance_makes_other_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = write(&directory.path().join("worker.key"), &file_of(&[1; 32], &[[2; 32]]), 0o600);
    let code = |arguments: TokenStream| {
        expand(quote! { runtime ; #arguments }, &KEY).expect("a good file").to_string()
    };
    assert_ne!(code(quote! { #path }), code(quote! { #path }));
    assert_eq!(code(quote! { #path, seed = "one" }), code(quote! { #path, seed = "one", }));
    assert_ne!(code(quote! { #path, seed = "one" }), code(quote! { #path, seed = "two" }));
    let code = code(quote! { #path });
    assert!(code.contains("black_box") && !code.contains("include"), "{code}");
}

#[test]
fn only_a_path_is_taken() {
    let key = "lQ7v0xkLw2ZbN4Jt1mYf8sRcTg5aHdUo3iVe6pXqKy0=";
    for (arguments, reason) in [
        (quote! {}, "the path of a file"),
        (quote! { env!("WORKER_KEY") }, "environment"),
        (quote! { include_str!("worker.key") }, "the path of a file"),
        (quote! { b"0123456789abcdef0123456789abcdef" }, "the path of a file"),
        (quote! { [1, 2, 3] }, "the path of a file"),
        (quote! { WORKER_KEY }, "the path of a file"),
        (quote! { "netchan identity 1\nkey abc" }, "the content"),
        (quote! { "netchan://host:7000#AQabc" }, "the content"),
        (quote! { #key }, "looks like a key"),
        (quote! { "worker.key" "other.key" }, "option"),
        (quote! { "worker.key", readable }, "readable_by_others"),
        (quote! { "worker.key", seed }, "seed = "),
        (quote! { "worker.key", seed = "a", seed = "b" }, "repeated"),
    ] {
        let error = error_of(&KEY, arguments.clone());
        assert!(error.contains(reason), "{arguments}: {error}");
        assert!(!error.contains(key) && !error.contains("abc"), "{error}");
    }
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("no.key").to_str().expect("characters").to_owned();
    let error = error_of(&KEY, quote! { #path });
    assert!(error.contains(&format!("`netchan keygen {path}`")), "{error}");
    let error = error_of(&TICKET, quote! { #path });
    assert!(error.contains("the server prints"), "{error}");
    let path = directory.path().to_str().expect("characters").to_owned();
    assert!(error_of(&KEY, quote! { #path }).contains("not a file"));
}

#[cfg(unix)]
#[test]
fn what_others_can_read_is_refused_unless_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = write(&directory.path().join("a.key"), &file_of(&[1; 32], &[[2; 32]]), 0o640);
    let ticket = write(&directory.path().join("a.ticket"), &ticket_of("host:1", &[7; 64]), 0o604);
    let public = write(&directory.path().join("b.ticket"), &ticket_of("host:1", &[7; 32]), 0o644);
    for (kind, path, mode) in [(&KEY, &key, "0640"), (&TICKET, &ticket, "0604")] {
        let error = error_of(kind, quote! { #path });
        assert!(error.contains("chmod 600") && error.contains(mode) && error.contains(path), "{error}");
        assert!(expand(quote! { runtime ; #path, readable_by_others }, kind).is_ok());
    }
    assert!(expand(quote! { runtime ; #public }, &TICKET).is_ok(), "no secret is in it");
}

#[test]
fn errors_about_files_name_the_path() {
    let directory = tempfile::tempdir().expect("a directory");
    for text in ["something else".to_owned(), "x".repeat(20_000), file_of(&[1; 32], &[])] {
        let path = write(&directory.path().join("a.key"), &text, 0o600);
        assert!(error_of(&KEY, quote! { #path }).contains(&path));
    }
}
