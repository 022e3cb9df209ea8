//! The record layer: what was not sealed never opens, and what was opens once, whole, in its place.

use netchan_proto::crypto::{LinkKeys, Opener, Peek, RekeyLimits, SealBuf};
use netchan_proto::id::{ChannelId, Direction, Side};
use netchan_proto::limits::{RECORD_BYTES_MAX, WRITE_BUFFER_BYTES};

use crate::edit::{common, edit, piece};
use crate::script::Script;

const SEED: &[u8] = b"records";
const CHANNELS: u8 = 4;
const RECORDS_MAX: u8 = 8;

/// The first byte says whether a stranger writes, or a network changes what a peer wrote.
///
/// # Panics
/// When a record opens that was not sealed, or not in its place, or when one that was does not.
pub fn records(data: &[u8]) {
    let mut script = Script::new(data);
    let (mut client, mut server) =
        (LinkKeys::stub(Side::Client, SEED, 0), LinkKeys::stub(Side::Server, SEED, 0));
    for id in 1..CHANNELS {
        let id = ChannelId(id.into());
        let ours = client.own_chain.step(&id.0.to_be_bytes());
        let theirs = server.peer_chain.step(&id.0.to_be_bytes());
        client.sealer.add_channel(id, ours.secret(Direction::FromClient)).expect("new");
        server.opener.add_channel(id, theirs.secret(Direction::FromClient)).expect("new");
    }
    if script.flag() {
        let piece = piece(&mut script);
        assert_eq!(open_all(&mut server.opener, script.rest(), piece), []);
        return;
    }

    let piece = piece(&mut script);
    let records = 1 + u64::from(script.byte() % 4);
    client.sealer.set_rekey_limits(RekeyLimits { records, ..RekeyLimits::default() });
    let mut out = SealBuf::new(WRITE_BUFFER_BYTES);
    let mut sealed = Vec::new();
    for _ in 0..=script.one_of(RECORDS_MAX) {
        let channel = ChannelId(script.one_of(CHANNELS).into());
        let plaintext = vec![script.byte(); script.place(200)];
        let (body, trailer) = plaintext.split_at(plaintext.len() / 2);
        client.sealer.seal(channel, body, trailer, 0, &mut out).expect("it fits");
        sealed.push((out.len(), channel, plaintext));
    }
    let mut stream = out.filled().to_vec();
    edit(&mut stream, &mut script);
    let untouched = common(out.filled(), &stream);
    let expected: Vec<_> = sealed
        .into_iter()
        .take_while(|(end, ..)| *end <= untouched)
        .map(|(_, channel, plaintext)| (channel, plaintext))
        .collect();
    assert_eq!(open_all(&mut server.opener, &stream, piece), expected);
}

/// Everything that opens before the first fault.
fn open_all(opener: &mut Opener, stream: &[u8], piece: usize) -> Vec<(ChannelId, Vec<u8>)> {
    let (mut arrived, mut opened) = (Vec::new(), Vec::new());
    for part in stream.chunks(piece) {
        arrived.extend_from_slice(part);
        loop {
            match opener.peek(&arrived) {
                Err(_) => return opened,
                Ok(Peek::Incomplete { need }) => {
                    // `REC-1`: nobody waits for, or makes room for, more than a record may be.
                    assert!(need > arrived.len() && need <= RECORD_BYTES_MAX);
                    break;
                }
                Ok(Peek::Record { channel, record_len, plaintext_len, .. }) => {
                    assert!(record_len <= arrived.len() && plaintext_len < record_len);
                    let mut plaintext = vec![0xee; plaintext_len];
                    let (sequence, rekeys) = (opener.sequence(), opener.rekeys());
                    match opener.open(&arrived[..record_len], &mut plaintext) {
                        Ok(id) => {
                            assert_eq!((id, opener.sequence()), (channel, sequence + 1));
                            opened.push((channel, plaintext));
                            arrived.drain(..record_len);
                        }
                        Err(_) => {
                            assert!(plaintext.iter().all(|byte| *byte == 0), "nothing leaks");
                            assert_eq!((opener.sequence(), opener.rekeys()), (sequence, rekeys));
                            return opened;
                        }
                    }
                }
            }
        }
    }
    opened
}
