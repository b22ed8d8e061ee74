use inferkit_core::Cmd;

use crate::schema::check_range;
use crate::{Algorithm, DataType, Error, FieldKind, Metric, Result, Schema};

/// How the components of a vector are kept in a vector set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Quantization {
    /// 8-bit integers: a quarter of the memory, and at best 98 % of the true neighbors.
    #[default]
    Q8,
    /// 32-bit floats.
    None,
    /// One bit: its sign.
    ///
    /// Measured on clustered vectors, it finds one true neighbor in four: take many and compare them yourself.
    Binary,
}

impl Quantization {
    /// The option of `VADD`.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Q8 => "Q8",
            Self::None => "NOQUANT",
            Self::Binary => "BIN",
        }
    }

    /// The name in the reply of `VINFO`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Q8 => "int8",
            Self::None => "f32",
            Self::Binary => "bin",
        }
    }
}

/// How a vector set is made and searched; the graph's own parameters are those of the field's
/// [`Hnsw`](crate::Hnsw).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use]
pub struct VectorSetOptions {
    pub(super) quantization: Quantization,
    pub(super) reduce: Option<usize>,
    pub(super) threaded_writes: bool,
    pub(super) filter_ef: Option<usize>,
}

impl VectorSetOptions {
    /// Makes the default options: [`Quantization::Q8`], all dimensions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how components are kept; it holds for the life of the set.
    pub fn with_quantization(mut self, quantization: Quantization) -> Self {
        self.quantization = quantization;
        self
    }

    /// Lets the server project vectors at random to so many dimensions; it holds for the life of the set.
    ///
    /// Distances are those of the projections, and vectors cannot be read back.
    pub fn with_reduce(mut self, dimensions: usize) -> Self {
        self.reduce = Some(dimensions);
        self
    }

    /// Lets the server look for the neighbors of a new vector in a thread (`CAS`), so that it serves others meanwhile.
    ///
    /// One connection waits for its own writes either way.
    pub fn with_threaded_writes(mut self) -> Self {
        self.threaded_writes = true;
        self
    }

    /// Sets how many documents a filtered search over the graph looks at, at most; the default is 10 000 or a hundred
    /// times `k`, whichever is more.
    ///
    /// A search that gives up there with fewer than `k` hits is [`partial`](crate::SearchResult::partial).
    pub fn with_filter_ef(mut self, documents: usize) -> Self {
        self.filter_ef = Some(documents);
        self
    }

    /// Checks that a vector set can hold what the schema describes; returns the vector field.
    pub(super) fn field(&self, schema: &Schema) -> Result<VectorOf> {
        let unsupported = |what, instead| Err(Error::Unsupported { what, instead });
        let mut vectors = schema.fields().iter().filter_map(|field| match field.kind() {
            FieldKind::Vector { dimensions, metric, algorithm, data_type, .. } => {
                Some((field.name(), *dimensions, *metric, *algorithm, *data_type))
            }
            _ => None,
        });
        let Some((name, dimensions, metric, algorithm, data_type)) = vectors.next() else {
            return unsupported("a vector set holds vectors", "give the schema a vector field");
        };
        if vectors.next().is_some() {
            return unsupported(
                "a vector set holds one vector per document",
                "make a set for each vector field",
            );
        }
        if metric != Metric::Cosine {
            return unsupported(
                "a vector set compares by cosine only",
                "use Metric::Cosine, or RedisVectorIndex",
            );
        }
        if data_type != DataType::F32 {
            return unsupported(
                "a vector set takes FLOAT32 vectors only",
                "use DataType::F32; VectorSetOptions::with_quantization makes them small",
            );
        }
        if schema
            .fields()
            .iter()
            .any(|field| *field.kind() == FieldKind::Tag && !field.is_case_sensitive())
        {
            return unsupported(
                "a vector set compares tags to the letter",
                "store them in lower case, in a TAG field that is case-sensitive",
            );
        }
        let graph = match algorithm {
            Algorithm::Flat => None,
            Algorithm::Hnsw(hnsw) => {
                check_range("M", hnsw.m(), 4, 512)?;
                Some((hnsw.m(), hnsw.ef_construction()))
            }
            _ => {
                return unsupported(
                    "a vector set is an HNSW graph",
                    "declare the field with VectorField::hnsw or VectorField::flat",
                );
            }
        };
        if let Some(reduce) = self.reduce {
            check_range("REDUCE", reduce, 1, dimensions)?;
        }
        if let Some(filter_ef) = self.filter_ef {
            check_range("FILTER-EF", filter_ef, 1, u32::MAX as usize)?;
        }
        Ok(VectorOf { name: name.to_owned(), dimensions, graph })
    }

    /// Appends the options of `VADD` that stand after the element.
    pub(super) fn append(self, graph: Option<(usize, usize)>, cmd: Cmd) -> Cmd {
        let cmd = if self.threaded_writes { cmd.arg("CAS") } else { cmd };
        let cmd = cmd.arg(self.quantization.option());
        match graph {
            None => cmd,
            Some((m, ef)) => cmd.arg("EF").arg(ef).arg("M").arg(m),
        }
    }
}

/// The vector field of a set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VectorOf {
    pub(super) name: String,
    pub(super) dimensions: usize,
    /// `M` and `EF`; without a graph every vector is compared.
    pub(super) graph: Option<(usize, usize)>,
}
