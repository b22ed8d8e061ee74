//! Trimming, status and dead letters.

use std::collections::HashMap;

use inferkit_core::{Batch, Cmd, DriverExt as _, ErrorKind, FromReply as _, Reply, Script, Slot};

use super::{RedisEventBus, entries, millis};
use crate::bus::{DeadLetter, EntryId, GroupStatus, PartitionStatus, Trim, Trimmed};
use crate::error::Result;
use crate::event::{Event, ONLY};
use crate::topic::Topic;

static TRIM: Script = Script::new(include_str!("../scripts/trim.lua"));
static REQUEUE: Script = Script::new(include_str!("../scripts/requeue.lua"));

/// How many entries a trim looks at in one call.
const LOOKED_AT: u64 = 10_000;
/// How many entries are counted where the server does not know a group's lag.
const COUNTED: u64 = 10_000;
/// What the fields of a dead letter begin with that the event does not have.
const DEAD: &str = "dead_";

impl RedisEventBus {
    pub(super) async fn trim_partitions(&self, topic: &Topic, trim: Trim) -> Result<Trimmed> {
        let mut trimmed = Trimmed::default();
        for partition in 0..topic.partitions() {
            let key = self.stream(topic, partition);
            let kept = match trim.bytes {
                Some(bytes) => self.fit(&key, bytes).await?.into_iter().chain(trim.length).min(),
                None => trim.length,
            };
            let number = |number: Option<u64>| {
                number.and_then(|number| i64::try_from(number).ok()).unwrap_or(-1)
            };
            loop {
                let cmd = Cmd::eval(&TRIM, &[&key])
                    .arg(number(trim.age.map(millis)))
                    .arg(number(kept))
                    .arg(number(trim.hard))
                    .arg(LOOKED_AT)
                    .idempotent();
                let (removed, held, lost, more): (u64, Vec<String>, Vec<String>, bool) =
                    self.driver.query(cmd).await?;
                trimmed.removed += removed;
                for (known, new) in [(&mut trimmed.held_by, held), (&mut trimmed.overrun, lost)] {
                    known.extend(new);
                    known.sort_unstable();
                    known.dedup();
                }
                if !more {
                    break;
                }
            }
        }
        for group in &trimmed.overrun {
            tracing::warn!(
                topic = topic.name(),
                group,
                "events were removed that a group had not acknowledged"
            );
        }
        let overrun = trimmed.overrun.len() as u64;
        inferkit_core::observe::count("inferkit_mlevents_overrun_total", &[], overrun);
        inferkit_core::observe::count("inferkit_mlevents_trimmed_total", &[], trimmed.removed);
        Ok(trimmed)
    }

    /// How many entries take about so many bytes.
    async fn fit(&self, key: &inferkit_core::keys::Key, bytes: u64) -> Result<Option<u64>> {
        let mut batch = Batch::new();
        let length = batch.push::<u64>(Cmd::new("XLEN").key(key).readonly());
        let usage = Cmd::new("MEMORY").arg("USAGE").key(key).args(["SAMPLES", "0"]).readonly();
        let used = batch.push::<Option<u64>>(usage);
        let mut answers = self.driver.run(batch).await?;
        let (length, used) = (answers.take(length)?, answers.take(used)?.unwrap_or(0));
        let fits = u128::from(length) * u128::from(bytes) / u128::from(used.max(1));
        Ok((bytes < used).then(|| u64::try_from(fits).unwrap_or(u64::MAX)))
    }

    pub(super) async fn status_of_partitions(&self, topic: &Topic) -> Result<Vec<PartitionStatus>> {
        let mut batch = Batch::new();
        let slots: Vec<_> = (0..topic.partitions())
            .map(|partition| {
                let key = self.stream(topic, partition);
                let length = Cmd::new("XLEN").key(&key).readonly();
                let dead = Cmd::new("XLEN").key(self.beside(topic, partition, "dead")).readonly();
                let groups = Cmd::new("XINFO").arg("GROUPS").key(key).readonly();
                (
                    batch.push::<u64>(length),
                    batch.push::<u64>(dead),
                    batch.push::<Vec<Reply>>(groups),
                )
            })
            .collect();
        let mut answers = self.driver.run(batch).await?;
        let mut partitions = Vec::with_capacity(slots.len());
        for (partition, (length, dead, groups)) in (0_u16..).zip(slots) {
            let mut status = PartitionStatus {
                length: answers.take(length)?,
                dead: answers.take(dead)?,
                ..PartitionStatus::default()
            };
            let groups = match answers.take(groups) {
                // There is no stream yet.
                Err(error) if error.kind() == ErrorKind::Server => Vec::new(),
                groups => groups?,
            };
            for group in groups {
                let fields = HashMap::<String, Reply>::from_reply(group)?;
                let (name, group) = self.group(topic, partition, fields).await?;
                status.groups.insert(name, group);
            }
            partitions.push(status);
        }
        Ok(partitions)
    }

    async fn group(
        &self,
        topic: &Topic,
        partition: u16,
        mut fields: HashMap<String, Reply>,
    ) -> Result<(String, GroupStatus)> {
        let mut field = |name: &str| fields.remove(name).unwrap_or(Reply::Nil);
        let name = String::from_reply(field("name"))?;
        let lag = Option::<u64>::from_reply(field("lag"))?;
        let last = EntryId::from_reply(field("last-delivered-id"))?;
        let key = self.stream(topic, partition);
        let mut batch = Batch::new();
        let pending: Slot<Vec<Reply>> =
            batch.push(Cmd::new("XPENDING").key(&key).arg(&name).readonly());
        // The server loses count once an entry was deleted.
        let behind = lag.is_none().then(|| {
            let cmd = Cmd::new("XRANGE").key(&key).arg(format!("({last}")).arg("+");
            batch.push::<Vec<Reply>>(cmd.arg("COUNT").arg(COUNTED).readonly())
        });
        let mut answers = self.driver.run(batch).await?;
        let mut pending = answers.take(pending)?.into_iter();
        let mut next = || pending.next().unwrap_or(Reply::Nil);
        let count = u64::from_reply(next())?;
        let oldest = Option::<EntryId>::from_reply(next())?;
        next();
        let consumers = Option::<Vec<Reply>>::from_reply(next())?.unwrap_or_default();
        let behind = behind.map(|slot| answers.take(slot)).transpose()?;
        let mut status = GroupStatus {
            lag: lag.or_else(|| behind.map(|behind| behind.len() as u64)).unwrap_or(0),
            pending: count,
            oldest_pending: oldest,
            ..GroupStatus::default()
        };
        for consumer in consumers {
            let (consumer, count) = <(String, u64)>::from_reply(consumer)?;
            status.consumers.insert(consumer, count);
        }
        Ok((name, status))
    }

    pub(super) async fn letters(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetter>> {
        topic.check(partition)?;
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let cmd = Cmd::new("XRANGE").key(self.beside(topic, partition, "dead")).arg(from).arg("+");
        let reply: Reply = self.driver.query(cmd.arg("COUNT").arg(count).readonly()).await?;
        let letter = |entry: super::Entry| {
            let text = |name: &str| {
                let value = entry.fields.iter().find(|(own, _)| own == &format!("{DEAD}{name}"));
                value
                    .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                    .unwrap_or_default()
            };
            DeadLetter {
                partition,
                entry: entry.id,
                origin: text("entry").parse().unwrap_or_default(),
                group: text("group"),
                reason: text("reason"),
                attempts: text("attempts").parse().unwrap_or_default(),
                event: Event::of_fields(&entry.fields),
            }
        };
        Ok(entries(reply)?.into_iter().map(letter).collect())
    }

    pub(super) async fn publish_letter(&self, topic: &Topic, letter: &DeadLetter) -> Result<bool> {
        topic.check(letter.partition)?;
        let keys =
            [self.stream(topic, letter.partition), self.beside(topic, letter.partition, "dead")];
        let cmd = Cmd::eval(&REQUEUE, &keys)
            .arg(letter.entry.to_string())
            .arg(ONLY)
            .arg(&letter.group)
            .arg(DEAD);
        Ok(self.driver.query(cmd.idempotent()).await?)
    }
}
