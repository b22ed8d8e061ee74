use bytes::Bytes;
use inferkit_core::{ErrorKind, FromReply, Reply};

use crate::{DISTANCE_FIELD, Distance, Fields};

/// What a [`Knn`](crate::Knn) query found.
///
/// It is read from the replies of RESP2 and RESP3 alike, by their shape.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SearchResult {
    /// The hits, the nearest first.
    pub hits: Vec<Hit>,
    /// Whether the server stopped before it had looked everywhere, so that nearer documents may exist.
    ///
    /// Most often its time was over.
    /// RESP3 replies say so.
    /// RESP2 replies do not: then [`RedisVectorIndex`](crate::RedisVectorIndex) takes an answer that
    /// is short of hits and came after the time limit as partial.
    pub partial: bool,
    /// The number of documents that were found, but had expired before they could be read.
    ///
    /// They take places among the `k`, so nearer documents may have been pushed out.
    pub skipped: usize,
    /// The number of documents whose distance was not a number: a vector of zeros or NaN was stored by other means.
    pub unusable: usize,
    /// Whether the reply would have told of a [partial](Self::partial) answer.
    pub(crate) warns: bool,
}

impl SearchResult {
    /// Makes a complete result of hits, and sorts them by distance.
    #[must_use]
    pub fn new(mut hits: Vec<Hit>) -> Self {
        // The sort is stable: among equals the server's order stays.
        hits.sort_by_key(|hit| hit.distance);
        Self { hits, ..Self::default() }
    }

    /// Returns the nearest hit.
    #[must_use]
    pub fn nearest(&self) -> Option<&Hit> {
        self.hits.first()
    }
}

/// A document that a search by vector found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The key of the hash.
    pub key: Bytes,
    /// The distance to the query's vector.
    pub distance: Distance,
    /// The fields that the query asked for and that the hash has, with their values.
    pub fields: Fields,
}

impl Hit {
    /// Makes a hit.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, distance: Distance, fields: Fields) -> Self {
        Self { key: key.into(), distance, fields }
    }

    /// Returns the value of a field, if the hit carries it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.get(name)
    }

    /// Takes the value of a field out, if the hit carries it.
    #[must_use]
    pub fn take_field(&mut self, name: &str) -> Option<Bytes> {
        self.fields.take(name)
    }
}

/// One page of what a [`Find`](crate::Find) found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The documents, in the order that was asked for.
    pub records: Vec<Record>,
    /// The number of all documents that match, on this page or not; expired ones may be counted.
    pub total: u64,
    /// Whether the server stopped before it had looked everywhere; see [`SearchResult::partial`].
    pub partial: bool,
    /// The number of documents of this page that had expired before they could be read.
    pub skipped: usize,
    pub(crate) warns: bool,
}

impl Page {
    /// Makes a complete page of records, of `total` in all.
    #[must_use]
    pub fn new(records: Vec<Record>, total: u64) -> Self {
        Self { records, total, ..Self::default() }
    }
}

/// A stored document.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The key of the hash.
    pub key: Bytes,
    /// The server's relevance score, if it was asked for; it compares only with scores of the same answer.
    pub score: Option<f64>,
    /// The fields that were asked for and that the hash has, with their values.
    pub fields: Fields,
}

impl Record {
    /// Makes a record.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, score: Option<f64>, fields: Fields) -> Self {
        Self { key: key.into(), score, fields }
    }

    /// Returns the value of a field, if the record carries it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.get(name)
    }
}

/// Reads the reply of a [`Knn::to_cmd`](crate::Knn::to_cmd) or [`Range::to_cmd`](crate::Range::to_cmd).
impl FromReply for SearchResult {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let rows = Rows::from_reply(reply)?;
        let mut result = Self { partial: rows.partial, warns: rows.warns, ..Self::default() };
        for row in rows.rows {
            match row.distance.map(Distance::new) {
                Some(Ok(distance)) => {
                    result.hits.push(Hit { key: row.key, distance, fields: row.fields });
                }
                Some(Err(_)) => result.unusable += 1,
                None => result.skipped += 1,
            }
        }
        result.hits.sort_by_key(|hit| hit.distance);
        Ok(result)
    }
}

/// Reads the reply of a [`Find::to_cmd`](crate::Find::to_cmd).
impl FromReply for Page {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let Rows { rows, total, partial, warns } = Rows::from_reply(reply)?;
        let count = rows.len();
        let records: Vec<Record> = rows
            .into_iter()
            .filter(|row| row.exists)
            .map(|row| Record { key: row.key, score: row.score, fields: row.fields })
            .collect();
        Ok(Self { total, partial, warns, skipped: count - records.len(), records })
    }
}

/// What every reply of FT.SEARCH holds, in RESP2 and RESP3.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    total: u64,
    partial: bool,
    warns: bool,
}

struct Row {
    key: Bytes,
    score: Option<f64>,
    /// Whether the server could still read it.
    exists: bool,
    /// NaN if there is one that is no number.
    distance: Option<f64>,
    fields: Fields,
}

impl Row {
    fn new(key: Bytes, score: Option<f64>, fields: Reply) -> inferkit_core::Result<Self> {
        let mut row = Self { key, score, exists: true, distance: None, fields: Fields::default() };
        if fields.is_nil() {
            row.exists = false;
            return Ok(row);
        }
        let mut values: Vec<(Bytes, Bytes)> = Vec::new();
        for (name, value) in fields.into_pairs()? {
            let name = Bytes::from_reply(name)?;
            if name == DISTANCE_FIELD.as_bytes() {
                row.distance = value.as_f64();
            } else if !value.is_nil() {
                values.push((name, Bytes::from_reply(value)?));
            }
        }
        row.fields = values.into_iter().collect();
        Ok(row)
    }
}

impl FromReply for Rows {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        match reply {
            Reply::Array(items) => Self::from_array(items),
            Reply::Map(pairs) => Self::from_map(pairs),
            other => Err(other.unexpected("the reply of FT.SEARCH")),
        }
    }
}

impl Rows {
    /// Reads `[total, key, fields, key, fields, ...]`, where a score may stand before the fields.
    fn from_array(items: Vec<Reply>) -> inferkit_core::Result<Self> {
        let mut items = items.into_iter();
        let total = match items.next() {
            Some(Reply::Int(total)) => u64::try_from(total).unwrap_or(0),
            Some(other) => return Err(other.unexpected("the number of results")),
            None => return Err(Reply::Array(Vec::new()).unexpected("the number of results")),
        };
        let mut rows = Vec::new();
        while let Some(key) = items.next() {
            let mut fields = items.next();
            let mut score = None;
            if let Some(Reply::Bulk(_) | Reply::Double(_)) = &fields {
                score = fields.as_ref().and_then(Reply::as_f64);
                fields = items.next();
            }
            let Some(fields) = fields else {
                return Err(inferkit_core::Error::new(
                    ErrorKind::Reply,
                    "expected keys and fields, got a key without fields",
                ));
            };
            rows.push(Row::new(Bytes::from_reply(key)?, score, fields)?);
        }
        Ok(Self { rows, total, partial: false, warns: false })
    }

    /// Reads the map of RESP3, whose `results` are maps with an `id` and `extra_attributes`.
    fn from_map(pairs: Vec<(Reply, Reply)>) -> inferkit_core::Result<Self> {
        let mut read = Self { warns: true, ..Self::default() };
        let (mut warnings, mut has_results) = (None, false);
        for (name, value) in pairs {
            match name.as_bytes() {
                Some(b"results") => {
                    has_results = true;
                    for row in value.into_array()? {
                        read.rows.push(row_of_map(row)?);
                    }
                }
                Some(b"total_results") => {
                    read.total =
                        value.as_i64().map_or(0, |total| u64::try_from(total).unwrap_or(0));
                }
                Some(b"warning" | b"warnings") => warnings = Some(value),
                _ => {}
            }
        }
        if !has_results {
            return Err(Reply::Map(Vec::new()).unexpected("a map with results"));
        }
        // Every warning is about something that was left out: time, memory, or terms of an expansion.
        read.partial = match warnings {
            None | Some(Reply::Nil) => false,
            Some(Reply::Array(warnings)) => !warnings.is_empty(),
            Some(warning) => warning.as_bytes().is_some_and(|text| !text.is_empty()),
        };
        Ok(read)
    }
}

fn row_of_map(row: Reply) -> inferkit_core::Result<Row> {
    let (mut key, mut score, mut fields) = (None, None, Reply::Nil);
    for (name, value) in row.into_pairs()? {
        match name.as_bytes() {
            Some(b"id") => key = Some(Bytes::from_reply(value)?),
            Some(b"score") => score = value.as_f64(),
            Some(b"extra_attributes") => fields = value,
            _ => {}
        }
    }
    let key = key.ok_or_else(|| Reply::Map(Vec::new()).unexpected("a result with an id"))?;
    Row::new(key, score, fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn status(text: &str) -> Reply {
        Reply::Status(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn array(fields: &[&str]) -> Reply {
        Reply::Array(fields.iter().map(|text| bulk(text)).collect())
    }

    fn map(fields: &[&str]) -> Reply {
        Reply::Map(fields.chunks(2).map(|pair| (bulk(pair[0]), bulk(pair[1]))).collect())
    }

    fn resp2(rows: Vec<(&str, Reply)>) -> Reply {
        let mut items = vec![Reply::Int(99)];
        for (key, fields) in rows {
            items.extend([bulk(key), fields]);
        }
        Reply::Array(items)
    }

    fn resp3(rows: Vec<(&str, Reply)>, warnings: Vec<Reply>) -> Reply {
        let rows = rows.into_iter().map(|(key, fields)| {
            Reply::Map(vec![
                (status("id"), bulk(key)),
                (status("extra_attributes"), fields),
                (status("values"), Reply::Array(Vec::new())),
            ])
        });
        Reply::Map(vec![
            (status("attributes"), Reply::Array(Vec::new())),
            (status("total_results"), Reply::Int(99)),
            (status("format"), status("STRING")),
            (status("results"), Reply::Array(rows.collect())),
            (status("warning"), Reply::Array(warnings)),
        ])
    }

    fn keys(result: &SearchResult) -> Vec<&[u8]> {
        result.hits.iter().map(|hit| &hit.key[..]).collect()
    }

    #[test]
    fn both_protocols_read_alike_and_are_sorted() {
        let far = ["__distance", "0.5", "title", "far"];
        let near = ["title", "near", "__distance", "-1.19e-07"];
        let replies = [
            resp2(vec![("d:far", array(&far)), ("d:near", array(&near))]),
            resp3(vec![("d:far", map(&far)), ("d:near", map(&near))], Vec::new()),
        ];
        for reply in replies {
            let mut result = SearchResult::from_reply(reply).unwrap();
            assert_eq!(keys(&result), [b"d:near", &b"d:far"[..]]);
            let hit = result.hits.first_mut().unwrap();
            assert_eq!(hit.field("title").unwrap(), "near");
            assert_eq!(hit.field(DISTANCE_FIELD), None);
            assert_eq!(hit.take_field("title").unwrap(), "near");
            assert_eq!(hit.take_field("title"), None);
            assert_eq!((result.partial, result.skipped, result.unusable), (false, 0, 0));
        }
    }

    #[test]
    fn expired_and_poisoned_rows_are_counted_and_left_out() {
        let rows = |fields: fn(&[&str]) -> Reply| {
            vec![
                ("d:expired", Reply::Nil),
                ("d:bare", fields(&[])),
                ("d:nan", fields(&["__distance", "nan"])),
                ("d:good", fields(&["__distance", "0.1"])),
                ("d:-nan", fields(&["__distance", "-nan"])),
                ("d:inf", fields(&["__distance", "inf"])),
            ]
        };
        for reply in [resp2(rows(array)), resp3(rows(map), Vec::new())] {
            let result = SearchResult::from_reply(reply).unwrap();
            assert_eq!(keys(&result), [b"d:good"]);
            assert_eq!((result.skipped, result.unusable), (2, 3));
        }
        let row = Reply::Map(vec![(status("id"), bulk("d:expired"))]);
        let reply = Reply::Map(vec![(status("results"), Reply::Array(vec![row]))]);
        assert_eq!(SearchResult::from_reply(reply).unwrap().skipped, 1);
    }

    #[test]
    fn a_warning_makes_a_result_partial() {
        let warning = vec![status("Timeout limit was reached")];
        assert!(SearchResult::from_reply(resp3(Vec::new(), warning)).unwrap().partial);
        let result = SearchResult::from_reply(resp2(Vec::new())).unwrap();
        assert!(!result.partial && !result.warns && result.hits.is_empty());
    }

    #[test]
    fn values_are_handed_over_and_not_copied() {
        let value = Bytes::from(vec![7_u8; 4096]);
        let fields = Reply::Array(vec![
            bulk("__distance"),
            bulk("0"),
            bulk("v"),
            Reply::Bulk(value.clone()),
        ]);
        let result = SearchResult::from_reply(resp2(vec![("d:1", fields)])).unwrap();
        assert_eq!(result.hits[0].field("v").unwrap().as_ptr(), value.as_ptr());
    }

    #[test]
    fn debug_prints_names_and_sizes_and_no_values() {
        let fields = array(&["__distance", "0.5", "title", "s3cret"]);
        let result = SearchResult::from_reply(resp2(vec![("d:1", fields)])).unwrap();
        for printed in [format!("{result:?}"), format!("{:#?}", result.hits[0].fields)] {
            assert!(!printed.contains("s3cret"), "{printed}");
            assert!(printed.contains(r#"b"title": 6"#), "{printed}");
        }
    }

    #[test]
    fn other_shapes_are_errors_that_show_no_value() {
        for reply in [
            Reply::Nil,
            Reply::Array(Vec::new()),
            Reply::Array(vec![bulk("secret")]),
            Reply::Array(vec![Reply::Int(1), bulk("secret")]),
            Reply::Array(vec![Reply::Int(1), bulk("secret"), Reply::Int(2)]),
            Reply::Map(Vec::new()),
            resp3(vec![("secret", Reply::Int(1))], Vec::new()),
        ] {
            let error = SearchResult::from_reply(reply).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reply);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let error =
            SearchResult::from_reply(Reply::Error("docs: no such index".into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server);
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let word = prop_oneof![
            Just("results"),
            Just("id"),
            Just("extra_attributes"),
            Just("warning"),
            Just(DISTANCE_FIELD),
            Just("nan"),
            Just("0.5"),
            Just("attributes"),
            Just("type"),
            Just("index_definition"),
            Just("prefixes"),
            Just("Index Errors"),
            Just("percent_indexed"),
        ];
        let leaf = prop_oneof![
            Just(Reply::Nil),
            any::<i64>().prop_map(Reply::Int),
            any::<f64>().prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Bool),
            word.clone().prop_map(bulk),
            word.prop_map(status),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| Reply::Bulk(bytes.into())),
            Just(Reply::Error("ERR no".into())),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Reply::Array),
                prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_shape_panics(reply in any_reply()) {
            let _ = crate::IndexInfo::from_reply(reply.clone());
            let _ = Page::from_reply(reply.clone());
            if let Ok(result) = SearchResult::from_reply(reply) {
                prop_assert!(result.hits.is_sorted_by_key(|hit| hit.distance));
            }
        }

        #[test]
        fn no_result_with_rows_of_any_shape_panics(
            fields in prop::collection::vec(any_reply(), 0..4),
            warnings in prop::collection::vec(any_reply(), 0..2),
        ) {
            let _ = SearchResult::from_reply(resp2(fields.iter().cloned().map(|f| ("k", f)).collect()));
            let _ = SearchResult::from_reply(resp3(fields.into_iter().map(|f| ("k", f)).collect(), warnings));
        }
    }
}
