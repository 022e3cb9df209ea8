//! `Sink`: `poll_ready` sets a place aside, `start_send` uses it, `poll_flush` hands everything to the link.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;

use super::permit::{Place, is_void, leave_queue, poll_reserve, release, send_reserved};
use super::{Backend, Sender};
use crate::error::{CloseReason, ReserveError, SinkError};
use crate::transport::BoxFuture;
use crate::wait::Ticket;

/// What a handle remembers between calls.
pub(super) struct SinkState<T> {
    ticket: Option<Ticket>,
    reserved: Option<Place>,
    /// With capacity 0 there is no place to set aside: the value is offered by `poll_flush`.
    offer: Option<BoxFuture<'static, Result<(), SinkError>>>,
    value: std::marker::PhantomData<fn(T)>,
}

impl<T> Default for SinkState<T> {
    fn default() -> Self {
        Self { ticket: None, reserved: None, offer: None, value: std::marker::PhantomData }
    }
}

/// With capacity 0, `start_send` begins the offer and `poll_flush` waits for the receiver.
impl<T: Send + 'static> Sink<T> for Sender<T> {
    type Error = SinkError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let mut state = self.sink.lock();
        if let Some(offer) = &mut state.offer {
            let result = ready!(offer.as_mut().poll(cx));
            state.offer = None;
            result?;
        }
        match state.reserved {
            Some(place) if is_void(&self, place) => state.reserved = None,
            Some(_) => return Poll::Ready(Ok(())),
            None => {}
        }
        match ready!(poll_reserve(&self, Some(cx), &mut state.ticket)) {
            Ok(place) => {
                state.reserved = Some(place);
                Poll::Ready(Ok(()))
            }
            Err(ReserveError::Rendezvous) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(SinkError::Reserve(error))),
        }
    }

    fn start_send(self: Pin<&mut Self>, value: T) -> Result<(), SinkError> {
        let mut state = self.sink.lock();
        if let Some(place) = state.reserved.take() {
            return send_reserved(&self, place, &value)
                .map_err(|failure| SinkError::Send(failure.with(()).map(|()| ())));
        }
        if self.max_capacity() > 0 {
            return Err(SinkError::NotReady);
        }
        let sender = Self::clone(&self);
        state.offer = Some(Box::pin(async move {
            sender.send(value).await.map_err(|error| SinkError::Send(error.map(drop)))
        }));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        let mut state = self.sink.lock();
        if let Some(offer) = &mut state.offer {
            let result = ready!(offer.as_mut().poll(cx));
            state.offer = None;
            result?;
        }
        if let Backend::Wire(handle) = &self.shared.backend {
            handle.0.kick(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SinkError>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.close_with(CloseReason::new(0, ""));
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *self.sink.lock());
        let SinkState { mut ticket, reserved, .. } = state;
        leave_queue(self, &mut ticket);
        if let Some(place) = reserved {
            release(self, place);
        }
    }
}
