//! Values to postcard's bytes.
//!
//! The serializer is handed on by value, from each field to the next, so that the place to write to stays in a register: a
//! place kept in memory costs a load and a store for every byte of an array.

use std::fmt;

use netchan_proto::channel::ItemWriter;
use serde::{Serialize, ser};

use super::super::TooLarge;

/// Why a value could not be written.
#[derive(Debug)]
pub(super) enum Error {
    TooLarge,
    /// A sequence or map did not say how long it is.
    UnknownLength,
    /// A `Serialize` went on after an error.
    Broken,
    Custom(Box<str>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the message is too large",
            Self::UnknownLength => "a sequence or map does not know its length beforehand",
            Self::Broken => "Serialize went on after an error",
            Self::Custom(message) => message,
        })
    }
}

impl std::error::Error for Error {}

impl ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string().into())
    }
}

impl From<TooLarge> for Error {
    #[cold]
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

type Written<'w, 'a> = Result<ItemWriter<'w, 'a>, Error>;

/// Writes one value; what it returns goes on behind it.
pub(super) struct Serializer<'w, 'a>(pub(super) ItemWriter<'w, 'a>);

impl<'w, 'a> Serializer<'w, 'a> {
    #[inline(always)]
    fn bytes(mut self, bytes: &[u8]) -> Written<'w, 'a> {
        self.0.extend(bytes)?;
        Ok(self.0)
    }

    #[inline(always)]
    fn varint(mut self, number: u64) -> Written<'w, 'a> {
        self.0.varint(number)?;
        Ok(self.0)
    }

    #[inline(always)]
    fn counted(self, len: Option<usize>) -> Result<Compound<'w, 'a>, Error> {
        let len = len.ok_or(Error::UnknownLength)?;
        Ok(Compound { writer: Some(self.varint(len as u64)?) })
    }

    #[inline(always)]
    fn variant(self, index: u32) -> Result<Compound<'w, 'a>, Error> {
        Ok(Compound { writer: Some(self.varint(u64::from(index))?) })
    }

    #[inline(always)]
    fn plain(self) -> Compound<'w, 'a> {
        Compound { writer: Some(self.0) }
    }
}

/// Small magnitudes of either sign become small numbers.
#[inline(always)]
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

macro_rules! numbers {
    ($($method:ident $type:ty, $number:ident => $wide:expr;)*) => {$(
        #[inline(always)]
        fn $method(self, $number: $type) -> Written<'w, 'a> {
            self.varint($wide)
        }
    )*};
}

impl<'w, 'a> ser::Serializer for Serializer<'w, 'a> {
    type Ok = ItemWriter<'w, 'a>;
    type Error = Error;
    type SerializeSeq = Compound<'w, 'a>;
    type SerializeTuple = Compound<'w, 'a>;
    type SerializeTupleStruct = Compound<'w, 'a>;
    type SerializeTupleVariant = Compound<'w, 'a>;
    type SerializeMap = Compound<'w, 'a>;
    type SerializeStruct = Compound<'w, 'a>;
    type SerializeStructVariant = Compound<'w, 'a>;

    numbers! {
        serialize_i16 i16, number => zigzag(i64::from(number));
        serialize_i32 i32, number => zigzag(i64::from(number));
        serialize_i64 i64, number => zigzag(number);
        serialize_u16 u16, number => u64::from(number);
        serialize_u32 u32, number => u64::from(number);
        serialize_u64 u64, number => number;
    }

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Written<'w, 'a> {
        self.serialize_u8(u8::from(value))
    }

    #[inline(always)]
    fn serialize_u8(mut self, value: u8) -> Written<'w, 'a> {
        self.0.push(value)?;
        Ok(self.0)
    }

    #[inline(always)]
    fn serialize_i8(self, value: i8) -> Written<'w, 'a> {
        self.serialize_u8(value.cast_unsigned())
    }

    fn serialize_i128(self, value: i128) -> Written<'w, 'a> {
        self.serialize_u128(((value << 1) ^ (value >> 127)).cast_unsigned())
    }

    fn serialize_u128(mut self, mut value: u128) -> Written<'w, 'a> {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.serialize_u8(value as u8)
    }

    #[inline(always)]
    fn serialize_f32(self, value: f32) -> Written<'w, 'a> {
        self.bytes(&value.to_le_bytes())
    }

    #[inline(always)]
    fn serialize_f64(self, value: f64) -> Written<'w, 'a> {
        self.bytes(&value.to_le_bytes())
    }

    fn serialize_char(self, value: char) -> Written<'w, 'a> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Written<'w, 'a> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline(always)]
    fn serialize_bytes(self, value: &[u8]) -> Written<'w, 'a> {
        Self(self.varint(value.len() as u64)?).bytes(value)
    }

    #[inline(always)]
    fn serialize_none(self) -> Written<'w, 'a> {
        self.serialize_u8(0)
    }

    #[inline(always)]
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Written<'w, 'a> {
        value.serialize(Self(self.serialize_u8(1)?))
    }

    #[inline(always)]
    fn serialize_unit(self) -> Written<'w, 'a> {
        Ok(self.0)
    }

    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Written<'w, 'a> {
        Ok(self.0)
    }

    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Written<'w, 'a> {
        self.varint(u64::from(index))
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Written<'w, 'a> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Written<'w, 'a> {
        value.serialize(Self(self.varint(u64::from(index))?))
    }

    #[inline(always)]
    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'w, 'a>, Error> {
        self.counted(len)
    }

    #[inline(always)]
    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'w, 'a>, Error> {
        self.counted(len)
    }

    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Compound<'w, 'a>, Error> {
        Ok(self.plain())
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'w, 'a>, Error> {
        Ok(self.plain())
    }

    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'w, 'a>, Error> {
        Ok(self.plain())
    }

    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'w, 'a>, Error> {
        self.variant(index)
    }

    #[inline(always)]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'w, 'a>, Error> {
        self.variant(index)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Writes the parts of a value that has parts. Nothing is left to write with once a part has failed.
pub(super) struct Compound<'w, 'a> {
    writer: Option<ItemWriter<'w, 'a>>,
}

impl<'w, 'a> Compound<'w, 'a> {
    #[inline(always)]
    fn part<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        let writer = self.writer.take().ok_or(Error::Broken)?;
        self.writer = Some(value.serialize(Serializer(writer))?);
        Ok(())
    }

    #[inline(always)]
    fn whole(self) -> Written<'w, 'a> {
        self.writer.ok_or(Error::Broken)
    }
}

macro_rules! compounds {
    ($($trait:ident { $($method:ident($($name:ty)?))* })*) => {$(
        impl<'w, 'a> ser::$trait for Compound<'w, 'a> {
            type Ok = ItemWriter<'w, 'a>;
            type Error = Error;
            $(
                #[inline(always)]
                fn $method<T: ?Sized + Serialize>(&mut self, $(_: $name,)? value: &T) -> Result<(), Error> {
                    self.part(value)
                }
            )*
            #[inline(always)]
            fn end(self) -> Written<'w, 'a> {
                self.whole()
            }
        }
    )*};
}

compounds! {
    SerializeSeq { serialize_element() }
    SerializeTuple { serialize_element() }
    SerializeTupleStruct { serialize_field() }
    SerializeTupleVariant { serialize_field() }
    SerializeMap { serialize_key() serialize_value() }
    SerializeStruct { serialize_field(&'static str) }
    SerializeStructVariant { serialize_field(&'static str) }
}
