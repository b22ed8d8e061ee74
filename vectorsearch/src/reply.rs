use std::fmt;

use bytes::Bytes;
use inferkit_core::{ErrorKind, FromReply, Reply};

use crate::{DISTANCE_FIELD, Distance};

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
    /// RESP2 replies do not: then [`RedisVectorIndex::search`](crate::RedisVectorIndex::search) takes an answer that
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

/// A document that a query found.
///
/// `Debug` prints the names of the fields and the sizes of their values, never the values.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The key of the hash.
    pub key: Bytes,
    /// The distance to the query's vector.
    pub distance: Distance,
    /// The fields that the query asked for and that the hash has, with their values.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Hit {
    /// Makes a hit.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, distance: Distance, fields: Vec<(Bytes, Bytes)>) -> Self {
        Self { key: key.into(), distance, fields }
    }

    /// Returns the value of a field, if the hit carries it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Takes the value of a field out, if the hit carries it.
    #[must_use]
    pub fn take_field(&mut self, name: &str) -> Option<Bytes> {
        let index = self.fields.iter().position(|(field, _)| field == name.as_bytes())?;
        Some(self.fields.swap_remove(index).1)
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Sizes<'a>(&'a [(Bytes, Bytes)]);
        impl fmt::Debug for Sizes<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map()
                    .entries(self.0.iter().map(|(name, value)| (name, value.len())))
                    .finish()
            }
        }
        f.debug_struct("Hit")
            .field("key", &self.key)
            .field("distance", &self.distance)
            .field("field_sizes", &Sizes(&self.fields))
            .finish()
    }
}

/// Reads the reply of a [`Knn::to_cmd`](crate::Knn::to_cmd).
impl FromReply for SearchResult {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        match reply {
            Reply::Array(items) => from_array(items),
            Reply::Map(pairs) => from_map(pairs),
            other => Err(other.unexpected("the reply of FT.SEARCH")),
        }
    }
}

/// Reads `[total, key, fields, key, fields, ...]`.
fn from_array(items: Vec<Reply>) -> inferkit_core::Result<SearchResult> {
    let mut items = items.into_iter();
    match items.next() {
        Some(Reply::Int(_)) => {}
        Some(other) => return Err(other.unexpected("the number of results")),
        None => return Err(Reply::Array(Vec::new()).unexpected("the number of results")),
    }
    let mut rows = Rows::default();
    while let Some(key) = items.next() {
        let Some(fields) = items.next() else {
            return Err(inferkit_core::Error::new(
                ErrorKind::Reply,
                "expected keys and fields, got a key without fields",
            ));
        };
        rows.push(Bytes::from_reply(key)?, fields)?;
    }
    Ok(rows.finish())
}

/// Reads the map of RESP3, whose `results` are maps with an `id` and `extra_attributes`.
fn from_map(pairs: Vec<(Reply, Reply)>) -> inferkit_core::Result<SearchResult> {
    let mut rows = Rows::default();
    let mut warnings = None;
    let mut has_results = false;
    for (name, value) in pairs {
        match name.as_bytes() {
            Some(b"results") => {
                has_results = true;
                for row in value.into_array()? {
                    let (key, fields) = row_of_map(row)?;
                    rows.push(key, fields)?;
                }
            }
            Some(b"warning" | b"warnings") => warnings = Some(value),
            _ => {}
        }
    }
    if !has_results {
        return Err(Reply::Map(Vec::new()).unexpected("a map with results"));
    }
    let mut result = rows.finish();
    result.warns = true;
    // Every warning is about something that was left out: time, memory, or terms of an expansion.
    result.partial = match warnings {
        None | Some(Reply::Nil) => false,
        Some(Reply::Array(warnings)) => !warnings.is_empty(),
        Some(warning) => warning.as_bytes().is_some_and(|text| !text.is_empty()),
    };
    Ok(result)
}

fn row_of_map(row: Reply) -> inferkit_core::Result<(Bytes, Reply)> {
    let (mut key, mut fields) = (None, Reply::Nil);
    for (name, value) in row.into_pairs()? {
        match name.as_bytes() {
            Some(b"id") => key = Some(Bytes::from_reply(value)?),
            Some(b"extra_attributes") => fields = value,
            _ => {}
        }
    }
    let key = key.ok_or_else(|| Reply::Map(Vec::new()).unexpected("a result with an id"))?;
    Ok((key, fields))
}

#[derive(Default)]
struct Rows {
    hits: Vec<Hit>,
    skipped: usize,
    unusable: usize,
}

impl Rows {
    fn push(&mut self, key: Bytes, fields: Reply) -> inferkit_core::Result<()> {
        if fields.is_nil() {
            self.skipped += 1;
            return Ok(());
        }
        let mut distance = None;
        let mut values = Vec::new();
        for (name, value) in fields.into_pairs()? {
            let name = Bytes::from_reply(name)?;
            if name == DISTANCE_FIELD.as_bytes() {
                distance = value.as_f64();
            } else if !value.is_nil() {
                values.push((name, Bytes::from_reply(value)?));
            }
        }
        match distance.map(Distance::new) {
            Some(Ok(distance)) => self.hits.push(Hit::new(key, distance, values)),
            Some(Err(_)) => self.unusable += 1,
            None => self.skipped += 1,
        }
        Ok(())
    }

    fn finish(self) -> SearchResult {
        let Self { hits, skipped, unusable } = self;
        SearchResult { skipped, unusable, ..SearchResult::new(hits) }
    }
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
        for printed in [format!("{result:?}"), format!("{:#?}", result.hits[0])] {
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
