//! Acknowledgements under way, as futures.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::line::Line;
use super::slots::About;
use crate::error::{AckError, AckWithError};

enum Stage {
    /// Under way, by this token.
    Out(u64),
    Failed(AckError),
    Done,
}

/// An ask, and its outcome once there is one.
pub(super) struct Asked {
    line: Arc<Line>,
    about: About,
    stage: Stage,
}

impl Asked {
    pub(super) fn new(line: &Arc<Line>, about: About, token: Result<u64, AckError>) -> Self {
        let stage = token.map_or_else(Stage::Failed, Stage::Out);
        Self { line: Arc::clone(line), about, stage }
    }

    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Out(_))
    }
}

impl Future for Asked {
    type Output = Result<(), AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(coop::poll_proceed(cx));
        let outcome = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Out(token) => match self.line.desk.poll(token, cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => {
                    self.stage = Stage::Out(token);
                    return Poll::Pending;
                }
            },
            Stage::Failed(error) => Err(error),
            Stage::Done => panic!("polled after it has completed"),
        };
        budget.made_progress();
        Poll::Ready(outcome)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let desk = &self.line.desk;
        let unseen = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Out(token) => desk.unwatch(token).and_then(Result::err),
            Stage::Failed(error) => Some(error),
            Stage::Done => None,
        };
        if let Some(reason) = unseen.filter(|_| self.about.is_kept()) {
            desk.failures().note(self.about.id, reason);
        }
    }
}

/// An acknowledgement, or a delivery that is being given back. It is under way already, whether or not this is awaited;
/// awaited, it says what the server answered.
///
/// # Errors
/// [`AckError`].
///
/// # Cancel safety
/// Dropped at any time, awaited or not, the acknowledgement goes on; if it fails after that,
/// [`Deliveries::flush`](crate::Deliveries::flush) says so.
///
/// # Panics
/// When polled after it has completed.
#[must_use = "the acknowledgement goes on without being awaited, but only this says whether it was accepted; \
              `Deliveries::flush` reports failures of those that are dropped"]
pub struct Ack(pub(super) Asked);

impl Future for Ack {
    type Output = Result<(), AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("delivery", &self.0.about.id).finish_non_exhaustive()
    }
}

/// An acknowledgement with a result. As [`Ack`], and a result that was not committed comes back.
///
/// # Errors
/// [`AckWithError`], with the result.
///
/// # Cancel safety
/// As [`Ack`]: dropped at any time, the result is committed all the same, or fails, and then is lost with this future.
///
/// # Panics
/// When polled after it has completed.
#[must_use = "the acknowledgement goes on without being awaited, but only this says whether it was accepted; \
              `Deliveries::flush` reports failures of those that are dropped"]
pub struct AckWith<R> {
    pub(super) asked: Asked,
    pub(super) value: Option<R>,
}

impl<R> Unpin for AckWith<R> {}

impl<R> Future for AckWith<R> {
    type Output = Result<(), AckWithError<R>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.asked).poll(cx));
        Poll::Ready(match (outcome, self.value.take()) {
            (Err(reason), Some(value)) => Err(AckWithError { value, reason }),
            _ => Ok(()),
        })
    }
}

impl<R> fmt::Debug for AckWith<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckWith").field("delivery", &self.asked.about.id).finish_non_exhaustive()
    }
}
