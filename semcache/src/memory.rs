use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::Vector;

use crate::adaptive::{Controller, KEPT, Observation, Pool, Trial};
use crate::choose::{Candidate, Learned, choose};
use crate::digest::{seed, unique};
use crate::embedding::{SAME, embed, vector_of, vectors_of};
use crate::policy::ttl_millis;
use crate::stats::Meter;
use crate::{
    Answer, Cursor, EntryId, Error, Feedback, Hit, Lookup, Miss, Policy, Record, Request, Result,
    Selection, SemanticCache, Skip, Stats, Stored, Tenant,
};

/// How many of the most similar entries are looked at, as the one on Redis does at most.
const CANDIDATES: usize = 64;

/// A semantic cache within this process, for tests and small tools: every entry is compared, and nothing is evicted but
/// what has expired.
#[derive(Debug)]
pub struct MemorySemanticCache {
    embedder: Arc<dyn Embedder>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    state: Mutex<State>,
    meter: Meter,
    controller: Controller,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<EntryId, Entry>,
    /// By the digest of the tenant.
    epochs: HashMap<String, Arc<str>>,
    pool: Arc<Pool>,
}

struct Entry {
    record: Record,
    vector: Option<Vector>,
    fence: u64,
    wrong_for: BTreeSet<EntryId>,
    observations: Vec<Observation>,
    kin: EntryId,
    end: Duration,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("end", &self.end).finish_non_exhaustive()
    }
}

impl State {
    /// The epoch of a tenant; a new one if it has none.
    fn epoch(&mut self, tenant: &str) -> Arc<str> {
        let epoch = self.epochs.entry(tenant.to_owned()).or_insert_with(|| unique().into());
        Arc::clone(epoch)
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
        let (state, meter) = (Mutex::default(), Meter::default());
        Self { embedder, policy, clock, state, meter, controller: Controller::new(seed()) }
    }

    /// Returns what this cache did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.meter.stats()
    }

    /// The entries that have not expired.
    fn live(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.entries.retain(|_, entry| now < entry.end);
        state
    }

    async fn find(&self, request: &Request) -> Result<Lookup> {
        let control = request.control();
        let now = Duration::from_secs(self.clock.now().as_secs());
        let since = control.accepted_age().map(|age| now.saturating_sub(age));
        let fresh = |entry: &Entry| since.is_none_or(|since| since <= entry.record.stored_at());
        let epoch = self.live().epochs.get(request.tenant().hex().as_str()).cloned();
        let with_epoch = |miss: Miss| match &epoch {
            Some(epoch) => miss.with_epoch(Arc::clone(epoch)),
            None => miss,
        };
        if !control.is_no_cache() {
            let mut state = self.live();
            let entry = state.entries.get_mut(&request.id()).filter(|entry| fresh(entry));
            if let Some(entry) = entry {
                self.touch(entry);
                return Ok(Lookup::Exact(entry.record.hit(SAME)?));
            }
        }
        if !self.policy.is_semantic(request) {
            return Ok(Lookup::Miss(with_epoch(Miss::new(request, None))));
        }
        let vector = embed(&*self.embedder, request, None).await?;
        let miss = with_epoch(Miss::new(request, Some(vector.clone())));
        if control.is_no_cache() {
            return Ok(Lookup::Miss(miss));
        }
        let scope = request.scope(self.embedder.model());
        let mut candidates = Vec::new();
        {
            let state = self.live();
            let mut near = Vec::new();
            for entry in state.entries.values() {
                let same = entry.vector.as_ref().filter(|_| entry.record.scope() == scope);
                if let Some(other) = same.filter(|_| fresh(entry)) {
                    near.push((vector.cosine_similarity(other)?, entry));
                }
            }
            near.sort_by_key(|(similarity, _)| std::cmp::Reverse(*similarity));
            for (similarity, entry) in near.into_iter().take(CANDIDATES) {
                let hit = entry.record.hit(similarity)?;
                let wrong = entry.wrong_for.contains(&request.id());
                let (observations, kin) = (entry.observations.clone(), entry.kin);
                candidates.push(Candidate { hit, wrong, observations, kin });
            }
        }
        let pool = Arc::clone(&self.live().pool);
        let learned = Learned { controller: &self.controller, pool: &pool };
        let lookup = choose(&self.policy, request, candidates, miss, learned).await;
        if let Some(hit) = lookup.hit()
            && let Some(entry) = self.live().entries.get_mut(&hit.id)
        {
            self.touch(entry);
        }
        Ok(lookup)
    }

    fn observe(&self, asked: &Request, hit: &Hit, trial: Trial, correct: bool) -> bool {
        let mut state = self.live();
        self.controller.learn(trial, correct);
        Arc::make_mut(&mut state.pool).count(trial.cell, correct, trial.weight);
        let entry =
            state.entries.get_mut(&hit.id).filter(|entry| entry.record.is_of(asked.tenant()));
        let Some(entry) = entry else { return false };
        entry.observations.push((trial.cell, correct));
        if KEPT < entry.observations.len() {
            entry.observations.remove(0);
        }
        if !correct {
            entry.wrong_for.insert(asked.id());
        }
        true
    }

    fn touch(&self, entry: &mut Entry) {
        if self.policy.is_sliding() {
            entry.end = self.clock.now() + entry.record.ttl();
        }
    }

    fn put(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Option<&Miss>,
        vector: Option<Vector>,
    ) -> Result<Stored> {
        let ttl = Duration::from_millis(ttl_millis(self.policy.ttl_of(request))?);
        let (now, model) = (self.clock.now(), self.embedder.model());
        let record = Record::new(request, answer, model, vector.as_ref(), now, ttl);
        let mut state = self.live();
        let epoch = state.epoch(record.tenant());
        if miss.and_then(Miss::epoch).is_some_and(|looked_up| *looked_up != *epoch) {
            return Ok(Stored::Skipped(Skip::Flushed));
        }
        let id = request.id();
        let fence = miss.and_then(Miss::fence).unwrap_or(0);
        if fence != 0 && state.entries.get(&id).is_some_and(|entry| fence < entry.fence) {
            return Ok(Stored::Skipped(Skip::Superseded));
        }
        let (wrong_for, observations) = (BTreeSet::new(), Vec::new());
        let kin = miss.and_then(|miss| miss.kin).unwrap_or(id);
        let entry = Entry { record, vector, fence, wrong_for, observations, kin, end: now + ttl };
        state.entries.insert(id, entry);
        for other in miss.map(|miss| miss.joined.as_slice()).unwrap_or_default() {
            if let Some(entry) = state.entries.get_mut(other) {
                entry.kin = kin;
            }
        }
        Ok(Stored::Kept(id))
    }
}

#[async_trait]
impl SemanticCache for MemorySemanticCache {
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        let start = Instant::now();
        let found = self.find(request).await;
        self.meter.lookup(found.as_ref().ok(), start.elapsed(), self.policy.prices());
        found
    }

    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Option<Miss>,
    ) -> Result<Stored> {
        let stored = match self.policy.skips(request, answer) {
            Some(skip) => Stored::Skipped(skip),
            None => {
                let vector =
                    vector_of(&*self.embedder, &self.policy, request, miss.as_ref()).await?;
                self.put(request, answer, miss.as_ref(), vector)?
            }
        };
        self.meter.store(stored);
        Ok(stored)
    }

    async fn store_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>> {
        let vectors = vectors_of(&*self.embedder, &self.policy, answers).await?;
        let mut outcomes = Vec::with_capacity(answers.len());
        for ((request, answer), vector) in answers.iter().zip(vectors) {
            let stored = match self.policy.skips(request, answer) {
                Some(skip) => Stored::Skipped(skip),
                None => self.put(request, answer, None, vector)?,
            };
            self.meter.store(stored);
            outcomes.push(stored);
        }
        Ok(outcomes)
    }

    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let mut state = self.live();
        match state.entries.get(id) {
            Some(entry) if entry.record.is_of(tenant) => Ok(state.entries.remove(id).is_some()),
            _ => Ok(false),
        }
    }

    async fn invalidate(&self, selection: &Selection) -> Result<u64> {
        let mut state = self.live();
        let before = state.entries.len();
        state.entries.retain(|_, entry| !entry.record.is_selected(selection));
        Ok((before - state.entries.len()) as u64)
    }

    async fn flush(&self, tenant: &Tenant) -> Result<()> {
        let mut state = self.live();
        state.entries.retain(|_, entry| !entry.record.is_of(tenant));
        state.epochs.insert(tenant.hex().as_str().to_owned(), unique().into());
        Ok(())
    }

    async fn report(&self, asked: &Request, hit: &Hit, feedback: Feedback) -> Result<bool> {
        self.meter.feedback(feedback);
        if let Some(trial) = hit.trial.filter(|_| self.policy.max_wrong().is_some()) {
            return Ok(self.observe(asked, hit, trial, feedback == Feedback::Right));
        }
        if feedback == Feedback::Right {
            return Ok(true);
        }
        if hit.id == asked.id() {
            return self.remove(asked.tenant(), &hit.id).await;
        }
        let mut state = self.live();
        let entry =
            state.entries.get_mut(&hit.id).filter(|entry| entry.record.is_of(asked.tenant()));
        let Some(entry) = entry else { return Ok(false) };
        entry.wrong_for.insert(asked.id());
        Ok(true)
    }

    async fn export_some(&self, _: Option<Cursor>) -> Result<(Vec<Record>, Option<Cursor>)> {
        let now = self.clock.now();
        let left = |entry: &Entry| entry.record.clone().with_ttl(entry.end.saturating_sub(now));
        Ok((self.live().entries.values().map(left).collect(), None))
    }

    async fn import_many(&self, records: &[Record]) -> Result<u64> {
        let dimensions = self.embedder.dimensions();
        for (index, record) in records.iter().enumerate() {
            record.check(dimensions).map_err(|problem| Error::record(index + 1, problem))?;
        }
        let now = self.clock.now();
        let mut state = self.live();
        for record in records {
            let _ = state.epoch(record.tenant());
            let entry = Entry {
                vector: record.vector().transpose()?,
                fence: 0,
                wrong_for: BTreeSet::new(),
                observations: Vec::new(),
                kin: record.id()?,
                end: now + record.ttl(),
                record: record.clone(),
            };
            state.entries.insert(record.id()?, entry);
        }
        Ok(records.len() as u64)
    }
}
