//! The file of known hosts: read whole, checked line by line, replaced in one step.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::{FILE_BYTES_MAX, KEYS_PER_ADDRESS_MAX, KnownHostsError};
use crate::address::Address;
use crate::identity::Fingerprint;
use crate::private_file::{self, NotLocked, for_owner};
use crate::system::random;

const HEAD: &str = "# Servers' keys by address, for netchan: ADDRESS SHA256:…, one of them a line.\n";

/// The text of the file, and what its lines say.
#[derive(Debug, Default)]
pub(super) struct Contents {
    text: String,
    /// Of each address, as [`place`] makes it: the numbers of its lines, from 1, and the keys on them.
    keys: HashMap<Address, Vec<(usize, Fingerprint)>>,
}

impl Contents {
    /// What the file says; a missing one says nothing.
    pub(super) fn read(path: &Path) -> Result<Self, KnownHostsError> {
        let failed = |source| KnownHostsError::io(path, "read", source);
        // Before opening, which would wait for ever at a pipe.
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(KnownHostsError::NotAFile { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        }
        let file = File::open(path).map_err(failed)?;
        check_mode(path, &file)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(KnownHostsError::TooLong { path: path.to_owned() });
        }
        Self::parse(path, bytes)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, KnownHostsError> {
        let wrong = |line, reason| KnownHostsError::Line { path: path.to_owned(), line, reason };
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            wrong(line, "this is not UTF-8 text".to_owned())
        })?;
        let mut contents = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let Some((address, key)) = parse_line(line).map_err(|reason| wrong(number, reason))? else {
                continue;
            };
            if contents.of(&address).len() == KEYS_PER_ADDRESS_MAX {
                let reason = format!("{address} has more than {KEYS_PER_ADDRESS_MAX} keys");
                return Err(wrong(number, reason));
            }
            contents.keys.entry(address).or_default().push((number, key));
        }
        contents.text = text;
        Ok(contents)
    }

    /// The lines of an address, as [`place`] makes it: their numbers, and the keys on them.
    pub(super) fn of(&self, address: &Address) -> &[(usize, Fingerprint)] {
        self.keys.get(address).map_or(&[], Vec::as_slice)
    }

    /// The file's text with one more line; `None` when it says so already.
    pub(super) fn with(
        &self,
        path: &Path,
        address: &Address,
        key: Fingerprint,
    ) -> Result<Option<String>, KnownHostsError> {
        let written = address.to_string();
        if written.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(KnownHostsError::Blanks { address: written });
        }
        if self.of(address).iter().any(|(_, known)| *known == key) {
            return Ok(None);
        }
        if self.of(address).len() == KEYS_PER_ADDRESS_MAX {
            return Err(KnownHostsError::TooManyKeys { address: address.clone(), path: path.to_owned() });
        }
        let mut text = if self.text.is_empty() { HEAD.to_owned() } else { self.text.clone() };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{address} {key}\n"));
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(KnownHostsError::TooLong { path: path.to_owned() });
        }
        Ok(Some(text))
    }

    /// The file's text without the lines of an address, or without those of one key of it, and how many these are.
    pub(super) fn without(&self, address: &Address, key: Option<Fingerprint>) -> (String, usize) {
        let goes = |(_, there): &&(usize, Fingerprint)| key.is_none_or(|key| key == *there);
        let going: Vec<_> = self.of(address).iter().filter(goes).map(|(number, _)| *number).collect();
        let stays = (1..).zip(self.text.split_inclusive('\n')).filter(|(number, _)| !going.contains(number));
        (stays.map(|(_, line)| line).collect(), going.len())
    }
}

/// An address and a key; nothing on an empty line and a comment.
fn parse_line(line: &str) -> Result<Option<(Address, Fingerprint)>, String> {
    let mut words = line.split_whitespace();
    let Some(address) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    let expected = "expected an address and a key, such as server.example.org:9876 SHA256:…";
    let key = words.next().ok_or_else(|| expected.to_owned())?;
    if words.next().is_some_and(|word| !word.starts_with('#')) {
        return Err(format!("{expected}, and nothing behind them but a comment"));
    }
    let address: Address = address.parse().map_err(|error| format!("{error}"))?;
    let key = key.parse().map_err(|error| format!("{error}"))?;
    Ok(Some((place(&address), key)))
}

/// The address in the one spelling under which it is looked for: host names know no case, and IP addresses have many
/// spellings. Else a known host could be met as an unknown one.
pub(super) fn place(address: &Address) -> Address {
    let Some((host, port)) = address.host_port() else { return address.clone() };
    let host = address.ip().map_or_else(|| host.to_lowercase(), |ip| ip.to_string());
    Address::tcp(&host, port).unwrap_or_else(|_| address.clone())
}

/// Changes the file, one program at a time: `change` makes the new text of what is there, or none if that is to stay.
/// Returns what the file says then.
pub(super) fn update(
    path: &Path,
    change: impl FnOnce(&Contents) -> Result<Option<String>, KnownHostsError>,
) -> Result<Contents, KnownHostsError> {
    // Through a symbolic link, so that the link stays one.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = directory_of(path);
    if !directory.is_dir() {
        let (path, directory) = (path.to_owned(), directory.to_owned());
        return Err(KnownHostsError::NoDirectory { path, directory });
    }
    let _lock = lock(path)?;
    let contents = Contents::read(path)?;
    let Some(text) = change(&contents)? else { return Ok(contents) };
    // What others will refuse to read must not be written.
    let changed = Contents::parse(path, text.into_bytes())?;
    replace(path, &changed.text).map_err(|source| KnownHostsError::io(path, "write", source))?;
    Ok(changed)
}

fn lock(path: &Path) -> Result<File, KnownHostsError> {
    private_file::lock(path).map_err(|error| match error {
        NotLocked::Io(lock, source) => KnownHostsError::io(&lock, "lock", source),
        NotLocked::Busy(lock) => KnownHostsError::Busy { lock },
    })
}

/// Under a name nobody looks for, then in one step in the file's place.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = directory_of(path);
    let name = format!(".netchan-known-hosts-{:016x}.tmp", u64::from_ne_bytes(random()));
    let draft = Draft(directory.join(name));
    let mut file = for_owner(OpenOptions::new().write(true).create_new(true)).open(&draft.0)?;
    if let Ok(former) = fs::metadata(path) {
        private_file::take_after(&draft.0, &former)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft.0, path)?;
    // So that the name survives a power cut as well; where directories cannot be synced, the system does it in time.
    _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Removed when done; there is nothing to remove once it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, file: &File) -> Result<(), KnownHostsError> {
    use std::os::unix::fs::PermissionsExt as _;

    let found = file.metadata().map_err(|source| KnownHostsError::io(path, "read", source))?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(KnownHostsError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &File) -> Result<(), KnownHostsError> {
    Ok(())
}
