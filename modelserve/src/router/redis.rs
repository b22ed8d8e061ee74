use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Batch, Cmd, Connect, DriverExt as _, DynDriver, ErrorKind, Reply, Script};
use tokio::time::sleep;

use super::memory::assigned;
use super::{ModelRouter, check_change, conflict};
use crate::error::name;
use crate::keys::ALIAS;
use crate::record::{self, Fields};
use crate::snapshot::{Aliases, aliased};
use crate::{Decision, Error, Experiment, Flag, Result, Snapshot, Subject};

static PUT: Script = Script::new(include_str!("../scripts/put.lua"));
static STICK: Script = Script::new(include_str!("../scripts/stick.lua"));

/// How often a snapshot is read again because something changed meanwhile.
const ATTEMPTS: usize = 16;

/// How long [`RedisModelRouter::run`] rests after a failure.
const REST: Duration = Duration::from_secs(1);

/// How many changes the stream of changes holds.
const CHANGES: &str = "100";

const EXPERIMENT: &str = "experiment:";
const FLAG: &str = "flag:";

/// A router whose experiments and flags are hashes on Redis.
///
/// Cloning is cheap, and clones share the snapshot.
#[derive(Clone, Debug)]
pub struct RedisModelRouter {
    driver: DynDriver,
    namespace: Namespace,
    // A `std` lock: it is held to clone a pointer, never across an await.
    current: Arc<RwLock<Arc<Snapshot>>>,
}

impl RedisModelRouter {
    /// Makes a router; nothing is sent, and nothing is loaded yet.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace, current: Arc::default() }
    }

    /// Refreshes the snapshot whenever something changes, and every `period` besides, until it is dropped.
    ///
    /// It waits on a connection of its own, with a blocking `XREAD`.
    /// Failures are logged, and the older snapshot stays in use; [`Snapshot::age`] tells how old it is.
    pub async fn run(self, connect: Arc<dyn Connect>, period: Duration) {
        let (mut waiter, mut seen) = (None, None);
        loop {
            if let Err(error) = self.follow(&*connect, &mut waiter, &mut seen, period).await {
                tracing::warn!(%error, "the routing snapshot could not be refreshed: the older one stays in use");
                waiter = None;
                sleep(REST.min(period)).await;
            }
        }
    }

    /// Refreshes once, then waits for a change.
    async fn follow(
        &self,
        connect: &dyn Connect,
        waiter: &mut Option<DynDriver>,
        seen: &mut Option<String>,
        period: Duration,
    ) -> Result<()> {
        // The mark comes first: what changes while the snapshot is read ends the wait at once.
        let last = match seen.take() {
            Some(last) => last,
            None => self.last_change().await?,
        };
        self.refresh().await?;
        let waiting = match waiter {
            Some(waiter) => waiter,
            none => none.insert(connect.connect().await?),
        };
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        let cmd = Cmd::new("XREAD").arg("BLOCK").arg(millis).arg("STREAMS").key(self.changes());
        let cmd = cmd.arg(&last).blocking(Duration::from_millis(millis)).readonly();
        let reply: Reply = waiting.query(cmd).await?;
        *seen = Some(match newest(reply)? {
            Some(newest) => newest,
            None => last,
        });
        Ok(())
    }

    async fn last_change(&self) -> Result<String> {
        let cmd = Cmd::new("XREVRANGE").key(self.changes()).args(["+", "-", "COUNT", "1"]);
        let entries: Vec<Reply> = self.driver.query(cmd.readonly()).await?;
        match entries.into_iter().next() {
            Some(entry) => Ok(id_of(entry)?),
            None => Ok("0-0".to_owned()),
        }
    }

    /// Reads all records; `None` if something changed meanwhile.
    async fn read(&self) -> Result<Option<Snapshot>> {
        let index: HashMap<String, String> =
            self.driver.query(Cmd::new("HGETALL").key(self.index()).readonly()).await?;
        let mut batch = Batch::new();
        let time = batch.push::<Vec<u64>>(Cmd::new("TIME").readonly());
        let mut records = Vec::with_capacity(index.len());
        for entry in index.keys() {
            if let Some(key) = self.record(entry) {
                records
                    .push((entry, batch.push::<Fields>(Cmd::new("HGETALL").key(key).readonly())));
            }
        }
        // Last: whoever changes a record changes the index behind it, before any other record.
        let after =
            batch.push::<HashMap<String, String>>(Cmd::new("HGETALL").key(self.index()).readonly());
        let mut answers = self.driver.run(batch).await?;
        let server = answers.take(time)?;
        let (mut experiments, mut flags, mut broken) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (entry, slot) in records {
            let fields = answers.take(slot)?;
            if fields.is_empty() {
                continue;
            }
            let failed = if let Some(name) = entry.strip_prefix(EXPERIMENT) {
                let read =
                    record::to_experiment(name, &fields).map(|found| experiments.push(found));
                read.err().map(|error| (format!("experiment {name}"), error))
            } else if let Some(name) = entry.strip_prefix(FLAG) {
                let read = record::to_flag(name, &fields).map(|found| flags.push(found));
                read.err().map(|error| (format!("flag {name}"), error))
            } else {
                None
            };
            if let Some((what, error)) = failed {
                tracing::warn!(%error, "a routing record cannot be read");
                broken.insert(what, error.to_string());
            }
        }
        if answers.take(after)? != index {
            return Ok(None);
        }
        let aliases = self.aliases(&experiments).await?;
        let server = Duration::from_secs(server.first().copied().unwrap_or(0));
        Ok(Some(Snapshot::new(experiments, flags, &aliases, broken, server)))
    }

    async fn aliases(&self, experiments: &[Experiment]) -> Result<Aliases> {
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for model in aliased(experiments) {
            let key = crate::keys::model(&self.namespace, &model).build();
            slots.push((
                model,
                batch.push::<HashMap<String, String>>(Cmd::new("HGETALL").key(key).readonly()),
            ));
        }
        let mut answers = self.driver.run(batch).await?;
        let mut aliases = Aliases::new();
        for (model, slot) in slots {
            let fields = answers.take(slot)?.into_iter();
            let of = fields.filter_map(|(field, version)| {
                Some((field.strip_prefix(ALIAS)?.to_owned(), version))
            });
            aliases.insert(model, of.collect());
        }
        Ok(aliases)
    }

    /// Writes a record, and then tells of it.
    async fn put(
        &self,
        what: &'static str,
        name: &str,
        revision: u64,
        fields: Vec<(&'static str, String)>,
    ) -> Result<u64> {
        let entry = format!("{what}:{name}");
        let key = self.record(&entry).ok_or_else(|| Error::Unknown { what: what.to_owned() })?;
        let mut cmd = Cmd::eval(&PUT, &[key]).arg(revision);
        for (field, text) in fields {
            cmd = cmd.arg(field).arg(text);
        }
        // First into the index: a record that is not in it would never be found again.
        let mut batch = Batch::new();
        let listed = batch.push::<i64>(self.bump(&entry));
        let put = batch.push::<(i64, u64)>(cmd);
        let mut answers = self.driver.run(batch).await?;
        answers.take(listed)?;
        let (done, current) = answers.take(put)?;
        if done == 0 {
            return Err(conflict(what, name, current));
        }
        self.tell(&entry).await?;
        Ok(current)
    }

    async fn remove(&self, what: &'static str, record: &str) -> Result<bool> {
        name("name", record)?;
        let entry = format!("{what}:{record}");
        let Some(key) = self.record(&entry) else { return Ok(false) };
        let there: bool = self.driver.query(Cmd::new("DEL").key(key).idempotent()).await?;
        let mut batch = Batch::new();
        let unlisted =
            batch.push::<i64>(Cmd::new("HDEL").key(self.index()).arg(&entry).idempotent());
        let told = batch.push::<()>(self.change(&entry));
        let mut answers = self.driver.run(batch).await?;
        answers.take(unlisted)?;
        answers.take(told)?;
        Ok(there)
    }

    async fn tell(&self, entry: &str) -> Result<()> {
        let mut batch = Batch::new();
        let bumped = batch.push::<i64>(self.bump(entry));
        let told = batch.push::<()>(self.change(entry));
        let mut answers = self.driver.run(batch).await?;
        answers.take(bumped)?;
        Ok(answers.take(told)?)
    }

    fn bump(&self, entry: &str) -> Cmd {
        Cmd::new("HINCRBY").key(self.index()).arg(entry).arg(1)
    }

    fn change(&self, entry: &str) -> Cmd {
        let cmd =
            Cmd::new("XADD").key(self.changes()).args(["MAXLEN", "~", CHANGES, "*", "record"]);
        cmd.arg(entry)
    }

    fn record(&self, entry: &str) -> Option<Key> {
        if let Some(name) = entry.strip_prefix(EXPERIMENT) {
            return Some(crate::keys::experiment(&self.namespace, name));
        }
        entry.strip_prefix(FLAG).map(|name| crate::keys::flag(&self.namespace, name))
    }

    fn index(&self) -> Key {
        self.namespace.family("ab").literal("index").build()
    }

    fn changes(&self) -> Key {
        self.namespace.family("ab").literal("changes").build()
    }
}

#[async_trait]
impl ModelRouter for RedisModelRouter {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Two round trips, and one more if arms stand behind aliases; again if records change meanwhile.
    async fn refresh(&self) -> Result<Arc<Snapshot>> {
        for _ in 0..ATTEMPTS {
            if let Some(snapshot) = self.read().await? {
                let snapshot = Arc::new(snapshot);
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::clone(&snapshot);
                return Ok(snapshot);
            }
        }
        Err(Error::Unsettled)
    }

    /// Three round trips: the older one is read and compared, then it is written, then it is told.
    async fn put_experiment(&self, experiment: &Experiment) -> Result<u64> {
        experiment.check()?;
        let older = match self.experiment(experiment.name()).await {
            // What cannot be read is replaced by who knows its revision.
            Err(Error::Record { .. }) => None,
            older => older?,
        };
        let current = older.as_ref().map_or(experiment.revision, Experiment::revision);
        if current != experiment.revision {
            return Err(conflict("experiment", experiment.name(), current));
        }
        check_change(experiment, older.as_ref())?;
        let fields = record::of_experiment(experiment)?;
        self.put("experiment", experiment.name(), experiment.revision, fields).await
    }

    /// One `HGETALL`.
    async fn experiment(&self, experiment: &str) -> Result<Option<Experiment>> {
        name("experiment's name", experiment)?;
        let key = crate::keys::experiment(&self.namespace, experiment);
        let fields: Fields = self.driver.query(Cmd::new("HGETALL").key(key).readonly()).await?;
        if fields.is_empty() {
            Ok(None)
        } else {
            record::to_experiment(experiment, &fields).map(Some)
        }
    }

    /// Two round trips.
    async fn remove_experiment(&self, name: &str) -> Result<bool> {
        self.remove("experiment", name).await
    }

    /// Two round trips.
    async fn put_flag(&self, flag: &Flag) -> Result<u64> {
        flag.check()?;
        self.put("flag", flag.name(), flag.revision, record::of_flag(flag)?).await
    }

    /// Two round trips.
    async fn remove_flag(&self, name: &str) -> Result<bool> {
        self.remove("flag", name).await
    }

    async fn route_sticky(
        &self,
        experiment: &str,
        subject: &Subject,
        ttl: Duration,
    ) -> Result<Decision> {
        let snapshot = self.snapshot();
        let decision = snapshot.route(experiment, subject)?;
        let Some((version, unit)) = assigned(&snapshot, &decision, subject) else {
            return Ok(decision);
        };
        let unit_of = snapshot.experiment(experiment).map_or("", |experiment| &experiment.unit);
        let key = self.namespace.family("ab").literal("sticky").part(unit_of).part(unit).build();
        let millis = u64::try_from(ttl.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1, i64::MAX.unsigned_abs() / 2);
        let cmd = Cmd::eval(&STICK, &[key]).arg(format!("{experiment}__{version}"));
        let arm: String =
            self.driver.query(cmd.arg(&*decision.arm).arg(millis).idempotent()).await?;
        if *arm == *decision.arm {
            return Ok(decision);
        }
        Ok(snapshot.stick(&decision, &arm).unwrap_or(decision))
    }
}

/// The id of the last entry of a reply to `XREAD` of one stream.
fn newest(reply: Reply) -> inferkit_core::Result<Option<String>> {
    if reply.is_nil() {
        return Ok(None);
    }
    let Some((_, entries)) = reply.into_pairs()?.into_iter().next() else { return Ok(None) };
    entries.into_array()?.into_iter().next_back().map(id_of).transpose()
}

fn id_of(entry: Reply) -> inferkit_core::Result<String> {
    let id = entry.into_array()?.into_iter().next();
    let missing = || inferkit_core::Error::new(ErrorKind::Reply, "an entry of a stream has no id");
    inferkit_core::FromReply::from_reply(id.ok_or_else(missing)?)
}
