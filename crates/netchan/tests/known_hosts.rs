//! Files of known hosts, and servers that are dialed by them.

mod common;

use std::fs;
use std::sync::Barrier;
use std::thread;

use common::hosts::{Place, dial, key, known_hosts_error, secret, serve};
use common::{Anything, DEADLINE, memory, within};
use netchan::known_hosts::{FILE_BYTES_MAX, KEYS_PER_ADDRESS_MAX, KnownHostsError};
use netchan::{Config, DialError, FirstUse, Identity, KnownHosts, Ticket, listen_and_serve};

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
