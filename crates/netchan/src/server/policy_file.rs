//! A policy's file, looked at again and again, and decisions that change with time.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::{ServerCore, audit};
use crate::policy::{PolicyError, PolicyFile};

/// How often the file is looked at. It must look the same twice before it is read, lest half of it be: what is no longer
/// allowed ends within a second all the same.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What tells one state of a file from another, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Looks {
    bytes: u64,
    modified: Option<SystemTime>,
    /// A file that took the place of another is another, whatever its time.
    file: Option<(u64, u64, i64, i64)>,
}

fn look(path: &Path) -> Option<Looks> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let file = {
        use std::os::unix::fs::MetadataExt as _;
        Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    };
    #[cfg(not(unix))]
    let file = None;
    Some(Looks { bytes: metadata.len(), modified: metadata.modified().ok(), file })
}

/// A policy that was read from a file, and when it is to be read again.
pub(super) struct Watched {
    pub(super) path: PathBuf,
    /// When it was last read; `None` before, and where there was no file.
    read: Option<Looks>,
    last: Option<Looks>,
    /// What it looked like when it was last said that it cannot be read.
    told: Option<Option<Looks>>,
}

impl Watched {
    /// Reads the file.
    ///
    /// # Errors
    /// As [`PolicyFile::load`].
    pub(super) fn read(path: PathBuf) -> Result<(Self, PolicyFile), PolicyError> {
        // Looked at first: what changes while it is read is read again.
        let looks = look(&path);
        let policy = PolicyFile::load(&path)?;
        Ok((Self { path, read: looks.clone(), last: looks, told: None }, policy))
    }

    /// Whether the file has changed, and changes no more (`POL-12`).
    fn is_due(&mut self) -> bool {
        let looks = look(&self.path);
        let settled = looks == self.last;
        self.last = looks;
        if !settled || self.last == self.read {
            return false;
        }
        self.read = self.last.clone();
        true
    }
}

impl ServerCore {
    /// Reads the policy's file again, and goes by it from here on.
    ///
    /// # Errors
    /// When it cannot be read; the old policy stays.
    pub(super) fn reload_policy(&self, path: &Path) -> Result<(), PolicyError> {
        self.use_policy_file(path, PolicyFile::load(path))
    }

    fn use_policy_file(&self, path: &Path, read: Result<PolicyFile, PolicyError>) -> Result<(), PolicyError> {
        match read {
            Ok(policy) => {
                audit::policy_replaced(&path.display());
                self.replace_policy(Arc::new(policy));
                Ok(())
            }
            Err(error) => {
                audit::policy_kept(&path.display(), &error);
                Err(error)
            }
        }
    }
}

/// Watches over the policy while the server is there.
pub(super) async fn run(core: Weak<ServerCore>, mut watched: Option<Watched>) {
    let Some(mut closing) = core.upgrade().map(|core| core.closing.subscribe()) else { return };
    let mut checked_at = SystemTime::now();
    while tokio::time::timeout(LOOK_EVERY, closing.wait_for(|closing| *closing)).await.is_err() {
        let Some(core) = core.upgrade() else { return };
        // A small file, read seldom: not worth another thread.
        if let Some(watched) = &mut watched
            && watched.is_due()
        {
            let looks = Some(watched.last.clone());
            let read = PolicyFile::load(&watched.path);
            if matches!(read, Err(PolicyError::Io { .. })) {
                // It may pass, as a want of file descriptors does. What is told once is not told again.
                watched.read = None;
            }
            if read.is_ok() || watched.told != looks {
                watched.told = if read.is_ok() { None } else { looks };
                // What was wrong is in the audit.
                _ = core.use_policy_file(&watched.path, read);
            }
        }
        let now = SystemTime::now();
        let is_due = |at: SystemTime| at <= now;
        // A clock that steps back makes no decision change.
        if core.authority.next_change(checked_at).is_some_and(is_due) {
            // A policy of the program's own that panics must not end the watch.
            let enforced = std::panic::catch_unwind(AssertUnwindSafe(|| core.enforce_changes_of_time()));
            if enforced.is_err() {
                tracing::error!("the policy panicked; what it allows no more may still be there");
            }
        }
        checked_at = now;
    }
}
