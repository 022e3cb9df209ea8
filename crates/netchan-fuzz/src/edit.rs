//! What a network, or whoever sits on it, does to a stream of bytes.

use crate::script::Script;

/// So many edits of one stream: combinations of a few are what matters, and a run stays short.
const EDITS_MAX: usize = 6;

/// Bytes that one edit adds or takes away.
const EDIT_BYTES_MAX: usize = 300;

/// Does to a stream what the script says.
pub(crate) fn edit(stream: &mut Vec<u8>, script: &mut Script<'_>) {
    for _ in 0..EDITS_MAX {
        if script.is_empty() {
            break;
        }
        let what = script.one_of(6);
        let at = script.place(stream.len());
        let count = script.place(EDIT_BYTES_MAX);
        let range = at..stream.len().min(at + count);
        match what {
            // Flips one bit, or leaves all as it is.
            0 => stream.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (count % 8)),
            1 => stream.truncate(at),
            2 => drop(stream.drain(range)),
            3 => {
                let added = script.take(count);
                drop(stream.splice(at..at, added.iter().copied()));
            }
            4 => {
                let repeated = stream[range].to_vec();
                let to = script.place(stream.len());
                drop(stream.splice(to..to, repeated));
            }
            _ => {
                let written = script.take(count);
                stream.iter_mut().skip(at).zip(written).for_each(|(byte, new)| *byte = *new);
            }
        }
    }
}

/// How many bytes two streams have in common at their starts.
pub(crate) fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// How a stream arrives: in pieces of this many bytes.
pub(crate) fn piece(script: &mut Script<'_>) -> usize {
    match script.byte() {
        0 => usize::MAX,
        bytes => usize::from(bytes),
    }
}
