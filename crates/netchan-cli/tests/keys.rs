//! `netchan keygen`, `id`, `rotate` and `ticket`, run as their users run them.

mod common;

use common::{Files, Ran, run};
use netchan::{Config, Identity, Ticket, dial, listen_and_serve};

async fn keygen(files: &Files) -> String {
    let path = files.path("server.identity");
    let made = run(&["keygen", &path]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    path
}

fn ticket_of(ran: &Ran) -> Ticket {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.out.parse().unwrap_or_else(|error| panic!("{error} in {ran:?}"))
}

/// The base64 of each line of an identity file: none of it may be printed but by `ticket`.
fn secrets(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("an identity file");
    let secret = |line: &str| line.strip_prefix("key ").or(line.strip_prefix("access ")).map(str::to_owned);
    text.lines().filter_map(secret).collect()
}

#[tokio::test]
async fn keygen_makes_a_file_for_its_owner_only_and_says_what_comes_next() {
    let files = Files::new();
    let path = files.path("a.identity");
    let made = run(&["keygen", &path]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let identity = Identity::load(&path).expect("an identity");
    assert_eq!(made.out.lines().next(), Some(&*identity.fingerprint().to_string()));
    assert!(made.out.contains(&format!("netchan ticket {path} --address HOST:PORT")), "{made:?}");
    #[cfg(unix)]
    assert_eq!(common::mode(&path), 0o600);

    let other = files.path("b.identity");
    let json = run(&["keygen", &other, "--json"]).await.json();
    let identity = Identity::load(&other).expect("an identity");
    assert_eq!(json["fingerprint"], identity.fingerprint().to_string());
    assert_eq!((&json["file"], &json["access_secrets"]), (&other.into(), &1.into()));
}

#[tokio::test]
async fn keygen_replaces_nothing_and_says_what_is_there() {
    let files = Files::new();
    let path = keygen(&files).await;
    let fingerprint = Identity::load(&path).expect("an identity").fingerprint().to_string();
    let text = files.write("notes.txt", "not a key");
    #[cfg(unix)]
    common::set_mode(&text, 0o600);
    let directory = files.path("");
    let mut cases =
        vec![(&path, &*fingerprint), (&text, "not a netchan identity"), (&directory, "not a file")];
    let link = files.path("link");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(files.path("nowhere"), &link).expect("a link");
        cases.push((&link, "a link that leads nowhere"));
    }
    let before = (std::fs::read(&path).expect("it is there"), files.names());
    for (path, what) in cases {
        let refused = run(&["keygen", path]).await;
        assert_eq!((refused.code, &*refused.out), (Some(1), ""), "{path}: {refused:?}");
        assert!(
            refused.errors.contains("nothing was made") && refused.errors.contains(what),
            "{path}: {refused:?}"
        );
    }
    assert_eq!(before, (std::fs::read(&path).expect("it is there"), files.names()));
    let refused = run(&["keygen", &files.path("none/x")]).await;
    assert!(refused.errors.contains("mkdir -p"), "{refused:?}");
}

#[tokio::test]
async fn id_says_who_it_is_and_no_secret() {
    let files = Files::new();
    let path = keygen(&files).await;
    let shown = run(&["id", &path]).await;
    let fingerprint = Identity::load(&path).expect("an identity").fingerprint().to_string();
    assert_eq!((shown.code, &*shown.out), (Some(0), &*format!("{fingerprint}\n1 access secret\n")));
    run(&["rotate", &path]).await;
    let as_json = run(&["id", &path, "--json"]).await;
    assert_eq!(as_json.json()["fingerprint"], fingerprint);
    assert_eq!(as_json.json()["access_secrets"], 2);
    let rotated = run(&["rotate", &path]).await;
    let secrets = secrets(&path);
    assert_eq!(secrets.len(), 4);
    for ran in [shown, as_json, rotated] {
        let text = format!("{ran:?}");
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    }
    let none = run(&["id", &files.path("none")]).await;
    assert!(none.code == Some(1) && none.errors.contains("netchan keygen"), "{none:?}");
    #[cfg(unix)]
    {
        common::set_mode(&path, 0o640);
        let open = run(&["id", &path]).await;
        assert!(open.code == Some(1) && open.errors.contains("chmod 600"), "{open:?}");
    }
}

#[tokio::test]
async fn a_ticket_goes_to_a_file_of_its_own() {
    let files = Files::new();
    let path = keygen(&files).await;
    let identity = Identity::load(&path).expect("an identity");
    let printed = run(&["ticket", &path, "--address", "a:1", "--address", "unix:///run/b.sock"]).await;
    let ticket = ticket_of(&printed);
    assert_eq!(printed.out.lines().count(), 1, "the ticket and nothing else");
    assert_eq!(ticket.server_pin(), identity.server_pin());
    assert_eq!(ticket.access_secret(), Some(identity.access_secret()));
    let addresses: Vec<_> = ticket.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["tcp://a:1", "unix:///run/b.sock"]);
    assert!(printed.errors.contains("as you would a password"), "{printed:?}");

    let to = files.path("t.ticket");
    let written = run(&["ticket", &path, "--address", "a:1", "--to", &to, "--json"]).await;
    assert_eq!((written.code, &written.json()["file"]), (Some(0), &to.as_str().into()), "{written:?}");
    let text = std::fs::read_to_string(&to).expect("it was written");
    assert!(!written.out.contains(text.trim()), "a ticket that goes to a file goes nowhere else");
    assert_eq!(text.parse::<Ticket>().expect("a ticket").access_secret(), Some(identity.access_secret()));
    #[cfg(unix)]
    assert_eq!(common::mode(&to), 0o600);
    let again = run(&["ticket", &path, "--address", "b:1", "--to", &to]).await;
    assert!(again.code == Some(1) && again.errors.contains("left alone"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&to).expect("it is there"), text);

    let public = run(&["ticket", &path, "--address", "a:1", "--pin-only", "--json"]).await.json();
    let ticket: Ticket = public["ticket"].as_str().expect("text").parse().expect("a ticket");
    assert!(ticket.access_secret().is_none() && public["has_secret"] == false);

    for (address, what) in
        [("0.0.0.0:9", "is where a server listens"), ("a:0", "no port that a client can dial")]
    {
        let refused = run(&["ticket", &path, "--address", address]).await;
        assert!(refused.code == Some(1) && refused.errors.contains(what), "{refused:?}");
    }
    assert_eq!(run(&["ticket", &path]).await.code, Some(2), "a ticket needs an address");
}

/// The whole of a rotation, with a session that lives through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_drops_nobody_who_has_a_new_ticket() {
    let files = Files::new();
    let path = keygen(&files).await;
    let server =
        listen_and_serve("127.0.0.1:0", Config::with_identity(Identity::load(&path).expect("an identity")))
            .await
            .expect("it listens");
    let values = server.receiver::<u32>("values", 4).expect("it is hosted");
    let address = server.addresses()[0].to_string();
    let issue = || async { ticket_of(&run(&["ticket", &path, "--address", &address]).await) };
    // What the program does on SIGHUP.
    let reload =
        || server.use_access_secrets(&Identity::load(&path).expect("an identity")).expect("its own key");
    let comes_in = async |ticket: &Ticket| dial(ticket, Config::default()).await.is_ok();

    let old = issue().await;
    let session = dial(&old, Config::default()).await.expect("it comes in");
    let sender = session.sender::<u32>("values").await.expect("it is open");

    let rotated = run(&["rotate", &path]).await;
    assert!(rotated.out.contains("--retire") && rotated.out.contains("use_access_secrets"), "{rotated:?}");
    reload();
    let new = issue().await;
    assert_ne!(old.access_secret(), new.access_secret());
    assert!(comes_in(&old).await && comes_in(&new).await);

    let retired = run(&["rotate", &path, "--retire"]).await;
    assert!(retired.code == Some(0) && retired.out.contains("1 access secret now"), "{retired:?}");
    reload();
    assert!(!comes_in(&old).await && comes_in(&new).await);

    let replaced = run(&["rotate", &path, "--at-once", "--json"]).await.json();
    assert_eq!(
        (&replaced["access_secrets"], replaced["next"][1].is_string()),
        (&1.into(), true),
        "{replaced}"
    );
    reload();
    assert!(!comes_in(&new).await && comes_in(&issue().await).await);

    sender.send(7).await.expect("the session is as it was");
    assert_eq!(values.recv().await.expect("a value"), Some(7));
    assert_eq!(session.stats().resumes, 0);
}

#[tokio::test]
async fn an_identity_has_as_many_secrets_as_a_listener_tries() {
    let files = Files::new();
    let path = keygen(&files).await;
    for count in 2..=netchan::identity::ACCESS_SECRETS_MAX {
        let rotated = run(&["rotate", &path, "--json"]).await.json();
        assert_eq!(rotated["access_secrets"], count);
    }
    let refused = run(&["rotate", &path]).await;
    assert!(refused.code == Some(1) && refused.errors.contains("netchan rotate --retire"), "{refused:?}");
    assert_eq!(run(&["rotate", &path, "--retire", "--at-once"]).await.code, Some(2));
}
