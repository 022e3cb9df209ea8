//! Keys that stay in an SSH agent: one that is played here, in many ways, and the real one where it is installed.

#![cfg(unix)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::{Anything, PATIENCE, memory, within};
use netchan::identity::agent::{AgentError, MESSAGE_BYTES_MAX, SshAgent};
use netchan::identity::{AccessSecret, Signer};
use netchan::{Config, DialError, Identity, dial, listen_and_serve};
use tempfile::TempDir;

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn answer(kind: u8, body: &[u8]) -> Vec<u8> {
    string(&[&[kind], body].concat())
}

fn blob(name: &str, key: &[u8]) -> Vec<u8> {
    [string(name.as_bytes()), string(key)].concat()
}

fn signature(name: &str, signature: &[u8]) -> Vec<u8> {
    answer(14, &string(&blob(name, signature)))
}

fn identities(keys: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let mut body = u32::try_from(keys.len()).unwrap().to_be_bytes().to_vec();
    for (blob, comment) in keys {
        body.extend(string(blob));
        body.extend(string(comment));
    }
    answer(12, &body)
}

/// An agent that is played: it answers each request with what `answer` makes of it, and closes.
struct FakeAgent {
    directory: TempDir,
    connections: Arc<AtomicUsize>,
}

impl FakeAgent {
    fn start(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        Self::start_with(move |mut stream| {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).unwrap();
            // Who asked may have gone, as after a length that it does not take.
            _ = stream.write_all(&answer(&request));
            None
        })
    }

    /// What `serve` gives back stays open.
    fn start_with(serve: impl Fn(UnixStream) -> Option<UnixStream> + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                open.extend(serve(stream.unwrap()));
            }
        });
        Self { directory, connections }
    }

    /// One that does as it should, with the keys of these seeds.
    fn honest(seeds: &'static [u8]) -> Self {
        let pair = |seed: &u8| Ed25519KeyPair::from_seed_unchecked(&[*seed; 32]).unwrap();
        Self::start(move |request| {
            let pairs: Vec<_> = seeds.iter().map(pair).collect();
            let blobs = pairs.iter().map(|pair| blob("ssh-ed25519", pair.public_key().as_ref()));
            match request {
                [11] => {
                    // Of other types as well, which are left out.
                    let mut keys = vec![(blob("ssh-rsa", &[1; 256]), &b"rsa"[..])];
                    keys.extend(blobs.map(|blob| (blob, &b"someone\x1b[31m"[..])));
                    keys.push((blob("sk-ssh-ed25519@openssh.com", &[1; 32]), b"token"));
                    identities(&keys)
                }
                [13, rest @ ..] => {
                    let (asked, rest) = rest.split_at(4 + 51);
                    let (data, flags) = rest[4..].split_at(rest.len() - 8);
                    assert_eq!(flags, [0; 4]);
                    let found = pairs.iter().zip(blobs).find(|(_, blob)| string(blob) == asked);
                    found.map_or(answer(5, &[]), |(pair, _)| {
                        signature("ssh-ed25519", pair.sign(data).as_ref())
                    })
                }
                _ => answer(5, &[]),
            }
        })
    }

    fn agent(&self) -> SshAgent {
        SshAgent::at(self.directory.path().join("socket"))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What becomes of a signature under an agent that answers so.
fn sign_with(reply: Vec<u8>) -> Result<[u8; 64], AgentError> {
    let fake = FakeAgent::start(move |_| reply.clone());
    fake.agent().signer_of(Identity::from_seed([7; 32]).public_key()).try_sign(b"a message")
}

fn keys_with(reply: Vec<u8>) -> Result<usize, AgentError> {
    let fake = FakeAgent::start(move |_| reply.clone());
    fake.agent().keys().map(|keys| keys.len())
}

#[test]
fn an_agents_keys_are_listed_and_found_by_either_name() {
    let fake = FakeAgent::honest(&[7, 8]);
    let keys = fake.agent().keys().unwrap();
    assert_eq!(keys.len(), 2, "of Ed25519");
    let identity = Identity::from_seed([7; 32]);
    assert_eq!(keys[0].fingerprint(), identity.fingerprint());
    assert_eq!(keys[0].public_key(), identity.public_key());
    assert_eq!(keys[0].comment(), "someone\u{fffd}[31m", "a terminal takes no orders from it");
    assert_ne!(keys[0].ssh_fingerprint(), keys[0].fingerprint().to_string());

    for name in [keys[1].ssh_fingerprint(), keys[1].fingerprint().to_string()] {
        let signer = fake.agent().signer(name.parse().unwrap()).unwrap();
        assert_eq!(signer.public_key(), keys[1].public_key());
    }
    let error = fake.agent().signer(Identity::from_seed([9; 32]).fingerprint()).unwrap_err();
    assert!(matches!(error, AgentError::NoSuchKey { others: 2, .. }), "{error}");
    assert!(error.to_string().contains("ssh-add"), "{error}");
}

#[test]
fn it_signs_what_the_key_itself_would_sign() {
    let fake = FakeAgent::honest(&[7]);
    let identity = Identity::from_seed([7; 32]);
    let signer = fake.agent().signer(identity.fingerprint()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    for message in [&b""[..], b"x", &[9; 5_000]] {
        assert_eq!(signer.sign(message).unwrap()[..], *pair.sign(message).as_ref());
    }
    assert_eq!(fake.connections(), 4, "each request has a connection of its own");
    let secret = AccessSecret::new([1; 32]);
    assert_eq!(Identity::from_agent(signer.clone(), secret).fingerprint(), identity.fingerprint());
    let error = signer.try_sign(&vec![0; MESSAGE_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, AgentError::TooLong { .. }), "{error}");
}

#[test]
fn an_agent_that_refuses_is_told_from_one_that_is_broken() {
    let refused = sign_with(answer(5, &[])).unwrap_err();
    assert!(matches!(refused, AgentError::Refused { .. }) && refused.to_string().contains("ssh-add -X"));
    let wrong = sign_with(signature("ssh-ed25519", &[1; 64])).unwrap_err();
    assert!(matches!(wrong, AgentError::WrongSignature { .. }), "{wrong}");
    let fake = FakeAgent::start(|_| answer(5, &[]));
    let signer = fake.agent().signer_of([1; 32]);
    assert_eq!(signer.sign(b"a message"), Err(netchan::identity::SignError));

    let gone = SshAgent::at("/nowhere/at/all").keys().unwrap_err();
    assert!(matches!(gone, AgentError::Unreachable { .. }), "{gone}");
    let endless = SshAgent::at("x".repeat(5_000)).keys().unwrap_err();
    assert!(matches!(endless, AgentError::Unreachable { .. }), "{endless}");
}

#[test]
fn no_answer_is_too_strange() {
    let is_malformed = |error: AgentError| matches!(error, AgentError::Malformed { .. });
    let long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
    for strange in [
        [&long[..], &[14]].concat(),
        [&u32::MAX.to_be_bytes()[..], &[12]].concat(),
        [0, 0, 0, 0, 14].to_vec(),
        answer(6, &[]),
        answer(99, b"something else"),
    ] {
        assert!(is_malformed(sign_with(strange.clone()).unwrap_err()));
        assert!(is_malformed(keys_with(strange).unwrap_err()));
    }
    let good = signature("ssh-ed25519", &[1; 64]);
    let mut trailing = blob("ssh-ed25519", &[1; 64]);
    trailing.push(0);
    for strange in [
        signature("ssh-ed25519", &[1; 63]),
        signature("ssh-ed25519", &[1; 65]),
        signature("ssh-rsa", &[1; 64]),
        answer(14, &string(&trailing)),
        answer(14, &[&good[5..], &[0]].concat()),
        answer(14, &[]),
        answer(14, &u32::MAX.to_be_bytes()),
        identities(&[]),
    ] {
        assert!(is_malformed(sign_with(strange).unwrap_err()));
    }
    let list = identities(&[(blob("ssh-ed25519", &[1; 32]), b"a"), (blob("ssh-ed25519", &[2; 32]), b"\xff")]);
    assert_eq!(keys_with(list.clone()).unwrap(), 2);
    for cut in 5..list.len() {
        assert!(is_malformed(keys_with(answer(12, &list[5..cut])).unwrap_err()), "cut at {cut}");
    }
    assert!(is_malformed(keys_with(answer(12, &[&list[5..], &[0]].concat())).unwrap_err()));
    assert!(is_malformed(keys_with(answer(12, &u32::MAX.to_be_bytes())).unwrap_err()));
    assert_eq!(keys_with(identities(&[(blob("ssh-ed25519", &[1; 31]), b"short")])).unwrap(), 0);

    // The connection ends before the answer does.
    for cut in 0..good.len() {
        let error = sign_with(good[..cut].to_vec()).unwrap_err();
        assert!(matches!(error, AgentError::Broke { .. }), "cut at {cut}: {error}");
    }
}

#[test]
fn an_agent_that_hangs_or_dawdles_is_given_up() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let silent = FakeAgent::start_with(Some);
    // Byte by byte, each well within the timeout.
    let slow = FakeAgent::start_with(|mut stream| {
        for byte in signature("ssh-ed25519", &[1; 64]) {
            std::thread::sleep(TIMEOUT / 20);
            if stream.write_all(&[byte]).is_err() {
                break;
            }
        }
        Some(stream)
    });
    for agent in [silent.agent(), slow.agent()] {
        let begun = Instant::now();
        let error = agent.timeout(TIMEOUT).signer_of([1; 32]).try_sign(b"a message").unwrap_err();
        assert!(matches!(&error, AgentError::Broke { .. }), "{error}");
        assert!(error.to_string().contains("not within 200ms"), "{error}");
        assert!(begun.elapsed() < 3 * TIMEOUT, "{:?}", begun.elapsed());
    }
    for timeout in [Duration::ZERO, Duration::MAX] {
        let fake = FakeAgent::honest(&[7]);
        assert_eq!(fake.agent().timeout(timeout).keys().is_ok(), timeout > Duration::ZERO);
    }
}

/// A server and a client whose keys are both in the agent, and a value from one to the other.
async fn talk(agent: &SshAgent, server: netchan::Fingerprint, client: netchan::Fingerprint) -> Anything {
    let identity = Identity::from_agent(agent.signer(server)?, AccessSecret::new([3; 32]));
    let server = listen_and_serve(memory(), Config::with_identity(identity)).await?;
    let values = server.sender::<u32>("values", 4)?;
    values.send(7).await?;
    let identity = Identity::from_agent(agent.signer(client)?, AccessSecret::new([0; 32]));
    let session = within("dial", dial(server.ticket(), Config::with_identity(identity))).await?;
    assert_eq!(session.peer().fingerprint(), Some(server.identity().fingerprint()));
    let received = session.receiver::<u32>("values").await?;
    assert_eq!(within("recv", received.recv()).await?, Some(7));
    assert_eq!(server.clients()[0].peer().fingerprint(), Some(client));
    Ok(())
}

#[tokio::test]
async fn both_ends_may_have_their_keys_in_an_agent() -> Anything {
    let fake = FakeAgent::honest(&[7, 8]);
    let key = |seed| Identity::from_seed([seed; 32]).fingerprint();
    talk(&fake.agent(), key(7), key(8)).await
}

#[tokio::test]
async fn a_client_whose_agent_refuses_says_that_its_key_could_not_sign() -> Anything {
    let fake = FakeAgent::start(|_| answer(5, &[]));
    let server = listen_and_serve(memory(), Config::default()).await?;
    let signer = fake.agent().signer_of(Identity::from_seed([7; 32]).public_key());
    let identity = Identity::from_agent(signer, AccessSecret::new([0; 32]));
    let error = within("dial", dial(server.ticket(), Config::with_identity(identity))).await.unwrap_err();
    assert!(matches!(error, DialError::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("could not sign"), "{error}");
    Ok(())
}

/// The real agent, ended with the test.
struct RealAgent {
    child: Child,
    directory: TempDir,
}

impl RealAgent {
    /// None where it is not installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(directory.path().join("socket"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let agent = Self { child, directory };
        let begun = Instant::now();
        while UnixStream::connect(agent.socket()).is_err() {
            assert!(begun.elapsed() < PATIENCE, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(agent)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn run(&self, program: &str, arguments: &[&str], path: &Path) -> String {
        let mut command = Command::new(program);
        command.args(arguments).arg(path).env("SSH_AUTH_SOCK", self.socket()).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a key and gives it to the agent; returns what SSH calls it.
    fn add(&self, kind: &str, comment: &str) -> String {
        let path = self.directory.path().join(comment);
        self.run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", comment, "-f"], &path);
        self.run("ssh-add", &["-q"], &path);
        fs::remove_file(&path).unwrap();
        let listed = self.run("ssh-keygen", &["-l", "-f"], &path.with_extension("pub"));
        listed.split_whitespace().nth(1).expect("a fingerprint").to_owned()
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_real_agent_serves_both_ends() -> Anything {
    let Some(real) = RealAgent::start() else {
        eprintln!("ssh-agent is not installed: only the one that is played was tried");
        return Ok(());
    };
    let agent = SshAgent::at(real.socket());
    assert_eq!(agent.keys()?, []);
    let [server, client] = ["server", "client"].map(|comment| real.add("ed25519", comment));
    real.add("ecdsa", "another type");
    let keys = agent.keys()?;
    let named: Vec<_> = keys.iter().map(|key| (key.comment(), key.ssh_fingerprint())).collect();
    assert_eq!(named, [("server", server.clone()), ("client", client)]);
    assert_eq!(agent.signer(server.parse()?)?, keys[0].signer());

    talk(&agent, keys[0].fingerprint(), keys[1].fingerprint()).await?;

    // The key leaves the agent, and with it the identity.
    let signer = keys[0].signer();
    assert!(signer.try_sign(b"a message").is_ok());
    let key = real.directory.path().join("server.pub");
    real.run("ssh-add", &["-q", "-d"], &key);
    let error = signer.try_sign(b"a message").unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    Ok(())
}
