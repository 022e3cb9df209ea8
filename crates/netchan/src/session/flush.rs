//! Writing: whoever fills a batch, or finds the link idle, seals and writes it; the driver writes what is left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};

use netchan_proto::session::WriteHalf;
use tokio::io::AsyncWrite;

use super::host::ShellHost;
use super::{Chan, SessionCore};
use crate::error::SessionEnd;
use crate::transport::LinkWriter;

/// The write half and the link it writes to.
pub(super) struct Writer {
    half: WriteHalf,
    link: LinkWriter,
    /// The driver's: whoever finds the link full leaves the rest to the driver.
    waker: Waker,
    blocked: bool,
    unflushed: bool,
    failed: Option<SessionEnd>,
}

impl Writer {
    pub(super) fn new(half: WriteHalf, link: LinkWriter) -> Self {
        Self { half, link, waker: Waker::noop().clone(), blocked: false, unflushed: false, failed: None }
    }

    fn fail(&mut self, why: impl std::fmt::Display) {
        self.failed.get_or_insert_with(|| SessionEnd::Disconnected(why.to_string()));
        self.waker.wake_by_ref();
    }

    fn write(&mut self, core: &Arc<SessionCore>) {
        if self.failed.is_some() {
            return;
        }
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        self.blocked = false;
        loop {
            if let Err(error) = self.half.fill(&ShellHost(core), core.now_millis()) {
                return self.fail(error);
            }
            if self.half.output().is_empty() {
                break;
            }
            match Pin::new(&mut self.link).poll_write(&mut cx, self.half.output()) {
                Poll::Ready(Ok(0)) => return self.fail("the link takes no more bytes"),
                Poll::Ready(Ok(bytes)) => {
                    self.half.consume(bytes);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return self.fail(error),
                Poll::Pending => {
                    self.blocked = true;
                    return;
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.link).poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.fail(error),
                Poll::Pending => self.blocked = true,
            }
        }
    }
}

/// What a look at the writer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything has gone.
    All,
    /// The link is full; the driver will be woken.
    Blocked,
}

impl SessionCore {
    /// Seals and writes what is ready, unless somebody else is at it, who then looks again.
    pub(crate) fn flush(self: &Arc<Self>) {
        loop {
            self.flush_again.store(true, Ordering::SeqCst);
            let Some(mut writer) = self.writer.try_lock() else { return };
            self.flush_again.store(false, Ordering::SeqCst);
            writer.write(self);
            let blocked = writer.blocked;
            drop(writer);
            fence(Ordering::SeqCst);
            if blocked || !self.flush_again.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// For the driver: takes over the wake-ups of the link.
    pub(super) fn adopt_writer(&self, waker: &Waker) {
        let mut writer = self.writer.lock();
        if !writer.waker.will_wake(waker) {
            writer.waker.clone_from(waker);
        }
    }

    /// For the driver: writes everything, waiting for whoever is at it.
    pub(super) fn flush_all(self: &Arc<Self>) -> Result<Written, SessionEnd> {
        let mut writer = self.writer.lock();
        writer.write(self);
        match &writer.failed {
            Some(end) => Err(end.clone()),
            None => Ok(if writer.blocked { Written::Blocked } else { Written::All }),
        }
    }

    /// For the driver: no more bytes follow.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.writer.lock().link).poll_shutdown(cx).map(|_| ())
    }

    /// The session is over: the link closes, even while the program keeps its handles.
    pub(super) fn close_link(&self) {
        let mut writer = self.writer.lock();
        writer.failed.get_or_insert_with(|| SessionEnd::Disconnected("the session is over".to_owned()));
        writer.link = Box::new(tokio::io::sink());
        writer.half.discard();
    }

    /// For the driver: gives the write buffers of an idle link back.
    pub(super) fn idle_writer(&self) {
        if let Some(mut writer) = self.writer.try_lock() {
            writer.half.idle();
        }
    }

    /// Notes that a channel has something to write. Call it with the channel's state locked, or after. Says whether it
    /// had nothing before.
    #[inline]
    pub(super) fn set_ready(&self, chan: &Chan) -> bool {
        let fresh = !chan.queued().swap(true, Ordering::SeqCst);
        if fresh {
            self.ready.lock().push_back(chan.clone());
            if self.end.get().is_some() {
                // Nobody writes any more, and what stays here would keep the session in memory for good.
                self.ready.lock().clear();
            }
        }
        fresh
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.lock().is_empty()
    }

    /// Something was made ready, and `now` says whether it goes out at once: the first of a burst does, and whatever
    /// makes a whole record. The rest is left to the driver, which comes round when the producing task pauses.
    #[inline]
    pub(crate) fn kick(self: &Arc<Self>, now: bool) {
        if !self.burst.load(Ordering::SeqCst) && !self.burst.swap(true, Ordering::SeqCst) {
            self.wake_driver();
        }
        if now {
            if crate::reentry::is_busy() {
                self.wake_driver();
            } else {
                self.flush();
            }
        }
    }

    #[inline]
    pub(crate) fn is_in_burst(&self) -> bool {
        self.burst.load(Ordering::SeqCst)
    }

    /// A send is about to give way to other tasks and will come back: the driver need not write what it leaves.
    pub(crate) fn pause_producer(&self) {
        self.paused_producers.fetch_add(1, Ordering::SeqCst);
    }

    /// The send is back, or was dropped.
    pub(crate) fn resume_producer(self: &Arc<Self>) {
        self.paused_producers.fetch_sub(1, Ordering::SeqCst);
        self.kick(false);
    }

    /// Something was made ready that is not urgent: the driver writes it when it comes round.
    pub(crate) fn kick_lazily(&self) {
        if !self.burst.load(Ordering::SeqCst) && !self.lazy.swap(true, Ordering::SeqCst) {
            self.wake_driver();
        }
    }
}
