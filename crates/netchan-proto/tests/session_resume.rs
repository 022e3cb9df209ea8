//! Who may go on with a session, and from which link: the records that both ends keep, through handshakes whose keys
//! come from seeds.

use netchan_proto::crypto::handshake::stub::InsecureStub;
use netchan_proto::crypto::hello::VERSION;
use netchan_proto::crypto::{
    Accepted, Aead, Established, Fingerprint, Handshake, Hello, PeerHello, ResumeFrom,
};
use netchan_proto::id::{Epoch, Incarnation, SessionId};
use netchan_proto::session::{ClientLinks, NotResumed, ResumeRefusal, ServerLinks, Superseded};

const OWNER: Fingerprint = Fingerprint([1; 32]);
const SERVER: Fingerprint = Fingerprint([2; 32]);

fn hello() -> Hello {
    Hello {
        version: VERSION,
        agent: "test".to_owned(),
        aes_hardware: true,
        message_bytes_max: 1 << 20,
        resume: None,
    }
}

fn accepted(epoch: Epoch) -> Accepted {
    Accepted {
        session_id: SessionId([7; 16]),
        incarnation: Incarnation(9),
        epoch,
        aead: Aead::Aes256Gcm,
        resumed: false,
        message_bytes_max: 1 << 20,
        channels_max: 64,
        agent: "test".to_owned(),
    }
}

/// One handshake up to the server's judgement. Every link has another seed, as every TLS connection has another exporter.
struct Attempt {
    client: InsecureStub,
    server: InsecureStub,
    hello: PeerHello,
}

fn attempt(link: u8, who: Fingerprint, resume: Option<ResumeFrom>) -> Attempt {
    let mut client = InsecureStub::client(&[link], who, hello(), resume).expect("a small Hello");
    let mut server = InsecureStub::server(&[link], SERVER);
    let bytes = client.poll_output().expect("the Hello");
    server.handle_input(&bytes).expect("a good Hello");
    let hello = server.poll_hello().expect("the Hello is here");
    Attempt { client, server, hello }
}

impl Attempt {
    /// The server lets the client in, and its Welcome arrives.
    fn welcome(mut self, epoch: Epoch, proof: Option<netchan_proto::crypto::ProvenResume>) -> Both {
        self.server.accept(accepted(epoch), proof).expect("it was asked");
        let server = self.server.poll_established().expect("the server is done");
        let bytes = self.server.poll_output().expect("the Welcome");
        self.client.handle_input(&bytes).expect("a good Welcome");
        Both { client: self.client.poll_established().expect("the client is done"), server }
    }
}

struct Both {
    client: Established,
    server: Established,
}

fn first() -> (ClientLinks, ServerLinks) {
    let Both { client, server } = attempt(0, OWNER, None).welcome(Epoch(0), None);
    let links = ServerLinks::new(
        server.accepted.session_id,
        OWNER,
        server.accepted.epoch,
        server.keys.resume_secret.clone(),
    );
    (ClientLinks::new(&client.accepted, client.keys.resume_secret.clone()), links)
}

/// A resume up to the Welcome; the client may not have got it.
fn resume(link: u8, client: &ClientLinks, server: &mut ServerLinks) -> (Epoch, Both) {
    let attempt = attempt(link, OWNER, Some(client.resume_from()));
    let (epoch, proof) = server.judge(&attempt.hello).expect("the session's own client");
    let both = attempt.welcome(epoch, Some(proof));
    server.established(epoch, both.server.keys.resume_secret.clone()).expect("the newest");
    (epoch, both)
}

fn client_hears(client: &mut ClientLinks, both: &Both) {
    client.established(&both.client.accepted, both.client.keys.resume_secret.clone()).expect("it resumes");
}

#[test]
fn sess_15_another_key_is_refused_whatever_it_proves() {
    let (client, mut server) = first();
    let other = attempt(1, Fingerprint([3; 32]), Some(client.resume_from()));
    assert_eq!(server.judge(&other.hello).unwrap_err(), ResumeRefusal::OtherIdentity);
    assert!(
        server.judge(&attempt(2, OWNER, Some(client.resume_from())).hello).is_ok(),
        "nothing has changed"
    );
}

#[test]
fn sess_15_a_wrong_proof_is_refused() {
    let (client, mut server) = first();
    // The right session and epoch, with the secret of another session.
    let stranger = attempt(9, OWNER, None).welcome(Epoch(0), None).client.keys.resume_secret.clone();
    let forged = ResumeFrom { secret: stranger, ..client.resume_from() };
    let forged = attempt(1, OWNER, Some(forged));
    assert_eq!(server.judge(&forged.hello).unwrap_err(), ResumeRefusal::WrongProof);
}

#[test]
fn sess_15_a_replayed_hello_is_refused() {
    let (client, mut server) = first();
    let honest = attempt(1, OWNER, Some(client.resume_from()));
    // Its Hello, said again over another connection: that has another exporter.
    let mut replay = attempt(2, OWNER, Some(client.resume_from()));
    replay.hello.hello.resume = honest.hello.hello.resume.clone();
    assert_eq!(server.judge(&replay.hello).unwrap_err(), ResumeRefusal::WrongProof);
    assert!(server.judge(&honest.hello).is_ok());
}

#[test]
fn sess_15_a_fenced_epoch_is_refused() {
    let (mut client, mut server) = first();
    let stale = client.resume_from();
    let (epoch, both) = resume(1, &client, &mut server);
    client_hears(&mut client, &both);
    server.commit(epoch).expect("the newest");
    client.confirmed();
    server.acknowledged(Epoch(0));
    assert!(
        server.keeps_previous(),
        "until the client is known to have heard, by what it says on this very link"
    );
    server.acknowledged(epoch);
    let late = attempt(2, OWNER, Some(stale));
    assert_eq!(server.judge(&late.hello).unwrap_err(), ResumeRefusal::Fenced);
    let (_, _) = resume(3, &client, &mut server);
}

#[test]
fn sess_16_whatever_is_lost_there_is_an_epoch_that_both_ends_hold() {
    // The Welcome is lost, then the client's CONFIRM, then the server's, twice over, in every order.
    for case in 0..3_u32.pow(4) {
        let (mut client, mut server) = first();
        let mut case = case;
        for link in 1..=4 {
            let (epoch, both) = resume(link, &client, &mut server);
            match case % 3 {
                0 => {}
                1 => client_hears(&mut client, &both),
                _ => {
                    client_hears(&mut client, &both);
                    server.commit(epoch).expect("the newest");
                }
            }
            case /= 3;
        }
        let (epoch, both) = resume(9, &client, &mut server);
        client_hears(&mut client, &both);
        server.commit(epoch).expect("the newest");
        client.confirmed();
        server.acknowledged(epoch);
        assert_eq!((client.epoch(), server.epoch()), (epoch, epoch));
        assert!(!server.keeps_previous());
    }
}

#[test]
fn sess_16_a_later_hello_voids_one_that_is_pending() {
    let (client, mut server) = first();
    let (early, _) = resume(1, &client, &mut server);
    let (late, _) = resume(2, &client, &mut server);
    assert!(early < late);
    assert_eq!(server.commit(early), Err(Superseded));
    assert_eq!(server.commit(late), Ok(()));
    assert_eq!(server.commit(late), Err(Superseded), "once is all");
}

#[test]
fn sess_16_a_welcome_that_does_not_go_on_with_the_session_is_refused() {
    let (mut client, mut server) = first();
    let (_, both) = resume(1, &client, &mut server);
    let secret = || both.client.keys.resume_secret.clone();
    let with = |change: fn(&mut Accepted)| {
        let mut accepted = both.client.accepted.clone();
        change(&mut accepted);
        accepted
    };
    let refused =
        |client: &mut ClientLinks, accepted: &Accepted| client.established(accepted, secret()).unwrap_err();
    assert_eq!(refused(&mut client, &with(|a| a.resumed = false)), NotResumed::OtherSession);
    assert_eq!(refused(&mut client, &with(|a| a.session_id = SessionId([8; 16]))), NotResumed::OtherSession);
    assert_eq!(refused(&mut client, &with(|a| a.incarnation = Incarnation(1))), NotResumed::OtherSession);
    assert_eq!(refused(&mut client, &with(|a| a.epoch = Epoch(0))), NotResumed::StaleEpoch);
    client.established(&both.client.accepted, secret()).expect("the true one");
}
