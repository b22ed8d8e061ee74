use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use inferkit_core::keys::{Key, KeyBuilder};
use inferkit_core::{Batch, Cmd, Script};

use crate::filter::{number, stored_tag_problem};
use crate::schema::TAG_SEPARATOR;
use crate::{Error, Field, FieldKind, Result, Schema, Vector};

/// The most fields of a document, the limit of one script call.
pub const MAX_FIELDS: usize = 3_000;

/// The longest time to live.
const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A document to be written: an id, fields and perhaps a time to live.
///
/// It is checked against the schema before anything is sent.
/// The server would take a document that does not fit, and drop it from the index without a word.
/// `Debug` prints the names of the fields, never the id or the values.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Document, Vector};
///
/// let shoe = Document::new("sku-1")
///     .with("title", "Red running shoe")
///     .with("price", 79.5)
///     .with_tags("color", ["red", "white"])
///     .with("embedding", Vector::new([0.1, 0.9])?);
/// # let _ = shoe;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Document {
    id: String,
    fields: Vec<(Cow<'static, str>, Value)>,
    ttl: Option<Duration>,
}

/// The fields of a [`Document`] in their stored form: names and bytes.
pub type Encoded<'d> = Vec<(&'d str, Cow<'d, [u8]>)>;

/// The value of a field of a [`Document`]; made of text, bytes, numbers and [`Vector`]s with `into()`.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Bytes that are stored as they are; a string, or a number in its decimal form.
    Bytes(Bytes),
    /// The values of a TAG field, stored with the field's separator between them.
    Tags(Vec<String>),
    /// A vector, stored in the data type of its field.
    Vector(Vector),
}

impl Document {
    /// Starts a document; `id` is any text that is not empty, and is percent-encoded into the key.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), fields: Vec::new(), ttl: None }
    }

    /// Sets a field, in the schema or not; a field of that name that was set before is replaced.
    pub fn with(mut self, field: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.set(field.into(), value.into());
        self
    }

    /// Sets a TAG field to several values.
    pub fn with_tags<V: Into<String>>(
        self,
        field: impl Into<Cow<'static, str>>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.with(field, Value::Tags(values.into_iter().map(Into::into).collect()))
    }

    /// Sets how long the document lives, at least a millisecond; without it, it stays until it is removed.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets a field for every member of a struct or map that serializes to one.
    ///
    /// Text, numbers and booleans (`true`, `false`) are stored as text, other members as JSON; `None` sets nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotAMap`] if `value` does not serialize to a map with text as keys.
    ///
    /// # Examples
    ///
    /// ```
    /// use inferkit_vectorsearch::{Document, Vector};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Product<'a> {
    ///     title: &'a str,
    ///     price: f64,
    /// }
    ///
    /// let product = Product { title: "Red running shoe", price: 79.5 };
    /// let document = Document::new("sku-1").with_fields(&product)?.with("embedding", Vector::new([0.1, 0.9])?);
    /// # let _ = document;
    /// # Ok::<(), inferkit_vectorsearch::Error>(())
    /// ```
    pub fn with_fields<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Result<Self> {
        use serde_json::Value as Json;
        let Json::Object(members) = serde_json::to_value(value).map_err(Error::not_a_map)? else {
            return Err(Error::NotAMap { source: None });
        };
        for (name, value) in members {
            let text = match value {
                Json::Null => continue,
                Json::String(text) => text,
                other => other.to_string(),
            };
            self.set(Cow::Owned(name), Value::from(text));
        }
        Ok(self)
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the time to live.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Returns the fields in the order in which they were set.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (&**name, value))
    }

    fn set(&mut self, field: Cow<'static, str>, value: Value) {
        match self.fields.iter_mut().find(|(name, _)| *name == field) {
            Some((_, old)) => *old = value,
            None => self.fields.push((field, value)),
        }
    }

    /// Checks the document against a schema, and returns its fields in their stored form.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`], [`Error::DimensionMismatch`], and those of [`DataType::encode`](crate::DataType::encode).
    pub fn encode(&self, schema: &Schema) -> Result<Encoded<'_>> {
        self.check()?;
        self.fields().map(|(name, value)| Ok((name, encode_field(schema, name, value)?))).collect()
    }

    /// Puts the id below another one.
    pub(crate) fn under(mut self, parent: &str) -> Self {
        self.id = format!("{parent}/{}", self.id);
        self
    }

    /// Checks what does not depend on the schema; the fields are checked by [`encode_field`].
    pub(crate) fn check(&self) -> Result<()> {
        let fail = |field: &str, problem| Error::InvalidField { field: field.to_owned(), problem };
        if self.id.is_empty() {
            return Err(fail("id", "is empty: every document needs an id"));
        }
        if self.fields.is_empty() || MAX_FIELDS < self.fields.len() {
            return Err(fail("*", "count none or too many: a document has 1 to 3000 fields"));
        }
        if self.ttl.is_some_and(|ttl| ttl < Duration::from_millis(1) || MAX_TTL < ttl) {
            return Err(fail("ttl", "is not between a millisecond and a hundred years"));
        }
        Ok(())
    }

    /// Appends the commands that write the document in the place of an older one to a transaction.
    pub(crate) fn append_put(&self, schema: &Schema, transaction: &mut Batch) -> Result<()> {
        self.check()?;
        let key = key(schema, &self.id);
        let mut write = Cmd::with_capacity("HSET", 128 + self.size()).key(&key);
        for (name, value) in &self.fields {
            write = write.arg(&**name).arg(&*encode_field(schema, name, value)?);
        }
        transaction.push::<u64>(Cmd::new("DEL").key(&key));
        transaction.push::<u64>(write);
        if let Some(ttl) = self.ttl {
            let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            transaction.push::<u64>(Cmd::new("PEXPIRE").key(&key).arg(millis));
        }
        Ok(())
    }

    /// About how many bytes the fields take.
    fn size(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Bytes(bytes) => bytes.len(),
            Value::Tags(tags) => tags.iter().map(|tag| tag.len() + 1).sum(),
            Value::Vector(vector) => 4 * vector.dimensions(),
        };
        self.fields.iter().map(|(name, field)| name.len() + value(field)).sum()
    }

    /// The command that writes the document in the place of an older one.
    pub(crate) fn to_put_cmd(&self, schema: &Schema, put: &'static Script) -> Result<Cmd> {
        self.check()?;
        let ttl = self.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let mut cmd = Cmd::eval(put, &[key(schema, &self.id)]).arg(ttl);
        for (name, value) in &self.fields {
            cmd = cmd.arg(&**name).arg(&*encode_field(schema, name, value)?);
        }
        Ok(cmd)
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("fields", &self.fields.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} B)", bytes.len()),
            Self::Tags(tags) => write!(f, "Tags({})", tags.len()),
            Self::Vector(vector) => vector.fmt(f),
        }
    }
}

/// The key of the document `id`.
pub(crate) fn key(schema: &Schema, id: &str) -> Key {
    KeyBuilder::after(schema.prefix()).part(id).build()
}

/// Checks one field and returns its stored form.
pub(crate) fn encode_field<'v>(
    schema: &Schema,
    name: &str,
    value: &'v Value,
) -> Result<Cow<'v, [u8]>> {
    let fail = |problem| Error::InvalidField { field: name.to_owned(), problem };
    if name.is_empty() {
        return Err(fail("has no name"));
    }
    let field = schema.field(name);
    match (value, field.map(Field::kind)) {
        (Value::Vector(vector), Some(FieldKind::Vector { dimensions, data_type, .. })) => {
            if vector.dimensions() != *dimensions {
                return Err(Error::DimensionMismatch {
                    expected: *dimensions,
                    got: vector.dimensions(),
                });
            }
            data_type.encode(vector)
        }
        (Value::Vector(_), _) => Err(fail("holds a vector: declare it as one in the schema")),
        (_, Some(FieldKind::Vector { .. })) => {
            Err(fail("takes a Vector, which is checked: make one with Vector::new"))
        }
        (Value::Tags(tags), Some(FieldKind::Tag)) => {
            let separator = field.map_or(TAG_SEPARATOR, Field::separator);
            for tag in tags {
                if tag.is_empty() {
                    return Err(fail("has an empty tag: leave it out"));
                }
                if let Some(problem) = stored_tag_problem(tag) {
                    return Err(fail(problem));
                }
                if tag.contains(separator) {
                    return Err(fail(
                        "has a tag that holds the separator of the field: use another separator",
                    ));
                }
            }
            Ok(Cow::Owned(tags.join(separator.encode_utf8(&mut [0; 4])).into_bytes()))
        }
        (Value::Tags(_), _) => Err(fail("holds tags: declare it as TAG in the schema")),
        (Value::Bytes(bytes), Some(FieldKind::Tag)) => {
            let tag = str::from_utf8(bytes).map_err(|_| fail("is a TAG and not UTF-8"))?;
            stored_tag_problem(tag)
                .map_or(Ok(Cow::Borrowed(&**bytes)), |problem| Err(fail(problem)))
        }
        (Value::Bytes(bytes), Some(FieldKind::Numeric)) => match number::parse(bytes) {
            Some(number) if number.is_finite() => Ok(Cow::Borrowed(bytes)),
            _ => Err(fail("is not a finite number: the server would drop the whole document")),
        },
        (Value::Bytes(bytes), _) => Ok(Cow::Borrowed(bytes)),
    }
}

impl From<Vector> for Value {
    fn from(vector: Vector) -> Self {
        Self::Vector(vector)
    }
}

impl From<&Vector> for Value {
    fn from(vector: &Vector) -> Self {
        Self::Vector(vector.clone())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bytes(Bytes::from_static(if value { b"true" } else { b"false" }))
    }
}

macro_rules! bytes {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(bytes: $type) -> Self {
                Self::Bytes(bytes.into())
            }
        }
    )*};
}
bytes!(String, Vec<u8>, Bytes);

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Self::from(number.to_string())
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64);
