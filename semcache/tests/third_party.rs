//! A cache of somebody else's, made with the public API only: it passes the suite.
#![expect(clippy::unwrap_used, reason = "a test's own implementation")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Answer, Embedder, EmbedderExt as _, EntryId, Error, Hit, Lookup, Miss, Near, Policy, Request,
    Result, SemanticCache, Similarity, Tenant, Vector, semantic_cache_conformance,
};

#[derive(Debug)]
struct Shelf {
    embedder: Compass,
    policy: Policy,
    rows: Mutex<Vec<Row>>,
}

#[derive(Clone, Debug)]
struct Row {
    request: Request,
    answer: Answer,
    vector: Vector,
    stored_at: Duration,
    end: Instant,
}

impl Shelf {
    fn check(&self, request: &Request) -> Result<()> {
        let (bytes, max) = (request.prompt().len(), self.policy.max_prompt_bytes());
        if max < bytes {
            return Err(Error::prompt_too_long(bytes, max));
        }
        Ok(())
    }

    async fn vector(&self, request: &Request, given: Option<Vector>) -> Result<Vector> {
        let vector = match given {
            Some(vector) => vector,
            None => Vector::new(self.embedder.embed(request.prompt()).await?)
                .map_err(Error::invalid_embedding)?,
        };
        match (self.embedder.dimensions(), vector.dimensions()) {
            (expected, got) if expected != got => Err(Error::dimension_mismatch(expected, got)),
            _ => Ok(vector),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|row| Instant::now() < row.end);
        rows.clone()
    }
}

fn hit(row: &Row, similarity: Similarity) -> Hit {
    let Row { request, answer, stored_at, .. } = row;
    Hit::new(request.id(), request.prompt(), answer, similarity, request.model(), *stored_at)
}

#[async_trait]
impl SemanticCache for Shelf {
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        self.check(request)?;
        let rows = self.rows();
        if let Some(row) = rows.iter().find(|row| row.request == *request) {
            return Ok(Lookup::Exact(hit(row, Similarity::new(1.0)?)));
        }
        let vector = self.vector(request, None).await?;
        let scope = |request: &Request| request.scope(self.embedder.model());
        let nearest = rows
            .iter()
            .filter(|row| scope(&row.request) == scope(request))
            .map(|row| (vector.cosine_similarity(&row.vector).unwrap(), row))
            .max_by_key(|(similarity, _)| *similarity);
        Ok(match nearest {
            Some((similarity, row)) if self.policy.threshold() <= similarity => {
                Lookup::Semantic(hit(row, similarity))
            }
            nearest => {
                let near = nearest.map(|(similarity, row)| Near::new(row.request.id(), similarity));
                Lookup::Miss(Miss::new(request, Some(vector), near))
            }
        })
    }

    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        embedding: Option<Vector>,
    ) -> Result<EntryId> {
        self.check(request)?;
        let row = Row {
            request: request.clone(),
            answer: answer.clone(),
            vector: self.vector(request, embedding).await?,
            stored_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap(),
            end: Instant::now() + self.policy.ttl(request.model()),
        };
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|row| row.request != *request);
        rows.push(row);
        Ok(request.id())
    }

    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let mut rows = self.rows.lock().unwrap();
        let before = rows.len();
        rows.retain(|row| row.request.tenant() != tenant || row.request.id() != *id);
        Ok(rows.len() < before)
    }
}

async fn make() -> Arc<dyn SemanticCache> {
    Arc::new(Shelf { embedder: Compass::default(), policy: policy(), rows: Mutex::default() })
}
semantic_cache_conformance!(make);
