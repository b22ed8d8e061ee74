use bytes::Bytes;
use inferkit_core::{Batch, Cmd, DriverExt as _, ErrorKind, FromReply as _, Reply};

use super::{RedisVectorSet, attributes, unsupported};
use crate::query::vector_field;
use crate::{Distance, Fields, Hit, Knn, Query, Result, SearchResult, Vector};

/// How many documents a filtered search over the graph looks at, at least.
const FILTER_EF: usize = 10_000;
const FILTER_EF_PER_NEIGHBOR: usize = 100;

impl RedisVectorSet {
    #[tracing::instrument(name = "vectorsearch.search_many", level = "debug", skip_all, fields(queries = queries.len()), err(level = "debug"))]
    pub(super) async fn search_all(
        &self,
        queries: &[Query<'_>],
    ) -> Result<Vec<Result<SearchResult>>> {
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(queries.len());
        let mut limited = false;
        for query in queries {
            let search = self.prepare(knn_of(*query))?;
            limited |= search.filter_ef.is_some();
            slots.push((batch.push::<Reply>(search.cmd), search.filter_ef));
        }
        let size = limited.then(|| batch.push::<u64>(self.cardinality_cmd()));
        let mut answers = self.driver.run(batch).await.map_err(|error| self.explain(error))?;
        let size = size.map(|slot| answers.take(slot)).transpose();
        let size = size.map_err(|error| self.explain(error))?;
        let results = queries.iter().zip(slots).map(|(query, (slot, filter_ef))| {
            let reply = answers.take(slot).map_err(|error| self.explain(error))?;
            let knn = knn_of(*query);
            let mut result = self.read_hits(reply, knn)?;
            if let (Some(filter_ef), Some(size)) = (filter_ef, size) {
                let gave_up = result.hits.len() < knn.k() && (filter_ef as u64) < size;
                result.partial = gave_up;
            }
            if let Query::Range(range) = query {
                range.cut(&mut result);
            }
            Ok(result)
        });
        Ok(results.collect())
    }

    fn prepare(&self, knn: &Knn) -> Result<Prepared> {
        vector_field(&self.schema, knn.field(), knn.vector())?;
        if knn.timeout().is_some() {
            return unsupported(
                "a search of a vector set takes no time limit",
                "set the time limit of the driver",
            );
        }
        if knn.policy().is_some() {
            return unsupported(
                "a search of a vector set takes no HYBRID_POLICY",
                "use RedisVectorSet::exact or VectorSetOptions::with_filter_ef",
            );
        }
        if knn.returned().contains(&self.vector.name) {
            return unsupported(
                "the hits of a vector set carry no vectors",
                "read them with get_many",
            );
        }
        let expression = knn.filter().to_expression(&self.schema)?;
        let capacity = 128 + 4 * knn.vector().dimensions();
        let cmd = Cmd::with_capacity("VSIM", capacity).key(&self.key).arg("FP32").arg(knn.vector());
        let mut cmd = cmd.arg("WITHSCORES");
        if !knn.returned().is_empty() {
            cmd = cmd.arg("WITHATTRIBS");
        }
        cmd = cmd.arg("COUNT").arg(knn.k());
        let exact = self.vector.graph.is_none();
        cmd = if exact { cmd.arg("TRUTH") } else { cmd.arg("EF").arg(knn.ef_runtime()) };
        let mut limit = None;
        if let Some(expression) = expression {
            cmd = cmd.arg("FILTER").arg(expression);
            if !exact {
                let default = (FILTER_EF_PER_NEIGHBOR * knn.k()).max(FILTER_EF);
                let filter_ef = self.options.filter_ef.unwrap_or(default);
                cmd = cmd.arg("FILTER-EF").arg(filter_ef);
                limit = Some(filter_ef);
            }
        }
        Ok(Prepared { cmd: cmd.readonly(), filter_ef: limit })
    }

    fn read_hits(&self, reply: Reply, knn: &Knn) -> Result<SearchResult> {
        let with_attributes = !knn.returned().is_empty();
        let mut result = SearchResult::default();
        for (element, score, stored) in rows(reply, with_attributes)? {
            // The server's score is (1 + cosine) / 2.
            match score.map(|score| Distance::new(2.0 * (1.0 - score))) {
                Some(Ok(distance)) => {
                    let fields = stored.map_or_else(Fields::default, |stored| {
                        attributes::decode_fields(&self.schema, &stored, Some(knn.returned()))
                    });
                    result.hits.push(Hit::new(self.key_of(&element), distance, fields));
                }
                _ => result.unusable += 1,
            }
        }
        result.hits.sort_by_key(|hit| hit.distance);
        Ok(result)
    }

    pub(super) fn cardinality_cmd(&self) -> Cmd {
        Cmd::new("VCARD").key(&self.key).readonly()
    }

    pub(super) async fn cardinality(&self) -> Result<u64> {
        self.driver.query(self.cardinality_cmd()).await.map_err(|error| self.explain(error))
    }

    /// The names of all elements that pass an expression, or of all.
    pub(super) async fn matching(&self, expression: Option<&str>) -> Result<Vec<Bytes>> {
        // Without a graph to walk, any vector serves.
        let mut components = vec![0.0_f32; self.vector.dimensions];
        if let Some(first) = components.first_mut() {
            *first = 1.0;
        }
        let vector = Vector::new(components)?;
        loop {
            let size = self.cardinality().await?;
            // The server makes room for so many, and there may be more by then.
            let room = size + size / 8 + 16;
            let cmd = Cmd::new("VSIM").key(&self.key).arg("FP32").arg(&vector).arg("TRUTH");
            let mut cmd = cmd.arg("COUNT").arg(room).readonly();
            if let Some(expression) = expression {
                cmd = cmd.arg("FILTER").arg(expression);
            }
            let names: Vec<Bytes> =
                self.driver.query(cmd).await.map_err(|error| self.explain(error))?;
            if (names.len() as u64) < room {
                return Ok(names);
            }
        }
    }
}

struct Prepared {
    cmd: Cmd,
    /// After how many documents the server gives up.
    filter_ef: Option<usize>,
}

fn knn_of(query: Query<'_>) -> &Knn {
    match query {
        Query::Knn(knn) => knn,
        Query::Range(range) => range.knn(),
    }
}

/// An element, its score and its attributes; no score if it is not a number.
type Row = (Bytes, Option<f64>, Option<Bytes>);

/// Reads `[element, score, attributes, ...]` of RESP2, or the map of elements to scores or `[score, attributes]` of RESP3.
fn rows(reply: Reply, with_attributes: bool) -> inferkit_core::Result<Vec<Row>> {
    let row = |element, score: &Reply, attributes: Reply| {
        Ok((Bytes::from_reply(element)?, score.as_f64(), Option::<Bytes>::from_reply(attributes)?))
    };
    if let Reply::Map(pairs) = reply {
        let rows = pairs.into_iter().map(|(element, value)| match value {
            Reply::Array(values) => {
                let mut values = values.into_iter();
                let score = values.next().unwrap_or(Reply::Nil);
                row(element, &score, values.next().unwrap_or(Reply::Nil))
            }
            score => row(element, &score, Reply::Nil),
        });
        return rows.collect();
    }
    let mut items = reply.into_array()?.into_iter();
    let mut rows = Vec::with_capacity(items.len() / 2);
    while let Some(element) = items.next() {
        let score = items.next();
        let attributes = if with_attributes { items.next() } else { Some(Reply::Nil) };
        let (Some(score), Some(attributes)) = (score, attributes) else {
            return Err(inferkit_core::Error::new(
                ErrorKind::Reply,
                "expected elements and scores, got an element without one",
            ));
        };
        rows.push(row(element, &score, attributes)?);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn both_protocols_read_alike() {
        let expected = vec![
            ("a".into(), Some(0.99), Some("{}".into())),
            ("b".into(), Some(0.5), None::<Bytes>),
        ];
        let flat = [bulk("a"), bulk("0.99"), bulk("{}"), bulk("b"), bulk("0.5"), Reply::Nil];
        assert_eq!(rows(Reply::Array(flat.to_vec()), true).unwrap(), expected);
        let pair = |score, attributes| Reply::Array(vec![Reply::Double(score), attributes]);
        let map = vec![(bulk("a"), pair(0.99, bulk("{}"))), (bulk("b"), pair(0.5, Reply::Nil))];
        assert_eq!(rows(Reply::Map(map), true).unwrap(), expected);
        let map = vec![(bulk("a"), Reply::Double(0.99))];
        let flat = vec![bulk("a"), bulk("0.99")];
        assert_eq!(rows(Reply::Map(map), false).unwrap(), rows(Reply::Array(flat), false).unwrap());
        assert!(rows(Reply::Array(vec![bulk("a")]), false).is_err());
        assert!(rows(Reply::Int(1), false).is_err());
    }

    proptest! {
        #[test]
        fn no_flat_reply_panics(
            words in prop::collection::vec(prop::option::of("[a-z0-9.]{0,4}"), 0..9),
            with_attributes: bool,
        ) {
            let item = |word: Option<String>| word.map_or(Reply::Nil, |word| Reply::Bulk(word.into()));
            let _ = rows(Reply::Array(words.into_iter().map(item).collect()), with_attributes);
        }
    }
}
