//! Acknowledgements under way, as futures.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::task::coop;

use super::failures::Failures;
use super::line::Line;
use super::slots::About;
use crate::error::{AckError, AckWithError, SessionEnd};

enum Stage {
    /// Under way to the server, by this token.
    Out(Arc<Line>, u64),
    /// In this process, until there is a place for its result.
    Here(oneshot::Receiver<Result<(), AckError>>),
    Known(Result<(), AckError>),
    Done,
}

/// An ask, and its outcome once there is one.
pub(super) struct Asked {
    failures: Arc<Failures>,
    about: About,
    stage: Stage,
}

impl Asked {
    pub(super) fn new(line: &Arc<Line>, about: About, token: Result<u64, AckError>) -> Self {
        let out = |token| Stage::Out(Arc::clone(line), token);
        let stage = token.map_or_else(|error| Stage::Known(Err(error)), out);
        Self { failures: Arc::clone(line.desk.failures()), about, stage }
    }

    /// One of which the outcome is known.
    pub(super) fn known(failures: &Arc<Failures>, about: About, outcome: Result<(), AckError>) -> Self {
        Self { failures: Arc::clone(failures), about, stage: Stage::Known(outcome) }
    }

    /// One of which the outcome comes from a task of this process.
    pub(super) fn here(
        failures: &Arc<Failures>,
        about: About,
        outcome: oneshot::Receiver<Result<(), AckError>>,
    ) -> Self {
        Self { failures: Arc::clone(failures), about, stage: Stage::Here(outcome) }
    }

    /// Whether it was, or is being, done: the delivery is not this program's any more.
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Out(..) | Stage::Here(_) | Stage::Known(Ok(())))
    }
}

impl Future for Asked {
    type Output = Result<(), AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(coop::poll_proceed(cx));
        let outcome = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Out(line, token) => match line.desk.poll(token, cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => {
                    self.stage = Stage::Out(line, token);
                    return Poll::Pending;
                }
            },
            Stage::Here(mut outcome) => match Pin::new(&mut outcome).poll(cx) {
                // A task that is gone went with the server's runtime.
                Poll::Ready(outcome) => outcome.unwrap_or(Err(AckError::InDoubt(SessionEnd::ClosedHere))),
                Poll::Pending => {
                    self.stage = Stage::Here(outcome);
                    return Poll::Pending;
                }
            },
            Stage::Known(outcome) => outcome,
            Stage::Done => panic!("polled after it has completed"),
        };
        budget.made_progress();
        Poll::Ready(outcome)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let unseen = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Out(line, token) => line.desk.unwatch(token).and_then(Result::err),
            Stage::Here(mut outcome) => {
                outcome.close();
                outcome.try_recv().ok().and_then(Result::err)
            }
            Stage::Known(outcome) => outcome.err(),
            Stage::Done => None,
        };
        if let Some(reason) = unseen.filter(|_| self.about.is_kept()) {
            self.failures.note(self.about.id, reason);
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
