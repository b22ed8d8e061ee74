//! The suite that every [`SemanticCache`] passes; list it with [`semantic_cache_conformance!`](crate::semantic_cache_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]
#![expect(clippy::panic, clippy::expect_used, reason = "a case fails by a panic")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::Vector;

use crate::{
    Answer, Error, Hit, Lookup, Miss, Policy, Request, SemanticCache, SemanticCacheExt as _, Tenant,
};

/// The dimensions of [`Compass`].
pub const DIMENSIONS: usize = 16;

/// How many topics [`Compass`] tells apart.
const TOPICS: u64 = 8;

/// The model whose answers live for 50 ms under [`policy`].
pub const SHORT_LIVED: &str = "short-lived";

/// An embedder for tests, by which every similarity is known beforehand.
///
/// A prompt like `3@18 any words` is the direction of 18 degrees in a plane of topic 3: the similarity of two prompts of
/// one topic is the cosine of the angle between them, and 0 for two topics.
/// Any other prompt is a direction made of its bytes.
/// `zero`, `nan`, `infinite` and `short` at the beginning of a prompt make such vectors, `fail` an error.
#[derive(Debug, Default)]
pub struct Compass(AtomicUsize);

impl Compass {
    /// Returns how many texts were embedded.
    #[must_use]
    pub fn embedded(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Embedder for Compass {
    fn model(&self) -> &str {
        "compass"
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    async fn embed_many(&self, texts: &[&str]) -> inferkit_embcache::Result<Vec<Vec<f32>>> {
        self.0.fetch_add(texts.len(), Ordering::SeqCst);
        texts.iter().map(|text| direction(text)).collect()
    }
}

fn direction(text: &str) -> inferkit_embcache::Result<Vec<f32>> {
    let first = text.split_whitespace().next().unwrap_or_default();
    let mut vector = vec![0.0; DIMENSIONS];
    match first {
        "zero" => return Ok(vector),
        "nan" => return Ok(vec![f32::NAN; DIMENSIONS]),
        "infinite" => return Ok(vec![f32::INFINITY; DIMENSIONS]),
        "short" => return Ok(vec![1.0; DIMENSIONS - 1]),
        "fail" => return Err(inferkit_embcache::Error::embedder("the model is out")),
        _ => {}
    }
    let written = first
        .split_once('@')
        .and_then(|(topic, angle)| Some((topic.parse::<u64>().ok()?, angle.parse::<f32>().ok()?)));
    let (topic, angle) = written.unwrap_or_else(|| {
        // FNV-1a.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash, f32::from(u16::try_from(hash >> 48).unwrap_or_default()) / 65536.0 * 360.0)
    });
    let place = usize::try_from(topic % TOPICS).unwrap_or_default() * 2;
    let (sine, cosine) = angle.to_radians().sin_cos();
    for (component, value) in vector.iter_mut().skip(place).zip([cosine, sine]) {
        *component = value;
    }
    Ok(vector)
}

/// The policy of the caches that the suite is run on.
#[must_use]
pub fn policy() -> Policy {
    Policy::default().with_model_ttl(SHORT_LIVED, Duration::from_millis(50)).unwrap()
}

/// Names a test per case; `$make` is an `async fn` that returns an empty cache with [`Compass`](crate::conformance::Compass)
/// and [`policy`](crate::conformance::policy).
#[macro_export]
macro_rules! semantic_cache_conformance {
    ($make:path) => {
        $crate::semantic_cache_conformance! { $make:
            an_empty_cache_misses, the_same_request_hits_exactly, a_similar_prompt_hits,
            a_prompt_that_is_not_similar_enough_misses, the_most_similar_prompt_wins,
            tenants_are_kept_apart, models_are_kept_apart, contexts_are_kept_apart,
            storing_again_replaces_everything, a_removed_entry_is_gone,
            another_tenant_removes_nothing, vectors_that_cannot_be_compared_are_refused,
            a_given_vector_of_other_dimensions_is_refused, a_failing_embedder_is_an_error,
            any_text_comes_back_unchanged, prompts_that_are_too_long_are_refused, entries_expire,
            a_miss_can_be_filled,
            a_miss_fills_its_own_request_only, many_tasks_share_the_cache,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

fn request(prompt: &str) -> Request {
    of("acme", "gpt-4", prompt)
}

fn of(tenant: &str, model: &str, prompt: &str) -> Request {
    Request::new(Tenant::new(tenant).unwrap(), model, prompt).unwrap()
}

fn answer(text: &str) -> Answer {
    Answer::new(text.to_owned()).unwrap()
}

async fn store(cache: &dyn SemanticCache, request: &Request, text: &str) {
    let id = cache.store(request, &answer(text), None).await.unwrap();
    assert_eq!(id, request.id());
}

async fn exact(cache: &dyn SemanticCache, request: &Request) -> Hit {
    match cache.lookup(request).await.unwrap() {
        Lookup::Exact(hit) => hit,
        other => panic!("expected an exact hit, got {other:?}"),
    }
}

async fn semantic(cache: &dyn SemanticCache, request: &Request) -> Hit {
    match cache.lookup(request).await.unwrap() {
        Lookup::Semantic(hit) => hit,
        other => panic!("expected a semantic hit, got {other:?}"),
    }
}

async fn miss(cache: &dyn SemanticCache, request: &Request) -> Miss {
    match cache.lookup(request).await.unwrap() {
        Lookup::Miss(miss) => miss,
        other => panic!("expected a miss, got {other:?}"),
    }
}

/// The cosine of an angle in degrees.
fn cosine(degrees: f64) -> f64 {
    degrees.to_radians().cos()
}

/// Nothing is found where nothing was stored, and the vector is handed out.
pub async fn an_empty_cache_misses(cache: &dyn SemanticCache) {
    let miss = miss(cache, &request("1@0")).await;
    assert_eq!(miss.nearest, None);
    assert_eq!(miss.embedding.unwrap().dimensions(), DIMENSIONS);
}

/// The very same request is answered with everything that was stored.
pub async fn the_same_request_hits_exactly(cache: &dyn SemanticCache) {
    let request = request("1@0 question");
    cache.store(&request, &answer("yes").with_tokens_used(250), None).await.unwrap();
    let hit = exact(cache, &request).await;
    assert_eq!(hit.text(), Some("yes"));
    assert_eq!((hit.id, hit.tokens_used), (request.id(), Some(250)));
    assert_eq!((&*hit.prompt, &*hit.model), ("1@0 question", "gpt-4"));
    assert!((hit.similarity.as_f64() - 1.0).abs() < f64::EPSILON);
    assert!(Duration::from_secs(1_600_000_000) < hit.stored_at);
}

/// A prompt above the threshold is answered with the other's answer, and says which.
pub async fn a_similar_prompt_hits(cache: &dyn SemanticCache) {
    let stored = request("1@0 stored");
    cache.store(&stored, &answer("yes").with_tokens_used(7), None).await.unwrap();
    let hit = semantic(cache, &request("1@18 asked")).await;
    assert_eq!((hit.text(), hit.tokens_used), (Some("yes"), Some(7)));
    assert_eq!((&*hit.prompt, &*hit.model, hit.id), ("1@0 stored", "gpt-4", stored.id()));
    assert!((hit.similarity.as_f64() - cosine(18.0)).abs() < 1e-5, "{hit:?}");
    // The same words but for the case, which the embedder does not see.
    let hit = semantic(cache, &request("1@0 Stored")).await;
    assert!((hit.similarity.as_f64() - 1.0).abs() < 1e-5, "{hit:?}");
}

/// A prompt below the threshold is not answered; how near it came is told.
pub async fn a_prompt_that_is_not_similar_enough_misses(cache: &dyn SemanticCache) {
    let stored = request("1@0");
    store(cache, &stored, "yes").await;
    let near = miss(cache, &request("1@19")).await.nearest.unwrap();
    assert_eq!(near.id, stored.id());
    assert!((near.similarity.as_f64() - cosine(19.0)).abs() < 1e-5, "{near:?}");
}

/// Among several prompts that are similar enough, the most similar one answers.
pub async fn the_most_similar_prompt_wins(cache: &dyn SemanticCache) {
    for angle in [0, 8, 16, 24, 60] {
        store(cache, &request(&format!("1@{angle}")), &angle.to_string()).await;
        store(cache, &request(&format!("2@{angle}")), "another topic").await;
    }
    for (asked, expected) in [("1@3", "0"), ("1@11", "8"), ("1@-10", "0"), ("1@21", "24")] {
        assert_eq!(semantic(cache, &request(asked)).await.text(), Some(expected), "{asked}");
    }
}

/// No name of a tenant, however it is written, sees another's answers.
pub async fn tenants_are_kept_apart(cache: &dyn SemanticCache) {
    let names = [
        "a",
        "A",
        " a",
        "a ",
        "a,b",
        "b",
        "a|b",
        "*",
        "a*",
        "{a}",
        "a\nb",
        "a\0",
        "\"a\"",
        "'a'",
        "a:b",
        "@scope:{a}",
        "shared",
        "null",
        "é",
        "e\u{301}",
        "\\",
        "a-b",
        "a)=>[KNN 1 @v $b]",
    ];
    for name in names {
        store(cache, &of(name, "m", "1@0"), name).await;
    }
    let shared = Request::new(Tenant::shared(), "m", "1@0").unwrap();
    assert!(miss(cache, &shared).await.nearest.is_none());
    store(cache, &shared, "for all").await;
    for name in names {
        assert_eq!(exact(cache, &of(name, "m", "1@0")).await.text(), Some(name), "{name:?}");
        assert_eq!(semantic(cache, &of(name, "m", "1@5")).await.text(), Some(name), "{name:?}");
    }
    assert!(miss(cache, &of("nobody", "m", "1@0")).await.nearest.is_none());
}

/// The answer of one model is not another's.
pub async fn models_are_kept_apart(cache: &dyn SemanticCache) {
    for model in ["gpt-4", "claude"] {
        store(cache, &of("t", model, "1@0"), model).await;
    }
    for model in ["gpt-4", "claude"] {
        assert_eq!(exact(cache, &of("t", model, "1@0")).await.text(), Some(model));
        assert_eq!(&*semantic(cache, &of("t", model, "1@1")).await.model, model);
    }
    assert!(miss(cache, &of("t", "GPT-4", "1@0")).await.nearest.is_none());
}

/// Another system prompt or history is another question.
pub async fn contexts_are_kept_apart(cache: &dyn SemanticCache) {
    let asked = |prompt, context: Option<&str>| match context {
        Some(context) => request(prompt).with_context(context),
        None => request(prompt),
    };
    let contexts = [None, Some(""), Some("pirate"), Some("Pirate")];
    for (number, context) in contexts.into_iter().enumerate() {
        let request = asked("1@0", context);
        assert!(miss(cache, &request).await.nearest.is_none(), "{context:?}");
        store(cache, &request, &number.to_string()).await;
    }
    for (number, context) in contexts.into_iter().enumerate() {
        let hit = semantic(cache, &asked("1@2", context)).await;
        assert_eq!(hit.text(), Some(&*number.to_string()));
    }
}

/// Nothing of an older answer is left.
pub async fn storing_again_replaces_everything(cache: &dyn SemanticCache) {
    let request = request("1@0");
    cache.store(&request, &answer("old").with_tokens_used(9), None).await.unwrap();
    store(cache, &request, "new").await;
    let hit = exact(cache, &request).await;
    assert_eq!((hit.text(), hit.tokens_used), (Some("new"), None));
    let hit = semantic(cache, &self::request("1@1")).await;
    assert_eq!((hit.text(), hit.tokens_used), (Some("new"), None));
}

/// Neither tier finds what was removed.
pub async fn a_removed_entry_is_gone(cache: &dyn SemanticCache) {
    let request = request("1@0");
    store(cache, &request, "yes").await;
    assert!(cache.forget(&request).await.unwrap());
    assert!(!cache.forget(&request).await.unwrap());
    assert!(miss(cache, &request).await.nearest.is_none());
    assert!(miss(cache, &self::request("1@1")).await.nearest.is_none());
}

/// An id alone is no permission.
pub async fn another_tenant_removes_nothing(cache: &dyn SemanticCache) {
    let request = request("1@0");
    store(cache, &request, "yes").await;
    for tenant in [Tenant::new("mallory").unwrap(), Tenant::shared()] {
        assert!(!cache.remove(&tenant, &request.id()).await.unwrap());
    }
    exact(cache, &request).await;
}

/// Zero, NaN and infinite vectors and those of other dimensions are neither stored nor asked.
pub async fn vectors_that_cannot_be_compared_are_refused(cache: &dyn SemanticCache) {
    store(cache, &request("1@0"), "yes").await;
    for prompt in ["zero", "nan", "infinite"] {
        let request = request(prompt);
        let error = cache.store(&request, &answer("no"), None).await.unwrap_err();
        assert!(matches!(error, Error::InvalidEmbedding { .. }), "{prompt}: {error:?}");
        let error = cache.lookup(&request).await.unwrap_err();
        assert!(matches!(error, Error::InvalidEmbedding { .. }), "{prompt}: {error:?}");
    }
    let short = request("short");
    for error in [
        cache.store(&short, &answer("no"), None).await.unwrap_err(),
        cache.lookup(&short).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::DimensionMismatch { expected: 16, got: 15 }), "{error:?}");
    }
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("yes"));
}

/// The same for a vector that the caller brings.
pub async fn a_given_vector_of_other_dimensions_is_refused(cache: &dyn SemanticCache) {
    let request = request("1@0");
    let vector = Vector::new(vec![1.0; 3]).unwrap();
    let error = cache.store(&request, &answer("no"), Some(vector)).await.unwrap_err();
    assert!(matches!(error, Error::DimensionMismatch { expected: 16, got: 3 }), "{error:?}");
    miss(cache, &request).await;
}

/// An embedder that fails is an error, not a miss; an exact hit does not need it.
pub async fn a_failing_embedder_is_an_error(cache: &dyn SemanticCache) {
    let request = request("fail");
    let error = cache.lookup(&request).await.unwrap_err();
    assert!(matches!(error, Error::Embedder(_)), "{error:?}");
    assert!(cache.store(&request, &answer("no"), None).await.is_err());
    let vector = Vector::new(vec![1.0; DIMENSIONS]).unwrap();
    cache.store(&request, &answer("yes"), Some(vector)).await.unwrap();
    assert_eq!(exact(cache, &request).await.text(), Some("yes"));
}

/// Prompts and answers are taken to the letter.
pub async fn any_text_comes_back_unchanged(cache: &dyn SemanticCache) {
    for (number, text) in
        ["a\0b", "\r\n$-1\r\n", "naïve 🙂", "{}[]|*\"'\\", "v", " blanks "].iter().enumerate()
    {
        let model = format!("m{number}");
        store(cache, &of("t", &model, &format!("1@0 {text}")), text).await;
        let hit = semantic(cache, &of("t", &model, "1@1")).await;
        assert_eq!((hit.text(), &*hit.prompt), (Some(*text), &*format!("1@0 {text}")));
    }
    let bytes = Answer::new(vec![0, 255, 254]).unwrap();
    cache.store(&request("1@0"), &bytes, None).await.unwrap();
    let hit = exact(cache, &request("1@0")).await;
    assert_eq!((hit.response, hit.model.len()), (bytes.response().clone(), 5));
}

/// A prompt that the embedder would cut is not cached.
pub async fn prompts_that_are_too_long_are_refused(cache: &dyn SemanticCache) {
    let fits = request(&format!("1@0 {}", "x".repeat(policy().max_prompt_bytes() - 4)));
    store(cache, &fits, "yes").await;
    let too_long = request(&format!("1@0 {}", "x".repeat(policy().max_prompt_bytes() - 3)));
    for error in [
        cache.lookup(&too_long).await.unwrap_err(),
        cache.store(&too_long, &answer("no"), None).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::PromptTooLong { bytes: 8193, max: 8192 }), "{error:?}");
    }
}

/// What has expired is found by neither tier, and does not hide what lives.
pub async fn entries_expire(cache: &dyn SemanticCache) {
    let short_lived = |prompt| of("t", SHORT_LIVED, prompt);
    store(cache, &short_lived("1@0"), "yes").await;
    let start = Instant::now();
    while cache.lookup(&short_lived("1@0")).await.unwrap().hit().is_some() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never expired");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(miss(cache, &short_lived("1@1")).await.nearest.is_none());
}

/// The vector of a miss stores the answer to it.
pub async fn a_miss_can_be_filled(cache: &dyn SemanticCache) {
    let request = request("1@0");
    let miss = miss(cache, &request).await;
    assert_eq!(cache.fill(&request, &answer("yes"), miss).await.unwrap(), request.id());
    assert_eq!(semantic(cache, &self::request("1@1")).await.text(), Some("yes"));
    let hit = cache.lookup(&request).await.unwrap().into_hit().expect("it was filled");
    assert_eq!(hit.text(), Some("yes"));
}

/// The vector of one prompt is not stored under another.
pub async fn a_miss_fills_its_own_request_only(cache: &dyn SemanticCache) {
    let (one, other) = (request("1@0"), request("5@0"));
    let of_one = miss(cache, &one).await;
    assert_eq!(of_one.request, one.id());
    for request in [&other, &one.clone().with_context("x"), &of("mallory", "gpt-4", "1@0")] {
        let error = cache.fill(request, &answer("no"), of_one.clone()).await.unwrap_err();
        assert!(matches!(error, Error::MissOfAnotherRequest), "{error:?}");
        miss(cache, request).await;
    }
    cache.fill(&one, &answer("yes"), of_one).await.unwrap();
    assert!(miss(cache, &other).await.nearest.unwrap().similarity.as_f64() < 0.5);
}

/// Concurrent callers each get their own answers.
pub async fn many_tasks_share_the_cache(cache: &dyn SemanticCache) {
    let tasks = (0..16).map(|task: u32| async move {
        let tenant = format!("task {task}");
        for topic in 0..4 {
            let prompt = format!("{topic}@0");
            store(cache, &of(&tenant, "m", &prompt), &format!("{task}/{topic}")).await;
            let hit = semantic(cache, &of(&tenant, "m", &format!("{topic}@3"))).await;
            assert_eq!(hit.text(), Some(&*format!("{task}/{topic}")));
        }
    });
    futures_util::future::join_all(tasks).await;
}
