//! Opening channels by name, with their types checked.

use std::sync::Arc;

use netchan_proto::limits::{CAPACITY_ITEMS_MAX, TEXT_BYTES_MAX};
use netchan_proto::wire::{Open, Purpose, Refuse, RefuseCode};

use crate::error::{OpenError, SessionEnd};
use crate::names::check_name;
use crate::options::ChannelOptions;
use crate::receiver::Receiver;
use crate::sender::{Sender, watch};
use crate::session::{Direction, OpenFailure, OpenSpec, Opened, Owner, SessionCore};

/// Compares what the peer opened with what is here. On a mismatch: the code, and what is here, for the refusal.
pub(crate) fn check_types(
    open: &Open,
    label: &str,
    codec: &str,
    fingerprint: Option<[u8; 16]>,
) -> Option<(RefuseCode, String)> {
    if open.label != label {
        return Some((RefuseCode::TypeMismatch, label.to_owned()));
    }
    if open.codec != codec {
        return Some((RefuseCode::CodecMismatch, codec.to_owned()));
    }
    match (open.fingerprint, fingerprint) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            Some((RefuseCode::TypeMismatch, format!("{label} with another structure")))
        }
        _ => None,
    }
}

/// The error at the end that found the mismatch.
pub(crate) fn mismatch(code: RefuseCode, name: &str, ours: (&str, &str), open: &Open) -> OpenError {
    let name = name.to_owned();
    if code == RefuseCode::CodecMismatch {
        return OpenError::CodecMismatch { name, ours: ours.1.to_owned(), theirs: open.codec.clone() };
    }
    let theirs = if open.label == ours.0 {
        format!("{} with another structure", open.label)
    } else {
        open.label.clone()
    };
    OpenError::TypeMismatch { name, ours: ours.0.to_owned(), theirs }
}

fn refused(name: String, refuse: Refuse, label: &str, codec: &str) -> OpenError {
    let reason = refuse.reason;
    match refuse.code {
        RefuseCode::NotAvailable => OpenError::NotAvailable { name },
        RefuseCode::Denied => OpenError::Denied { name },
        RefuseCode::TypeMismatch => OpenError::TypeMismatch { name, ours: label.to_owned(), theirs: reason },
        RefuseCode::CodecMismatch => {
            OpenError::CodecMismatch { name, ours: codec.to_owned(), theirs: reason }
        }
        RefuseCode::WrongDirection => OpenError::WrongDirection { name, reason },
        RefuseCode::LimitReached => OpenError::LimitReached { name, reason },
        _ => OpenError::Declined { name, reason },
    }
}

async fn open<T: 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    direction: Direction,
    options: &ChannelOptions<T>,
) -> Result<Opened, OpenError> {
    let purpose = match (direction, options.when_slow) {
        (Direction::Receive, Some(when_slow)) => Purpose::Subscription { when_slow: when_slow as u8 },
        _ => Purpose::Values,
    };
    open_for(core, name, direction, options, purpose, None).await
}

/// Opens a channel that is not for plain values, perhaps with something at this end in place of the program.
pub(crate) async fn open_for<T: 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    direction: Direction,
    options: &ChannelOptions<T>,
    purpose: Purpose,
    owner: Option<Arc<dyn Owner>>,
) -> Result<Opened, OpenError> {
    let owned = || name.to_owned();
    if let Some(reason) = check_name(name) {
        return Err(OpenError::BadName { name: owned(), reason });
    }
    if options.label.len() > TEXT_BYTES_MAX || options.codec.name().len() > TEXT_BYTES_MAX {
        return Err(OpenError::BadName {
            name: owned(),
            reason: "its type label or codec is longer than 1,024 bytes",
        });
    }
    if options.capacity > CAPACITY_ITEMS_MAX {
        return Err(OpenError::BadName { name: owned(), reason: "its capacity is over 2^32 items" });
    }
    if core.is_closing() {
        let end = core.end_reason().cloned().unwrap_or(SessionEnd::ClosedHere);
        return Err(OpenError::Lost { name: owned(), end });
    }
    let spec = OpenSpec {
        name: Arc::from(name),
        label: options.label.clone(),
        codec: options.codec.name().to_owned(),
        fingerprint: options.fingerprint,
        direction,
        capacity: options.capacity,
        prefetch: options.prefetch,
        on_loss: options.on_loss,
        purpose,
        owner,
    };
    core.open(spec).await.map_err(|failure| match failure {
        OpenFailure::Here(error) => OpenError::TooMany { name: owned(), reason: error.to_string() },
        OpenFailure::Refused(refuse) => refused(owned(), refuse, &options.label, options.codec.name()),
        OpenFailure::TimedOut => OpenError::NotAvailable { name: owned() },
        OpenFailure::Lost(end) => OpenError::Lost { name: owned(), end },
    })
}

/// Opens a channel toward the peer, to send into it.
pub(crate) async fn sender<T: Send + 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    options: ChannelOptions<T>,
) -> Result<Sender<T>, OpenError> {
    match open(core, name, Direction::Send, &options).await? {
        Opened::Send(handle) => {
            // So that a `try_send` finds the room that there is. A peer that does not say is none of ours, and no reason to fail.
            let greeted = watch::greeted(&handle.0);
            _ = tokio::time::timeout(core.limits.open_timeout, greeted).await;
            Ok(Sender::wire(handle, options.codec))
        }
        Opened::Recv(_) => Err(OpenError::NotAvailable { name: name.to_owned() }),
    }
}

/// Opens a channel toward the peer, to receive from it.
pub(crate) async fn receiver<T: Send + 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    options: ChannelOptions<T>,
) -> Result<Receiver<T>, OpenError> {
    match open(core, name, Direction::Receive, &options).await? {
        Opened::Recv(handle) => Ok(Receiver::wire(handle, options.codec)),
        Opened::Send(_) => Err(OpenError::NotAvailable { name: name.to_owned() }),
    }
}
