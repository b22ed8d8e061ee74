//! The suite that every [`SemanticCache`] passes; list it with [`semantic_cache_conformance!`](crate::semantic_cache_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]
#![expect(clippy::panic, clippy::expect_used, reason = "a case fails by a panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_embcache::Embedder;
use inferkit_vectorsearch::Vector;

use crate::{
    Answer, CacheControl, Category, Error, Feedback, Finish, Hit, Lookup, Miss, Near, Policy, Rate,
    Rejection, Request, Selection, SemanticCache, SemanticCacheExt as _, Skip, Stored, Tenant,
    TransferExt as _, Verdict, Verification, Verifier, VerifierError,
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

/// A verifier for tests: it refuses candidates with `refused` in their prompt, and fails for those with `broken`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Picky;

#[async_trait]
impl Verifier for Picky {
    async fn verify(&self, _: &Request, candidate: &Hit) -> Result<Verdict, VerifierError> {
        match &candidate.prompt {
            prompt if prompt.contains("refused") => Ok(Verdict::Reject),
            prompt if prompt.contains("broken") => Err("the judge is out".into()),
            _ => Ok(Verdict::Accept),
        }
    }
}

/// The policy of the caches that the suite is run on.
#[must_use]
pub fn policy() -> Policy {
    let brief = Duration::from_millis(50);
    Policy::default()
        .with_model_ttl(SHORT_LIVED, brief)
        .unwrap()
        .with_verification(Verification::new(Arc::new(Picky)))
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
            any_text_comes_back_unchanged, long_and_contentless_prompts_only_hit_exactly,
            entries_expire, a_request_s_own_time_counts, a_miss_can_be_filled,
            a_miss_fills_its_own_request_only, many_tasks_share_the_cache, a_near_miss_is_told,
            the_verifier_decides, categories_and_versions_are_kept_apart,
            a_request_can_ask_for_more_care, what_is_not_worth_keeping_is_skipped,
            tagged_entries_are_invalidated, models_are_invalidated, a_flush_takes_everything_of_a_tenant,
            an_answer_from_before_a_flush_is_not_kept, a_stale_owner_overwrites_nothing,
            a_wrong_hit_is_not_served_again, many_answers_are_stored_at_once,
            what_is_exported_can_be_imported, bad_records_are_refused,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

/// As [`semantic_cache_conformance!`](crate::semantic_cache_conformance), for caches that follow
/// [`Policy::adaptive`]; `$make` returns one with [`adaptive_policy`](crate::conformance::adaptive_policy).
#[macro_export]
macro_rules! adaptive_conformance {
    ($make:path) => {
        $crate::semantic_cache_conformance! { $make:
            without_reports_only_the_nearest_is_served, what_was_right_is_served,
            an_entry_that_was_wrong_is_not_served, storing_again_forgets_reports,
        }
    };
}

/// A policy that learns, and checks nothing else.
#[must_use]
pub fn adaptive_policy() -> Policy {
    Policy::adaptive(Rate::per_hundred(2.0).unwrap()).without_verification()
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
    let stored = cache.store(request, &answer(text), None).await.unwrap();
    assert_eq!(stored, Stored::Kept(request.id()));
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

/// The miss, near or not.
async fn miss(cache: &dyn SemanticCache, request: &Request) -> Miss {
    match cache.lookup(request).await.unwrap().into_hit() {
        Err(miss) => miss,
        Ok(hit) => panic!("expected a miss, got {hit:?}"),
    }
}

async fn near(cache: &dyn SemanticCache, request: &Request) -> Near {
    match cache.lookup(request).await.unwrap() {
        Lookup::Near(near) => *near,
        other => panic!("expected a near miss, got {other:?}"),
    }
}

/// How far similarities may be off: those of 16-bit vectors are; a degree makes five times as much.
const TOLERANCE: f64 = 1e-3;

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
    assert!((hit.similarity.as_f64() - cosine(18.0)).abs() < TOLERANCE, "{hit:?}");
    // The same words but for the case, which the embedder does not see.
    let hit = semantic(cache, &request("1@0 Stored")).await;
    assert!((hit.similarity.as_f64() - 1.0).abs() < TOLERANCE, "{hit:?}");
}

/// A prompt below the threshold is not answered; how near it came is told.
pub async fn a_prompt_that_is_not_similar_enough_misses(cache: &dyn SemanticCache) {
    let stored = request("1@0");
    store(cache, &stored, "yes").await;
    let near = miss(cache, &request("1@19")).await.nearest.unwrap();
    assert_eq!(near.id, stored.id());
    assert!((near.similarity.as_f64() - cosine(19.0)).abs() < TOLERANCE, "{near:?}");
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
    let given = Miss::new(&request, Some(vector));
    let error = cache.store(&request, &answer("no"), Some(given)).await.unwrap_err();
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
    let miss = Miss::new(&request, Some(vector));
    cache.store(&request, &answer("yes"), Some(miss)).await.unwrap();
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

/// A prompt that the embedder would cut, or that says nothing by itself, is no other's answer and is not embedded.
pub async fn long_and_contentless_prompts_only_hit_exactly(cache: &dyn SemanticCache) {
    let fits = request(&format!("1@0 {}", "x".repeat(policy().max_prompt_bytes() - 4)));
    store(cache, &fits, "fits").await;
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("fits"));
    let too_long = format!("1@0 {}", "x".repeat(policy().max_prompt_bytes() - 3));
    for prompt in [too_long.as_str(), "", " ", "continue", "Yes.", "?"] {
        let request = request(prompt);
        let miss = miss(cache, &request).await;
        assert_eq!((&miss.embedding, miss.nearest), (&None, None), "{prompt:.9}");
        cache.store(&request, &answer("own"), Some(miss)).await.unwrap();
        assert_eq!(exact(cache, &request).await.text(), Some("own"), "{prompt:.9}");
    }
    let other = "continue!";
    assert!(miss(cache, &request(other)).await.nearest.is_none());
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("fits"));
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
    let stored = cache.store(&request, &answer("yes"), Some(miss)).await.unwrap();
    assert_eq!(stored.id(), Some(request.id()));
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
        let error = cache.store(request, &answer("no"), Some(of_one.clone())).await.unwrap_err();
        assert!(matches!(error, Error::MissOfAnotherRequest), "{error:?}");
        miss(cache, request).await;
    }
    cache.store(&one, &answer("yes"), Some(of_one)).await.unwrap();
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

/// Less than the threshold and not much less is told, with the candidate.
pub async fn a_near_miss_is_told(cache: &dyn SemanticCache) {
    let stored = request("1@0");
    store(cache, &stored, "yes").await;
    // 0.9455 and 0.9063; the margin ends at 0.90.
    for angle in [19, 25] {
        let request = request(&format!("1@{angle}"));
        let near = near(cache, &request).await;
        assert_eq!(near.reason, Rejection::Threshold);
        assert_eq!((near.candidate.id, near.candidate.text()), (stored.id(), Some("yes")));
        assert_eq!(near.miss.request, request.id());
        assert_eq!(near.miss.nearest.unwrap().id, stored.id());
    }
    let lookup = cache.lookup(&request("1@26")).await.unwrap();
    assert!(matches!(&lookup, Lookup::Miss(miss) if miss.nearest.is_some()), "{lookup:?}");
}

/// What the verifier refuses is not served, the next candidate is asked for, and what it cannot tell is refused.
pub async fn the_verifier_decides(cache: &dyn SemanticCache) {
    for prompt in ["1@1 refused", "1@2 broken"] {
        store(cache, &request(prompt), prompt).await;
    }
    let rejected = near(cache, &request("1@0")).await;
    assert_eq!(rejected.reason, Rejection::Verifier);
    assert_eq!(&*rejected.candidate.prompt, "1@1 refused");
    assert_eq!(exact(cache, &request("1@1 refused")).await.text(), Some("1@1 refused"));
    store(cache, &request("1@5 good"), "good").await;
    assert_eq!(semantic(cache, &request("1@0")).await.text(), Some("good"));
    // Three candidates are looked at, the default.
    store(cache, &request("1@3 refused"), "no").await;
    near(cache, &request("1@0")).await;
}

/// A category or a version is part of the question.
pub async fn categories_and_versions_are_kept_apart(cache: &dyn SemanticCache) {
    let named = |name: &str| Category::new(name).unwrap();
    let all = |prompt: &str| {
        let request = request(prompt);
        [
            request.clone(),
            request.clone().with_category(Category::FACTUAL),
            request.clone().with_category(named("legal")),
            request.clone().with_model_version("legal"),
            request.clone().with_model_version(""),
            request.clone().with_system(""),
            request.clone().with_history([("user", "")]),
            request.clone().with_tools(&["search"]).unwrap(),
            request.clone().with_response_format(&["search"]).unwrap(),
            request.with_sampling(&["search"]).unwrap(),
        ]
    };
    for (number, request) in all("1@0").iter().enumerate() {
        assert_eq!(miss(cache, request).await.nearest, None, "{request:?}");
        store(cache, request, &number.to_string()).await;
    }
    for (number, request) in all("1@1").iter().enumerate() {
        assert_eq!(semantic(cache, request).await.text(), Some(&*number.to_string()));
    }
    // The creative threshold is lower.
    let creative = |prompt| request(prompt).with_category(Category::CREATIVE);
    store(cache, &creative("1@0"), "poem").await;
    assert_eq!(semantic(cache, &creative("1@25")).await.text(), Some("poem"));
    near(cache, &request("1@25")).await;
}

/// No answer that is too old or not similar enough for this request, or none at all.
pub async fn a_request_can_ask_for_more_care(cache: &dyn SemanticCache) {
    store(cache, &request("1@0"), "old").await;
    let ask = |prompt, control| request(prompt).with_control(control);
    let strict = CacheControl::new().threshold(0.999).unwrap();
    assert_eq!(near(cache, &ask("1@5", strict)).await.reason, Rejection::Threshold);
    semantic(cache, &ask("1@5", CacheControl::new().threshold(0.1).unwrap())).await;
    miss(cache, &ask("1@30", CacheControl::new().threshold(0.1).unwrap())).await;
    let anew = CacheControl::new().no_cache();
    for prompt in ["1@0", "1@5"] {
        let miss = miss(cache, &ask(prompt, anew)).await;
        assert!(miss.nearest.is_none() && miss.embedding.is_some());
    }
    let recent = CacheControl::new().max_age(Duration::from_secs(3_600));
    exact(cache, &ask("1@0", recent)).await;
    semantic(cache, &ask("1@5", recent)).await;
    let now = CacheControl::new().max_age(Duration::ZERO);
    let start = Instant::now();
    // The age is known to the second.
    while cache.lookup(&ask("1@0", now)).await.unwrap().hit().is_some() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never grew old");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(miss(cache, &ask("1@5", now)).await.nearest.is_none());
    store(cache, &ask("1@0", anew), "new").await;
    assert_eq!(exact(cache, &request("1@0")).await.text(), Some("new"));
}

/// Failed and truncated answers, and those of requests that want to leave nothing.
pub async fn what_is_not_worth_keeping_is_skipped(cache: &dyn SemanticCache) {
    let request = request("1@0");
    let control = |control| request.clone().with_control(control);
    let cut = answer("cut").with_finish(Finish::Truncated);
    let broken = answer("broken").with_finish(Finish::Failed);
    for (request, answer, skip) in [
        (&request, &cut, Skip::Truncated),
        (&request, &broken, Skip::Failed),
        (&control(CacheControl::new().store_truncated()), &broken, Skip::Failed),
        (&control(CacheControl::new().no_store()), &answer("private"), Skip::NoStore),
        (&request, &answer(&"x".repeat(policy().max_answer_bytes() + 1)), Skip::TooLong),
    ] {
        let stored = cache.store(request, answer, None).await.unwrap();
        assert_eq!(stored, Stored::Skipped(skip));
        assert!(miss(cache, request).await.nearest.is_none());
    }
    let asked = control(CacheControl::new().store_truncated());
    cache.store(&asked, &cut, None).await.unwrap();
    let hit = exact(cache, &request).await;
    assert_eq!((hit.text(), hit.finish), (Some("cut"), Finish::Truncated));
    assert_eq!(hit.answer().finish(), Finish::Truncated, "whoever replays it says so");
    let mut file = Vec::new();
    cache.export(&mut file, |_| {}).await.unwrap();
    assert!(cache.forget(&request).await.unwrap());
    cache.import(&file[..], |_| {}).await.unwrap();
    assert_eq!(exact(cache, &request).await.finish, Finish::Truncated);
    store(cache, &request, "whole").await;
    assert_eq!(exact(cache, &request).await.finish, Finish::Complete);
}

/// The time of the request is shorter than that of its model.
pub async fn a_request_s_own_time_counts(cache: &dyn SemanticCache) {
    let brief = CacheControl::new().ttl(Duration::from_millis(50)).unwrap();
    let request = request("1@0");
    store(cache, &request.clone().with_control(brief), "yes").await;
    let start = Instant::now();
    while cache.lookup(&request).await.unwrap().hit().is_some() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never expired");
        std::thread::sleep(Duration::from_millis(5));
    }
    // An update clears the time that was set before.
    store(cache, &request.clone().with_control(brief), "yes").await;
    store(cache, &request, "again").await;
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(exact(cache, &request).await.text(), Some("again"));
}

/// Tags are taken to the letter, belong to a tenant, and an update clears them.
pub async fn tagged_entries_are_invalidated(cache: &dyn SemanticCache) {
    let tenant = Tenant::new("acme").unwrap();
    let tags = ["doc:1", "DOC:1", "doc:1,doc:2", " doc:1", "*", "doc|1", "{x}", "\u{1f}"];
    for (number, tag) in tags.iter().enumerate() {
        let tagged = answer("yes").with_tag(*tag).unwrap().with_tag("all").unwrap();
        cache.store(&request(&format!("{number}@0")), &tagged, None).await.unwrap();
    }
    let elsewhere = of("other", "gpt-4", "0@0");
    cache.store(&elsewhere, &answer("no").with_tag("doc:1").unwrap(), None).await.unwrap();
    cache
        .store(&request("continue"), &answer("go").with_tag("doc:1").unwrap(), None)
        .await
        .unwrap();
    assert!(matches!(answer("x").with_tag(" "), Err(Error::EmptyTag)));

    let selected = Selection::of_tenant(&tenant).with_tag("doc:1");
    let removed = cache.invalidate(&selected).await.unwrap();
    assert_eq!(removed, 2, "the entry without a vector too");
    assert!(cache.lookup(&request("continue")).await.unwrap().hit().is_none());
    assert!(cache.lookup(&request("0@0")).await.unwrap().hit().is_none());
    exact(cache, &elsewhere).await;
    store(cache, &request("1@0"), "without tags").await;
    let all = Selection::of_tenant(&tenant).with_tag("all");
    assert_eq!(cache.invalidate(&all).await.unwrap(), tags.len() as u64 - 2);
    assert_eq!(exact(cache, &request("1@0")).await.text(), Some("without tags"));
    assert_eq!(cache.invalidate(&Selection::of_tenant(&tenant)).await.unwrap(), 1);
    exact(cache, &elsewhere).await;
}

/// By model, by version, by all other versions, by category and by age, for all tenants.
pub async fn models_are_invalidated(cache: &dyn SemanticCache) {
    let ask = |model: &str, version: Option<&str>, tenant: &str| {
        let request = of(tenant, model, "1@0");
        match version {
            Some(version) => request.with_model_version(version),
            None => request,
        }
    };
    let all = [
        ask("gpt-4", None, "a"),
        ask("gpt-4", Some("1"), "a"),
        ask("gpt-4", Some("2"), "a"),
        ask("gpt-4", Some("2"), "b"),
        ask("gpt-5", Some("1"), "a"),
        ask("gpt-5", Some("1"), "a").with_category(Category::CREATIVE),
    ];
    for request in &all {
        store(cache, request, "yes").await;
    }
    let everything = Selection::of_all_tenants;
    for (selection, expected) in [
        (everything().with_model("gpt-6"), 0),
        (everything().with_category(&Category::FACTUAL), 0),
        (everything().stored_before(Duration::from_secs(1)), 0),
        (everything().with_category(&Category::CREATIVE), 1),
        (everything().with_outdated("gpt-4", "2"), 2),
        (everything().with_model_version("gpt-5", "2"), 0),
        (everything().with_model_version("gpt-5", "1"), 1),
        (everything().with_model("gpt-4").stored_before(Duration::from_secs(1 << 33)), 2),
        (everything(), 0),
    ] {
        let removed = cache.invalidate(&selection).await.unwrap();
        assert_eq!(removed, expected, "{selection:?}");
    }
}

/// Both tiers, and only of this tenant; what is stored afterwards counts.
pub async fn a_flush_takes_everything_of_a_tenant(cache: &dyn SemanticCache) {
    let (ours, theirs) = (request("1@0"), of("other", "gpt-4", "1@0"));
    cache.flush(ours.tenant()).await.unwrap();
    store(cache, &ours, "old").await;
    store(cache, &request("1@10"), "old").await;
    store(cache, &theirs, "theirs").await;
    cache.flush(ours.tenant()).await.unwrap();
    for prompt in ["1@0", "1@1", "1@10"] {
        let lookup = cache.lookup(&request(prompt)).await.unwrap();
        assert!(matches!(&lookup, Lookup::Miss(miss) if miss.nearest.is_none()), "{lookup:?}");
    }
    assert_eq!(semantic(cache, &of("other", "gpt-4", "1@1")).await.text(), Some("theirs"));
    store(cache, &ours, "new").await;
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("new"));
    assert!(cache.lookup(&request("1@10")).await.unwrap().into_hit().is_ok());
}

/// It was asked for when other things were true.
pub async fn an_answer_from_before_a_flush_is_not_kept(cache: &dyn SemanticCache) {
    let request = request("1@0");
    store(cache, &self::request("2@0"), "the tenant has entries").await;
    let early = miss(cache, &request).await;
    cache.flush(request.tenant()).await.unwrap();
    let stored = cache.store(&request, &answer("stale"), Some(early)).await.unwrap();
    assert_eq!(stored, Stored::Skipped(Skip::Flushed));
    let late = miss(cache, &request).await;
    cache.store(&request, &answer("fresh"), Some(late)).await.unwrap();
    assert_eq!(exact(cache, &request).await.text(), Some("fresh"));
}

/// Who lost the lease and comes back does not win over the new owner.
pub async fn a_stale_owner_overwrites_nothing(cache: &dyn SemanticCache) {
    let request = request("1@0");
    let fenced = |token| Some(Miss::new(&request, None).with_fence(token));
    let big = 1 << 52;
    cache.store(&request, &answer("new owner"), fenced(big)).await.unwrap();
    let stored = cache.store(&request, &answer("old owner"), fenced(big - 1)).await.unwrap();
    assert_eq!(stored, Stored::Skipped(Skip::Superseded));
    assert_eq!(exact(cache, &request).await.text(), Some("new owner"));
    for (token, text) in [(big, "again"), (big + 1, "next owner")] {
        cache.store(&request, &answer(text), fenced(token)).await.unwrap();
        assert_eq!(exact(cache, &request).await.text(), Some(text));
    }
    store(cache, &request, "by hand").await;
    assert_eq!(exact(cache, &request).await.text(), Some("by hand"));
}

/// For this request: others still get it, unless the answer is wrong for its own question.
pub async fn a_wrong_hit_is_not_served_again(cache: &dyn SemanticCache) {
    let stored = request("1@0");
    store(cache, &stored, "yes").await;
    let hit = semantic(cache, &request("1@5")).await;
    assert!(cache.report(&request("1@5"), &hit, Feedback::Right).await.unwrap());
    semantic(cache, &request("1@5")).await;
    for _ in 0..2 {
        assert!(cache.report(&request("1@5"), &hit, Feedback::Wrong).await.unwrap());
    }
    assert_eq!(near(cache, &request("1@5")).await.reason, Rejection::Feedback);
    semantic(cache, &request("1@6")).await;
    exact(cache, &stored).await;
    // A farther one may still answer.
    store(cache, &request("1@15"), "farther").await;
    assert_eq!(semantic(cache, &request("1@5")).await.text(), Some("farther"));
    let hit = exact(cache, &stored).await;
    assert!(cache.report(&stored, &hit, Feedback::Wrong).await.unwrap());
    assert!(!cache.report(&stored, &hit, Feedback::Wrong).await.unwrap());
    assert!(!cache.report(&request("1@5"), &hit, Feedback::Wrong).await.unwrap(), "it is gone");
    assert!(!matches!(cache.lookup(&stored).await.unwrap(), Lookup::Exact(_)));
}

/// Each in its place, and the progress is told.
pub async fn many_answers_are_stored_at_once(cache: &dyn SemanticCache) {
    assert!(cache.store_many(&[]).await.unwrap().is_empty());
    let batch = [
        (request("1@0"), answer("one")),
        (request("continue"), answer("go")),
        (request("2@0"), answer("cut").with_finish(Finish::Truncated)),
        (of("other", "m", "2@0"), answer("two")),
    ];
    let stored = cache.store_many(&batch).await.unwrap();
    let skipped: Vec<bool> = stored.iter().map(|stored| stored.id().is_none()).collect();
    assert_eq!(skipped, [false, false, true, false]);
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("one"));
    assert_eq!(exact(cache, &request("continue")).await.text(), Some("go"));
    assert_eq!(semantic(cache, &of("other", "m", "2@1")).await.text(), Some("two"));

    let many =
        (0..150).map(|number| (request(&format!("{}@0 q{number}", number % 8)), answer("w")));
    let mut seen = Vec::new();
    assert_eq!(cache.warm_up(many, |taken| seen.push(taken)).await.unwrap(), 150);
    assert_eq!(seen, [64, 128, 150]);
    exact(cache, &request("5@0 q149")).await;
}

/// All of it: both tiers, tenants, labels, times, and bytes that are no text.
pub async fn what_is_exported_can_be_imported(cache: &dyn SemanticCache) {
    let tagged = answer("yes").with_usage(7, 3).with_tag("doc").unwrap();
    cache.store(&request("1@0"), &tagged, None).await.unwrap();
    let bytes = Answer::new(vec![0, 159, 255]).unwrap();
    cache.store(&of("other", "gpt-4", "1@0 \"quoted\""), &bytes, None).await.unwrap();
    store(cache, &request("continue"), "go").await;
    store(cache, &of("flushed", "m", "1@0"), "gone").await;
    cache.flush(&Tenant::new("flushed").unwrap()).await.unwrap();
    let before = exact(cache, &request("1@0")).await;

    let (mut file, mut seen) = (Vec::new(), 0);
    let written = cache.export(&mut file, |written| seen = written).await.unwrap();
    assert_eq!((written, seen, file.iter().filter(|byte| **byte == b'\n').count()), (3, 3, 3));
    for tenant in ["acme", "other"] {
        let all = Selection::of_tenant(&Tenant::new(tenant).unwrap());
        assert_ne!(cache.invalidate(&all).await.unwrap(), 0);
    }
    assert!(cache.lookup(&request("1@0")).await.unwrap().hit().is_none());

    let mut seen = 0;
    assert_eq!(cache.import(&file[..], |read| seen = read).await.unwrap(), 3);
    assert_eq!(seen, 3);
    assert_eq!(exact(cache, &request("1@0")).await, before);
    assert_eq!((before.tokens_used, before.completion_tokens), (Some(10), Some(3)));
    assert_eq!(semantic(cache, &request("1@1")).await.text(), Some("yes"));
    exact(cache, &request("continue")).await;
    let hit = semantic(cache, &of("other", "gpt-4", "1@1")).await;
    assert_eq!((&*hit.response, &*hit.prompt), (&[0, 159, 255][..], "1@0 \"quoted\""));
    let tag = Selection::of_tenant(&Tenant::new("acme").unwrap()).with_tag("doc");
    assert_eq!(cache.invalidate(&tag).await.unwrap(), 1);
}

/// The line is named, no text is repeated, and nothing of the chunk is stored.
pub async fn bad_records_are_refused(cache: &dyn SemanticCache) {
    store(cache, &request("1@0 s3cret"), "s3cret").await;
    let mut file = Vec::new();
    cache.export(&mut file, |_| {}).await.unwrap();
    let good = String::from_utf8(file).unwrap();
    assert!(cache.forget(&request("1@0 s3cret")).await.unwrap());
    let id = request("1@0 s3cret").id().to_string();
    for bad in [
        "s3cret".to_owned(),
        "{}".to_owned(),
        good.replace(&id, "../../s3cret"),
        good.replace("\"response\":\"s3cret\"", "\"response\":\" \""),
        good.replace("\"response\":", "\"answer\":"),
        good.replace("\"ttl_millis\":", "\"ttl_millis\":0,\"x\":"),
        good.replace("\"embedding\":[", "\"embedding\":[0,"),
        good.replace("\"embedding\":[", "\"embedding\":[],\"x\":["),
        good.replace("\"model\":\"gpt-4\"", "\"model\":\"\""),
        good.replace("\"labels\":[", "\"labels\":[\"*\","),
    ] {
        assert_ne!(bad, good);
        let both = format!("{good}\n{bad}\n");
        let error = cache.import(both.as_bytes(), |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Record { number: 2, .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        assert!(cache.lookup(&request("1@0 s3cret")).await.unwrap().hit().is_none());
    }
    assert_eq!(cache.import(good.as_bytes(), |_| {}).await.unwrap(), 1);
    exact(cache, &request("1@0 s3cret")).await;
}

/// And what was refused can be reported.
pub async fn without_reports_only_the_nearest_is_served(cache: &dyn SemanticCache) {
    assert!(matches!(cache.lookup(&request("1@0")).await.unwrap(), Lookup::Miss(_)));
    store(cache, &request("1@0"), "yes").await;
    semantic(cache, &request("1@10")).await;
    let near = near(cache, &request("1@20")).await;
    assert_eq!((near.reason, near.candidate.text()), (Rejection::Explored, Some("yes")));
    assert!(cache.report(&request("1@20"), &near.candidate, Feedback::Wrong).await.unwrap());
    assert_eq!(self::near(cache, &request("1@20")).await.reason, Rejection::Feedback);
    // One that was wrong once is not served either, as long as nothing else is known.
    assert_eq!(self::near(cache, &request("1@10")).await.reason, Rejection::Explored);
    assert!(matches!(cache.lookup(&request("1@80")).await.unwrap(), Lookup::Miss(_)));
    exact(cache, &request("1@0")).await;
    assert!(cache.forget(&request("1@0")).await.unwrap());
    assert!(!cache.report(&request("1@21"), &near.candidate, Feedback::Right).await.unwrap());
}

/// Teaches that the candidates of these topics are right at 20 degrees.
async fn teach(cache: &dyn SemanticCache, topics: std::ops::Range<u64>) {
    for topic in topics {
        store(cache, &request(&format!("{topic}@0")), "yes").await;
        for number in 0..60 {
            let asked = request(&format!("{topic}@20 q{number}"));
            if let Lookup::Near(near) = cache.lookup(&asked).await.unwrap() {
                cache.report(&asked, &near.candidate, Feedback::Right).await.unwrap();
            }
        }
    }
}

/// Also if it is another entry that was right.
pub async fn what_was_right_is_served(cache: &dyn SemanticCache) {
    teach(cache, 1..5).await;
    store(cache, &request("6@0"), "yes").await;
    let served = served(cache, &request("6@20")).await;
    assert!(served, "it was right at this similarity for all others");
    assert!(!self::served(cache, &request("6@50")).await, "far beyond what was seen");
    let bar = CacheControl::new().threshold(0.99).unwrap();
    assert!(!self::served(cache, &request("6@20").with_control(bar)).await);
}

/// Tells whether a request is served, in one of three lookups: some are explored.
async fn served(cache: &dyn SemanticCache, request: &Request) -> bool {
    for _ in 0..3 {
        if matches!(cache.lookup(request).await.unwrap(), Lookup::Semantic(_)) {
            return true;
        }
    }
    false
}

/// Although others were right.
pub async fn an_entry_that_was_wrong_is_not_served(cache: &dyn SemanticCache) {
    store(cache, &request("6@0"), "no").await;
    teach(cache, 1..5).await;
    // What was right for the others would be served here too.
    for number in 0..8 {
        let asked = request(&format!("6@20 w{number}"));
        let candidate = match cache.lookup(&asked).await.unwrap() {
            Lookup::Semantic(hit) => hit,
            Lookup::Near(near) => near.candidate,
            other => panic!("{other:?}"),
        };
        cache.report(&asked, &candidate, Feedback::Wrong).await.unwrap();
    }
    assert!(!served(cache, &request("6@20")).await);
}

/// Also where the answer is the same.
pub async fn storing_again_forgets_reports(cache: &dyn SemanticCache) {
    store(cache, &request("1@0"), "no").await;
    let hit = semantic(cache, &request("1@10")).await;
    assert!(cache.report(&request("1@11"), &hit, Feedback::Wrong).await.unwrap());
    assert!(!served(cache, &request("1@10")).await);
    store(cache, &request("1@0"), "yes").await;
    assert!(served(cache, &request("1@10")).await);
}
