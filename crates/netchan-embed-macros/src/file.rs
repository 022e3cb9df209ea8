//! The file: found, private, read once.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::call::Call;
use crate::refusal::Refusal;
use crate::{Kind, suspicion};

/// As for the identity files that programs load; a larger file is something else.
const FILE_BYTES_MAX: usize = 16 * 1_024;

pub(crate) struct Contents {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    mode: u32,
}

/// Relative to the crate that is compiled, as a build script and `include_bytes!` in its root would be.
pub(crate) fn resolve(call: &Call) -> Result<PathBuf, Refusal> {
    let path = Path::new(&call.path);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(directory) => Ok(Path::new(&directory).join(path)),
        None => Err(call.refuse_hidden(
            "CARGO_MANIFEST_DIR is not set, so a relative path leads nowhere: build with cargo or give an absolute path",
        )),
    }
}

pub(crate) fn read(path: &Path, call: &Call, kind: &Kind) -> Result<Contents, Refusal> {
    // Before opening, which would wait for ever at a pipe.
    let metadata = fs::metadata(path).map_err(|error| cannot_find(path, call, kind, &error))?;
    let shown = path.display();
    if !metadata.is_file() {
        return Err(call.refuse(format!("{shown} is not a file; give the path of one")));
    }
    let failed = |error: io::Error| call.refuse(format!("cannot read {shown}: {error}"));
    let mut file = File::open(path).map_err(failed)?;
    let mode = mode_of(&file).map_err(failed)?;
    let bytes = read_all(&mut file).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        let what =
            format!("{shown} is larger than {FILE_BYTES_MAX} bytes, so it is no key or ticket of netchan");
        return Err(call.refuse(what));
    }
    Ok(Contents { bytes, mode })
}

fn cannot_find(path: &Path, call: &Call, kind: &Kind, error: &io::Error) -> Refusal {
    if suspicion::may_be_secret(&call.path) {
        return call.refuse_hidden(&format!(
            "{}: the argument is the path of a file, and there is no file of that name. It looks like a key or an access code, so \
             it is not repeated here. If it is one, take it out of the source and replace it, since source, logs and \
             target/ are stored; if it is a path, check it",
            kind.macro_name
        ));
    }
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => call.refuse(format!(
            "there is no file {shown}; make one: {} {}` (relative paths begin at the directory of Cargo.toml)",
            kind.how_to_make, call.path
        )),
        _ => call.refuse(format!("cannot read {shown}: {error}")),
    }
}

/// One byte more than allowed, into a buffer that never grows: growing would leave copies behind.
fn read_all(file: &mut File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; FILE_BYTES_MAX + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

impl Contents {
    pub(crate) fn check_private(&self) -> Result<(), String> {
        if self.mode & 0o077 == 0 {
            return Ok(());
        }
        Err(format!(
            "others can read or change it (mode {:04o}); run `chmod 600` on it, or, if it is a sample that everyone may know, add \
             the option `readable_by_others` after the path",
            self.mode
        ))
    }
}

#[cfg(unix)]
fn mode_of(file: &File) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;

    Ok(file.metadata()?.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode_of(_: &File) -> io::Result<u32> {
    Ok(0)
}
