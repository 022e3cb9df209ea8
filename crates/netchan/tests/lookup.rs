//! Where a program has its identity and its ticket from: given, file, environment, embedded, in this order.

use std::fs;

use netchan::identity::IdentityError;
use netchan::ticket::TicketError;
use netchan::{EmbeddedKey, EmbeddedTicket, Identity, Ticket};

const KEY: EmbeddedKey = netchan::embed_key!("examples/keys/worker.key", readable_by_others);
const TICKET: EmbeddedTicket = netchan::embed_ticket!("examples/keys/server.ticket", readable_by_others);

/// A variable that is set for every test, to what is no identity and no ticket: a directory.
const SET: &str = "CARGO_MANIFEST_DIR";
const UNSET: &str = "NETCHAN_TEST_NOT_SET";

#[test]
fn what_is_embedded_is_the_identity_of_the_file() {
    let embedded = Identity::embedded(KEY);
    let text = include_str!("../examples/keys/worker.key");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy");
    Identity::generate().save(&path).unwrap();
    // Written by hand into a file of the right mode.
    fs::write(&path, text).unwrap();
    let loaded = Identity::load(&path).unwrap();
    assert_eq!(embedded.fingerprint(), loaded.fingerprint());
    assert!(embedded.access_secrets() == loaded.access_secrets());
    assert!(matches!(embedded.save(directory.path().join("out")), Err(IdentityError::KeyElsewhere)));
    let ticket = Ticket::embedded(TICKET).unwrap();
    assert_eq!(ticket.to_string(), include_str!("../examples/keys/server.ticket").trim());
}

#[test]
fn an_identity_comes_from_the_first_place_that_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("identity");
    let (given, kept) = (Identity::generate(), Identity::generate());
    kept.save(&file).unwrap();
    let embedded = Identity::embedded(KEY).fingerprint();
    let all = || Identity::lookup().given(Some(given.clone())).file(&file).variable(SET).embedded(KEY);
    assert_eq!(all().find().unwrap().fingerprint(), given.fingerprint());
    assert_eq!(all().given(None).find().unwrap().fingerprint(), kept.fingerprint());
    let missing = directory.path().join("missing");
    let named = all().given(None).file(&missing).find().unwrap_err();
    assert!(matches!(named, IdentityError::NotAFile { .. }), "what is set is not passed over: {named}");
    let last = all().given(None).file(&missing).variable(UNSET).find().unwrap();
    assert_eq!(last.fingerprint(), embedded);
    let nowhere = Identity::lookup().file(&missing).variable(UNSET).find().unwrap_err().to_string();
    assert!(
        nowhere.contains("missing") && nowhere.contains(UNSET) && nowhere.contains("keygen"),
        "{nowhere}"
    );
    // A file that cannot be used is an error, and not none.
    fs::write(&file, "something else").unwrap();
    assert!(matches!(all().given(None).find(), Err(IdentityError::NotAnIdentity { .. })));
}

#[test]
fn a_ticket_comes_from_the_first_place_that_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ticket");
    let ticket =
        |host: &str| Ticket::new(vec![host.parse().unwrap()], &Identity::generate()).unwrap().to_string();
    let (given, kept) = (ticket("given:1"), ticket("kept:1"));
    fs::write(&file, format!("{kept}\n")).unwrap();
    let all = || Ticket::lookup().given(Some(given.clone())).file(&file).variable(SET).embedded(TICKET);
    assert_eq!(all().find().unwrap().to_string(), given);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let open = all().given(None).find().unwrap_err().to_string();
        assert!(open.contains("chmod 600") && !open.contains(&kept), "{open}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(all().given(None).find().unwrap().to_string(), kept);
    assert_eq!(Ticket::load(&file).unwrap().to_string(), kept);
    let missing = directory.path().join("missing");
    assert!(matches!(all().given(None).file(&missing).find(), Err(TicketError::NotATicket)));
    let last = all().given(None).file(&missing).variable(UNSET).find().unwrap();
    assert_eq!(last.to_string(), Ticket::embedded(TICKET).unwrap().to_string());
    assert!(matches!(Ticket::lookup().variable(UNSET).find(), Err(TicketError::Nowhere { .. })));
    assert!(matches!(Ticket::load(&missing), Err(TicketError::File { .. })));
    assert!(matches!(all().given(Some("typo".into())).find(), Err(TicketError::NotATicket)));
}
