//! Files that several programs change, and that stay their owner's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another program may hold a file's lock: it does so for some milliseconds.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

const LOCK_RETRY_AFTER: Duration = Duration::from_millis(10);

/// Why a file could not be locked; its lock file is named.
pub(crate) enum NotLocked {
    Io(PathBuf, io::Error),
    Busy(PathBuf),
}

/// Held until the file is closed, by a program that is killed as well. A file of its own, and never removed: the other one is
/// replaced, so that a lock on it would be a lock on something that is gone.
pub(crate) fn lock(path: &Path) -> Result<File, NotLocked> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let opened = for_owner(OpenOptions::new().write(true).create(true).truncate(false)).open(&lock);
    let file = match opened {
        Ok(file) => file,
        Err(error) => return Err(NotLocked::Io(lock, error)),
    };
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(NotLocked::Io(lock, error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(NotLocked::Busy(lock)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_AFTER),
        }
    }
}

/// For a file that is made: nobody else may use it.
pub(crate) fn for_owner(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// What takes a file's place is of the same owner, with the same mode: whoever changes it, a superuser included, must not lock out
/// the program that reads it.
pub(crate) fn take_after(draft: &Path, former: &fs::Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let made = fs::metadata(draft)?;
        if (made.uid(), made.gid()) != (former.uid(), former.gid()) {
            std::os::unix::fs::chown(draft, Some(former.uid()), Some(former.gid()))?;
        }
    }
    fs::set_permissions(draft, former.permissions())
}
