//! A deserializer around a deserializer that counts depth and elements.
//!
//! Numbers, text and structs pass straight through and compile to what they were; an option, an enum, a sequence or a map
//! costs one decrement, and so does each element of the latter two. Every way for a type to contain itself leads through
//! one of those four, and so does every claim of a length, so nothing else needs a count.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// What is left of a message's allowance.
///
/// An element with bytes of its own can be charged against them: in any value made of such elements, elements are fewer
/// than bytes (by induction: a sequence spends at least its length byte beyond its elements' bytes). So an allowance of
/// one element for each byte never refuses an honest value, and the rest is for elements without bytes.
pub(super) struct Budget {
    depth: usize,
    elements: usize,
    reserve_max: usize,
    overrun: Option<Overrun>,
}

/// What a message had too much of.
#[derive(Clone, Copy)]
pub(super) enum Overrun {
    Depth,
    Elements,
}

impl Budget {
    pub(super) fn new(depth: usize, elements: usize, reserve_max: usize) -> Self {
        Self { depth, elements, reserve_max, overrun: None }
    }

    pub(super) fn overrun(&self) -> Option<Overrun> {
        self.overrun
    }

    #[inline]
    fn enter<E: Error>(&mut self) -> Result<(), E> {
        match self.depth.checked_sub(1) {
            Some(left) => self.depth = left,
            None => return Err(self.exceed(Overrun::Depth)),
        }
        Ok(())
    }

    #[inline]
    fn leave(&mut self) {
        self.depth += 1;
    }

    #[inline]
    fn charge_element<E: Error>(&mut self) -> Result<(), E> {
        match self.elements.checked_sub(1) {
            Some(left) => self.elements = left,
            None => return Err(self.exceed(Overrun::Elements)),
        }
        Ok(())
    }

    /// A collection may reserve room for no more elements than the message has bytes, whatever length it claims.
    #[inline]
    fn limit_hint(&self, hint: Option<usize>) -> Option<usize> {
        hint.map(|hint| hint.min(self.reserve_max))
    }

    #[cold]
    fn exceed<E: Error>(&mut self, overrun: Overrun) -> E {
        self.overrun = Some(overrun);
        E::custom("over budget")
    }
}

/// Anything of serde's, with the budget at hand. `LENGTH_CLAIMED` marks what announced its length in the message, and so
/// is counted, against tuples and structs, whose length is the type's.
pub(super) struct Guarded<'g, I, const LENGTH_CLAIMED: bool = false> {
    inner: I,
    budget: &'g mut Budget,
}

impl<'g, I, const LENGTH_CLAIMED: bool> Guarded<'g, I, LENGTH_CLAIMED> {
    #[inline]
    fn around(inner: I, budget: &'g mut Budget) -> Self {
        Self { inner, budget }
    }
}

impl<'g, D> Guarded<'g, D> {
    #[inline]
    pub(super) fn new(deserializer: D, budget: &'g mut Budget) -> Self {
        Self::around(deserializer, budget)
    }

    #[inline]
    fn plain<V>(visitor: V, budget: &'g mut Budget) -> Guarded<'g, V, false> {
        Guarded::around(visitor, budget)
    }

    #[inline]
    fn counted<V>(visitor: V, budget: &'g mut Budget) -> Guarded<'g, V, true> {
        Guarded::around(visitor, budget)
    }
}

macro_rules! pass_through {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    pass_through! {
        deserialize_any deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Self::plain(visitor, self.budget))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_seq(Self::counted(visitor, self.budget))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Self::counted(visitor, self.budget))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Only the visits that postcard makes to what is wrapped above; other visits stay serde's refusals.
impl<'de, V: Visitor<'de>, const CLAIMED: bool> Visitor<'de> for Guarded<'_, V, CLAIMED> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.budget.enter()?;
        let result = self.inner.visit_some(Guarded::new(deserializer, self.budget));
        self.budget.leave();
        result
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Guarded::new(deserializer, self.budget))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        if CLAIMED {
            self.budget.enter()?;
        }
        let result = self.inner.visit_seq(Guarded::<_, CLAIMED>::around(access, self.budget));
        if CLAIMED {
            self.budget.leave();
        }
        result
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.budget.enter()?;
        let result = self.inner.visit_map(Guarded::<_, CLAIMED>::around(access, self.budget));
        self.budget.leave();
        result
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.budget.enter()?;
        let result = self.inner.visit_enum(Guarded::<_, CLAIMED>::around(access, self.budget));
        self.budget.leave();
        result
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Guarded::new(deserializer, self.budget))
    }
}

impl<'de, A: SeqAccess<'de>, const CLAIMED: bool> SeqAccess<'de> for Guarded<'_, A, CLAIMED> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(Guarded::new(seed, self.budget))?;
        if CLAIMED && element.is_some() {
            self.budget.charge_element()?;
        }
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.budget.limit_hint(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>, const CLAIMED: bool> MapAccess<'de> for Guarded<'_, A, CLAIMED> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(Guarded::new(seed, self.budget))?;
        if key.is_some() {
            self.budget.charge_element()?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Guarded::new(seed, self.budget))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.budget.limit_hint(self.inner.size_hint())
    }
}

impl<'de, 'g, A: EnumAccess<'de>, const CLAIMED: bool> EnumAccess<'de> for Guarded<'g, A, CLAIMED> {
    type Error = A::Error;
    type Variant = Guarded<'g, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Guarded::around(variant, self.budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Guarded::new(seed, self.budget))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Self::plain(visitor, self.budget))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Self::plain(visitor, self.budget))
    }
}
