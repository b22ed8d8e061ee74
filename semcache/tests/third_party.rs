//! A cache of somebody else's, made with the public API only: it passes the suite.
#![expect(clippy::unwrap_used, reason = "a test's own implementation")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Answer, Cursor, Embedder, EmbedderExt as _, EntryId, Error, Feedback, Hit, Lookup, Miss, Near,
    Nearest, Policy, Record, Rejection, Request, Result, Selection, SemanticCache, Similarity,
    Skip, Stored, Tenant, Vector, semantic_cache_conformance,
};

#[derive(Debug)]
struct Shelf {
    embedder: Compass,
    policy: Policy,
    rows: Mutex<BTreeMap<EntryId, Row>>,
    epochs: Mutex<HashMap<Tenant, u64>>,
    next_epoch: AtomicU64,
}

#[derive(Clone, Debug)]
struct Row {
    record: Record,
    vector: Option<Vector>,
    fence: Option<u64>,
    wrong_for: HashSet<EntryId>,
    end: Instant,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

impl Shelf {
    async fn vector(&self, request: &Request, miss: Option<&Miss>) -> Result<Option<Vector>> {
        if miss.is_some_and(|miss| miss.request != request.id()) {
            return Err(Error::MissOfAnotherRequest);
        }
        if !self.policy.is_semantic(request) {
            return Ok(None);
        }
        let vector = match miss.and_then(|miss| miss.embedding.clone()) {
            Some(vector) => vector,
            None => Vector::new(self.embedder.embed(request.prompt()).await?)
                .map_err(Error::invalid_embedding)?,
        };
        match (self.embedder.dimensions(), vector.dimensions()) {
            (expected, got) if expected != got => Err(Error::dimension_mismatch(expected, got)),
            _ => Ok(Some(vector)),
        }
    }

    fn rows(&self) -> BTreeMap<EntryId, Row> {
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|_, row| Instant::now() < row.end);
        rows.clone()
    }

    fn epoch(&self, tenant: &Tenant) -> String {
        self.epochs.lock().unwrap().get(tenant).copied().unwrap_or_default().to_string()
    }
}

#[async_trait]
impl SemanticCache for Shelf {
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        let control = request.control();
        let age = control.accepted_age();
        let since = age.map(|age| Duration::from_secs(now().as_secs()) - age).unwrap_or_default();
        let mut rows = self.rows();
        rows.retain(|_, row| since <= row.record.stored_at() && !control.is_no_cache());
        if let Some(row) = rows.get(&request.id()) {
            return Ok(Lookup::Exact(row.record.hit(Similarity::new(1.0)?)?));
        }
        let vector = self.vector(request, None).await?;
        let miss = Miss::new(request, vector.clone()).with_epoch(self.epoch(request.tenant()));
        let Some(vector) = vector else { return Ok(Lookup::Miss(miss)) };
        let scope = request.scope(self.embedder.model());
        let mut candidates = Vec::new();
        for row in rows.values().filter(|row| row.record.scope() == scope) {
            let Some(other) = &row.vector else { continue };
            candidates.push((vector.cosine_similarity(other).unwrap(), row));
        }
        candidates.sort_by_key(|(similarity, _)| std::cmp::Reverse(*similarity));
        let first = candidates.first();
        let nearest =
            first.map(|(similarity, row)| Nearest::new(row.record.id().unwrap(), *similarity));
        let miss = miss.with_nearest(nearest);
        let threshold = self.policy.threshold_of(request);
        let least = threshold.as_f64() - self.policy.rules(request.category()).near_margin();
        let mut near: Option<(Hit, Rejection)> = None;
        let mut left = self.policy.verification().unwrap().candidates();
        for (similarity, row) in candidates {
            let hit = row.record.hit(similarity)?;
            let reason = if similarity.as_f64() < least || left == 0 {
                break;
            } else if similarity < threshold {
                Rejection::Threshold
            } else if row.wrong_for.contains(&request.id()) {
                Rejection::Feedback
            } else {
                left -= 1;
                if self.policy.verification().unwrap().accepts(request, &hit).await {
                    return Ok(Lookup::Semantic(hit));
                }
                Rejection::Verifier
            };
            near = near.or(Some((hit, reason)));
        }
        Ok(match near {
            Some((hit, reason)) => Lookup::Near(Box::new(Near::new(hit, reason, miss))),
            None => Lookup::Miss(miss),
        })
    }

    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Option<Miss>,
    ) -> Result<Stored> {
        if let Some(skip) = self.policy.skips(request, answer) {
            return Ok(Stored::Skipped(skip));
        }
        let vector = self.vector(request, miss.as_ref()).await?;
        let epoch = self.epoch(request.tenant());
        if miss.as_ref().and_then(Miss::epoch).is_some_and(|early| early != epoch) {
            return Ok(Stored::Skipped(Skip::Flushed));
        }
        let (id, fence) = (request.id(), miss.as_ref().and_then(Miss::fence));
        let mut rows = self.rows.lock().unwrap();
        if fence.is_some() && rows.get(&id).is_some_and(|row| fence < row.fence) {
            return Ok(Stored::Skipped(Skip::Superseded));
        }
        let ttl = self.policy.ttl_of(request);
        let model = self.embedder.model();
        let record = Record::new(request, answer, model, vector.as_ref(), now(), ttl);
        let row =
            Row { record, vector, fence, wrong_for: HashSet::new(), end: Instant::now() + ttl };
        rows.insert(id, row);
        Ok(Stored::Kept(id))
    }

    async fn store_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for (request, answer) in answers {
            stored.push(self.store(request, answer, None).await?);
        }
        Ok(stored)
    }

    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let mut rows = self.rows.lock().unwrap();
        let ours = rows.get(id).is_some_and(|row| row.record.is_of(tenant));
        Ok(ours && rows.remove(id).is_some())
    }

    async fn invalidate(&self, selection: &Selection) -> Result<u64> {
        let mut rows = self.rows.lock().unwrap();
        let before = rows.len();
        rows.retain(|_, row| !row.record.is_selected(selection));
        Ok((before - rows.len()) as u64)
    }

    async fn flush(&self, tenant: &Tenant) -> Result<()> {
        self.rows.lock().unwrap().retain(|_, row| !row.record.is_of(tenant));
        let epoch = self.next_epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.epochs.lock().unwrap().insert(tenant.clone(), epoch);
        Ok(())
    }

    async fn report(&self, asked: &Request, hit: &Hit, feedback: Feedback) -> Result<bool> {
        if feedback == Feedback::Right {
            return Ok(true);
        }
        if hit.id == asked.id() {
            return self.remove(asked.tenant(), &hit.id).await;
        }
        let mut rows = self.rows.lock().unwrap();
        let Some(row) = rows.get_mut(&hit.id) else { return Ok(false) };
        row.wrong_for.insert(asked.id());
        Ok(true)
    }

    async fn export_some(&self, _: Option<Cursor>) -> Result<(Vec<Record>, Option<Cursor>)> {
        Ok((self.rows().into_values().map(|row| row.record).collect(), None))
    }

    async fn import_many(&self, records: &[Record]) -> Result<u64> {
        let mut all = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let dimensions = self.embedder.dimensions();
            record.check(dimensions).map_err(|problem| Error::record(index + 1, problem))?;
            let (id, vector) = (record.id()?, record.vector().transpose()?);
            let (record, end) = (record.clone(), Instant::now() + record.ttl());
            all.push((id, Row { record, vector, fence: None, wrong_for: HashSet::new(), end }));
        }
        self.rows.lock().unwrap().extend(all);
        Ok(records.len() as u64)
    }
}

async fn make() -> Arc<dyn SemanticCache> {
    Arc::new(Shelf {
        embedder: Compass::default(),
        policy: policy(),
        rows: Mutex::default(),
        epochs: Mutex::default(),
        next_epoch: AtomicU64::new(0),
    })
}
semantic_cache_conformance!(make);
