use std::time::Duration;

use inferkit_core::{Batch, DriverExt as _};
use tokio::time::Instant;
use tracing::field::Empty;

use super::RedisVectorIndex;
use crate::{Filter, Find, Fused, Hybrid, Page, Query, Result, SearchResult};

/// The time limit of a search that a server has by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);

impl RedisVectorIndex {
    #[tracing::instrument(name = "vectorsearch.search", level = "debug", skip_all, fields(hits = Empty, partial = Empty), err(level = "debug"))]
    pub(super) async fn search_one(&self, query: Query<'_>) -> Result<SearchResult> {
        let cmd = query.to_cmd(&self.target)?;
        let start = Instant::now();
        let result = self.driver.query(cmd).await.map_err(|error| self.explain(error))?;
        let result = finish(query, result, start.elapsed());
        let span = tracing::Span::current();
        span.record("hits", result.hits.len());
        span.record("partial", result.partial);
        Ok(result)
    }

    #[tracing::instrument(name = "vectorsearch.search_many", level = "debug", skip_all, fields(queries = queries.len()), err(level = "debug"))]
    pub(super) async fn search_all(
        &self,
        queries: &[Query<'_>],
    ) -> Result<Vec<Result<SearchResult>>> {
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(queries.len());
        for query in queries {
            slots.push(batch.push::<SearchResult>(query.to_cmd(&self.target)?));
        }
        let start = Instant::now();
        let mut answers = self.driver.run(batch).await.map_err(|error| self.explain(error))?;
        let elapsed = start.elapsed();
        let answers = queries.iter().zip(slots).map(|(query, slot)| {
            let result = answers.take(slot).map_err(|error| self.explain(error))?;
            Ok(finish(*query, result, elapsed))
        });
        Ok(answers.collect())
    }

    #[tracing::instrument(
        name = "vectorsearch.find",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub(super) async fn find_page(&self, query: &Find) -> Result<Page> {
        let cmd = query.to_cmd(&self.target)?;
        let start = Instant::now();
        let page = self.driver.query(cmd).await.map_err(|error| self.explain(error))?;
        Ok(finish_page(query, page, start.elapsed()))
    }

    #[tracing::instrument(
        name = "vectorsearch.hybrid",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub(super) async fn search_hybrid(&self, query: &Hybrid) -> Result<Fused> {
        let (find, knn) = query.parts()?;
        let mut batch = Batch::new();
        let words = batch.push::<Page>(find.to_cmd(&self.target)?);
        let near = batch.push::<SearchResult>(knn.to_cmd(&self.target)?);
        let start = Instant::now();
        let mut answers = self.driver.run(batch).await.map_err(|error| self.explain(error))?;
        let elapsed = start.elapsed();
        let words = answers.take(words).map_err(|error| self.explain(error))?;
        let near = answers.take(near).map_err(|error| self.explain(error))?;
        Ok(query.fuse(finish_page(&find, words, elapsed), finish(Query::Knn(&knn), near, elapsed)))
    }

    pub(super) async fn count_matching(&self, filter: &Filter) -> Result<u64> {
        let cmd = Find::count_cmd(filter, &self.target)?;
        let page: Page = self.driver.query(cmd).await.map_err(|error| self.explain(error))?;
        Ok(page.total)
    }
}

/// Cuts a range, and judges by the time taken whether the answer is whole where the reply does not tell.
///
/// In a pipeline the time is that of all its queries: an answer may be called partial that is not, never the other way
/// round.
fn finish(query: Query<'_>, mut result: SearchResult, elapsed: Duration) -> SearchResult {
    if !result.warns && result.hits.len() < query.limit() {
        result.partial = query.timeout().unwrap_or(DEFAULT_TIMEOUT) <= elapsed;
    }
    if let Query::Range(range) = query {
        range.cut(&mut result);
    }
    result
}

fn finish_page(query: &Find, mut page: Page, elapsed: Duration) -> Page {
    if !page.warns {
        page.partial = query.timeout().unwrap_or(DEFAULT_TIMEOUT) <= elapsed;
    }
    page
}
