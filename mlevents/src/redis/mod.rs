mod operate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{
    Batch, Cmd, Connect, DriverExt as _, DynDriver, Error as Backend, ErrorKind, FromReply, Reply,
    Script, Slot,
};

use crate::bus::{
    Claimed, DeadLetter, Delivery, EntryId, EventBus, PartitionStatus, Reader, Start, Trim, Trimmed,
};
use crate::error::{Error, Result, name};
use crate::event::Event;
use crate::keys;
use crate::topic::Topic;

static PUBLISH_ONCE: Script = Script::new(include_str!("../scripts/publish_once.lua"));
static ACK: Script = Script::new(include_str!("../scripts/ack.lua"));
static CLAIM: Script = Script::new(include_str!("../scripts/claim.lua"));
static RETRY: Script = Script::new(include_str!("../scripts/retry.lua"));
static BURY: Script = Script::new(include_str!("../scripts/bury.lua"));
static LEAVE: Script = Script::new(include_str!("../scripts/leave.lua"));
static ANNOUNCE: Script = Script::new(include_str!("../scripts/announce.lua"));

/// For how long the ids of events are remembered that are published once.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many dead letters a partition keeps, about.
const DEAD_LETTERS: u64 = 10_000;
/// How long a reader without a connection of its own waits before it looks again.
const POLL: Duration = Duration::from_millis(50);
/// How many events go to the server in one pipeline, and ids into one script.
const CHUNK: usize = 512;

/// Events on Redis Streams: a stream for each partition.
///
/// Cloning is cheap, and clones share connections.
#[derive(Clone, Debug)]
pub struct RedisEventBus {
    driver: DynDriver,
    namespace: Namespace,
    waiting: Option<Arc<Waiting>>,
}

/// Connections on which readers wait.
#[derive(Debug)]
struct Waiting {
    connect: Arc<dyn Connect>,
    idle: Mutex<Vec<DynDriver>>,
}

impl Waiting {
    async fn take(&self) -> Result<DynDriver> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(driver) => Ok(driver),
            None => Ok(self.connect.connect().await?),
        }
    }

    fn give_back(&self, driver: DynDriver) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(driver);
    }
}

impl RedisEventBus {
    /// Makes a bus; nothing is sent.
    ///
    /// Readers look every 50 milliseconds, until they are [given connections](Self::with_connect) to wait on.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace, waiting: None }
    }

    /// Gives readers connections of their own, on which they wait at the server: one for each partition that is read.
    #[must_use]
    pub fn with_connect(mut self, connect: Arc<dyn Connect>) -> Self {
        self.waiting = Some(Arc::new(Waiting { connect, idle: Mutex::default() }));
        self
    }

    fn stream(&self, topic: &Topic, partition: u16) -> Key {
        keys::partition(&self.namespace, topic.name(), partition).build()
    }

    fn beside(&self, topic: &Topic, partition: u16, what: &'static str) -> Key {
        keys::partition(&self.namespace, topic.name(), partition).literal(what).build()
    }

    fn delayed(&self, topic: &Topic, partition: u16, group: &str) -> Key {
        let key = keys::partition(&self.namespace, topic.name(), partition);
        key.literal("delay").part(group).build()
    }

    fn add(&self, topic: &Topic, event: &Event) -> Cmd {
        let key = self.stream(topic, topic.partition_of(event));
        event.write(Cmd::with_capacity("XADD", 256 + event.data.len()).key(key).arg("*"))
    }

    /// The deliveries of entries that were read; those of others' dead letters are acknowledged.
    async fn deliver(
        &self,
        reader: Reader<'_>,
        entries: Vec<(Entry, u32)>,
    ) -> Result<Vec<Delivery>> {
        let mut deliveries = Vec::with_capacity(entries.len());
        let mut others = Vec::new();
        for (Entry { id, fields }, attempt) in entries {
            let event = Event::of_fields(&fields);
            match &event {
                Ok(Event { only: Some(only), .. }) if only != reader.group => others.push(id),
                _ => deliveries.push(Delivery::new(reader.partition, id, attempt, event)),
            }
        }
        if !others.is_empty() {
            self.ack(reader, &others).await?;
        }
        Ok(deliveries)
    }
}

/// An entry of a stream.
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) fields: Vec<(Bytes, Bytes)>,
}

impl FromReply for EntryId {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let text = String::from_reply(reply)?;
        text.parse().map_err(|_| Backend::new(ErrorKind::Reply, "expected the id of an entry"))
    }
}

impl FromReply for Entry {
    fn from_reply(reply: Reply) -> inferkit_core::Result<Self> {
        let (id, fields) = <(EntryId, Reply)>::from_reply(reply)?;
        let fields = match fields {
            // What was deleted while it was on its way.
            Reply::Nil => Vec::new(),
            fields => fields
                .into_pairs()?
                .into_iter()
                .map(|(name, value)| Ok((Bytes::from_reply(name)?, Bytes::from_reply(value)?)))
                .collect::<inferkit_core::Result<_>>()?,
        };
        Ok(Self { id, fields })
    }
}

/// The entries of a reply, whose type the core does not know.
pub(super) fn entries(reply: Reply) -> Result<Vec<Entry>> {
    let read = |reply| Ok(Entry::from_reply(reply)?);
    reply.into_array()?.into_iter().map(read).collect()
}

#[async_trait]
impl EventBus for RedisEventBus {
    /// One pipeline of an `XADD` for each event, for every 512.
    async fn publish(&self, topic: &Topic, events: &[Event]) -> Result<Vec<EntryId>> {
        let mut published = Vec::with_capacity(events.len());
        let encode = |events: Option<&[Event]>| -> Batch {
            events.unwrap_or_default().iter().map(|event| self.add(topic, event)).collect()
        };
        let mut chunks = events.chunks(CHUNK);
        let mut batch = encode(chunks.next());
        while !batch.is_empty() {
            // While the server works on one, the next is encoded.
            let next = async { encode(chunks.next()) };
            let (replies, next) = join(self.driver.pipeline(batch), next).await;
            for reply in replies? {
                published.push(EntryId::from_reply(reply?)?);
            }
            batch = next;
        }
        Ok(published)
    }

    /// One pipeline of an `EVALSHA` for each event, for every 512.
    async fn publish_once(&self, topic: &Topic, events: &[Event]) -> Result<Vec<Option<EntryId>>> {
        let mut published = Vec::with_capacity(events.len());
        for events in events.chunks(CHUNK) {
            let mut batch = Batch::new();
            let mut slots: Vec<Slot<String>> = Vec::with_capacity(events.len());
            for event in events {
                let partition = topic.partition_of(event);
                let keys = [self.stream(topic, partition), self.beside(topic, partition, "ids")];
                let cmd = Cmd::eval(&PUBLISH_ONCE, &keys).arg(event.id()).arg(millis(REMEMBERED));
                slots.push(batch.push(event.write(cmd).idempotent()));
            }
            let mut answers = self.driver.run(batch).await?;
            for slot in slots {
                published.push(answers.take(slot)?.parse().ok());
            }
        }
        Ok(published)
    }

    /// One pipeline of an `HGET` and, to begin now, an `XINFO STREAM` for each partition, then one of an `XGROUP CREATE` and
    /// an `HSETNX`.
    async fn create_group(&self, topic: &Topic, group: &str, start: Start) -> Result<()> {
        name("group", group)?;
        let mut batch = Batch::new();
        let slots: Vec<_> = (0..topic.partitions())
            .map(|partition| {
                let key = self.beside(topic, partition, "floors");
                let floor =
                    batch.push::<Option<String>>(Cmd::new("HGET").key(key).arg(group).readonly());
                let last = (start == Start::Now).then(|| {
                    let info = Cmd::new("XINFO").arg("STREAM").key(self.stream(topic, partition));
                    batch.push::<HashMap<String, Reply>>(info.readonly())
                });
                (floor, last)
            })
            .collect();
        let mut answers = self.driver.run(batch).await?;
        let mut create = Batch::new();
        for (partition, (floor, last)) in (0..topic.partitions()).zip(slots) {
            let last = match last.map(|slot| answers.take(slot)) {
                Some(Ok(mut info)) => {
                    EntryId::from_reply(info.remove("last-generated-id").unwrap_or(Reply::Nil))?
                }
                // There is no stream yet.
                Some(Err(error)) if error.kind() == ErrorKind::Server => EntryId::default(),
                Some(Err(error)) => return Err(error.into()),
                None => EntryId::default(),
            };
            let from = match (answers.take(floor)?, start) {
                // Everything before this one was acknowledged, and it was not.
                (Some(floor), _) => match floor.strip_prefix('<') {
                    Some(first) => {
                        first.parse::<EntryId>().unwrap_or_default().before().to_string()
                    }
                    None => floor,
                },
                (None, Start::Beginning) => EntryId::default().to_string(),
                (None, Start::Now) => last.to_string(),
                (None, Start::Millis(millis)) => EntryId::new(millis, 0).before().to_string(),
                (None, Start::After(entry)) => entry.to_string(),
            };
            let cmd = Cmd::new("XGROUP").arg("CREATE").key(self.stream(topic, partition));
            create.push::<Reply>(cmd.arg(group).arg(&from).arg("MKSTREAM"));
            // Where it begins is where it goes on, if its stream is lost before it has acknowledged anything.
            let floors = Cmd::new("HSETNX").key(self.beside(topic, partition, "floors"));
            create.push::<Reply>(floors.arg(group).arg(&from).idempotent());
        }
        for reply in self.driver.pipeline(create).await? {
            match reply {
                // It is there.
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                reply => {
                    reply?;
                }
            }
        }
        Ok(())
    }

    /// One `XREADGROUP`, on a connection of its own where it may wait.
    async fn read(
        &self,
        reader: Reader<'_>,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>> {
        reader.topic.check(reader.partition)?;
        let key = self.stream(reader.topic, reader.partition);
        let cmd = |block: Option<Duration>| {
            let cmd = Cmd::new("XREADGROUP").args(["GROUP", reader.group, reader.consumer]);
            let cmd = cmd.arg("COUNT").arg(count);
            let cmd = match block {
                Some(wait) => cmd.arg("BLOCK").arg(millis(wait).max(1)).blocking(wait),
                None => cmd,
            };
            cmd.arg("STREAMS").key(&key).arg(">")
        };
        let reply = match &self.waiting {
            Some(waiting) if !wait.is_zero() => {
                let driver = waiting.take().await?;
                let reply = driver.call(cmd(Some(wait))).await;
                // One that failed is closed.
                if reply.is_ok() {
                    waiting.give_back(driver);
                }
                reply
            }
            _ => {
                let end = tokio::time::Instant::now() + wait;
                loop {
                    let reply = self.driver.call(cmd(None)).await;
                    let left = end.saturating_duration_since(tokio::time::Instant::now());
                    if left.is_zero() || !matches!(reply, Ok(Reply::Nil)) {
                        break reply;
                    }
                    tokio::time::sleep(POLL.min(left)).await;
                }
            }
        };
        let streams = match reply {
            Ok(Reply::Nil) => return Ok(Vec::new()),
            Ok(reply) => reply.into_pairs()?,
            Err(error) => return Err(no_group(error, reader)),
        };
        let mut read = Vec::new();
        for (_, stream) in streams {
            read.extend(entries(stream)?.into_iter().map(|entry| (entry, 1)));
        }
        self.deliver(reader, read).await
    }

    /// One `EVALSHA`.
    async fn claim(
        &self,
        reader: Reader<'_>,
        idle: Duration,
        from: Option<EntryId>,
        count: usize,
    ) -> Result<Claimed> {
        reader.topic.check(reader.partition)?;
        let keys = [
            self.stream(reader.topic, reader.partition),
            self.delayed(reader.topic, reader.partition, reader.group),
        ];
        let cmd = Cmd::eval(&CLAIM, &keys)
            .args([reader.group, reader.consumer])
            .arg(millis(idle))
            .arg(from.unwrap_or_default().to_string())
            .arg(count);
        let answer: inferkit_core::Result<(EntryId, Vec<Reply>)> = self.driver.query(cmd).await;
        let (next, taken) = answer.map_err(|error| no_group(error, reader))?;
        let mut claimed = Vec::with_capacity(taken.len());
        for taken in taken {
            let (entry, attempt) = <(Reply, u32)>::from_reply(taken)?;
            claimed.push((Entry::from_reply(entry)?, attempt));
        }
        claimed.sort_unstable_by_key(|(entry, _)| entry.id);
        let deliveries = self.deliver(reader, claimed).await?;
        Ok(Claimed::new(deliveries, Some(next).filter(|next| *next != EntryId::default())))
    }

    /// One `XPENDING`.
    async fn oldest_pending(&self, reader: Reader<'_>) -> Result<Option<EntryId>> {
        reader.topic.check(reader.partition)?;
        let cmd = Cmd::new("XPENDING").key(self.stream(reader.topic, reader.partition));
        let answer: inferkit_core::Result<Vec<Reply>> =
            self.driver.query(cmd.arg(reader.group).readonly()).await;
        let summary = answer.map_err(|error| no_group(error, reader))?;
        let oldest = summary.into_iter().nth(1).unwrap_or(Reply::Nil);
        Ok(Option::<EntryId>::from_reply(oldest)?)
    }

    /// One `EVALSHA` for every 512 entries.
    async fn ack(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<u64> {
        let keys = [
            self.stream(reader.topic, reader.partition),
            self.beside(reader.topic, reader.partition, "floors"),
            self.delayed(reader.topic, reader.partition, reader.group),
        ];
        let mut acked = 0;
        for entries in entries.chunks(CHUNK) {
            let cmd = Cmd::eval(&ACK, &keys).arg(reader.group);
            let cmd = entries.iter().fold(cmd, |cmd, entry| cmd.arg(entry.to_string()));
            let answer: inferkit_core::Result<u64> = self.driver.query(cmd.idempotent()).await;
            acked += match answer {
                // With the group its deliveries are gone.
                Err(error) if error.code() == Some("NOGROUP") => 0,
                answer => answer?,
            };
        }
        Ok(acked)
    }

    /// One `XCLAIM` with `JUSTID`.
    async fn extend(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let cmd = Cmd::new("XCLAIM").key(self.stream(reader.topic, reader.partition));
        let cmd = cmd.args([reader.group, reader.consumer]).arg(0);
        let cmd = entries.iter().fold(cmd, |cmd, entry| cmd.arg(entry.to_string()));
        match self.driver.query::<Reply>(cmd.arg("JUSTID").idempotent()).await {
            Err(error) if error.code() == Some("NOGROUP") => Ok(()),
            answer => Ok(answer.map(|_| ())?),
        }
    }

    /// One `EVALSHA`.
    async fn retry(&self, reader: Reader<'_>, entry: EntryId, delay: Duration) -> Result<()> {
        let keys = [
            self.stream(reader.topic, reader.partition),
            self.delayed(reader.topic, reader.partition, reader.group),
        ];
        let cmd = Cmd::eval(&RETRY, &keys).args([reader.group, reader.consumer]);
        let cmd = cmd.arg(entry.to_string()).arg(millis(delay)).idempotent();
        match self.driver.query::<i64>(cmd).await {
            Err(error) if is_no_group(&error) => Ok(()),
            answer => Ok(answer.map(|_| ())?),
        }
    }

    /// One `EVALSHA`.
    async fn bury(&self, reader: Reader<'_>, delivery: &Delivery, reason: &str) -> Result<bool> {
        let keys = [
            self.stream(reader.topic, reader.partition),
            self.beside(reader.topic, reader.partition, "dead"),
            self.delayed(reader.topic, reader.partition, reader.group),
            self.beside(reader.topic, reader.partition, "floors"),
        ];
        let cmd = Cmd::eval(&BURY, &keys)
            .arg(reader.group)
            .arg(delivery.entry.to_string())
            .arg(DEAD_LETTERS)
            .args(["dead_group", reader.group, "dead_reason", reason])
            .arg("dead_attempts")
            .arg(delivery.attempt)
            .arg("dead_entry")
            .arg(delivery.entry.to_string());
        match self.driver.query::<bool>(cmd.idempotent()).await {
            Err(error) if is_no_group(&error) => Ok(false),
            answer => Ok(answer?),
        }
    }

    /// One `EVALSHA`.
    async fn leave(&self, reader: Reader<'_>) -> Result<bool> {
        let key = self.stream(reader.topic, reader.partition);
        let cmd = Cmd::eval(&LEAVE, &[key]).args([reader.group, reader.consumer]);
        match self.driver.query::<bool>(cmd.idempotent()).await {
            Err(error) if is_no_group(&error) => Ok(true),
            answer => Ok(answer?),
        }
    }

    /// One `EVALSHA`.
    async fn announce(
        &self,
        topic: &Topic,
        group: &str,
        consumer: &str,
        ttl: Duration,
    ) -> Result<usize> {
        let key = keys::workers(&self.namespace, topic.name(), group);
        let cmd = Cmd::eval(&ANNOUNCE, &[key]).arg(consumer).arg(millis(ttl));
        Ok(self.driver.query(cmd.idempotent()).await?)
    }

    /// One `EVALSHA` for each partition, and for every 10 000 entries that are removed by their number.
    async fn trim(&self, topic: &Topic, trim: Trim) -> Result<Trimmed> {
        self.trim_partitions(topic, trim).await
    }

    /// One pipeline for all partitions, and one for each group.
    async fn status(&self, topic: &Topic) -> Result<Vec<PartitionStatus>> {
        self.status_of_partitions(topic).await
    }

    /// One `XRANGE`.
    async fn dead_letters(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.letters(topic, partition, after, count).await
    }

    /// One `EVALSHA`.
    async fn requeue(&self, topic: &Topic, letter: &DeadLetter) -> Result<bool> {
        self.publish_letter(topic, letter).await
    }

    /// One `XDEL`.
    async fn purge(&self, topic: &Topic, partition: u16, letters: &[EntryId]) -> Result<u64> {
        topic.check(partition)?;
        if letters.is_empty() {
            return Ok(0);
        }
        let cmd = Cmd::new("XDEL").key(self.beside(topic, partition, "dead"));
        let cmd = letters.iter().fold(cmd, |cmd, letter| cmd.arg(letter.to_string()));
        Ok(self.driver.query(cmd.idempotent()).await?)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a group or its stream is gone; inside of scripts the code is in the text.
fn is_no_group(error: &Backend) -> bool {
    error.code() == Some("NOGROUP") || error.to_string().contains("NOGROUP")
}

fn no_group(error: Backend, reader: Reader<'_>) -> Error {
    if is_no_group(&error) {
        let (topic, group) = (reader.topic.name().to_owned(), reader.group.to_owned());
        return Error::NoGroup { topic, group };
    }
    Error::Backend(error)
}
