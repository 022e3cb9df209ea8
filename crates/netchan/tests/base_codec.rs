//! Codecs: values come back, and hostile bytes get an error in bounded time and memory.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use netchan::codec::{
    Codec, DECODE_DEPTH_MAX, DECODE_EMPTY_ELEMENTS_MAX, DecodeContext, DecodeError, EncodeContext,
    EncodeError, Message, Payload, Postcard, Raw,
};
use netchan_proto::channel::{PushError, SendHalf, SendOptions};
use netchan_proto::id::ChannelId;
use netchan_proto::wire::Mode;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, Serializer};

const MAX: usize = 1 << 20;

/// Encodes as a channel does.
fn push<T, C: Codec<T>>(half: &mut SendHalf, codec: &C, value: &T) -> Result<(), PushError<EncodeError>> {
    half.push(|item| codec.encode(value, &mut EncodeContext::new("test", MAX), item)).map(|_| ())
}

fn half() -> SendHalf {
    let options =
        SendOptions { mode: Mode::Credit, capacity: 9, limit_bytes: 1 << 40, message_bytes_max: MAX };
    SendHalf::new(ChannelId(1), &options)
}

fn sent(half: &SendHalf) -> Vec<Bytes> {
    let mut sent = Vec::new();
    half.for_each_unsettled(|value| sent.push(value.payload.into_bytes()));
    sent
}

fn encode<T, C: Codec<T>>(codec: &C, value: &T) -> Bytes {
    let mut half = half();
    push(&mut half, codec, value).unwrap();
    sent(&half).remove(0)
}

fn decode<T: Message>(bytes: &[u8]) -> Result<T, DecodeError> {
    Postcard.decode(Payload::Slice(bytes), &mut DecodeContext::new("test", MAX))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Wrapped(u64),
    Pair(i32, Option<String>),
    Fields { map: BTreeMap<String, Vec<u8>>, inner: Vec<Shape>, tuple: (u8, char, f64) },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(Shape);

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Nothing),
        any::<u64>().prop_map(Shape::Wrapped),
        (any::<i32>(), any::<Option<String>>()).prop_map(|(a, b)| Shape::Pair(a, b)),
    ];
    leaf.prop_recursive(6, 64, 5, |inner| {
        let map = btree_map(".{0,8}", vec(any::<u8>(), 0..8), 0..4);
        let float = any::<f64>().prop_filter("comparable", |float| !float.is_nan());
        (map, vec(inner, 0..5), (any::<u8>(), any::<char>(), float))
            .prop_map(|(map, inner, tuple)| Shape::Fields { map, inner, tuple })
    })
}

proptest! {
    #[test]
    fn postcard_values_come_back(shape in shapes()) {
        let value = Newtype(shape);
        let bytes = encode(&Postcard, &value);
        prop_assert_eq!(decode::<Newtype>(&bytes).unwrap(), value.clone());
        prop_assert_eq!(&bytes[..], &postcard::to_stdvec(&value).unwrap()[..]);
        for end in 0..bytes.len() {
            prop_assert!(decode::<Newtype>(&bytes[..end]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        let is_trailing = matches!(decode::<Newtype>(&longer), Err(DecodeError::TrailingBytes { bytes: 1, .. }));
        prop_assert!(is_trailing);
    }

    #[test]
    fn postcard_takes_any_bytes(bytes: Vec<u8>) {
        let _ = decode::<Shape>(&bytes);
        let _ = decode::<HashMap<String, Vec<Option<()>>>>(&bytes);
        let _ = decode::<(String, Vec<Vec<()>>)>(&bytes);
    }

    #[test]
    fn dense_values_are_never_over_budget(value in vec(vec(vec(any::<bool>(), 0..6), 0..6), 0..6)) {
        let bytes = encode(&Postcard, &value);
        let mut cx = DecodeContext::new("test", MAX).with_empty_elements_max(0);
        let back: Vec<Vec<Vec<bool>>> = Postcard.decode(Payload::Slice(&bytes), &mut cx).unwrap();
        prop_assert_eq!(back, value);
    }

    #[test]
    fn raw_bytes_come_back(bytes: Vec<u8>) {
        prop_assert_eq!(&encode(&Raw, &bytes)[..], &bytes[..]);
        prop_assert_eq!(&encode(&Raw, &Bytes::from(bytes.clone()))[..], &bytes[..]);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

/// What serde can say, but for text and characters, of which ours is stricter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kinds {
    signed: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    sizes: (usize, isize),
    rest: (bool, (), Unit, Option<Option<bool>>),
    floats: [u32; 2],
    map: BTreeMap<(i16, bool), Vec<u16>>,
    choice: Result<Vec<i64>, Option<u128>>,
    array: [u8; 5],
}

fn kinds() -> impl Strategy<Value = Kinds> {
    let choice = prop_oneof![vec(any::<i64>(), 0..4).prop_map(Ok), any::<Option<u128>>().prop_map(Err)];
    let rest = any::<(bool, Option<Option<bool>>)>().prop_map(|(yes, maybe)| (yes, (), Unit, maybe));
    let map = btree_map(any::<(i16, bool)>(), vec(any::<u16>(), 0..4), 0..4);
    (any::<(i8, i16, i32, i64, i128)>(), any::<(u8, u16, u32, u64, u128)>(), any::<(usize, isize)>(), rest)
        .prop_flat_map(move |(signed, unsigned, sizes, rest)| {
            (any::<[u32; 2]>(), map.clone(), choice.clone(), any::<[u8; 5]>()).prop_map(
                move |(floats, map, choice, array)| Kinds {
                    signed,
                    unsigned,
                    sizes,
                    rest,
                    floats,
                    map,
                    choice,
                    array,
                },
            )
        })
}

/// What the postcard crate makes of all of these bytes.
fn reference<T: Message>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

fn same<T: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(decode::<T>(bytes).ok(), reference::<T>(bytes), "{:x?}", bytes);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The bytes are those of the postcard crate, and whatever becomes of them, both read the same or neither reads.
    #[test]
    fn every_kind_is_as_the_postcard_crate_has_it(value in kinds(), at: prop::sample::Index, flip: u8, cut: bool) {
        let mut bytes = encode(&Postcard, &value).to_vec();
        prop_assert_eq!(&bytes, &postcard::to_stdvec(&value).unwrap());
        prop_assert_eq!(decode::<Kinds>(&bytes).unwrap(), value);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if cut {
            bytes.truncate(at + 1);
        }
        same::<Kinds>(&bytes)?;
    }

    /// Numbers of every width, in short, long and overlong encodings.
    #[test]
    fn numbers_are_as_the_postcard_crate_has_them(start in vec(any::<u8>(), 0..3), more in 0..20_usize, last: u8) {
        let bytes = [start, vec![0x80; more], vec![0xff; more % 3], vec![last]].concat();
        same::<u16>(&bytes)?;
        same::<i16>(&bytes)?;
        same::<u32>(&bytes)?;
        same::<i32>(&bytes)?;
        same::<u64>(&bytes)?;
        same::<i64>(&bytes)?;
        same::<u128>(&bytes)?;
        same::<i128>(&bytes)?;
        same::<usize>(&bytes)?;
        same::<Option<u16>>(&bytes)?;
    }

    #[test]
    fn text_and_floats_come_back(text: String, character: char, bits: (u32, u64)) {
        let value = (text, character, f32::from_bits(bits.0), f64::from_bits(bits.1));
        let bytes = encode(&Postcard, &value);
        prop_assert_eq!(&bytes[..], &postcard::to_stdvec(&value).unwrap()[..]);
        let back: (String, char, f32, f64) = decode(&bytes).unwrap();
        prop_assert_eq!((back.0, back.1), (value.0, value.1));
        prop_assert_eq!((back.2.to_bits(), back.3.to_bits()), (value.2.to_bits(), value.3.to_bits()));
    }
}

/// 2^63 elements, claimed in nine or ten bytes.
const CLAIM: [u8; 10] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];

#[test]
fn claims_without_bytes_are_refused() {
    let refused =
        |result: Result<(), DecodeError>| matches!(result, Err(DecodeError::TooManyElements { .. }));
    assert!(refused(decode::<Vec<()>>(&CLAIM).map(drop)));
    assert!(refused(decode::<HashMap<(), ()>>(&CLAIM).map(drop)));
    assert!(refused(decode::<Vec<(Vec<()>, ())>>(&[&[1][..], &CLAIM].concat()).map(drop)));
    assert!(matches!(decode::<HashMap<u64, [u64; 32]>>(&CLAIM), Err(DecodeError::Malformed { .. })));
    assert!(decode::<Vec<u8>>(&CLAIM).is_err());

    let allowed = vec![(); DECODE_EMPTY_ELEMENTS_MAX];
    assert_eq!(decode::<Vec<()>>(&encode(&Postcard, &allowed)).unwrap(), allowed);
    assert!(refused(
        decode::<Vec<()>>(&encode(&Postcard, &vec![(); DECODE_EMPTY_ELEMENTS_MAX + 9])).map(drop)
    ));
}

#[test]
fn depth_is_bounded() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Tree(Vec<Tree>);
    #[derive(Debug, Serialize, Deserialize)]
    struct List {
        next: Option<Box<List>>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    enum Chain {
        End,
        Link(Box<Chain>),
    }
    let nested = |levels: usize| [vec![1; levels], vec![0]].concat();
    let deep = nested(1_000_000);
    assert!(matches!(decode::<Tree>(&deep), Err(DecodeError::TooDeep { .. })));
    assert!(matches!(decode::<List>(&deep), Err(DecodeError::TooDeep { .. })));
    assert!(matches!(decode::<Chain>(&deep), Err(DecodeError::TooDeep { .. })));
    assert!(decode::<Tree>(&nested(DECODE_DEPTH_MAX - 1)).is_ok());
    assert!(decode::<Chain>(&nested(DECODE_DEPTH_MAX - 1)).is_ok());
    assert!(decode::<List>(&nested(DECODE_DEPTH_MAX)).is_ok());
    let mut shallow = DecodeContext::new("test", MAX).with_depth_max(2);
    let flat: Vec<Vec<u8>> = Postcard.decode(Payload::Slice(&[2, 1, 7, 1, 8]), &mut shallow).unwrap();
    assert_eq!(flat, [[7], [8]], "siblings do not add up");
    let error: Result<Tree, _> = Postcard.decode(Payload::Slice(&nested(3)), &mut shallow);
    assert!(error.unwrap_err().to_string().contains("more than 2 levels"));
}

/// Writes a little, then does what its value says.
struct Faulty(Fault);
enum Fault {
    Fails,
    Panics,
    Swallows,
}

impl Serialize for Faulty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeSeq};
        let mut seq = serializer.serialize_seq(Some(3))?;
        seq.serialize_element(&[1_u8; 100][..])?;
        match self.0 {
            Fault::Fails => Err(S::Error::custom("no")),
            Fault::Panics => panic!("in Serialize"),
            Fault::Swallows => {
                let _ = seq.serialize_element(&vec![1_u8; 2 * MAX]);
                seq.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Faulty {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self(Fault::Fails))
    }
}

#[test]
fn a_value_that_fails_leaves_its_neighbours_whole() {
    let mut half = half();
    push(&mut half, &Postcard, &1_u8).unwrap();
    let error = push(&mut half, &Postcard, &Faulty(Fault::Fails)).unwrap_err();
    assert!(matches!(&error, PushError::Encode(EncodeError::Serialize { .. })), "{error:?}");
    push(&mut half, &Postcard, &2_u8).unwrap();
    catch_unwind(AssertUnwindSafe(|| push(&mut half, &Postcard, &Faulty(Fault::Panics)))).unwrap_err();
    push(&mut half, &Postcard, &3_u8).unwrap();
    for too_large in
        [push(&mut half, &Postcard, &Faulty(Fault::Swallows)), push(&mut half, &Raw, &vec![0; MAX + 1])]
    {
        assert!(matches!(too_large, Err(PushError::TooLarge { bytes_max: MAX })));
    }
    push(&mut half, &Postcard, &4_u8).unwrap();
    assert_eq!(sent(&half).concat(), [1, 2, 3, 4]);
}

#[test]
fn an_error_outside_a_channel_is_as_specific() {
    let mut batch = vec![9];
    let mut item = netchan::codec::ItemBuf::new(&mut batch, 1_000);
    let error = Postcard.encode(&Faulty(Fault::Swallows), &mut EncodeContext::new("test", 1_000), &mut item);
    assert!(matches!(error, Err(EncodeError::TooLarge(_))));
    drop(item);
    assert_eq!(batch, [9]);
    let error = decode::<bool>(&[2]).unwrap_err().to_string();
    assert!(error.contains("bool") && error.contains("same version"), "{error}");
}

#[test]
fn raw_does_not_copy_what_is_large() {
    let large = Bytes::from(vec![7; 100_000]);
    let through = encode(&Raw, &large);
    assert_eq!(through.as_ptr(), large.as_ptr());
    let mut cx = DecodeContext::new("test", MAX);
    let out: Bytes = Raw.decode(Payload::Owned(through), &mut cx).unwrap();
    assert_eq!(out.as_ptr(), large.as_ptr());
    let owned = Bytes::from(vec![7; 100_000]);
    let start = owned.as_ptr();
    let out: Vec<u8> = Raw.decode(Payload::Owned(owned), &mut cx).unwrap();
    assert_eq!(out.as_ptr(), start, "nobody else holds it");
    let out: Vec<u8> = Raw.decode(Payload::Slice(b"abc"), &mut cx).unwrap();
    assert_eq!(out, b"abc");
}

#[test]
fn contexts_and_names() {
    let names = (Codec::<u8>::name(&Postcard), Codec::<Bytes>::name(&Raw), Codec::<Vec<u8>>::name(&Raw));
    assert_eq!(names, ("postcard/1", "raw/1", "raw/1"));
    let cx = EncodeContext::new("jobs", 7);
    assert_eq!((cx.channel(), cx.message_bytes_max()), ("jobs", 7));
}

/// A codec is a trait object too, and sees its context.
#[test]
fn a_codec_of_ones_own() {
    struct Refusing;
    impl Codec<Cell<u8>> for Refusing {
        fn name(&self) -> &str {
            "refusing"
        }
        fn encode(
            &self,
            _: &Cell<u8>,
            cx: &mut EncodeContext<'_>,
            _: &mut netchan::codec::ItemBuf<'_>,
        ) -> Result<(), EncodeError> {
            Err(EncodeError::codec(format!("not on {}", cx.channel())))
        }
        fn decode(&self, _: Payload<'_>, _: &mut DecodeContext<'_>) -> Result<Cell<u8>, DecodeError> {
            Err(DecodeError::codec("never"))
        }
    }
    let codec: Box<dyn Codec<Cell<u8>>> = Box::new(Refusing);
    let mut batch = Vec::new();
    let mut item = netchan::codec::ItemBuf::new(&mut batch, 9);
    let error = codec.encode(&Cell::new(1), &mut EncodeContext::new("jobs", 9), &mut item).unwrap_err();
    assert!(error.to_string().contains("not on jobs"));
}
