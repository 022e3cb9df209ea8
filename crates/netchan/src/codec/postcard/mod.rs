//! The default codec: the wire format of [postcard](https://postcard.jamesmunns.com), written and read by code of our own.
//!
//! The format is postcard's to the byte, and a test compares each with the other. The code is ours because it is on the way
//! of every message: it writes with its place in a register, and counts against hostile bytes where it reads them.

mod de;
mod ser;

use std::any::type_name;

use netchan_proto::channel::ItemWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::de::{Deserializer, Overrun};
use super::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload, TooLarge};

/// [postcard](https://docs.rs/postcard)'s format: small, fast, specified, for every type that serde can write and read.
///
/// postcard is not self-describing: both ends need the same type, and serde attributes that look ahead (`untagged`,
/// `flatten`, `skip_serializing_if`) do not work. Opening a channel compares the types' names to catch the difference.
///
/// Decoding is bounded against hostile bytes: values nest at most [`DECODE_DEPTH_MAX`](super::DECODE_DEPTH_MAX) levels
/// (options, enums, sequences and maps count, structs do not) and hold at most one element for each byte, plus
/// [`DECODE_EMPTY_ELEMENTS_MAX`](super::DECODE_EMPTY_ELEMENTS_MAX). A `Deserialize` written by hand that nests by other means than
/// those has to bound itself.
///
/// ```
/// use netchan::codec::{Codec, DecodeContext, EncodeContext, ItemBuf, Payload, Postcard};
///
/// let mut batch = Vec::new();
/// let mut item = ItemBuf::new(&mut batch, 1_024);
/// let value = ("answer".to_owned(), 42_u32);
/// Postcard.encode(&value, &mut EncodeContext::new("jobs", 1_024), &mut item)?;
/// assert_eq!(item.len(), 8);
///
/// let arrived = Payload::Slice(b"\x06answer\x2a");
/// let back: (String, u32) = Postcard.decode(arrived, &mut DecodeContext::new("jobs", 1_024))?;
/// assert_eq!(back, value);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn name(&self) -> &str {
        "postcard/1"
    }

    #[inline]
    fn encode(&self, value: &T, _: &mut EncodeContext<'_>, out: &mut ItemBuf<'_>) -> Result<(), EncodeError> {
        let bytes_max = out.bytes_max();
        match value.serialize(ser::Serializer(out.writer())).map(ItemWriter::finish) {
            Ok(()) => Ok(()),
            Err(_) if out.overflowed() => Err(TooLarge { bytes_max }.into()),
            Err(error) => {
                Err(EncodeError::Serialize { type_name: type_name::<T>(), source: Box::new(error) })
            }
        }
    }

    #[inline]
    fn decode(&self, payload: Payload<'_>, cx: &mut DecodeContext<'_>) -> Result<T, DecodeError> {
        let bytes = payload.as_slice();
        let elements_max = bytes.len().saturating_add(cx.empty_elements_max());
        let mut deserializer = Deserializer::new(bytes, cx.depth_max(), elements_max);
        let result = T::deserialize(&mut deserializer);
        if result.is_ok() && deserializer.is_done() {
            return result;
        }
        Err(why_not(type_name::<T>(), result.err(), &deserializer, cx.depth_max(), elements_max))
    }
}

/// Out of the way of what usually happens.
#[cold]
fn why_not(
    type_name: &'static str,
    error: Option<DecodeError>,
    deserializer: &Deserializer<'_>,
    depth_max: usize,
    elements_max: usize,
) -> DecodeError {
    match (deserializer.overrun(), error) {
        // First, because a Deserialize that swallows the error would hide it.
        (Some(Overrun::Depth), _) => DecodeError::TooDeep { depth_max },
        (Some(Overrun::Elements), _) => DecodeError::TooManyElements { elements_max },
        (None, Some(DecodeError::Malformed { source, .. })) => DecodeError::Malformed { type_name, source },
        (None, Some(error)) => error,
        (None, None) => DecodeError::TrailingBytes { type_name, bytes: deserializer.rest() },
    }
}
