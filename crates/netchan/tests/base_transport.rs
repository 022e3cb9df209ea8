//! Every transport carries bytes both ways, and says what is wrong when it cannot.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::time::Duration;

use netchan::address::Address;
use netchan::transport::{BoxFuture, IoLink, Link, Listener, Tcp, Transport, TransportError, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn inner(error: &io::Error) -> &TransportError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("the built-in transports say why")
}

async fn refusal<T>(attempt: impl Future<Output = io::Result<T>>) -> io::Error {
    match attempt.await {
        Ok(_) => panic!("this must fail"),
        Err(error) => error,
    }
}

/// Sends half a megabyte each way at once, so that a link whose halves wait for each other would hang.
async fn talk(near: Box<dyn Link>, far: Box<dyn Link>) {
    const BYTES: usize = 512 * 1_024;
    async fn half(link: Box<dyn Link>, byte: u8) -> Vec<u8> {
        let (mut reader, mut writer) = link.split();
        let write = async move {
            writer.write_all(&vec![byte; BYTES]).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
        read.unwrap();
        received
    }
    let both = async { tokio::join!(half(near, 1), half(far, 2)) };
    let (at_near, at_far) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("no deadlock");
    assert!(at_near.len() == BYTES && at_near.iter().all(|&byte| byte == 2));
    assert!(at_far.len() == BYTES && at_far.iter().all(|&byte| byte == 1));
}

async fn echo(listen_on: Address) {
    let transports = Transports::default();
    let mut listener = transports.listen(&listen_on).await.unwrap();
    let dialed = listener.local_addresses().remove(0);
    assert_eq!(dialed.scheme(), listen_on.scheme());
    for _ in 0..3 {
        let (near, far) = tokio::join!(transports.connect(&dialed), listener.accept());
        let (near, far) = (near.unwrap(), far.unwrap());
        assert!(!near.peer_address().is_empty() && !far.peer_address().is_empty());
        talk(near, far).await;
    }
    // Dropping an accept loses nothing.
    assert!(tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err());
    let (near, far) = tokio::join!(transports.connect(&dialed), listener.accept());
    talk(near.unwrap(), far.unwrap()).await;
}

#[tokio::test]
async fn tcp_echoes() {
    echo(address("127.0.0.1:0")).await;
}

#[tokio::test]
async fn tcp_echoes_over_ipv6() {
    if StdTcpListener::bind("[::1]:0").is_err() {
        return; // A machine without IPv6 has nothing to test.
    }
    echo(address("[::1]:0")).await;
}

#[tokio::test]
async fn tcp_echoes_by_name() {
    echo(address("localhost:0")).await;
}

#[tokio::test]
async fn memory_echoes() {
    echo(address("memory://echo")).await;
}

#[tokio::test]
async fn tcp_reports_the_real_port_and_names_a_taken_one() {
    let transports = Transports::default();
    let listener = transports.listen(&address("127.0.0.1:0")).await.unwrap();
    let taken = listener.local_addresses().remove(0);
    let (_, port) = taken.host_port().unwrap();
    assert_ne!(port, 0);

    let error = refusal(transports.listen(&taken)).await;
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(matches!(inner(&error), TransportError::PortInUse { .. }));
    assert!(error.to_string().contains(&format!("port {port} is taken")), "{error}");

    drop(listener);
    transports.listen(&taken).await.expect("a server restarts on its port at once");
}

#[tokio::test]
async fn tcp_tries_every_address_and_lists_them() {
    let closed = StdTcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let transports = Transports::default();
    let error = refusal(transports.connect(&Address::tcp("localhost", closed).unwrap())).await;
    let TransportError::Unreachable { attempts, .. } = inner(&error) else { panic!("{error}") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    for attempt in attempts {
        assert!(error.to_string().contains(&attempt.address.to_string()), "{error}");
    }

    // localhost is ::1 as well on most machines: whichever answers is found.
    for host in ["127.0.0.1", "[::1]"] {
        let Ok(listener) = StdTcpListener::bind(format!("{host}:0")) else { continue };
        let port = listener.local_addr().unwrap().port();
        let named = Address::tcp("localhost", port).unwrap();
        let resolved: Vec<_> = tokio::net::lookup_host(("localhost", port)).await.unwrap().collect();
        if resolved.contains(&listener.local_addr().unwrap()) {
            Tcp::new().attempt_timeout(Duration::from_secs(1)).connect(&named).await.unwrap();
        }
    }
}

#[tokio::test]
async fn tcp_explains_names_and_foreign_addresses() {
    let transports = Transports::default();
    let error = refusal(transports.connect(&address("no-such-host.invalid:9"))).await;
    assert!(matches!(inner(&error), TransportError::Resolve { .. }), "{error}");
    assert!(error.to_string().contains("no-such-host.invalid"));
    let error = refusal(transports.listen(&address("192.0.2.1:0"))).await;
    assert!(matches!(inner(&error), TransportError::NotOurAddress { .. }), "{error}");
    let error = refusal(Tcp::new().connect(&address("memory://x"))).await;
    assert!(matches!(inner(&error), TransportError::WrongScheme { .. }), "{error}");
}

#[tokio::test]
async fn memory_names() {
    let transports = Transports::default();
    let name = address("memory://names");
    let error = refusal(transports.connect(&name)).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("listen before connecting"), "{error}");

    let listener = transports.listen(&name).await.unwrap();
    let error = refusal(transports.listen(&name)).await;
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    transports.listen(&name).await.expect("a dropped listener frees its name");
}

#[tokio::test]
async fn a_scheme_of_ones_own() {
    struct Loop;
    impl Transport for Loop {
        fn scheme(&self) -> &str {
            "loop"
        }
        fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
            Box::pin(async move {
                let (near, _far) = tokio::io::duplex(1);
                Ok(Box::new(IoLink::new(near, to.rest())) as Box<dyn Link>)
            })
        }
        fn listen<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }
    let there = address("loop://over there");
    let error = refusal(Transports::default().connect(&there)).await;
    let TransportError::UnknownScheme { known, .. } = inner(&error) else { panic!("{error}") };
    assert!(known.contains(&"tcp".to_owned()) && error.to_string().contains("tcp"), "{error}");
    let link = Transports::default().with(Loop).connect(&there).await.unwrap();
    assert_eq!(link.peer_address(), "over there");
    assert_eq!(Transports::none().with(Loop).schemes().collect::<Vec<_>>(), ["loop"]);
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener as StdUnixListener;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn echoes_for_its_owner_only_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = Transports::default().listen(&Address::unix(&path).unwrap()).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
        echo(Address::unix(&path).unwrap()).await;
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let at = Address::unix(&path).unwrap();
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed server leaves it");

        let transports = Transports::default();
        let error = refusal(transports.connect(&at)).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("check that the server runs"), "{error}");

        let _live = transports.listen(&at).await.unwrap();
        let error = refusal(transports.listen(&at)).await;
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        transports.connect(&at).await.expect("the live server goes on");
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = refusal(Transports::default().listen(&Address::unix(&path).unwrap())).await;
        assert!(matches!(inner(&error), TransportError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        let missing = Address::unix(directory.path().join("no/such/app.sock")).unwrap();
        let error = refusal(Transports::default().listen(&missing)).await;
        assert!(matches!(inner(&error), TransportError::Listen { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_successors_file_survives_the_predecessor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let at = Address::unix(&path).unwrap();
        let transports = Transports::default();
        let first = transports.listen(&at).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _second = transports.listen(&at).await.unwrap();
        drop(first);
        transports.connect(&at).await.expect("the second server's file is still there");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_that_start_over_a_stale_file_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = directory.path().join(format!("{round}.sock"));
            drop(StdUnixListener::bind(&path).unwrap());
            let at = Arc::new(Address::unix(&path).unwrap());
            let starting = (0..8).map(|_| {
                let at = Arc::clone(&at);
                tokio::spawn(async move { Transports::default().listen(&at).await })
            });
            let mut winners = Vec::new();
            for start in starting.collect::<Vec<_>>() {
                winners.extend(start.await.unwrap().ok());
            }
            assert_eq!(winners.len(), 1);
            Transports::default().connect(&at).await.expect("the winner is reachable");
        }
    }
}
