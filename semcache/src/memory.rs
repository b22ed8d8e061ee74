use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::Vector;

use crate::embedding::{SAME, vector_of};
use crate::policy::ttl_millis;
use crate::request::Scope;
use crate::{
    Answer, EntryId, Hit, Lookup, Miss, Near, Policy, Request, Result, SemanticCache, Tenant,
};

/// A semantic cache within this process, for tests and small tools: every entry is compared, and nothing is evicted but
/// what has expired.
#[derive(Debug)]
pub struct MemorySemanticCache {
    embedder: Arc<dyn Embedder>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    entries: Mutex<BTreeMap<EntryId, Entry>>,
}

struct Entry {
    tenant: Tenant,
    scope: Scope,
    hit: Hit,
    vector: Vector,
    end: Duration,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("end", &self.end).finish_non_exhaustive()
    }
}

impl MemorySemanticCache {
    /// Makes an empty cache.
    #[must_use]
    pub fn new(embedder: Arc<dyn Embedder>, policy: Policy) -> Self {
        Self::with_clock(embedder, policy, Arc::new(SystemClock::default()))
    }

    /// Makes an empty cache whose entries expire by `clock`.
    #[must_use]
    pub fn with_clock(embedder: Arc<dyn Embedder>, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self { embedder, policy, clock, entries: Mutex::default() }
    }

    /// The entries that have not expired.
    fn live(&self) -> MutexGuard<'_, BTreeMap<EntryId, Entry>> {
        let now = self.clock.now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| now < entry.end);
        entries
    }
}

#[async_trait]
impl SemanticCache for MemorySemanticCache {
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        self.policy.check(request)?;
        if let Some(entry) = self.live().get(&request.id()) {
            return Ok(Lookup::Exact(entry.hit.clone()));
        }
        let vector = vector_of(&*self.embedder, request, None).await?;
        let scope = request.full_scope(self.embedder.model());
        let mut best: Option<Hit> = None;
        for entry in self.live().values().filter(|entry| entry.scope == scope) {
            let similarity = vector.cosine_similarity(&entry.vector)?;
            if best.as_ref().is_none_or(|best| best.similarity < similarity) {
                best = Some(Hit { similarity, ..entry.hit.clone() });
            }
        }
        Ok(match best {
            Some(hit) if self.policy.threshold() <= hit.similarity => Lookup::Semantic(hit),
            best => {
                let nearest = best.map(|hit| Near::new(hit.id, hit.similarity));
                Lookup::Miss(Miss::new(request, Some(vector), nearest))
            }
        })
    }

    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        embedding: Option<Vector>,
    ) -> Result<EntryId> {
        self.policy.check(request)?;
        let ttl = Duration::from_millis(ttl_millis(self.policy.ttl(request.model()))?);
        let vector = vector_of(&*self.embedder, request, embedding).await?;
        let now = self.clock.now();
        let id = request.id();
        let hit = Hit::new(
            id,
            request.shared_prompt(),
            answer,
            SAME,
            request.shared_model(),
            Duration::from_secs(now.as_secs()),
        );
        let tenant = request.tenant().clone();
        let scope = request.full_scope(self.embedder.model());
        self.live().insert(id, Entry { tenant, scope, hit, vector, end: now + ttl });
        Ok(id)
    }

    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let mut entries = self.live();
        match entries.get(id) {
            Some(entry) if entry.tenant == *tenant => Ok(entries.remove(id).is_some()),
            _ => Ok(false),
        }
    }
}
