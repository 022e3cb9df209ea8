//! What whoever is not let in hears from a real server over real TCP, whatever it tries: nothing, and always the same end.

mod common;

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Anything, DEADLINE, within};
use netchan::{Config, Identity, Server, dial, listen_and_serve};
use netchan_proto::crypto::{
    AccessSecret, ClientHandshake, ClientSettings, GateKey, Handshake, Hello, LinkKeys, Peek, SealBuf,
    make_gate,
};
use netchan_proto::id::ChannelId;
use netchan_proto::limits::{GATE_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES};
use netchan_proto::wire::{Frame, Reader};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn serve() -> Server {
    let mut config = Config::default();
    // Whoever is turned away is turned away at once: none of these waits for the deadline.
    config.limits.handshake_timeout = Duration::from_secs(600);
    // Nor does the server say anything of its own accord.
    config.keepalive_idle = Duration::from_secs(600);
    config.keepalive_dead = Duration::from_secs(1_200);
    listen_and_serve("127.0.0.1:0", config).await.unwrap()
}

async fn knock(server: &Server) -> TcpStream {
    let (host, port) = server.addresses()[0].host_port().unwrap();
    let stream = TcpStream::connect((host, port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// How a connection ends for whoever is at its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Closed,
    Reset,
}

/// Everything that still comes, and the end.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match within("the server closes", stream.read_to_end(&mut bytes)).await {
        Ok(_) => (bytes, End::Closed),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            (bytes, End::Reset)
        }
    }
}

fn settings(server: &Server) -> ClientSettings {
    ClientSettings {
        key: Identity::generate().key().clone(),
        server: netchan_proto::crypto::ServerTrust::Pinned(server.ticket().server_pin()),
        secret: server.ticket().access_secret().cloned(),
        hello: Hello {
            version: 1,
            agent: "by hand".to_owned(),
            aes_hardware: true,
            message_bytes_max: 1 << 20,
            resume: None,
        },
        resume: None,
    }
}

/// Gate and ClientHello.
fn flight(settings: ClientSettings, unix_seconds: u64) -> Vec<u8> {
    let salt = StdRng::from_os_rng().random();
    ClientHandshake::new(settings, unix_seconds, salt).unwrap().poll_output().unwrap()
}

/// As long as a flight, so that a server that reads a flight has read all of it.
fn padded(text: &[u8], flight: &[u8]) -> Vec<u8> {
    text.iter().copied().chain(std::iter::repeat(b' ')).take(flight.len()).collect()
}

#[tokio::test]
async fn gate_1_every_guess_gets_zero_bytes_and_the_same_end() -> Anything {
    let server = serve().await;
    let right = flight(settings(&server), now());
    let other = flight(settings(&server), now());
    let with = |change: &dyn Fn(&mut ClientSettings)| {
        let mut changed = settings(&server);
        change(&mut changed);
        flight(changed, now())
    };
    let gate_over = |record: &[u8]| {
        let secret = server.ticket().access_secret().unwrap().clone();
        let gate = make_gate(&GateKey::Secret(secret), now(), [9; 16], record);
        [&gate[..], record].concat()
    };
    let garbage: Vec<u8> = StdRng::seed_from_u64(1).random_iter().take(right.len()).collect();
    let no_hello = [&[22, 3, 1, 2, 0][..], &[7; 512]].concat();
    // Clocks differ by more than the window; the seconds that pass here do not matter.
    let window = Config::default().limits.clock_window.unwrap().as_secs() + 60;
    let mut guesses: Vec<(String, Vec<u8>)> = [
        ("random bytes", garbage),
        ("zeros", vec![0; right.len()]),
        ("an HTTP request", padded(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", &right)),
        ("an SSH client", padded(b"SSH-2.0-OpenSSH_9.9\r\n", &right)),
        ("a ClientHello without a gate", [&right[GATE_BYTES..], &[0; GATE_BYTES]].concat()),
        ("another secret", with(&|settings| settings.secret = Some(AccessSecret::new([1; 32])))),
        ("a pin, where a secret is needed", with(&|settings| settings.secret = None)),
        ("a secret of another server", flight(settings(&serve().await), now())),
        ("a clock that is behind", flight(settings(&server), now() - window)),
        ("a clock that is ahead", flight(settings(&server), now() + window)),
        ("the right gate of another ClientHello", [&other[..GATE_BYTES], &right[GATE_BYTES..]].concat()),
        ("a right gate before what is no ClientHello", gate_over(&no_hello)),
    ]
    .into_iter()
    .map(|(what, bytes)| (what.to_owned(), bytes))
    .collect();
    for bit in (0..GATE_BYTES * 8).step_by(5).chain([GATE_BYTES * 8 + 43, right.len() * 8 - 1]) {
        let mut flipped = right.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        guesses.push((format!("bit {bit} flipped"), flipped));
    }

    let mut ends = BTreeSet::new();
    for (what, bytes) in &guesses {
        let mut stream = knock(&server).await;
        stream.write_all(bytes).await?;
        let (heard, end) = rest(&mut stream).await;
        assert_eq!(heard, [], "{what}");
        ends.insert(end);
    }
    // None of them used it up: the flight itself is answered, and that once.
    let mut stream = knock(&server).await;
    stream.write_all(&right).await?;
    assert_eq!(stream.read_u8().await?, 22);
    let mut stream = knock(&server).await;
    stream.write_all(&right).await?;
    let (heard, end) = rest(&mut stream).await;
    assert_eq!(heard, [], "a replay");
    ends.insert(end);
    assert_eq!(ends.len(), 1, "ends tell guesses apart: {ends:?}");

    let session = within("an honest client", dial(server.ticket(), Config::default())).await?;
    session.close(DEADLINE).await?;
    Ok(())
}

/// A client by hand, of which every byte is ours.
struct Hand {
    stream: TcpStream,
    keys: LinkKeys,
    read: Vec<u8>,
}

impl Hand {
    /// Up to the keys, and not a record further.
    async fn shake(server: &Server) -> io::Result<Self> {
        let mut stream = knock(server).await;
        let salt = StdRng::from_os_rng().random();
        let mut client = ClientHandshake::new(settings(server), now(), salt).unwrap();
        let mut input = Vec::new();
        loop {
            while let Some(output) = client.poll_output() {
                stream.write_all(&output).await?;
            }
            if let Some(established) = client.poll_established() {
                return Ok(Self { stream, keys: established.keys, read: input });
            }
            assert_ne!(within("the handshake", stream.read_buf(&mut input)).await?, 0);
            let taken = client.handle_input(&input).unwrap();
            input.drain(..taken);
        }
    }

    fn seal(&mut self, frame: &Frame) -> Vec<u8> {
        let mut out = SealBuf::new(RECORD_BYTES_MAX);
        self.keys.sealer.seal(ChannelId::CONTROL, &frame.to_vec(), &[], 0, &mut out).unwrap();
        out.filled().to_vec()
    }

    /// Hears everything up to this frame, behind which the server has nothing more to say.
    async fn hear(&mut self, last: impl Fn(&Frame) -> bool) -> io::Result<()> {
        loop {
            while let Ok(Peek::Record { record_len, plaintext_len, .. }) = self.keys.opener.peek(&self.read) {
                let mut plaintext = vec![0; plaintext_len];
                self.keys.opener.open(&self.read[..record_len], &mut plaintext).unwrap();
                self.read.drain(..record_len);
                let mut reader = Reader::new(&plaintext);
                while !reader.is_empty() {
                    if Frame::read(&mut reader).unwrap().is_some_and(|frame| last(&frame)) {
                        assert!(self.read.is_empty() && reader.is_empty());
                        return Ok(());
                    }
                }
            }
            assert_ne!(within("a frame", self.stream.read_buf(&mut self.read)).await?, 0);
        }
    }

    /// Confirms the link, and hears the server do so; until then it says nothing else (`SESS-2`).
    async fn settle(&mut self) -> io::Result<()> {
        let mac = self.keys.own_confirm;
        for frame in [Frame::Confirm { mac }, Frame::Ping { nonce: 1 }] {
            let sealed = self.seal(&frame);
            self.stream.write_all(&sealed).await?;
        }
        self.hear(|frame| *frame == Frame::Pong { nonce: 1 }).await
    }

    /// Hears the server confirm the link, and says nothing.
    async fn hear_confirm(&mut self) -> io::Result<()> {
        self.hear(|frame| matches!(frame, Frame::Confirm { .. })).await
    }
}

/// Longer than any record may be, so that none waits for its end.
fn flood() -> Vec<u8> {
    vec![0; RECORD_BYTES_MAX]
}

#[tokio::test]
async fn rec_11_every_flipped_bit_of_a_header_gets_zero_bytes_and_the_same_end() -> Anything {
    let server = serve().await;
    let mut ends = BTreeSet::new();
    for bit in 0..RECORD_HEADER_BYTES * 8 {
        for settled in [true, false] {
            let mut hand = Hand::shake(&server).await?;
            let frame = if settled {
                hand.settle().await?;
                Frame::Ping { nonce: 2 }
            } else {
                hand.hear_confirm().await?;
                Frame::Confirm { mac: hand.keys.own_confirm }
            };
            let mut record = hand.seal(&frame);
            record[bit / 8] ^= 1 << (bit % 8);
            // What makes it longer waits for as much; whatever comes then, nothing opens.
            let longer = bit < 24;
            _ = hand.stream.write_all(&[record, if longer { flood() } else { Vec::new() }].concat()).await;
            let (heard, end) = rest(&mut hand.stream).await;
            assert_eq!(heard, [], "bit {bit}, settled: {settled}");
            if !longer {
                ends.insert(end);
            }
        }
    }
    assert_eq!(ends.len(), 1, "ends tell bits apart: {ends:?}");
    Ok(())
}

#[tokio::test]
async fn rec_6_a_replayed_record_gets_zero_bytes() -> Anything {
    let server = serve().await;
    for settled in [true, false] {
        let mut hand = Hand::shake(&server).await?;
        if settled {
            hand.settle().await?;
            let ping = hand.seal(&Frame::Ping { nonce: 2 });
            hand.stream.write_all(&ping).await?;
            // PONG, which is all that the first one gets.
            let mut pong = [0; RECORD_HEADER_BYTES + 16 + 3];
            within("PONG", hand.stream.read_exact(&mut pong)).await?;
            hand.stream.write_all(&ping).await?;
        } else {
            hand.hear_confirm().await?;
            // A record of another connection.
            let mut other = Hand::shake(&server).await?;
            let confirm = Frame::Confirm { mac: other.keys.own_confirm };
            let record = other.seal(&confirm);
            hand.stream.write_all(&record).await?;
        }
        let (heard, _) = rest(&mut hand.stream).await;
        assert_eq!(heard, [], "settled: {settled}");
    }
    Ok(())
}
