//! A worker's loop.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, TryFutureExt};

use super::{Deliveries, Delivery};
use crate::error::{AckError, RecvError, WorkError};
use crate::sender::Sender;

/// How long a delivery rests whose handler failed the first time; twice as long each time after that. A failure that passes
/// by itself does not cost all of its attempts at once.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// The longest such rest.
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a worker's loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkReport {
    /// Deliveries that were acknowledged, with the server's word for it.
    pub done: u64,
    /// Deliveries that were given back: the handler failed or panicked, or the value could not be decoded.
    pub given_back: u64,
    /// Deliveries that went to another client before they were acknowledged, because this one could not be reached for too
    /// long: [`AckError::Fenced`].
    pub fenced: u64,
    /// Deliveries that were under way when their session was lost. They may be done; if not, another client gets them.
    pub lost: u64,
}

impl<T: Send + 'static> Deliveries<T> {
    /// Receives deliveries and calls `handler` for each, for up to `n` at once (at least one); acknowledges each whose handler
    /// returned `Ok`. Runs until the channel has ended, or `stop` is ready: then it takes no more, and waits for the handlers
    /// and acknowledgements that are under way. Without another reason to stop, `stop` is [`std::future::pending`].
    ///
    /// A delivery whose handler returns an error, or panics, is given back, to be tried again after 100 ms, and after twice as
    /// long each time, up to 10 s; the loop goes on, and the error is logged. Put a bound on that with
    /// [`max_attempts`](crate::ChannelOptions::max_attempts), where the channel is hosted. Acknowledgements are not waited for
    /// between deliveries.
    ///
    /// All handlers run in the task that awaits this, in turn. For work that keeps a processor busy, spawn a task in the
    /// handler and await that.
    ///
    /// # Errors
    /// [`WorkError::Recv`] as [`recv`](Self::recv), but for values that cannot be decoded, which are counted;
    /// [`WorkError::Ack`] when an acknowledgement is refused for a reason that will not pass.
    ///
    /// # Cancel safety
    /// Dropped before it completes, the deliveries at work are given back at once; acknowledgements that are under way go on,
    /// and [`flush`](Self::flush) waits for them.
    ///
    /// # Panics
    /// Not when the handler panics, unless panics abort the program.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let server = netchan::listen_and_serve("memory://work-example", Default::default()).await?;
    /// # let tasks = server.sender::<u32>("tasks", 8)?;
    /// # for n in 0..8 { tasks.send(n).await?; }
    /// # tasks.close();
    /// # let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let tasks = session.deliveries::<u32>("tasks").await?;
    /// let report = tasks
    ///     .work(4, std::future::pending(), async |task| {
    ///         println!("{}, attempt {}", **task, task.attempt());
    ///         Ok::<_, std::io::Error>(())
    ///     })
    ///     .await?;
    /// assert_eq!(report.done, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn work<E: fmt::Display>(
        &self,
        n: usize,
        stop: impl Future<Output = ()>,
        handler: impl AsyncFn(&Delivery<T>) -> Result<(), E>,
    ) -> Result<WorkReport, WorkError> {
        self.work_at(n, stop, handler, |delivery, ()| delivery.ack()).await
    }

    /// As [`work`](Self::work), and what the handler returns is committed into `results` together with the acknowledgement, as
    /// [`ack_with`](Delivery::ack_with) does it.
    ///
    /// # Errors
    /// As [`work`](Self::work). [`WorkError::Ack`] among others when `results` is closed, or a result cannot be encoded.
    ///
    /// # Cancel safety
    /// As [`work`](Self::work).
    ///
    /// # Panics
    /// As [`work`](Self::work).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let server = netchan::listen_and_serve("memory://work-with-example", Default::default()).await?;
    /// # let (tasks, results) = (server.sender::<u32>("tasks", 8)?, server.receiver::<u32>("results", 8)?);
    /// # for n in 0..8 { tasks.send(n).await?; }
    /// # let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// let (tasks, done) = (session.deliveries::<u32>("tasks").await?, session.sender::<u32>("results").await?);
    /// let (tell, told) = tokio::sync::oneshot::channel::<()>();
    /// let working = tokio::spawn(async move {
    ///     let stop = async { _ = told.await };
    ///     tasks.work_with(4, &done, stop, async |task| Ok::<_, std::io::Error>(**task * 2)).await
    /// });
    /// for _ in 0..8 {
    ///     results.recv().await?;
    /// }
    /// drop(tell);
    /// assert_eq!(working.await??.done, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn work_with<R: Send + 'static, E: fmt::Display>(
        &self,
        n: usize,
        results: &Sender<R>,
        stop: impl Future<Output = ()>,
        handler: impl AsyncFn(&Delivery<T>) -> Result<R, E>,
    ) -> Result<WorkReport, WorkError> {
        let finish =
            |delivery: Delivery<T>, value| delivery.ack_with(results, value).map_err(|error| error.reason);
        self.work_at(n, stop, handler, finish).await
    }

    async fn work_at<R, E: fmt::Display, A: Future<Output = Result<(), AckError>>>(
        &self,
        n: usize,
        stop: impl Future<Output = ()>,
        handler: impl AsyncFn(&Delivery<T>) -> Result<R, E>,
        finish: impl Fn(Delivery<T>, R) -> A,
    ) -> Result<WorkReport, WorkError> {
        let mut report = WorkReport::default();
        let (mut at_work, mut under_way) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut stop, mut receiving) = (pin!(stop), pin!(self.recv()));
        let mut takes = true;
        while takes || !at_work.is_empty() || !under_way.is_empty() {
            tokio::select! {
                biased;
                () = &mut stop, if takes => {
                    takes = false;
                    // Leaves the line of those that wait for deliveries.
                    receiving.set(self.recv());
                }
                Some(outcome) = under_way.next() => report.settle(outcome)?,
                Some((delivery, worked)) = at_work.next() => match worked {
                    Ok(Ok(value)) => under_way.push(finish(delivery, value)),
                    Ok(Err(error)) => report.give_back(self.name(), delivery, &error),
                    Err(_) => report.give_back(self.name(), delivery, &"the handler panicked"),
                },
                received = &mut receiving, if takes && at_work.len() < n.max(1) => {
                    receiving.set(self.recv());
                    match received {
                        Ok(Some(delivery)) => {
                            let handler = &handler;
                            at_work.push(async move {
                                let work = async { handler(&delivery).await };
                                let worked = AssertUnwindSafe(work).catch_unwind().await;
                                (delivery, worked)
                            });
                        }
                        Ok(None) => takes = false,
                        Err(RecvError::Decode { .. }) => report.given_back += 1,
                        Err(error) => return Err(WorkError::Recv(error)),
                    }
                }
            }
        }
        Ok(report)
    }
}

impl WorkReport {
    fn settle(&mut self, outcome: Result<(), AckError>) -> Result<(), WorkError> {
        match outcome {
            Ok(()) => self.done += 1,
            Err(AckError::Fenced) => self.fenced += 1,
            // Receiving says whether there is another session to go on in.
            Err(AckError::InDoubt(_) | AckError::Lost(_)) => self.lost += 1,
            Err(error) => return Err(WorkError::Ack(error)),
        }
        Ok(())
    }

    fn give_back<T: Send + 'static>(
        &mut self,
        channel: &str,
        delivery: Delivery<T>,
        error: &dyn fmt::Display,
    ) {
        self.given_back += 1;
        let (id, attempt) = (delivery.id(), delivery.attempt());
        tracing::warn!(channel, delivery = id, attempt, %error, "a delivery is given back");
        drop(delivery.nack_after(pause(attempt)));
    }
}

fn pause(attempt: u32) -> Duration {
    FAILED_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(FAILED_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses = [1, 2, 3, 8, 100, u32::MAX].map(|attempt| pause(attempt).as_millis());
        assert_eq!(pauses, [100, 200, 400, 10_000, 10_000, 10_000]);
    }
}
