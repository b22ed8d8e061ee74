use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Answers, Batch, Cmd, DriverExt as _, DynDriver, Script, Slot};

use super::{Place, Question, ResultCache, Tiers, Ttl, decode, header};
use crate::error::{Error, Result, name};

static KEEP: Script = Script::new(include_str!("../scripts/keep.lua"));

/// Results on Redis: a string for each, and a sorted set of popular items for each category.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct RedisResultCache {
    driver: DynDriver,
    namespace: Namespace,
}

/// The reads of a question, in a batch that may hold reads of others.
#[derive(Debug)]
pub struct TierSlots {
    time: Slot<Vec<u64>>,
    exact: Slot<Option<Bytes>>,
    precomputed: Slot<Option<Bytes>>,
    preferences: Option<Slot<Option<Bytes>>>,
    popular: Option<Slot<Vec<String>>>,
}

impl RedisResultCache {
    /// Makes a cache; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace }
    }

    /// Appends the reads of a question to a batch, so that they share its round trip.
    pub fn push(&self, batch: &mut Batch, question: &Question) -> TierSlots {
        let get = |place| Cmd::with_capacity("GET", 96).key(self.key(&place)).readonly();
        let user = &question.user;
        let exact = batch.push(get(question.place()));
        let precomputed = batch.push(get(Place::Precomputed { user }));
        let preferences =
            question.with_preferences.then(|| batch.push(get(Place::Preferences { user })));
        let popular = question.popular.as_ref().map(|(category, count)| {
            let cmd = Cmd::with_capacity("ZREVRANGE", 96).key(self.popular_key(category)).arg(0);
            batch.push(cmd.arg(count.saturating_sub(1)).readonly())
        });
        let time = batch.push(Cmd::new("TIME").readonly());
        TierSlots { time, exact, precomputed, preferences, popular }
    }

    /// Takes the answers to [`push`](Self::push).
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; [`Error::Record`] if a later release wrote what is there.
    pub fn take(&self, answers: &mut Answers, slots: TierSlots) -> Result<Tiers> {
        let now = millis(&answers.take(slots.time)?);
        let mut kept = |slot: Slot<Option<Bytes>>| match answers.take(slot)? {
            Some(stored) => decode(&stored, now),
            None => Ok(None),
        };
        let (exact, precomputed) = (kept(slots.exact)?, kept(slots.precomputed)?);
        let preferences = slots.preferences.map(kept).transpose()?.flatten();
        let popular = slots.popular.map(|slot| answers.take(slot)).transpose()?.unwrap_or_default();
        Ok(Tiers { exact, precomputed, preferences, popular })
    }

    fn key(&self, place: &Place<'_>) -> Key {
        let of = |user: &str| self.namespace.family("rec").literal("user").tag(user);
        match place {
            Place::Exact { user, context } => of(user).literal("context").part(context).build(),
            Place::Precomputed { user } => of(user).literal("precomputed").build(),
            Place::Preferences { user } => of(user).literal("preferences").build(),
        }
    }

    fn popular_key(&self, category: &str) -> Key {
        self.namespace.family("rec").literal("popular").tag(category).build()
    }
}

#[async_trait]
impl ResultCache for RedisResultCache {
    /// One pipeline: two or three `GET`, a `ZREVRANGE` and a `TIME`.
    async fn read(&self, question: &Question) -> Result<Tiers> {
        let mut batch = Batch::new();
        let slots = self.push(&mut batch, question);
        let mut answers = self.driver.run(batch).await?;
        self.take(&mut answers, slots)
    }

    /// One `EVALSHA`, since the server's clock tells until when a result is fresh.
    async fn put(&self, place: &Place<'_>, result: Option<&Bytes>, ttl: Ttl) -> Result<()> {
        place.check()?;
        let (fresh, kept) = ttl.millis()?;
        let bytes = result.map_or(&[][..], |result| &result[..]);
        let cmd = Cmd::eval(&KEEP, &[self.key(place)]).arg(fresh).arg(kept);
        let cmd = cmd.arg(header(result.is_some()).as_slice()).arg(bytes);
        Ok(self.driver.query(cmd.idempotent()).await?)
    }

    /// One `MULTI` of `DEL`, `ZADD` and `PEXPIRE`.
    async fn put_popular(
        &self,
        category: &str,
        items: &[(String, f64)],
        ttl: Duration,
    ) -> Result<()> {
        name("category", category)?;
        check_items(items)?;
        let (millis, _) = Ttl::new(ttl, Duration::ZERO).millis()?;
        let key = self.popular_key(category);
        let mut batch = Batch::atomic();
        let removed = batch.push::<()>(Cmd::new("DEL").key(&key).idempotent());
        let mut cmd = Cmd::new("ZADD").key(&key);
        for (item, score) in items {
            cmd = cmd.arg(*score).arg(item);
        }
        let added = (!items.is_empty()).then(|| {
            let expire = Cmd::new("PEXPIRE").key(&key).arg(millis).idempotent();
            (batch.push::<()>(cmd.idempotent()), batch.push::<()>(expire))
        });
        let mut answers = self.driver.run(batch).await?;
        answers.take(removed)?;
        if let Some((added, expires)) = added {
            answers.take(added)?;
            answers.take(expires)?;
        }
        Ok(())
    }

    /// One `DEL`.
    async fn remove(&self, place: &Place<'_>) -> Result<bool> {
        place.check()?;
        Ok(self.driver.query(Cmd::new("DEL").key(self.key(place)).idempotent()).await?)
    }
}

pub(super) fn check_items(items: &[(String, f64)]) -> Result<()> {
    match items.iter().find(|(_, score)| !score.is_finite()) {
        Some((item, _)) => Err(Error::invalid(
            "popular items",
            format!("the score of {item} is no finite number: set one"),
        )),
        None => Ok(()),
    }
}

/// The answer to `TIME`, in milliseconds.
fn millis(time: &[u64]) -> u64 {
    let part = |place: usize| time.get(place).copied().unwrap_or(0);
    part(0).saturating_mul(1_000).saturating_add(part(1) / 1_000)
}
