//! Writing: whoever fills a batch, or finds the link idle, seals and writes it; a task of the session writes what is left.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netchan_proto::session::WriteHalf;
use tokio::io::AsyncWrite;

use super::host::ShellHost;
use super::{Chan, SessionCore};
use crate::patience;
use crate::transport::LinkWriter;

/// Buffers written by whoever is at it before the rest is left to the flusher: while others send as fast as it writes, a
/// thread without a cooperative budget would never come back to its own work.
const FILLS_MAX: usize = 64;

/// The same for those who come while it writes.
const ROUNDS_MAX: usize = 8;

/// The write half and the link it writes to, while there is one.
pub(super) struct Writer {
    link: Option<OutLink>,
    /// Which link it is, counted from 1.
    number: u64,
    progress: Progress,
}

struct OutLink {
    half: WriteHalf,
    stream: LinkWriter,
}

/// How far writing to a link has come.
struct Progress {
    /// The flusher's: whoever finds the link full leaves the rest to it.
    waker: Waker,
    blocked: bool,
    /// Stopped after a fair share of writing.
    more: bool,
    unflushed: bool,
    /// Why the link takes no more.
    failed: Option<String>,
}

impl Progress {
    fn new() -> Self {
        Self { waker: Waker::noop().clone(), blocked: false, more: false, unflushed: false, failed: None }
    }

    fn fail(&mut self, core: &SessionCore, why: impl std::fmt::Display) {
        self.more = false;
        self.failed.get_or_insert_with(|| why.to_string());
        core.write_failed.store(true, Ordering::SeqCst);
        core.wake_driver();
    }

    fn write(&mut self, core: &Arc<SessionCore>, link: &mut OutLink) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        self.blocked = false;
        self.more = true;
        let now_millis = core.now_millis();
        for _ in 0..FILLS_MAX {
            if let Err(error) = link.half.fill(&ShellHost::new(core), now_millis) {
                return self.fail(core, error);
            }
            if link.half.output().is_empty() {
                self.more = false;
                break;
            }
            match Pin::new(&mut link.stream).poll_write(&mut cx, link.half.output()) {
                Poll::Ready(Ok(0)) => return self.fail(core, "the link takes no more bytes"),
                Poll::Ready(Ok(bytes)) => {
                    link.half.consume(bytes);
                    core.blocked_since.store(0, Ordering::Relaxed);
                    core.traffic.note_out(bytes);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return self.fail(core, error),
                Poll::Pending => {
                    (self.blocked, self.more) = (true, false);
                    core.note_blocked(now_millis);
                    return;
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut link.stream).poll_flush(&mut cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    core.blocked_since.store(0, Ordering::Relaxed);
                }
                Poll::Ready(Err(error)) => self.fail(core, error),
                Poll::Pending => {
                    self.blocked = true;
                    core.note_blocked(now_millis);
                }
            }
        }
    }
}

impl Writer {
    /// Without a link.
    pub(super) fn new() -> Self {
        Self { link: None, number: 0, progress: Progress::new() }
    }

    fn write(&mut self, core: &Arc<SessionCore>) {
        self.progress.more = false;
        if let (Some(link), None) = (&mut self.link, &self.progress.failed) {
            self.progress.write(core, link);
        }
    }
}

/// The task that writes what is left behind: what senders gather in a burst, and what did not fit the link.
///
/// It is a task of its own, and not part of the driver, because of where it runs: a sender that wakes it leaves it to its
/// own thread, to be run when the sender pauses, with all that was gathered by then. The driver is woken by the link, on
/// another thread perhaps; writing there would race the sender for every few values.
///
/// Each link has its own.
pub(super) struct Flusher {
    core: Arc<SessionCore>,
    link_number: u64,
}

impl Flusher {
    /// For the link that is in place now.
    pub(super) fn new(core: &Arc<SessionCore>) -> Self {
        Self { core: Arc::clone(core), link_number: core.writer.lock().number }
    }

    /// Runs until its link is gone.
    pub(super) async fn run(self) {
        let _last = FailOnDrop(&self);
        while !poll_fn(|cx| self.poll_round(cx)).await {
            tokio::task::yield_now().await;
        }
    }

    /// Ready says whether that was all for good; if not, others are to have their turn before the next look.
    fn poll_round(&self, cx: &Context<'_>) -> Poll<bool> {
        let core = &self.core;
        core.flusher.register(cx.waker());
        core.flushing.store(true, Ordering::SeqCst);
        core.handover.store(false, Ordering::SeqCst);
        let written = core.flush_all(Some((cx.waker(), self.link_number)));
        core.flushing.store(false, Ordering::SeqCst);
        match written {
            Err(Unwritten) => {
                core.wake_driver();
                Poll::Ready(true)
            }
            Ok(Written::Blocked) => {
                core.burst.store(true, Ordering::SeqCst);
                core.closing_progress();
                Poll::Pending
            }
            Ok(Written::More) => Poll::Ready(false),
            // A sender on another thread goes on. It will wake this task to run where it does, unless that was its last.
            Ok(Written::All) if core.handover.load(Ordering::SeqCst) => Poll::Ready(false),
            Ok(Written::All) => {
                core.closing_progress();
                Poll::Pending
            }
        }
    }
}

/// However the flusher ends, a panic of a link of the program's own included: nobody writes what is left behind any more.
struct FailOnDrop<'a>(&'a Flusher);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        let Flusher { core, link_number } = self.0;
        core.with_writer(|writer| {
            if writer.number == *link_number && writer.link.is_some() {
                writer.progress.fail(core, "the task that writes has ended");
            }
        });
    }
}

/// The link takes no more, or there is none.
pub(super) struct Unwritten;

/// What a look at the writer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything has gone.
    All,
    /// The link is full; the flusher will be woken.
    Blocked,
    /// There may be more, but others are to have their turn.
    More,
}

thread_local! {
    /// The session whose driver handles on this thread what its peer said, by its address; 0 for none. And whether that has made
    /// something writable.
    static HANDLING: Cell<(usize, bool)> = const { Cell::new((0, false)) };
}

/// While it is there, what this thread makes writable for its session is left to the driver, which writes all answers at once: one
/// by one, each would cost a record and a system call.
pub(super) struct Handling(());

impl Handling {
    pub(super) fn begin(core: &Arc<SessionCore>) -> Self {
        HANDLING.set((Arc::as_ptr(core).addr(), false));
        Self(())
    }

    /// Whether something has become writable.
    pub(super) fn end(self) -> bool {
        HANDLING.get().1
    }

    fn note_output(core: &Arc<SessionCore>) -> bool {
        let (handled, _) = HANDLING.get();
        let here = handled == Arc::as_ptr(core).addr();
        if here {
            HANDLING.set((handled, true));
        }
        here
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.set((0, false));
    }
}

impl SessionCore {
    /// Seals and writes what is ready, unless somebody else is at it, who then looks again.
    pub(crate) fn flush(self: &Arc<Self>) {
        for _ in 0..ROUNDS_MAX {
            self.flush_again.store(true, Ordering::SeqCst);
            let Some(mut writer) = self.writer.try_lock() else { return };
            self.flush_again.store(false, Ordering::SeqCst);
            writer.write(self);
            let more = writer.progress.more;
            drop(writer);
            fence(Ordering::SeqCst);
            if more {
                break;
            }
            if !self.flush_again.load(Ordering::SeqCst) {
                self.closing_progress();
                return;
            }
        }
        self.wake_flusher();
    }

    /// Waits for the writer and does something with it. Everyone else who locks it must come through here: who wanted to
    /// write meanwhile has left that to the holder.
    fn with_writer<R>(self: &Arc<Self>, f: impl FnOnce(&mut Writer) -> R) -> R {
        let result = f(&mut self.writer.lock());
        fence(Ordering::SeqCst);
        if self.flush_again.load(Ordering::SeqCst) {
            self.flush();
        }
        result
    }

    /// Writes everything, waiting for whoever is at it. The flusher gives its waker, for when the link has room again, and
    /// says which link it is for.
    pub(super) fn flush_all(self: &Arc<Self>, flusher: Option<(&Waker, u64)>) -> Result<Written, Unwritten> {
        self.with_writer(|writer| {
            if let Some((waker, link_number)) = flusher {
                if link_number != writer.number {
                    return Err(Unwritten);
                }
                if !writer.progress.waker.will_wake(waker) {
                    writer.progress.waker.clone_from(waker);
                }
            }
            self.flush_again.store(false, Ordering::SeqCst);
            writer.write(self);
            match &writer.progress.failed {
                Some(_) => Err(Unwritten),
                None if writer.link.is_none() => Err(Unwritten),
                None if writer.progress.blocked => Ok(Written::Blocked),
                None if writer.progress.more => Ok(Written::More),
                None => Ok(Written::All),
            }
        })
    }

    /// Why the link takes no more, if so.
    pub(super) fn write_failure(self: &Arc<Self>) -> Option<String> {
        // The lock may be held for as long as a system call takes.
        let failed = self.write_failed.load(Ordering::SeqCst);
        if failed { self.with_writer(|writer| writer.progress.failed.clone()) } else { None }
    }

    /// The link takes nothing; from the first time since it last took something.
    fn note_blocked(&self, now_millis: u64) {
        _ = self.blocked_since.compare_exchange(0, now_millis.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How long the link has taken nothing of what is to be written, if so.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        match self.blocked_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_millis(self.now_millis().saturating_sub(since))),
        }
    }

    /// Whether nothing waits to be written, here or for the link.
    pub(super) fn is_written(self: &Arc<Self>) -> bool {
        let blocked = self.with_writer(|writer| writer.progress.blocked);
        !blocked && !self.has_output()
    }

    /// For the driver: no more bytes follow.
    pub(super) fn poll_shutdown(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.with_writer(|writer| match &mut writer.link {
            Some(link) => Pin::new(&mut link.stream).poll_shutdown(cx).map(|_| ()),
            None => Poll::Ready(()),
        })
    }

    /// A link to write to takes the place of the last.
    pub(super) fn set_link(self: &Arc<Self>, half: WriteHalf, stream: LinkWriter) {
        self.with_writer(|writer| {
            writer.link = Some(OutLink { half, stream });
            writer.number += 1;
            writer.progress = Progress::new();
            self.write_failed.store(false, Ordering::SeqCst);
            self.blocked_since.store(0, Ordering::Relaxed);
        });
    }

    /// Nothing more is written to the link, even while the program keeps its handles; its flusher ends. A link of the
    /// program's own may do anything when it is dropped: not under a lock.
    pub(super) fn take_link(self: &Arc<Self>) -> Option<LinkWriter> {
        let link = self.with_writer(|writer| {
            writer.progress = Progress::new();
            writer.link.take()
        });
        self.wake_flusher();
        link.map(|link| link.stream)
    }

    /// For the driver: sees to news that were not worth a write so far.
    pub(super) fn report_rest(&self) {
        for chan in self.channels() {
            if let Chan::Recv(chan) = chan {
                chan.report_rest();
            }
        }
    }

    /// For the driver: gives back the buffers of what is idle. Says whether any was not, and is to be looked at again.
    pub(super) fn park(self: &Arc<Self>) -> bool {
        self.with_writer(|writer| {
            if let Some(link) = &mut writer.link {
                link.half.idle();
            }
        });
        let mut busy = false;
        for chan in self.channels() {
            busy |= match chan {
                Chan::Send(chan) => patience::lock(&chan.state).half.park(),
                Chan::Recv(chan) => patience::lock(&chan.state).half.park(),
            };
        }
        busy
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

    /// Whether anything waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.ready.lock().is_empty() || self.control.lock().has_output()
    }

    /// A channel was made ready that was not before (`fresh`), or has a whole record (`now`). The first of a burst goes
    /// out at once, and so does a whole record; the rest is gathered until the sending task pauses.
    #[inline]
    pub(crate) fn kick(self: &Arc<Self>, fresh: bool, now: bool) {
        if now || fresh && !self.burst.swap(true, Ordering::SeqCst) {
            if crate::reentry::is_busy() {
                self.wake_flusher();
            } else if !Handling::note_output(self) {
                self.flush();
            }
        } else if fresh {
            self.gather();
        } else if self.handover.load(Ordering::SeqCst) && !self.flushing.load(Ordering::SeqCst) {
            self.hand_over();
        }
    }

    /// Leaves what was made ready to the flusher. While that runs on another thread it would come too soon: then the
    /// sender's next value wakes it, or else it looks again by itself.
    pub(crate) fn gather(&self) {
        self.handover.store(true, Ordering::SeqCst);
        if !self.flushing.load(Ordering::SeqCst) {
            self.hand_over();
        }
    }

    #[cold]
    fn hand_over(&self) {
        if self.handover.swap(false, Ordering::SeqCst) {
            self.wake_flusher();
        }
    }

    /// For the driver: when nothing waits to be written, the next value is the first of a burst.
    pub(super) fn note_pause(&self) {
        if self.burst.load(Ordering::SeqCst) && !self.has_output() {
            self.burst.store(false, Ordering::SeqCst);
        }
    }
}
