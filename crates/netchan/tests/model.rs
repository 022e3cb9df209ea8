//! Random interleavings of what handles can do, against a queue.

mod common;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;

use common::{direct, pair, poll_once, within};
use netchan::{Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// A send that is awaited in the background.
    Send,
    TrySend,
    /// A reservation that is used, or dropped.
    Reserve(bool),
    /// A receive that is polled so often and dropped, or kept waiting.
    Recv(u8),
    TryRecv,
    /// The oldest kept future is dropped.
    Forget(bool),
    CloneSender,
    CloneReceiver,
    /// Lets the session's tasks run.
    Settle,
    Close,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Send),
        3 => Just(Op::TrySend),
        2 => any::<bool>().prop_map(Op::Reserve),
        4 => (0..4_u8).prop_map(Op::Recv),
        3 => Just(Op::TryRecv),
        2 => any::<bool>().prop_map(Op::Forget),
        1 => Just(Op::CloneSender),
        1 => Just(Op::CloneReceiver),
        2 => Just(Op::Settle),
        1 => Just(Op::Close),
    ];
    proptest::collection::vec(op, 1..60)
}

type Sending = Pin<Box<dyn Future<Output = Result<(), SendError<u32>>>>>;
type Receiving = Pin<Box<dyn Future<Output = Result<Option<u32>, RecvError>>>>;

struct Run {
    sender: Sender<u32>,
    receiver: Receiver<u32>,
    spare: (Vec<Sender<u32>>, Vec<Receiver<u32>>),
    sending: VecDeque<(u32, Sending)>,
    receiving: VecDeque<Receiving>,
    /// Values of completed sends that have not been received, oldest first; those that are still being sent may follow.
    queue: VecDeque<u32>,
    /// Values received whose sends have not been polled since (capacity 0).
    early: Vec<u32>,
    next: u32,
    closed: bool,
}

impl Run {
    fn value(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A send completed, or may have taken effect without its caller's knowledge (capacity 0).
    fn sent(&mut self, value: u32) {
        self.queue.push_back(value);
    }

    fn received(&mut self, value: u32) {
        // With capacity 0 the receiver may be told before the sender.
        if let Some(at) = self.queue.iter().position(|&sent| sent == value) {
            assert_eq!(at, 0, "out of order: {value} before {:?}", self.queue);
            self.queue.pop_front();
        } else {
            let under_way = self.sending.iter().any(|(sending, _)| *sending == value);
            assert!(under_way && !self.early.contains(&value), "{value} was not sent, or received before");
            assert_eq!(self.sender.max_capacity(), 0, "{value} was received before it was sent");
            self.early.push(value);
        }
    }

    async fn advance(&mut self) {
        for _ in 0..self.sending.len() {
            let Some((value, mut sending)) = self.sending.pop_front() else { break };
            match poll_once(sending.as_mut()).await {
                Poll::Ready(Ok(())) => match self.early.iter().position(|&early| early == value) {
                    Some(at) => _ = self.early.swap_remove(at),
                    None => self.sent(value),
                },
                Poll::Ready(Err(SendError::Closed { value: back, .. })) => {
                    assert!(back == value && self.closed)
                }
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => self.sending.push_back((value, sending)),
            }
        }
        for _ in 0..self.receiving.len() {
            let Some(mut receiving) = self.receiving.pop_front() else { break };
            match poll_once(receiving.as_mut()).await {
                Poll::Ready(Ok(Some(value))) => self.received(value),
                Poll::Ready(Ok(None)) => assert!(self.closed),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => self.receiving.push_back(receiving),
            }
        }
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Send => {
                let (value, sender) = (self.value(), self.sender.clone());
                self.sending.push_back((value, Box::pin(async move { sender.send(value).await })));
                self.advance().await;
            }
            Op::TrySend => {
                let value = self.value();
                match self.sender.try_send(value) {
                    Ok(()) => self.sent(value),
                    Err(TrySendError::Full(back)) => assert_eq!(back, value),
                    Err(TrySendError::Send(error)) => assert!(self.closed && error.into_inner() == value),
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Reserve(used) => {
                let value = self.value();
                if let Ok(permit) = self.sender.try_reserve()
                    && *used
                {
                    permit.send(value).unwrap();
                    self.queue.push_back(value);
                }
            }
            Op::Recv(polls) => {
                let receiver = self.receiver.clone();
                let mut receiving: Receiving = Box::pin(async move { receiver.recv().await });
                for _ in 0..*polls {
                    match poll_once(receiving.as_mut()).await {
                        Poll::Ready(Ok(Some(value))) => return self.received(value),
                        Poll::Ready(Ok(None)) => return assert!(self.closed),
                        Poll::Ready(Err(error)) => panic!("{error}"),
                        Poll::Pending => tokio::task::yield_now().await,
                    }
                }
                if *polls == 3 {
                    self.receiving.push_back(receiving);
                }
            }
            Op::TryRecv => match self.receiver.try_recv() {
                Ok(Some(value)) => self.received(value),
                Ok(None) => assert!(self.closed),
                Err(TryRecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            },
            // A send that is dropped while on offer may have happened: only receives, then, with capacity 0.
            Op::Forget(receive) if *receive || self.sender.max_capacity() == 0 => {
                drop(self.receiving.pop_front())
            }
            Op::Forget(_) => drop(self.sending.pop_front()),
            Op::CloneSender => self.spare.0.push(self.sender.clone()),
            Op::CloneReceiver => self.spare.1.push(self.receiver.clone()),
            Op::Settle => {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                self.advance().await;
            }
            Op::Close => {
                self.closed = true;
                self.sender.close();
            }
        }
    }

    /// In the end everything that was sent is received, and then the channel is closed, if it can be from here.
    async fn finish(mut self, closable: bool) {
        self.spare.0.clear();
        self.spare.1.clear();
        within("the rest", async {
            while !self.sending.is_empty() || !self.queue.is_empty() {
                if self.receiving.is_empty() {
                    let receiver = self.receiver.clone();
                    self.receiving.push_back(Box::pin(async move { receiver.recv().await }));
                }
                tokio::task::yield_now().await;
                self.advance().await;
            }
            self.receiving.clear();
            if closable {
                self.sender.close();
                assert_eq!(self.receiver.recv().await.unwrap(), None);
            } else {
                assert!(matches!(self.receiver.try_recv(), Err(TryRecvError::Empty)));
            }
        })
        .await;
        assert!(self.early.is_empty());
    }
}

fn check(capacity: usize, kind: u8, ops: &[Op]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (server, session) = pair().await;
        let (sender, receiver) = match kind {
            0 => direct::<u32>(&server, &session, capacity).await,
            1 => server.channel::<u32>("hosted", capacity).unwrap(),
            2 => {
                let receiver = server.receiver::<u32>("hosted", capacity).unwrap();
                (session.sender::<u32>("hosted").await.unwrap(), receiver)
            }
            _ => {
                let sender = server.sender::<u32>("hosted", capacity).unwrap();
                (sender, session.receiver::<u32>("hosted").await.unwrap())
            }
        };
        // A client's close of a hosted channel ends its own use; here the server's would end it for both.
        let closable = kind != 2;
        let mut run = Run {
            sender,
            receiver,
            spare: (Vec::new(), Vec::new()),
            sending: VecDeque::new(),
            receiving: VecDeque::new(),
            queue: VecDeque::new(),
            early: Vec::new(),
            next: 0,
            closed: false,
        };
        for op in ops {
            if closable || !matches!(op, Op::Close) {
                run.step(op).await;
            }
        }
        run.finish(closable).await;
    });
}

/// `NETCHAN_SEEDS=<n>` runs n times as many.
fn cases() -> u32 {
    48 * std::env::var("NETCHAN_SEEDS").map_or(1, |times| times.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_direct_channel_is_a_queue(capacity in 0_usize..4, ops in ops()) {
        check(capacity, 0, &ops);
    }

    #[test]
    fn a_hosted_channel_is_a_queue_here(capacity in 0_usize..4, ops in ops()) {
        check(capacity, 1, &ops);
    }

    #[test]
    fn a_hosted_channel_is_a_queue_for_a_remote_sender(capacity in 0_usize..4, ops in ops()) {
        check(capacity, 2, &ops);
    }

    #[test]
    fn a_hosted_channel_is_a_queue_for_a_remote_receiver(capacity in 0_usize..4, ops in ops()) {
        check(capacity, 3, &ops);
    }
}
