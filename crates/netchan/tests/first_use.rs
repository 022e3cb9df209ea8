//! Servers that are trusted on first use, and what may stand in their place.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::hosts::{Place, dial, key, known_hosts_error, secret, serve, serve_with};
use common::proxy::{Fault, Proxy};
use common::{Anything, eventually, memory, within};
use netchan::address::Address;
use netchan::identity::AccessSecret;
use netchan::known_hosts::KnownHostsError;
use netchan::transport::{BoxFuture, Link, Listener, Tcp, Transport, Transports};
use netchan::{Config, DialError, FirstUse, KnownHosts, SessionEvent, SessionState};
use netchan_proto::crypto::{
    Accepted, Aead, Gate, GateMatch, GateName, GateReject, GateTime, Handshake, LocalKey, RefusalCode,
    SealBuf, ServerHandshake, ServerSettings,
};
use netchan_proto::id::{ChannelId, Epoch, Incarnation, SessionId};
use netchan_proto::limits::GATE_BYTES;
use netchan_proto::wire::Frame;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::test]
async fn an_unknown_host_is_refused_unless_first_use_is_asked_for_with_a_secret() -> Anything {
    let place = Place::new();
    let hosts = place.open();
    // Whoever connects there is seen.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();

    for secret in [None, secret()] {
        let error = known_hosts_error(dial(&hosts, &address, secret, FirstUse::default()).await);
        assert!(matches!(error, KnownHostsError::UnknownHost { .. }), "{error}");
        assert!(error.to_string().contains("FirstUse::TrustAndRemember"), "{error}");
    }
    let error = known_hosts_error(dial(&hosts, &address, None, FirstUse::TrustAndRemember).await);
    assert!(matches!(error, KnownHostsError::FirstUseWithoutSecret { .. }), "{error}");
    assert!(error.to_string().contains("access secret"), "{error}");
    assert!(!place.path().exists());
    assert_eq!(poll_accept(&listener), None, "nobody has connected");

    let error = known_hosts_error(dial(&hosts, "no address", secret(), FirstUse::default()).await);
    assert!(matches!(error, KnownHostsError::Address(_)), "{error}");
    place.write("broken\n");
    let error = known_hosts_error(dial(&hosts, &address, secret(), FirstUse::TrustAndRemember).await);
    assert!(matches!(error, KnownHostsError::Line { line: 1, .. }), "{error}");
    assert_eq!(poll_accept(&listener), None);
    Ok(())
}

/// Who waits to be accepted, if anyone does.
fn poll_accept(listener: &TcpListener) -> Option<std::net::SocketAddr> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match listener.poll_accept(&mut context) {
        std::task::Poll::Ready(accepted) => Some(accepted.unwrap().1),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_server_met_once_is_known_from_then_on() -> Anything {
    let (place, address) = (Place::new(), memory());
    let hosts = place.open();
    let server = serve(&address, 1).await;
    let session = dial(&hosts, &address, secret(), FirstUse::TrustAndRemember).await?;
    assert_eq!(session.peer().fingerprint(), Some(key(1)));
    assert_eq!(hosts.pins(&address), [key(1)]);
    assert!(place.text().ends_with(&format!("{address} {}\n", key(1))));
    let values = server.sender::<u32>("values", 4)?;
    values.send(7).await?;
    let received = session.receiver::<u32>("values").await?;
    assert_eq!(within("recv", received.recv()).await?, Some(7));

    dial(&hosts, &address, secret(), FirstUse::Refuse).await?;
    dial(&place.open(), &address, secret(), FirstUse::TrustAndRemember).await?;
    assert_eq!(hosts.pins(&address), [key(1)]);
    Ok(())
}

/// A server that lets everybody in, and knows this secret or none.
struct Impostor {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

struct Wide(Option<AccessSecret>);

impl Gate for Wide {
    fn check(&self, _: &[u8; GATE_BYTES], _: &[u8], _: GateTime) -> Result<GateMatch, GateReject> {
        Ok(GateMatch { candidate: 0, secret: self.0.clone(), name: GateName::default() })
    }
}

/// What an impostor does when it has to answer.
#[derive(Clone, Copy)]
enum Act {
    /// Lets the client in, and confirms the link as well as it can.
    Confirm,
    /// Lets the client in, and says nothing more.
    Wait,
    /// Lets the client in, and goes.
    Leave,
    /// Turns the client away with words of its own.
    Refuse,
}

impl Impostor {
    async fn start(secret: Option<AccessSecret>, act: Act) -> Self {
        let key = LocalKey::from_seed([66; 32]).unwrap();
        let settings = ServerSettings::new(key, Arc::new(Wide(secret))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(pose(ServerHandshake::new(&settings), stream, act));
            }
        });
        Self { address, task }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pose(mut server: ServerHandshake, mut stream: TcpStream, act: Act) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let taken = server.handle_input(&buffer[..count]).map_err(io::Error::other)?;
        if server.awaits_gate() {
            server.check_gate(GateTime::default()).map_err(io::Error::other)?;
            server.handle_input(&buffer[taken..count]).map_err(io::Error::other)?;
        }
        if server.poll_hello().is_some() {
            match act {
                Act::Refuse => server.refuse(RefusalCode::Denied, "call \u{1b}[1m555-1234"),
                _ => server.accept(accepted(), None),
            }
            .map_err(io::Error::other)?;
        }
        while let Some(output) = server.poll_output() {
            stream.write_all(&output).await?;
        }
        if let Some(mut established) = server.poll_established() {
            let mut record = SealBuf::new(256);
            let confirm = Frame::Confirm { mac: established.keys.own_confirm }.to_vec();
            established.keys.sealer.seal(ChannelId::CONTROL, &confirm, &[], 0, &mut record).unwrap();
            match act {
                Act::Confirm => stream.write_all(record.filled()).await?,
                Act::Leave => return Ok(()),
                Act::Wait | Act::Refuse => {}
            }
        }
    }
}

fn accepted() -> Accepted {
    Accepted {
        session_id: SessionId([4; 16]),
        incarnation: Incarnation(5),
        epoch: Epoch(0),
        aead: Aead::Aes256Gcm,
        resumed: false,
        message_bytes_max: 1 << 20,
        channels_max: 1_000,
        agent: "an impostor".to_owned(),
    }
}

#[tokio::test]
async fn an_impostor_without_the_secret_is_never_remembered() -> Anything {
    let place = Place::new();
    let hosts = place.open();
    let another = Some(AccessSecret::new([6; 32]));
    for (secret_of_it, act) in [(None, Act::Confirm), (another, Act::Confirm), (secret(), Act::Leave)] {
        let impostor = Impostor::start(secret_of_it, act).await;
        let result = dial(&hosts, &impostor.address, secret(), FirstUse::TrustAndRemember).await;
        let error = result.expect_err("it does not confirm");
        assert!(matches!(error, DialError::Unconfirmed { .. }), "{error}");
        assert!(error.to_string().contains("its key was not remembered"), "{error}");
    }

    let impostor = Impostor::start(None, Act::Wait).await;
    let mut hasty = Config::default();
    hasty.limits.handshake_timeout = std::time::Duration::from_millis(500);
    let dialing = hosts.dial(&impostor.address, secret(), FirstUse::TrustAndRemember, hasty);
    let error = within("dial", dialing).await.expect_err("it says nothing");
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");

    let impostor = Impostor::start(None, Act::Refuse).await;
    let result = dial(&hosts, &impostor.address, secret(), FirstUse::TrustAndRemember).await;
    let error = result.expect_err("it refuses");
    assert!(matches!(error, DialError::Refused { code: RefusalCode::Denied, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("anybody could have answered so") && !text.contains('\u{1b}'), "{text}");

    // A server of another secret stays silent at its gate.
    let address = memory();
    let _server = serve_with(&address, 1, [6; 32]).await;
    let error =
        dial(&hosts, &address, secret(), FirstUse::TrustAndRemember).await.expect_err("another secret");
    assert!(matches!(error, DialError::ClosedWithoutAnswering { .. }), "{error}");
    assert!(!place.path().exists(), "nothing was remembered");
    Ok(())
}

/// What trust on first use does not promise: the secret is all that it goes by.
#[tokio::test]
async fn an_impostor_with_the_secret_is_taken_for_the_server_at_first_use_only() -> Anything {
    let place = Place::new();
    let hosts = place.open();
    let impostor = Impostor::start(secret(), Act::Confirm).await;
    let session = dial(&hosts, &impostor.address, secret(), FirstUse::TrustAndRemember).await?;
    assert_eq!(session.peer().fingerprint(), Some(key(66)));
    assert_eq!(hosts.pins(&impostor.address), [key(66)]);

    // Where the server is known, the secret does not help it.
    hosts.remove(&impostor.address, None)?;
    hosts.add(&impostor.address, key(1))?;
    for first_use in [FirstUse::Refuse, FirstUse::TrustAndRemember] {
        let error = known_hosts_error(dial(&hosts, &impostor.address, secret(), first_use).await);
        assert!(matches!(error, KnownHostsError::KeyChanged(_)), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_be_remembered_is_left() -> Anything {
    let directory = tempfile::tempdir()?;
    let hosts = KnownHosts::open(directory.path().join("no/such/known_hosts"))?;
    let address = memory();
    let server = serve(&address, 1).await;
    let error = dial(&hosts, &address, secret(), FirstUse::TrustAndRemember).await.expect_err("not written");
    match &error {
        DialError::NotRemembered { fingerprint, error, .. } => {
            assert_eq!(*fingerprint, key(1));
            assert!(matches!(**error, KnownHostsError::NoDirectory { .. }), "{error}");
        }
        other => panic!("{other}"),
    }
    let text = error.to_string();
    assert!(text.contains("the session was closed") && text.contains("mkdir -p"), "{text}");
    eventually("the server is left", || server.clients().is_empty()).await;
    Ok(())
}

/// Many that meet a server at once agree on one key, also where two of it answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_to_meet_a_server_decides() -> Anything {
    for _ in 0..10 {
        let place = Place::new();
        let (near, far) = (serve("127.0.0.1:0", 1).await, serve("127.0.0.1:0", 2).await);
        let targets = [&near, &far].map(|server| server.addresses()[0].clone());
        let dialing: Vec<_> = (0..6)
            .map(|n| {
                let hosts = place.open();
                let config = switched(&Switch::to(targets[n % 2].clone()));
                tokio::spawn(async move {
                    hosts.dial("switch://server", secret(), FirstUse::TrustAndRemember, config).await
                })
            })
            .collect();
        let mut met = Vec::new();
        for dialed in dialing {
            match within("dial", dialed).await? {
                Ok(session) => met.push(session.peer().fingerprint().unwrap()),
                Err(DialError::KnownHosts(KnownHostsError::KeyChanged(_))) => {}
                Err(other) => return Err(other.into()),
            }
        }
        let pins = place.open().pins("switch://server");
        assert_eq!(pins.len(), 1, "{}", place.text());
        assert_eq!(met, vec![pins[0]; 3]);
    }
    Ok(())
}

/// `switch://…` leads wherever a test says.
#[derive(Clone)]
struct Switch(Arc<(Mutex<Address>, AtomicUsize)>);

impl Switch {
    fn to(target: Address) -> Self {
        Self(Arc::new((Mutex::new(target), AtomicUsize::new(0))))
    }

    fn lead_to(&self, target: Address) {
        *self.0.0.lock() = target;
        self.0.1.store(0, Ordering::SeqCst);
    }

    /// Connections to the present target.
    fn connections(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Transport for Switch {
    fn scheme(&self) -> &str {
        "switch"
    }

    fn connect<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let target = self.0.0.lock().clone();
            self.0.1.fetch_add(1, Ordering::SeqCst);
            Tcp::new().connect(&target).await
        })
    }

    fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::Error::from(io::ErrorKind::Unsupported)) })
    }
}

fn switched(switch: &Switch) -> Config {
    let mut config = Config::default();
    config.transports = Transports::default().with(switch.clone());
    config
}

#[tokio::test]
async fn a_session_begun_at_first_use_goes_on_and_insists_on_the_learned_key() -> Anything {
    let place = Place::new();
    let hosts = place.open();
    let server = serve("127.0.0.1:0", 1).await;
    let values = server.receiver::<u32>("values", 4)?;
    let proxy = Proxy::start(&server, Fault::None, Fault::None).await;
    let real = proxy.ticket(&server).addresses()[0].clone();
    let switch = Switch::to(real.clone());
    let dialing = hosts.dial("switch://server", secret(), FirstUse::TrustAndRemember, switched(&switch));
    let session = within("dial", dialing).await?;
    let mut events = session.events();
    let sender = session.sender::<u32>("values").await?;
    sender.send(1).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(1));

    // The connection is cut, and goes on as if nothing had been.
    proxy.cut_now();
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    sender.send(2).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(2));

    // It is cut again, and another holder of the secret stands in the server's place. The file does not matter any more.
    hosts.remove("switch://server", None)?;
    let impostor = serve("127.0.0.1:0", 66).await;
    switch.lead_to(impostor.addresses()[0].clone());
    proxy.cut_now();
    eventually("the client has tried it twice", || switch.connections() >= 2).await;
    assert_eq!(session.state(), SessionState::Suspended);
    assert!(impostor.clients().is_empty());

    switch.lead_to(real);
    within("resumed", async { while events.recv().await != Some(SessionEvent::Resumed) {} }).await;
    sender.send(3).await?;
    assert_eq!(within("recv", values.recv()).await?, Some(3));
    assert_eq!(session.peer().fingerprint(), Some(key(1)));
    assert_eq!(session.stats().resumes, 2);
    Ok(())
}
