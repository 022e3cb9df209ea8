//! Tickets: several addresses, any address, and servers that come back; and a session under load from all sides.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{Anything, DEADLINE, direct, tcp_pair, within};
use netchan::address::Address;
use netchan::{Config, DialError, Identity, dial, listen_and_serve};

#[tokio::test]
async fn the_addresses_of_a_ticket_are_tried_in_turn() -> Anything {
    let server = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    // One refuses, one is another netchan server, one never answers, one is gone.
    let refuses: Address = {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?.into()
    };
    let stranger = listen_and_serve("127.0.0.1:0", Config::default()).await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let mut addresses = vec![refuses.clone(), stranger.addresses()[0].clone(), silent.local_addr()?.into()];
    addresses.push("memory://nobody-is-here".parse()?);
    let mut config = Config::default();
    config.limits.handshake_timeout = Duration::from_millis(300);
    let nowhere = server.ticket().with_addresses(addresses.clone())?;
    let error = within("dial", dial(nowhere, config)).await.unwrap_err();
    assert!(matches!(error, DialError::ClosedWithoutAnswering { .. }), "{error}");
    addresses.push(server.addresses()[0].clone());
    let mut config = Config::default();
    config.limits.handshake_timeout = Duration::from_secs(2);
    let session = within("dial", dial(server.ticket().with_addresses(addresses)?, config)).await?;
    assert_eq!(session.peer().fingerprint(), Some(server.identity().fingerprint()));
    Ok(())
}

#[tokio::test]
async fn a_server_on_every_interface_has_a_ticket_that_works() -> Anything {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let server = listen_and_serve(address, Config::default()).await?;
        assert!(server.ticket().addresses().iter().all(|address| {
            address.ip().is_none_or(|ip| !ip.is_unspecified())
                && address.host_port().is_some_and(|(_, port)| port > 0)
        }));
        let session = within("dial", dial(server.ticket().to_string(), Config::default())).await?;
        session.close(DEADLINE).await?;
    }
    let mut config = Config::default();
    config.advertise = vec!["example.org:1".to_owned()];
    let server = listen_and_serve("0.0.0.0:0", config).await?;
    assert_eq!(server.ticket().addresses(), ["example.org:1".parse()?]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_keeps_its_ticket() -> Anything {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("server.key");
    let config = Config::with_identity(Identity::load_or_generate(&path)?);
    let first = listen_and_serve(common::own_address(), config).await?;
    let (ticket, address) = (first.ticket().to_string(), first.addresses()[0].to_string());
    let session = dial(&ticket, Config::default()).await?;
    first.shutdown(DEADLINE).await?;
    within("the end", session.ended()).await;
    drop(first);
    let second =
        listen_and_serve(&address, Config::with_identity(Identity::load_or_generate(&path)?)).await?;
    assert_eq!(second.ticket().to_string(), ticket);
    let again = within("the old ticket", dial(&ticket, Config::default())).await?;
    assert_eq!(again.peer().fingerprint(), session.peer().fingerprint());
    Ok(())
}

/// Four tasks on each of four channels each way, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_under_load_from_all_sides() -> Anything {
    const COUNT: u32 = 20_000;
    let (server, session) = tcp_pair().await;
    let mut tasks = Vec::new();
    for capacity in [4, 64, 1_000] {
        let (sender, receiver) = direct::<(u32, u32)>(&server, &session, capacity).await;
        tasks.push((sender, receiver));
    }
    let (to_clients, _own) = server.channel::<(u32, u32)>("down", 256)?;
    tasks.push((to_clients, session.receiver("down").await?));
    let up = server.receiver::<(u32, u32)>("up", 256)?;
    tasks.push((session.sender("up").await?, up));
    let mut all = Vec::new();
    for (sender, receiver) in tasks {
        for task in 0..4 {
            let sender = sender.clone();
            all.push(tokio::spawn(async move {
                for n in 0..COUNT / 4 {
                    sender.send((task, n)).await.unwrap();
                }
            }));
        }
        all.push(tokio::spawn(async move {
            let mut next = [0; 4];
            for _ in 0..COUNT {
                let (task, n) = receiver.recv().await.unwrap().unwrap();
                assert_eq!(n, next[task as usize]);
                next[task as usize] += 1;
            }
            drop(sender);
        }));
    }
    for task in all {
        tokio::time::timeout(Duration::from_secs(90), task).await??;
    }
    Ok(())
}
