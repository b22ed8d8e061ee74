use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::{
    Affected, Bulk, Document, Error, FieldKind, Filter, Find, Fused, Hybrid, Page, Query, Record,
    Result, Schema, SearchResult, Value, VectorIndex,
};

/// The part of an index that belongs to one tenant: its documents cannot be seen or touched from another.
///
/// The tenant's digest (the first half of its SHA-256, in hex) stands in a TAG field of every document and in its key,
/// `<prefix><digest>/<id>`, so equal ids of two tenants are two documents.
/// Every query, count, removal and update is filtered by the tag; the tenant itself is stored nowhere.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{MemoryVectorIndex, Schema, TenantIndex, VectorField};
///
/// let schema = Schema::builder("docs", "docs:", VectorField::flat("v", 2)).tag("tenant").build()?;
/// let shared = MemoryVectorIndex::new(schema);
/// let acme = TenantIndex::new(shared.clone(), "tenant", "acme")?;
/// # let _ = acme;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TenantIndex<I> {
    index: I,
    field: String,
    digest: String,
    tag: Filter,
}

impl<I: VectorIndex> TenantIndex<I> {
    /// Narrows `index` to `tenant`, which stands in the TAG `field` of the schema; no I/O.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyFilterValue`] if `tenant` is empty; [`Error::UnknownField`] or [`Error::FieldKindMismatch`] if the
    /// schema has no such TAG field.
    pub fn new(index: I, field: impl Into<String>, tenant: &str) -> Result<Self> {
        let field = field.into();
        if tenant.is_empty() {
            return Err(Error::EmptyFilterValue { field });
        }
        if !matches!(crate::query::field_of(index.schema(), &field)?, FieldKind::Tag) {
            return Err(Error::FieldKindMismatch { field, expected: "TAG" });
        }
        let hash = Sha256::digest(tenant);
        let digest: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = Filter::tag(&*field, &*digest)?;
        Ok(Self { index, field, digest, tag })
    }

    /// Returns the index of all tenants.
    #[must_use]
    pub fn shared(&self) -> &I {
        &self.index
    }

    fn narrow(&self, filter: &Filter) -> Filter {
        self.tag.clone().and(filter.clone())
    }

    fn full_ids(&self, ids: &[&str]) -> Result<Vec<String>> {
        if ids.iter().any(|id| id.is_empty()) {
            let problem = "is empty: every document has an id";
            return Err(Error::InvalidField { field: "id".to_owned(), problem });
        }
        Ok(ids.iter().map(|id| format!("{}/{id}", self.digest)).collect())
    }

    fn refuse_tag(&self, name: &str) -> Result<()> {
        if name == self.field {
            let problem = "is the tenant's, which is set for you: leave it out";
            return Err(Error::InvalidField { field: name.to_owned(), problem });
        }
        Ok(())
    }
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}

#[async_trait]
impl<I: VectorIndex> VectorIndex for TenantIndex<I> {
    fn schema(&self) -> &Schema {
        self.index.schema()
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        let id = self.index.id(key)?;
        Some(id.strip_prefix(&self.digest)?.strip_prefix('/')?.to_owned())
    }

    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        let mut own = Vec::with_capacity(documents.len());
        for document in documents {
            document.check()?;
            for (name, _) in document.fields() {
                self.refuse_tag(name)?;
            }
            let document = document.clone().with(self.field.clone(), &*self.digest);
            own.push(document.under(&self.digest));
        }
        self.index.put_many(&own).await
    }

    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        self.index.get_many(&refs(&self.full_ids(ids)?)).await
    }

    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        self.index.remove_many(&refs(&self.full_ids(ids)?)).await
    }

    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        match query {
            Query::Knn(knn) => {
                let knn = knn.with_filter(self.narrow(knn.filter()));
                self.index.search(Query::Knn(&knn)).await
            }
            Query::Range(range) => {
                let range = range.with_filter(self.narrow(range.knn().filter()));
                self.index.search(Query::Range(&range)).await
            }
        }
    }

    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        enum Own {
            Knn(crate::Knn),
            Range(crate::Range),
        }
        let own = queries.iter().map(|query| match query {
            Query::Knn(knn) => Own::Knn(knn.with_filter(self.narrow(knn.filter()))),
            Query::Range(range) => Own::Range(range.with_filter(self.narrow(range.knn().filter()))),
        });
        let own: Vec<Own> = own.collect();
        let queries = own.iter().map(|query| match query {
            Own::Knn(knn) => Query::Knn(knn),
            Own::Range(range) => Query::Range(range),
        });
        self.index.search_many(&queries.collect::<Vec<_>>()).await
    }

    async fn find(&self, query: &Find) -> Result<Page> {
        self.index.find(&query.with_filter(self.narrow(query.filter()))).await
    }

    async fn hybrid(&self, query: &Hybrid) -> Result<Fused> {
        self.index.hybrid(&query.with_filter(self.narrow(query.filter()))).await
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        self.index.count(&self.narrow(filter)).await
    }

    /// A filter that considers all documents of the tenant needs [`Bulk::allow_all`].
    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        bulk.check(filter)?;
        self.index.remove_where(&self.narrow(filter), bulk).await
    }

    /// A filter that considers all documents of the tenant needs [`Bulk::allow_all`].
    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        bulk.check(filter)?;
        for (name, _) in changes {
            self.refuse_tag(name)?;
        }
        self.index.update_where(&self.narrow(filter), changes, bulk).await
    }
}
