//! What a value's own `Serialize` and `Deserialize` may do to its channel: nothing.

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{Anything, direct, eventually, pair, within};
use futures_util::FutureExt as _;
use netchan::{
    ChannelOptions, Config, Receiver, RecvError, SendError, Sender, TrySendError, dial, listen_and_serve,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Hook = Box<dyn Fn(u32) -> Result<u32, String>>;

thread_local! {
    static ON_SERIALIZE: RefCell<Option<Hook>> = const { RefCell::new(None) };
    static ON_DESERIALIZE: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// A number whose encoding, and decoding, does what the test asks for.
#[derive(Debug, PartialEq)]
struct Odd(u32);

fn run(hook: &'static std::thread::LocalKey<RefCell<Option<Hook>>>, value: u32) -> Result<u32, String> {
    // Taken out meanwhile, so that what the hook itself encodes is left alone.
    let taken = hook.with_borrow_mut(Option::take);
    let Some(taken) = taken else { return Ok(value) };
    let restore = Restore(hook, Some(taken));
    restore.1.as_ref().map_or(Ok(value), |hook| hook(value))
}

struct Restore(&'static std::thread::LocalKey<RefCell<Option<Hook>>>, Option<Hook>);

impl Drop for Restore {
    fn drop(&mut self) {
        let hook = self.1.take();
        self.0.with_borrow_mut(|slot| *slot = hook);
    }
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = run(&ON_SERIALIZE, self.0).map_err(S::Error::custom)?;
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u32::deserialize(deserializer)?;
        run(&ON_DESERIALIZE, value).map(Odd).map_err(D::Error::custom)
    }
}

fn on_serialize(hook: impl Fn(u32) -> Result<u32, String> + 'static) {
    ON_SERIALIZE.with_borrow_mut(|slot| *slot = Some(Box::new(hook)));
}

fn on_deserialize(hook: impl Fn(u32) -> Result<u32, String> + 'static) {
    ON_DESERIALIZE.with_borrow_mut(|slot| *slot = Some(Box::new(hook)));
}

fn no_hooks() {
    ON_SERIALIZE.with_borrow_mut(|slot| *slot = None);
    ON_DESERIALIZE.with_borrow_mut(|slot| *slot = None);
}

/// The channel works, with all of its capacity.
async fn is_as_it_was(sender: &Sender<Odd>, receiver: &Receiver<Odd>) {
    no_hooks();
    let capacity = sender.max_capacity() as u32;
    eventually("all credit is back", || sender.capacity() == capacity as usize).await;
    for n in 0..capacity {
        sender.try_send(Odd(n)).unwrap();
    }
    assert!(matches!(sender.try_send(Odd(99)), Err(TrySendError::Full(Odd(99)))));
    for n in 0..capacity {
        assert_eq!(within("recv", receiver.recv()).await.unwrap(), Some(Odd(n)));
    }
}

#[tokio::test]
async fn a_serialize_that_fails_leaves_the_channel_as_it_was() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 4).await;
    on_serialize(|value| if value % 2 == 1 { Err("odd".to_owned()) } else { Ok(value) });
    for n in 0..20 {
        match sender.send(Odd(n)).await {
            Ok(()) => assert_eq!(receiver.recv().await?, Some(Odd(n))),
            Err(error @ SendError::Encode { .. }) => {
                assert_eq!(error.fault(), Some(netchan::Fault::Caller));
                assert_eq!(error.into_inner(), Odd(n));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(matches!(sender.reserve().await?.send(Odd(1)), Err(SendError::Encode { value: Odd(1), .. })));
    is_as_it_was(&sender, &receiver).await;
    Ok(())
}

#[tokio::test]
async fn a_serialize_that_panics_leaves_the_channel_as_it_was() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 4).await;
    sender.send(Odd(7)).await?;
    on_serialize(|_| panic!("planned"));
    for _ in 0..10 {
        assert!(catch_unwind(AssertUnwindSafe(|| sender.try_send(Odd(1)))).is_err());
    }
    let permit = sender.reserve().await?;
    assert!(catch_unwind(AssertUnwindSafe(|| permit.send(Odd(1)))).is_err());
    assert_eq!(receiver.recv().await?, Some(Odd(7)));
    is_as_it_was(&sender, &receiver).await;

    let (hosted, values) = server.channel::<Odd>("hosted", 4)?;
    on_serialize(|_| panic!("planned"));
    assert!(catch_unwind(AssertUnwindSafe(|| hosted.try_send(Odd(1)))).is_err());
    let permit = hosted.reserve().await?;
    assert!(catch_unwind(AssertUnwindSafe(|| permit.send(Odd(1)))).is_err());
    is_as_it_was(&hosted, &values).await;
    Ok(())
}

#[tokio::test]
async fn a_serialize_that_uses_its_own_channel_gets_errors_and_no_deadlock() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 4).await;
    let again = sender.clone();
    on_serialize(move |value| {
        let nested = again.try_send(Odd(50));
        assert!(matches!(nested, Err(TrySendError::Send(SendError::Reentrant { .. }))), "{nested:?}");
        assert!(again.try_reserve().is_err());
        // Whatever these say, they say it.
        for look in [
            &(|| _ = again.capacity()) as &dyn Fn(),
            &|| _ = again.stats(),
            &|| _ = again.is_closed(),
            &|| drop(again.clone()),
        ] {
            _ = catch_unwind(AssertUnwindSafe(look));
        }
        Ok(value)
    });
    within("send", async {
        sender.send(Odd(3)).await.unwrap();
    })
    .await;
    assert_eq!(receiver.recv().await?, Some(Odd(3)));
    is_as_it_was(&sender, &receiver).await;
    Ok(())
}

#[tokio::test]
async fn a_serialize_may_use_other_channels() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 4).await;
    let (other, others) = direct::<Odd>(&server, &session, 8).await;
    let (hosted, values) = server.channel::<Odd>("hosted", 8)?;
    on_serialize(move |value| {
        other.try_send(Odd(value + 100)).map_err(|error| error.to_string())?;
        hosted.try_send(Odd(value + 200)).map_err(|error| error.to_string())?;
        Ok(value)
    });
    for n in 0..3 {
        sender.send(Odd(n)).await?;
        assert_eq!(within("recv", receiver.recv()).await?, Some(Odd(n)));
        assert_eq!(within("recv", others.recv()).await?, Some(Odd(n + 100)));
        assert_eq!(within("recv", values.recv()).await?, Some(Odd(n + 200)));
    }
    is_as_it_was(&sender, &receiver).await;
    Ok(())
}

#[tokio::test]
async fn a_deserialize_that_fails_takes_the_value_and_receiving_goes_on() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 1).await;
    on_deserialize(|value| if value % 2 == 1 { Err("odd".to_owned()) } else { Ok(value) });
    for n in 0..20 {
        within("send", sender.send(Odd(n))).await?;
        match within("recv", receiver.recv()).await {
            Ok(Some(Odd(got))) => assert_eq!((got, n % 2), (n, 0)),
            Err(error @ RecvError::Decode { .. }) => {
                assert!(!error.is_terminal() && n % 2 == 1);
                assert_eq!(error.fault(), Some(netchan::Fault::Peer));
            }
            other => panic!("{other:?}"),
        }
    }
    is_as_it_was(&sender, &receiver).await;
    Ok(())
}

#[tokio::test]
async fn a_deserialize_that_panics_takes_the_value_and_receiving_goes_on() -> Anything {
    let (server, session) = pair().await;
    for capacity in [1, 4] {
        let (sender, receiver) = direct::<Odd>(&server, &session, capacity).await;
        for n in 0..6 {
            within("send", sender.send(Odd(n))).await?;
            eventually("it is here", || receiver.len() == 1).await;
            on_deserialize(|_| panic!("planned"));
            // Each way in has a path of its own.
            let panicked = catch_unwind(AssertUnwindSafe(|| match n % 2 {
                0 => _ = receiver.try_recv(),
                _ => _ = receiver.recv().now_or_never(),
            }));
            assert!(panicked.is_err());
            no_hooks();
        }
        // The credit of what was taken comes back though nobody else receives.
        let waiting = tokio::spawn({
            let receiver = receiver.clone();
            async move { receiver.recv().await }
        });
        within("send", sender.send(Odd(8))).await?;
        assert_eq!(within("recv", waiting).await??, Some(Odd(8)));
        is_as_it_was(&sender, &receiver).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_deserialize_that_uses_its_own_channel_does_not_deadlock() -> Anything {
    let (server, session) = pair().await;
    let (sender, receiver) = direct::<Odd>(&server, &session, 4).await;
    let again = receiver.clone();
    on_deserialize(move |value| {
        assert!(!matches!(again.try_recv(), Ok(Some(_))));
        for look in [&(|| _ = again.len()) as &dyn Fn(), &|| _ = again.stats(), &|| _ = again.is_closed()] {
            _ = catch_unwind(AssertUnwindSafe(look));
        }
        Ok(value)
    });
    sender.send(Odd(1)).await?;
    sender.send(Odd(2)).await?;
    within("no deadlock", async {
        assert_eq!(receiver.recv().await.unwrap(), Some(Odd(1)));
        assert_eq!(receiver.recv().await.unwrap(), Some(Odd(2)));
    })
    .await;
    is_as_it_was(&sender, &receiver).await;
    Ok(())
}

#[tokio::test]
async fn a_message_over_the_limit_comes_back_and_one_over_the_window_passes() -> Anything {
    let mut config = Config::default();
    config.limits.message_bytes_max = 300_000;
    config.limits.window_bytes = 10_000;
    config.limits.window_bytes_max = 20_000;
    let server = listen_and_serve(common::memory(), config).await?;
    let session = dial(server.ticket(), Config::default()).await?;
    let (hosted, values) = server.channel::<Vec<u8>>("hosted", 2)?;
    let remote = session.receiver::<Vec<u8>>("hosted").await?;
    let (sender, receiver) = direct::<Vec<u8>>(&server, &session, 4).await;
    for (sender, receiver) in [(&sender, &receiver), (&hosted, &values), (&hosted, &remote)] {
        let large = vec![7; 250_000];
        let (sent, received) =
            within("a large one", async { tokio::join!(sender.send(large.clone()), receiver.recv()) }).await;
        sent?;
        assert_eq!(received?, Some(large));
        let too_large = within("refused", sender.send(vec![1; 300_001])).await.unwrap_err();
        assert_eq!(too_large.fault(), Some(netchan::Fault::Caller));
        assert!(too_large.to_string().contains("message_bytes_max"), "{too_large}");
        assert!(
            matches!(too_large, SendError::TooLarge { value, bytes_max: 300_000 } if value.len() == 300_001)
        );
        let (sent, received) =
            within("a small one", async { tokio::join!(sender.send(vec![1]), receiver.recv()) }).await;
        sent?;
        assert_eq!(received?, Some(vec![1]));
    }
    Ok(())
}

#[tokio::test]
async fn raw_bytes_pass_as_they_are() -> Anything {
    let (server, session) = pair().await;
    let (_keep, values) = server.channel_with("raw", 4, ChannelOptions::raw())?;
    let sender = session.sender_with("raw", ChannelOptions::raw()).await?;
    for size in [0, 1, 16_384, 16_385, 65_536, 1_000_000] {
        let bytes = bytes::Bytes::from(vec![size as u8; size]);
        let (sent, received) = tokio::join!(sender.send(bytes.clone()), values.recv());
        sent?;
        assert_eq!(received?, Some(bytes));
    }
    let shared: Arc<Sender<bytes::Bytes>> = Arc::new(sender);
    drop(shared);
    Ok(())
}
