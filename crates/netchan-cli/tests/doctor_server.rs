//! `netchan doctor --server`: what only the server's side can know.

#![cfg(unix)]

mod common;

use common::{Files, Ran, run, run_with};
use netchan::identity::AccessSecret;
use netchan::{Config, Identity, Ticket, dial};
use netchan_proto::crypto::{GateKey, make_gate};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

const POLICY: &str = r#"
[peer.worker]
key = "KEY"

[[rule]]
who = "worker"
channel = "jobs.*"
allow = "recv"

[[rule]]
who = "worker"
channel = "jobs.secret"
deny = "recv"
"#;

/// A server's files.
struct Place {
    files: Files,
    identity: String,
    policy: String,
    worker: Identity,
}

impl Place {
    fn new() -> Self {
        let files = Files::new();
        let identity = files.path("server.identity");
        Identity::load_or_generate(&identity).expect("an identity");
        let worker = Identity::generate();
        let policy = files.write("policy.toml", &POLICY.replace("KEY", &worker.fingerprint().to_string()));
        Self { files, identity, policy, worker }
    }

    fn load(&self) -> Identity {
        Identity::load(&self.identity).expect("an identity")
    }

    fn ticket(&self) -> Ticket {
        ticket_of(&self.load())
    }

    async fn doctor(&self, arguments: &[&str]) -> Ran {
        run(&[&["doctor", "--server", "--identity", &self.identity], arguments].concat()).await
    }

    async fn doctor_on(&self, ticket: &Ticket, arguments: &[&str]) -> Ran {
        let arguments = [&["doctor", "--server", "--identity", &self.identity, "-"], arguments].concat();
        let ran = run_with(&arguments, &format!("{ticket}\n")).await;
        let ticket = ticket.to_string();
        let (_, code) = ticket.split_once('#').expect("a ticket");
        assert!(!format!("{ran:?}").contains(&code[..20]), "it shows the ticket: {ran:?}");
        ran
    }
}

fn ticket_of(identity: &Identity) -> Ticket {
    Ticket::new(vec!["server.example.org:9876".parse().expect("an address")], identity).expect("a ticket")
}

fn check(ran: &Ran, name: &str) -> Value {
    let report = ran.json();
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .find(|check| check["check"] == name)
        .unwrap_or_else(|| panic!("no {name} in {report}"))
        .clone()
}

/// Whether a check has this verdict and says so.
fn assert_check(ran: &Ran, name: &str, verdict: &str, seen: &str) {
    let check = check(ran, name);
    assert!(check["seen"].as_str().is_some_and(|text| text.contains(seen)), "{seen:?}: {check}");
    assert_eq!(check["verdict"], verdict, "{check}");
    let unfinished = if verdict == "ok" { None } else { Some(1) };
    assert!(unfinished.is_none() || ran.code == unfinished, "{ran:?}");
}

#[tokio::test]
async fn a_server_in_order_is_said_to_be() {
    let place = Place::new();
    let ran = place.doctor_on(&place.ticket(), &["--json", "--policy", &place.policy]).await;
    assert_eq!((ran.code, &ran.json()["ok"]), (Some(0), &true.into()), "{ran:?}");
    assert_check(&ran, "identity", "ok", &place.load().fingerprint().to_string());
    assert_check(&ran, "identity", "ok", "1 access secret");
    assert_check(&ran, "descriptors", "ok", "sessions");
    assert_check(&ran, "policy", "ok", "1 peer, 2 rules");
    assert_check(&ran, "ticket", "ok", "tcp://server.example.org:9876");
    assert_check(&ran, "key", "ok", "this server's");
    assert_check(&ran, "secret", "ok", "the current one of 1");
}

#[tokio::test]
async fn every_access_secret_is_told_from_the_others() {
    let place = Place::new();
    let old = place.ticket();
    place
        .load()
        .with_fresh_access_secret()
        .expect("there is room")
        .save(&place.identity)
        .expect("it is ours");
    assert_check(
        &place.doctor_on(&place.ticket(), &["--json"]).await,
        "secret",
        "ok",
        "the current one of 2",
    );
    assert_check(
        &place.doctor_on(&old, &["--json"]).await,
        "secret",
        "ok",
        "number 2 of 2: good until it is retired",
    );

    place.load().with_current_access_secret_only().save(&place.identity).expect("it is ours");
    let retired = place.doctor_on(&old, &["--json"]).await;
    assert_check(&retired, "key", "ok", "this server's");
    assert_check(&retired, "secret", "failed", "it was retired");

    let other = place.doctor_on(&ticket_of(&Identity::generate()), &["--json"]).await;
    assert_check(&other, "key", "failed", "and this server's is");
    assert_check(&other, "secret", "failed", "another server's");

    let pin_only = place.ticket().pin_only();
    assert_check(&place.doctor_on(&pin_only, &["--json"]).await, "secret", "failed", "at the gate");
    let admitting = place.doctor_on(&pin_only, &["--json", "--admit-without-secret"]).await;
    assert_check(&admitting, "secret", "ok", "the gate opens");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let place = Place::new();
    let broken =
        place.files.write("broken.toml", "[[rule]]\nwho = \"nobody\"\nchannel = \"a\"\nallow = \"recv\"\n");
    let ran = place.doctor(&["--json", "--policy", &broken, "--peer", "worker"]).await;
    assert_check(&ran, "policy", "failed", &format!("{broken}:2:"));
    assert_eq!(check(&ran, "policy")["problems"][0]["line"], 2, "{ran:?}");
    assert_check(&ran, "peer", "unknown", "the policy cannot be used");
    common::set_mode(&place.identity, 0o644);
    assert_check(&place.doctor(&["--json"]).await, "identity", "failed", "chmod 600");
    // A clock that was set back.
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    let file = std::fs::File::options().write(true).open(&place.identity).expect("it is ours");
    file.set_modified(future).expect("it is ours");
    assert_check(&place.doctor(&["--json"]).await, "clock", "failed", "after that");
}

#[tokio::test]
async fn the_deciding_rule_is_named() {
    let place = Place::new();
    let policy = ["--json", "--policy", &place.policy, "--peer"];
    let key = place.worker.fingerprint().to_string();
    for peer in ["worker", &key] {
        let allowed = [&policy[..], &[peer, "--ticket-holder", "--channel", "jobs.a"]].concat();
        let ran = place.doctor(&allowed).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_check(&ran, "connect", "ok", "rule 1");
        assert_check(&ran, "channel", "ok", "recv jobs.a: allowed: rule 1");
        assert_check(&ran, "channel", "ok", "send jobs.a: denied: no rule of");
    }
    let denied =
        [&policy[..], &["worker", "--ticket-holder", "--channel", "jobs.secret", "--action", "recv"]]
            .concat();
    assert_check(&place.doctor(&denied).await, "channel", "failed", "denied: rule 2");

    let stranger = Identity::generate().fingerprint().to_string();
    let unknown = [&policy[..], &[&stranger, "--ticket-holder"]].concat();
    assert_check(&place.doctor(&unknown).await, "connect", "failed", "no rule of");
    let mistyped = [&policy[..], &["wroker"]].concat();
    assert_check(&place.doctor(&mistyped).await, "peer", "failed", "did you mean \"worker\"?");
    let no_secret = [&policy[..], &["worker"]].concat();
    assert_check(&place.doctor(&no_secret).await, "gate", "failed", "whatever the policy says");
    assert_check(
        &place.doctor(&[&no_secret[..], &["--admit-without-secret"]].concat()).await,
        "connect",
        "ok",
        "rule 1",
    );
    // A ticket that is good says that its holder has a secret.
    let with_ticket = place.doctor_on(&place.ticket(), &no_secret).await;
    assert_eq!(with_ticket.code, Some(0), "{with_ticket:?}");
    assert_check(
        &place.doctor(&["--json", "--peer", &key, "--ticket-holder"]).await,
        "peer",
        "ok",
        "may do everything",
    );

    let nobody = place.doctor(&["--channel", "jobs.a"]).await;
    assert!(nobody.code == Some(1) && nobody.errors.contains("needs --peer"), "{nobody:?}");
}

/// A doctor that listens in the server's place.
struct Listening {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Listening {
    async fn start(place: &Place, arguments: &[&str]) -> Self {
        let fixed = ["doctor", "--server", "--identity", &place.identity, "--listen", "127.0.0.1:0"];
        let mut child = common::command(&[&fixed, arguments].concat()).spawn().expect("the binary runs");
        let out = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let mut errors = BufReader::new(child.stderr.take().expect("it was piped")).lines();
        let line = errors.next_line().await.expect("text").expect("it listens");
        let (_, rest) = line.split_once("tcp://").unwrap_or_else(|| panic!("no address in {line:?}"));
        let address = rest.split_once(' ').expect("more text").0.to_owned();
        Self { child, out, address }
    }

    fn ticket(&self, identity: &Identity) -> Ticket {
        let addresses = vec![self.address.parse().expect("an address")];
        ticket_of(identity).with_addresses(addresses).expect("a ticket")
    }

    /// The next line about a visitor.
    async fn visitor(&mut self) -> String {
        loop {
            let line = self.out.next_line().await.expect("text").expect("it still runs");
            if ["turned away", "let in", "refused", "open "].iter().any(|event| line.contains(event)) {
                return line;
            }
        }
    }

    /// Comes with these bytes, and stays until it is sent away.
    async fn knock(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        stream.write_all(bytes).await.expect("it reads");
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "a stranger gets no byte");
    }

    /// Ctrl-C, and all that it prints then.
    async fn interrupt(mut self) -> (Option<i32>, String) {
        let process = self.child.id().expect("it runs").to_string();
        let killed = tokio::process::Command::new("kill").args(["-INT", &process]).status().await;
        assert!(killed.expect("kill runs").success());
        let mut rest = String::new();
        while let Some(line) = self.out.next_line().await.expect("text") {
            rest += &format!("{line}\n");
        }
        (self.child.wait().await.expect("it ends").code(), rest)
    }
}

/// The first flight of a client whose clock says something else. Behind a gate that opens, this one gets no further.
fn flight(secret: &AccessSecret, seconds_ahead: i64, salt: u8) -> Vec<u8> {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let hello = b"\x16\x03\x01\x00\x04nope";
    let gate = make_gate(
        &GateKey::Secret(secret.clone()),
        now.saturating_add_signed(seconds_ahead),
        [salt; 16],
        hello,
    );
    [&gate[..], hello].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_servers_place_it_names_why_each_visitor_is_turned_away() {
    let place = Place::new();
    let mut there = Listening::start(&place, &["--policy", &place.policy]).await;
    let (identity, worker) = (place.load(), Config::with_identity(place.worker.clone()));
    let secret = identity.access_secret();
    let good = there.ticket(&identity);
    let other = Identity::generate();

    let wrong =
        Ticket::from_parts(good.addresses().to_vec(), good.server_pin(), Some(other.access_secret().clone()));
    assert!(dial(wrong.expect("a ticket"), worker.clone()).await.is_err());
    let line = there.visitor().await;
    assert!(line.starts_with("FAILED") && line.contains(": gate: "), "{line}");

    there.knock(&flight(secret, -600, 1)).await;
    let line = there.visitor().await;
    assert!(line.contains(": clock: ") && (line.contains("-600 s") || line.contains("-601 s")), "{line}");

    let wrong = Ticket::from_parts(good.addresses().to_vec(), other.server_pin(), Some(secret.clone()));
    assert!(dial(wrong.expect("a ticket"), worker.clone()).await.is_err());
    let line = there.visitor().await;
    assert!(line.contains(": pin: "), "{line}");

    let recorded = flight(secret, 0, 2);
    there.knock(&recorded).await;
    there.visitor().await;
    there.knock(&recorded).await;
    let line = there.visitor().await;
    assert!(line.contains(": replay: "), "{line}");

    assert!(dial(&good, Config::with_identity(other.clone())).await.is_err());
    let line = there.visitor().await;
    assert!(line.contains("refused") && line.contains(&other.fingerprint().to_string()), "{line}");
    assert!(line.contains("no rule of"), "the whole truth: {line}");

    let session = dial(&good, worker).await.expect("it comes in");
    let line = there.visitor().await;
    assert!(line.starts_with("ok") && line.contains(&place.worker.fingerprint().to_string()), "{line}");
    assert!(session.sender::<u32>("jobs.a").await.is_err());
    let line = there.visitor().await;
    assert!(line.contains("open denied") && line.contains("send jobs.a"), "{line}");

    let (code, rest) = there.interrupt().await;
    assert_eq!(code, Some(1), "{rest}");
    assert!(rest.contains("turned away (gate): 1") && rest.contains("turned away (replay): 1"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_are_in_the_json_too() {
    let place = Place::new();
    let there = Listening::start(&place, &["--json"]).await;
    let ticket = there.ticket(&place.load());
    let client = run_with(&["doctor", "-"], &format!("{ticket}\n")).await;
    assert_eq!(client.code, Some(0), "{client:?}");
    let (code, rest) = there.interrupt().await;
    let report: Value = serde_json::from_str(&rest).expect("one JSON object");
    assert_eq!((code, &report["ok"]), (Some(0), &true.into()), "{report}");
    let visitors = report["visitors"].as_array().expect("visitors");
    assert!(visitors.len() == 1 && visitors[0]["event"] == "let in", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_by_itself_and_an_address_that_is_taken_is_named() {
    let place = Place::new();
    let ran = place.doctor(&["--json", "--listen", "127.0.0.1:0", "--seconds", "1"]).await;
    assert_check(&ran, "visitors", "unknown", "nobody came");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let ran = place.doctor(&["--json", "--listen", &address]).await;
    assert_check(&ran, "listen", "failed", "is taken");
}
