//! The default codec against hostile bytes: a value or an error, within its budget, and never a value that postcard would not
//! have read there.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use netchan::Message;
use netchan::codec::{
    Codec, DECODE_EMPTY_ELEMENTS_MAX, DecodeContext, DecodeError, EncodeContext, Payload, Postcard,
};
use netchan_proto::channel::encode_alone;
use serde::{Deserialize, Serialize};

use crate::script::Script;

const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Nests through an option in a box.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) number: u8,
    pub(crate) next: Option<Box<Chain>>,
}

/// Nests through enums, sequences and maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Tree {
    Leaf,
    Wrapped(Box<Tree>),
    Pair(i32, Option<String>),
    Branch { name: String, inner: Vec<Tree>, by_name: BTreeMap<String, Tree> },
}

/// What serde can say of numbers and the like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kinds {
    pub(crate) signed: (i8, i16, i32, i64, i128),
    pub(crate) unsigned: (u8, u16, u32, u64, u128),
    pub(crate) sizes: (usize, isize),
    pub(crate) rest: (bool, (), char, f32, f64),
    pub(crate) array: [u8; 5],
}

/// How many types there are.
pub(crate) const TYPES: u8 = 10;

/// The first byte says as what type the others are read, and whether with the smallest budget.
///
/// # Panics
/// When a value is accepted that postcard reads otherwise, that does not come back, or that is over the budget.
pub fn decode(data: &[u8]) {
    let mut script = Script::new(data);
    let what = script.byte();
    let (bytes, is_tight) = (script.rest(), what >= 0x80);
    match what % TYPES {
        0 => drop(read::<Chain>(bytes, is_tight)),
        1 => drop(read::<Tree>(bytes, is_tight)),
        2 => drop(read::<Kinds>(bytes, is_tight)),
        3 => {
            let units = read::<Vec<()>>(bytes, is_tight);
            assert!(units.is_none_or(|units| units.len() <= bytes.len() + DECODE_EMPTY_ELEMENTS_MAX));
        }
        4 => drop(read::<HashMap<u16, Vec<Option<()>>>>(bytes, is_tight)),
        5 => {
            let held = read::<(Bytes, Vec<Bytes>)>(bytes, is_tight);
            assert!(held.is_none_or(|(first, others)| {
                first.len() + others.iter().map(Bytes::len).sum::<usize>() <= bytes.len()
            }));
        }
        6 => drop(read::<(String, Vec<String>)>(bytes, is_tight)),
        7 => drop(read::<Vec<Vec<Vec<bool>>>>(bytes, is_tight)),
        8 => drop(read::<Result<BTreeMap<(i16, bool), Vec<u16>>, Option<Option<u128>>>>(bytes, is_tight)),
        _ => drop(read::<Vec<[(); 3]>>(bytes, is_tight)),
    }
}

/// Reads all of `bytes` as a `T`, and checks what must hold of what comes out.
fn read<T: Message + fmt::Debug>(bytes: &[u8], is_tight: bool) -> Option<T> {
    let mut cx = DecodeContext::new("fuzz", MESSAGE_BYTES_MAX);
    if is_tight {
        cx = cx.with_depth_max(3).with_empty_elements_max(0);
    }
    let value: T = match Postcard.decode(Payload::Slice(bytes), &mut cx) {
        Ok(value) => value,
        Err(error) => {
            assert!(!matches!(error, DecodeError::Codec(_)), "{error}");
            assert!(error.to_string().len() < 1_000, "what is said of a message is short");
            return None;
        }
    };
    // By their encodings, which tell apart what `==` does not, and make nothing of NaN.
    let written = postcard::to_stdvec(&value).expect("it was read");
    let (reference, rest) = postcard::take_from_bytes::<T>(bytes).expect("ours is the stricter");
    assert!(rest.is_empty());
    // A hash map is written in any order, but in as many bytes.
    let again = postcard::to_stdvec(&reference).expect("it was read");
    assert_eq!(again.len(), written.len());
    let ours = encode(&value);
    assert_eq!(ours.len(), written.len());
    // Postcard takes numbers in longer forms than it writes, and nothing else.
    assert!(written.len() <= bytes.len());
    // What was read in a longer form had a budget of as many bytes.
    let mut cx = DecodeContext::new("fuzz", MESSAGE_BYTES_MAX)
        .with_empty_elements_max(DECODE_EMPTY_ELEMENTS_MAX + bytes.len());
    let back: T = Postcard.decode(Payload::Owned(ours.clone()), &mut cx).expect("what is written is read");
    assert_eq!(encode(&back).len(), ours.len());
    Some(value)
}

/// Encodes as a channel does.
pub(crate) fn encode<T: Message>(value: &T) -> Bytes {
    let written = encode_alone(MESSAGE_BYTES_MAX, |item| {
        Postcard.encode(value, &mut EncodeContext::new("fuzz", MESSAGE_BYTES_MAX), item)
    });
    written.unwrap_or_else(|_| panic!("a value that was read, or that a test made, can be written"))
}
