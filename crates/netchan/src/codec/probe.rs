//! Finds out, once for each channel, whether a type can nest or claim a length at all.
//!
//! A type is *flat* when reading it never asks for a sequence, a map, an option, or an enum variant with contents: then no
//! bytes can make its decoding deep or long, and it is decoded without counting. The probe reads the type from an endless
//! supply of zeros and notes what it asks for. Whatever the probe cannot follow counts as not flat.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, SeqAccess, VariantAccess, Visitor,
};

/// Whether `T` is flat.
pub(super) fn is_flat<T: DeserializeOwned>() -> bool {
    let mut variants = 1;
    let mut variant = 0;
    // Each round shows every enum another of its variants.
    while variant < variants {
        let mut probe = Probe { variant, variants: 1, fields: 0 };
        if T::deserialize(&mut probe).is_err() {
            return false;
        }
        variants = variants.max(probe.variants);
        variant += 1;
    }
    true
}

/// More fields than this are not followed: a type that contains itself would have no end.
const FIELDS_MAX: usize = 4_096;

struct Probe {
    variant: u32,
    variants: u32,
    fields: usize,
}

/// The type is not flat, or cannot be followed.
#[derive(Debug)]
struct NotFlat;

impl fmt::Display for NotFlat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not flat")
    }
}

impl std::error::Error for NotFlat {}

impl de::Error for NotFlat {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! zeros {
    ($($method:ident $visit:ident $zero:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotFlat> {
            visitor.$visit($zero)
        }
    )*};
}

macro_rules! not_flat {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotFlat> {
            Err(NotFlat)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = NotFlat;

    zeros! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i8 0; deserialize_i16 visit_i16 0; deserialize_i32 visit_i32 0;
        deserialize_i64 visit_i64 0; deserialize_i128 visit_i128 0;
        deserialize_u8 visit_u8 0; deserialize_u16 visit_u16 0; deserialize_u32 visit_u32 0;
        deserialize_u64 visit_u64 0; deserialize_u128 visit_u128 0;
        deserialize_f32 visit_f32 0.0; deserialize_f64 visit_f64 0.0; deserialize_char visit_char '\0';
        deserialize_str visit_str ""; deserialize_string visit_str "";
        deserialize_bytes visit_bytes &[]; deserialize_byte_buf visit_bytes &[];
    }

    not_flat! {
        deserialize_any deserialize_option deserialize_seq deserialize_map deserialize_identifier
        deserialize_ignored_any
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotFlat> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotFlat> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotFlat> {
        self.fields += 1;
        if self.fields > FIELDS_MAX { Err(NotFlat) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, NotFlat> {
        visitor.visit_seq(Fields { probe: self, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, NotFlat> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotFlat> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotFlat> {
        let count = u32::try_from(variants.len()).map_err(|_| NotFlat)?;
        self.variants = self.variants.max(count);
        visitor.visit_enum(Unit(self.variant.min(count.saturating_sub(1))))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Fields<'a> {
    probe: &'a mut Probe,
    left: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_> {
    type Error = NotFlat;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, NotFlat> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.probe.fields += 1;
        if self.probe.fields > FIELDS_MAX {
            return Err(NotFlat);
        }
        seed.deserialize(&mut *self.probe).map(Some)
    }
}

/// One variant of an enum, which must have no contents.
struct Unit(u32);

impl<'de> EnumAccess<'de> for Unit {
    type Error = NotFlat;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), NotFlat> {
        let value = seed.deserialize(de::value::U32Deserializer::<NotFlat>::new(self.0))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Unit {
    type Error = NotFlat;

    fn unit_variant(self) -> Result<(), NotFlat> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, NotFlat> {
        Err(NotFlat)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, NotFlat> {
        Err(NotFlat)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, NotFlat> {
        Err(NotFlat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Flat {
        id: [u8; 16],
        name: String,
        kind: Kind,
        nested: (u64, f64, ()),
    }

    #[derive(Deserialize)]
    enum Kind {
        A,
        B,
        C,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    enum Late {
        A,
        B,
        C(Vec<()>),
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape matters")]
    struct Recursive(Option<Box<Recursive>>);

    #[test]
    fn only_what_cannot_nest_or_claim_is_flat() {
        assert!(
            is_flat::<u64>()
                && is_flat::<String>()
                && is_flat::<()>()
                && is_flat::<Flat>()
                && is_flat::<Kind>()
        );
        assert!(matches!([Kind::A, Kind::B, Kind::C].len(), 3));
        assert!(!is_flat::<Vec<u8>>() && !is_flat::<Option<u8>>() && !is_flat::<(u8, Late)>());
        assert!(!is_flat::<Recursive>() && !is_flat::<std::collections::BTreeMap<u8, ()>>());
        assert!(!is_flat::<std::num::NonZeroU8>(), "a type that refuses zeros cannot be followed");
    }
}
