use std::borrow::Cow;

use super::data_type::DataType;

/// The separator between several values of a TAG field unless it is set: the ASCII unit separator, which no ordinary
/// value holds.
pub(crate) const TAG_SEPARATOR: char = '\u{1f}';

/// A field of a [`Schema`](crate::Schema): its name in the hash, what is in it, and how it is indexed.
///
/// An option that does not fit the kind of field, such as a weight of a number, is refused when the schema is made.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Field {
    name: Cow<'static, str>,
    kind: FieldKind,
    options: Options,
}

/// How a field is indexed, beside its kind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Options {
    sortable: bool,
    index_missing: bool,
    index_empty: bool,
    suffix_trie: bool,
    no_stem: bool,
    case_insensitive: bool,
    separator: char,
    weight: f64,
    phonetic: Option<Phonetic>,
}

impl Field {
    /// Makes a field of a given kind.
    pub const fn new(name: Cow<'static, str>, kind: FieldKind) -> Self {
        let options = Options {
            sortable: false,
            index_missing: false,
            index_empty: false,
            suffix_trie: false,
            no_stem: false,
            case_insensitive: false,
            separator: TAG_SEPARATOR,
            weight: 1.0,
            phonetic: None,
        };
        Self { name, kind, options }
    }

    /// Makes a field for exact values, such as a tenant or a model; see [`FieldKind::Tag`].
    pub const fn tag(name: &'static str) -> Self {
        Self::new(Cow::Borrowed(name), FieldKind::Tag)
    }

    /// Makes a field for numbers.
    pub const fn numeric(name: &'static str) -> Self {
        Self::new(Cow::Borrowed(name), FieldKind::Numeric)
    }

    /// Makes a field for full text.
    pub const fn text(name: &'static str) -> Self {
        Self::new(Cow::Borrowed(name), FieldKind::Text)
    }

    /// Makes a vector field of 32-bit floats that is searched exactly by its cosine; see [`VectorField::flat`].
    pub const fn flat(name: &'static str, dimensions: usize) -> Self {
        Self::vector(name, dimensions, Algorithm::Flat)
    }

    /// Makes a vector field of 32-bit floats that is searched along a graph by its cosine; see [`VectorField::hnsw`].
    pub const fn hnsw(name: &'static str, dimensions: usize, hnsw: Hnsw) -> Self {
        Self::vector(name, dimensions, Algorithm::Hnsw(hnsw))
    }

    /// Makes a vector field of 32-bit floats that is searched by its cosine.
    pub const fn vector(name: &'static str, dimensions: usize, algorithm: Algorithm) -> Self {
        let (metric, data_type, initial_cap) = (Metric::Cosine, DataType::F32, None);
        let kind = FieldKind::Vector { dimensions, metric, algorithm, data_type, initial_cap };
        Self::new(Cow::Borrowed(name), kind)
    }

    /// Keeps the values sorted (`SORTABLE UNF`): quick to sort by, at the price of memory.
    pub const fn sortable(mut self) -> Self {
        self.options.sortable = true;
        self
    }

    /// Indexes which documents lack the field, for [`Filter::missing`](crate::Filter::missing); RediSearch 2.10 or later.
    pub const fn index_missing(mut self) -> Self {
        self.options.index_missing = true;
        self
    }

    /// Indexes empty values of a TAG or TEXT field; RediSearch 2.10 or later.
    pub const fn index_empty(mut self) -> Self {
        self.options.index_empty = true;
        self
    }

    /// Keeps a suffix trie of a TAG or TEXT field, which makes searches for suffixes and infixes quick.
    pub const fn suffix_trie(mut self) -> Self {
        self.options.suffix_trie = true;
        self
    }

    /// Switches the stemming of a TEXT field off.
    pub const fn no_stem(mut self) -> Self {
        self.options.no_stem = true;
        self
    }

    /// Makes upper and lower case of a TAG field alike.
    pub const fn case_insensitive(mut self) -> Self {
        self.options.case_insensitive = true;
        self
    }

    /// Sets what parts several values of a TAG field: ASCII punctuation or the unit separator (31), which is the default.
    pub const fn separated_by(mut self, separator: char) -> Self {
        self.options.separator = separator;
        self
    }

    /// Sets how much the words of a TEXT field count in relevance, 1 by default.
    pub const fn weight(mut self, weight: f64) -> Self {
        self.options.weight = weight;
        self
    }

    /// Also finds words of a TEXT field that sound alike.
    pub const fn phonetic(mut self, language: Phonetic) -> Self {
        self.options.phonetic = Some(language);
        self
    }

    /// Sets how distances of a vector field are measured.
    pub const fn with_metric(mut self, new: Metric) -> Self {
        if let FieldKind::Vector { metric, .. } = &mut self.kind {
            *metric = new;
        }
        self
    }

    /// Sets how the numbers of a vector field are stored.
    pub const fn with_data_type(mut self, new: DataType) -> Self {
        if let FieldKind::Vector { data_type, .. } = &mut self.kind {
            *data_type = new;
        }
        self
    }

    /// Sets the number of vectors that memory is taken for from the start.
    pub const fn with_initial_cap(mut self, vectors: usize) -> Self {
        if let FieldKind::Vector { initial_cap, .. } = &mut self.kind {
            *initial_cap = Some(vectors);
        }
        self
    }

    /// Returns the name of the field, which is also its name in the hash.
    #[must_use]
    pub const fn name(&self) -> &str {
        match &self.name {
            Cow::Borrowed(name) => name,
            Cow::Owned(name) => name.as_str(),
        }
    }

    /// Returns what is in the field.
    #[must_use]
    pub const fn kind(&self) -> &FieldKind {
        &self.kind
    }

    /// Tells whether the values are kept sorted.
    #[must_use]
    pub const fn is_sortable(&self) -> bool {
        self.options.sortable
    }

    /// Tells whether the index knows which documents lack the field.
    #[must_use]
    pub const fn is_index_missing(&self) -> bool {
        self.options.index_missing
    }

    /// Tells whether empty values are indexed.
    #[must_use]
    pub const fn is_index_empty(&self) -> bool {
        self.options.index_empty
    }

    /// Tells whether a suffix trie is kept.
    #[must_use]
    pub const fn has_suffix_trie(&self) -> bool {
        self.options.suffix_trie
    }

    /// Tells whether words are left unstemmed.
    #[must_use]
    pub const fn is_no_stem(&self) -> bool {
        self.options.no_stem
    }

    /// Tells whether upper and lower case of a TAG field differ.
    #[must_use]
    pub const fn is_case_sensitive(&self) -> bool {
        !self.options.case_insensitive
    }

    /// Returns what parts several values of a TAG field.
    #[must_use]
    pub const fn separator(&self) -> char {
        self.options.separator
    }

    /// Returns how much the words of a TEXT field count.
    #[must_use]
    pub const fn text_weight(&self) -> f64 {
        self.options.weight
    }

    /// Returns the language by whose sounds words of a TEXT field are found.
    #[must_use]
    pub const fn phonetic_matcher(&self) -> Option<Phonetic> {
        self.options.phonetic
    }

    /// Why the options do not fit the kind.
    pub(super) const fn option_problem(&self) -> Option<&'static str> {
        let Options { sortable, index_empty, suffix_trie, no_stem, separator, .. } = self.options;
        let is_text = matches!(self.kind, FieldKind::Text);
        let is_tag = matches!(self.kind, FieldKind::Tag);
        if (index_empty || suffix_trie) && !(is_text || is_tag) {
            return Some("INDEXEMPTY and WITHSUFFIXTRIE are for TAG and TEXT fields");
        }
        let weight = self.options.weight;
        if (no_stem || weight != 1.0 || self.options.phonetic.is_some()) && !is_text {
            return Some("WEIGHT, NOSTEM and PHONETIC are for TEXT fields");
        }
        if !(0.0 < weight && weight <= 1e6) {
            return Some("WEIGHT is a number above 0, up to a million");
        }
        if (separator != TAG_SEPARATOR || self.options.case_insensitive) && !is_tag {
            return Some("SEPARATOR and CASESENSITIVE are for TAG fields");
        }
        if !(separator == TAG_SEPARATOR || separator.is_ascii_punctuation()) {
            return Some("SEPARATOR takes ASCII punctuation, or the unit separator");
        }
        if let FieldKind::Vector { algorithm, data_type, .. } = &self.kind {
            if sortable {
                return Some("a vector is not SORTABLE");
            }
            let half_or_single = matches!(data_type, DataType::F16 | DataType::F32);
            if matches!(algorithm, Algorithm::SvsVamana(_)) && !half_or_single {
                return Some("SVS-VAMANA takes FLOAT16 and FLOAT32");
            }
        }
        None
    }
}

impl From<VectorField> for Field {
    fn from(field: VectorField) -> Self {
        field.0
    }
}

/// What is in a [`Field`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// A number; a document with anything else in this field is not indexed at all.
    Numeric,
    /// Exact values; upper and lower case differ unless [`Field::case_insensitive`] is set, and
    /// [`Field::separated_by`] parts several values.
    Tag,
    /// Full text.
    Text,
    /// A vector; a document with another length in this field is not indexed at all.
    #[non_exhaustive]
    Vector {
        /// The number of components.
        dimensions: usize,
        /// How distances are measured.
        metric: Metric,
        /// How neighbors are found.
        algorithm: Algorithm,
        /// How the components are stored.
        data_type: DataType,
        /// The number of vectors that memory is taken for from the start.
        initial_cap: Option<usize>,
    },
}

/// A vector field that is made at run time; [`Field`] also makes constant ones.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct VectorField(Field);

impl VectorField {
    /// Makes a field that is searched exactly, vector by vector; right up to some ten thousand documents.
    ///
    /// The metric is [`Metric::Cosine`] and the data type [`DataType::F32`] unless set.
    pub fn flat(name: impl Into<String>, dimensions: usize) -> Self {
        Self::new(name, dimensions, Algorithm::Flat)
    }

    /// Makes a field that is searched along a graph of neighbors: fast at any size, and misses a few.
    ///
    /// The metric is [`Metric::Cosine`] and the data type [`DataType::F32`] unless set.
    pub fn hnsw(name: impl Into<String>, dimensions: usize, hnsw: Hnsw) -> Self {
        Self::new(name, dimensions, Algorithm::Hnsw(hnsw))
    }

    /// Makes a field that is searched by some algorithm.
    pub fn new(name: impl Into<String>, dimensions: usize, algorithm: Algorithm) -> Self {
        let field = Field::vector("", dimensions, algorithm);
        Self(Field { name: Cow::Owned(name.into()), ..field })
    }

    /// Sets how distances are measured.
    pub fn with_metric(self, metric: Metric) -> Self {
        Self(self.0.with_metric(metric))
    }

    /// Sets how the components are stored.
    pub fn with_data_type(self, data_type: DataType) -> Self {
        Self(self.0.with_data_type(data_type))
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

/// The languages by whose sounds words can be found (Double Metaphone).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Phonetic {
    /// English.
    English,
    /// French.
    French,
    /// Portuguese.
    Portuguese,
    /// Spanish.
    Spanish,
}

impl Phonetic {
    #[cfg(feature = "yaml")]
    pub(crate) const ALL: [Self; 4] =
        [Self::English, Self::French, Self::Portuguese, Self::Spanish];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::English => "dm:en",
            Self::French => "dm:fr",
            Self::Portuguese => "dm:pt",
            Self::Spanish => "dm:es",
        }
    }
}

/// How neighbors are found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Every vector is compared.
    Flat,
    /// A graph of neighbors is walked.
    Hnsw(Hnsw),
    /// A graph of neighbors over compressed vectors is walked; Redis 8.2 or later.
    SvsVamana(SvsVamana),
}

impl Algorithm {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Hnsw(_) => "HNSW",
            Self::SvsVamana(_) => "SVS-VAMANA",
        }
    }
}

/// The parameters of an HNSW graph.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Hnsw {
    pub(super) m: usize,
    pub(super) ef_construction: usize,
    pub(super) ef_runtime: usize,
    pub(super) epsilon: Option<f64>,
}

impl Hnsw {
    /// Makes the default graph: 16 edges, 200 candidates in construction, 10 at run time.
    pub const fn new() -> Self {
        Self { m: 16, ef_construction: 200, ef_runtime: 10, epsilon: None }
    }

    /// Sets the number of edges per vector (2 to 512, default 16).
    pub const fn with_m(mut self, m: usize) -> Self {
        self.m = m;
        self
    }

    /// Sets the number of candidates while a vector is put in (1 to 4096, default 200).
    pub const fn with_ef_construction(mut self, ef_construction: usize) -> Self {
        self.ef_construction = ef_construction;
        self
    }

    /// Sets the number of candidates of searches that do not say it (1 to 4096, default 10).
    ///
    /// A [`Knn`](crate::Knn) always says it.
    pub const fn with_ef_runtime(mut self, ef_runtime: usize) -> Self {
        self.ef_runtime = ef_runtime;
        self
    }

    /// Sets how far beyond the radius the server's own range searches look; ours do not use them on graphs.
    pub const fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = Some(epsilon);
        self
    }

    /// Returns the number of edges per vector.
    #[must_use]
    pub const fn m(&self) -> usize {
        self.m
    }

    /// Returns the number of candidates while a vector is put in.
    #[must_use]
    pub const fn ef_construction(&self) -> usize {
        self.ef_construction
    }

    /// Returns the number of candidates of searches that do not say it.
    #[must_use]
    pub const fn ef_runtime(&self) -> usize {
        self.ef_runtime
    }

    /// Returns how far beyond the radius the server's own range searches look, if it is set.
    #[must_use]
    pub const fn epsilon(&self) -> Option<f64> {
        self.epsilon
    }
}

impl Default for Hnsw {
    fn default() -> Self {
        Self::new()
    }
}

/// The parameters of an SVS-VAMANA graph.
///
/// No server that we test on has it: the command is rendered and checked against a golden text only.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct SvsVamana {
    pub(super) compression: Option<Compression>,
    pub(super) graph_max_degree: usize,
    pub(super) construction_window_size: usize,
    pub(super) search_window_size: usize,
}

impl SvsVamana {
    /// Makes the default graph without compression: 32 edges, windows of 200 and 10.
    pub const fn new() -> Self {
        Self {
            compression: None,
            graph_max_degree: 32,
            construction_window_size: 200,
            search_window_size: 10,
        }
    }

    /// Sets how vectors are compressed.
    pub const fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets the number of edges per vector (1 to 4096).
    pub const fn with_graph_max_degree(mut self, edges: usize) -> Self {
        self.graph_max_degree = edges;
        self
    }

    /// Sets the number of candidates while a vector is put in (1 to 4096).
    pub const fn with_construction_window_size(mut self, candidates: usize) -> Self {
        self.construction_window_size = candidates;
        self
    }

    /// Sets the number of candidates of a search (1 to 4096).
    pub const fn with_search_window_size(mut self, candidates: usize) -> Self {
        self.search_window_size = candidates;
        self
    }

    /// Returns how vectors are compressed, if they are.
    #[must_use]
    pub const fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Returns the number of edges per vector.
    #[must_use]
    pub const fn graph_max_degree(&self) -> usize {
        self.graph_max_degree
    }

    /// Returns the number of candidates while a vector is put in.
    #[must_use]
    pub const fn construction_window_size(&self) -> usize {
        self.construction_window_size
    }

    /// Returns the number of candidates of a search.
    #[must_use]
    pub const fn search_window_size(&self) -> usize {
        self.search_window_size
    }
}

impl Default for SvsVamana {
    fn default() -> Self {
        Self::new()
    }
}

/// How SVS-VAMANA compresses vectors; without Intel's library the server uses 8-bit scalars for all of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Compression {
    /// 8 bits a component.
    Lvq8,
    /// 4 bits a component.
    Lvq4,
    /// 4 bits, and 4 for what is left over.
    Lvq4x4,
    /// 4 bits, and 8 for what is left over.
    Lvq4x8,
    /// Fewer dimensions in 4 bits, and 8 for the vector itself.
    LeanVec4x8,
    /// Fewer dimensions in 8 bits, and 8 for the vector itself.
    LeanVec8x8,
}

impl Compression {
    #[cfg(feature = "yaml")]
    pub(crate) const ALL: [Self; 6] =
        [Self::Lvq8, Self::Lvq4, Self::Lvq4x4, Self::Lvq4x8, Self::LeanVec4x8, Self::LeanVec8x8];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lvq8 => "LVQ8",
            Self::Lvq4 => "LVQ4",
            Self::Lvq4x4 => "LVQ4x4",
            Self::Lvq4x8 => "LVQ4x8",
            Self::LeanVec4x8 => "LeanVec4x8",
            Self::LeanVec8x8 => "LeanVec8x8",
        }
    }
}
