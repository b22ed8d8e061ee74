use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Namespace, Ttl};
use inferkit_core::observe::{self, Stopwatch};
use inferkit_core::{Cmd, DriverExt as _, DynDriver, Reply, Script};
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::{
    Algorithm, Filter, Hit as Row, Knn, MAX_K, RedisVectorIndex, Schema, Vector, VectorField,
    VectorIndexExt as _,
};
use tracing::field::Empty;
use tracing::{Instrument as _, debug_span};

use crate::embedding::{SAME, vector_of};
use crate::entry::{
    EMBEDDING, FORMAT_VERSION, MODEL, PROMPT, RESPONSE, SCOPE, Stored, TIMESTAMP, TOKENS_USED,
    Tier, VERSION,
};
use crate::policy::ttl_millis;
use crate::request::Scope;
use crate::{
    Answer, EntryId, Error, Hit, Lookup, Miss, Near, Policy, Request, Result, SemanticCache, Tenant,
};

static STORE: Script = Script::new(include_str!("scripts/store.lua"));

/// The keys that [`RedisSemanticCache`] writes.
pub const KEYS: &[KeyFamily] = &[KeyFamily::new(
    "cache",
    "cache:<tenant digest>:<id>",
    "hash",
    Ttl::Always("as the policy gives the model: 7 days for gpt-4, 1 day for others"),
    &[
        "HMGET",
        "EVALSHA",
        "EVAL",
        "TIME",
        "DEL",
        "HSET",
        "PEXPIRE",
        "FT.SEARCH",
        "FT.INFO",
        "FT.CREATE",
        "FT.DROPINDEX",
    ],
)];

/// The fewest candidates of a search: expired entries take places among them until the server removes them.
const FEWEST_CANDIDATES: usize = 4;

/// The outcome of a call that failed, on its span.
const FAILED: &str = "error";

/// How many times as many candidates the second search has.
const WIDER: usize = 8;

/// How a [`RedisSemanticCache`] is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The namespace of the keys and of the index; empty by default.
    pub namespace: Namespace,
    /// What may be served, and for how long.
    pub policy: Policy,
    /// How the index searches: [`Algorithm::Flat`] by default, which is exact and right up to some thousand entries;
    /// [`Algorithm::Hnsw`] for more.
    pub algorithm: Algorithm,
    /// How many neighbors a search asks for; less than 4 count as 4, and more than
    /// [`MAX_K`] are refused.
    pub candidates: usize,
}

impl Config {
    /// Makes the default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets the policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how the index searches.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets how many neighbors a search asks for.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            policy: Policy::default(),
            algorithm: Algorithm::Flat,
            candidates: FEWEST_CANDIDATES,
        }
    }
}

/// A semantic cache on Redis or Valkey with RediSearch: one hash per entry, one vector index over all.
///
/// Cloning is cheap, and clones share the connection.
///
/// # Examples
///
/// ```no_run
/// # use std::sync::Arc;
/// # use inferkit_semcache::{Config, Embedder, RedisSemanticCache};
/// # use inferkit_semcache::inferkit_core::DynDriver;
/// # async fn example(driver: DynDriver, embedder: Arc<dyn Embedder>) -> inferkit_semcache::Result<()> {
/// let cache = RedisSemanticCache::new(driver, embedder, Config::new())?;
/// cache.ensure_index().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisSemanticCache {
    driver: DynDriver,
    embedder: Arc<dyn Embedder>,
    index: RedisVectorIndex,
    config: Config,
}

impl RedisSemanticCache {
    /// Makes a cache; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Search`](crate::Error::Search) if the embedder's dimensions or the algorithm's numbers cannot be indexed, or
    /// the namespace does not start with a letter, as the name of an index must;
    /// [`Error::TooManyCandidates`] above [`MAX_K`].
    pub fn new(driver: DynDriver, embedder: Arc<dyn Embedder>, mut config: Config) -> Result<Self> {
        config.candidates = config.candidates.max(FEWEST_CANDIDATES);
        if MAX_K < config.candidates {
            return Err(Error::TooManyCandidates { got: config.candidates, max: MAX_K });
        }
        let dimensions = embedder.dimensions();
        let field = match config.algorithm {
            Algorithm::Hnsw(hnsw) => VectorField::hnsw(EMBEDDING, dimensions, hnsw),
            _ => VectorField::flat(EMBEDDING, dimensions),
        };
        // Under the keys' own prefix, since servers check the permission for the index's name like a key's.
        let name = family(&config.namespace).literal("idx").build();
        let schema = Schema::builder(name.as_str(), family(&config.namespace).prefix(), field)
            .tag(SCOPE)
            .numeric(TIMESTAMP)
            .build()?;
        let index = RedisVectorIndex::new(Arc::clone(&driver), schema);
        Ok(Self { driver, embedder, index, config })
    }

    /// Creates the index unless it exists with the same schema; returns whether this call created it.
    ///
    /// One `FT.INFO` if it exists, else also one `FT.CREATE`; safe to call from many processes at once and to repeat.
    ///
    /// # Errors
    ///
    /// [`Error::Search`](crate::Error::Search) if an index of this name has another schema, such as other dimensions, or
    /// the server has no search; [`Error::Backend`](crate::Error::Backend) if it could not be asked.
    pub async fn ensure_index(&self) -> Result<bool> {
        Ok(self.index.ensure_index().await?)
    }

    /// Returns the index, for who wants to look at it or drop it.
    #[must_use]
    pub fn index(&self) -> &RedisVectorIndex {
        &self.index
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the server's key of an entry.
    #[must_use]
    pub fn key(&self, tenant: &Tenant, id: &EntryId) -> Key {
        family(&self.config.namespace).part(tenant.hex().as_str()).part(id.hex().as_str()).build()
    }

    /// Returns the text of the field `scope` of a request's entry, by which the semantic tier filters; see
    /// [`Request::scope`].
    #[must_use]
    pub fn scope(&self, request: &Request) -> String {
        self.full_scope(request).to_string()
    }

    fn full_scope(&self, request: &Request) -> Scope {
        request.full_scope(self.embedder.model())
    }

    async fn find(&self, request: &Request) -> Result<Lookup> {
        self.config.policy.check(request)?;
        let scope = self.full_scope(request);
        if let Some(hit) = self.exact(request, &scope).await? {
            return Ok(Lookup::Exact(hit));
        }
        let vector = vector_of(&*self.embedder, request, None).await?;
        self.semantic(request, &scope, vector).await
    }

    async fn put(
        &self,
        request: &Request,
        answer: &Answer,
        embedding: Option<Vector>,
    ) -> Result<EntryId> {
        let policy = &self.config.policy;
        policy.check(request)?;
        let ttl = ttl_millis(policy.ttl(request.model()))?;
        let vector = vector_of(&*self.embedder, request, embedding).await?;
        let id = request.id();
        let mut cmd = Cmd::eval(&STORE, &[self.key(request.tenant(), &id)])
            .arg(ttl)
            .arg(VERSION)
            .arg(FORMAT_VERSION)
            .arg(SCOPE)
            .arg(self.scope(request))
            .arg(PROMPT)
            .arg(request.prompt())
            .arg(RESPONSE)
            .arg(answer.response())
            .arg(MODEL)
            .arg(request.model())
            .arg(EMBEDDING)
            .arg(&vector);
        if let Some(tokens_used) = answer.tokens_used() {
            cmd = cmd.arg(TOKENS_USED).arg(tokens_used);
        }
        self.driver.query::<()>(cmd.idempotent()).await?;
        Ok(id)
    }

    /// The exact tier: one `HMGET`.
    async fn exact(&self, request: &Request, scope: &Scope) -> Result<Option<Hit>> {
        let id = request.id();
        let cmd = Cmd::with_capacity("HMGET", 256)
            .key(self.key(request.tenant(), &id))
            .args([VERSION, SCOPE, RESPONSE, TIMESTAMP, TOKENS_USED])
            .readonly();
        let fields: Vec<Reply> = self.driver.query(cmd).await?;
        let mut fields = fields.into_iter().map(|field| match field {
            Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        });
        let mut next = || fields.next().flatten();
        let stored = Stored {
            version: next(),
            scope: next(),
            response: next(),
            timestamp: next(),
            tokens_used: next(),
        };
        Ok(stored.check(scope, Tier::Exact)?.map(|(answer, stored_at)| {
            let (prompt, model) = (request.shared_prompt(), request.shared_model());
            Hit::new(id, prompt, &answer, SAME, model, stored_at)
        }))
    }

    /// The semantic tier: one `FT.SEARCH`, and a wider one if all candidates were unusable.
    async fn semantic(&self, request: &Request, scope: &Scope, vector: Vector) -> Result<Lookup> {
        let k = self.config.candidates;
        let mut found = self.search(request, scope, &vector, k).await?;
        let wider = k.saturating_mul(WIDER).min(MAX_K);
        if found.crowded && k < wider {
            found = self.search(request, scope, &vector, wider).await?;
        }
        Ok(match found.hit {
            Some(hit) => Lookup::Semantic(hit),
            None => Lookup::Miss(
                Miss::new(request, Some(vector), found.nearest).with_partial(found.partial),
            ),
        })
    }

    /// Looks for an answer among the `k` nearest entries.
    async fn search(
        &self,
        request: &Request,
        scope: &Scope,
        vector: &Vector,
        k: usize,
    ) -> Result<Found> {
        let filter = Filter::tag(SCOPE, scope.to_string())?;
        let query = Knn::new(EMBEDDING, vector.clone(), k, filter)?.returning([
            VERSION,
            SCOPE,
            RESPONSE,
            TIMESTAMP,
            TOKENS_USED,
            PROMPT,
        ])?;
        let result = self.index.knn(&query).await?;
        let mut found = Found {
            crowded: 0 < result.skipped + result.unusable,
            partial: result.partial,
            ..Found::default()
        };
        let prefix = family(&self.config.namespace).part(request.tenant().hex().as_str()).prefix();
        for mut row in result.hits {
            let similarity = row.distance.to_similarity();
            let similar = self.config.policy.threshold() <= similarity;
            if !similar {
                // What lies behind it is not similar enough either.
                found.crowded = false;
            }
            let Some(id) = id_of(&row, &prefix) else {
                found.crowded |= similar;
                continue;
            };
            let prompt = row.take_field(PROMPT);
            let (answer, stored_at) = match take_stored(&mut row).check(scope, Tier::Semantic) {
                Ok(Some(entry)) => entry,
                // A later release's entry is only in the way if it would be the answer.
                Err(error) if similar => return Err(error),
                Ok(None) | Err(_) => {
                    found.crowded |= similar;
                    continue;
                }
            };
            let Some(prompt) = prompt.as_deref().and_then(|prompt| str::from_utf8(prompt).ok())
            else {
                found.crowded |= similar;
                continue;
            };
            if similar {
                let model = request.shared_model();
                found.hit = Some(Hit::new(id, prompt, &answer, similarity, model, stored_at));
                found.crowded = false;
            } else {
                found.nearest = Some(Near::new(id, similarity));
            }
            break;
        }
        Ok(found)
    }
}

/// What a search found.
#[derive(Debug, Default)]
struct Found {
    hit: Option<Hit>,
    nearest: Option<Near>,
    /// Whether entries that cannot be served took places of ones that may be.
    crowded: bool,
    partial: bool,
}

#[async_trait]
impl SemanticCache for RedisSemanticCache {
    /// One `HMGET` if the very same request was answered; else the embedding and one `FT.SEARCH`, and once more one with
    /// eight times the candidates if none of the first could be served because they had expired or were damaged.
    async fn lookup(&self, request: &Request) -> Result<Lookup> {
        let span = debug_span!("semcache.lookup", outcome = Empty, similarity = Empty);
        let time = Stopwatch::start();
        let lookup = self.find(request).instrument(span.clone()).await;
        observe_lookup(&lookup, time);
        if !span.is_disabled() {
            span.record("outcome", lookup.as_ref().map_or(FAILED, Lookup::outcome));
            if let Some(hit) = lookup.as_ref().ok().and_then(Lookup::hit) {
                span.record("similarity", hit.similarity.as_f64());
            }
        }
        lookup
    }

    /// One `EVALSHA`.
    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        embedding: Option<Vector>,
    ) -> Result<EntryId> {
        let span = debug_span!("semcache.store", outcome = Empty);
        let stored = self.put(request, answer, embedding).instrument(span.clone()).await;
        let outcome = if stored.is_ok() { "stored" } else { FAILED };
        span.record("outcome", outcome);
        observe::count("inferkit_semcache_stores_total", &[("outcome", outcome)], 1);
        stored
    }

    /// One `DEL`.
    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
        let cmd = Cmd::new("DEL").key(self.key(tenant, id)).idempotent();
        let span = debug_span!("semcache.remove", outcome = Empty);
        let removed = self.driver.query(cmd).instrument(span.clone()).await;
        let outcome = match removed {
            Ok(true) => "removed",
            Ok(false) => "absent",
            Err(_) => FAILED,
        };
        span.record("outcome", outcome);
        Ok(removed?)
    }
}

fn observe_lookup(lookup: &Result<Lookup>, time: Stopwatch) {
    let labels = [("outcome", lookup.as_ref().map_or(FAILED, Lookup::outcome))];
    time.record("inferkit_semcache_lookup_seconds", &labels);
    observe::count("inferkit_semcache_lookups_total", &labels, 1);
    if let Ok(Lookup::Semantic(hit)) = lookup {
        observe::record("inferkit_semcache_hit_similarity", &[], hit.similarity.as_f64());
    }
    if let Some(tokens) = lookup.as_ref().ok().and_then(Lookup::hit).and_then(|hit| hit.tokens_used)
    {
        observe::count("inferkit_semcache_tokens_saved_total", &[], tokens);
    }
}

fn family(namespace: &Namespace) -> KeyBuilder {
    namespace.family("cache")
}

/// The id in the key of a row that lies under `prefix`.
fn id_of(row: &Row, prefix: &str) -> Option<EntryId> {
    str::from_utf8(row.key.strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
}

fn take_stored(row: &mut Row) -> Stored {
    let mut take = |field: &str| -> Option<Bytes> { row.take_field(field) };
    Stored {
        version: take(VERSION),
        scope: take(SCOPE),
        response: take(RESPONSE),
        timestamp: take(TIMESTAMP),
        tokens_used: take(TOKENS_USED),
    }
}
