use std::fmt;

use smallvec::SmallVec;

use crate::error::{Error, Result};

/// One key of an [`Entity`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum EntityKey {
    /// A number; in this crate's own layouts it is its decimal text.
    Int(i64),
    /// Text, or any bytes.
    Bytes(Box<[u8]>),
}

/// Whom features belong to: one key, or several in the order of the group's [key names](crate::GroupBuilder::keyed_by).
///
/// Keys are any bytes; an empty key is refused when it is used.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Entity(SmallVec<[EntityKey; 1]>);

impl Entity {
    /// Makes an entity of one key.
    pub fn new(key: impl Into<EntityKey>) -> Self {
        Self(SmallVec::from_iter([key.into()]))
    }

    /// Makes an entity of several keys.
    pub fn composite<K: Into<EntityKey>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self(keys.into_iter().map(Into::into).collect())
    }

    /// Makes the one entity of groups that are keyed by nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(SmallVec::new())
    }

    /// Returns the keys, in order.
    #[must_use]
    pub fn keys(&self) -> &[EntityKey] {
        &self.0
    }

    pub(crate) fn check(&self, entity_type: &str, expected: usize) -> Result<()> {
        if self.0.len() != expected {
            return Err(Error::EntityKeys {
                entity_type: entity_type.to_owned(),
                expected,
                got: self.0.len(),
            });
        }
        if self.0.iter().any(|key| matches!(key, EntityKey::Bytes(bytes) if bytes.is_empty())) {
            return Err(Error::invalid(
                format!("an entity of type {entity_type}"),
                "a key is empty: entities need ids",
            ));
        }
        Ok(())
    }

    /// The keys as bytes.
    pub(crate) fn parts(&self) -> impl Iterator<Item = std::borrow::Cow<'_, [u8]>> {
        self.0.iter().map(|key| match key {
            EntityKey::Int(number) => number.to_string().into_bytes().into(),
            EntityKey::Bytes(bytes) => (&**bytes).into(),
        })
    }
}

/// Ids are users' data: the number of keys is shown, not the keys.
impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity").field("keys", &self.0.len()).finish_non_exhaustive()
    }
}

impl<K: Into<EntityKey>> From<K> for Entity {
    fn from(key: K) -> Self {
        Self::new(key)
    }
}

macro_rules! bytes_key {
    ($($type:ty),*) => {$(
        impl From<$type> for EntityKey {
            fn from(key: $type) -> Self {
                Self::Bytes(Vec::from(key).into())
            }
        }
    )*};
}
bytes_key!(&str, String, &[u8], Vec<u8>);

impl From<&String> for EntityKey {
    fn from(key: &String) -> Self {
        Self::from(key.as_str())
    }
}

impl From<i64> for EntityKey {
    fn from(key: i64) -> Self {
        Self::Int(key)
    }
}

impl From<u32> for EntityKey {
    fn from(key: u32) -> Self {
        Self::Int(key.into())
    }
}

impl From<i32> for EntityKey {
    fn from(key: i32) -> Self {
        Self::Int(key.into())
    }
}
