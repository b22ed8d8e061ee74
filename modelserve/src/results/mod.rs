//! Results of models in tiers: what was made for this user and context, what was computed beforehand, what is popular.

mod memory;
mod redis;

use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::future::Future;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{SingleFlight, observe};

pub use memory::MemoryResultCache;
pub use redis::{RedisResultCache, TierSlots};

use crate::error::{Error, Result, name};

/// Keeps results of models in tiers, and reads them all in one round trip: the contract with those who implement one.
#[async_trait]
pub trait ResultCache: Debug + Send + Sync + 'static {
    /// Reads what there is for a question, all tiers at once.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; [`Error::Record`] if a later release wrote what is there.
    async fn read(&self, question: &Question) -> Result<Tiers>;

    /// Keeps a result in one of the tiers of users, in the place of an older one.
    ///
    /// `None` keeps that there is none, so that it is not asked for again and again.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; [`Error::Invalid`] if the time is not between a millisecond and a year.
    async fn put(&self, place: &Place<'_>, result: Option<&Bytes>, ttl: Ttl) -> Result<()>;

    /// Replaces the popular items of a category, whose highest scores come first.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; [`Error::Invalid`] if a score is NaN, or the time as above.
    async fn put_popular(
        &self,
        category: &str,
        items: &[(String, f64)],
        ttl: Duration,
    ) -> Result<()>;

    /// Removes what is kept in one place; `false` if nothing is.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn remove(&self, place: &Place<'_>) -> Result<bool>;
}

/// What is asked for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Question {
    /// The user.
    pub user: String,
    /// What the result depends on besides, such as a page or a digest of features.
    pub context: String,
    /// The category whose popular items will do, and how many of them.
    pub popular: Option<(String, u32)>,
    /// Whether the user's preferences are read besides.
    pub with_preferences: bool,
}

impl Question {
    /// Asks for the result for a user and a context.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if one is empty or longer than 256 bytes.
    pub fn new(user: impl Into<String>, context: impl Into<String>) -> Result<Self> {
        let (user, context) = (user.into(), context.into());
        name("user", &user)?;
        name("context", &context)?;
        Ok(Self { user, context, popular: None, with_preferences: false })
    }

    /// Falls back to up to `count` popular items of a category.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn or_popular(mut self, category: impl Into<String>, count: u32) -> Result<Self> {
        let category = category.into();
        name("category", &category)?;
        self.popular = Some((category, count.max(1)));
        Ok(self)
    }

    /// Reads the user's preferences besides.
    #[must_use]
    pub fn with_preferences(mut self) -> Self {
        self.with_preferences = true;
        self
    }

    /// The place of the exact result.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place::Exact { user: &self.user, context: &self.context }
    }
}

/// Where a result is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Place<'p> {
    /// For a user and a context.
    Exact {
        /// The user.
        user: &'p str,
        /// The context.
        context: &'p str,
    },
    /// For a user, computed beforehand.
    Precomputed {
        /// The user.
        user: &'p str,
    },
    /// What a user likes.
    Preferences {
        /// The user.
        user: &'p str,
    },
}

impl Place<'_> {
    /// Checks that it makes sense, as an implementation does before it stores anything.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::InvalidName`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Exact { user, context } => {
                name("user", user)?;
                name("context", context)?;
            }
            Self::Precomputed { user } | Self::Preferences { user } => {
                name("user", user)?;
            }
        }
        Ok(())
    }
}

/// How long a result is fresh, and how long it may be served besides while it is made anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ttl {
    /// How long it is fresh; each result gets up to a tenth less, so that not all of them end at once.
    pub fresh: Duration,
    /// How long it is served as stale besides.
    pub stale: Duration,
}

impl Ttl {
    /// Five minutes fresh and five stale: for exact results.
    pub const EXACT: Self =
        Self { fresh: Duration::from_secs(300), stale: Duration::from_secs(300) };
    /// An hour fresh and an hour stale: for what was computed beforehand, and for preferences.
    pub const PRECOMPUTED: Self =
        Self { fresh: Duration::from_secs(3_600), stale: Duration::from_secs(3_600) };

    /// Makes one.
    #[must_use]
    pub const fn new(fresh: Duration, stale: Duration) -> Self {
        Self { fresh, stale }
    }

    /// Returns for how many milliseconds a result is fresh, after the jitter, and for how many it is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if these are not between a millisecond and a year.
    pub fn millis(self) -> Result<(u64, u64)> {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
        let kept = self.fresh.saturating_add(self.stale);
        if self.fresh < Duration::from_millis(1) || YEAR < kept {
            let problem = "is not between a millisecond and a year: set such a time";
            return Err(Error::invalid("a time to live", problem));
        }
        let fresh = jittered(u64::try_from(self.fresh.as_millis()).unwrap_or(u64::MAX));
        Ok((fresh, fresh + u64::try_from(self.stale.as_millis()).unwrap_or(0)))
    }
}

/// Up to a tenth less.
fn jittered(millis: u64) -> u64 {
    // Every `RandomState` has keys of its own.
    let random = RandomState::new().hash_one(0) % 1_000;
    (millis - millis / 10 * random / 1_000).max(1)
}

/// What the tiers hold.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Tiers {
    /// For this user and context.
    pub exact: Option<Kept>,
    /// Computed beforehand for this user.
    pub precomputed: Option<Kept>,
    /// What the user likes, if it was asked for.
    pub preferences: Option<Kept>,
    /// Popular items, the most popular first.
    pub popular: Vec<String>,
}

/// A kept result.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Kept {
    /// The result; `None` if it is known that there is none.
    pub result: Option<Bytes>,
    /// Whether its time is over, and it is only kept while it is made anew.
    pub is_stale: bool,
}

impl Tiers {
    /// Returns the best that there is: exact, computed beforehand, popular; what is fresh before what is stale.
    #[must_use]
    pub fn best(&self) -> Option<Found> {
        let of = |tier, kept: &Option<Kept>, stale| match kept {
            Some(Kept { result: Some(result), is_stale }) if *is_stale == stale => {
                Some(Found::Result { tier, result: result.clone(), is_stale: stale })
            }
            _ => None,
        };
        // It is known that there is nothing for this user and context: the model need not be asked.
        let nothing = matches!(&self.exact, Some(Kept { result: None, is_stale: false }));
        of(Tier::Exact, &self.exact, false)
            .or_else(|| of(Tier::Precomputed, &self.precomputed, false))
            .or_else(|| of(Tier::Exact, &self.exact, true))
            .or_else(|| of(Tier::Precomputed, &self.precomputed, true))
            .or_else(|| (!self.popular.is_empty()).then(|| Found::Popular(self.popular.clone())))
            .or_else(|| nothing.then_some(Found::Nothing))
    }
}

/// Which tier a result is from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Tier {
    /// For this user and context.
    Exact,
    /// Computed beforehand for this user.
    Precomputed,
}

/// The best that the tiers hold.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Found {
    /// It is known that there is nothing.
    Nothing,
    /// Popular items.
    Popular(Vec<String>),
    /// A result of a model.
    #[non_exhaustive]
    Result {
        /// Which tier it is from.
        tier: Tier,
        /// The result.
        result: Bytes,
        /// Whether its time is over.
        is_stale: bool,
    },
}

/// Serves from the tiers, and asks the model for what is missing, once at a time in this process.
///
/// Cloning is cheap, and clones share the work and the [statistics](Self::stats).
#[derive(Clone, Debug)]
pub struct TieredResults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Arc<dyn ResultCache>,
    ttl: Ttl,
    flights: SingleFlight<(String, String), std::result::Result<Option<Bytes>, Arc<str>>>,
    counts: [AtomicU64; 5],
}

/// How often each tier answered, in this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ResultStats {
    /// Exact results, stale ones among them.
    pub exact: u64,
    /// Results that were computed beforehand.
    pub precomputed: u64,
    /// Popular items.
    pub popular: u64,
    /// Questions to which it was known that there is nothing.
    pub nothing: u64,
    /// Questions that no tier answered.
    pub missed: u64,
}

impl ResultStats {
    /// Returns the share of questions that some tier answered, 0 to 1; 0 if none was asked.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    pub fn hit_rate(&self) -> f64 {
        let hits = self.exact + self.precomputed + self.popular + self.nothing;
        match hits + self.missed {
            0 => 0.0,
            all => hits as f64 / all as f64,
        }
    }
}

/// Why there is no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// The model failed; all who waited for it receive the same.
    #[error("the model failed: {0}")]
    Model(Arc<str>),
}

impl TieredResults {
    /// Serves from a cache; exact results live for [`Ttl::EXACT`].
    #[must_use]
    pub fn new(cache: Arc<dyn ResultCache>) -> Self {
        Self::with_ttl(cache, Ttl::EXACT)
    }

    /// Serves from a cache; exact results live for `ttl`.
    #[must_use]
    pub fn with_ttl(cache: Arc<dyn ResultCache>, ttl: Ttl) -> Self {
        Self(Arc::new(Inner {
            cache,
            ttl,
            flights: SingleFlight::new(),
            counts: Default::default(),
        }))
    }

    /// Returns how often each tier answered.
    #[must_use]
    pub fn stats(&self) -> ResultStats {
        let [exact, precomputed, popular, nothing, missed] =
            self.0.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        ResultStats { exact, precomputed, popular, nothing, missed }
    }

    /// Returns the best that the tiers hold, or what `compute` makes of it, which is kept.
    ///
    /// One round trip for a hit.
    /// A stale result is returned at once; make it anew with [`compute`](Self::compute) when it suits, such as in a task of
    /// your own.
    /// If the cache fails the model is asked, and a warning is logged.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Model`].
    pub async fn get_or_compute<F, G, E>(
        &self,
        question: &Question,
        compute: F,
    ) -> std::result::Result<Found, ComputeError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = std::result::Result<Option<Bytes>, E>> + Send,
        E: std::fmt::Display,
    {
        let found = match self.0.cache.read(question).await {
            Ok(tiers) => tiers.best(),
            Err(error) => {
                tracing::warn!(%error, "the tiers could not be read: the model is asked");
                None
            }
        };
        let place = match &found {
            Some(Found::Result { tier: Tier::Exact, .. }) => 0,
            Some(Found::Result { tier: Tier::Precomputed, .. }) => 1,
            Some(Found::Popular(_)) => 2,
            Some(Found::Nothing) => 3,
            None => 4,
        };
        let tier = ["exact", "precomputed", "popular", "nothing", "miss"].get(place);
        observe::count(
            "inferkit_modelserve_results_total",
            &[("tier", tier.copied().unwrap_or_default())],
            1,
        );
        if let Some(count) = self.0.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match found {
            Some(found) => Ok(found),
            None => self.compute(question, compute).await,
        }
    }

    /// Asks the model and keeps what it says, whatever the tiers hold; callers with the same user and context share one
    /// call.
    ///
    /// # Errors
    ///
    /// [`ComputeError::Model`]. A failure to keep the result is logged.
    ///
    /// # Cancel safety
    ///
    /// If the future that asks the model is dropped, one that waits asks it.
    pub async fn compute<F, G, E>(
        &self,
        question: &Question,
        compute: F,
    ) -> std::result::Result<Found, ComputeError>
    where
        F: FnOnce() -> G + Send,
        G: Future<Output = std::result::Result<Option<Bytes>, E>> + Send,
        E: std::fmt::Display,
    {
        let Inner { cache, ttl, flights, .. } = &*self.0;
        let work = async {
            let result = match compute().await {
                Ok(result) => result,
                Err(error) => return Err(Arc::from(error.to_string())),
            };
            if let Err(error) = cache.put(&question.place(), result.as_ref(), *ttl).await {
                tracing::warn!(%error, "a result could not be kept");
            }
            Ok(result)
        };
        let key = (question.user.clone(), question.context.clone());
        match flights.run(key, work).await {
            Ok(Some(result)) => Ok(Found::Result { tier: Tier::Exact, result, is_stale: false }),
            Ok(None) => Ok(Found::Nothing),
            Err(problem) => Err(ComputeError::Model(problem)),
        }
    }
}

/// How a result is stored: 4 bytes (the version, 1 if there is a result, two zeros), then until when it is fresh in
/// milliseconds since the Unix epoch (8 bytes, little-endian), then the result.
const VERSION: u8 = 1;
const HEADER: usize = 12;

/// The first 4 bytes; the server adds the time.
fn header(is_result: bool) -> [u8; 4] {
    [VERSION, u8::from(is_result), 0, 0]
}

/// `None` for bytes that nobody wrote.
fn decode(stored: &Bytes, now: u64) -> Result<Option<Kept>> {
    let Some((header, rest)) = stored.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [version, kind, 0, 0, time @ ..] = *header else { return Ok(None) };
    if version != VERSION {
        let problem = format!(
            "it has version {version} and this release reads {VERSION}: upgrade this service"
        );
        return Err(Error::record("a kept result", problem));
    }
    let result = match (kind, rest.len()) {
        (0, 0) => None,
        (1, _) => Some(stored.slice(HEADER..)),
        _ => return Ok(None),
    };
    Ok(Some(Kept { result, is_stale: u64::from_le_bytes(time) <= now }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_jittered_by_up_to_a_tenth() {
        let times: Vec<u64> = (0..1_000).map(|_| jittered(300_000)).collect();
        assert!(times.iter().all(|time| (270_000..=300_000).contains(time)));
        assert!(
            times.iter().any(|time| *time < 275_000) && times.iter().any(|time| 295_000 < *time)
        );
        assert_eq!(jittered(1), 1);
        for (fresh, stale) in [(Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::MAX)] {
            assert!(Ttl::new(fresh, stale).millis().is_err());
        }
    }

    proptest! {
        #[test]
        fn results_come_back_and_no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), none in any::<bool>(), time in any::<u64>()) {
            let _ = decode(&Bytes::from(bytes.clone()), time);
            let result = (!none).then(|| Bytes::from(bytes));
            let head = header(result.is_some());
            let body = result.clone().unwrap_or_default();
            let stored = Bytes::from([&head[..], &time.to_le_bytes(), &body].concat());
            let kept = decode(&stored, 0).unwrap().unwrap();
            prop_assert_eq!(kept, Kept { result, is_stale: time == 0 });
        }
    }
}
