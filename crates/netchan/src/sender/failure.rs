//! Why a send failed, before its value is put to it.

use netchan_proto::channel::PushError;

use crate::codec::EncodeError;
use crate::error::{CloseReason, SendError, SessionEnd};

/// A failure without its value.
pub(super) enum Failure {
    Closed(CloseReason),
    Lost(SessionEnd),
    InDoubt(SessionEnd),
    TooLarge(usize),
    Encode(EncodeError),
    Reentrant,
}

impl Failure {
    pub(super) fn ended(end: &SessionEnd) -> Self {
        if end.is_plain() { Self::Closed(end_reason(end)) } else { Self::Lost(end.clone()) }
    }

    pub(super) fn with<T>(self, value: T) -> SendError<T> {
        match self {
            Self::Closed(reason) => SendError::Closed { value, reason },
            Self::Lost(end) => SendError::Lost { value, end },
            Self::InDoubt(end) => SendError::InDoubt { value, end },
            Self::TooLarge(bytes_max) => SendError::TooLarge { value, bytes_max },
            Self::Encode(error) => SendError::Encode { value, error },
            Self::Reentrant => SendError::Reentrant { value },
        }
    }
}

impl From<PushError<EncodeError>> for Failure {
    fn from(error: PushError<EncodeError>) -> Self {
        match error {
            PushError::TooLarge { bytes_max } => Self::TooLarge(bytes_max),
            PushError::Encode(error) => Self::Encode(error),
            PushError::Closed | PushError::Full => Self::Closed(CloseReason::new(0, "")),
        }
    }
}

pub(super) fn end_reason(end: &SessionEnd) -> CloseReason {
    match end {
        SessionEnd::ClosedByPeer(reason) => reason.clone(),
        end => CloseReason::new(0, end.to_string()),
    }
}
