use inferkit_core::Cmd;

use crate::{Error, MAX_DIMENSIONS, Result};

/// The separator between several values of a TAG field: the ASCII unit separator, which no filter value may hold.
pub(crate) const TAG_SEPARATOR: char = '\u{1f}';

/// What an index looks like: its name, the prefix of its keys and its fields.
///
/// Documents are hashes.
/// Fields that are stored but not searched are simply not part of the schema.
/// Names take only letters, digits and `_` (index names also `-`, `.` and `:`), so none of them can be query syntax.
///
/// # Examples
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
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    index: String,
    prefix: String,
    fields: Vec<Field>,
}

impl Schema {
    /// Starts a schema of `index` over all hashes whose key starts with `prefix`, with its first vector field.
    ///
    /// `prefix` ends with `:`; the core's [`keys`](inferkit_core::keys) make such prefixes.
    pub fn builder(
        index: impl Into<String>,
        prefix: impl Into<String>,
        vector: VectorField,
    ) -> SchemaBuilder {
        SchemaBuilder(Self {
            index: index.into(),
            prefix: prefix.into(),
            fields: vec![vector.into()],
        })
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
        check_index_name(index)?;
        Ok(Self { index: index.to_owned(), ..self.clone() })
    }

    /// Returns the fields, in the order in which they were declared.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Returns the `FT.CREATE` command that makes the index.
    #[must_use]
    pub fn create_cmd(&self) -> Cmd {
        let mut cmd = Cmd::with_capacity("FT.CREATE", 256)
            .key(&self.index)
            .args(["ON", "HASH", "PREFIX", "1"])
            .arg(&self.prefix)
            .arg("SCHEMA");
        for field in &self.fields {
            cmd = cmd.arg(&field.name);
            cmd = match &field.kind {
                FieldKind::Numeric => cmd.arg("NUMERIC"),
                FieldKind::Tag => cmd
                    .args(["TAG", "SEPARATOR"])
                    .arg(TAG_SEPARATOR.to_string())
                    .arg("CASESENSITIVE"),
                FieldKind::Text => cmd.arg("TEXT"),
                FieldKind::Vector { dimensions, metric, algorithm } => {
                    let (name, count) = match algorithm {
                        Algorithm::Flat => ("FLAT", 6_usize),
                        Algorithm::Hnsw(_) => ("HNSW", 12),
                    };
                    let cmd = cmd
                        .args(["VECTOR", name])
                        .arg(count)
                        .args(["TYPE", "FLOAT32", "DIM"])
                        .arg(*dimensions)
                        .args(["DISTANCE_METRIC", metric.as_str()]);
                    match algorithm {
                        Algorithm::Flat => cmd,
                        Algorithm::Hnsw(hnsw) => cmd
                            .arg("M")
                            .arg(hnsw.m)
                            .arg("EF_CONSTRUCTION")
                            .arg(hnsw.ef_construction)
                            .arg("EF_RUNTIME")
                            .arg(hnsw.ef_runtime),
                    }
                }
            };
        }
        // A repetition is refused because the name is taken, which changes nothing.
        cmd.idempotent()
    }
}

/// A [`Schema`] under construction.
#[derive(Clone, Debug)]
#[must_use]
pub struct SchemaBuilder(Schema);

impl SchemaBuilder {
    /// Adds a field for numbers.
    pub fn numeric(self, name: impl Into<String>) -> Self {
        self.field(Field { name: name.into(), kind: FieldKind::Numeric })
    }

    /// Adds a field for exact values, such as a tenant or a model; see [`FieldKind::Tag`].
    pub fn tag(self, name: impl Into<String>) -> Self {
        self.field(Field { name: name.into(), kind: FieldKind::Tag })
    }

    /// Adds a field for full text.
    pub fn text(self, name: impl Into<String>) -> Self {
        self.field(Field { name: name.into(), kind: FieldKind::Text })
    }

    /// Adds one more vector field.
    pub fn vector(self, field: VectorField) -> Self {
        self.field(field.into())
    }

    /// Finishes the schema.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::InvalidPrefix`], [`Error::DuplicateField`], and for vector fields
    /// [`Error::InvalidParameter`].
    pub fn build(self) -> Result<Schema> {
        let schema = self.0;
        check_index_name(&schema.index)?;
        if schema.prefix.len() < 2 || !schema.prefix.ends_with(':') || schema.prefix.contains('\0')
        {
            return Err(Error::InvalidPrefix { prefix: schema.prefix });
        }
        for (index, field) in schema.fields.iter().enumerate() {
            check_field_name(&field.name)?;
            if schema.fields.iter().take(index).any(|other| other.name == field.name) {
                return Err(Error::DuplicateField { field: field.name.clone() });
            }
            let FieldKind::Vector { dimensions, algorithm, .. } = field.kind else { continue };
            check_range("DIM", dimensions, 1, MAX_DIMENSIONS)?;
            if let Algorithm::Hnsw(hnsw) = algorithm {
                check_range("M", hnsw.m, 2, 512)?;
                check_range("EF_CONSTRUCTION", hnsw.ef_construction, 1, 4096)?;
                check_range("EF_RUNTIME", hnsw.ef_runtime, 1, 4096)?;
            }
        }
        Ok(schema)
    }

    fn field(mut self, field: Field) -> Self {
        self.0.fields.push(field);
        self
    }
}

/// A field of a [`Schema`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    name: String,
    kind: FieldKind,
}

impl Field {
    /// Returns the name of the field, which is also its name in the hash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what is in the field.
    #[must_use]
    pub fn kind(&self) -> &FieldKind {
        &self.kind
    }
}

impl From<VectorField> for Field {
    fn from(field: VectorField) -> Self {
        let VectorField { name, dimensions, metric, algorithm } = field;
        Self { name, kind: FieldKind::Vector { dimensions, metric, algorithm } }
    }
}

/// What is in a [`Field`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// A number; a document with anything else in this field is not indexed at all.
    Numeric,
    /// Exact values: upper and lower case differ, and the ASCII unit separator (31) parts several values.
    Tag,
    /// Full text.
    Text,
    /// A vector of little-endian 32-bit floats; a document with another length in this field is not indexed at all.
    #[non_exhaustive]
    Vector {
        /// The number of floats.
        dimensions: usize,
        /// How distances are measured.
        metric: Metric,
        /// How neighbors are found.
        algorithm: Algorithm,
    },
}

/// A vector field of a [`Schema`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct VectorField {
    name: String,
    dimensions: usize,
    metric: Metric,
    algorithm: Algorithm,
}

impl VectorField {
    /// Makes a field that is searched exactly, vector by vector; right up to some ten thousand documents.
    ///
    /// The metric is [`Metric::Cosine`] unless set.
    pub fn flat(name: impl Into<String>, dimensions: usize) -> Self {
        Self {
            name: name.into(),
            dimensions,
            metric: Metric::default(),
            algorithm: Algorithm::Flat,
        }
    }

    /// Makes a field that is searched along a graph of neighbors: fast at any size, and misses a few.
    ///
    /// The metric is [`Metric::Cosine`] unless set.
    pub fn hnsw(name: impl Into<String>, dimensions: usize, hnsw: Hnsw) -> Self {
        Self { algorithm: Algorithm::Hnsw(hnsw), ..Self::flat(name, dimensions) }
    }

    /// Sets how distances are measured.
    pub fn with_metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }
}

/// How distances are measured; the smaller, the nearer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Metric {
    /// 1 minus the cosine of the angle: 0 to 2.
    #[default]
    Cosine,
    /// 1 minus the inner product; meant for vectors of norm 1.
    InnerProduct,
    /// The square of the Euclidean distance.
    L2,
}

impl Metric {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "COSINE",
            Self::InnerProduct => "IP",
            Self::L2 => "L2",
        }
    }
}

/// How neighbors are found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Every vector is compared.
    Flat,
    /// A graph of neighbors is walked.
    Hnsw(Hnsw),
}

/// The parameters of an HNSW graph.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Hnsw {
    m: usize,
    ef_construction: usize,
    ef_runtime: usize,
}

impl Hnsw {
    /// Sets the number of edges per vector (2 to 512, default 16).
    pub fn with_m(mut self, m: usize) -> Self {
        self.m = m;
        self
    }

    /// Sets the number of candidates while a vector is put in (1 to 4096, default 200).
    pub fn with_ef_construction(mut self, ef_construction: usize) -> Self {
        self.ef_construction = ef_construction;
        self
    }

    /// Sets the number of candidates of searches that do not say it (1 to 4096, default 10).
    ///
    /// A [`Knn`](crate::Knn) always says it.
    pub fn with_ef_runtime(mut self, ef_runtime: usize) -> Self {
        self.ef_runtime = ef_runtime;
        self
    }
}

impl Default for Hnsw {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200, ef_runtime: 10 }
    }
}

pub(crate) fn check_field_name(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        || name.starts_with(|first: char| first.is_ascii_digit())
    {
        "it takes letters, digits and `_`, and does not start with a digit"
    } else if name.starts_with("__") {
        "names that start with `__` belong to the server"
    } else if name.eq_ignore_ascii_case("as") {
        "it is a word of the query language"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { what: "field", name: name.to_owned(), problem })
}

pub(crate) fn check_range(name: &'static str, got: usize, min: usize, max: usize) -> Result<()> {
    if (min..=max).contains(&got) {
        Ok(())
    } else {
        Err(Error::InvalidParameter { name, got, min, max })
    }
}

fn check_index_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    let problem = if name.is_empty() {
        "it is empty"
    } else if !name.bytes().all(plain)
        || !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
    {
        "it takes letters, digits and `_-.:`, and starts with a letter or `_`"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { what: "index", name: name.to_owned(), problem })
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
