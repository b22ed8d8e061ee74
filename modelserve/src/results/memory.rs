use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Clock, SystemClock};

use super::redis::check_items;
use super::{Kept, Place, Question, ResultCache, Tiers, Ttl};
use crate::error::{Result, name};

/// Results within this process, for tests and small tools.
#[derive(Debug)]
pub struct MemoryResultCache {
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    results: HashMap<(u8, String, String), Entry>,
    popular: HashMap<String, (Vec<String>, Duration)>,
}

#[derive(Debug)]
struct Entry {
    result: Option<Bytes>,
    fresh: Duration,
    kept: Duration,
}

impl MemoryResultCache {
    /// Makes an empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Makes an empty cache whose results end by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// What has not ended.
    fn live(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.results.retain(|_, entry| now < entry.kept);
        state.popular.retain(|_, (_, end)| now < *end);
        state
    }
}

impl Default for MemoryResultCache {
    fn default() -> Self {
        Self::new()
    }
}

fn key(place: &Place<'_>) -> (u8, String, String) {
    match place {
        Place::Exact { user, context } => (0, (*user).to_owned(), (*context).to_owned()),
        Place::Precomputed { user } => (1, (*user).to_owned(), String::new()),
        Place::Preferences { user } => (2, (*user).to_owned(), String::new()),
    }
}

#[async_trait]
impl ResultCache for MemoryResultCache {
    async fn read(&self, question: &Question) -> Result<Tiers> {
        let now = self.clock.now();
        let state = self.live();
        let kept = |place: Place<'_>| {
            let entry = state.results.get(&key(&place))?;
            Some(Kept { result: entry.result.clone(), is_stale: entry.fresh <= now })
        };
        let user = &question.user;
        let popular = question.popular.as_ref().and_then(|(category, count)| {
            let (items, _) = state.popular.get(category)?;
            Some(items.iter().take(*count as usize).cloned().collect())
        });
        Ok(Tiers {
            exact: kept(question.place()),
            precomputed: kept(Place::Precomputed { user }),
            preferences: if question.with_preferences {
                kept(Place::Preferences { user })
            } else {
                None
            },
            popular: popular.unwrap_or_default(),
        })
    }

    async fn put(&self, place: &Place<'_>, result: Option<&Bytes>, ttl: Ttl) -> Result<()> {
        place.check()?;
        let (fresh, kept) = ttl.millis()?;
        let now = self.clock.now();
        let [fresh, kept] = [fresh, kept].map(|millis| now + Duration::from_millis(millis));
        self.live().results.insert(key(place), Entry { result: result.cloned(), fresh, kept });
        Ok(())
    }

    async fn put_popular(
        &self,
        category: &str,
        items: &[(String, f64)],
        ttl: Duration,
    ) -> Result<()> {
        name("category", category)?;
        check_items(items)?;
        let (millis, _) = Ttl::new(ttl, Duration::ZERO).millis()?;
        let end = self.clock.now() + Duration::from_millis(millis);
        let scores: HashMap<&String, f64> =
            items.iter().map(|(item, score)| (item, *score)).collect();
        let mut items: Vec<_> = scores.into_iter().collect();
        // As the server orders equal scores backwards.
        items.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(a.0)));
        let items = items.into_iter().map(|(item, _)| item.clone()).collect();
        self.live().popular.insert(category.to_owned(), (items, end));
        Ok(())
    }

    async fn remove(&self, place: &Place<'_>) -> Result<bool> {
        place.check()?;
        Ok(self.live().results.remove(&key(place)).is_some())
    }
}
