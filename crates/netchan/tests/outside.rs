//! A transport and a codec written outside the crate, each in a few dozen lines.

mod common;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Anything, DEADLINE, within};
use netchan::address::Address;
use netchan::codec::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload};
use netchan::transport::{BoxFuture, IoLink, Link, Listener, Transport, Transports};
use netchan::{ChannelOptions, Config, DialError, dial, listen_and_serve};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// `pipe://name`: narrow pipes between tasks, by name.
#[derive(Clone, Default)]
struct Pipes(Arc<Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>>);

struct Arrivals(Address, mpsc::UnboundedReceiver<DuplexStream>);

impl Transport for Pipes {
    fn scheme(&self) -> &str {
        "pipe"
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            if address.rest() == "nobody" {
                return std::future::pending().await;
            }
            let (near, far) = tokio::io::duplex(100);
            let listeners = self.0.lock().unwrap();
            let listener = listeners.get(&address.rest()).ok_or(io::ErrorKind::NotFound)?;
            listener.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(IoLink::new(near, address.to_string())) as Box<dyn Link>)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.0.lock().unwrap().insert(address.rest(), sender);
            Ok(Box::new(Arrivals(address.clone(), receiver)) as Box<dyn Listener>)
        })
    }
}

impl Listener for Arrivals {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let stream = self.1.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(Box::new(IoLink::new(stream, "a pipe")) as Box<dyn Link>)
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        vec![self.0.clone()]
    }
}

struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn name(&self) -> &str {
        "json"
    }

    fn encode(&self, value: &T, _: &mut EncodeContext<'_>, out: &mut ItemBuf<'_>) -> Result<(), EncodeError> {
        let text = serde_json::to_vec(value).map_err(EncodeError::codec)?;
        Ok(out.extend(&text)?)
    }

    fn decode(&self, payload: Payload<'_>, _: &mut DecodeContext<'_>) -> Result<T, DecodeError> {
        serde_json::from_slice(payload.as_slice()).map_err(DecodeError::codec)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    title: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    tags: Vec<String>,
}

#[tokio::test]
async fn a_session_runs_on_them() -> Anything {
    let pipes = Pipes::default();
    let mut config = Config::default();
    config.transports = Transports::none().with(pipes);
    let server = listen_and_serve("pipe://here", config.clone()).await?;
    let notes = || ChannelOptions::<Note>::with_codec(Json);
    let received = server.receiver_with("notes", 4, notes())?;
    let session = dial(server.ticket(), config).await?;
    let sender = session.sender_with("notes", notes()).await?;
    let consumer = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(note) = received.recv().await.unwrap() {
            all.push(note);
        }
        all
    });
    let wanted: Vec<_> =
        (0..100).map(|n| Note { title: "x".repeat(n * 50), tags: vec!["t".to_owned(); n % 2] }).collect();
    for note in &wanted {
        within("send", sender.send(note.clone())).await?;
    }
    within("flush", sender.flush()).await?;
    session.close(DEADLINE).await?;
    let report = server.shutdown(DEADLINE).await?;
    assert!(report.is_complete(), "{report}");
    assert_eq!(within("all of them", consumer).await?, wanted);
    Ok(())
}

/// From connecting to the end of the handshake, in all.
#[tokio::test]
async fn a_transport_that_never_connects_is_given_up() -> Anything {
    let mut config = Config::default();
    config.transports = Transports::default().with(Pipes::default());
    config.limits.handshake_timeout = Duration::from_millis(100);
    let server = listen_and_serve(common::memory(), config.clone()).await?;
    let both = vec!["pipe://nobody".parse()?, server.addresses()[0].clone()];
    let session =
        within("the next address", dial(server.ticket().with_addresses(both)?, config.clone())).await?;
    drop(session);
    let nobody = server.ticket().with_addresses(vec!["pipe://nobody".parse()?])?;
    let error = within("dial", dial(nobody, config)).await.unwrap_err();
    assert!(matches!(&error, DialError::Unreachable { attempts } if attempts.len() == 1), "{error}");
    Ok(())
}
