//! The fixture crate, copied to where it can be built, and files for it to embed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// A copy of `tests/fixture`.
pub(crate) struct Fixture {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// Whether all crates are there, as they are when the workspace's lock file led to this test.
    is_offline: bool,
}

impl Fixture {
    pub(crate) fn copy(root: PathBuf, target: PathBuf) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let original = here.join("tests/fixture");
        for directory in ["src", "keys"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        let manifest = fs::read_to_string(original.join("Cargo.toml")).expect("the manifest");
        let path = here.to_str().expect("a path of characters").replace('\\', "/");
        fs::write(root.join("Cargo.toml"), manifest.replace("\"../..\"", &format!("{path:?}")))
            .expect("a manifest");
        fs::copy(original.join("src/main.rs"), root.join("src/main.rs")).expect("the program");
        // The same crates as the workspace, which are there. Cargo drops what the fixture does not need.
        let is_offline = fs::copy(here.join("../../Cargo.lock"), root.join("Cargo.lock")).is_ok();
        Self { root, target, is_offline }
    }

    /// Writes a private file for the fixture.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::write(&path, text).expect("a file");
        set_mode(&path, 0o600);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never");
        // What would lead elsewhere, or change the profiles that are tested.
        for name in ["CARGO_BUILD_TARGET", "CARGO_INCREMENTAL", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        let (subcommand, rest) = arguments.split_first().expect("a subcommand");
        command.arg(subcommand);
        if self.is_offline {
            command.arg("--offline");
        }
        command.args(rest);
        command
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("cargo runs")
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key file.
pub(crate) fn key_file(seed: &[u8; 32], access: &[[u8; 32]]) -> String {
    let mut text = format!("netchan identity 1\n# Private.\nkey {}\n", STANDARD.encode(seed));
    for secret in access {
        text += &format!("access {}\n", STANDARD.encode(secret));
    }
    let check = Sha256::new()
        .chain_update("netchan identity 1")
        .chain_update(seed)
        .chain_update(access.as_flattened())
        .finalize();
    text + &format!("check {}\n", STANDARD.encode(&check[..8]))
}

/// A ticket's text.
pub(crate) fn ticket(addresses: &str, pin: &[u8; 32], access: &[u8; 32]) -> String {
    let start = format!("netchan://{addresses}");
    let mut code = [&[1], &pin[..], access].concat();
    let check = Sha256::new().chain_update(&start).chain_update("#").chain_update(&code).finalize();
    code.extend_from_slice(&check[..4]);
    format!("{start}#{}", URL_SAFE_NO_PAD.encode(code))
}
