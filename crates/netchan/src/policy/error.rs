//! What is wrong with a policy file, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::file::FILE_BYTES_MAX;

/// Why a policy cannot be used. Its text has a line for each mistake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}; check the path and who may read it", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path holds something that is not a file.
    #[error("{} is not a file; give the path of a policy file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Everybody may write the file.
    #[error("everybody may write the policy {} (mode {mode:04o}), and so let themselves do anything; run: chmod o-w {}",
        path.display(), path.display())]
    TooOpen {
        /// The path of the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is too long.
    #[error("{name} is longer than {FILE_BYTES_MAX} bytes; name groups instead of peers in its rules")]
    TooLong {
        /// The name of the file.
        name: String,
    },
    /// The text is no policy.
    #[error("{}", Lines(problems, *omitted))]
    Invalid {
        /// What is wrong, in the order of the file; at least one.
        problems: Vec<PolicyProblem>,
        /// How many more there are.
        omitted: usize,
    },
}

impl PolicyError {
    /// The mistakes in the text; none where it could not be read.
    #[must_use]
    pub fn problems(&self) -> &[PolicyProblem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

/// One mistake. Printed as editors and terminals understand it: `policy.toml:12:9: …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PolicyProblem {
    /// The name of the file.
    pub file: String,
    /// The line, from 1 on.
    pub line: usize,
    /// The column, in characters from 1 on.
    pub column: usize,
    /// What is wrong there, and what to do.
    pub message: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

struct Lines<'a>(&'a [PolicyProblem], usize);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        match self.1 {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Why a decision cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// No peer has this name.
    #[error(
        "no peer {name:?} in {policy}{}; for a key that the policy does not name, give its fingerprint, SHA256:…",
        suggestion.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
    )]
    UnknownPeer {
        /// The name.
        name: String,
        /// The name of the file.
        policy: String,
        /// A peer with a name much like it.
        suggestion: Option<String>,
    },
    /// A text that starts like a fingerprint is none.
    #[error(
        "{text:?} is not a fingerprint: that is SHA256: and 43 characters of base64, as netchan id prints it"
    )]
    NotAFingerprint {
        /// The text.
        text: String,
    },
    /// No channel can have this name.
    #[error("no channel can be called {name:?}: {reason}; give a channel's name")]
    NotAName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
