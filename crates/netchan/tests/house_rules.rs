//! House rules, as tests: the specification and the code agree on their rules, imports point one way, files stay small.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The families of rule ids in docs/SPEC.md.
const FAMILIES: [&str; 15] = [
    "GATE", "HS", "KEY", "REC", "WIRE", "FLOW", "CHAN", "HOST", "DEL", "CAST", "SESS", "POL", "STORE",
    "PORT", "BOUND",
];

/// Rules that no test shows, because code that breaks them does not compile.
const BY_CONSTRUCTION: [&str; 1] = ["HS-14"];

/// Lines of a source file, tests not counted.
const FILE_LINES_MAX: usize = 500;

/// The modules of netchan-proto, and what each may import.
const IMPORTS: [(&str, &[&str]); 10] = [
    ("id", &[]),
    ("planted", &[]),
    ("limits", &[]),
    ("wire", &["id", "limits"]),
    ("crypto", &["id", "limits"]),
    ("flow", &["id", "limits", "planted", "wire"]),
    ("channel", &["id", "limits", "planted", "wire", "flow"]),
    ("hosted", &["id", "limits", "planted", "wire", "flow", "channel"]),
    ("exchange", &["id", "limits", "planted", "wire", "flow", "channel", "hosted"]),
    ("session", &["id", "limits", "planted", "wire", "flow", "channel", "hosted", "crypto"]),
];

/// The modules of netchan, from the top: imports point down this list.
const SHELL: [&str; 38] = [
    "server",
    "first_use",
    "client",
    "lookup",
    "dialer",
    "offer",
    "broadcast",
    "delivery",
    "opening",
    "receiver",
    "sender",
    "hub",
    "session",
    "account",
    "handshake",
    "known_hosts",
    "config",
    "options",
    "peer",
    "error",
    "policy",
    "limits",
    "codec",
    "ticket",
    "identity",
    "transport",
    "address",
    "stats",
    "private_file",
    "names",
    "system",
    "hold",
    "rate",
    "wait",
    "budget",
    "blocking",
    "reentry",
    "patience",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One file of Rust, split into what ships and what tests it.
struct Source {
    /// From the workspace's root, with forward slashes.
    path: String,
    shipped: String,
    tests: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = read(path);
        let path = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let is_test = path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("vectors.rs");
        let (shipped, tests) = match text.find("#[cfg(test)]\nmod tests {") {
            _ if is_test => (String::new(), text),
            Some(at) => (text[..at].to_owned(), text[at..].to_owned()),
            None => (text, String::new()),
        };
        Self { path, shipped, tests }
    }
}

/// Every file of Rust in the workspace, but for this one, which names rules without keeping them.
fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.join("crates")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests/house_rules.rs")
            {
                found.push(Source::read(&root, &path));
            }
        }
    }
    found
}

/// The rule at the start of `text`, such as `WIRE-12`, if there is one: its family and number.
fn rule_at(text: &str) -> Option<(&'static str, u32)> {
    let family = *FAMILIES.iter().find(|family| {
        text.strip_prefix(**family)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })?;
    let digits = &text[family.len() + 1..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    Some((family, digits[..end].parse().ok()?))
}

/// Every rule that a text names, with those between the ends of a range such as `KEY-1 to KEY-8`.
fn rules_in(text: &str) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    let mut last: Option<(&str, u32, usize)> = None;
    let mut at = 0;
    while at < text.len() {
        let bounded = at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric();
        let rule = text.get(at..).filter(|_| bounded).and_then(rule_at);
        let Some((family, number)) = rule else {
            at += 1;
            continue;
        };
        let first = match last {
            Some((before, from, end))
                if before == family && text[end..at].trim_matches(['`', ' ']).trim() == "to" =>
            {
                from
            }
            _ => number,
        };
        rules.extend((first..=number).map(|n| format!("{family}-{n}")));
        at += format!("{family}-{number}").len();
        last = Some((family, number, at));
    }
    rules
}

/// The rules of the specification, each with its text.
fn specified() -> BTreeMap<String, String> {
    let spec = read(&root().join("docs/SPEC.md"));
    let mut rules = BTreeMap::<String, String>::new();
    let mut current = None;
    for line in spec.lines() {
        if let Some(rest) = line.strip_prefix("- **") {
            let (id, text) = rest.split_once("** ").unwrap_or_else(|| panic!("no rule in {line:?}"));
            assert!(rules.insert(id.to_owned(), text.to_owned()).is_none(), "{id} is there twice");
            current = Some(id.to_owned());
        } else if let Some(id) = current.as_ref().filter(|_| line.starts_with("  ")) {
            rules.get_mut(id).expect("it was inserted").push_str(line);
        } else {
            current = None;
        }
    }
    rules
}

/// The tables of the specification: for each rule, the files and the tests that its row names.
fn tables() -> BTreeMap<String, Vec<String>> {
    let spec = read(&root().join("docs/SPEC.md"));
    let mut rows = BTreeMap::<String, Vec<String>>::new();
    for line in spec.lines().filter(|line| line.starts_with("| ") && rule_at(&line[2..]).is_some()) {
        let (rules, cells) = line[2..].split_once('|').expect("a row has cells");
        let named: Vec<String> = cells.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        for rule in rules_in(rules) {
            rows.entry(rule).or_default().extend(named.iter().cloned());
        }
    }
    rows
}

/// The names of all functions in tests.
fn test_names(sources: &[Source]) -> BTreeSet<String> {
    let functions = sources.iter().flat_map(|source| source.tests.split("fn ").skip(1));
    let name =
        |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
    functions.map(name).collect()
}

/// Whether one of the names is meant by `pattern`, such as `session_cut::sess_9_*`.
fn names_a_test(pattern: &str, names: &BTreeSet<String>) -> bool {
    let name = pattern.rsplit("::").next().unwrap_or(pattern);
    match name.strip_suffix('*') {
        Some(start) => names.iter().any(|name| name.starts_with(start)),
        None => names.contains(name),
    }
}

#[test]
fn every_rule_is_kept_in_a_source_and_shown_by_a_test() {
    let (sources, specified, tables) = (sources(), specified(), tables());
    let names = test_names(&sources);
    let cited = |part: fn(&Source) -> &str| -> BTreeSet<String> {
        sources.iter().flat_map(|source| rules_in(part(source))).collect()
    };
    let (in_sources, in_tests) = (cited(|source| &source.shipped), cited(|source| &source.tests));
    let mut missing = Vec::new();
    for (rule, _) in specified.iter().filter(|(_, text)| text.contains("MUST")) {
        if !in_sources.contains(rule) {
            missing.push(format!("{rule} is cited in no source"));
        }
        let prefix = format!("{}_*", rule.to_lowercase().replace('-', "_"));
        let row = tables.get(rule).map_or(&[][..], Vec::as_slice);
        let shown = in_tests.contains(rule)
            || names_a_test(&prefix, &names)
            || row.iter().any(|pattern| names_a_test(pattern, &names));
        if !shown && !BY_CONSTRUCTION.contains(&rule.as_str()) {
            missing.push(format!("{rule} is shown by no test"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_rule_has_its_row_and_every_row_names_what_exists() {
    let (root, sources, specified, tables) = (root(), sources(), specified(), tables());
    let names = test_names(&sources);
    let mut wrong = Vec::new();
    for rule in specified.keys().filter(|rule| !tables.contains_key(*rule)) {
        wrong.push(format!("{rule} stands in no table"));
    }
    for (rule, named) in &tables {
        if !specified.contains_key(rule) {
            wrong.push(format!("a table names {rule}, which is no rule"));
        }
        for name in named {
            let exists = if name.contains('.') {
                let bases = ["", "crates/netchan-proto/src", "crates/netchan-proto/src/hosted"];
                bases.iter().any(|base| root.join(base).join(name).is_file())
            } else {
                names_a_test(name, &names) || BY_CONSTRUCTION.contains(&rule.as_str())
            };
            if !exists {
                wrong.push(format!("{rule} names {name}, which does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_that_a_guarantee_names_exists() {
    let guarantees = read(&root().join("docs/GUARANTEES.md"));
    let names = test_names(&sources());
    // `Config::…` and the like are of the library.
    let is_test = |token: &&str| token.contains("::") && !token.starts_with(char::is_uppercase);
    let named = guarantees.split('`').skip(1).step_by(2).filter(is_test);
    let missing: Vec<_> =
        named.filter(|token| *token != "file::name" && !names_a_test(token, &names)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_rule_cited_in_code_exists() {
    let specified = specified();
    let mut unknown = Vec::new();
    for source in sources() {
        for rule in rules_in(&source.shipped).union(&rules_in(&source.tests)) {
            if !specified.contains_key(rule) {
                unknown.push(format!("{}: {rule}", source.path));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// What code names behind `crate::`, braces taken apart.
fn imports_of(code: &str) -> BTreeSet<&str> {
    let mut imports = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let mut depth = 0_usize;
        let mut starts = true;
        for (at, c) in rest.char_indices() {
            if starts && c != '{' && !c.is_whitespace() {
                let name = rest[at..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
                imports.insert(name);
            }
            depth += usize::from(c == '{');
            depth = depth.saturating_sub(usize::from(c == '}'));
            starts = depth == 1 && matches!(c, '{' | ',') || depth == 1 && starts && c.is_whitespace();
            if depth == 0 {
                break;
            }
        }
    }
    imports.remove("");
    imports
}

/// The module of each source below `directory` that ships, its path there, and what it imports.
fn imports_below(directory: &str) -> Vec<(String, String, BTreeSet<String>)> {
    let mut found = Vec::new();
    for source in sources() {
        let Some(inside) = source.path.strip_prefix(directory) else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or(inside).to_owned();
        let lines: Vec<_> =
            source.shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = lines.join("\n");
        let imports = imports_of(&code).into_iter().filter(|target| *target != module);
        let imports = imports.map(str::to_owned).collect();
        found.push((module, inside.to_owned(), imports));
    }
    found
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (module, inside, imports) in imports_below("crates/netchan-proto/src/") {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            assert_eq!(module, "lib", "{inside}: a new module needs its place in IMPORTS");
            continue;
        };
        let others = imports.iter().filter(|target| !allowed.contains(&target.as_str()));
        wrong.extend(others.map(|target| format!("{inside} imports {target:?}")));
    }
    for (module, inside, imports) in imports_below("crates/netchan/src/") {
        let Some(place) = SHELL.iter().position(|name| *name == module) else {
            assert_eq!(module, "lib", "{inside}: a new module needs its place in SHELL");
            continue;
        };
        let others = imports.iter().filter(|target| !SHELL[place..].contains(&target.as_str()));
        wrong.extend(others.map(|target| format!("{inside} imports {target:?}, which is not below it")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_protocol_does_not_know_tokio() {
    let manifest = read(&root().join("crates/netchan-proto/Cargo.toml"));
    assert!(!manifest.contains("tokio"), "netchan-proto is sans-IO");
}

#[test]
fn nothing_that_ships_plants_bugs() {
    let root = root();
    for crate_name in ["netchan", "netchan-cli"] {
        let manifest = read(&root.join("crates").join(crate_name).join("Cargo.toml"));
        assert!(!manifest.contains("planted"), "{crate_name}");
    }
    let proto = read(&root.join("crates/netchan-proto/Cargo.toml"));
    assert!(!proto.contains("default = ["), "the feature is off unless it is asked for");
    assert!(read(&root.join("crates/netchan-sim/Cargo.toml")).contains("publish = false"));
}

#[test]
fn files_stay_small() {
    let mut long = Vec::new();
    for source in sources() {
        let lines = source.shipped.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{} has {lines} lines, more than {FILE_LINES_MAX}", source.path));
        }
    }
    assert!(long.is_empty(), "split by concern: {long:#?}");
}

#[test]
fn unsafe_code_is_forbidden_but_for_locked_memory() {
    let root = root();
    assert!(read(&root.join("Cargo.toml")).contains("unsafe_code = \"forbid\""));
    for member in fs::read_dir(root.join("crates")).expect("the crates") {
        let manifest = member.expect("a crate").path().join("Cargo.toml");
        let lints = if manifest.ends_with("netchan-embed/Cargo.toml") {
            "[lints.rust]\nunsafe_code = \"deny\""
        } else {
            "[lints]\nworkspace = true"
        };
        assert!(read(&manifest).contains(lints), "{}", manifest.display());
    }
    let allows = |source: &Source| {
        let mut code = source.shipped.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.any(|line| line.contains("unsafe ") || line.contains("allow(unsafe_code"))
    };
    let with_unsafe: BTreeSet<_> =
        sources().into_iter().filter(|source| allows(source)).map(|source| source.path).collect();
    let expected = ["crates/netchan-embed/src/lib.rs", "crates/netchan-embed/src/locked.rs"];
    assert!(with_unsafe.iter().eq(expected), "{with_unsafe:#?}");
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = read(&root().join("CHANGELOG.md"));
    let head = changelog.lines().find(|line| line.starts_with("## ")).expect("a version");
    let version = env!("CARGO_PKG_VERSION");
    assert!(head.starts_with(&format!("## [{version}]")), "{head:?} is not about {version}");
}

#[test]
fn the_rules_of_this_file_can_fail() {
    assert_eq!(rules_in("`KEY-1` to `KEY-3`, HS-14; XHS-2, CHAN-x").len(), 4);
    assert!(rules_in("FLOW-2 and FLOW-4").iter().eq(["FLOW-2", "FLOW-4"]));
    let code =
        "use crate::{a::{b, c}, d,\n    e as f};\nuse crate::g::{h, i};\nlet x = crate::j::k(crate::l) + m;";
    assert!(imports_of(code).iter().eq(&["a", "d", "e", "g", "j", "l"]));
    let names = BTreeSet::from(["sess_9_cut".to_owned()]);
    assert!(names_a_test("session_cut::sess_9_*", &names) && names_a_test("sess_9_cut", &names));
    assert!(!names_a_test("sess_9", &names) && !names_a_test("sess_90_*", &names));
    assert!(specified().len() > 80 && tables().len() == specified().len());
}
