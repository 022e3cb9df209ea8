//! The channels of one subscription, and others in their place when its session was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netchan_proto::wire::Purpose;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::desk::Desk;
use super::failures::Failures;
use super::handed::{HandedCodec, Opened as OpenedValue};
use super::line::Line;
use crate::error::{OpenError, SessionEnd};
use crate::opening;
use crate::options::{ChannelOptions, LossPolicy};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{Direction, Opened, Owner, REFUSALS_MAX, SessionCore, reopen_pause};

/// Outcomes that may be on their way. They are taken as they come.
const OUTCOMES_CAPACITY: usize = 1_024;

/// One life of a subscription: it ends with its session.
pub(super) struct Shared<T> {
    pub(super) receiver: Receiver<OpenedValue<T>>,
    pub(super) line: Arc<Line>,
}

pub(super) struct Subscription<T> {
    core: Arc<SessionCore>,
    name: Arc<str>,
    options: ChannelOptions<T>,
    current: Mutex<Arc<Shared<T>>>,
    /// Whoever opens it anew does so for all. Why that could not be, once it could not.
    renewing: tokio::sync::Mutex<Option<SessionEnd>>,
    closed: watch::Sender<bool>,
    /// Deliveries that were handed out, in all lives.
    received: AtomicU64,
    pub(super) failures: Arc<Failures>,
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if self.options.on_loss != LossPolicy::Fail {
            self.core.goes_on_with(false);
        }
    }
}

impl<T: Send + 'static> Subscription<T> {
    pub(super) async fn open(
        core: &Arc<SessionCore>,
        name: &str,
        options: ChannelOptions<T>,
    ) -> Result<Self, OpenError> {
        let failures = Arc::default();
        let shared = open(core, name, &options, &failures).await?;
        if options.on_loss != LossPolicy::Fail {
            core.goes_on_with(true);
        }
        Ok(Self {
            core: Arc::clone(core),
            name: Arc::from(name),
            options,
            current: Mutex::new(Arc::new(shared)),
            renewing: tokio::sync::Mutex::default(),
            closed: watch::Sender::new(false),
            received: AtomicU64::new(0),
            failures,
        })
    }

    /// Opens it in the session that took the place of the one in which `lost` was, if it is to go on.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn renew(&self, lost: &Arc<Shared<T>>, end: SessionEnd) -> Result<(), SessionEnd> {
        let mut failed = self.renewing.lock().await;
        if !Arc::ptr_eq(lost, &self.current()) {
            return Ok(());
        }
        if let Some(end) = &*failed {
            return Err(end.clone());
        }
        let mut closed = self.closed.subscribe();
        let renewed = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(end),
            renewed = self.open_again(end.clone()) => renewed,
        };
        let shared = renewed.inspect_err(|end| *failed = Some(end.clone()))?;
        let replaced = std::mem::replace(&mut *self.current.lock(), Arc::new(shared));
        drop(replaced);
        if *self.closed.borrow() {
            self.current().receiver.close();
        }
        Ok(())
    }

    async fn open_again(&self, end: SessionEnd) -> Result<Shared<T>, SessionEnd> {
        for refusals in 1..=REFUSALS_MAX {
            let goes_on = self.options.on_loss != LossPolicy::Fail && !self.core.is_closing();
            if !goes_on || self.core.wait_connected().await.is_err() {
                break;
            }
            match open(&self.core, &self.name, &self.options, &self.failures).await {
                Ok(shared) => return Ok(shared),
                Err(
                    OpenError::NotAvailable { .. }
                    | OpenError::Declined { .. }
                    | OpenError::LimitReached { .. }
                    | OpenError::Lost { .. },
                ) => tokio::time::sleep(reopen_pause(refusals)).await,
                Err(error) => return Err(SessionEnd::Lost(format!("not opened again: {error}"))),
            }
        }
        Err(end)
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        self.current().receiver.close();
    }
}

impl<T> Subscription<T> {
    pub(super) fn current(&self) -> Arc<Shared<T>> {
        Arc::clone(&self.current.lock())
    }

    /// The next delivery's number for the program.
    pub(super) fn next_id(&self) -> u64 {
        self.received.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

async fn open<T: Send + 'static>(
    core: &Arc<SessionCore>,
    name: &str,
    options: &ChannelOptions<T>,
    failures: &Arc<Failures>,
) -> Result<Shared<T>, OpenError> {
    let unexpected = || OpenError::NotAvailable { name: name.to_owned() };
    // All three or none: none goes on by itself.
    let options = options.clone().on_loss(LossPolicy::Fail);
    let opened =
        opening::open_for(core, name, Direction::Receive, &options, Purpose::Deliveries, None).await?;
    let Opened::Recv(handle) = opened else { return Err(unexpected()) };
    let of = handle.0.id();
    let receiver = Receiver::wire(handle, Arc::new(HandedCodec(options.codec)));
    let desk = Desk::new(Arc::clone(failures));
    let plain = ChannelOptions::raw().capacity(OUTCOMES_CAPACITY);
    let owner = || Some(Arc::clone(&desk) as Arc<dyn Owner>);
    let (acks, outcomes) = (Purpose::Acks { of }, Purpose::Outcomes { of });
    let (asks, outcomes) = tokio::try_join!(
        opening::open_for(core, name, Direction::Send, &plain, acks, owner()),
        opening::open_for(core, name, Direction::Receive, &plain, outcomes, owner()),
    )?;
    let (Opened::Send(asks), Opened::Recv(outcomes)) = (asks, outcomes) else { return Err(unexpected()) };
    let line = Line::new(Sender::wire(asks, plain.codec), outcomes, desk);
    Ok(Shared { receiver, line })
}
