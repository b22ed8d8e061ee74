use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inferkit_core::keys::Key;
use inferkit_core::{Batch, Cmd, DriverExt as _};
use inferkit_vectorsearch::{
    Algorithm, Field, FieldKind, Filter, Hit as Row, Knn, MAX_K, SearchResult, Vector,
    VectorIndex as _, VectorIndexExt as _,
};
use tokio::time::Instant;

use super::RedisSemanticCache;
use super::plan::SLOW;
use crate::adaptive::{NEIGHBORS, Pool, decode};
use crate::choose::{Candidate, Learned, choose};
use crate::digest::unique;
use crate::embedding::{SAME, embed};
use crate::entry::{
    ANSWER_FIELDS, EMBEDDING, KIN, OBSERVATIONS, PROMPT, SCOPE, Stored, TIMESTAMP, TTL, Tier,
    WRONG_FOR, Wanted, is_wrong_for,
};
use crate::request::Scope;
use crate::{EntryId, Hit, Lookup, Miss, Request, Result};

/// How many times as many candidates the second search has.
const WIDER: usize = 8;

/// What the first round trip of a lookup brings.
struct Read {
    entry: Stored,
    ttl: Option<Bytes>,
    epoch: Option<String>,
    now: Duration,
    /// As the embedding cache stores it.
    vector: Option<Bytes>,
    pool: Arc<Pool>,
}

/// What a request is looked up by.
struct Search<'s> {
    request: &'s Request,
    scope: Scope,
    epoch: &'s str,
    since: Option<Duration>,
    pool: &'s Arc<Pool>,
}

impl RedisSemanticCache {
    /// Returns the text of the field `scope` of a request's entry, by which the semantic tier filters: its
    /// [`Request::scope`] and the epoch of its tenant.
    #[must_use]
    pub fn scope(&self, request: &Request, epoch: &str) -> String {
        request.scope(self.embedder.model()) + epoch
    }

    /// Returns the query of the semantic tier.
    ///
    /// # Errors
    ///
    /// [`Error::Search`](crate::Error::Search) if `epoch` is not one.
    pub fn query(&self, request: &Request, epoch: &str, vector: Vector) -> Result<Knn> {
        let scope = request.full_scope(self.embedder.model());
        self.query_of(
            &Search { request, scope, epoch, since: None, pool: &Arc::default() },
            vector,
            self.config.candidates,
        )
    }

    pub(super) async fn find(&self, request: &Request) -> Result<Lookup> {
        let scope = request.full_scope(self.embedder.model());
        let Read { entry, ttl, epoch, now, vector, pool } = self.read(request).await?;
        let since = request.control().accepted_age().map(|age| now.saturating_sub(age));
        let no_cache = request.control().is_no_cache();
        if let Some(epoch) = epoch.as_deref().filter(|_| !no_cache) {
            let wanted =
                Wanted { scope: &scope, epoch: epoch.as_bytes(), tier: Tier::Exact, since };
            if let Some((answer, stored_at)) = entry.check(wanted)? {
                let (id, prompt, model) =
                    (request.id(), request.shared_prompt(), request.shared_model());
                self.touch(request, &id, ttl.as_ref()).await?;
                return Ok(Lookup::Exact(Hit::new(id, prompt, &answer, SAME, model, stored_at)));
            }
        }
        let miss = |vector| {
            let miss = Miss::new(request, vector);
            match epoch.as_deref() {
                Some(epoch) => miss.with_epoch(epoch),
                None => miss,
            }
        };
        if !self.config.policy.is_semantic(request) {
            return Ok(Lookup::Miss(miss(None)));
        }
        let vector = embed(&*self.embedder, request, vector).await?;
        let miss = miss(Some(vector.clone()));
        if no_cache {
            return Ok(Lookup::Miss(miss));
        }
        // A tenant without an epoch has no entries; asking for those of another one tells whether the server can search.
        let epoch = epoch.clone().unwrap_or_else(unique);
        let search = Search { request, scope, epoch: &epoch, since, pool: &pool };
        self.semantic(search, vector, miss).await
    }

    /// The fields of the entry of this very request, the tenant's epoch, the server's time if the request has a greatest
    /// age, and the prompt's cached vector if reads are shared: all in one round trip.
    ///
    /// The reads need not be atomic: an entry is served only if it carries the epoch that was read, and no epoch comes back.
    /// A script that did them in one command would cost the server ten times as much.
    async fn read(&self, request: &Request) -> Result<Read> {
        let sliding = self.config.policy.is_sliding();
        let fields = ANSWER_FIELDS.into_iter().chain(sliding.then_some(TTL));
        let key = self.key(request.tenant(), &request.id());
        let mut batch = Batch::new();
        let hash = batch.push::<Vec<Option<Bytes>>>(
            Cmd::with_capacity("HMGET", 256).key(key).args(fields).readonly(),
        );
        let epoch = Cmd::new("GET").key(self.epoch_key(request.tenant())).readonly();
        let epoch = batch.push::<Option<Bytes>>(epoch);
        let timed = request.control().accepted_age().is_some();
        let time = timed.then(|| batch.push::<Vec<u64>>(Cmd::new("TIME").readonly()));
        let shared = self.config.shares_reads && self.config.policy.is_semantic(request);
        let vector = shared.then(|| self.embedder.cached_read(request.prompt())).flatten();
        let vector = vector.map(|cmd| batch.push::<Option<Bytes>>(cmd));

        let learns = self.config.policy.max_wrong().is_some();
        let learns = learns && self.config.policy.is_semantic(request);
        let known = self.pool.fresh();
        let pool = Cmd::new("GET").key(self.pool_key()).readonly();
        let pool = (learns && known.is_none()).then(|| batch.push::<Option<Bytes>>(pool));

        let mut answers = self.driver.run(batch).await?;
        let mut fields = answers.take(hash)?.into_iter();
        let mut next = || fields.next().flatten();
        let entry = Stored::read(&mut next);
        let ttl = next();
        let epoch = answers.take(epoch)?.filter(|epoch| !epoch.is_empty());
        let now = time.map(|time| answers.take(time)).transpose()?;
        let now = now.and_then(|time| time.first().copied()).unwrap_or(0);
        let vector = vector.map(|vector| answers.take(vector)).transpose()?.flatten();
        let pool = match pool {
            Some(pool) => self.pool.refresh(answers.take(pool)?.as_deref().unwrap_or_default()),
            None => known.unwrap_or_default(),
        };
        Ok(Read {
            entry,
            ttl,
            epoch: epoch.and_then(|epoch| String::from_utf8(epoch.into()).ok()),
            now: Duration::from_secs(now),
            vector,
            pool,
        })
    }

    /// Begins an entry's time anew where that is wanted.
    async fn touch(&self, request: &Request, id: &EntryId, ttl: Option<&Bytes>) -> Result<()> {
        let Some(ttl) = ttl.filter(|_| self.config.policy.is_sliding()) else { return Ok(()) };
        let expire = |key: Key| Cmd::new("PEXPIRE").key(key).arg(ttl).idempotent();
        let mut batch = Batch::new();
        // Neither does anything to a key that is gone.
        let entry = batch.push::<()>(expire(self.key(request.tenant(), id)));
        let epoch = batch.push::<()>(expire(self.epoch_key(request.tenant())).arg("GT"));
        let mut answers = self.driver.run(batch).await?;
        answers.take(entry)?;
        Ok(answers.take(epoch)?)
    }

    /// The semantic tier: one `FT.SEARCH`, and a wider one if all candidates were unusable.
    async fn semantic(&self, search: Search<'_>, vector: Vector, miss: Miss) -> Result<Lookup> {
        let learns = self.config.policy.max_wrong().is_some();
        let k = self.config.candidates.max(if learns { NEIGHBORS } else { 0 });
        let mut found = self.search(&search, vector.clone(), k).await?;
        let wider = k.saturating_mul(WIDER).min(MAX_K);
        if found.crowded && k < wider {
            found = self.search(&search, vector, wider).await?;
        }
        let Found { candidates, ttls, partial, .. } = found;
        let miss = miss.with_partial(partial);
        let learned = Learned { controller: &self.controller, pool: search.pool };
        let lookup = choose(&self.config.policy, search.request, candidates, miss, learned).await;
        if let Some(hit) = lookup.hit() {
            let ttl = ttls.iter().find(|(id, _)| *id == hit.id).map(|(_, ttl)| ttl);
            self.touch(search.request, &hit.id, ttl).await?;
        }
        Ok(lookup)
    }

    fn query_of(&self, search: &Search<'_>, vector: Vector, k: usize) -> Result<Knn> {
        let mut filter = Filter::tag(SCOPE, format!("{}{}", search.scope, search.epoch))?;
        if let Some(since) = search.since {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this era fit 53 bits")]
            let since = since.as_secs() as f64;
            filter = filter & Filter::number(TIMESTAMP, since..)?;
        }
        let query = Knn::new(EMBEDDING, vector, k, filter)?.returning(ANSWER_FIELDS)?;
        let query = query.returning([PROMPT, WRONG_FOR])?;
        let learns = self.config.policy.max_wrong().is_some();
        let query = if learns { query.returning([OBSERVATIONS, KIN])? } else { query };
        Ok(if self.config.policy.is_sliding() { query.returning([TTL])? } else { query })
    }

    /// Sends the search, planned by what is known of the scope.
    async fn search_planned(
        &self,
        search: &Search<'_>,
        vector: Vector,
        k: usize,
    ) -> Result<SearchResult> {
        let mut query = self.query_of(search, vector, k)?;
        let index: Arc<_> = self.index();
        let kind = index.schema().field(EMBEDDING).map(Field::kind);
        if !matches!(kind, Some(FieldKind::Vector { algorithm: Algorithm::Hnsw(_), .. })) {
            return Ok(index.knn(&query).await?);
        }
        let scope = format!("{}{}", search.scope, search.epoch);
        let plan = self.plans.get(&scope);
        if let Some(Some(policy)) = plan {
            query = query.with_hybrid_policy(policy)?;
        }
        let start = Instant::now();
        let result = index.knn(&query).await?;
        if plan.is_none() && SLOW < start.elapsed() {
            // The answer is there already: if these fail, the next slow search tries again.
            if let (Ok(matching), Ok(info)) =
                (index.count(&Filter::tag(SCOPE, scope.as_str())?).await, index.info().await)
            {
                self.plans.make(scope, matching, info.documents, self.embedder.dimensions());
            }
        }
        Ok(result)
    }

    /// Collects what may be served among the `k` nearest entries.
    async fn search(&self, search: &Search<'_>, vector: Vector, k: usize) -> Result<Found> {
        let result = self.search_planned(search, vector, k).await?;
        let mut found = Found {
            crowded: 0 < result.skipped + result.unusable,
            partial: result.partial,
            ..Found::default()
        };
        let threshold = self.config.policy.floor_of(search.request);
        let prefix = self.tenant_keys(search.request.tenant()).prefix();
        let wanted = Wanted {
            scope: &search.scope,
            epoch: search.epoch.as_bytes(),
            tier: Tier::Semantic,
            since: search.since,
        };
        for mut row in result.hits {
            let similarity = row.distance.to_similarity();
            let similar = threshold <= similarity;
            if !similar {
                // What lies behind it is not similar enough either.
                found.crowded = false;
            }
            let id = id_of(&row, &prefix);
            let prompt = row.take_field(PROMPT);
            let wrong_for = row.take_field(WRONG_FOR);
            let observations = row.take_field(OBSERVATIONS);
            let kin = row.take_field(KIN);
            let ttl = row.take_field(TTL);
            let mut fields = ANSWER_FIELDS.into_iter();
            let stored = Stored::read(|| row.take_field(fields.next()?));
            let entry = match stored.check(wanted) {
                Ok(entry) => entry,
                // A later release's entry is only in the way if it would be the answer.
                Err(error) if similar && found.candidates.is_empty() => return Err(error),
                Err(_) => None,
            };
            let prompt = prompt.as_deref().and_then(|prompt| str::from_utf8(prompt).ok());
            let (Some(id), Some(prompt), Some((answer, stored_at))) = (id, prompt, entry) else {
                found.crowded |= similar;
                continue;
            };
            if similar {
                found.crowded = false;
            }
            found.ttls.extend(ttl.map(|ttl| (id, ttl)));
            let model = search.request.shared_model();
            let wrong = is_wrong_for(wrong_for.as_ref(), &search.request.id());
            let hit = Hit::new(id, prompt, &answer, similarity, model, stored_at);
            let observations = observations.map_or_else(Vec::new, |text| decode(&text));
            let kin = kin.as_deref().and_then(|kin| str::from_utf8(kin).ok()?.parse().ok());
            let kin = kin.unwrap_or(id);
            found.candidates.push(Candidate { hit, wrong, observations, kin });
            if !similar {
                break;
            }
        }
        Ok(found)
    }
}

/// What a search found.
#[derive(Default)]
struct Found {
    /// The most similar first; at most the last is not similar enough.
    candidates: Vec<Candidate>,
    ttls: Vec<(EntryId, Bytes)>,
    /// Whether entries that cannot be served took places of ones that may be.
    crowded: bool,
    partial: bool,
}

/// The id in the key of a row that lies under `prefix`.
fn id_of(row: &Row, prefix: &str) -> Option<EntryId> {
    str::from_utf8(row.key.strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
}
