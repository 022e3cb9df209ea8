//! The default codec.

use std::any::type_name;
use std::marker::PhantomData;

use postcard::Deserializer;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::guard::{Budget, Guarded, Overrun};
use super::probe::is_flat;
use super::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload, TooLarge};

/// [postcard](https://docs.rs/postcard): small, fast, specified, for every type that serde can write and read.
///
/// postcard is not self-describing: both ends need the same type, and serde attributes that look ahead (`untagged`,
/// `flatten`, `skip_serializing_if`) do not work. Opening a channel compares the types' names to catch the difference.
///
/// Decoding is bounded against hostile bytes: values nest at most [`DECODE_DEPTH_MAX`](super::DECODE_DEPTH_MAX) levels
/// (options, enums, sequences and maps count, structs do not) and hold at most one element for each byte, plus
/// [`DECODE_EMPTY_ELEMENTS_MAX`](super::DECODE_EMPTY_ELEMENTS_MAX).
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
        let mut serializer = postcard::Serializer { output: IntoItem { out, refused: None } };
        let result = value.serialize(&mut serializer);
        match (serializer.output.refused, result) {
            // First, because a Serialize that swallows the error would send half a value.
            (Some(too_large), _) => Err(too_large.into()),
            (None, Err(error)) => {
                Err(EncodeError::Serialize { type_name: type_name::<T>(), source: Box::new(error) })
            }
            (None, Ok(())) => Ok(()),
        }
    }

    #[inline]
    fn decode(&self, payload: Payload<'_>, cx: &mut DecodeContext<'_>) -> Result<T, DecodeError> {
        let bytes = payload.as_slice();
        let elements_max = bytes.len().saturating_add(cx.empty_elements_max());
        let mut budget = Budget::new(cx.depth_max(), elements_max, bytes.len());
        let mut deserializer = Deserializer::from_bytes(bytes);
        let result = T::deserialize(Guarded::new(&mut deserializer, &mut budget));
        match (result, deserializer.finalize()) {
            (Ok(value), Ok([])) if budget.overrun().is_none() => Ok(value),
            (result, rest) => {
                let (error, rest) = (result.err(), rest.map_or(0, <[u8]>::len));
                Err(why_not(type_name::<T>(), error, rest, &budget, cx.depth_max(), elements_max))
            }
        }
    }
}

/// [`Postcard`] for one type, which was looked at beforehand: a type that cannot nest or claim a length is decoded without
/// counting.
pub(crate) struct PostcardFor<T> {
    flat: bool,
    value: PhantomData<fn(T)>,
}

impl<T: DeserializeOwned> PostcardFor<T> {
    pub(crate) fn new() -> Self {
        Self { flat: is_flat::<T>(), value: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Codec<T> for PostcardFor<T> {
    fn name(&self) -> &str {
        Codec::<T>::name(&Postcard)
    }

    #[inline]
    fn encode(
        &self,
        value: &T,
        cx: &mut EncodeContext<'_>,
        out: &mut ItemBuf<'_>,
    ) -> Result<(), EncodeError> {
        Postcard.encode(value, cx, out)
    }

    #[inline]
    fn decode(&self, payload: Payload<'_>, cx: &mut DecodeContext<'_>) -> Result<T, DecodeError> {
        if self.flat
            && let Ok((value, [])) = postcard::take_from_bytes(payload.as_slice())
        {
            return Ok(value);
        }
        // Also for what failed: the guarded path says what is wrong.
        Postcard.decode(payload, cx)
    }
}

/// Out of the way of what usually happens.
#[cold]
fn why_not(
    type_name: &'static str,
    error: Option<postcard::Error>,
    rest: usize,
    budget: &Budget,
    depth_max: usize,
    elements_max: usize,
) -> DecodeError {
    match (budget.overrun(), error) {
        // First, because a Deserialize that swallows the error would hide it.
        (Some(Overrun::Depth), _) => DecodeError::TooDeep { depth_max },
        (Some(Overrun::Elements), _) => DecodeError::TooManyElements { elements_max },
        (None, Some(error)) => DecodeError::Malformed { type_name, source: Box::new(error) },
        (None, None) => DecodeError::TrailingBytes { type_name, bytes: rest },
    }
}

/// Writes straight into the channel's open batch.
struct IntoItem<'a, 'b> {
    out: &'a mut ItemBuf<'b>,
    refused: Option<TooLarge>,
}

impl IntoItem<'_, '_> {
    #[cold]
    fn refuse(&mut self, too_large: TooLarge) -> postcard::Error {
        self.refused = Some(too_large);
        postcard::Error::SerializeBufferFull
    }
}

impl Flavor for IntoItem<'_, '_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.out.extend(bytes).map_err(|too_large| self.refuse(too_large))
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.out.push(byte).map_err(|too_large| self.refuse(too_large))
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
