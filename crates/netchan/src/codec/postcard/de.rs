//! Postcard's bytes to values, within a budget.
//!
//! The bytes may be hostile. Every way for a type to contain itself leads through an option, an enum, a sequence or a map,
//! and so does every claim of a length: those four are counted, and nothing else needs to be.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Visitor};

use super::super::{BoxError, DecodeError};

/// So that what deserializing returns need not be moved to become what a codec returns.
impl de::Error for DecodeError {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        malformed(message.to_string())
    }
}

/// The caller puts in the name of the type.
#[cold]
#[inline(never)]
fn malformed(why: impl Into<BoxError>) -> DecodeError {
    DecodeError::Malformed { type_name: "", source: why.into() }
}

#[cold]
#[inline(never)]
fn invalid(what: &'static str) -> DecodeError {
    malformed(format!("it has an invalid {what}"))
}

#[cold]
#[inline(never)]
fn too_short() -> DecodeError {
    malformed("it ends too early")
}

/// What a message had too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overrun {
    Depth,
    Elements,
}

/// What is left of a message, and of its allowance.
///
/// An element with bytes of its own can be charged against them: in any value made of such elements, elements are fewer
/// than bytes (by induction: a sequence spends at least its length byte beyond its elements' bytes). So an allowance of
/// one element for each byte never refuses an honest value, and the rest is for elements without bytes.
pub(super) struct Deserializer<'de> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
    elements: usize,
    overrun: Option<Overrun>,
}

/// The bit of each byte of a varint that says that another follows.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// The number whose seven-bit groups lie in these bytes, the lowest first.
const fn joined(word: u64) -> u64 {
    let word = word & !CONTINUED;
    let word = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = (word & 0x0000_3fff_0000_3fff) | (word & 0x3fff_0000_3fff_0000) >> 2;
    (word & 0x0fff_ffff) | (word & 0x0fff_ffff_0000_0000) >> 4
}

impl<'de> Deserializer<'de> {
    #[inline]
    pub(super) const fn new(bytes: &'de [u8], depth: usize, elements: usize) -> Self {
        Self { bytes, at: 0, depth, elements, overrun: None }
    }

    /// Whether everything was read, within the budget. A `Deserialize` may have swallowed the error that said otherwise.
    #[inline]
    pub(super) const fn is_done(&self) -> bool {
        self.at == self.bytes.len() && self.overrun.is_none()
    }

    pub(super) const fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) const fn overrun(&self) -> Option<Overrun> {
        self.overrun
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let &byte = self.bytes.get(self.at).ok_or_else(too_short)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'de [u8], DecodeError> {
        let bytes = self.bytes[self.at..].get(..len).ok_or_else(too_short)?;
        self.at += len;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let &array = self.bytes[self.at..].first_chunk().ok_or_else(too_short)?;
        self.at += N;
        Ok(array)
    }

    /// A number of at most `bits` bits, seven to a byte, the lowest first.
    #[inline]
    fn varint(&mut self, bits: u32) -> Result<u64, DecodeError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(bits),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, bits: u32) -> Result<u64, DecodeError> {
        // Up to eight bytes at once: a loop over them costs a branch for each.
        if let Some(word) = self.bytes[self.at..].first_chunk() {
            let word = u64::from_le_bytes(*word);
            let last = (!word & CONTINUED).trailing_zeros() / 8;
            if last < 8 && 7 * last < bits {
                let number = joined(word & u64::MAX >> (56 - 8 * last));
                if number >> (bits - 1) > 1 {
                    return Err(invalid("number"));
                }
                self.at += last as usize + 1;
                return Ok(number);
            }
        }
        let (mut number, mut shift) = (0, 0);
        for (at, &byte) in self.bytes[self.at..].iter().enumerate() {
            let low = u64::from(byte & 0x7f);
            number |= low << shift;
            let too_wide = shift + 7 > bits && low >> (bits - shift) != 0;
            if byte < 0x80 && !too_wide {
                self.at += at + 1;
                return Ok(number);
            }
            shift += 7;
            if too_wide || shift >= bits {
                return Err(invalid("number"));
            }
        }
        Err(too_short())
    }

    fn varint_128(&mut self) -> Result<u128, DecodeError> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let low = u128::from(byte & 0x7f);
            if shift == 126 && byte > 3 {
                return Err(invalid("number"));
            }
            number |= low << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    #[inline]
    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.varint(u64::BITS)?;
        usize::try_from(length).map_err(|_| invalid("length"))
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'de [u8], DecodeError> {
        let length = self.length()?;
        self.take(length)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, DecodeError> {
        str::from_utf8(self.bytes()?).map_err(|_| invalid("text"))
    }

    /// What nests is a level deeper.
    #[inline]
    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        // `PORT-9`
        let Some(left) = self.depth.checked_sub(1) else { return Err(self.exceed(Overrun::Depth)) };
        self.depth = left;
        let value = read(self);
        self.depth = left + 1;
        value
    }

    #[inline]
    fn charge_element(&mut self) -> Result<(), DecodeError> {
        let Some(left) = self.elements.checked_sub(1) else { return Err(self.exceed(Overrun::Elements)) };
        self.elements = left;
        Ok(())
    }

    #[cold]
    fn exceed(&mut self, overrun: Overrun) -> DecodeError {
        self.overrun.get_or_insert(overrun);
        malformed("it is over budget")
    }
}

#[inline]
const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

macro_rules! numbers {
    ($($method:ident $visit:ident $bits:ident, $number:ident => $narrow:expr;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let $number = self.varint($bits::BITS)?;
            visitor.$visit($narrow)
        }
    )*};
}

macro_rules! not_in_postcard {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
            Err(malformed("postcard does not describe itself, and Deserialize asks what there is"))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = DecodeError;

    not_in_postcard! { deserialize_any deserialize_identifier deserialize_ignored_any }

    numbers! {
        deserialize_u16 visit_u16 u16, number => number as u16;
        deserialize_u32 visit_u32 u32, number => number as u32;
        deserialize_u64 visit_u64 u64, number => number;
        deserialize_i16 visit_i16 u16, number => unzigzag(number) as i16;
        deserialize_i32 visit_i32 u32, number => unzigzag(number) as i32;
        deserialize_i64 visit_i64 u64, number => unzigzag(number);
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(invalid("bool")),
        }
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u8(self.byte()?)
    }

    #[inline]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_i8(self.byte()?.cast_signed())
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_u128(self.varint_128()?)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number = self.varint_128()?;
        visitor.visit_i128((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut characters = self.text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => visitor.visit_char(character),
            _ => Err(invalid("character")),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|inner| visitor.visit_some(inner)),
            _ => Err(invalid("option")),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.length()?;
        self.nested(|inner| visitor.visit_seq(Parts::<true> { inner, left }))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.length()?;
        self.nested(|inner| visitor.visit_map(Parts::<true> { inner, left }))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Parts::<false> { inner: self, left: len })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|inner| visitor.visit_enum(inner))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a value that has parts. `CLAIMED` says that the message named their number, and not the type.
struct Parts<'p, 'de, const CLAIMED: bool> {
    inner: &'p mut Deserializer<'de>,
    left: usize,
}

impl<'de, const CLAIMED: bool> Parts<'_, 'de, CLAIMED> {
    #[inline]
    fn part<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        if CLAIMED {
            self.inner.charge_element()?;
        }
        seed.deserialize(&mut *self.inner).map(Some)
    }

    /// A collection may reserve room for no more elements than bytes are left, whatever length it claims.
    #[inline]
    fn hint(&self) -> Option<usize> {
        Some(if CLAIMED { self.left.min(self.inner.rest()) } else { self.left })
    }
}

impl<'de, const CLAIMED: bool> de::SeqAccess<'de> for Parts<'_, 'de, CLAIMED> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        self.part(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_, 'de, true> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        self.part(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(&mut *self.inner)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::EnumAccess<'de> for &mut Deserializer<'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), DecodeError> {
        let index = self.varint(u32::BITS)? as u32;
        Ok((seed.deserialize(index.into_deserializer())?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Deserializer<'de> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, DecodeError> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
