//! An index of somebody else's, made with the public API only: it passes the suite.
#![cfg(feature = "conformance")]
#![expect(clippy::unwrap_used, reason = "a test's own implementation")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_vectorsearch::conformance::schema;
use inferkit_vectorsearch::{
    Affected, Bulk, Document, Error, FieldKind, Fields, Filter, Find, Hit, Order, Page, Query,
    Record, Result, Schema, SearchResult, Value, VectorField, VectorIndex,
    vector_index_conformance,
};

type Row = (BTreeMap<String, Bytes>, Option<Instant>);

/// A list of rows; it searches by cosine.
#[derive(Debug)]
struct Shelf {
    schema: Schema,
    rows: Mutex<BTreeMap<String, Row>>,
}

impl Shelf {
    fn rows<T>(&self, then: impl FnOnce(&mut BTreeMap<String, Row>) -> T) -> T {
        let mut rows = self.rows.lock().unwrap();
        let now = Instant::now();
        rows.retain(|_, (_, end)| end.is_none_or(|end| now < end));
        then(&mut rows)
    }

    fn matching(&self, filter: &Filter) -> Result<Vec<(String, BTreeMap<String, Bytes>)>> {
        filter.check(&self.schema)?;
        self.rows(|rows| {
            let mut found = Vec::new();
            for (key, (fields, _)) in rows.iter() {
                if filter.matches(&self.schema, &|name| fields.get(name).map(|value| &**value))? {
                    found.push((key.clone(), fields.clone()));
                }
            }
            Ok(found)
        })
    }
}

fn chosen(fields: &BTreeMap<String, Bytes>, names: &[String]) -> Fields {
    let found = names.iter().filter_map(|name| Some((name.clone(), fields.get(name)?.clone())));
    found.collect()
}

#[async_trait]
impl VectorIndex for Shelf {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        self.schema.id(key)
    }

    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        let mut new = Vec::new();
        for document in documents {
            let fields = document.encode(&self.schema)?.into_iter();
            let fields = fields.map(|(name, value)| (name.to_owned(), value.into_owned().into()));
            let end = document.ttl().map(|ttl| Instant::now() + ttl);
            new.push((self.schema.key(document.id()).to_string(), (fields.collect(), end)));
        }
        self.rows(|rows| rows.extend(new));
        Ok(())
    }

    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        let keys = ids.iter().map(|id| self.schema.key(id).to_string());
        let read = |rows: &mut BTreeMap<String, Row>, key: String| {
            let fields = rows.get(&key)?.0.clone().into_iter().collect();
            Some(Record::new(key, None, fields))
        };
        Ok(self.rows(|rows| keys.map(|key| read(rows, key)).collect()))
    }

    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        let removed = |rows: &mut BTreeMap<String, Row>| {
            let there = ids.iter().filter(|id| rows.remove(self.schema.key(id).as_str()).is_some());
            there.count() as u64
        };
        Ok(self.rows(removed))
    }

    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        query.to_cmd(&self.schema)?;
        let knn = match query {
            Query::Knn(knn) => knn,
            Query::Range(range) => range.knn(),
            _ => return Ok(SearchResult::new(Vec::new())),
        };
        let Some(FieldKind::Vector { data_type, .. }) =
            self.schema.field(knn.field()).map(|field| *field.kind())
        else {
            return Ok(SearchResult::new(Vec::new()));
        };
        let mut hits = Vec::new();
        for (key, fields) in self.matching(knn.filter())? {
            if let Some(stored) = fields.get(knn.field()) {
                let similarity = data_type.decode(stored)?.cosine_similarity(knn.vector())?;
                hits.push(Hit::new(key, similarity.to_distance(), chosen(&fields, knn.returned())));
            }
        }
        let mut result = SearchResult::new(hits);
        result.hits.truncate(knn.k());
        if let Query::Range(range) = query {
            range.cut(&mut result);
        }
        Ok(result)
    }

    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        for query in queries {
            query.to_cmd(&self.schema)?;
        }
        let mut results = Vec::new();
        for query in queries {
            results.push(self.search(*query).await);
        }
        Ok(results)
    }

    async fn find(&self, query: &Find) -> Result<Page> {
        query.to_cmd(&self.schema)?;
        let mut found = self.matching(query.filter())?;
        let total = found.len() as u64;
        if let Some((field, order)) = query.sort() {
            // The suite sorts by numbers only.
            let number = |fields: &BTreeMap<String, Bytes>| -> f64 {
                let text = fields.get(field).and_then(|value| std::str::from_utf8(value).ok());
                text.and_then(|text| text.parse().ok()).unwrap_or(f64::MAX)
            };
            found.sort_by(|(_, a), (_, b)| number(a).total_cmp(&number(b)));
            if order == Order::Descending {
                found.reverse();
            }
        }
        let (offset, limit) = query.window();
        let score = query.is_scored().then_some(1.0);
        let records = found.into_iter().skip(offset).take(limit);
        let records =
            records.map(|(key, fields)| Record::new(key, score, chosen(&fields, query.returned())));
        Ok(Page::new(records.collect(), total))
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        Ok(self.matching(filter)?.len() as u64)
    }

    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        bulk.check(filter)?;
        let found = self.matching(filter)?;
        let matched = found.len() as u64;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        self.rows(|rows| found.iter().for_each(|(key, _)| drop(rows.remove(key))));
        Ok(Affected::new(matched, matched))
    }

    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        bulk.check(filter)?;
        let changes = changes.iter().fold(Document::new("any"), |document, (name, value)| {
            document.with((*name).to_owned(), value.clone())
        });
        let changes: Vec<(String, Bytes)> = changes
            .encode(&self.schema)?
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_owned().into()))
            .collect();
        let found = self.matching(filter)?;
        let matched = found.len() as u64;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        self.rows(|rows| {
            for (key, _) in found {
                if let Some((fields, _)) = rows.get_mut(&key) {
                    fields.extend(changes.clone());
                }
            }
        });
        Ok(Affected::new(matched, matched))
    }
}

async fn make() -> Shelf {
    let schema = schema("shelf", "shelf:", VectorField::flat("v", 3)).unwrap();
    Shelf { schema, rows: Mutex::default() }
}

vector_index_conformance!(make);

#[tokio::test]
async fn its_documents_are_checked_as_ours_are() {
    let shelf = make().await;
    let bad = Document::new("1").with("price", "cheap").with_ttl(Duration::from_secs(1));
    let error = shelf.put_many(&[bad]).await.unwrap_err();
    assert!(matches!(error, Error::InvalidField { .. }));
}
