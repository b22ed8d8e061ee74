use std::borrow::Cow;
use std::sync::atomic::Ordering;

use inferkit_core::keys::Key;
use inferkit_core::{Batch, Cmd, DriverExt as _, ErrorKind, Script};
use inferkit_vectorsearch::Vector;

use super::RedisSemanticCache;
use crate::adaptive::{FULL, KEPT, Trial, encode};
use crate::digest::unique;
use crate::embedding::{SAME, vector_of, vectors_of};
use crate::entry::{
    COMPLETION_TOKENS, EMBEDDING, ENCODING, FINISH, FORMAT_VERSION, KIN, LABEL_SEPARATOR, LABELS,
    MODEL, PROMPT, RESPONSE, TOKENS_USED, TRUNCATED, VERSION,
};
use crate::policy::ttl_millis;
use crate::selection::labels;
use crate::{
    Answer, EntryId, Feedback, Finish, Hit, Miss, Request, Result, SemanticCacheExt as _, Skip,
    Stored, Tenant,
};

static STORE: Script = Script::new(include_str!("../scripts/store.lua"));
static REPORT: Script = Script::new(include_str!("../scripts/report.lua"));
static JOIN: Script = Script::new(include_str!("../scripts/join.lua"));
static POOL: Script = Script::new(include_str!("../scripts/pool.lua"));

/// How long a pool is kept after the last report, in milliseconds.
const POOL_MILLIS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// How long the epoch of a flushed tenant is kept if nothing is stored, in milliseconds: no entry is valid without one.
const FLUSHED_MILLIS: u64 = 24 * 60 * 60 * 1_000;

/// All that a stored entry is made of.
pub(super) struct Draft<'d> {
    pub(super) key: Key,
    pub(super) epoch_key: Key,
    pub(super) ttl_millis: u64,
    /// The epoch at the time of the lookup.
    pub(super) epoch: Cow<'d, str>,
    pub(super) fence: u64,
    /// In seconds since the Unix epoch; now if it is not set.
    pub(super) stored_at: Option<u64>,
    pub(super) scope: String,
    pub(super) prompt: &'d str,
    pub(super) model: &'d str,
    pub(super) labels: String,
    pub(super) response: &'d [u8],
    pub(super) tokens_used: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    pub(super) finish: Finish,
    pub(super) vector: Option<&'d Vector>,
    pub(super) kin: Option<EntryId>,
}

impl RedisSemanticCache {
    pub(super) async fn put(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Option<Miss>,
    ) -> Result<Stored> {
        if let Some(skip) = self.config.policy.skips(request, answer) {
            return Ok(Stored::Skipped(skip));
        }
        let vector =
            vector_of(&*self.embedder, &self.config.policy, request, miss.as_ref()).await?;
        let draft = self.draft(request, answer, miss.as_ref(), vector.as_ref())?;
        let written = self.write(vec![draft]).await?;
        let stored = outcome(request, written.first().copied());
        if let (Stored::Kept(_), Some(miss)) = (stored, &miss) {
            self.join(request, miss).await?;
        }
        Ok(stored)
    }

    /// Notes that the answers of some entries agree with that of another, in one round trip if there are any.
    async fn join(&self, request: &Request, miss: &Miss) -> Result<()> {
        let Some(kin) = miss.kin.filter(|_| !miss.joined.is_empty()) else { return Ok(()) };
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(miss.joined.len());
        for id in &miss.joined {
            let key = [self.key(request.tenant(), id)];
            slots.push(
                batch.push::<bool>(Cmd::eval(&JOIN, &key).arg(kin.hex().as_str()).idempotent()),
            );
        }
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().try_for_each(|slot| answers.take(slot).map(drop))?;
        Ok(())
    }

    pub(super) async fn put_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>> {
        let policy = &self.config.policy;
        let vectors = vectors_of(&*self.embedder, policy, answers).await?;
        let skips: Vec<Option<Skip>> =
            answers.iter().map(|(request, answer)| policy.skips(request, answer)).collect();
        let drafts = answers
            .iter()
            .zip(&vectors)
            .zip(&skips)
            .filter(|(_, skip)| skip.is_none())
            .map(|(((request, answer), vector), _)| {
                self.draft(request, answer, None, vector.as_ref())
            })
            .collect::<Result<Vec<_>>>()?;
        let mut written = self.write(drafts).await?.into_iter();
        let outcomes = answers.iter().zip(skips).map(|((request, _), skip)| match skip {
            Some(skip) => Stored::Skipped(skip),
            None => outcome(request, written.next()),
        });
        Ok(outcomes.collect())
    }

    fn draft<'d>(
        &self,
        request: &'d Request,
        answer: &'d Answer,
        miss: Option<&'d Miss>,
        vector: Option<&'d Vector>,
    ) -> Result<Draft<'d>> {
        let labels: Vec<String> = labels(request, answer).into_iter().collect();
        Ok(Draft {
            key: self.key(request.tenant(), &request.id()),
            epoch_key: self.epoch_key(request.tenant()),
            ttl_millis: ttl_millis(self.config.policy.ttl_of(request))?,
            epoch: miss.and_then(Miss::epoch).unwrap_or_default().into(),
            fence: miss.and_then(Miss::fence).unwrap_or(0),
            stored_at: None,
            scope: request.scope(self.embedder.model()),
            prompt: request.prompt(),
            model: request.model(),
            labels: labels.join(LABEL_SEPARATOR),
            response: answer.response(),
            tokens_used: answer.tokens_used(),
            completion_tokens: answer.completion_tokens(),
            finish: answer.finish(),
            vector,
            kin: miss.and_then(|miss| miss.kin),
        })
    }

    /// Writes entries in one round trip; returns what the script says of each.
    pub(super) async fn write(&self, mut drafts: Vec<Draft<'_>>) -> Result<Vec<i64>> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        if !self.is_cluster.load(Ordering::Relaxed) {
            match self.send(&drafts, false).await {
                Err(crate::Error::Backend(error)) if error.kind() == ErrorKind::CrossSlot => {
                    self.is_cluster.store(true, Ordering::Relaxed);
                }
                written => return written,
            }
        }
        // On a cluster the epoch comes first, and the entries are written under it.
        let mut flushed = Vec::with_capacity(drafts.len());
        for draft in &mut drafts {
            let current = self.epoch(draft).await?;
            flushed.push(!draft.epoch.is_empty() && *draft.epoch != current);
            draft.epoch = current.into();
        }
        let mut index = 0;
        drafts.retain(|_| {
            index += 1;
            !flushed.get(index - 1).copied().unwrap_or(false)
        });
        let mut written = self.send(&drafts, true).await?.into_iter();
        let outcomes = flushed.into_iter();
        Ok(outcomes.map(|flushed| if flushed { 0 } else { written.next().unwrap_or(0) }).collect())
    }

    async fn send(&self, drafts: &[Draft<'_>], apart: bool) -> Result<Vec<i64>> {
        if let ([draft], false) = (drafts, apart) {
            return Ok(vec![self.driver.query(self.store_cmd(draft, apart)?).await?]);
        }
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(drafts.len());
        for draft in drafts {
            slots.push(batch.push::<i64>(self.store_cmd(draft, apart)?));
        }
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().map(|slot| Ok(answers.take(slot)?)).collect()
    }

    fn store_cmd(&self, draft: &Draft<'_>, apart: bool) -> Result<Cmd> {
        let keys = [draft.key.as_str(), draft.epoch_key.as_str()];
        let keys = keys.get(..if apart { 1 } else { 2 }).unwrap_or_default();
        let (response, encoding) = self.config.packing.encode(draft.response)?;
        let stored_at = draft.stored_at.map(|time| time.to_string()).unwrap_or_default();
        let mut cmd = Cmd::eval(&STORE, keys)
            .arg(draft.ttl_millis)
            .arg(&*draft.epoch)
            .arg(unique())
            .arg(draft.fence)
            .arg(stored_at)
            .arg(&draft.scope)
            .arg(VERSION)
            .arg(FORMAT_VERSION)
            .arg(PROMPT)
            .arg(draft.prompt)
            .arg(RESPONSE)
            .arg(&*response)
            .arg(MODEL)
            .arg(draft.model)
            .arg(LABELS)
            .arg(&draft.labels);
        if let Some(encoding) = encoding {
            cmd = cmd.arg(ENCODING).arg(encoding);
        }
        if let Some(vector) = draft.vector {
            cmd = cmd.arg(EMBEDDING).arg(&*self.config.data_type.encode(vector)?);
        }
        if draft.finish == Finish::Truncated {
            cmd = cmd.arg(FINISH).arg(TRUNCATED);
        }
        if let Some(kin) = draft.kin {
            cmd = cmd.arg(KIN).arg(kin.hex().as_str());
        }
        let counts =
            [(TOKENS_USED, draft.tokens_used), (COMPLETION_TOKENS, draft.completion_tokens)];
        for (field, count) in counts {
            if let Some(count) = count {
                cmd = cmd.arg(field).arg(count);
            }
        }
        Ok(cmd.idempotent())
    }

    /// The epoch of a draft's tenant on a cluster; made if there is none, and kept as long as the draft will be.
    async fn epoch(&self, draft: &Draft<'_>) -> Result<String> {
        let key = &draft.epoch_key;
        let mut batch = Batch::new();
        let new = Cmd::new("SET").key(key).arg(unique()).args(["NX", "PX"]).arg(draft.ttl_millis);
        let new = batch.push::<bool>(new.idempotent());
        let longer = Cmd::new("PEXPIRE").key(key).arg(draft.ttl_millis).arg("GT").idempotent();
        let longer = batch.push::<()>(longer);
        let current = batch.push::<String>(Cmd::new("GET").key(key));
        let mut answers = self.driver.run(batch).await?;
        answers.take(new)?;
        answers.take(longer)?;
        Ok(answers.take(current)?)
    }

    pub(super) async fn new_epoch(&self, tenant: &Tenant) -> Result<()> {
        let key = self.epoch_key(tenant);
        let cmd = Cmd::new("SET").key(key).arg(unique()).arg("PX").arg(FLUSHED_MILLIS);
        Ok(self.driver.query(cmd.idempotent()).await?)
    }

    pub(super) async fn note(
        &self,
        asked: &Request,
        hit: &Hit,
        feedback: Feedback,
    ) -> Result<bool> {
        if let Some(trial) = hit.trial.filter(|_| self.config.policy.max_wrong().is_some()) {
            return self.observe(asked, hit, trial, feedback).await;
        }
        match feedback {
            Feedback::Right => Ok(true),
            Feedback::Wrong if hit.id == asked.id() && hit.similarity == SAME => {
                self.forget(asked).await
            }
            Feedback::Wrong => {
                let key = [self.key(asked.tenant(), &hit.id)];
                let EntryId(id) = asked.id();
                let cmd = Cmd::eval(&REPORT, &key).arg(crate::digest::hex(&id).as_str()).arg("");
                Ok(self.driver.query(cmd.idempotent()).await?)
            }
        }
    }

    /// Adds an observation to its entry and to the pool, in one round trip; never repeated, since it would count twice.
    async fn observe(
        &self,
        asked: &Request,
        hit: &Hit,
        trial: Trial,
        feedback: Feedback,
    ) -> Result<bool> {
        let correct = feedback == Feedback::Right;
        self.controller.learn(trial, correct);
        let id = asked.id().hex();
        let key = [self.key(asked.tenant(), &hit.id)];
        let entry = Cmd::eval(&REPORT, &key)
            .arg(if correct { "" } else { id.as_str() })
            .arg(encode((trial.cell, correct)))
            .arg(KEPT * 4);
        let pool = Cmd::eval(&POOL, &[self.pool_key()])
            .arg(u32::from(trial.cell) * 2 + u32::from(!correct))
            .arg(u64::from(trial.weight))
            .arg(u64::from(FULL))
            .arg(POOL_MILLIS);
        let mut batch = Batch::new();
        let (entry, pool) = (batch.push::<bool>(entry), batch.push::<()>(pool));
        let mut answers = self.driver.run(batch).await?;
        self.pool.forget();
        answers.take(pool)?;
        Ok(answers.take(entry)?)
    }
}

/// What the script's reply means.
fn outcome(request: &Request, reply: Option<i64>) -> Stored {
    match reply {
        Some(1) => Stored::Kept(request.id()),
        Some(0) | None => Stored::Skipped(Skip::Flushed),
        Some(_) => Stored::Skipped(Skip::Superseded),
    }
}
