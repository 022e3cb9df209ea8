//! Places in a channel, set aside before there is a value.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use netchan_proto::channel::Pushed;
use netchan_proto::wire::Mode;
use tokio::task::coop;

use super::failure::{Failure, end_reason};
use super::op::{encode_alone, leave};
use super::{Backend, Sender};
use crate::error::{CloseReason, ReserveError, SendError};
use crate::hub::Acquired;
use crate::reentry::{self, Busy};
use crate::session::SendChan;
use crate::wait::Ticket;

/// Which of the channel's lives a place belongs to: one that was lost with its session is void.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u64);

/// A place in a channel. Dropped unused, it is given back.
#[must_use = "a permit that is dropped gives its place back"]
pub struct Permit<'a, T> {
    sender: Option<&'a Sender<T>>,
    place: Place,
}

impl<T: Send + 'static> Permit<'_, T> {
    /// Sends a value into the place, without waiting.
    ///
    /// # Errors
    /// [`SendError`], with the value: the place does not help a value that is too large or cannot be encoded, and the
    /// session may have ended in between. The place is given back.
    pub fn send(mut self, value: T) -> Result<(), SendError<T>> {
        let Some(sender) = self.sender.take() else {
            return Err(Failure::Closed(CloseReason::new(0, "")).with(value));
        };
        send_reserved(sender, self.place, &value).map_err(|failure| failure.with(value))
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            release(sender, self.place);
        }
    }
}

impl<T> std::fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}

/// Several places in a channel. Those not used are given back when it is dropped.
#[must_use = "permits that are dropped give their places back"]
pub struct PermitIterator<'a, T> {
    sender: &'a Sender<T>,
    places: Vec<Place>,
}

impl<'a, T: Send + 'static> Iterator for PermitIterator<'a, T> {
    type Item = Permit<'a, T>;

    fn next(&mut self) -> Option<Permit<'a, T>> {
        let place = self.places.pop()?;
        Some(Permit { sender: Some(self.sender), place })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.places.len(), Some(self.places.len()))
    }
}

impl<T: Send + 'static> ExactSizeIterator for PermitIterator<'_, T> {}

impl<T> Drop for PermitIterator<'_, T> {
    fn drop(&mut self) {
        self.places.iter().for_each(|place| release(self.sender, *place));
    }
}

impl<T> std::fmt::Debug for PermitIterator<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PermitIterator").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

/// Sends into a place that was set aside; the place is used up or given back.
pub(super) fn send_reserved<T: Send + 'static>(
    sender: &Sender<T>,
    place: Place,
    value: &T,
) -> Result<(), Failure> {
    let shared = &sender.shared;
    match &shared.backend {
        Backend::Wire(handle) => {
            let chan = &handle.0;
            let Some(mut state) = reentry::lock(&chan.state) else { return Err(Failure::Reentrant) };
            if state.life != place.0 {
                return Err(Failure::Lost(state.lost()));
            }
            if let Some(end) = &state.end {
                let failure = Failure::ended(end);
                state.half.release();
                return Err(failure);
            }
            let pushed = {
                // The unit is given back if the encoding panics; then others may have it.
                let _wake = WakeOnPanic(chan);
                let mut state = state;
                let _busy = Busy::under(&chan.state);
                state.half.push_reserved(|item| shared.encode(value, item))
            };
            match pushed {
                Ok(Pushed { full, .. }) => {
                    chan.kick(full);
                    Ok(())
                }
                Err(error) => {
                    chan.wake_senders();
                    Err(error.into())
                }
            }
        }
        Backend::Hub(hub_sender) => {
            // Gives the place back if the encoding fails or panics.
            let unused = Permit { sender: Some(sender), place };
            let bytes = encode_alone(shared, value)?;
            std::mem::forget(unused);
            match hub_sender.hub.commit_reserved(bytes) {
                Some(_) => Ok(()),
                None => {
                    Err(Failure::Closed(hub_sender.hub.closed().unwrap_or_else(|| CloseReason::new(0, ""))))
                }
            }
        }
    }
}

struct WakeOnPanic<'a>(&'a SendChan);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.wake_senders();
        }
    }
}

/// Gives a place back.
pub(super) fn release<T>(sender: &Sender<T>, place: Place) {
    match &sender.shared.backend {
        Backend::Wire(handle) => {
            {
                let mut state = handle.0.state.lock();
                if state.life != place.0 {
                    return;
                }
                state.half.release();
            }
            handle.0.wake_senders();
            handle.0.kick(false);
        }
        Backend::Hub(sender) => sender.hub.release_reserved(),
    }
}

/// Whether a place means nothing any more: the channel has been opened anew since.
pub(super) fn is_void<T>(sender: &Sender<T>, place: Place) -> bool {
    match &sender.shared.backend {
        Backend::Wire(handle) => reentry::lock(&handle.0.state).is_some_and(|state| state.life != place.0),
        Backend::Hub(_) => false,
    }
}

/// How many places one caller wants, and what it has of them.
struct Wanted<'a> {
    places: usize,
    held: &'a [Place],
}

impl Wanted<'_> {
    const ONE: Wanted<'static> = Wanted { places: 1, held: &[] };

    const fn left(&self) -> usize {
        self.places - self.held.len()
    }
}

/// Sets one place aside; `cx` is `None` for an attempt that does not wait.
pub(super) fn poll_reserve<T>(
    sender: &Sender<T>,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
) -> Poll<Result<Place, ReserveError>> {
    poll_reserve_one_of(sender, cx, ticket, &Wanted::ONE)
}

/// Sets the next of the places `wanted` aside. Who wants several stays at the head of the queue until it has them all: two
/// that held a part each would wait for each other.
fn poll_reserve_one_of<T>(
    sender: &Sender<T>,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
    wanted: &Wanted<'_>,
) -> Poll<Result<Place, ReserveError>> {
    match &sender.shared.backend {
        Backend::Wire(handle) => poll_reserve_wire(&handle.0, cx, ticket, wanted),
        Backend::Hub(sender) if sender.hub.capacity() == 0 => Poll::Ready(Err(ReserveError::Rendezvous)),
        Backend::Hub(sender) => match ready!(sender.hub.poll_reserve(cx, ticket, wanted.left())) {
            Acquired::Closed(reason) => Poll::Ready(Err(ReserveError::Closed(reason))),
            Acquired::Committed(_) | Acquired::Reserved => Poll::Ready(Ok(Place(0))),
        },
    }
}

fn poll_reserve_wire(
    chan: &Arc<SendChan>,
    cx: Option<&Context<'_>>,
    ticket: &mut Option<Ticket>,
    wanted: &Wanted<'_>,
) -> Poll<Result<Place, ReserveError>> {
    let Some(mut state) = reentry::lock(&chan.state) else {
        return Poll::Ready(Err(ReserveError::Reentrant));
    };
    let failed = if let Some(end) = &state.end {
        Some(if end.is_plain() {
            ReserveError::Closed(end_reason(end))
        } else {
            ReserveError::Lost(end.clone())
        })
    } else if let Some(reason) = state.half.closed() {
        Some(ReserveError::Closed(reason.into()))
    } else if wanted.held.iter().any(|place| place.0 != state.life) {
        // What it has so far went with the session.
        Some(ReserveError::Lost(state.lost()))
    } else if state.half.mode() == Mode::Rendezvous {
        Some(ReserveError::Rendezvous)
    } else {
        let capacity = usize::try_from(state.half.capacity()).unwrap_or(usize::MAX);
        (wanted.places > capacity).then_some(ReserveError::TooMany { places: wanted.places, capacity })
    };
    if let Some(error) = failed {
        state.senders.leave(ticket);
        return Poll::Ready(Err(error));
    }
    let ahead = state.senders.ahead_of(*ticket) as u64;
    let several = wanted.left() > 1;
    let in_turn = !several || ahead == 0;
    if state.half.available() > ahead && in_turn && state.half.reserve() {
        match cx.filter(|_| several) {
            Some(cx) => state.senders.wait(ticket, cx.waker()),
            None => {
                if state.senders.leave(ticket) {
                    let more = state.half.available();
                    state.senders.wake_front(more);
                }
            }
        }
        return Poll::Ready(Ok(Place(state.life)));
    }
    if let Some(cx) = cx {
        state.senders.wait(ticket, cx.waker());
    }
    let waiting = state.waiting().max(1);
    state.half.want(waiting);
    let speak = state.half.has_output();
    drop(state);
    if speak {
        chan.kick(true);
    }
    Poll::Pending
}

/// Leaves the queue when the future that waits in it is dropped.
pub(super) fn leave_queue<T>(sender: &Sender<T>, ticket: &mut Option<Ticket>) {
    match &sender.shared.backend {
        Backend::Wire(handle) => leave(&handle.0, ticket),
        Backend::Hub(sender) => sender.hub.leave_senders(ticket),
    }
}

struct Waiting<'a, T> {
    sender: &'a Sender<T>,
    ticket: Option<Ticket>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        leave_queue(self.sender, &mut self.ticket);
    }
}

pub(super) async fn reserve<T: Send + 'static>(sender: &Sender<T>) -> Result<Permit<'_, T>, ReserveError> {
    let mut waiting = Waiting { sender, ticket: None };
    let place = poll_fn(|cx| {
        let budget = ready!(coop::poll_proceed(cx));
        let result = ready!(poll_reserve(sender, Some(cx), &mut waiting.ticket));
        budget.made_progress();
        Poll::Ready(result)
    })
    .await?;
    Ok(Permit { sender: Some(sender), place })
}

pub(super) fn try_reserve<T: Send + 'static>(sender: &Sender<T>) -> Result<Permit<'_, T>, ReserveError> {
    match poll_reserve(sender, None, &mut None) {
        Poll::Ready(result) => result.map(|place| Permit { sender: Some(sender), place }),
        Poll::Pending => Err(ReserveError::Full),
    }
}

pub(super) async fn reserve_many<T: Send + 'static>(
    sender: &Sender<T>,
    places: usize,
) -> Result<PermitIterator<'_, T>, ReserveError> {
    let max = sender.max_capacity();
    if max == 0 {
        return Err(ReserveError::Rendezvous);
    }
    if places > max {
        return Err(ReserveError::TooMany { places, capacity: max });
    }
    let mut permits = PermitIterator { sender, places: Vec::new() };
    let mut waiting = Waiting { sender, ticket: None };
    while permits.places.len() < places {
        let wanted = Wanted { places, held: &permits.places };
        let place = poll_fn(|cx| {
            let budget = ready!(coop::poll_proceed(cx));
            let result = ready!(poll_reserve_one_of(sender, Some(cx), &mut waiting.ticket, &wanted));
            budget.made_progress();
            Poll::Ready(result)
        })
        .await?;
        permits.places.push(place);
    }
    Ok(permits)
}
