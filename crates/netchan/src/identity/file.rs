//! The identity file.
//!
//! ```text
//! netchan identity 1
//! # comments and empty lines are free
//! key <32-byte Ed25519 seed, base64>
//! access <32-byte access secret, base64>
//! access <another that lets clients in as well, and so on; the first is the one of new tickets>
//! check <first 8 bytes of SHA-256 over "netchan identity 1", seed and secrets, base64>
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::private_file::{self, NotLocked, for_owner};

use super::{ACCESS_SECRETS_MAX, AccessSecret, IdentityError, Secrets};

const HEADER_PREFIX: &str = "netchan identity ";
const VERSION: &str = "1";
const NOTE: &str = "# Private. Whoever reads this file can pose as its owner and make its tickets.";

/// Room for comments; a larger file is something else.
const FILE_BYTES_MAX: u64 = 16 * 1_024;

const CHECK_BYTES: usize = 8;

/// What is written: some lines around base64, of 44 characters for each secret.
const FORMATTED_BYTES_MAX: usize = 512 + 64 * ACCESS_SECRETS_MAX;

pub(super) fn read(path: &Path) -> Result<Secrets, IdentityError> {
    if path.to_string_lossy().starts_with("netchan://") {
        // Never quoted: it lets its holder in.
        return Err(IdentityError::IsATicket);
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
        _ => io_error(path, "read", source),
    };
    // Before opening, which would wait for ever at a pipe.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(IdentityError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let mode = check_mode(path, &file);
    let mut text = Zeroizing::new(Vec::with_capacity(1_024));
    (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(IdentityError::NotAnIdentity { path: path.to_owned() });
    }
    // What is something else altogether had better not be told to be private.
    if text.starts_with(HEADER_PREFIX.as_bytes()) {
        mode?;
    }
    parse(path, &text)
}

/// Makes the file if there is none; `false` when another was first.
pub(super) fn create(path: &Path, secrets: &Secrets) -> Result<bool, IdentityError> {
    let draft = Draft::write(path, secrets)?;
    // Unlike a rename, a link never replaces: of several creators one wins, and all read what it wrote.
    match fs::hard_link(&draft.path, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        // Some file systems have no links; there a rename has to do, and the check comes just before it.
        Err(_) if fs::symlink_metadata(path).is_ok() => return Ok(false),
        Err(_) => fs::rename(&draft.path, path).map_err(|source| io_error(path, "create", source))?,
    }
    sync_directory(path);
    Ok(true)
}

/// Only one program at a time may be between reading a file and replacing it.
pub(super) fn lock(path: &Path) -> Result<File, IdentityError> {
    private_file::lock(path).map_err(|error| match error {
        NotLocked::Io(lock, source) => io_error(&lock, "lock", source),
        NotLocked::Busy(lock) => IdentityError::Busy { lock },
    })
}

pub(super) fn replace(path: &Path, secrets: &Secrets) -> Result<(), IdentityError> {
    // Through a symbolic link, so that the link stays one.
    let failed = |source| io_error(path, "replace", source);
    let path = &fs::canonicalize(path).map_err(failed)?;
    let draft = Draft::write(path, secrets).map_err(|error| match error {
        IdentityError::Io { source, .. } => failed(source),
        error => error,
    })?;
    fs::metadata(path).and_then(|former| private_file::take_after(&draft.path, &former)).map_err(failed)?;
    fs::rename(&draft.path, path).map_err(|source| io_error(path, "replace", source))?;
    sync_directory(path);
    Ok(())
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> IdentityError {
    IdentityError::Io { path: path.to_owned(), action, source }
}

/// `STORE-1`
#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode =
        file.metadata().map_err(|source| io_error(path, "read", source))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> Result<(), IdentityError> {
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// So that the name survives a power cut as well; where directories cannot be synced, the system does it in time.
fn sync_directory(path: &Path) {
    let _ = File::open(directory_of(path)).and_then(|directory| directory.sync_all());
}

/// A complete file under a name nobody looks for, removed when done.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, secrets: &Secrets) -> Result<Self, IdentityError> {
        let directory = directory_of(target);
        if !directory.is_dir() {
            let (path, directory) = (target.to_owned(), directory.to_owned());
            return Err(IdentityError::NoDirectory { path, directory });
        }
        let mut unique = [0; 8];
        rand::fill(&mut unique).expect("the operating system gives random bytes");
        let name = format!(".netchan-identity-{:016x}.tmp", u64::from_ne_bytes(unique));
        let draft = Self { path: directory.join(name) };
        draft.fill(&format(secrets)).map_err(|source| io_error(target, "create", source))?;
        Ok(draft)
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = for_owner(options.write(true).create_new(true)).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn format(secrets: &Secrets) -> Zeroizing<String> {
    // Reserved once: a buffer that grows leaves copies of the secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(FORMATTED_BYTES_MAX));
    for part in [HEADER_PREFIX, VERSION, "\n", NOTE, "\nkey "] {
        text.push_str(part);
    }
    STANDARD.encode_string(secrets.seed.as_ref(), &mut text);
    for access in &secrets.access {
        text.push_str("\naccess ");
        STANDARD.encode_string(access.expose(), &mut text);
    }
    text.push_str("\ncheck ");
    STANDARD.encode_string(check_of(secrets), &mut text);
    text.push('\n');
    text
}

fn parse(path: &Path, text: &[u8]) -> Result<Secrets, IdentityError> {
    let damaged = |reason| IdentityError::Damaged { path: path.to_owned(), reason };
    let Some(text) = std::str::from_utf8(text).ok().filter(|text| text.starts_with(HEADER_PREFIX)) else {
        return Err(IdentityError::NotAnIdentity { path: path.to_owned() });
    };
    let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let version = lines.next().and_then(|line| line.strip_prefix(HEADER_PREFIX)).unwrap_or_default();
    if version != VERSION {
        // What is quoted in an error must not become a wall of text.
        let version = version.chars().take(16).collect();
        return Err(IdentityError::UnknownVersion { path: path.to_owned(), version });
    }
    let seed = lines.next().and_then(|line| line.strip_prefix("key ")).and_then(decode);
    let seed = seed.ok_or_else(|| damaged("the key line is missing or mistyped"))?;
    let mut access = Vec::new();
    let mut next = lines.next();
    while let Some(text) = next.and_then(|line| line.strip_prefix("access ")) {
        let secret = decode(text).ok_or_else(|| damaged("an access line is mistyped"))?;
        if access.len() == ACCESS_SECRETS_MAX {
            return Err(damaged("there are more access lines than a listener tries"));
        }
        access.push(AccessSecret::new(*secret));
        next = lines.next();
    }
    if access.is_empty() {
        return Err(damaged("the access line is missing or mistyped"));
    }
    let check = next.and_then(|line| line.strip_prefix("check ")).and_then(|text| STANDARD.decode(text).ok());
    let secrets = Secrets { seed, access };
    match check {
        None => Err(damaged("the check line is missing or mistyped")),
        Some(check) if check != check_of(&secrets) => Err(damaged("the check does not match the secrets")),
        Some(_) if lines.next().is_some() => Err(damaged("there is more after the check line")),
        Some(_) => Ok(secrets),
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    // Decoded into a longer buffer, since the decoder's estimate of what it needs is generous.
    let mut buffer = Zeroizing::new([0; 48]);
    let length = STANDARD.decode_slice(text, buffer.as_mut()).ok()?;
    (length == bytes.len()).then(|| bytes.copy_from_slice(&buffer[..length]))?;
    Some(bytes)
}

fn check_of(secrets: &Secrets) -> [u8; CHECK_BYTES] {
    let mut hasher = digest::Context::new(&digest::SHA256);
    hasher.update(HEADER_PREFIX.as_bytes());
    hasher.update(VERSION.as_bytes());
    hasher.update(secrets.seed.as_ref());
    secrets.access.iter().for_each(|access| hasher.update(access.expose()));
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finish().as_ref()[..CHECK_BYTES]);
    check
}
