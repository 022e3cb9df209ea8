//! A send into a queue of this process.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use netchan_proto::channel::{Payload, encode_with};

use super::{SCRATCH, SCRATCH_BYTES_MAX, SendOp, Stage, encode_alone};
use crate::error::CloseReason;
use crate::hub::{Acquired, Hub};
use crate::sender::failure::Failure;

impl<T: Send + 'static> SendOp<'_, T> {
    pub(super) fn poll_hub(&mut self, cx: &Context<'_>, hub: &Arc<Hub>) -> Poll<Result<u64, Failure>> {
        loop {
            match self.stage {
                Stage::Out(seq) => {
                    let taken = ready!(hub.poll_taken(cx, &mut self.watch, seq));
                    self.stage = Stage::Done;
                    let closed = || hub.closed().unwrap_or_else(|| CloseReason::new(0, ""));
                    return Poll::Ready(if taken { Ok(seq) } else { Err(Failure::Closed(closed())) });
                }
                Stage::Offered(key) => {
                    let taken = ready!(hub.poll_offer(cx, key));
                    self.stage = Stage::Done;
                    let closed = || hub.closed().unwrap_or_else(|| CloseReason::new(0, ""));
                    return Poll::Ready(if taken { Ok(0) } else { Err(Failure::Closed(closed())) });
                }
                _ if hub.capacity() == 0 => {
                    let bytes = match self.encoded() {
                        Ok(bytes) => bytes,
                        Err(failure) => return Poll::Ready(Err(failure)),
                    };
                    match hub.offer(bytes) {
                        Ok(key) => self.stage = Stage::Offered(key),
                        Err(reason) => return Poll::Ready(Err(Failure::Closed(reason))),
                    }
                }
                _ => return self.poll_acquire(Some(cx), hub),
            }
        }
    }

    pub(super) fn poll_acquire(
        &mut self,
        cx: Option<&Context<'_>>,
        hub: &Arc<Hub>,
    ) -> Poll<Result<u64, Failure>> {
        let acquired = match ready!(self.poll_commit_here(cx, hub)) {
            Ok(acquired) => acquired,
            Err(failure) => return Poll::Ready(Err(failure)),
        };
        match acquired {
            Acquired::Committed(seq) if self.acked => {
                self.stage = Stage::Out(seq);
                match cx {
                    Some(cx) => self.poll_hub(cx, hub),
                    None => Poll::Ready(Ok(seq)),
                }
            }
            Acquired::Committed(seq) => {
                self.stage = Stage::Done;
                Poll::Ready(Ok(seq))
            }
            Acquired::Closed(reason) => Poll::Ready(Err(Failure::Closed(reason))),
            Acquired::Reserved => Poll::Ready(Err(Failure::Reentrant)),
        }
    }

    /// Encodes the value where this thread encodes all of them, and copies it from there; one that waits is kept.
    pub(super) fn poll_commit_here(
        &mut self,
        cx: Option<&Context<'_>>,
        hub: &Arc<Hub>,
    ) -> Poll<Result<Acquired, Failure>> {
        if let Some(bytes) = &self.bytes {
            let value = Payload::Owned(bytes.clone());
            return hub.poll_acquire(cx, &mut self.ticket, Some(value)).map(Ok);
        }
        let Some(value) = &self.value else { return Poll::Ready(Err(Failure::Reentrant)) };
        let shared = &self.sender.shared;
        // Taken out, because a value may send others while it is encoded.
        let mut scratch = SCRATCH.take();
        let (ticket, kept) = (&mut self.ticket, &mut self.bytes);
        let encode = |item: &mut crate::codec::ItemBuf<'_>| shared.encode(value, item);
        let polled = encode_with(&mut scratch, shared.limits.bytes_max, encode, |payload| {
            let again = match &payload {
                Payload::Owned(bytes) => Payload::Owned(bytes.clone()),
                Payload::Slice(slice) => Payload::Slice(slice),
            };
            let polled = hub.poll_acquire(cx, ticket, Some(again));
            if polled.is_pending() {
                *kept = Some(payload.into_bytes());
            }
            polled
        });
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(scratch);
        }
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// The value, encoded once however often it is polled.
    pub(super) fn encoded(&mut self) -> Result<Bytes, Failure> {
        if let Some(bytes) = &self.bytes {
            return Ok(bytes.clone());
        }
        let Some(value) = &self.value else { return Err(Failure::Reentrant) };
        let bytes = encode_alone(&self.sender.shared, value)?;
        self.bytes = Some(bytes.clone());
        Ok(bytes)
    }
}
