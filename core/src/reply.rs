use std::collections::HashMap;
use std::hash::Hash;

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// A server's reply, in RESP2 or RESP3 shape.
///
/// Values are [`Bytes`]: they are handed over, not copied.
/// Typed extraction is [`FromReply`]; it reads both protocols' shapes alike and never panics.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// Several replies in order; also RESP3 sets and pushes.
    Array(Vec<Self>),
    /// A RESP3 boolean.
    Bool(bool),
    /// A binary string.
    Bulk(Bytes),
    /// A RESP3 double.
    Double(f64),
    /// An error inside an array, such as one failed command of a `MULTI`.
    Error(String),
    /// An integer.
    Int(i64),
    /// A RESP3 map, in the server's order where the client keeps it (fred does not).
    Map(Vec<(Self, Self)>),
    /// No value.
    Nil,
    /// A status line, such as `OK`.
    Status(Bytes),
}

impl Reply {
    /// Tells whether this is the reply for "no value".
    #[must_use]
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// Returns the bytes of a string or status line.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) | Self::Status(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the text of a string or status line that is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Returns the number in an integer, a double or a numeric string.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(value) => Some(*value),
            #[expect(clippy::cast_precision_loss, reason = "the caller asks for a float")]
            Self::Int(value) => Some(*value as f64),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// Returns the integer in an integer or a numeric string.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// Unpacks an array; a map becomes the flat array that RESP2 would have sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Reply`] for any other shape; the server's error for an error reply.
    pub fn into_array(self) -> Result<Vec<Self>> {
        match self {
            Self::Array(items) => Ok(items),
            Self::Map(pairs) => {
                Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())
            }
            other => Err(other.unexpected("an array")),
        }
    }

    /// Unpacks pairs: a map, a flat array of names and values, or an array of two-element arrays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Reply`] for any other shape; the server's error for an error reply.
    pub fn into_pairs(self) -> Result<Vec<(Self, Self)>> {
        let items = match self {
            Self::Map(pairs) => return Ok(pairs),
            Self::Array(items) => items,
            other => return Err(other.unexpected("a map")),
        };
        let nested = !items.is_empty()
            && items.iter().all(|item| matches!(item, Self::Array(pair) if pair.len() == 2));
        let mut flat = if nested {
            items.into_iter().map(Self::into_array).collect::<Result<Vec<_>>>()?.concat()
        } else {
            items
        }
        .into_iter();
        let mut pairs = Vec::with_capacity(flat.len() / 2);
        while let Some(name) = flat.next() {
            let Some(value) = flat.next() else {
                return Err(Error::new(
                    ErrorKind::Reply,
                    "expected names and values, got an odd number of them",
                ));
            };
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    /// Makes the error that says what was expected and what came, without the value.
    #[must_use]
    pub fn unexpected(self, expected: &str) -> Error {
        let got = match self {
            Self::Array(items) => format!("an array of {}", items.len()),
            Self::Bool(_) => "a boolean".to_owned(),
            Self::Bulk(bytes) => format!("a string of {} bytes", bytes.len()),
            Self::Double(_) => "a double".to_owned(),
            Self::Error(text) => return Error::server(text),
            Self::Int(_) => "an integer".to_owned(),
            Self::Map(pairs) => format!("a map of {}", pairs.len()),
            Self::Nil => "nil".to_owned(),
            Self::Status(_) => "a status line".to_owned(),
        };
        Error::new(ErrorKind::Reply, format!("expected {expected}, got {got}"))
    }
}

/// What can be read out of a [`Reply`].
pub trait FromReply: Sized {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Reply`] if the reply has another shape; the server's error if it is one.
    fn from_reply(reply: Reply) -> Result<Self>;
}

impl FromReply for Reply {
    fn from_reply(reply: Reply) -> Result<Self> {
        match reply {
            Self::Error(text) => Err(Error::server(text)),
            other => Ok(other),
        }
    }
}

/// Accepts any reply but an error.
impl FromReply for () {
    fn from_reply(reply: Reply) -> Result<Self> {
        Reply::from_reply(reply).map(drop)
    }
}

/// Reads a boolean, 0 or 1, or `OK`; nil is `false`, as in `SET NX`.
impl FromReply for bool {
    fn from_reply(reply: Reply) -> Result<Self> {
        match reply {
            Reply::Bool(value) => Ok(value),
            Reply::Nil => Ok(false),
            Reply::Int(value) if value == 0 || value == 1 => Ok(value == 1),
            Reply::Status(ref text) if &text[..] == b"OK" => Ok(true),
            other => Err(other.unexpected("a boolean")),
        }
    }
}

impl FromReply for Bytes {
    fn from_reply(reply: Reply) -> Result<Self> {
        match reply {
            Reply::Bulk(bytes) | Reply::Status(bytes) => Ok(bytes),
            other => Err(other.unexpected("a string")),
        }
    }
}

impl FromReply for Vec<u8> {
    fn from_reply(reply: Reply) -> Result<Self> {
        Bytes::from_reply(reply).map(Self::from)
    }
}

impl FromReply for String {
    fn from_reply(reply: Reply) -> Result<Self> {
        let bytes = Bytes::from_reply(reply)?;
        Self::from_utf8(bytes.into()).map_err(|error| {
            Error::new(ErrorKind::Reply, "expected text, got bytes that are not UTF-8")
                .with_source(error.utf8_error())
        })
    }
}

impl FromReply for f64 {
    fn from_reply(reply: Reply) -> Result<Self> {
        reply.as_f64().ok_or_else(|| reply.unexpected("a number"))
    }
}

impl FromReply for i64 {
    fn from_reply(reply: Reply) -> Result<Self> {
        reply.as_i64().ok_or_else(|| reply.unexpected("an integer"))
    }
}

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl FromReply for $type {
            fn from_reply(reply: Reply) -> Result<Self> {
                let value = i64::from_reply(reply)?;
                Self::try_from(value).map_err(|error| {
                    Error::new(ErrorKind::Reply, format!("the integer {value} does not fit"))
                        .with_source(error)
                })
            }
        }
    )*};
}
from_integer!(u8, u16, u32, u64, usize, i32);

impl<T: FromReply> FromReply for Option<T> {
    fn from_reply(reply: Reply) -> Result<Self> {
        match reply {
            Reply::Nil => Ok(None),
            other => T::from_reply(other).map(Some),
        }
    }
}

macro_rules! from_items {
    ($($type:ty),*) => {$(
        impl FromReply for Vec<$type> {
            fn from_reply(reply: Reply) -> Result<Self> {
                items(reply)
            }
        }
    )*};
}
// `Vec<u8>` is a string, so vectors of other types are listed.
from_items!(Bytes, Option<Bytes>, String, Option<String>, Reply, i64, Option<i64>, u64, f64, bool);

fn items<T: FromReply>(reply: Reply) -> Result<Vec<T>> {
    reply.into_array()?.into_iter().map(T::from_reply).collect()
}

impl<K: FromReply + Eq + Hash, V: FromReply> FromReply for HashMap<K, V> {
    fn from_reply(reply: Reply) -> Result<Self> {
        reply
            .into_pairs()?
            .into_iter()
            .map(|(name, value)| Ok((K::from_reply(name)?, V::from_reply(value)?)))
            .collect()
    }
}

macro_rules! from_tuple {
    ($count:literal: $($name:ident),*) => {
        impl<$($name: FromReply),*> FromReply for ($($name,)*) {
            fn from_reply(reply: Reply) -> Result<Self> {
                let items = reply.into_array()?;
                if items.len() != $count {
                    return Err(Reply::Array(items).unexpected(concat!("an array of ", $count)));
                }
                let mut items = items.into_iter();
                Ok(($($name::from_reply(items.next().unwrap_or(Reply::Nil))?,)*))
            }
        }
    };
}
from_tuple!(2: A, B);
from_tuple!(3: A, B, C);
from_tuple!(4: A, B, C, D);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn pairs_read_alike_in_both_protocols() {
        let map = Reply::Map(vec![(bulk("a"), bulk("1"))]);
        let flat = Reply::Array(vec![bulk("a"), bulk("1")]);
        let nested = Reply::Array(vec![Reply::Array(vec![bulk("a"), bulk("1")])]);
        for reply in [map, flat, nested] {
            assert_eq!(reply.into_pairs().unwrap(), vec![(bulk("a"), bulk("1"))]);
        }
        assert!(Reply::Array(vec![bulk("a")]).into_pairs().is_err());
    }

    #[test]
    fn errors_inside_replies_surface_as_errors() {
        let reply = Reply::Array(vec![Reply::Int(1), Reply::Error("WRONGTYPE no".into())]);
        let error = <(i64, i64)>::from_reply(reply).unwrap_err();
        assert_eq!(error.code(), Some("WRONGTYPE"));
    }

    #[test]
    fn an_unexpected_value_is_described_but_not_shown() {
        let error = i64::from_reply(bulk("my secret prompt")).unwrap_err();
        assert_eq!(error.to_string(), "expected an integer, got a string of 16 bytes");
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            Just(Reply::Nil),
            any::<i64>().prop_map(Reply::Int),
            any::<f64>().prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Bool),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(|b| Reply::Bulk(b.into())),
            Just(Reply::Error("ERR no".into())),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Reply::Array),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_shape_panics(reply in any_reply()) {
            let _ = <(i64, String)>::from_reply(reply.clone());
            let _ = HashMap::<String, Bytes>::from_reply(reply.clone());
            let _ = Option::<Vec<u8>>::from_reply(reply.clone());
            let _ = Vec::<Reply>::from_reply(reply.clone());
            let _ = bool::from_reply(reply);
        }
    }
}
