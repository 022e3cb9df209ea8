//! Files of known hosts, and servers that are trusted on first use.

mod common;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use common::proxy::{Fault, Proxy};
use common::{Anything, DEADLINE, eventually, memory, within};
use netchan::address::Address;
use netchan::identity::AccessSecret;
use netchan::known_hosts::{FILE_BYTES_MAX, KEYS_PER_ADDRESS_MAX, KnownHostsError};
use netchan::transport::{BoxFuture, Link, Listener, Tcp, Transport, Transports};
use netchan::{
    Config, DialError, Fingerprint, FirstUse, Identity, KnownHosts, Server, Session, SessionEvent,
    SessionState, Ticket, listen_and_serve,
};
use netchan_proto::crypto::{
    Accepted, Aead, Gate, GateMatch, GateReject, Handshake, LocalKey, RefusalCode, SealBuf, ServerHandshake,
    ServerSettings,
};
use netchan_proto::id::{ChannelId, Epoch, Incarnation, SessionId};
use netchan_proto::limits::GATE_BYTES;
use netchan_proto::wire::Frame;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const SECRET: [u8; 32] = [5; 32];

fn secret() -> Option<AccessSecret> {
    Some(AccessSecret::new(SECRET))
}

fn key(seed: u8) -> Fingerprint {
    Identity::from_seed([seed; 32]).fingerprint()
}

/// A file in a directory of its own.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    fn open(&self) -> KnownHosts {
        KnownHosts::open(self.path()).unwrap()
    }

    fn with(text: &str) -> Self {
        let place = Self::new();
        place.write(text);
        place
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.path(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn error(&self) -> KnownHostsError {
        KnownHosts::open(self.path()).unwrap_err()
    }
}

/// A server with the key of a seed, and the secret of these tests.
async fn serve(address: &str, seed: u8) -> Server {
    serve_with(address, seed, SECRET).await
}

async fn serve_with(address: &str, seed: u8, secret: [u8; 32]) -> Server {
    let identity = Identity::from_seed([seed; 32]).with_access_secret(AccessSecret::new(secret));
    let config = Config::with_identity(identity);
    listen_and_serve(address, config).await.unwrap()
}

async fn dial(
    hosts: &KnownHosts,
    address: &str,
    secret: Option<AccessSecret>,
    first_use: FirstUse,
) -> Result<Session, DialError> {
    within("dial", hosts.dial(address, secret, first_use, Config::default())).await
}

fn known_hosts_error(result: Result<Session, DialError>) -> KnownHostsError {
    match result.expect_err("refused") {
        DialError::KnownHosts(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn lines_are_read_and_found_by_any_spelling() {
    let (one, two, three) = (key(1), key(2), key(3));
    let place = Place::with(&format!(
        "# a comment\n\n  \t\nserver.example.org:9876 {one}\r\ntcp://server.example.org:9876   {two}  # its next key\n\
         #server.example.org:9876 {three}\n[::1]:1 {three}\nunix:///run/app.sock {one}\nmemory://name#1 {two}",
    ));
    let hosts = place.open();
    assert_eq!(hosts.path(), place.path());
    for spelling in ["server.example.org:9876", "tcp://Server.Example.ORG:9876", " SERVER.example.org:9876 "]
    {
        assert_eq!(hosts.pins(spelling), [one, two], "{spelling}");
    }
    assert_eq!(hosts.pins("[0:0:0:0:0:0:0:1]:1"), [three]);
    assert_eq!(hosts.pins("unix:///run/app.sock"), [one]);
    assert_eq!(hosts.pins("memory://name#1"), [two]);
    for unknown in ["server.example.org:9877", "example.org:9876", "memory://NAME#1", "no address", ""] {
        assert_eq!(hosts.pins(unknown), [], "{unknown}");
    }
    let ticket = hosts.ticket("Server.example.org:9876", secret()).unwrap();
    let same = Ticket::pinned(vec!["server.example.org:9876".parse().unwrap()], one, secret()).unwrap();
    assert_eq!(ticket.to_string(), same.to_string());
    let error = hosts.ticket("elsewhere:1", None).unwrap_err().to_string();
    assert!(error.contains("add the line: tcp://elsewhere:1 SHA256:"), "{error}");
    assert!(error.contains(&place.path().display().to_string()), "{error}");
}

#[test]
fn one_line_that_is_not_understood_makes_the_file_unreadable() {
    let one = key(1);
    for (line, wrong) in [
        ("server:1".to_owned(), "expected an address and a key"),
        (format!("{one} server:1"), "is no port"),
        (format!("server {one}"), "no port"),
        ("server:1 SHA256:short".to_owned(), "not a fingerprint"),
        (format!("server:1 {one} and more"), "behind them"),
        (format!("server:1 {one} {one}"), "behind them"),
        (format!("netchan://server:1 {one}"), "ticket"),
        (format!("relative.sock://\u{0}bad\u{0} {}", &one.to_string()[..40]), "not a fingerprint"),
    ] {
        let place = Place::with(&format!("# a comment\nserver:1 {one}\n{line}\nserver:2 {one}\n"));
        let error = place.error();
        assert!(matches!(error, KnownHostsError::Line { line: 3, .. }), "{line}: {error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("{}:3: ", place.path().display())), "{text}");
        assert!(text.contains(wrong), "{text}");
    }
    let place = Place::new();
    place.write(b"# fine\nserver:1 \xff\n");
    assert!(matches!(place.error(), KnownHostsError::Line { line: 2, .. }));
    place.write(vec![b'#'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1]);
    assert!(matches!(place.error(), KnownHostsError::TooLong { .. }));
    let many: String = (0..=KEYS_PER_ADDRESS_MAX).map(|n| format!("server:1 {}\n", key(n as u8))).collect();
    place.write(many);
    assert!(matches!(place.error(), KnownHostsError::Line { line: 9, .. }), "{}", place.error());
    let error = KnownHosts::open(place.directory.path()).unwrap_err();
    assert!(matches!(error, KnownHostsError::NotAFile { .. }), "{error}");
}

#[test]
fn what_is_added_and_removed_leaves_the_rest_as_it_was() {
    let place = Place::new();
    let hosts = place.open();
    assert!(hosts.pins("server:1").is_empty() && !place.path().exists());
    hosts.add("Server:1", key(1)).unwrap();
    hosts.add("server:1", key(1)).unwrap();
    hosts.add("server:1", key(2)).unwrap();
    let lines = format!("tcp://server:1 {}\ntcp://server:1 {}\n", key(1), key(2));
    assert!(place.text().starts_with('#') && place.text().ends_with(&lines), "{}", place.text());
    assert_eq!(hosts.pins("server:1"), [key(1), key(2)]);

    // As a person would leave it: a comment, a note, no end of the last line.
    place.write(format!("# mine\nserver:1 {} # old\n\nother:1 {}", key(1), key(3)));
    hosts.add("server:1", key(2)).unwrap();
    assert_eq!(hosts.pins("other:1"), [key(3)], "what it says by now");
    assert_eq!(hosts.remove("SERVER:1", Some(key(1))).unwrap(), 1);
    assert_eq!(hosts.remove("server:1", Some(key(1))).unwrap(), 0);
    assert_eq!(place.text(), format!("# mine\n\nother:1 {}\ntcp://server:1 {}\n", key(3), key(2)));
    hosts.add("other:1", key(4)).unwrap();
    assert_eq!(hosts.remove("other:1", None).unwrap(), 2);
    assert_eq!(hosts.pins("other:1"), []);

    for bad in ["no address", "unix:///run/two words", "memory://a\nserver:1", "unix:///a\u{a0}b"] {
        assert!(hosts.add(bad, key(1)).is_err(), "{bad}");
    }
    let text = place.text();
    for n in 3..=KEYS_PER_ADDRESS_MAX + 1 {
        hosts.add("server:1", key(n as u8)).unwrap();
    }
    let error = hosts.add("server:1", key(99)).unwrap_err();
    assert!(matches!(error, KnownHostsError::TooManyKeys { .. }), "{error}");
    place.write(format!("{text}broken\n"));
    assert!(matches!(hosts.add("server:1", key(9)).unwrap_err(), KnownHostsError::Line { .. }));
    assert!(matches!(hosts.remove("server:1", None).unwrap_err(), KnownHostsError::Line { .. }));
    assert_eq!(place.text(), format!("{text}broken\n"), "left alone");
    let filler = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() - 20);
    place.write(&filler);
    assert!(matches!(hosts.add("server:1", key(9)).unwrap_err(), KnownHostsError::TooLong { .. }));
    assert_eq!(place.text(), filler);
    let names: Vec<_> =
        fs::read_dir(place.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the file and its lock: {names:?}");
}

#[test]
fn those_who_add_at_once_lose_nothing() {
    let place = Place::new();
    let (writers, each) = (8_u8, 12_u8);
    let start = Barrier::new(usize::from(writers));
    thread::scope(|scope| {
        for writer in 0..writers {
            let (place, start) = (&place, &start);
            // Every other one as another program would: with a file of its own, read before anyone has written.
            let hosts = place.open();
            scope.spawn(move || {
                start.wait();
                for n in 0..each {
                    hosts.add(&format!("server-{writer}:{}", 1 + n), key(n)).unwrap();
                    assert_eq!(hosts.pins(&format!("server-{writer}:{}", 1 + n)), [key(n)]);
                    // A reader never sees half a file.
                    place.open();
                }
            });
        }
    });
    let hosts = place.open();
    for writer in 0..writers {
        for n in 0..each {
            assert_eq!(hosts.pins(&format!("server-{writer}:{}", 1 + n)), [key(n)]);
        }
    }
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 2, "no drafts stay behind");
}

#[test]
fn one_that_holds_the_lock_is_waited_for_and_named() {
    let place = Place::new();
    let hosts = place.open();
    hosts.add("server:1", key(1)).unwrap();
    let lock = fs::File::open(place.directory.path().join("known_hosts.lock")).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let adding = scope.spawn(|| hosts.add("server:2", key(2)));
        assert_eq!(hosts.pins("server:1"), [key(1)], "who only asks does not wait");
        lock.unlock().unwrap();
        adding.join().unwrap().unwrap();
    });
    assert_eq!(hosts.pins("server:2"), [key(2)]);
    lock.lock().unwrap();
    let error = hosts.add("server:3", key(3)).unwrap_err();
    assert!(matches!(error, KnownHostsError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("known_hosts.lock"), "{error}");
}

#[cfg(unix)]
#[test]
fn it_is_its_owners_to_change() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let place = Place::new();
    let hosts = place.open();
    hosts.add("server:1", key(1)).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.path()), 0o600);
    for bad in [0o620, 0o602, 0o666] {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(bad)).unwrap();
        let text = place.error().to_string();
        assert!(text.contains(&format!("chmod go-w {}", place.path().display())), "{text}");
        assert!(matches!(hosts.add("server:2", key(2)).unwrap_err(), KnownHostsError::TooOpen { .. }));
    }
    // Others may read it, and may after a change.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o644)).unwrap();
    hosts.add("server:2", key(2)).unwrap();
    assert_eq!(mode(place.path()), 0o644);

    let link = place.directory.path().join("link");
    symlink(place.path(), &link).unwrap();
    KnownHosts::open(&link).unwrap().add("server:3", key(3)).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(place.open().pins("server:3"), [key(3)]);

    let error = KnownHosts::open(place.directory.path().join("no/such")).unwrap().add("server:1", key(1));
    assert!(error.unwrap_err().to_string().contains("mkdir -p"));
}

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

#[tokio::test]
async fn a_changed_key_is_refused_and_named() -> Anything {
    let (place, address) = (Place::new(), memory());
    place.write(format!("# mine\n\n{address} {}\n", key(1)));
    let hosts = place.open();
    let server = serve(&address, 2).await;
    for first_use in [FirstUse::Refuse, FirstUse::TrustAndRemember] {
        let error = dial(&hosts, &address, secret(), first_use).await.expect_err("another key");
        assert_eq!(error.fault(), netchan::Fault::Peer);
        let text = error.to_string();
        assert!(text.starts_with(&format!("the key of {address} has changed")), "{text}");
        let line = format!("Line 3 of {} says {}; ", place.path().display(), key(1));
        assert!(text.contains(&line), "{text}");
        assert!(text.contains(&format!("the server showed {}", key(2))), "{text}");
        match error {
            DialError::KnownHosts(KnownHostsError::KeyChanged(changed)) => {
                assert_eq!((&changed.known[..], changed.shown), (&[(3, key(1))][..], key(2)));
            }
            other => panic!("{other}"),
        }
    }
    assert!(server.clients().is_empty());
    assert_eq!(place.text(), format!("# mine\n\n{address} {}\n", key(1)), "left alone");

    // As its operator would do it; the file is read anew for each dial.
    place.write(format!("{address} {}\n", key(2)));
    dial(&hosts, &address, secret(), FirstUse::Refuse).await?;
    Ok(())
}

#[tokio::test]
async fn while_a_server_changes_its_key_both_are_accepted() -> Anything {
    let (place, address) = (Place::new(), memory());
    let hosts = place.open();
    for n in [1, 2, 3] {
        hosts.add(&address, key(n))?;
    }
    let mut admitting =
        Config::with_identity(Identity::from_seed([3; 32]).with_access_secret(secret().unwrap()));
    admitting.admit_without_secret = true;
    for seed in [1, 2] {
        let server = serve(&address, seed).await;
        let session = dial(&hosts, &address, secret(), FirstUse::Refuse).await?;
        assert_eq!(session.peer().fingerprint(), Some(key(seed)));
        let stranger = dial(&hosts, &address, None, FirstUse::Refuse).await.expect_err("no secret");
        assert!(matches!(stranger, DialError::ClosedWithoutAnswering { .. }), "{stranger}");
        drop(session);
        within("shutdown", server.shutdown(DEADLINE)).await?;
    }
    // Where the gate is made of the pin, each is tried.
    let server = listen_and_serve(address.clone(), admitting).await?;
    let session = dial(&hosts, &address, None, FirstUse::Refuse).await?;
    assert_eq!(session.peer().fingerprint(), Some(key(3)));
    drop(session);
    within("shutdown", server.shutdown(DEADLINE)).await?;

    let _server = serve(&address, 4).await;
    let error = known_hosts_error(dial(&hosts, &address, secret(), FirstUse::Refuse).await);
    match &error {
        KnownHostsError::KeyChanged(changed) => assert_eq!((changed.known.len(), changed.shown), (3, key(4))),
        other => panic!("{other}"),
    }
    Ok(())
}

/// A server that lets everybody in, and knows this secret or none.
struct Impostor {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

struct Wide(Option<AccessSecret>);

impl Gate for Wide {
    fn check(&self, _: &[u8; GATE_BYTES], _: &[u8], _: u64) -> Result<GateMatch, GateReject> {
        Ok(GateMatch { candidate: 0, secret: self.0.clone() })
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
        server.handle_input(&buffer[..count], 0).map_err(io::Error::other)?;
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
    hasty.handshake_timeout = std::time::Duration::from_millis(500);
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
