//! Errors of assigning.

use std::fmt;

use super::{Fault, SendError};

/// Values of a broadcast were not assigned. They come back.
#[derive(Debug)]
#[non_exhaustive]
pub enum AssignError<T> {
    /// They could not be sent.
    Send(SendError<T>),
    /// More would be kept than may be.
    TooMany(T),
}

impl<T> AssignError<T> {
    /// What was to be assigned.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Send(error) => error.into_inner(),
            Self::TooMany(value) => value,
        }
    }

    /// Who is at fault; `None` when the broadcast was closed in the ordinary way.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Send(error) => error.fault(),
            Self::TooMany(_) => Some(Fault::Caller),
        }
    }
}

impl<T> fmt::Display for AssignError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => fmt::Display::fmt(error, f),
            Self::TooMany(_) => f.write_str(
                "not assigned: more would be kept for later subscribers than 65,536 values or 64 MiB; replace them with \
                 set_assignments",
            ),
        }
    }
}

impl<T: fmt::Debug + 'static> std::error::Error for AssignError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Send(error) => Some(error),
            Self::TooMany(_) => None,
        }
    }
}
