//! Identity files: kept, checked, shared, and never used when they should not be.

use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;

use netchan::identity::{AccessSecret, Identity, IdentityError, SignError, Signer};

fn same(a: &Identity, b: &Identity) -> bool {
    a.fingerprint() == b.fingerprint() && a.access_secret().expose() == b.access_secret().expose()
}

#[test]
fn a_seed_names_a_key() {
    // RFC 8032, section 7.1, test 1.
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
        0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    let identity = Identity::from_seed(seed);
    assert_eq!(identity.public_key()[..4], [0xd7, 0x5a, 0x98, 0x01]);
    assert!(same(&identity, &Identity::from_seed(seed)), "old tickets stay good");
    assert_eq!(identity.server_pin().0, identity.fingerprint().0);
    let text = identity.fingerprint().to_string();
    assert!(text.starts_with("SHA256:") && text.len() == 50, "{text}");
    assert_eq!(format!("{identity:?}"), format!("Identity({text})"));
    assert!(!same(&Identity::generate(), &Identity::generate()));
}

#[test]
fn a_signer_elsewhere() {
    #[derive(Debug)]
    struct Elsewhere([u8; 32]);
    impl Signer for Elsewhere {
        fn public_key(&self) -> [u8; 32] {
            self.0
        }
        fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
            Err(SignError)
        }
    }
    let here = Identity::from_seed([7; 32]);
    let there = Identity::from_signer(Arc::new(Elsewhere(here.public_key())), AccessSecret::new([1; 32]));
    assert_eq!(there.fingerprint(), here.fingerprint());
    assert!(same(&there, &here.with_access_secret(AccessSecret::new([1; 32]))));
}

#[test]
fn a_restarted_server_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.identity");
    let error = Identity::load(&path).unwrap_err();
    assert!(matches!(error, IdentityError::Missing { .. }) && error.to_string().contains("load_or_generate"));
    let first = Identity::load_or_generate(&path).unwrap();
    assert!(same(&first, &Identity::load_or_generate(&path).unwrap()));
    assert!(same(&first, &Identity::load(&path).unwrap()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no drafts stay behind");

    let rotated = Identity::rotate_access_secret(&path).unwrap();
    assert_eq!(rotated.fingerprint(), first.fingerprint());
    assert_ne!(rotated.access_secret().expose(), first.access_secret().expose());
    assert!(same(&rotated, &Identity::load(&path).unwrap()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the file and its lock");
}

#[test]
fn creators_at_once_end_with_one_identity() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = directory.path().join(round.to_string());
        let start = Barrier::new(8);
        let made: Vec<Identity> = thread::scope(|scope| {
            let create = || {
                start.wait();
                Identity::load_or_generate(&path).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|identity| same(identity, &made[0])));
    }
}

#[test]
fn the_directory_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let error = Identity::load_or_generate(directory.path().join("no/such/server.identity")).unwrap_err();
    assert!(matches!(error, IdentityError::NoDirectory { .. }));
    assert!(error.to_string().contains("mkdir -p"), "{error}");
    let error = Identity::load_or_generate(directory.path()).unwrap_err();
    assert!(matches!(error, IdentityError::NotAFile { .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn others_must_not_read_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.identity");
    let identity = Identity::load_or_generate(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_generate(&path).unwrap_err();
        assert!(matches!(error, IdentityError::TooOpen { .. }));
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(same(&identity, &Identity::load(&path).unwrap()));

    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(same(&Identity::rotate_access_secret(&link).unwrap(), &Identity::load(&path).unwrap()));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn every_change_to_the_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.identity");
    let identity = Identity::load_or_generate(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let try_text = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        Identity::load_or_generate(&path)
    };

    let secret_lines = text.find("\nkey ").unwrap() + 1;
    for at in 0..text.len() {
        let in_note = (text.find('#').unwrap()..secret_lines).contains(&at);
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        if !in_note {
            assert!(try_text(&changed).is_err(), "a change at {at} passed");
        }
        if at + 1 < text.len() {
            assert!(try_text(&text.as_bytes()[..at]).is_err(), "a cut at {at} passed");
        }
    }
    let commented = text.replace("\nkey ", "\n\n# moved from the old machine\r\nkey ");
    assert!(same(&identity, &try_text(commented.as_bytes()).unwrap()));

    let kind = |text: &[u8]| try_text(text).unwrap_err();
    assert!(matches!(kind(b"-----BEGIN PRIVATE KEY-----"), IdentityError::NotAnIdentity { .. }));
    assert!(matches!(kind(b""), IdentityError::NotAnIdentity { .. }));
    assert!(matches!(kind(&[0xff; 100_000]), IdentityError::NotAnIdentity { .. }));
    let newer = text.replace("identity 1", "identity 2");
    assert!(
        matches!(kind(newer.as_bytes()), IdentityError::UnknownVersion { version, .. } if version == "2")
    );
    let doubled = format!("{text}key more\n");
    assert!(matches!(kind(doubled.as_bytes()), IdentityError::Damaged { .. }));
    for text in [&b"netchan identity 1\nkey "[..], b"netchan identity 1\nkey AAAA\naccess AAAA\ncheck AAAA\n"]
    {
        assert!(matches!(kind(text), IdentityError::Damaged { .. }));
    }
}

#[test]
fn those_who_change_it_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    Identity::generate().save(&path).unwrap();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                Identity::update(&path, Identity::with_fresh_access_secret).unwrap();
            });
        }
    });
    assert_eq!(Identity::load(&path).unwrap().access_secrets().len(), 9);
    let retired = Identity::update(&path, |identity| Ok(identity.with_current_access_secret_only())).unwrap();
    assert_eq!(retired.access_secrets().len(), 1);
}

#[cfg(unix)]
#[test]
fn who_changes_it_leaves_owner_and_mode_as_they_were() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identity");
    Identity::generate().save(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    // Only a superuser can give it to somebody else; anybody can see that it stays.
    _ = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534));
    let before = fs::metadata(&path).unwrap();
    Identity::rotate_access_secret(&path).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
}

#[test]
fn a_ticket_is_no_path_and_is_not_quoted() {
    let ticket =
        netchan::Ticket::new(vec!["host:1".parse().unwrap()], &Identity::generate()).unwrap().to_string();
    for error in [
        Identity::load(&ticket).unwrap_err().to_string(),
        netchan::Ticket::load(&ticket).unwrap_err().to_string(),
    ] {
        assert!(error.contains("is a ticket") && !error.contains('#'), "{error}");
    }
    let lookup = netchan::Ticket::lookup().given(Some(ticket.clone()));
    assert!(!format!("{lookup:?}").contains(&ticket));
}
