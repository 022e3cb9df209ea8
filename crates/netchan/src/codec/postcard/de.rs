//! Postcard's bytes to values, within a budget.
//!
//! The bytes may be hostile. Every way for a type to contain itself leads through an option, an enum, a sequence or a map,
//! and so does every claim of a length: those four are counted, and nothing else needs to be.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Visitor};

/// Why bytes are no value.
#[derive(Debug)]
pub(super) enum Error {
    /// The bytes end before the value does.
    End,
    Invalid(&'static str),
    /// More depth or elements than the budget has.
    OverBudget,
    Custom(Box<str>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("it ends too early"),
            Self::Invalid(what) => write!(f, "it has an invalid {what}"),
            Self::OverBudget => f.write_str("it is over budget"),
            Self::Custom(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string().into())
    }
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
    rest: &'de [u8],
    depth: usize,
    elements: usize,
    overrun: Option<Overrun>,
}

impl<'de> Deserializer<'de> {
    #[inline]
    pub(super) const fn new(bytes: &'de [u8], depth: usize, elements: usize) -> Self {
        Self { rest: bytes, depth, elements, overrun: None }
    }

    /// Whether everything was read, within the budget. A `Deserialize` may have swallowed the error that said otherwise.
    #[inline]
    pub(super) const fn is_done(&self) -> bool {
        self.rest.is_empty() && self.overrun.is_none()
    }

    pub(super) const fn rest(&self) -> usize {
        self.rest.len()
    }

    pub(super) const fn overrun(&self) -> Option<Overrun> {
        self.overrun
    }

    #[inline(always)]
    fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or(Error::End)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (&array, rest) = self.rest.split_first_chunk().ok_or(Error::End)?;
        self.rest = rest;
        Ok(array)
    }

    /// A number of at most `bits` bits, seven to a byte, the lowest first.
    #[inline(always)]
    fn varint(&mut self, bits: u32) -> Result<u64, Error> {
        let (mut number, mut shift) = (0, 0);
        for (at, &byte) in self.rest.iter().enumerate() {
            let low = u64::from(byte & 0x7f);
            number |= low << shift;
            let too_wide = shift + 7 > bits && low >> (bits - shift) != 0;
            if byte < 0x80 && !too_wide {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
            shift += 7;
            if too_wide || shift >= bits {
                return Err(Error::Invalid("number"));
            }
        }
        Err(Error::End)
    }

    fn varint_128(&mut self) -> Result<u128, Error> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let low = u128::from(byte & 0x7f);
            if shift == 126 && byte > 3 {
                return Err(Error::Invalid("number"));
            }
            number |= low << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    #[inline(always)]
    fn length(&mut self) -> Result<usize, Error> {
        let length = self.varint(u64::BITS)?;
        usize::try_from(length).map_err(|_| Error::Invalid("length"))
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'de [u8], Error> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Error::End)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(always)]
    fn text(&mut self) -> Result<&'de str, Error> {
        str::from_utf8(self.bytes()?).map_err(|_| Error::Invalid("text"))
    }

    /// What nests is a level deeper.
    #[inline(always)]
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let Some(left) = self.depth.checked_sub(1) else { return Err(self.exceed(Overrun::Depth)) };
        self.depth = left;
        let value = read(self)?;
        self.depth = left + 1;
        Ok(value)
    }

    #[inline(always)]
    fn charge_element(&mut self) -> Result<(), Error> {
        let Some(left) = self.elements.checked_sub(1) else { return Err(self.exceed(Overrun::Elements)) };
        self.elements = left;
        Ok(())
    }

    #[cold]
    fn exceed(&mut self, overrun: Overrun) -> Error {
        self.overrun.get_or_insert(overrun);
        Error::OverBudget
    }
}

#[inline(always)]
const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

macro_rules! numbers {
    ($($method:ident $visit:ident $bits:ident, $number:ident => $narrow:expr;)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let $number = self.varint($bits::BITS)?;
            visitor.$visit($narrow)
        }
    )*};
}

macro_rules! not_in_postcard {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::Invalid("type: postcard does not describe itself"))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = Error;

    not_in_postcard! { deserialize_any deserialize_identifier deserialize_ignored_any }

    numbers! {
        deserialize_u16 visit_u16 u16, number => number as u16;
        deserialize_u32 visit_u32 u32, number => number as u32;
        deserialize_u64 visit_u64 u64, number => number;
        deserialize_i16 visit_i16 u16, number => unzigzag(number) as i16;
        deserialize_i32 visit_i32 u32, number => unzigzag(number) as i32;
        deserialize_i64 visit_i64 u64, number => unzigzag(number);
    }

    #[inline(always)]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Error::Invalid("bool")),
        }
    }

    #[inline(always)]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(self.byte()?)
    }

    #[inline(always)]
    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i8(self.byte()?.cast_signed())
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u128(self.varint_128()?)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.varint_128()?;
        visitor.visit_i128((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    #[inline(always)]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    #[inline(always)]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut characters = self.text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => visitor.visit_char(character),
            _ => Err(Error::Invalid("character")),
        }
    }

    #[inline(always)]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline(always)]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline(always)]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline(always)]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    #[inline(always)]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|inner| visitor.visit_some(inner)),
            _ => Err(Error::Invalid("option")),
        }
    }

    #[inline(always)]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline(always)]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    #[inline(always)]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length()?;
        self.nested(|inner| visitor.visit_seq(Parts::<true> { inner, left }))
    }

    #[inline(always)]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length()?;
        self.nested(|inner| visitor.visit_map(Parts::<true> { inner, left }))
    }

    #[inline(always)]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Parts::<false> { inner: self, left: len })
    }

    #[inline(always)]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline(always)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline(always)]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
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
    #[inline(always)]
    fn part<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let part = seed.deserialize(&mut *self.inner)?;
        if CLAIMED {
            self.inner.charge_element()?;
        }
        Ok(Some(part))
    }

    /// A collection may reserve room for no more elements than bytes are left, whatever length it claims.
    #[inline]
    fn hint(&self) -> Option<usize> {
        Some(if CLAIMED { self.left.min(self.inner.rest.len()) } else { self.left })
    }
}

impl<'de, const CLAIMED: bool> de::SeqAccess<'de> for Parts<'_, 'de, CLAIMED> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.part(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_, 'de, true> {
    type Error = Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.part(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.inner)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::EnumAccess<'de> for &mut Deserializer<'de> {
    type Error = Error;
    type Variant = Self;

    #[inline(always)]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let index = self.varint(u32::BITS)? as u32;
        Ok((seed.deserialize(index.into_deserializer())?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Deserializer<'de> {
    type Error = Error;

    #[inline(always)]
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline(always)]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    #[inline(always)]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self, len, visitor)
    }

    #[inline(always)]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
