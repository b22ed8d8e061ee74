use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Clock, SystemClock};

use crate::document::{MAX_FIELDS, encode_field, key};
use crate::filter::Lookup;
use crate::query::{field_of, vector_field};
use crate::{
    Affected, Bulk, Distance, Document, Error, FieldKind, Fields, Filter, Find, Hit, Order, Page,
    Query, Record, Result, Schema, SearchResult, Value, Vector, VectorIndex,
};

/// An index within this process that compares every vector: exact, for tests and for small collections.
///
/// It takes the same documents and queries as [`RedisVectorIndex`](crate::RedisVectorIndex) and refuses the same ones, and
/// answers with the same keys.
/// Documents without a `sorted_by` come in the order of their keys, or of their score if that is asked for: Okapi BM25 of
/// the words of the filter over the documents that live, with 1.2 for saturation and 0.75 for length, times the weights of
/// the fields; all else in a filter adds nothing to it.
/// A server's scores have another scale, and by default also look at how close the words stand together.
/// `Debug` prints the number of documents.
#[derive(Clone)]
pub struct MemoryVectorIndex {
    schema: Schema,
    clock: Arc<dyn Clock>,
    // A `std` mutex: never held across an await.
    documents: Arc<Mutex<BTreeMap<String, Stored>>>,
}

struct Stored {
    fields: Vec<(Bytes, Bytes)>,
    vectors: Vec<(String, Vector)>,
    end: Option<Duration>,
}

impl MemoryVectorIndex {
    /// Makes an empty index.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self::with_clock(schema, Arc::<SystemClock>::default())
    }

    /// Makes an empty index whose documents expire by `clock`.
    #[must_use]
    pub fn with_clock(schema: Schema, clock: Arc<dyn Clock>) -> Self {
        Self { schema, clock, documents: Arc::default() }
    }

    /// The documents that live.
    fn live(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        let now = self.clock.now();
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        documents.retain(|_, stored| stored.end.is_none_or(|end| now < end));
        documents
    }

    /// The keys that `filter` considers.
    fn matching(
        &self,
        documents: &BTreeMap<String, Stored>,
        filter: &Filter,
    ) -> Result<Vec<String>> {
        filter.check(&self.schema)?;
        let mut keys = Vec::new();
        for (key, stored) in documents {
            if filter.matches(&self.schema, &|field| stored.field(field))? {
                keys.push(key.clone());
            }
        }
        Ok(keys)
    }
}

impl fmt::Debug for MemoryVectorIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryVectorIndex")
            .field("index", &self.schema.index())
            .field("documents", &self.live().len())
            .finish_non_exhaustive()
    }
}

impl Stored {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| &**value)
    }

    fn vector(&self, name: &str) -> Option<&Vector> {
        self.vectors.iter().find(|(field, _)| field == name).map(|(_, vector)| vector)
    }

    fn set(&mut self, schema: &Schema, name: &str, value: &Value) -> Result<()> {
        let stored = Bytes::from(encode_field(schema, name, value)?.into_owned());
        match self.fields.iter_mut().find(|(field, _)| field == name.as_bytes()) {
            Some((_, old)) => *old = stored,
            None => self.fields.push((Bytes::copy_from_slice(name.as_bytes()), stored)),
        }
        if let Value::Vector(vector) = value {
            self.vectors.retain(|(field, _)| field != name);
            self.vectors.push((name.to_owned(), vector.clone()));
        }
        Ok(())
    }

    fn returning(&self, fields: &[String]) -> Fields {
        let found = fields.iter().filter_map(|name| {
            self.fields.iter().find(|(field, _)| field == name.as_bytes()).cloned()
        });
        found.collect()
    }
}

#[async_trait]
impl VectorIndex for MemoryVectorIndex {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        self.schema.id(key)
    }

    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        let now = self.clock.now();
        let mut all = Vec::with_capacity(documents.len());
        for document in documents {
            document.check()?;
            let end = document.ttl().map(|ttl| now + ttl);
            let mut stored = Stored { fields: Vec::new(), vectors: Vec::new(), end };
            for (name, value) in document.fields() {
                stored.set(&self.schema, name, value)?;
            }
            all.push((key(&self.schema, document.id()).as_str().to_owned(), stored));
        }
        self.live().extend(all);
        Ok(())
    }

    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        let documents = self.live();
        let read = |id: &&str| {
            let key = key(&self.schema, id).as_str().to_owned();
            let fields = documents.get(&key)?.fields.iter().cloned().collect();
            Some(Record::new(key, None, fields))
        };
        Ok(ids.iter().map(read).collect())
    }

    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        let mut documents = self.live();
        let removed = |id: &&&str| documents.remove(key(&self.schema, id).as_str()).is_some();
        Ok(ids.iter().filter(removed).count() as u64)
    }

    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        // The same refusals as on a server.
        query.to_cmd(&self.schema)?;
        let knn = match query {
            Query::Knn(knn) => knn,
            Query::Range(range) => range.knn(),
        };
        let (kind, _) = vector_field(&self.schema, knn.field(), knn.vector())?;
        let FieldKind::Vector { metric, .. } = *kind else {
            return Ok(SearchResult::default());
        };
        let documents = self.live();
        let mut near = Vec::new();
        for key in self.matching(&documents, knn.filter())? {
            let Some(stored) = documents.get(&key) else { continue };
            if let Some(vector) = stored.vector(knn.field()) {
                near.push((Distance::new(knn.vector().distance(vector, metric))?, key));
            }
        }
        near.sort();
        near.truncate(knn.k());
        let hits = near.into_iter().filter_map(|(distance, key)| {
            let fields = documents.get(&key)?.returning(knn.returned());
            Some(Hit::new(key, distance, fields))
        });
        let mut result = SearchResult::new(hits.collect());
        if let Query::Range(range) = query {
            range.cut(&mut result);
        }
        Ok(result)
    }

    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        for query in queries {
            query.to_cmd(&self.schema)?;
        }
        let mut results = Vec::with_capacity(queries.len());
        for query in queries {
            results.push(self.search(*query).await);
        }
        Ok(results)
    }

    async fn find(&self, query: &Find) -> Result<Page> {
        query.to_cmd(&self.schema)?;
        let documents = self.live();
        let keys = self.matching(&documents, query.filter())?;
        let total = keys.len() as u64;
        let scores = if query.is_scored() {
            let lookup =
                |stored| -> Lookup<'_> { Box::new(move |name| Stored::field(stored, name)) };
            let all: Vec<Lookup<'_>> = documents.values().map(lookup).collect();
            query.filter().relevance(&self.schema, &all)?
        } else {
            vec![0.0; documents.len()]
        };
        let mut found: Vec<((&String, &Stored), f64)> = documents
            .iter()
            .zip(scores)
            .filter(|((key, _), _)| keys.binary_search(key).is_ok())
            .collect();
        if let Some((field, order)) = query.sort() {
            let numeric = matches!(field_of(&self.schema, field)?, FieldKind::Numeric);
            found.sort_by(|((_, a), _), ((_, b), _)| {
                compare(a.field(field), b.field(field), numeric, order)
            });
        } else {
            found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        }
        let (offset, limit) = query.window();
        let records = found.into_iter().skip(offset).take(limit).map(|((key, stored), score)| {
            let score = query.is_scored().then_some(score);
            Record::new(key.clone(), score, stored.returning(query.returned()))
        });
        Ok(Page::new(records.collect(), total))
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        Ok(self.matching(&self.live(), filter)?.len() as u64)
    }

    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        bulk.check(filter)?;
        let mut documents = self.live();
        let keys = self.matching(&documents, filter)?;
        let matched = keys.len() as u64;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        for key in keys {
            documents.remove(&key);
        }
        Ok(Affected::new(matched, matched))
    }

    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        bulk.check(filter)?;
        if changes.is_empty() || MAX_FIELDS < changes.len() {
            let problem = "count none or too many: an update sets 1 to 3000 fields";
            return Err(Error::InvalidField { field: "*".to_owned(), problem });
        }
        for (name, value) in changes {
            encode_field(&self.schema, name, value)?;
        }
        let mut documents = self.live();
        let keys = self.matching(&documents, filter)?;
        let matched = keys.len() as u64;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        for key in keys {
            if let Some(stored) = documents.get_mut(&key) {
                for (name, value) in changes {
                    stored.set(&self.schema, name, value)?;
                }
            }
        }
        Ok(Affected::new(matched, matched))
    }
}

/// Orders two values of a field; those without one come last either way.
fn compare(a: Option<&[u8]>, b: Option<&[u8]>, numeric: bool, order: Order) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else {
        return b.is_some().cmp(&a.is_some());
    };
    let number = |bytes: &[u8]| str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    let ordering = match (number(a), number(b)) {
        (Some(a), Some(b)) if numeric => f64::total_cmp(&a, &b),
        _ => a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()),
    };
    if order == Order::Ascending { ordering } else { ordering.reverse() }
}
