//! How a client reaches its server again.

use std::sync::Arc;
use std::time::Duration;

use netchan_proto::crypto::ResumeFrom;
use tokio::time::Instant;

use super::link::Arrival;
use super::{NewLink, SessionCore};
use crate::error::SessionEnd;
use crate::system::random;
use crate::transport::BoxFuture;

/// The longest first pause. It doubles with each attempt, and the pause taken is any part of it: many clients that lost one
/// server must not come back as one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Why there is no link.
pub(crate) enum NoLink {
    /// It may work later.
    Later(String),
    /// The server does not know the session.
    Unknown(String),
    /// It never will.
    Never(SessionEnd),
}

/// Reaches the server of a session that was dialed.
pub(crate) trait Relink: Send + Sync + 'static {
    /// Connects and shakes hands once, for a session to go on with or for a new one.
    fn connect(&self, resume: Option<ResumeFrom>) -> BoxFuture<'_, Result<NewLink, NoLink>>;
}

/// A try for another link.
pub(super) struct Attempt {
    /// The driver listens to the last that it began.
    pub(super) number: u64,
    /// The session to go on with; none for a new one.
    pub(super) resume: Option<ResumeFrom>,
    /// Without a pause before.
    pub(super) at_once: bool,
    /// Failures in a row so far: the pauses go on growing.
    pub(super) failures: u32,
}

/// Tries until there is a link, or certainly none; tells the driver.
pub(super) async fn run(core: Arc<SessionCore>, relink: Arc<dyn Relink>, attempt: Attempt) {
    let Attempt { number, resume, at_once, failures } = attempt;
    let mut backoff = Backoff { attempts: failures };
    if !at_once {
        tokio::time::sleep(backoff.next()).await;
    }
    loop {
        let begun = Instant::now();
        match relink.connect(resume.clone()).await {
            Ok(link) => return core.post(number, Arrival::Link(Box::new(link))),
            Err(NoLink::Unknown(reason)) => return core.post(number, Arrival::Unknown(reason)),
            Err(NoLink::Never(end)) => return core.post(number, Arrival::Final(end)),
            Err(NoLink::Later(reason)) => {
                tracing::debug!(peer = %core.peer(), %reason, "not connected again yet");
            }
        }
        // An attempt that took its time has been a pause itself.
        let pause = backoff.next();
        tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
    }
}

#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let longest = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(16)).min(BACKOFF_MAX);
        self.attempts += 1;
        longest.mul_f64(u32::from_be_bytes(random()) as f64 / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_ten_seconds_and_use_their_whole_range() {
        let mut low = [Duration::MAX; 12];
        let mut high = [Duration::ZERO; 12];
        for _ in 0..400 {
            let mut backoff = Backoff::default();
            for (low, high) in low.iter_mut().zip(&mut high) {
                let pause = backoff.next();
                (*low, *high) = ((*low).min(pause), (*high).max(pause));
            }
        }
        for (attempt, (low, high)) in low.into_iter().zip(high).enumerate() {
            let longest = BACKOFF_MAX.min(BACKOFF_MIN * (1 << attempt));
            assert!(high <= longest && high > longest.mul_f64(0.9), "{attempt}: {high:?}");
            assert!(low < longest.mul_f64(0.1), "{attempt}: {low:?}");
        }
    }
}
