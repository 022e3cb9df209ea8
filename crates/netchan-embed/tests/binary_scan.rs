//! Keys and tickets are embedded in a program, and everything that the build leaves behind is searched for them.

mod builds;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use builds::{Fixture, hexadecimal, key_file, random, ticket};
use scan::{Forbidden, Found};
use sha2::{Digest as _, Sha256};

/// What folds most: everything that the program consists of is optimised as one.
const FAT: [&str; 6] = ["--release", "--", "-C", "opt-level=3", "-C", "lto=fat"];

struct Secrets {
    seed: [u8; 32],
    access: [[u8; 32]; 2],
    ticket: String,
}

impl Secrets {
    fn fresh() -> Self {
        // A name as rare as the secrets, so that a window of it can only come from the ticket.
        let addresses = format!("{}:7000", hexadecimal(&random::<16>()));
        Self {
            seed: random(),
            access: random::<64>().as_chunks().0.try_into().expect("two"),
            ticket: ticket(&addresses, &random(), &random()),
        }
    }

    fn forbidden(&self) -> Forbidden {
        let mut forbidden = Forbidden::new();
        forbidden.key(&self.seed, &self.access);
        forbidden.ticket(&self.ticket);
        forbidden
    }

    fn write(&self, fixture: &Fixture) {
        fixture.write("keys/worker.key", &key_file(&self.seed, &self.access));
        fixture.write("keys/server.ticket", &format!("{}\n", self.ticket));
        let mask: [u8; 32] = random();
        let masked: [u8; 32] = std::array::from_fn(|index| self.seed[index] ^ mask[index]);
        let naive =
            format!("pub static MASKED: [u8; 32] = {masked:?};\npub static MASK: [u8; 32] = {mask:?};\n");
        fixture.write("keys/naive.rs", &naive);
    }

    /// What the program prints if it has them right.
    fn digests(&self) -> String {
        let digest = |bytes: &[u8]| hexadecimal(&Sha256::digest(bytes));
        let key = [&self.seed[..], self.access.as_flattened()].concat();
        format!("{} {}\n", digest(&key), digest(self.ticket.as_bytes()))
    }
}

/// Builds the fixture, searches what cargo prints, and keeps the program under a name of its own.
fn build(fixture: &Fixture, forbidden: &Forbidden, name: &str, arguments: &[&str]) -> PathBuf {
    let output = fixture.cargo(&[&["rustc", "-v"], arguments].concat());
    let log = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&log));
    assert!(!log.is_empty());
    nothing(&forbidden.search("the build's output", &log));
    let profile = if arguments.contains(&"--release") { "release" } else { "debug" };
    let built = fixture.target.join(profile).join(format!("embed-fixture{}", std::env::consts::EXE_SUFFIX));
    let kept = fixture.root.join(name);
    fs::copy(built, &kept).expect("the program");
    kept
}

/// A copy without symbols.
fn stripped(program: &Path) -> Option<PathBuf> {
    // Elsewhere symbols are in files of their own.
    if !cfg!(unix) {
        return None;
    }
    let mut name = program.file_name().expect("a file's name").to_owned();
    name.push("-stripped");
    let copy = program.with_file_name(name);
    fs::copy(program, &copy).expect("a copy");
    let status =
        Command::new("strip").arg(&copy).status().expect("the tool `strip`, which linkers come with");
    assert!(status.success());
    Some(copy)
}

#[track_caller]
fn nothing(found: &[Found]) {
    let first: Vec<_> = found.iter().take(20).map(Found::to_string).collect();
    assert!(found.is_empty(), "{} findings: {first:#?}", found.len());
}

fn printed(program: &Path) -> String {
    let output = Command::new(program).output().expect("the program runs");
    assert!(output.status.success(), "{}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn nothing_that_a_build_leaves_behind_holds_a_key_and_naive_embedding_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let fixture = Fixture::copy(directory.path().join("crate"), directory.path().join("target"));
    let secrets = Secrets::fresh();
    secrets.write(&fixture);
    let forbidden = secrets.forbidden();

    for variable in fixture.command(&["build"]).get_envs() {
        for text in [Some(variable.0), variable.1].into_iter().flatten() {
            nothing(&forbidden.search("the build's environment", text.as_encoded_bytes()));
        }
    }
    for (name, value) in std::env::vars_os() {
        nothing(&forbidden.search("the environment", name.as_encoded_bytes()));
        nothing(&forbidden.search("the environment", value.as_encoded_bytes()));
    }

    let program = |name, arguments: &[&str]| build(&fixture, &forbidden, name, arguments);
    let programs = [program("debug", &[]), program("release", &["--release"]), program("fat", &FAT)];
    for program in programs.iter().cloned().chain(programs.iter().filter_map(|program| stripped(program))) {
        assert_eq!(printed(&program), secrets.digests(), "{}", program.display());
        nothing(&forbidden.search_file(&program));
    }
    let (found, bytes) = forbidden.search_tree(&fixture.target);
    nothing(&found);
    assert!(bytes > 1 << 20, "the target directory was searched: {bytes} bytes");

    programs.iter().for_each(|program| memory_is_clean(&forbidden, program));
    builds_repeat_only_with_a_seed(&fixture, &forbidden, &secrets, &programs[0]);
    controls_are_found(&fixture, &forbidden);
}

/// A seed makes builds alike; without one each differs.
fn builds_repeat_only_with_a_seed(fixture: &Fixture, forbidden: &Forbidden, secrets: &Secrets, debug: &Path) {
    let again = |name, arguments: &[&str]| {
        for profile in ["dev", "release"] {
            let output = fixture.cargo(&["clean", "-p", "embed-fixture", "--profile", profile]);
            assert!(output.status.success());
        }
        let program = build(fixture, forbidden, name, arguments);
        assert_eq!(printed(&program), secrets.digests());
        fs::read(program).expect("the program")
    };
    let seeded = [&["--features", "seeded"], &FAT[..]].concat();
    let once = again("seeded", &seeded);
    assert!(once == again("seeded-again", &seeded), "a seed makes a build reproducible");
    nothing(&forbidden.search("the seeded program", &once));
    let debug = fs::read(debug).expect("the program");
    assert!(debug != again("debug-again", &[]), "every build has masks of its own");
}

/// Deliberately naive embeddings: a file that is included, and two static arrays that are combined when the program runs. A scan
/// that misses them proves nothing.
fn controls_are_found(fixture: &Fixture, forbidden: &Forbidden) {
    let naive = ["--features", "naive"];
    let debug = build(fixture, forbidden, "naive-debug", &naive);
    let optimised = build(fixture, forbidden, "naive", &[&naive, &FAT[..]].concat());
    for program in [&debug, &optimised] {
        for program in [Some(program.clone()), stripped(program)].into_iter().flatten() {
            let found = forbidden.search_file(&program);
            let has = |what: &str| found.iter().any(|found| found.what == what);
            assert!(has("the seed in base64"), "the scan misses the included file in {}", program.display());
            // The optimiser folds the two arrays, so that the key itself stands there, in pieces.
            assert!(
                has("the seed") || program == debug || program.ends_with("naive-debug-stripped"),
                "the scan misses the folded arrays in {}",
                program.display()
            );
        }
    }
}

/// After use, no page of the running program holds them, unless it kept a copy.
#[cfg(target_os = "linux")]
fn memory_is_clean(forbidden: &Forbidden, program: &Path) {
    let found = |mode| search_memory(forbidden, program, mode);
    let (Some(held), Some(leaked)) = (found("hold"), found("leak")) else {
        eprintln!("not tested: this system lets no process read the memory of its children");
        return;
    };
    nothing(&held);
    for what in ["the seed", "the ticket's text"] {
        assert!(
            leaked.iter().any(|found| found.what == what),
            "the search does not find {what} that was leaked"
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn memory_is_clean(_: &Forbidden, _: &Path) {}

/// What a running program's writable memory holds; `None` where reading it is not allowed.
#[cfg(target_os = "linux")]
fn search_memory(forbidden: &Forbidden, program: &Path, mode: &str) -> Option<Vec<Found>> {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::FileExt as _;

    let mut child = Command::new(program)
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("its mappings");
    let memory = fs::File::open(format!("/proc/{}/mem", child.id())).ok();
    let mut found = memory.as_ref().map(|_| Vec::new());
    let mut regions = 0;
    for region in maps.lines().filter(|line| line.contains(" rw")) {
        let (Some(memory), Some(found)) = (&memory, &mut found) else { break };
        let (start, end) =
            region.split_once(' ').and_then(|(range, _)| range.split_once('-')).expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("what fits the address space")];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            regions += 1;
            found.extend(forbidden.search(region, &bytes));
        }
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("its end").success());
    found.filter(|_| regions > 0)
}

#[test]
fn the_scan_finds_eight_bytes_in_every_form_wherever_they_stand() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    let secret: [u8; 32] = random();
    let mut forbidden = Forbidden::new();
    forbidden.secret("it", &secret);
    for start in 0..=24 {
        let window = &secret[start..start + 8];
        let reversed: Vec<u8> = window.iter().rev().copied().collect();
        for piece in [window, &reversed] {
            for around in 0..4 {
                let bytes = [&vec![0xaa; around][..], piece, &vec![0x55; around]].concat();
                let lower = hexadecimal(&bytes);
                let texts =
                    [lower.to_uppercase(), lower, STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)];
                for text in texts.iter().map(|text| text.as_bytes()).chain([&bytes[..]]) {
                    let found = forbidden.search("here", text);
                    assert!(!found.is_empty(), "window {start}, {around} around, {}", text.len());
                }
            }
        }
    }
    assert!(forbidden.search("here", &random::<100_000>()).is_empty());
    assert!(forbidden.search("here", &secret[..7]).is_empty());
}

#[test]
fn the_scan_knows_expanded_keys_and_codes_of_tickets() {
    use sha2::Sha512;

    let secrets = Secrets::fresh();
    let forbidden = secrets.forbidden();
    let found = |bytes: &[u8]| !forbidden.search("here", bytes).is_empty();
    let expanded = Sha512::digest(secrets.seed);
    assert!(found(&expanded[5..13]) && found(&expanded[50..58]));
    assert!(found(&secrets.access[1][20..28]) && found(&secrets.ticket.as_bytes()[60..68]));
    let mut clamped = expanded[..8].to_vec();
    clamped[0] &= 248;
    assert!(found(&clamped));
}
