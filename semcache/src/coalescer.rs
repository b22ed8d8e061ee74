use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use inferkit_core::{HeldLease, SingleFlight};
use inferkit_vectorsearch::Similarity;
use tokio::time::Instant;

use crate::flights::{Landing, RedisFlights};
use crate::lookup::Explored;
use crate::stats::record;
use crate::stream::{AnswerStream, Chunk};
use crate::{
    Answer, CacheControl, EntryId, Error, Feedback, Finish, Hit, Judge, Lookup, Miss, Rejection,
    Request, SemanticCache, Stored,
};

/// What a generation can fail with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the lease of a generation lasts unless it is renewed.
const LEASE: Duration = Duration::from_secs(10);

/// Answers requests from a cache, and generates what is missing once, however many ask at the same time.
///
/// Requests are the same question if their [ids](Request::id) and [controls](Request::control) are equal.
/// Within the process the first caller looks up and generates, and all receive its answer or its error; if it is dropped,
/// another takes over.
/// With [`across`](Self::across), one process generates at a time: it holds a lease that it renews while it generates, the
/// others are woken when the answer is stored, and one of them takes over if the owner dies, when its lease ends.
/// An owner that was thought dead does not overwrite the answer of the next one (fencing).
///
/// Requests that want [no storing](CacheControl::no_store) are answered on their own.
/// An answer that is not stored, because it is truncated, is given to all who waited in the same process; other processes
/// generate their own.
///
/// Cloning is cheap, and clones share the work.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use inferkit_semcache::{Answer, Coalescer, Request, SemanticCache, Source, Tenant};
/// # async fn example(cache: Arc<dyn SemanticCache>) -> Result<(), Box<dyn std::error::Error>> {
/// let coalescer = Coalescer::new(cache);
/// let request = Request::new(Tenant::new("acme")?, "gpt-4.1", "What is a monad?")?;
/// let served = coalescer
///     .get_or_generate(&request, || async {
///         // Here the model is asked.
///         Ok::<_, std::io::Error>(Answer::new("A monoid in the category of endofunctors.").unwrap())
///     })
///     .await?;
/// println!("{:?} {:?}", served.source, served.answer.text());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Coalescer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Arc<dyn SemanticCache>,
    local: SingleFlight<Question, Result<Served, GenerateError>>,
    flights: Option<RedisFlights>,
    lease: Duration,
    on_cache_error: OnCacheError,
    judge: Option<Arc<dyn Judge>>,
    negative_ttl: Option<Duration>,
    // A `std` mutex: it is held for look-ups, never across an await.
    failures: Mutex<HashMap<Question, (Instant, GenerateError)>>,
}

type Question = (EntryId, CacheControl);

/// What happens to a request when the cache cannot be asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnCacheError {
    /// The request fails.
    Fail,
    /// The answer is generated as if there were no cache, and a warning is logged.
    #[default]
    Generate,
}

/// An answer, and where it came from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Served {
    /// The answer.
    pub answer: Answer,
    /// Where it came from.
    pub source: Source,
    /// When the cache stored it, since the Unix epoch, by the server's clock; none of what was generated just now.
    pub stored_at: Option<Duration>,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// The cache had the answer to the very same request.
    Exact,
    /// This call generated it.
    Generated,
    /// The cache had the answer to a request whose prompt is this similar.
    Semantic(Similarity),
    /// Another call generated it while this one waited.
    Shared,
}

/// Why there is no answer; all who waited for it receive the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The stream of the model ended before the model had finished.
    #[error("the stream ended before the model had finished: ask again")]
    BrokenOff,
    /// The cache could not be asked, and [`OnCacheError::Fail`] is set.
    #[error("the cache could not be asked")]
    Cache(#[source] Arc<Error>),
    /// The model failed.
    #[error("the answer could not be generated")]
    Generate(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl Coalescer {
    /// Answers from `cache`, and shares work within this process; no I/O.
    #[must_use]
    pub fn new(cache: Arc<dyn SemanticCache>) -> Self {
        Self(Arc::new(Inner {
            cache,
            local: SingleFlight::new(),
            flights: None,
            lease: LEASE,
            on_cache_error: OnCacheError::default(),
            judge: None,
            negative_ttl: None,
            failures: Mutex::default(),
        }))
    }

    /// Shares work with all processes that use the same Redis and namespace.
    #[must_use]
    pub fn across(self, flights: RedisFlights) -> Self {
        self.set(|inner| inner.flights = Some(flights))
    }

    /// Sets how long after the death of the process that generates another takes over, 10 seconds by default.
    ///
    /// The lease is renewed at a third of that, so generating may take longer.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        self.set(|inner| inner.lease = lease.max(Duration::from_millis(30)))
    }

    /// Sets what happens when the cache cannot be asked; by default answers are generated without it.
    #[must_use]
    pub fn with_on_cache_error(self, on_cache_error: OnCacheError) -> Self {
        self.set(|inner| inner.on_cache_error = on_cache_error)
    }

    /// Has `judge` compare each fresh answer with those that are near, if an [adaptive](crate::Policy::adaptive) policy served
    /// none of them: with the candidate's, which is reported, and with up to two others, so that answers that agree are known.
    ///
    /// That is done before the answer is stored and returned; a report costs one round trip. Without a judge only what a verifier refused is reported, as wrong.
    #[must_use]
    pub fn with_judge(self, judge: Arc<dyn Judge>) -> Self {
        self.set(|inner| inner.judge = Some(judge))
    }

    /// Remembers the failure of a generation for this long, in this process: the same question fails at once meanwhile.
    ///
    /// Without it nothing is remembered, and the next caller tries again.
    #[must_use]
    pub fn with_negative_ttl(self, ttl: Duration) -> Self {
        self.set(|inner| inner.negative_ttl = Some(ttl))
    }

    fn set(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = self.0;
        // Nobody has a clone before it is set up; else this one goes on as it is.
        if let Some(inner) = Arc::get_mut(&mut inner) {
            change(inner);
        }
        Self(inner)
    }

    /// Gives back the leases of generations that were dropped, so that other processes need not wait for their end.
    ///
    /// Spawn it if you like; without it everything is right, and such a lease ends after its time.
    /// It ends when the coalescer and its clones are dropped.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let run = self.0.flights.as_ref().map(|flights| flights.keeper().run());
        async move {
            if let Some(run) = run {
                run.await;
            }
        }
    }

    /// Returns the answer of the cache, or that of `generate`, which is stored.
    ///
    /// A hit takes as many round trips as [`SemanticCache::lookup`]; a generation across processes five more: two to take
    /// the lease, one to look again, one to give it back and one to wake the others.
    ///
    /// # Errors
    ///
    /// [`GenerateError`]. A failure to store the answer is logged and does not fail the request.
    ///
    /// # Cancel safety
    ///
    /// If the future that generates is dropped, nothing is stored, and one that waits takes over.
    pub async fn get_or_generate<F, G, E>(
        &self,
        request: &Request,
        generate: F,
    ) -> Result<Served, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, E>> + Send,
        E: Into<BoxError>,
    {
        let generate = || async {
            generate().await.map_err(|error| GenerateError::Generate(Arc::from(error.into())))
        };
        self.answer(request, generate).await
    }

    /// Returns the answer as a stream: that of the cache in pieces, or that of `start` as it comes, which is stored when
    /// it is complete.
    ///
    /// Nothing happens before the stream is read.
    /// Whoever waits for a stream of somebody else receives the whole answer when it is complete, in pieces.
    /// A stream that fails, that ends without [`Chunk::Done`], or that is dropped before its end is not stored; while it is
    /// not read, its lease is not renewed.
    pub fn get_or_stream<F, G, S, E>(&self, request: Request, start: F) -> AnswerStream
    where
        F: FnOnce() -> G + Send + 'static,
        G: Future<Output = Result<S, E>> + Send + 'static,
        S: Stream<Item = Result<Chunk, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let this = self.clone();
        AnswerStream::new(|pieces| async move {
            this.answer(&request, || crate::stream::collect(start, pieces)).await
        })
    }

    async fn answer<F, G>(&self, request: &Request, generate: F) -> Result<Served, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, GenerateError>> + Send,
    {
        let inner = &*self.0;
        if request.control().is_no_store() {
            return Box::pin(inner.answer_alone(request, generate)).await;
        }
        let question = (request.id(), *request.control());
        if let Some(failure) = inner.failed_before(&question) {
            return Err(failure);
        }
        let ran = AtomicBool::new(false);
        let work = async {
            ran.store(true, Ordering::Relaxed);
            Box::pin(inner.look_up_or_generate(request, generate)).await
        };
        let mut outcome = inner.local.run(question, work).await;
        match &mut outcome {
            _ if ran.load(Ordering::Relaxed) => {
                inner.remember(question, outcome.as_ref().err());
            }
            Ok(served) if served.source == Source::Generated => served.source = Source::Shared,
            _ => {}
        }
        outcome
    }
}

impl Inner {
    async fn answer_alone<F, G>(
        &self,
        request: &Request,
        generate: F,
    ) -> Result<Served, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, GenerateError>> + Send,
    {
        match self.look_up(request).await? {
            Ok(served) => Ok(served),
            Err(_) => self.generate(generate).await.map(generated),
        }
    }

    async fn look_up_or_generate<F, G>(
        &self,
        request: &Request,
        generate: F,
    ) -> Result<Served, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, GenerateError>> + Send,
    {
        let miss = match self.look_up(request).await? {
            Ok(served) => return Ok(served),
            Err(miss) => miss,
        };
        let Some(flights) = &self.flights else {
            let answer = self.generate(generate).await?;
            self.store(request, &answer, miss).await;
            return Ok(generated(answer));
        };
        loop {
            let turn = match self.take_turn(flights, request).await {
                Ok(turn) => turn,
                Err(error) => {
                    self.tolerate(error.into())?;
                    let answer = self.generate(generate).await?;
                    self.store(request, &answer, miss).await;
                    return Ok(generated(answer));
                }
            };
            let lease = match turn {
                Turn::Ours(lease) => lease,
                Turn::Landed(Some(Landing::Stored)) => match self.look_again(request).await {
                    Some(hit) => return Ok(served(&hit, Source::Shared)),
                    None => continue,
                },
                Turn::Landed(Some(Landing::Unstored)) => {
                    return self.generate(generate).await.map(generated);
                }
                Turn::Landed(Some(Landing::Failed) | None) => continue,
            };
            // It may have been stored between the lookup and the lease.
            if let Some(hit) = self.look_again(request).await {
                release(lease).await;
                return Ok(served(&hit, Source::Shared));
            }
            let miss = miss.map(|miss| miss.with_fence(lease.token()));
            let miss = miss.or_else(|| Some(Miss::new(request, None).with_fence(lease.token())));
            let outcome = self.generate_leased(flights, &lease, generate).await;
            let landing = match &outcome {
                Ok(answer) => match self.store(request, answer, miss).await {
                    Some(Stored::Kept(_)) => Landing::Stored,
                    _ => Landing::Unstored,
                },
                Err(_) => Landing::Failed,
            };
            // In this order, so that whoever is woken by a failure finds the lease free.
            release(lease).await;
            if let Err(error) = flights.announce(request, landing).await {
                tracing::warn!(kind = ?error.kind(), "those who wait for an answer could not be woken");
            }
            return outcome.map(generated);
        }
    }

    /// The answer in the cache, or the miss; no miss if the cache could not be asked and that is tolerated.
    #[expect(clippy::result_large_err, reason = "a miss is no error: it is passed on once")]
    async fn look_up(
        &self,
        request: &Request,
    ) -> Result<Result<Served, Option<Miss>>, GenerateError> {
        match self.cache.lookup(request).await {
            Ok(Lookup::Exact(hit)) => Ok(Ok(served(&hit, Source::Exact))),
            Ok(Lookup::Semantic(hit)) => Ok(Ok(served(&hit, Source::Semantic(hit.similarity)))),
            Ok(lookup) => Ok(Err(lookup.into_hit().err())),
            Err(error) => self.tolerate(error).map(|()| Err(None)),
        }
    }

    /// The answer to this very request, by now.
    async fn look_again(&self, request: &Request) -> Option<Hit> {
        let control = request.control();
        if control.is_no_cache() {
            return None;
        }
        let exact = request.clone().with_control(control.exact_only());
        self.cache.lookup(&exact).await.ok()?.into_hit().ok()
    }

    /// Takes the lease, or waits for a while for who has it.
    async fn take_turn(
        &self,
        flights: &RedisFlights,
        request: &Request,
    ) -> inferkit_core::Result<Turn> {
        // First the mark: what is announced after the lease was refused comes behind it.
        let mark = flights.mark(request).await?;
        let name = RedisFlights::lease_name(request);
        match flights.keeper().acquire(&name, self.lease).await? {
            Some(lease) => Ok(Turn::Ours(lease)),
            // The death of the owner is not announced: its lease is tried again now and then.
            None => Ok(Turn::Landed(flights.wait(request, &mark, self.lease / 4).await?)),
        }
    }

    async fn generate<F, G>(&self, generate: F) -> Result<Answer, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, GenerateError>> + Send,
    {
        let outcome = generate().await;
        record::generation(match &outcome {
            Ok(answer) if answer.finish() == Finish::Complete => "complete",
            Ok(_) => "incomplete",
            Err(_) => "failed",
        });
        outcome
    }

    /// Generates while the lease is renewed.
    async fn generate_leased<F, G>(
        &self,
        flights: &RedisFlights,
        lease: &HeldLease,
        generate: F,
    ) -> Result<Answer, GenerateError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = Result<Answer, GenerateError>> + Send,
    {
        tokio::select! {
            outcome = self.generate(generate) => outcome,
            never = self.renew(flights, lease) => match never {},
        }
    }

    async fn renew(&self, flights: &RedisFlights, lease: &HeldLease) -> Infallible {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            // If it is lost, the fencing token keeps the answer from overwriting the next owner's.
            if let Err(error) = flights.leases().renew(lease, self.lease).await {
                tracing::debug!(kind = ?error.kind(), "a lease could not be renewed");
            }
        }
    }

    /// Stores an answer; a failure is logged.
    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        mut miss: Option<Miss>,
    ) -> Option<Stored> {
        if let Some(miss) = &mut miss
            && let Some(explored) = miss.explored.take()
        {
            self.judge(request, answer, *explored, miss).await;
        }
        match self.cache.store(request, answer, miss).await {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(%error, "an answer could not be stored");
                None
            }
        }
    }

    /// Finds out which of the answers that are near agree with the fresh one; whether the candidate does is reported.
    ///
    /// Failures are logged.
    async fn judge(&self, request: &Request, answer: &Answer, explored: Explored, miss: &mut Miss) {
        if answer.finish() != Finish::Complete {
            return;
        }
        let Some(judge) = &self.judge else {
            if let (Rejection::Verifier, Some(candidate)) =
                (explored.reason, explored.answers.first())
            {
                self.tell(request, &candidate.hit, Feedback::Wrong).await;
            }
            return;
        };
        for (place, alternative) in explored.answers.iter().enumerate() {
            let Ok(feedback) = judge.judge(request, answer, &alternative.hit).await else {
                // The text of its error may hold what it was asked.
                tracing::warn!("a judge failed");
                return;
            };
            if place == 0 {
                self.tell(request, &alternative.hit, feedback).await;
            }
            if feedback == Feedback::Right {
                miss.agree(alternative);
            }
        }
    }

    async fn tell(&self, request: &Request, candidate: &Hit, feedback: Feedback) {
        if let Err(error) = self.cache.report(request, candidate, feedback).await {
            tracing::warn!(%error, "a judgment could not be reported");
        }
    }

    fn tolerate(&self, error: Error) -> Result<(), GenerateError> {
        match self.on_cache_error {
            OnCacheError::Fail => Err(GenerateError::Cache(Arc::new(error))),
            OnCacheError::Generate => {
                tracing::warn!(%error, "the cache could not be asked: going on without it");
                Ok(())
            }
        }
    }

    fn failed_before(&self, question: &Question) -> Option<GenerateError> {
        let ttl = self.negative_ttl?;
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, failure) = failures.get(question)?;
        (at.elapsed() < ttl).then(|| failure.clone())
    }

    fn remember(&self, question: Question, failure: Option<&GenerateError>) {
        let (Some(ttl), Some(failure)) = (self.negative_ttl, failure) else { return };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, (at, _)| at.elapsed() < ttl);
        failures.insert(question, (Instant::now(), failure.clone()));
    }
}

/// What comes of trying to generate.
enum Turn {
    /// It is this call that generates.
    Ours(HeldLease),
    /// Another did, and it ended so; or it is still at work, or dead.
    Landed(Option<Landing>),
}

async fn release(lease: HeldLease) {
    if let Err(error) = lease.release().await {
        tracing::debug!(kind = ?error.kind(), "a lease could not be given back");
    }
}

fn generated(answer: Answer) -> Served {
    Served { answer, source: Source::Generated, stored_at: None }
}

fn served(hit: &Hit, source: Source) -> Served {
    Served { answer: hit.answer(), source, stored_at: Some(hit.stored_at) }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Generated => "generated",
            Self::Semantic(_) => "semantic",
            Self::Shared => "shared",
        })
    }
}
