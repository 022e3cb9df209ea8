//! Where a client says what it does with its deliveries, and hears what became of that.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use netchan_proto::channel::CloseReason;
use netchan_proto::session::close_code;
use netchan_proto::wire::{Ask, Outcome, Verdict};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{AckError, SendError, SessionEnd, TrySendError};
use crate::sender::Sender;
use crate::session::{Owner, RecvChan, SessionCore};

/// What came back, at this end.
#[derive(Default)]
struct State {
    /// Who waits for an answer, by token.
    waiting: HashMap<u64, oneshot::Sender<Verdict>>,
    last_token: u64,
    /// Deliveries that this client has lost and that have not been taken, or are at work.
    fenced: BTreeSet<u64>,
    end: Option<SessionEnd>,
}

pub(super) struct Desk {
    core: Arc<SessionCore>,
    state: Mutex<State>,
}

/// Waits for the answer to one ask.
struct Waiting<'a> {
    desk: &'a Desk,
    token: u64,
    answer: oneshot::Receiver<Verdict>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.desk.state.lock().waiting.remove(&self.token);
    }
}

impl Desk {
    pub(super) fn new(core: &Arc<SessionCore>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core), state: Mutex::default() })
    }

    pub(super) const fn core(&self) -> &Arc<SessionCore> {
        &self.core
    }

    /// Whether a delivery that has just been taken is another's by now.
    pub(super) fn is_fenced(&self, number: u64) -> bool {
        self.state.lock().fenced.contains(&number)
    }

    /// A delivery is settled, or was never begun.
    pub(super) fn forget(&self, number: u64) {
        self.state.lock().fenced.remove(&number);
    }

    fn expect(&self) -> Result<Waiting<'_>, AckError> {
        let (tell, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if let Some(end) = &state.end {
            return Err(AckError::Lost(end.clone()));
        }
        state.last_token += 1;
        let token = state.last_token;
        state.waiting.insert(token, tell);
        Ok(Waiting { desk: self, token, answer })
    }

    /// Asks, and waits for the answer. `said` is called once the ask is certain to arrive.
    pub(super) async fn ask(
        &self,
        asks: &Sender<Bytes>,
        ask: Ask<'_>,
        said: impl FnOnce(),
    ) -> Result<(), AckError> {
        let mut waiting = self.expect()?;
        let mut bytes = Vec::new();
        ask.write(waiting.token, &mut bytes);
        asks.send(bytes.into()).await.map_err(|error| match error {
            SendError::Lost { end, .. } | SendError::InDoubt { end, .. } => AckError::Lost(end),
            SendError::Closed { .. } => AckError::Lost(self.end()),
            error => AckError::Result(error.map(drop)),
        })?;
        said();
        match (&mut waiting.answer).await {
            Ok(Verdict::Done) => Ok(()),
            Ok(Verdict::Fenced) => Err(AckError::Fenced),
            Ok(Verdict::ResultsClosed) => Err(AckError::ResultsClosed),
            Ok(Verdict::NoResults) => Err(AckError::NoResults),
            Err(_) => Err(AckError::InDoubt(self.end())),
        }
    }

    fn take_outcomes(&self, chan: &Arc<RecvChan>) {
        let mut told = Vec::new();
        let (urgency, malformed) = {
            let mut half = chan.state.lock();
            let mut state = self.state.lock();
            let mut malformed = false;
            while let Some(payload) = half.half.take() {
                match Outcome::read(payload.as_slice()) {
                    Ok(Outcome::Answer { token, verdict }) => {
                        told.extend(state.waiting.remove(&token).map(|tell| (tell, verdict)));
                    }
                    Ok(Outcome::Fenced { number }) => _ = state.fenced.insert(number),
                    Err(_) => malformed = true,
                }
            }
            (half.half.urgency(), malformed)
        };
        for (tell, verdict) in told {
            // Who does not wait any more does not care.
            _ = tell.send(verdict);
        }
        if malformed {
            let reason = "what became of a delivery cannot be understood".to_owned();
            chan.stop(CloseReason { code: close_code::VIOLATION, reason });
        }
        chan.report(urgency);
    }

    fn end(&self) -> SessionEnd {
        self.state.lock().end.clone().unwrap_or(SessionEnd::ClosedHere)
    }
}

/// Asks without waiting for anything. What finds no room now is sent later, if there is a runtime; else the server finds out
/// when the session ends.
pub(super) fn tell(asks: &Sender<Bytes>, ask: Ask<'_>) {
    let mut bytes = Vec::new();
    ask.write(0, &mut bytes);
    if let Err(TrySendError::Full(bytes)) = asks.try_send(bytes.into())
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let asks = asks.clone();
        runtime.spawn(async move { asks.send(bytes).await });
    }
}

impl Owner for Desk {
    fn readable(self: Arc<Self>, outcomes: &Arc<RecvChan>) {
        self.take_outcomes(outcomes);
    }

    fn backlog(&self) -> Option<u64> {
        None
    }

    fn ended(&self, end: &SessionEnd, _: u64) {
        let waiting = {
            let mut state = self.state.lock();
            state.end.get_or_insert_with(|| end.clone());
            std::mem::take(&mut state.waiting)
        };
        // Each finds its sender gone.
        drop(waiting);
    }
}
