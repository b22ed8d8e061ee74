use std::fmt;

use bytes::Bytes;
use inferkit_core::{FromReply, Reply};
use serde::de::value::{BorrowedBytesDeserializer, BorrowedStrDeserializer, MapDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};

use crate::{Error, Result};

/// The fields of a stored document, names and values, as the server sent them.
///
/// `Debug` prints the names and the sizes of the values, never the values.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(Vec<(Bytes, Bytes)>);

impl Fields {
    /// Returns the value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Takes the value of a field out.
    #[must_use]
    pub fn take(&mut self, name: &str) -> Option<Bytes> {
        let index = self.0.iter().position(|(field, _)| field == name.as_bytes())?;
        Some(self.0.swap_remove(index).1)
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Reads the fields into a struct or map: numbers and booleans from their text, text and bytes as they are, `None`
    /// for fields that are missing, and everything else from JSON.
    ///
    /// It is the way back of [`Document::with_fields`](crate::Document::with_fields).
    ///
    /// # Errors
    ///
    /// [`Error::Projection`] if a field is missing or does not read as its type; the message names the problem and never
    /// shows a value.
    ///
    /// # Examples
    ///
    /// ```
    /// # use inferkit_vectorsearch::Fields;
    /// #[derive(serde::Deserialize)]
    /// struct Product {
    ///     title: String,
    ///     price: f64,
    ///     brand: Option<String>,
    /// }
    ///
    /// let fields: Fields = [("title", "Red shoe"), ("price", "79.5")].into_iter().collect();
    /// let product: Product = fields.read()?;
    /// assert!(product.title == "Red shoe" && product.price == 79.5 && product.brand.is_none());
    /// # Ok::<(), inferkit_vectorsearch::Error>(())
    /// ```
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let fields = self.0.iter().map(|(name, value)| {
            (String::from_utf8_lossy(name).into_owned(), Text { name, value })
        });
        T::deserialize(MapDeserializer::new(fields))
            .map_err(|error: Problem| Error::Projection { problem: error.0 })
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Reads names and values, of a map or of a flat array.
impl FromReply for Fields {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let pairs = reply.into_pairs()?.into_iter();
        let pairs =
            pairs.map(|(name, value)| Ok((Bytes::from_reply(name)?, Bytes::from_reply(value)?)));
        pairs.collect::<inferkit_core::Result<Vec<_>>>().map(Self)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, value.len()))).finish()
    }
}

/// Why fields do not read as a type.
#[derive(Debug)]
struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    // The text of the unexpected value would otherwise be part of the message.
    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("a field is not {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("a field is not {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("a field is not one of {expected:?}"))
    }
}

/// One stored value on its way into a type.
struct Text<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Text<'a> {
    fn is_not(&self, expected: &str) -> Problem {
        Problem(format!("field `{}` is not {expected}", self.name.escape_ascii()))
    }

    fn text(&self) -> Result<&'a str, Problem> {
        str::from_utf8(self.value).map_err(|_| self.is_not("UTF-8 text"))
    }

    fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Problem> {
        self.text()?.parse().map_err(|_| self.is_not(expected))
    }

    fn json(&self) -> Result<serde_json::Value, Problem> {
        serde_json::from_slice(self.value)
            .map_err(|_| self.is_not("JSON, which this type is read from"))
    }
}

impl<'de> IntoDeserializer<'de, Problem> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $expected:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            visitor.$visit(self.parse($expected)?)
        }
    )*};
}

macro_rules! from_json {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Problem> {
            self.json()?.$method($($argument,)* visitor).map_err(|_| self.is_not("of the shape of this type"))
        }
    )*};
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Problem;

    parsed! {
        deserialize_bool visit_bool "a boolean"
        deserialize_i8 visit_i8 "an integer"
        deserialize_i16 visit_i16 "an integer"
        deserialize_i32 visit_i32 "an integer"
        deserialize_i64 visit_i64 "an integer"
        deserialize_u8 visit_u8 "an integer of 0 or more"
        deserialize_u16 visit_u16 "an integer of 0 or more"
        deserialize_u32 visit_u32 "an integer of 0 or more"
        deserialize_u64 visit_u64 "an integer of 0 or more"
        deserialize_f32 visit_f32 "a number"
        deserialize_f64 visit_f64 "a number"
        deserialize_char visit_char "one character"
    }

    from_json! {
        deserialize_seq()
        deserialize_map()
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text() {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => visitor.visit_borrowed_bytes(self.value),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        BorrowedStrDeserializer::new(self.text()?).deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        BorrowedBytesDeserializer::new(self.value).deserialize_bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    /// A variant without content is its name; others are JSON.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let text = self.text()?;
        if variants.contains(&text) {
            return visitor.visit_enum(IntoDeserializer::<Problem>::into_deserializer(text));
        }
        self.json()?
            .deserialize_enum(name, variants, visitor)
            .map_err(|_| self.is_not("one of the variants of this type"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        InStock,
        Ordered { days: u8 },
    }

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Wrapped(i64);

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Product {
        title: String,
        price: f64,
        stock: u32,
        wrapped: Wrapped,
        sale: bool,
        size: Option<u8>,
        note: Option<String>,
        sizes: Vec<u8>,
        state: State,
        next: State,
        initial: char,
    }

    fn product() -> Product {
        Product {
            title: "Red \"shoe\" 7".to_owned(),
            price: 79.5,
            stock: 12,
            wrapped: Wrapped(-3),
            sale: true,
            size: Some(44),
            note: None,
            sizes: vec![43, 44],
            state: State::InStock,
            next: State::Ordered { days: 3 },
            initial: 'R',
        }
    }

    fn stored(document: &Document) -> Fields {
        let bytes = |value: &crate::Value| match value {
            crate::Value::Bytes(bytes) => bytes.clone(),
            _ => panic!("only bytes here"),
        };
        document.fields().map(|(name, value)| (name.to_owned(), bytes(value))).collect()
    }

    #[test]
    fn what_a_document_is_made_of_reads_back() {
        let fields = stored(&Document::new("1").with_fields(&product()).unwrap());
        assert_eq!(fields.read::<Product>().unwrap(), product());
        assert_eq!(fields.get("sale").unwrap(), "true");
        assert_eq!(fields.get("note"), None);
    }

    #[test]
    fn problems_are_named_and_values_are_not_shown() {
        let error = |name: &str, value: &'static str| {
            let mut fields = stored(&Document::new("1").with_fields(&product()).unwrap());
            let _ = fields.take(name);
            let with = fields.iter().map(|(name, value)| (name.clone(), value.clone()));
            let more = (Bytes::copy_from_slice(name.as_bytes()), Bytes::from(value));
            with.chain([more]).collect::<Fields>().read::<Product>().unwrap_err().to_string()
        };
        for (name, value) in [
            ("price", "s3cret"),
            ("sale", "s3cret"),
            ("stock", "-99123"),
            ("sizes", "s3cret"),
            ("sizes", "{\"s3cret\":1}"),
            ("state", "s3cret"),
            ("size", "99123"),
        ] {
            let message = error(name, value);
            assert!(message.contains(&format!("`{name}`")), "{message}");
            assert!(!message.contains("s3cret") && !message.contains("99123"), "{message}");
        }
        let missing = Fields::default().read::<Product>().unwrap_err().to_string();
        assert!(missing.contains("title"), "{missing}");
        let bytes: Fields = [("title", &b"\xff"[..])].into_iter().collect();
        assert!(bytes.read::<Product>().unwrap_err().to_string().contains("`title`"));
    }
}
