use inferkit_core::{FromReply, Reply};

use crate::{Field, FieldKind, Schema};

/// What the server tells about an index with `FT.INFO`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The index's own name, also when it was asked for by an alias.
    pub name: String,
    /// The number of documents in the index.
    pub documents: u64,
    /// Whether the server is still taking in documents that were there before the index.
    pub indexing: bool,
    /// How much of them it has taken in, in percent.
    pub percent_indexed: f64,
    /// How many writes left a document out of the index, because of a vector of another length or a bad number.
    ///
    /// The server answers such writes like any other; this count is the only trace.
    /// A document counts twice if it is written while the server still takes in those from before.
    pub failures: u64,
    /// The last reason for such a failure, in the server's words.
    pub last_failure: Option<String>,
    /// The memory of the index itself in bytes, without the documents; 0 where the server does not tell.
    pub memory: u64,
    definition: Definition,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Definition {
    key_type: Option<String>,
    prefixes: Vec<String>,
    filtered: bool,
    /// Whether the server tells of options that are not there by leaving them out.
    tells_options: bool,
    fields: Vec<Attribute>,
}

/// A field as the server describes it; what an engine or version does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Attribute {
    identifier: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    separator: Option<String>,
    case_sensitive: bool,
    sortable: bool,
    no_stem: bool,
    suffix_trie: bool,
    index_empty: bool,
    index_missing: bool,
    algorithm: Option<String>,
    data_type: Option<String>,
    dimensions: Option<i64>,
    metric: Option<String>,
}

impl IndexInfo {
    /// Tells whether searches see every document.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.indexing && 100.0 <= self.percent_indexed
    }

    /// Says how this index differs from `schema`, or nothing if it fits.
    ///
    /// Compared are the name, the prefix, and of the fields the names, types, and what decides which documents match:
    /// dimensions, metric, algorithm and data type of vectors, separator and case of tags, stemming, suffix tries, and
    /// whether fields are sorted and empty or missing values are indexed.
    /// Parameters of HNSW, which only trade speed for recall, and weights of text may differ.
    #[must_use]
    pub fn difference(&self, schema: &Schema) -> Option<String> {
        let mut differences = Vec::new();
        if self.name != schema.index() {
            differences.push(format!("the name is an alias of index `{}`", self.name));
        }
        let definition = &self.definition;
        if let Some(kind) = definition.key_type.as_deref().filter(|kind| *kind != "HASH") {
            differences.push(format!("it indexes {kind} instead of HASH"));
        }
        if definition.prefixes != [schema.prefix()] {
            let (has, wants) = (definition.prefixes.join(", "), schema.prefix());
            differences.push(format!("its key prefix is `{has}` instead of `{wants}`"));
        }
        if definition.filtered {
            differences.push("it has a FILTER".to_owned());
        }
        for field in schema.fields() {
            let found =
                definition.fields.iter().find(|found| found.name.as_deref() == Some(field.name()));
            match found {
                Some(found) => found.compare(field, definition.tells_options, &mut differences),
                None => differences.push(format!("field `{}` is missing", field.name())),
            }
        }
        for found in &definition.fields {
            if let Some(name) = found.name.as_deref().filter(|name| schema.field(name).is_none()) {
                differences.push(format!("it has another field `{name}`"));
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

impl Attribute {
    fn compare(&self, wanted: &Field, tells_options: bool, differences: &mut Vec<String>) {
        let field = wanted.name();
        let mut differ = |what: &str, has: Option<&str>, wants: &str| {
            if let Some(has) = has.filter(|has| !has.eq_ignore_ascii_case(wants)) {
                differences.push(format!("{what} of field `{field}` is {has} instead of {wants}"));
            }
        };
        differ("the source", self.identifier.as_deref(), field);
        let wants = match wanted.kind() {
            FieldKind::Numeric => "NUMERIC",
            FieldKind::Tag => "TAG",
            FieldKind::Text => "TEXT",
            FieldKind::Vector { .. } => "VECTOR",
        };
        differ("the type", self.kind.as_deref(), wants);
        if self.kind.as_deref().is_some_and(|has| !has.eq_ignore_ascii_case(wants)) {
            return;
        }
        match wanted.kind() {
            FieldKind::Numeric | FieldKind::Text => {}
            FieldKind::Tag => {
                // An engine that tells the separator also tells about the case.
                if let Some(separator) = &self.separator {
                    let escaped = separator.escape_default().to_string();
                    let wants = wanted.separator().escape_default().to_string();
                    differ("the separator", Some(&escaped), &wants);
                    let case = |sensitive| if sensitive { "respected" } else { "ignored" };
                    let has = case(self.case_sensitive);
                    differ("the case", Some(has), case(wanted.is_case_sensitive()));
                }
            }
            FieldKind::Vector { dimensions, metric, algorithm, data_type, .. } => {
                let has = self.dimensions.map(|dimensions| dimensions.to_string());
                differ("the dimension", has.as_deref(), &dimensions.to_string());
                differ("the metric", self.metric.as_deref(), metric.as_str());
                differ("the algorithm", self.algorithm.as_deref(), algorithm.as_str());
                differ("the data type", self.data_type.as_deref(), data_type.as_str());
            }
        }
        if tells_options {
            for (option, has, wants) in [
                ("SORTABLE", self.sortable, wanted.is_sortable()),
                ("NOSTEM", self.no_stem, wanted.is_no_stem()),
                ("WITHSUFFIXTRIE", self.suffix_trie, wanted.has_suffix_trie()),
                ("INDEXEMPTY", self.index_empty, wanted.is_index_empty()),
                ("INDEXMISSING", self.index_missing, wanted.is_index_missing()),
            ] {
                let said = |set| if set { "set" } else { "not set" };
                differ(&format!("the option {option}"), Some(said(has)), said(wants));
            }
        }
    }

    /// Reads names followed by values, with flags in between that have no value.
    fn read(&mut self, items: Vec<Reply>) {
        let mut items = items.into_iter().peekable();
        while let Some(item) = items.next() {
            let Some(name) = item.as_str().map(str::to_ascii_lowercase) else { continue };
            if name == "casesensitive" {
                // A flag, or with valkey-search a name with 0 or 1.
                self.case_sensitive = match items.peek().and_then(Reply::as_i64) {
                    Some(value) => value != 0,
                    None => true,
                };
                continue;
            }
            let flag = match name.as_str() {
                "sortable" => Some(&mut self.sortable),
                "nostem" => Some(&mut self.no_stem),
                "withsuffixtrie" => Some(&mut self.suffix_trie),
                "indexempty" => Some(&mut self.index_empty),
                "indexmissing" => Some(&mut self.index_missing),
                _ => None,
            };
            if let Some(flag) = flag {
                *flag = true;
                continue;
            }
            let slot = match name.as_str() {
                "identifier" => &mut self.identifier,
                "attribute" => &mut self.name,
                "type" => &mut self.kind,
                "separator" => &mut self.separator,
                "data_type" => &mut self.data_type,
                "distance_metric" => &mut self.metric,
                "algorithm" | "name" => match items.next() {
                    // valkey-search nests the algorithm's name and parameters.
                    Some(Reply::Array(nested)) => {
                        self.read(nested);
                        continue;
                    }
                    value => {
                        self.algorithm = value.as_ref().and_then(text);
                        continue;
                    }
                },
                "dim" | "dimensions" => {
                    self.dimensions = items.next().and_then(|value| value.as_i64());
                    continue;
                }
                "index" | "flags" => {
                    if let Some(Ok(nested)) = items.next().map(Reply::into_array) {
                        self.read(nested);
                    }
                    continue;
                }
                _ => continue,
            };
            *slot = items.next().as_ref().and_then(text);
        }
    }
}

/// Reads the reply of `FT.INFO`, of RediSearch, valkey-search and MemoryDB.
impl FromReply for IndexInfo {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let mut info = Self { percent_indexed: 100.0, ..Self::default() };
        let mut total = 0;
        for (name, value) in reply.into_pairs()? {
            match name.as_str().unwrap_or_default() {
                "index_name" => info.name = text(&value).unwrap_or_default(),
                "index_definition" => read_definition(&mut info.definition, value),
                "attributes" | "fields" => {
                    for attribute in value.into_array()? {
                        let mut read = Attribute::default();
                        read.read(attribute.into_array()?);
                        info.definition.fields.push(read);
                    }
                }
                "num_docs" => info.documents = count(&value),
                "hash_indexing_failures" => info.failures = count(&value),
                "indexing" | "backfill_in_progress" => info.indexing |= value.as_f64() != Some(0.0),
                "backfill_status" => {
                    info.indexing |= text(&value)
                        .is_some_and(|status| status.eq_ignore_ascii_case("InProgress"));
                }
                name @ ("percent_indexed" | "backfill_complete_percent") => {
                    info.definition.tells_options = name == "percent_indexed";
                    if let Some(fraction) = value.as_f64().filter(|fraction| fraction.is_finite()) {
                        // Documents that are written meanwhile count, too.
                        info.percent_indexed = (fraction * 100.0).min(100.0);
                    }
                }
                // Later versions also tell the sum of all parts.
                "total_index_memory_sz_mb" => total = bytes(&value),
                name if name.ends_with("_sz_mb") || name.ends_with("_size_mb") => {
                    info.memory += bytes(&value);
                }
                "Index Errors" => {
                    let pairs = value.into_pairs().unwrap_or_default();
                    let last = pairs
                        .iter()
                        .find(|(name, _)| name.as_bytes() == Some(b"last indexing error"))
                        .and_then(|(_, value)| text(value));
                    info.last_failure = last.filter(|last| last != "N/A");
                }
                _ => {}
            }
        }
        if total != 0 {
            info.memory = total;
        }
        Ok(info)
    }
}

/// Reads a number of megabytes.
///
/// Once all documents are deleted, RediSearch may count its table of keys below zero and tell it as 2^64 bytes.
fn bytes(megabytes: &Reply) -> u64 {
    let plausible = megabytes.as_f64().filter(|megabytes| *megabytes < 1e12);
    let bytes = plausible.map_or(0.0, |megabytes| megabytes * 1_048_576.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is no count becomes the nearest one"
    )]
    let bytes = bytes as u64;
    bytes
}

fn read_definition(definition: &mut Definition, reply: Reply) {
    for (name, value) in reply.into_pairs().unwrap_or_default() {
        match name.as_str().unwrap_or_default() {
            "key_type" => definition.key_type = text(&value),
            "prefixes" => {
                let prefixes = value.into_array().unwrap_or_default();
                definition.prefixes = prefixes.iter().filter_map(text).collect();
            }
            "filter" => definition.filtered = text(&value).is_some_and(|filter| !filter.is_empty()),
            _ => {}
        }
    }
}

fn text(reply: &Reply) -> Option<String> {
    reply.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Reads a count, which some servers send as a float or as text.
fn count(reply: &Reply) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is no count becomes the nearest one"
    )]
    let number = || reply.as_f64().map_or(0, |number| number as u64);
    reply.as_i64().and_then(|number| u64::try_from(number).ok()).unwrap_or_else(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hnsw, Metric, VectorField};
    use bytes::Bytes;

    fn word(text: &str) -> Reply {
        Reply::Status(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn words(text: &str) -> Vec<Reply> {
        text.split(' ').map(word).collect()
    }

    fn list(text: &str) -> Reply {
        Reply::Array(words(text))
    }

    fn pairs(items: Vec<Reply>) -> Reply {
        Reply::Map(items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }

    fn schema() -> Schema {
        Schema::builder("docs", "docs:", VectorField::hnsw("v", 2, Hnsw::default()))
            .tag("tenant")
            .numeric("year")
            .build()
            .unwrap()
    }

    const VECTOR: &str = "identifier v attribute v type VECTOR algorithm HNSW data_type FLOAT32 dim 2 \
                          distance_metric COSINE M 16 ef_construction 200";
    const TAG: &str = "identifier tenant attribute tenant type TAG SEPARATOR \u{1f}";

    fn resp2() -> Reply {
        Reply::Array(vec![
            word("index_name"),
            word("docs"),
            word("index_definition"),
            Reply::Array(vec![word("key_type"), word("HASH"), word("prefixes"), list("docs:")]),
            word("attributes"),
            Reply::Array(vec![
                list(VECTOR),
                list(&format!("{TAG} CASESENSITIVE")),
                list("identifier year attribute year type NUMERIC"),
            ]),
            word("num_docs"),
            word("7"),
            word("hash_indexing_failures"),
            Reply::Int(2),
            word("indexing"),
            word("1"),
            word("percent_indexed"),
            word("0.25"),
            word("Index Errors"),
            Reply::Array(vec![word("last indexing error"), word("Invalid")]),
        ])
    }

    fn resp3() -> Reply {
        let mut tag = words(TAG);
        tag.extend([word("flags"), list("CASESENSITIVE")]);
        let year = words("identifier year attribute year type NUMERIC flags");
        Reply::Map(vec![
            (word("index_name"), word("docs")),
            (
                word("index_definition"),
                pairs(vec![word("key_type"), word("HASH"), word("prefixes"), list("docs:")]),
            ),
            (
                word("attributes"),
                Reply::Array(vec![
                    pairs(words(VECTOR)),
                    pairs(tag),
                    pairs([year, vec![Reply::Array(Vec::new())]].concat()),
                ]),
            ),
            (word("num_docs"), Reply::Double(7.0)),
            (word("hash_indexing_failures"), Reply::Int(2)),
            (word("indexing"), Reply::Int(1)),
            (word("percent_indexed"), Reply::Double(0.25)),
            (word("Index Errors"), pairs(vec![word("last indexing error"), word("Invalid")])),
        ])
    }

    #[test]
    fn both_protocols_read_alike() {
        let (flat, map) =
            (IndexInfo::from_reply(resp2()).unwrap(), IndexInfo::from_reply(resp3()).unwrap());
        assert_eq!(flat, map);
        assert_eq!(flat.difference(&schema()), None);
        assert_eq!((flat.documents, flat.failures, flat.indexing), (7, 2, true));
        assert!((flat.percent_indexed - 25.0).abs() < 1e-9 && !flat.is_complete());
        assert_eq!(flat.last_failure.as_deref(), Some("Invalid"));
    }

    #[test]
    fn the_vocabulary_of_valkey_search_is_understood() {
        let index = Reply::Array(vec![
            word("capacity"),
            Reply::Int(10_240),
            word("dimensions"),
            Reply::Int(2),
            word("distance_metric"),
            word("COSINE"),
            word("data_type"),
            word("FLOAT32"),
            word("algorithm"),
            list("name HNSW m 16 ef_construction 200 ef_runtime 10"),
        ]);
        let attribute = words("identifier v attribute v user_indexed_memory 0 type VECTOR index");
        let reply = |progress: &str, percent: &str| {
            Reply::Array(vec![
                word("index_name"),
                word("docs"),
                word("index_definition"),
                Reply::Array(vec![word("key_type"), word("HASH"), word("prefixes"), list("docs:")]),
                word("attributes"),
                Reply::Array(vec![
                    Reply::Array([attribute.clone(), vec![index.clone()]].concat()),
                    list("identifier tenant attribute tenant type TAG"),
                    list("identifier year attribute year type NUMERIC"),
                ]),
                word("backfill_in_progress"),
                word(progress),
                word("backfill_complete_percent"),
                word(percent),
            ])
        };
        let info = IndexInfo::from_reply(reply("1", "0.5")).unwrap();
        assert_eq!(info.difference(&schema()), None);
        assert!(!info.is_complete());
        assert!(IndexInfo::from_reply(reply("0", "1.000000")).unwrap().is_complete());
        let other = Schema::builder("docs", "docs:", VectorField::flat("v", 3))
            .tag("tenant")
            .numeric("year")
            .build()
            .unwrap();
        assert_eq!(
            info.difference(&other).unwrap(),
            "the dimension of field `v` is 2 instead of 3; the algorithm of field `v` is HNSW instead of FLAT"
        );
    }

    #[test]
    fn every_difference_is_named() {
        let info = IndexInfo::from_reply(resp2()).unwrap();
        let other =
            Schema::builder("other", "other:", VectorField::flat("v", 3).with_metric(Metric::L2))
                .tag("year")
                .text("body")
                .build()
                .unwrap();
        assert_eq!(
            info.difference(&other).unwrap(),
            "the name is an alias of index `docs`; its key prefix is `docs:` instead of `other:`; \
             the dimension of field `v` is 2 instead of 3; the metric of field `v` is COSINE instead of L2; \
             the algorithm of field `v` is HNSW instead of FLAT; the type of field `year` is NUMERIC instead of TAG; \
             field `body` is missing; it has another field `tenant`"
        );
        let mut reply = info;
        reply.definition.fields[1].case_sensitive = false;
        reply.definition.fields[1].separator = Some(",".to_owned());
        assert_eq!(
            reply.difference(&schema()).unwrap(),
            "the separator of field `tenant` is , instead of \\u{1f}; the case of field `tenant` is ignored instead of respected"
        );
    }
}
