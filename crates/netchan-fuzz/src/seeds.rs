//! What the corpora begin with: real messages, whole conversations, and the changes that matter most.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use netchan::address::Address;
use netchan::{Identity, Message, Ticket};
use netchan_proto::crypto::{AccessSecret, LinkKeys, SealBuf};
use netchan_proto::id::{ChannelId, Side};
use netchan_proto::limits::{GATE_BYTES, WRITE_BUFFER_BYTES};

use crate::decode::{self, Chain, Kinds, Tree};
use crate::handshake;

/// The frozen vectors hold one of everything.
const FRAMES: &str = include_str!("../../netchan-proto/vectors/frames.txt");
const DATA: &str = include_str!("../../netchan-proto/vectors/data.txt");
const MESSAGES: &str = include_str!("../../netchan-proto/vectors/hello.txt");

/// The first input of a corpus.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The target.
    pub target: &'static str,
    /// What it is.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All of them. Those of the handshake are new each time, since it draws random numbers.
#[must_use]
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut put = |target, name: &str, parts: &[&[u8]]| {
        seeds.push(Seed { target, name: name.to_owned(), bytes: parts.concat() });
    };
    frames(&mut put);
    records(&mut put);
    handshakes(&mut put);
    sessions(&mut put);
    queues(&mut put);
    policies(&mut put);
    tickets(&mut put);
    values(&mut put);
    seeds
}

type Put<'a> = dyn FnMut(&'static str, &str, &[&[u8]]) + 'a;

/// Lines of a file of vectors: a name and bytes in hex.
fn vectors(text: &'static str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        let hex = hex.trim_start_matches("= ");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        (name, (0..hex.len()).step_by(2).map(byte).collect())
    })
}

fn frames(put: &mut Put<'_>) {
    let mut all = Vec::new();
    for (name, bytes) in vectors(FRAMES) {
        if name.starts_with("data-") {
            put("frames", name, &[&[1], b"\x05hello\x00", &bytes]);
        } else {
            put("frames", name, &[&[0], &bytes]);
            all.extend(bytes);
        }
    }
    put("frames", "all", &[&[0], &all, &[0x80, 3, 1, 2, 3]]);
    for (name, bytes) in vectors(DATA) {
        let kinds = ["", "record", "ask", "outcome", "delivery", "broadcast"];
        let kind = kinds.iter().position(|kind| name.split('-').next() == Some(kind)).expect("a kind");
        put("frames", name, &[&[kind as u8], &bytes]);
    }
    for (name, bytes) in vectors(MESSAGES) {
        let kind = if name.starts_with("hello") { 6 } else { 7 };
        put("frames", name, &[&[kind], &bytes]);
    }
}

/// Edits, as [`crate::edit`] reads them.
const EDITS: [(&str, &[u8]); 7] = [
    ("untouched", &[]),
    ("flip-header", &[0, 0, 3, 0, 0]),
    ("flip-later", &[0, 0, 70, 0, 3]),
    ("cut", &[1, 0, 90, 0, 0]),
    ("delete", &[2, 0, 40, 0, 30]),
    ("insert", &[3, 0, 61, 0, 5, 22, 3, 3, 0, 1]),
    ("replay", &[4, 0, 0, 1, 0, 0, 80]),
];

fn records(put: &mut Put<'_>) {
    // In pieces of any size; a new key for every second record; four records on three channels.
    let sealed = [0, 0, 1, 3, 0, 7, 0, 40, 1, 8, 0, 0, 2, 9, 0, 199, 1, 10, 0, 16];
    for (name, edits) in EDITS {
        put("records", name, &[&sealed, edits]);
    }
    let mut keys = LinkKeys::stub(Side::Client, b"somebody else", 0);
    let mut out = SealBuf::new(WRITE_BUFFER_BYTES);
    for len in [0, 5, 100] {
        keys.sealer.seal(ChannelId::CONTROL, &vec![1; len], &[], 0, &mut out).expect("it fits");
    }
    put("records", "of-somebody-else", &[&[1, 0], out.filled()]);
    put("records", "too-long", &[&[1, 1, 1, 0, 17], &[0; 40]]);
}

fn handshakes(put: &mut Put<'_>) {
    let (_, flight) = handshake::new_client();
    let hello = &flight[GATE_BYTES + 5..];
    let hello_len = (hello.len() as u16).to_be_bytes();
    put("server", "stranger-http", &[&[0, 0], b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", &[b' '; 60]]);
    put("server", "stranger-tls", &[&[0, 0], &flight[GATE_BYTES..]]);
    put("server", "stranger-in-pieces", &[&[0, 7], &flight[1..]]);
    put("server", "insider", &[&[1, 0], &hello_len, hello]);
    put(
        "server",
        "insider-goes-on",
        &[&[1, 0], &hello_len, hello, &[20, 3, 3, 0, 1, 1], &[23, 3, 3, 0, 32], &[8; 32]],
    );
    put("server", "insider-alert", &[&[1, 0], &hello_len, hello, &[21, 3, 3, 0, 2, 2, 40]]);
    put("client", "impostor-alert", &[&[0, 0], &[21, 3, 3, 0, 2, 2, 40]]);
    put("client", "impostor-flight", &[&[0, 0], &handshake::server_answer()]);
    for (name, edits) in EDITS {
        put("server", &format!("first-{name}"), &[&[2, 1, 0], edits]);
        put("server", &format!("second-{name}"), &[&[2, 0, 0], edits]);
        put("client", &format!("flight-{name}"), &[&[1, 0], edits]);
        put(
            "client",
            &format!("welcome-{name}"),
            &[&[2, 1, 4, 5, 0, 1, 1, 0, 0xf0, 4, 0, 0, 100, 0, 9, 0], edits],
        );
        put("client", &format!("refusal-{name}"), &[&[2, 0, 0, 30, 0, 2, 0], edits]);
    }
}

/// Steps, as [`crate::session()`] reads them.
fn sessions(put: &mut Put<'_>) {
    const CONFIRM: &[u8] = &[0];
    const WRITE: &[u8] = &[13];
    const CUT: &[u8] = &[12];
    /// Channel 1, toward the server; channel 3, from it.
    const OPEN_1: &[u8] = &[1, 0, 0, 0, 8, 100];
    const OPEN_3: &[u8] = &[1, 2, 1, 0, 8, 0xf0, 4, 0];
    const ITEMS_1: &[u8] = &[5, 0, 2, 0, 3, 0, 9, 0x01];
    const TAKE_1: &[u8] = &[17, 0, 0, 0];
    const PUSH: &[u8] = &[16, 0, 0, 50];
    const CLOSE_1: &[u8] = &[8, 5, 0, 0, 2, 0];
    const ENDS: [&[u8]; 2] = [CLOSE_1, &[18, 0, 4, 0]];

    put("session", "confirm", &[CONFIRM, WRITE]);
    put("session", "nothing-before-confirm", &[OPEN_1]);
    for (mode, name) in ["credit", "rendezvous", "lease", "demand", "cast"].iter().enumerate() {
        let accept = [14, 1, 3, mode as u8];
        let begun =
            [CONFIRM, OPEN_1, &accept, OPEN_3, &accept, WRITE, ITEMS_1, PUSH, WRITE, TAKE_1, TAKE_1].concat();
        put("session", name, &[&begun, ENDS[0], ENDS[1], WRITE]);
        put(
            "session",
            &format!("{name}-cut"),
            &[&begun, CUT, CONFIRM, OPEN_1, OPEN_3, WRITE, ITEMS_1, WRITE],
        );
        // WINDOW, WANT, RECALL, YIELD and POS of the channel from the server.
        let frames: [&[u8]; 5] = [
            &[8, 0, 2, 0, 1, 1, 9, 0xf0, 8, 0],
            &[8, 1, 0, 0, 7],
            &[8, 3, 2, 1, 1, 1],
            &[8, 4, 0, 1, 1, 1],
            &[8, 9, 2, 0, 1, 1, 9, 0xf0, 8, 0, 0],
        ];
        put("session", &format!("{name}-frames"), &[&begun, &frames.concat(), WRITE]);
    }
    // The server opens channel 2 to send and 4 to receive; the client accepts both.
    let opened =
        [CONFIRM, &[15, 0], &[15, 1], WRITE, &[3, 1, 3, 0, 100], &[3, 3, 3, 0, 0], PUSH, WRITE].concat();
    put(
        "session",
        "opened-by-the-server",
        &[&opened, &[5, 3, 1, 0, 5, 1], &[17, 3, 0, 0], &[8, 7, 1, 0, 0], WRITE],
    );
    put(
        "session",
        "fragments",
        &[CONFIRM, OPEN_1, &[14, 1, 3, 0], &[7, 0, 0, 100, 200, 0, 1], &[7, 0, 0, 100, 200, 100, 1], TAKE_1],
    );
    put(
        "session",
        "raw-frames",
        &[CONFIRM, &[4, 0, 4], &[0x30, 2, 0x80, 1], &[4, 0, 3], &[0x14, 1, 3], WRITE],
    );
}

/// What a hostile client of a queue does: the first byte chooses the capacity, then come a step, which client, and what it takes.
fn queues(put: &mut Put<'_>) {
    const A: u8 = 0;
    const B: u8 = 1;
    let sender = |who| [5, who, 0, 0, 1, 0];
    let receiver = |who| [5, who, 0, 3, 1, 4];
    let holder = |who| [5, who, 0, 4, 1, 0];
    let results = |who| [5, who, 0, 2, 1, 0];
    let asks = |who| [5, who, 0, 6, 1, 0];
    // Its first channel: asks for so many values, with room for their bytes.
    let waits = |who, units| [9, who, 0, 0, 0, units, 1];
    let takes = |who, units| [9, who, 0, 0xff, 0, units, 1];
    let honest_sends = [2];
    let (listen, a_moment, a_second) = ([22, A], [0, 5], [1, 10]);
    put("hosted", "credit-that-nobody-uses", &[&[0], &sender(A), &[8, A, 0, 0xdf], &honest_sends, &a_second]);
    put(
        "hosted",
        "credit-of-two",
        &[&[0], &sender(A), &sender(B), &[8, A, 0, 9], &[8, B, 0, 9], &a_second, &honest_sends],
    );
    put(
        "hosted",
        "values-that-nobody-takes",
        &[&[2], &receiver(A), &waits(A, 0xdf), &honest_sends, &honest_sends, &a_second],
    );
    put(
        "hosted",
        "no-room-for-bytes",
        &[&[0], &receiver(A), &[9, A, 0, 0, 0, 9, 0, 0], &honest_sends, &a_second],
    );
    put(
        "hosted",
        "acknowledged-with-results",
        &[
            &[2],
            &holder(A),
            &asks(A),
            &results(A),
            &honest_sends,
            &honest_sends,
            &waits(A, 9),
            &listen,
            &takes(A, 9),
            &[11, A, 0, 0, 0, 4, 1],
            &[11, A, 0, 0, 0, 0, 0],
            &[11, A, 1, 0, 50, 1, 1],
            &a_moment,
            &[20, A, 100, 1],
            &honest_sends,
            &a_second,
        ],
    );
    put(
        "hosted",
        "cut-in-the-middle",
        &[
            &[0],
            &sender(A),
            &receiver(A),
            &waits(A, 3),
            &honest_sends,
            &[20, A, 200, 1],
            &[22, A, 0, 1, 0, 0, 1],
        ],
    );
}

fn policies(put: &mut Put<'_>) {
    let whole = include_str!("seeds/policy.toml");
    put("policy", "whole", &[whole.as_bytes()]);
    for (nth, part) in whole.split("\n\n").enumerate() {
        put("policy", &format!("part-{nth}"), &[part.as_bytes()]);
    }
    put("policy", "empty", &[]);
    for (name, text) in [
        ("unknown-key", "[[rule]]\nwho = \"everyone\"\nchanel = \"a\"\nallow = [\"recv\"]\n"),
        ("bad-pattern", "[[rule]]\nwho = \"everyone\"\nchannel = \"a.>.b\"\nallow = \"recv\"\n"),
        ("bad-fingerprint", "[peer.a]\nkey = \"SHA256:short\"\n"),
        (
            "inline",
            "peer.a = { key = \"SHA256:hdRYAFfuN0FyOW7E5N3yM/NSkuekvMB4Fn1UoUoISs4\", groups = \"g\" }\n",
        ),
        ("not-toml", "[[rule\nwho = \n"),
    ] {
        put("policy", name, &[text.as_bytes()]);
    }
}

fn tickets(put: &mut Put<'_>) {
    let addresses = [
        "10.0.0.7:9876",
        "[2001:db8::7]:9876",
        "[fe80::1%eth0]:1",
        "unix:///run/my app,1#%41.sock",
        "memory://jobs",
        "foo://any/thing?x=1&y=ü",
        "TCP://localhost:0",
    ];
    let identity = Identity::from_seed([9; 32]).with_access_secret(AccessSecret::new([8; 32]));
    let parsed: Vec<Address> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let ticket = Ticket::new(parsed, &identity).expect("few addresses");
    put("ticket", "whole", &[&[1], ticket.to_string().as_bytes()]);
    put("ticket", "pin-only", &[&[1], ticket.clone().pin_only().to_string().as_bytes()]);
    for (nth, address) in addresses.iter().enumerate() {
        put("ticket", &format!("address-{nth}"), &[&[2], address.as_bytes()]);
    }
    put("ticket", "fingerprint", &[&[3], identity.fingerprint().to_string().as_bytes()]);
    for (name, text) in [
        ("tcp", "localhost:9876"),
        ("several", "a:1,[::1]:2,unix:///x%20y"),
        ("lower-case", "unix:///a%2cb%C3%bc"),
        ("none", ""),
        ("nested", "netchan://a:1"),
    ] {
        put("ticket", &format!("parts-{name}"), &[&[0, 1, 1], text.as_bytes()]);
    }
    put("ticket", "parts-newer", &[&[0, 2, 0], b"a:1"]);
}

fn values(put: &mut Put<'_>) {
    fn value<T: Message>(put: &mut Put<'_>, kind: u8, name: &str, value: &T) {
        let bytes = decode::encode(value);
        put("decode", name, &[&[kind], &bytes]);
        // A multiple of how many types there are, above 0x80.
        let tight = 0x80 - 0x80 % decode::TYPES + decode::TYPES + kind;
        put("decode", &format!("{name}-tight"), &[&[tight], &bytes]);
    }
    let chain = |depth| {
        (0..depth).fold(Chain::default(), |next, number| Chain { number, next: Some(Box::new(next)) })
    };
    value(put, 0, "chain", &chain(5));
    value(put, 0, "chain-deepest", &chain(128));
    value(put, 0, "chain-too-deep", &chain(129));
    let leaf = Tree::Pair(-7, Some("é".to_owned()));
    let branch = Tree::Branch {
        name: "branch".to_owned(),
        inner: vec![leaf.clone(), Tree::Leaf],
        by_name: BTreeMap::from([("a".to_owned(), Tree::Wrapped(Box::new(leaf)))]),
    };
    value(put, 1, "tree", &branch);
    let kinds = Kinds {
        signed: (-1, i16::MIN, i32::MAX, i64::MIN, i128::MIN),
        unsigned: (255, 300, u32::MAX, u64::MAX, u128::MAX),
        sizes: (usize::MAX, isize::MIN),
        rest: (true, (), '☃', f32::NAN, -0.0),
        array: *b"array",
    };
    value(put, 2, "kinds", &kinds);
    value(put, 3, "units", &vec![(); 300]);
    put("decode", "units-endless", &[&[3], &[0xff; 9], &[1]]);
    value(put, 4, "map", &HashMap::from([(1_u16, vec![Some(()), None]), (300, Vec::new())]));
    value(put, 5, "bytes", &(Bytes::from_static(b"bytes"), vec![Bytes::new(), Bytes::from_static(&[7; 40])]));
    value(put, 6, "texts", &("text".to_owned(), vec![String::new(), "ünï".to_owned()]));
    value(put, 7, "nested", &vec![vec![vec![true, false], Vec::new()], Vec::new()]);
    let ordered: Result<_, Option<Option<u128>>> = Ok(BTreeMap::from([((-3_i16, true), vec![1_u16, 500])]));
    value(put, 8, "ordered", &ordered);
    value(put, 8, "failed", &Err::<BTreeMap<(i16, bool), Vec<u16>>, _>(Some(Some(1_u128 << 100))));
    value(put, 9, "unit-arrays", &vec![[(); 3]; 40]);
}
