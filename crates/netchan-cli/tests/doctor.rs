//! `netchan doctor` on the client's side, against servers that have each fault.

mod common;

use std::sync::{Arc, Mutex};

use common::{Files, Ran, run, run_with};
use netchan::identity::{AccessSecret, ServerPin};
use netchan::{
    Config, DuplicateSessions, Identity, PolicyFile, PolicySource, Server, Ticket, listen_and_serve,
};
use netchan_proto::crypto::{
    GateKeeper, GateKey, GateTime, Handshake, RefusalCode, ServerHandshake, ServerSettings,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const STEPS: [&str; 7] = ["name", "port", "gate", "key", "version", "authorization", "session"];

/// Runs the doctor with a ticket on its standard input. The secret is nowhere in what it says.
async fn doctor(ticket: &Ticket, arguments: &[&str]) -> Ran {
    let arguments = [&["doctor", "-"], arguments].concat();
    let ran = run_with(&arguments, &format!("{ticket}\n")).await;
    let ticket = ticket.to_string();
    let (_, code) = ticket.split_once('#').expect("a ticket");
    assert!(!format!("{ran:?}").contains(&code[..20]), "it shows the ticket: {ran:?}");
    ran
}

/// The verdicts of the steps to one address, a letter for each: + ok, ! failed, ? unknown.
fn letters(report: &Value, address: &str) -> String {
    let of: Vec<_> = checks(report).filter(|check| check["of"] == address).collect();
    assert!(of.iter().map(|check| check["check"].as_str().expect("text")).eq(STEPS), "{report}");
    of.into_iter().map(letter).collect()
}

fn letter(check: &Value) -> char {
    match check["verdict"].as_str() {
        Some("ok") => '+',
        Some("failed") => '!',
        Some("unknown") => '?',
        _ => panic!("no verdict in {check}"),
    }
}

fn checks(report: &Value) -> impl Iterator<Item = &Value> {
    report["checks"].as_array().expect("checks").iter()
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    checks(report).find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn seen<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["seen"].as_str().expect("text")
}

async fn serve(config: Config) -> Server {
    listen_and_serve("127.0.0.1:0", config).await.expect("it listens")
}

fn policy(text: &str) -> PolicySource {
    PolicySource::Policy(Arc::new(PolicyFile::parse(text, "policy.toml").expect("a policy")))
}

fn address(ticket: &Ticket) -> String {
    ticket.addresses()[0].to_string()
}

/// With another access secret, or none.
fn with_secret(ticket: &Ticket, secret: Option<[u8; 32]>) -> Ticket {
    let addresses = ticket.addresses().to_vec();
    Ticket::from_parts(addresses, ticket.server_pin(), secret.map(AccessSecret::new)).expect("a ticket")
}

fn with_pin(ticket: &Ticket, pin: ServerPin) -> Ticket {
    let addresses = ticket.addresses().to_vec();
    Ticket::from_parts(addresses, pin, ticket.access_secret().cloned()).expect("a ticket")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_ticket_passes_every_check_and_moves_no_value() {
    let mut config = Config::default();
    // The doctor leaves before it comes again.
    config.duplicate_sessions = DuplicateSessions::Refuse;
    let server = serve(config).await;
    let tasks = server.sender::<u32>("tasks", 4).expect("it is hosted");
    let results = server.receiver::<String>("results", 4).expect("it is hosted");
    tasks.send(1).await.expect("there is room");
    let port = server.addresses()[0].host_port().expect("TCP").1;
    let both = vec![server.addresses()[0].clone(), format!("localhost:{port}").parse().expect("an address")];
    let ticket = server.ticket().with_addresses(both).expect("a ticket");

    let ran = doctor(&ticket, &["--json", "--channel", "tasks", "--action", "recv"]).await;
    let report = ran.json();
    assert_eq!((ran.code, &report["ok"]), (Some(0), &true.into()), "{report}");
    for address in ticket.addresses() {
        assert_eq!(letters(&report, &address.to_string()), "+++++++", "{report}");
    }
    assert_eq!(report["clock"].as_str().map(|clock| clock.ends_with('Z')), Some(true), "{report}");
    let channels = report["channels"].as_array().expect("channels");
    let of = |name| channels.iter().find(|channel| channel["name"] == name).expect("it was announced");
    assert_eq!((&of("tasks")["recv"], &of("tasks")["send"]), (&true.into(), &false.into()));
    assert_eq!((&of("results")["recv"], &of("results")["send"]), (&false.into(), &true.into()));
    assert_eq!((&of("tasks")["type"], &of("results")["hosted"]), (&"u32".into(), &true.into()));
    assert!(seen(&report, "channel").contains("allowed"), "{report}");
    assert_eq!(server.hosted().iter().map(|hosted| hosted.depth).sum::<u64>(), 1, "the task is where it was");

    let ran = doctor(&ticket, &["--channel", "results", "--action", "recv"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("FAILED   channel         the channel is not for that"), "{ran:?}");
    let ran = doctor(&ticket, &["--channel", "results"]).await;
    assert_eq!(ran.code, Some(0), "what a channel is not for is no fault, unless it was asked for: {ran:?}");
    let ran = doctor(&ticket, &["--channel", "resutls", "--action", "send"]).await;
    assert!(ran.code == Some(1) && ran.out.contains("does not host it"), "{ran:?}");
    drop(results);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_comes_from_a_file_or_the_command_line_too() {
    let (server, files) = (serve(Config::default()).await, Files::new());
    let text = server.ticket().to_string();
    let path = files.write("t.ticket", &format!("{text}\n"));
    #[cfg(unix)]
    common::set_mode(&path, 0o644);
    let ran = run(&["doctor", "--ticket-file", &path]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    #[cfg(unix)]
    assert!(ran.out.contains(&format!("chmod 600 {path}")), "{ran:?}");
    assert_eq!(run(&["doctor", &text]).await.code, Some(0));

    let mut typo = text.clone();
    typo.replace_range(10..11, "9");
    let ran = run(&["doctor", "--json", &typo]).await;
    assert_eq!((ran.code, &check(&ran.json(), "ticket")["verdict"]), (Some(1), &"failed".into()), "{ran:?}");
    assert_eq!(run(&["doctor"]).await.code, Some(2));
    assert_eq!(
        run(&["doctor", "-", "--policy", "p.toml"]).await.code,
        Some(2),
        "that is the server's side's"
    );
    let none = run(&["doctor", "--ticket-file", &files.path("none")]).await;
    assert!(none.code == Some(1) && none.errors.contains("cannot read the ticket"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_port_is_it() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = format!("tcp://{}", free.local_addr().expect("bound"));
    drop(free);
    let ticket =
        Ticket::new(vec![nobody.parse().expect("an address")], &Identity::generate()).expect("a ticket");
    let ran = doctor(&ticket, &["--json", "--channel", "x"]).await;
    let report = ran.json();
    assert_eq!((ran.code, &*letters(&report, &nobody)), (Some(1), "+!?????"), "{report}");
    assert!(check(&report, "port")["try"][0].as_str().is_some_and(|text| text.contains("nothing listens")));
    assert_eq!(check(&report, "channel")["verdict"], "unknown");

    let files = Files::new();
    let socket = format!("unix://{}", files.path("none.sock"));
    let ticket = ticket.with_addresses(vec![socket.parse().expect("an address")]).expect("a ticket");
    assert_eq!(letters(&doctor(&ticket, &["--json"]).await.json(), &socket), "!??????");
    let elsewhere = "memory://jobs";
    let ticket = ticket.with_addresses(vec![elsewhere.parse().expect("an address")]).expect("a ticket");
    assert_eq!(letters(&doctor(&ticket, &["--json"]).await.json(), elsewhere), "???????");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows_is_it() {
    let name = "tcp://no-such-host.invalid:9";
    let ticket =
        Ticket::new(vec![name.parse().expect("an address")], &Identity::generate()).expect("a ticket");
    let report = doctor(&ticket, &["--json"]).await.json();
    assert_eq!(letters(&report, name), "!??????", "{report}");
    assert!(seen(&report, "name").contains("no-such-host.invalid"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_how_to_find_out_and_no_more() {
    let server = serve(Config::default()).await;
    let files = Files::new();
    let me = files.path("me.identity");
    let fingerprint = Identity::load_or_generate(&me).expect("an identity").fingerprint().to_string();
    let good = server.ticket();
    for ticket in [with_secret(&good, Some([7; 32])), with_secret(&good, None)] {
        let ran = doctor(&ticket, &["--json", "--identity", &me, "--channel", "a b"]).await;
        let report = ran.json();
        assert_eq!((ran.code, &*letters(&report, &address(&ticket))), (Some(1), "++!????"), "{report}");
        assert!(seen(&report, "gate").contains("closed without answering"), "{report}");
        let advice = check(&report, "gate")["try"].to_string();
        let clock = report["clock"].as_str().expect("text");
        let command = format!(
            "netchan doctor --server --identity FILE --policy FILE --peer {fingerprint} --channel 'a b' -"
        );
        for what in ["newer ticket", clock, "date -u", "overloaded", &command, "--listen 0.0.0.0:"] {
            assert!(advice.contains(what), "{what}: {advice}");
        }
    }
    // Who holds the secret learns that the key is another.
    let ticket = with_pin(&good, Identity::generate().server_pin());
    let report = doctor(&ticket, &["--json"]).await.json();
    assert_eq!(letters(&report, &address(&ticket)), "++?!???", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_enough_where_the_server_says_so() {
    let mut config = Config::default();
    config.admit_without_secret = true;
    let server = serve(config).await;
    let ticket = server.ticket().pin_only();
    assert_eq!(doctor(&ticket, &[]).await.code, Some(0));
    let wrong = with_pin(&ticket, Identity::generate().server_pin());
    assert_eq!(letters(&doctor(&wrong, &["--json"]).await.json(), &address(&wrong)), "++!????");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_who_comes_in_and_what_they_use() {
    let files = Files::new();
    let (worker, stranger) = (files.path("worker.identity"), files.path("stranger.identity"));
    let key = Identity::load_or_generate(&worker).expect("an identity").fingerprint();
    Identity::load_or_generate(&stranger).expect("an identity");
    let mut config = Config::default();
    config.policy = policy(&format!(
        "[peer.worker]\nkey = \"{key}\"\n[[rule]]\nwho = \"worker\"\nchannel = \"jobs.*\"\nallow = \"recv\"\n"
    ));
    let server = serve(config).await;
    let _hosted = [server.sender::<u32>("jobs.a", 4), server.sender::<u32>("secrets", 4)].map(Result::unwrap);
    let ticket = server.ticket();

    let report = doctor(&ticket, &["--json", "--identity", &stranger]).await.json();
    assert_eq!(letters(&report, &address(&ticket)), "+++++!?", "{report}");
    let report = doctor(&ticket, &["--json", "--identity", &worker, "--channel", "secrets"]).await.json();
    assert_eq!(letters(&report, &address(&ticket)), "+++++++", "{report}");
    let channels = report["channels"].as_array().expect("channels");
    assert!(channels.len() == 1 && channels[0]["name"] == "jobs.a", "{report}");
    assert_eq!(check(&report, "channel")["verdict"], "failed", "{report}");
    assert!(seen(&report, "channel").contains("denied"), "{report}");
    let ran = doctor(&ticket, &["--identity", &worker, "--channel", "jobs.a"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = doctor(&ticket, &["--identity", &files.path("none")]).await;
    assert!(ran.code == Some(1) && ran.out.contains("FAILED   identity"), "{ran:?}");
}

/// A server that opens its gate and refuses, or leaves without a word when it has heard who it is.
async fn refuser(refusal: Option<(RefusalCode, &'static str)>) -> Ticket {
    let identity = Identity::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").into();
    let ticket = Ticket::new(vec![address], &identity).expect("a ticket");
    let keeper = GateKeeper::new(vec![GateKey::Secret(identity.access_secret().clone())], None, 16);
    let gate = Arc::new(Mutex::new(keeper.expect("one key")));
    let settings = ServerSettings::new(identity.key().clone(), gate).expect("settings");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut server = ServerHandshake::new(&settings);
        let (mut input, mut refused) = (Vec::new(), false);
        while !refused && stream.read_buf(&mut input).await.expect("bytes") > 0 {
            loop {
                let consumed = server.handle_input(&input).expect("a client's");
                input.drain(..consumed);
                if server.awaits_gate() {
                    server.check_gate(GateTime::default()).expect("it opens");
                } else if server.poll_hello().is_some() {
                    let Some((code, reason)) = refusal else { return };
                    server.refuse(code, reason).expect("it can be refused");
                    refused = true;
                } else if consumed == 0 {
                    break;
                }
            }
            while let Some(output) = server.poll_output() {
                stream.write_all(&output).await.expect("it reads");
            }
        }
    });
    ticket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_how_far_it_came() {
    let reason = "this server speaks version 2, not 1; update the older of the two";
    let ticket = refuser(Some((RefusalCode::VersionUnsupported, reason))).await;
    let report = doctor(&ticket, &["--json"]).await.json();
    assert_eq!(letters(&report, &address(&ticket)), "++++!??", "{report}");
    assert!(seen(&report, "version").contains(reason), "{report}");

    let ticket =
        refuser(Some((RefusalCode::TooManySessions, "the server has its 3 sessions\u{1b}[2J"))).await;
    let ran = doctor(&ticket, &[]).await;
    assert!(ran.out.contains("FAILED   session         refused: too many sessions"), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}'), "a server does not write to the terminal what it likes");

    // Its key was the right one, or the client would not have said who it is.
    let ticket = refuser(None).await;
    assert_eq!(letters(&doctor(&ticket, &["--json"]).await.json(), &address(&ticket)), "++++??!");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_is_known_by_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"SSH-2.0-Example\r\n").await.expect("it reads");
        // Until the other end has gone.
        _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let ticket = Ticket::new(vec![address.into()], &Identity::generate()).expect("a ticket");
    let report = doctor(&ticket, &["--json"]).await.json();
    assert_eq!(letters(&report, &format!("tcp://{address}")), "++!????", "{report}");
    assert!(seen(&report, "gate").contains("an SSH server"), "{report}");
}
