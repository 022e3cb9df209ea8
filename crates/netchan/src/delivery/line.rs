//! The two channels on which a client says what it does with its deliveries and is told what became of that.

use std::sync::Arc;

use bytes::Bytes;
use netchan_proto::channel::{ItemBuf, PushError};
use netchan_proto::wire::Ask;

use super::desk::{Desk, closed};
use super::slots::{About, Kind};
use crate::error::{AckError, ReserveError, SendError, SessionEnd};
use crate::reentry::{self, Busy};
use crate::sender::Sender;
use crate::session::RecvHandle;

/// What is told of a delivery: a result is encoded straight behind the ask where there is room for it.
pub(super) trait Value {
    /// Appends it.
    fn write(&self, item: &mut ItemBuf<'_>) -> Result<(), SendError<()>>;
    /// Encodes it by itself.
    fn alone(&self) -> Result<Bytes, SendError<()>>;
    /// The longest that it may be.
    fn bytes_max(&self) -> usize;
    /// What must stay open until the answer: the server looks for the channel of the results only then.
    fn hold(&self) -> Option<Arc<dyn Send + Sync>>;
}

/// No result.
pub(super) struct Nothing;

impl Value for Nothing {
    fn write(&self, _: &mut ItemBuf<'_>) -> Result<(), SendError<()>> {
        Ok(())
    }

    fn alone(&self) -> Result<Bytes, SendError<()>> {
        Ok(Bytes::new())
    }

    fn bytes_max(&self) -> usize {
        0
    }

    fn hold(&self) -> Option<Arc<dyn Send + Sync>> {
        None
    }
}

/// A result, and where it goes.
pub(super) struct ResultOf<'a, R>(pub(super) &'a Sender<R>, pub(super) &'a R);

impl<R: Send + 'static> Value for ResultOf<'_, R> {
    fn write(&self, item: &mut ItemBuf<'_>) -> Result<(), SendError<()>> {
        self.0.encode_behind(self.1, item)
    }

    fn alone(&self) -> Result<Bytes, SendError<()>> {
        self.0.encode_alone(self.1)
    }

    fn bytes_max(&self) -> usize {
        self.0.bytes_max()
    }

    fn hold(&self) -> Option<Arc<dyn Send + Sync>> {
        Some(self.0.hold())
    }
}

/// Dropped with the last handle or future of its subscription; the desk keeps it while anything is under way.
pub(super) struct Line {
    pub(super) asks: Sender<Bytes>,
    pub(super) desk: Arc<Desk>,
    _outcomes: RecvHandle,
}

/// Takes an ask back that could not be made, also when the encoding of its result panics.
struct Begun<'a> {
    desk: &'a Desk,
    token: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.token != 0 {
            self.desk.cancel(self.token);
        }
    }
}

impl Line {
    pub(super) fn new(asks: Sender<Bytes>, outcomes: RecvHandle, desk: Arc<Desk>) -> Arc<Self> {
        if let Some(chan) = asks.chan() {
            desk.open(chan, &outcomes.0);
        }
        Arc::new(Self { asks, desk, _outcomes: outcomes })
    }

    /// Asks, behind everything that was asked before: when this returns, the ask is in its channel, or in the desk's queue if
    /// there is no room. Returns the token under which it is answered.
    pub(super) fn ask(
        self: &Arc<Self>,
        ask: Ask<'static>,
        about: About,
        value: &impl Value,
    ) -> Result<u64, AckError> {
        let mut begun = Begun { desk: &self.desk, token: self.desk.begin(self, about, value.hold())? };
        self.say((begun.token, ask), about.number, value)?;
        Ok(std::mem::take(&mut begun.token))
    }

    /// Gives a delivery back without an answer. What finds no room ever is found out by the server when the session ends.
    pub(super) fn give_back(self: &Arc<Self>, number: u64, delay_millis: u64) {
        _ = self.say((0, Ask::Nack { number, delay_millis }), number, &Nothing);
    }

    fn say(
        self: &Arc<Self>,
        (token, ask): (u64, Ask<'static>),
        number: u64,
        value: &impl Value,
    ) -> Result<(), AckError> {
        let Some(chan) = self.asks.chan() else { return Err(AckError::Lost(SessionEnd::ClosedHere)) };
        let mut alone = None;
        loop {
            let Some(mut state) = reentry::lock(&chan.state) else {
                // A result's own encoding says this; it goes out behind that result.
                let value = value.alone().map_err(AckError::Result)?;
                return self.desk.queue(self, (token, ask), number, value, usize::MAX);
            };
            if let Some(end) = &state.end {
                return Err(AckError::Lost(end.clone()));
            }
            if state.half.closed().is_some() {
                return Err(AckError::Lost(closed(&state.half)));
            }
            if self.desk.has_queue() || state.half.available() == 0 {
                if let Some(value) = alone.take() {
                    let places = usize::try_from(state.half.capacity()).unwrap_or(usize::MAX);
                    return self.desk.queue(self, (token, ask), number, value, places);
                }
                // Not under the lock; there may be room by then.
                drop(state);
                alone = Some(value.alone().map_err(AckError::Result)?);
                continue;
            }
            let pushed = {
                let _busy = Busy::under(&chan.state);
                state.half.push(|item| {
                    // It fits: channels of asks take messages that are so much longer.
                    _ = item.extend(&ask.head(token));
                    match &alone {
                        Some(value) => _ = item.extend(value),
                        None => value.write(item)?,
                    }
                    Ok::<_, SendError<()>>(())
                })
            };
            drop(state);
            if self.desk.has_queue() {
                self.desk.send_queued();
            }
            return match pushed {
                Ok(pushed) => {
                    chan.kick(pushed.full);
                    Ok(())
                }
                Err(PushError::Encode(error)) => Err(AckError::Result(error)),
                Err(PushError::TooLarge { .. }) => {
                    Err(AckError::Result(SendError::TooLarge { value: (), bytes_max: value.bytes_max() }))
                }
                Err(PushError::Closed | PushError::Full) => Err(AckError::Lost(SessionEnd::ClosedHere)),
            };
        }
    }

    /// Keeps a delivery for longer. Waits for room: a delivery can be extended any number of times, so these are not queued.
    pub(super) async fn extend(self: &Arc<Self>, number: u64, millis: u64) -> Result<u64, AckError> {
        let place = self.asks.reserve().await.map_err(|error| match error {
            ReserveError::Lost(end) => AckError::Lost(end),
            ReserveError::Closed(reason) => AckError::Lost(SessionEnd::ClosedByPeer(reason)),
            _ => AckError::Lost(SessionEnd::ClosedHere),
        })?;
        let about = About { number, id: 0, kind: Kind::Extend };
        let mut begun = Begun { desk: &self.desk, token: self.desk.begin(self, about, None)? };
        let head = Ask::Extend { number, millis }.head(begun.token);
        place.send(Bytes::copy_from_slice(&head)).map_err(|error| match error {
            SendError::Lost { end, .. } | SendError::InDoubt { end, .. } => AckError::Lost(end),
            SendError::Closed { reason, .. } => AckError::Lost(SessionEnd::ClosedByPeer(reason)),
            error => AckError::Result(error.map(drop)),
        })?;
        Ok(std::mem::take(&mut begun.token))
    }
}
