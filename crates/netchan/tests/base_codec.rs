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
