//! Other engines in the place of queue and broadcast.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use netchan_proto::wire::Mode;
use parking_lot::Mutex;

use super::*;
use crate::error::{CloseReason, OpenError};
use crate::hub::HostedInfo;
use crate::session::{Owner, Position, RecvChan, SendChan, Terms};
use crate::transport::BoxFuture;
use crate::{ChannelOptions, Config};

/// An engine that lets nobody in and counts who knocks.
struct Closed {
    keeper: Weak<dyn Keeper>,
    spec: HubSpec,
    knocks: AtomicUsize,
    end: Mutex<Option<CloseReason>>,
}

impl Engine for Closed {
    fn spec(&self) -> &HubSpec {
        &self.spec
    }

    fn closed(&self) -> Option<CloseReason> {
        self.end.lock().clone()
    }

    fn open(self: Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        self.knocks.fetch_add(1, Ordering::SeqCst);
        session.refuse(open.id, RefuseCode::LimitReached, "nobody is let in");
    }

    fn close(&self, reason: CloseReason) {
        *self.end.lock() = Some(reason);
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.closed(self);
            keeper.finished(self);
        }
    }

    fn abort(&self, reason: CloseReason) {
        self.close(reason);
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn untaken(&self) -> u64 {
        7
    }

    fn survey(&self) -> HostedInfo {
        HostedInfo { name: self.spec.name.to_string(), depth: 7, ..HostedInfo::default() }
    }
}

#[tokio::test]
async fn another_engine_takes_the_place_of_queue_and_broadcast() {
    let server = crate::listen_and_serve("memory://engine", Config::default()).await.unwrap();
    let options = ChannelOptions::<u32>::default();
    let access = Access { may_send: true, may_receive: true };
    let engine =
        |keeper, spec| Arc::new(Closed { keeper, spec, knocks: AtomicUsize::new(0), end: Mutex::default() });
    let hosted = server.core.host_with("door", 3, &options, access, engine).unwrap();
    let session = crate::dial(server.ticket(), Config::default()).await.unwrap();
    let offer = session.recv().await.unwrap().unwrap();
    assert_eq!((offer.name(), offer.capacity()), ("door", Some(3)));
    let refused = session.sender::<u32>("door").await;
    assert!(matches!(refused, Err(OpenError::LimitReached { .. })), "{refused:?}");
    let refused = session.receiver::<u32>("door").await;
    assert!(matches!(refused, Err(OpenError::LimitReached { .. })), "{refused:?}");
    let mistaken = session.sender::<String>("door").await;
    assert!(
        matches!(mistaken, Err(OpenError::TypeMismatch { .. })),
        "the server sees to types: {mistaken:?}"
    );
    assert_eq!(hosted.knocks.load(Ordering::SeqCst), 2);
    assert!(server.sender::<u32>("door", 1).is_err(), "the name is taken");
    hosted.close(CloseReason::new(0, ""));
    let tasks = server.sender::<u32>("door", 1).unwrap();
    drop(tasks);
    let again = server.core.host_with("window", 3, &options, access, engine).unwrap();
    assert_eq!(server.hosted().into_iter().map(|hosted| hosted.depth).collect::<Vec<_>>(), [7]);
    let report = server.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(again.closed().is_some());
    assert_eq!(report.undelivered, 7);
}

/// An engine that clients use: the last value in is the first out.
struct Stack {
    keeper: Weak<dyn Keeper>,
    spec: HubSpec,
    values: Mutex<Vec<Bytes>>,
    readers: Mutex<Vec<Arc<SendChan>>>,
    end: Mutex<Option<CloseReason>>,
}

/// An end of a client's channel.
struct Place(Arc<Stack>);

impl Stack {
    fn serve(&self) {
        let mut values = self.values.lock();
        for chan in &*self.readers.lock() {
            while let Some(value) = values.last() {
                let value = value.clone();
                if chan.state.lock().half.push(|item| item.share(value)).is_err() {
                    break;
                }
                values.pop();
            }
            chan.kick_later();
        }
    }
}

impl Owner for Place {
    fn readable(self: Arc<Self>, chan: &Arc<RecvChan>) {
        let urgency = {
            let mut state = chan.state.lock();
            while let Some(payload) = state.half.take() {
                self.0.values.lock().push(payload.into_bytes());
            }
            state.half.urgency()
        };
        chan.report(urgency);
        self.0.serve();
    }

    fn writable(self: Arc<Self>, _: &Arc<SendChan>, _: Position) {
        self.0.serve();
    }

    fn ended(&self, _: &SessionEnd, _: u64) {}
}

impl Engine for Stack {
    fn spec(&self) -> &HubSpec {
        &self.spec
    }

    fn closed(&self) -> Option<CloseReason> {
        self.end.lock().clone()
    }

    fn open(self: Arc<Self>, session: &Arc<SessionCore>, open: &Open) {
        let place = Arc::new(Place(Arc::clone(&self)));
        if open.flow == OpenFlow::OpenerSends {
            session.place_recv(open, Terms::new(Mode::Credit, self.spec.capacity), place).accept();
        } else {
            let placed = session.place_send(open, Terms::new(Mode::Credit, open.capacity), place);
            self.readers.lock().push(Arc::clone(placed.chan()));
            placed.accept();
            self.serve();
        }
    }

    fn close(&self, reason: CloseReason) {
        *self.end.lock() = Some(reason.clone());
        for chan in self.readers.lock().drain(..) {
            chan.state.lock().half.close(reason.clone().into());
            chan.kick_later();
        }
        if let Some(keeper) = self.keeper.upgrade() {
            keeper.closed(self);
            keeper.finished(self);
        }
    }

    fn abort(&self, reason: CloseReason) {
        self.close(reason);
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn untaken(&self) -> u64 {
        self.values.lock().len() as u64
    }

    fn survey(&self) -> HostedInfo {
        HostedInfo { name: self.spec.name.to_string(), depth: self.untaken(), ..HostedInfo::default() }
    }
}

#[tokio::test]
async fn clients_send_into_another_engine_and_receive_from_it() {
    let server = crate::listen_and_serve("memory://stack", Config::default()).await.unwrap();
    let options = ChannelOptions::<u32>::default();
    let access = Access { may_send: true, may_receive: true };
    let stack = |keeper, spec| {
        let (values, readers, end) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Stack { keeper, spec, values, readers, end })
    };
    let hosted = server.core.host_with("stack", 8, &options, access, stack).unwrap();
    let (writes, reads) = (
        crate::dial(server.ticket(), Config::default()).await.unwrap(),
        crate::dial(server.ticket(), Config::default()).await.unwrap(),
    );
    let to = writes.sender::<u32>("stack").await.unwrap();
    for n in 0..5 {
        to.send_acked(n).await.unwrap();
    }
    assert_eq!(server.hosted()[0].depth, 5);
    let from = reads.receiver_with::<u32>("stack", ChannelOptions::default().capacity(2)).await.unwrap();
    for expected in [4, 3, 2] {
        assert_eq!(from.recv().await.unwrap(), Some(expected));
    }
    to.send_acked(9).await.unwrap();
    hosted.close(CloseReason::new(0, ""));
    let mut rest = Vec::new();
    while let Some(value) = from.recv().await.unwrap() {
        rest.push(value);
    }
    assert!(rest.len() as u64 + hosted.untaken() == 3, "{rest:?}");
}
