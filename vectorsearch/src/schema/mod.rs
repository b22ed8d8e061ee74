//! What an index looks like, and the command that makes it.

mod data_type;
mod field;
mod names;

use std::borrow::Cow;

use inferkit_core::Cmd;

pub use data_type::DataType;
pub(crate) use field::TAG_SEPARATOR;
pub use field::{
    Algorithm, Compression, Field, FieldKind, Hnsw, Metric, Phonetic, SvsVamana, VectorField,
};
use names::Mistake;

use crate::{Error, Result};

/// What an index looks like: its name, the prefix of its keys and its fields.
///
/// Documents are hashes.
/// Fields that are stored but not searched are simply not part of the schema.
/// Names take only letters, digits and `_` (index names also `-`, `.` and `:`), so none of them can be query syntax.
///
/// # Examples
///
/// Made at run time:
///
/// ```
/// use inferkit_vectorsearch::{Hnsw, Schema, VectorField};
///
/// let schema = Schema::builder("docs-v1", "docs:", VectorField::hnsw("embedding", 384, Hnsw::default()))
///     .tag("tenant")
///     .numeric("year")
///     .build()?;
/// assert_eq!(schema.create_cmd().name(), "FT.CREATE");
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
///
/// Made at compile time, where a mistake does not compile:
///
/// ```
/// use inferkit_vectorsearch::{Field, Hnsw, Schema};
///
/// static DOCS: Schema = Schema::from_static("docs-v1", "docs:", const {
///     &[Field::tag("tenant"), Field::numeric("year").sortable(), Field::hnsw("embedding", 384, Hnsw::new())]
/// });
/// assert_eq!(DOCS.fields().len(), 3);
/// ```
///
/// ```compile_fail
/// # use inferkit_vectorsearch::{Field, Schema};
/// static TWICE: Schema = Schema::from_static("docs-v1", "docs:", const { &[Field::tag("tenant"), Field::text("tenant")] });
/// ```
///
/// ```compile_fail
/// # use inferkit_vectorsearch::{Field, Schema};
/// static SYNTAX: Schema = Schema::from_static("docs-v1", "docs:", const { &[Field::tag("a-b")] });
/// ```
///
/// ```compile_fail
/// # use inferkit_vectorsearch::{Field, Schema};
/// static OPEN_PREFIX: Schema = Schema::from_static("docs-v1", "docs", const { &[Field::tag("tenant")] });
/// ```
///
/// ```compile_fail
/// # use inferkit_vectorsearch::{Field, Schema};
/// static FLAT_LAND: Schema = Schema::from_static("docs-v1", "docs:", const { &[Field::flat("embedding", 0)] });
/// ```
///
/// ```compile_fail
/// # use inferkit_vectorsearch::{Field, Schema};
/// static HEAVY: Schema = Schema::from_static("docs-v1", "docs:", const { &[Field::numeric("year").weight(2.0)] });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    index: Cow<'static, str>,
    prefix: Cow<'static, str>,
    fields: Cow<'static, [Field]>,
    stop_words: bool,
}

impl Schema {
    /// Makes a schema in a `static` or `const`, where mistakes are errors of the compiler.
    ///
    /// # Panics
    ///
    /// For what [`SchemaBuilder::build`] returns as an error; at run time use that.
    #[must_use]
    pub const fn from_static(
        index: &'static str,
        prefix: &'static str,
        fields: &'static [Field],
    ) -> Self {
        if let Some(mistake) = names::mistake(index, prefix, fields) {
            names::refuse(mistake);
        }
        Self {
            index: Cow::Borrowed(index),
            prefix: Cow::Borrowed(prefix),
            fields: Cow::Borrowed(fields),
            stop_words: true,
        }
    }

    /// Starts a schema of `index` over all hashes whose key starts with `prefix`, with its first field.
    ///
    /// `prefix` ends with `:`; the core's [`keys`](inferkit_core::keys) make such prefixes.
    pub fn builder(
        index: impl Into<String>,
        prefix: impl Into<String>,
        first: impl Into<Field>,
    ) -> SchemaBuilder {
        SchemaBuilder {
            index: index.into(),
            prefix: prefix.into(),
            fields: vec![first.into()],
            stop_words: true,
        }
    }

    /// Returns the name of the index.
    #[must_use]
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Returns the prefix of the keys that are indexed.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the same schema under another name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if it is not one.
    pub fn with_index(&self, index: &str) -> Result<Self> {
        if let Some(problem) = names::index_name_problem(index) {
            return Err(Error::InvalidName { what: "index", name: index.to_owned(), problem });
        }
        Ok(Self { index: Cow::Owned(index.to_owned()), ..self.clone() })
    }

    /// Returns the same schema over other keys, such as those of a namespace.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPrefix`] if it does not end with `:`.
    pub fn with_prefix(&self, prefix: &str) -> Result<Self> {
        let schema = Self { prefix: Cow::Owned(prefix.to_owned()), ..self.clone() };
        schema.check()?;
        Ok(schema)
    }

    /// Returns the key of the document with this id.
    #[must_use]
    pub fn key(&self, id: &str) -> inferkit_core::keys::Key {
        crate::document::key(self, id)
    }

    /// Returns the id of the document under a key, or `None` if it is not one of this schema's.
    #[must_use]
    pub fn id(&self, key: &[u8]) -> Option<String> {
        let id = key.strip_prefix(self.prefix.as_bytes())?;
        String::from_utf8(inferkit_core::keys::decode(str::from_utf8(id).ok()?)?).ok()
    }

    /// Returns the fields, in the order in which they were declared.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name() == name)
    }

    /// Tells whether TEXT fields leave out the server's stop words, such as `the`.
    #[must_use]
    pub fn has_stop_words(&self) -> bool {
        self.stop_words
    }

    /// Returns the `FT.CREATE` command that makes the index.
    #[must_use]
    pub fn create_cmd(&self) -> Cmd {
        let mut cmd = Cmd::with_capacity("FT.CREATE", 256)
            .key(&*self.index)
            .args(["ON", "HASH", "PREFIX", "1"])
            .arg(&*self.prefix);
        if !self.stop_words {
            cmd = cmd.args(["STOPWORDS", "0"]);
        }
        cmd = cmd.arg("SCHEMA");
        for field in &*self.fields {
            cmd = render(cmd, field);
        }
        // A repetition is refused because the name is taken, which changes nothing.
        cmd.idempotent()
    }

    fn check(&self) -> Result<()> {
        let Some(mistake) = names::mistake(&self.index, &self.prefix, &self.fields) else {
            return Ok(());
        };
        let field = |place: usize| {
            self.fields.get(place).map(|field| field.name().to_owned()).unwrap_or_default()
        };
        Err(match mistake {
            Mistake::IndexName(problem) => {
                Error::InvalidName { what: "index", name: self.index.clone().into_owned(), problem }
            }
            Mistake::Prefix => Error::InvalidPrefix { prefix: self.prefix.clone().into_owned() },
            Mistake::FieldName(place, problem) => {
                Error::InvalidName { what: "field", name: field(place), problem }
            }
            Mistake::Duplicate(place) => Error::DuplicateField { field: field(place) },
            Mistake::Option(place, problem) => {
                Error::InvalidOption { field: field(place), problem }
            }
            Mistake::Range { name, got, min, max } => {
                Error::InvalidParameter { name, got, min, max }
            }
        })
    }
}

/// Appends a field, with its modifiers in the one order that the server takes.
fn render(cmd: Cmd, field: &Field) -> Cmd {
    let cmd = cmd.arg(field.name());
    let flag = |cmd: Cmd, set: bool, word: &str| if set { cmd.arg(word) } else { cmd };
    let mut cmd = match field.kind() {
        FieldKind::Numeric => cmd.arg("NUMERIC"),
        FieldKind::Tag => {
            let cmd = cmd.args(["TAG", "SEPARATOR"]).arg(field.separator().to_string());
            flag(cmd, field.is_case_sensitive(), "CASESENSITIVE")
        }
        FieldKind::Text => {
            let mut cmd = cmd.arg("TEXT");
            if field.text_weight() != 1.0 {
                cmd = cmd.arg("WEIGHT").arg(field.text_weight().to_string());
            }
            cmd = flag(cmd, field.is_no_stem(), "NOSTEM");
            match field.phonetic_matcher() {
                Some(language) => cmd.args(["PHONETIC", language.as_str()]),
                None => cmd,
            }
        }
        FieldKind::Vector { dimensions, metric, algorithm, data_type, initial_cap } => {
            let mut attributes = vec![
                ("TYPE", data_type.as_str().to_owned()),
                ("DIM", dimensions.to_string()),
                ("DISTANCE_METRIC", metric.as_str().to_owned()),
            ];
            if let Some(vectors) = initial_cap {
                attributes.push(("INITIAL_CAP", vectors.to_string()));
            }
            match algorithm {
                Algorithm::Flat => {}
                Algorithm::Hnsw(hnsw) => {
                    attributes.extend([
                        ("M", hnsw.m.to_string()),
                        ("EF_CONSTRUCTION", hnsw.ef_construction.to_string()),
                        ("EF_RUNTIME", hnsw.ef_runtime.to_string()),
                    ]);
                    attributes.extend(hnsw.epsilon.map(|epsilon| ("EPSILON", epsilon.to_string())));
                }
                Algorithm::SvsVamana(svs) => {
                    let compression = svs.compression.map(|it| it.as_str().to_owned());
                    attributes.extend(compression.map(|it| ("COMPRESSION", it)));
                    attributes.extend([
                        ("CONSTRUCTION_WINDOW_SIZE", svs.construction_window_size.to_string()),
                        ("GRAPH_MAX_DEGREE", svs.graph_max_degree.to_string()),
                        ("SEARCH_WINDOW_SIZE", svs.search_window_size.to_string()),
                    ]);
                }
            }
            let cmd = cmd.args(["VECTOR", algorithm.as_str()]).arg(2 * attributes.len());
            attributes.into_iter().fold(cmd, |cmd, (name, value)| cmd.arg(name).arg(value))
        }
    };
    cmd = flag(cmd, field.has_suffix_trie(), "WITHSUFFIXTRIE");
    cmd = flag(cmd, field.is_index_empty(), "INDEXEMPTY");
    cmd = flag(cmd, field.is_index_missing(), "INDEXMISSING");
    if field.is_sortable() { cmd.args(["SORTABLE", "UNF"]) } else { cmd }
}

/// A [`Schema`] under construction.
#[derive(Clone, Debug)]
#[must_use]
pub struct SchemaBuilder {
    index: String,
    prefix: String,
    fields: Vec<Field>,
    stop_words: bool,
}

impl SchemaBuilder {
    /// Adds a field with options of its own.
    pub fn field(mut self, field: impl Into<Field>) -> Self {
        self.fields.push(field.into());
        self
    }

    /// Adds a field for numbers.
    pub fn numeric(self, name: impl Into<String>) -> Self {
        self.field(Field::new(Cow::Owned(name.into()), FieldKind::Numeric))
    }

    /// Adds a field for exact values, such as a tenant or a model; see [`FieldKind::Tag`].
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.field(Field::new(Cow::Owned(name.into()), FieldKind::Tag))
    }

    /// Adds a field for full text.
    pub fn text(self, name: impl Into<String>) -> Self {
        self.field(Field::new(Cow::Owned(name.into()), FieldKind::Text))
    }

    /// Adds one more vector field.
    pub fn vector(self, field: VectorField) -> Self {
        self.field(field)
    }

    /// Indexes every word of TEXT fields, also those that the server leaves out otherwise, such as `the`.
    pub fn without_stop_words(mut self) -> Self {
        self.stop_words = false;
        self
    }

    /// Finishes the schema.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::InvalidPrefix`], [`Error::DuplicateField`], [`Error::InvalidOption`] for an option
    /// that does not fit its field, and for vector fields [`Error::InvalidParameter`].
    pub fn build(self) -> Result<Schema> {
        let schema = Schema {
            index: Cow::Owned(self.index),
            prefix: Cow::Owned(self.prefix),
            fields: Cow::Owned(self.fields),
            stop_words: self.stop_words,
        };
        schema.check()?;
        Ok(schema)
    }
}

pub(crate) fn check_field_name(name: &str) -> Result<()> {
    match names::field_name_problem(name) {
        Some(problem) => Err(Error::InvalidName { what: "field", name: name.to_owned(), problem }),
        None => Ok(()),
    }
}

pub(crate) fn check_range(name: &'static str, got: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&got) {
        Ok(())
    } else {
        Err(Error::InvalidParameter { name, got, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(cmd: &Cmd) -> String {
        cmd.iter().map(|part| part.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_of_an_hnsw_index_is_golden() {
        let schema =
            Schema::builder("idx:docs-v1", "docs:", VectorField::hnsw("v", 384, Hnsw::default()))
                .tag("tenant")
                .numeric("year")
                .text("body")
                .build()
                .unwrap();
        assert_eq!(
            rendered(&schema.create_cmd()),
            "FT.CREATE idx:docs-v1 ON HASH PREFIX 1 docs: SCHEMA \
             v VECTOR HNSW 12 TYPE FLOAT32 DIM 384 DISTANCE_METRIC COSINE M 16 EF_CONSTRUCTION 200 EF_RUNTIME 10 \
             tenant TAG SEPARATOR \\x1f CASESENSITIVE year NUMERIC body TEXT"
        );
        assert_eq!(schema.create_cmd().routing_key(), Some(&b"idx:docs-v1"[..]));
        assert!(schema.create_cmd().is_idempotent() && !schema.create_cmd().is_readonly());
    }

    #[test]
    fn the_command_of_a_flat_index_is_golden() {
        let second = Hnsw::default().with_m(32).with_ef_construction(300).with_ef_runtime(20);
        let schema = Schema::builder("i", "p:", VectorField::flat("a", 2).with_metric(Metric::L2))
            .vector(VectorField::hnsw("b", 3, second).with_metric(Metric::InnerProduct))
            .build()
            .unwrap();
        assert_eq!(
            rendered(&schema.create_cmd()),
            "FT.CREATE i ON HASH PREFIX 1 p: SCHEMA \
             a VECTOR FLAT 6 TYPE FLOAT32 DIM 2 DISTANCE_METRIC L2 \
             b VECTOR HNSW 12 TYPE FLOAT32 DIM 3 DISTANCE_METRIC IP M 32 EF_CONSTRUCTION 300 EF_RUNTIME 20"
        );
    }

    #[test]
    fn names_cannot_be_syntax() {
        let build = |index: &str, field: &str| {
            Schema::builder(index, "p:", VectorField::flat("v", 2)).tag(field).build()
        };
        assert!(build("i", "tenant_1").is_ok());
        for field in ["", "a b", "a:{x}", "1a", "a-b", "é", "__key", "AS", "a|b", "a\0"] {
            assert!(matches!(build("i", field), Err(Error::InvalidName { .. })), "{field:?}");
        }
        for index in ["", "a b", "-a", "1a", "a{b}", "a\"", "a\0", "é"] {
            assert!(matches!(build(index, "t"), Err(Error::InvalidName { .. })), "{index:?}");
        }
        assert!(matches!(build("i", "v"), Err(Error::DuplicateField { .. })));
    }

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        for prefix in ["", ":", "docs", "docs:\0:", "docs*"] {
            let schema = Schema::builder("i", prefix, VectorField::flat("v", 2)).build();
            assert!(matches!(schema, Err(Error::InvalidPrefix { .. })), "{prefix:?}");
        }
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let build = |field| Schema::builder("i", "p:", field).build();
        for (field, parameter) in [
            (VectorField::flat("v", 0), "DIM"),
            (VectorField::flat("v", 32_769), "DIM"),
            (VectorField::hnsw("v", 2, Hnsw::default().with_m(1)), "M"),
            (VectorField::hnsw("v", 2, Hnsw::default().with_ef_construction(0)), "EF_CONSTRUCTION"),
            (VectorField::hnsw("v", 2, Hnsw::default().with_ef_runtime(4097)), "EF_RUNTIME"),
        ] {
            let Err(Error::InvalidParameter { name, .. }) = build(field) else {
                panic!("{parameter} was accepted");
            };
            assert_eq!(name, parameter);
        }
    }
}
