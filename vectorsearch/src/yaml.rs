use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, Compression, DataType, Error, Field, FieldKind, Hnsw, Metric, Phonetic, Result,
    Schema, SvsVamana,
};

/// The version of the format, the only one there is.
const VERSION: &str = "0.1.0";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    index: Index,
    fields: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Index {
    name: String,
    #[serde(default = "default_prefix")]
    prefix: Prefix,
    #[serde(default = "default_separator")]
    key_separator: String,
    #[serde(default = "default_storage")]
    storage_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopwords: Option<Vec<String>>,
}

/// One prefix, or a list of them.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Prefix {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "a path has no meaning for hashes")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attrs: Option<Attributes>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    separator: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    case_sensitive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withsuffixtrie: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_empty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_missing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sortable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unf: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_index: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_stem: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phonetic_matcher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dims: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_metric: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datatype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_cap: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_construction: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_runtime: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graph_max_degree: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    construction_window_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    search_window_size: Option<usize>,
}

fn default_prefix() -> Prefix {
    Prefix::One("rvl".to_owned())
}

fn default_separator() -> String {
    ":".to_owned()
}

fn default_storage() -> String {
    "hash".to_owned()
}

impl Schema {
    /// Reads a schema in RedisVL's YAML format, version 0.1.0.
    ///
    /// Its defaults hold: the prefix `rvl`, tags separated by `,` and without regard to case.
    /// Only hashes with one prefix can be read; what this crate has no word for (JSON documents, `geo` fields,
    /// `no_index`, lists of stop words) is an error and nothing is left out in silence.
    ///
    /// # Errors
    ///
    /// [`Error::Yaml`] with the place for what is no such schema; else those of
    /// [`SchemaBuilder::build`](crate::SchemaBuilder::build).
    ///
    /// # Examples
    ///
    /// A file beside the code is read at compile time, and checked by a test:
    ///
    /// ```
    /// use inferkit_vectorsearch::Schema;
    ///
    /// // const PRODUCTS: &str = include_str!("products.yaml");
    /// const PRODUCTS: &str = "
    /// version: '0.1.0'
    /// index: {name: products, prefix: product}
    /// fields:
    ///   - {name: color, type: tag}
    ///   - {name: embedding, type: vector, attrs: {algorithm: hnsw, dims: 384, distance_metric: cosine}}
    /// ";
    ///
    /// // In a test:
    /// let schema = Schema::from_yaml(PRODUCTS)?;
    /// assert_eq!(schema.prefix(), "product:");
    /// # Ok::<(), inferkit_vectorsearch::Error>(())
    /// ```
    pub fn from_yaml(text: &str) -> Result<Self> {
        let file: File =
            serde_yaml_ng::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        if file.version != VERSION {
            return Err(wrong("version: only '0.1.0' is known"));
        }
        if !file.index.storage_type.eq_ignore_ascii_case("hash") {
            return Err(wrong(
                "index.storage_type: only `hash` is supported: store vectors in hashes",
            ));
        }
        let prefix = match file.index.prefix {
            Prefix::One(prefix) => prefix,
            Prefix::Several(mut prefixes) => match (prefixes.pop(), prefixes.is_empty()) {
                (Some(prefix), true) => prefix,
                _ => return Err(wrong("index.prefix: exactly one prefix is supported")),
            },
        };
        if file.index.key_separator != ":" {
            return Err(wrong("index.key_separator: only `:` is supported"));
        }
        let prefix = format!("{}:", prefix.trim_end_matches(':'));
        let mut fields = file.fields.into_iter();
        let Some(first) = fields.next() else {
            return Err(wrong("fields: a schema has at least one field"));
        };
        let mut builder = Self::builder(file.index.name, prefix, field(first)?);
        for entry in fields {
            builder = builder.field(field(entry)?);
        }
        match file.index.stopwords {
            None => {}
            Some(words) if words.is_empty() => builder = builder.without_stop_words(),
            Some(_) => {
                return Err(wrong(
                    "index.stopwords: only [] (none) or nothing (the server's) is supported",
                ));
            }
        }
        builder.build()
    }

    /// Writes the schema in RedisVL's YAML format, version 0.1.0, which [`from_yaml`](Self::from_yaml) reads back.
    ///
    /// # Errors
    ///
    /// [`Error::Yaml`] if it cannot be written.
    pub fn to_yaml(&self) -> Result<String> {
        let file = File {
            version: VERSION.to_owned(),
            index: Index {
                name: self.index().to_owned(),
                prefix: Prefix::One(self.prefix().trim_end_matches(':').to_owned()),
                key_separator: default_separator(),
                storage_type: default_storage(),
                stopwords: (!self.has_stop_words()).then(Vec::new),
            },
            fields: self.fields().iter().map(entry).collect(),
        };
        serde_yaml_ng::to_string(&file).map_err(|error| wrong(&error.to_string()))
    }
}

fn wrong(problem: &str) -> Error {
    Error::Yaml { problem: problem.to_owned() }
}

fn field(entry: Entry) -> Result<Field> {
    let name = entry.name;
    let wrong = |problem: &str| Error::Yaml { problem: format!("field `{name}`: {problem}") };
    let attrs = entry.attrs.unwrap_or_default();
    if attrs.no_index == Some(true) {
        return Err(wrong("no_index: leave a field that is only stored out of the schema"));
    }
    if attrs.sortable == Some(true) && attrs.unf == Some(false) && entry.kind == "text" {
        return Err(wrong(
            "unf: sorted values are kept as they are; leave it out or set it to true",
        ));
    }
    let kind = match entry.kind.to_ascii_lowercase().as_str() {
        "tag" => FieldKind::Tag,
        "text" => FieldKind::Text,
        "numeric" => FieldKind::Numeric,
        "vector" => vector(&attrs).map_err(|problem| wrong(&problem))?,
        _ => return Err(wrong("type: tag, text, numeric and vector are supported")),
    };
    let is_tag = kind == FieldKind::Tag;
    if !matches!(kind, FieldKind::Vector { .. }) && attrs.has_vector_attributes() {
        return Err(wrong("it has attributes of a vector, and is none"));
    }
    let mut field = Field::new(name.clone().into(), kind);
    let set = |attribute: Option<bool>| attribute == Some(true);
    for (wanted, option) in [
        (set(attrs.sortable), Field::sortable as fn(Field) -> Field),
        (set(attrs.index_missing), Field::index_missing),
        (set(attrs.index_empty), Field::index_empty),
        (set(attrs.withsuffixtrie), Field::suffix_trie),
        (set(attrs.no_stem), Field::no_stem),
        (is_tag && !set(attrs.case_sensitive), Field::case_insensitive),
    ] {
        if wanted {
            field = option(field);
        }
    }
    if attrs.case_sensitive.is_some() && !is_tag {
        return Err(wrong("case_sensitive: only tags have it"));
    }
    if let Some(separator) = attrs.separator.or_else(|| is_tag.then_some(',')) {
        field = field.separated_by(separator);
    }
    if let Some(weight) = attrs.weight {
        field = field.weight(weight);
    }
    if let Some(matcher) = attrs.phonetic_matcher {
        let language = Phonetic::ALL.into_iter().find(|language| language.as_str() == matcher);
        let Some(language) = language else {
            return Err(wrong("phonetic_matcher: dm:en, dm:fr, dm:pt and dm:es are known"));
        };
        field = field.phonetic(language);
    }
    Ok(field)
}

impl Attributes {
    fn has_vector_attributes(&self) -> bool {
        self.algorithm.is_some()
            || self.dims.is_some()
            || self.distance_metric.is_some()
            || self.datatype.is_some()
            || self.initial_cap.is_some()
            || self.has_hnsw_attributes()
            || self.has_svs_attributes()
    }

    fn has_hnsw_attributes(&self) -> bool {
        self.m.is_some()
            || self.ef_construction.is_some()
            || self.ef_runtime.is_some()
            || self.epsilon.is_some()
    }

    fn has_svs_attributes(&self) -> bool {
        self.compression.is_some()
            || self.graph_max_degree.is_some()
            || self.construction_window_size.is_some()
            || self.search_window_size.is_some()
    }
}

fn vector(attrs: &Attributes) -> Result<FieldKind, String> {
    let named = |value: &Option<String>, default: &str| {
        value.as_deref().unwrap_or(default).to_ascii_lowercase()
    };
    let Some(dimensions) = attrs.dims else { return Err("dims: a vector needs them".to_owned()) };
    let metric = match named(&attrs.distance_metric, "cosine").as_str() {
        "cosine" => Metric::Cosine,
        "ip" => Metric::InnerProduct,
        "l2" => Metric::L2,
        _ => return Err("distance_metric: cosine, ip and l2 are known".to_owned()),
    };
    let datatype = named(&attrs.datatype, "float32");
    let known = |data_type: &DataType| data_type.as_str().eq_ignore_ascii_case(&datatype);
    let Some(data_type) = DataType::ALL.into_iter().find(known) else {
        return Err(
            "datatype: float16, bfloat16, float32, float64, int8 and uint8 are known".to_owned()
        );
    };
    let algorithm = match named(&attrs.algorithm, "").as_str() {
        "flat" if attrs.has_hnsw_attributes() || attrs.has_svs_attributes() => {
            return Err("it has attributes of a graph, and is flat".to_owned());
        }
        "flat" => Algorithm::Flat,
        "hnsw" if attrs.has_svs_attributes() => {
            return Err("it has attributes of svs-vamana, and is hnsw".to_owned());
        }
        "hnsw" => {
            let hnsw = Hnsw::new()
                .with_m(attrs.m.unwrap_or(16))
                .with_ef_construction(attrs.ef_construction.unwrap_or(200))
                .with_ef_runtime(attrs.ef_runtime.unwrap_or(10));
            Algorithm::Hnsw(match attrs.epsilon {
                Some(epsilon) => hnsw.with_epsilon(epsilon),
                None => hnsw,
            })
        }
        "svs-vamana" if attrs.has_hnsw_attributes() => {
            return Err("it has attributes of hnsw, and is svs-vamana".to_owned());
        }
        "svs-vamana" => {
            let mut svs = SvsVamana::new()
                .with_graph_max_degree(attrs.graph_max_degree.unwrap_or(40))
                .with_construction_window_size(attrs.construction_window_size.unwrap_or(250))
                .with_search_window_size(attrs.search_window_size.unwrap_or(20));
            if let Some(name) = &attrs.compression {
                let known = |it: &Compression| it.as_str().eq_ignore_ascii_case(name);
                let Some(compression) = Compression::ALL.into_iter().find(known) else {
                    return Err("compression: LVQ and LeanVec types are known".to_owned());
                };
                svs = svs.with_compression(compression);
            }
            Algorithm::SvsVamana(svs)
        }
        _ => return Err("algorithm: flat, hnsw and svs-vamana are known".to_owned()),
    };
    Ok(FieldKind::Vector {
        dimensions,
        metric,
        algorithm,
        data_type,
        initial_cap: attrs.initial_cap,
    })
}

fn entry(field: &Field) -> Entry {
    let set = |option: bool| option.then_some(true);
    let mut attrs = Attributes {
        withsuffixtrie: set(field.has_suffix_trie()),
        index_empty: set(field.is_index_empty()),
        index_missing: set(field.is_index_missing()),
        sortable: set(field.is_sortable()),
        no_stem: set(field.is_no_stem()),
        phonetic_matcher: field.phonetic_matcher().map(|language| language.as_str().to_owned()),
        ..Attributes::default()
    };
    let kind = match field.kind() {
        FieldKind::Numeric => "numeric",
        FieldKind::Tag => {
            attrs.separator = Some(field.separator());
            attrs.case_sensitive = Some(field.is_case_sensitive());
            "tag"
        }
        FieldKind::Text => {
            attrs.weight = Some(field.text_weight());
            "text"
        }
        FieldKind::Vector { dimensions, metric, algorithm, data_type, initial_cap } => {
            attrs.algorithm = Some(algorithm.as_str().to_ascii_lowercase());
            attrs.dims = Some(*dimensions);
            attrs.distance_metric = Some(metric.as_str().to_ascii_lowercase());
            attrs.datatype = Some(data_type.as_str().to_ascii_lowercase());
            attrs.initial_cap = *initial_cap;
            match algorithm {
                Algorithm::Flat => {}
                Algorithm::Hnsw(hnsw) => {
                    attrs.m = Some(hnsw.m());
                    attrs.ef_construction = Some(hnsw.ef_construction());
                    attrs.ef_runtime = Some(hnsw.ef_runtime());
                    attrs.epsilon = hnsw.epsilon();
                }
                Algorithm::SvsVamana(svs) => {
                    attrs.compression = svs.compression().map(|it| it.as_str().to_owned());
                    attrs.graph_max_degree = Some(svs.graph_max_degree());
                    attrs.construction_window_size = Some(svs.construction_window_size());
                    attrs.search_window_size = Some(svs.search_window_size());
                }
            }
            "vector"
        }
    };
    Entry { name: field.name().to_owned(), kind: kind.to_owned(), path: None, attrs: Some(attrs) }
}
