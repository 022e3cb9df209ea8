//! Every committed input of every fuzz target, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use netchan_fuzz::{TARGETS, Target, seeds};

/// Files of one corpus: more make a clone heavy and find nothing more.
const FILES_MAX: usize = 200;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The files of a directory and what is in them, by name; none where there is no such directory.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes)
        })
        .collect()
}

/// Runs inputs and says at which one it fell, since a panic of a target does not.
fn run(target: Target, inputs: Vec<(PathBuf, Vec<u8>)>) {
    for (path, bytes) in inputs {
        let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(outcome.is_ok(), "{} falls at {}", target.name, path.display());
    }
}

#[test]
fn every_committed_input_passes() {
    for target in TARGETS {
        let corpus = files(&fuzz().join("corpus").join(target.name));
        assert!((1..=FILES_MAX).contains(&corpus.len()), "{}: {} files", target.name, corpus.len());
        let long = corpus.iter().find(|(_, bytes)| bytes.len() > target.bytes_max);
        assert!(long.is_none(), "{}: {long:?} is too long", target.name);
        run(target, corpus);
    }
}

#[test]
fn every_kept_artifact_passes() {
    for target in TARGETS {
        run(target, files(&fuzz().join("artifacts-kept").join(target.name)));
    }
}

#[test]
fn every_seed_passes() {
    let named: BTreeSet<_> = seeds::all().iter().map(|seed| seed.target).collect();
    assert_eq!(named, TARGETS.iter().map(|target| target.name).collect());
    for target in TARGETS {
        let seeds = seeds::all().into_iter().filter(|seed| seed.target == target.name);
        run(target, seeds.map(|seed| (PathBuf::from(seed.name), seed.bytes)).collect());
    }
}

#[test]
fn every_corpus_and_binary_has_its_target() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let listed = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(directory)).into_iter().flatten();
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        entries.map(|entry| stem(entry.expect("an entry").path())).collect()
    };
    assert_eq!(listed("corpus"), names);
    assert_eq!(listed("targets"), names);
    assert!(listed("artifacts-kept").is_subset(&names));
}
