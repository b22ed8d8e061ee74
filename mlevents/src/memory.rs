use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};
use tokio::sync::Notify;

use crate::bus::{
    Claimed, DeadLetter, Delivery, EntryId, EventBus, GroupStatus, PartitionStatus, Reader, Start,
    Trim, Trimmed,
};
use crate::error::{Error, Result, name};
use crate::event::Event;
use crate::topic::Topic;

/// Events in memory: for tests and tools of one process.
#[derive(Debug)]
pub struct MemoryEventBus {
    clock: Arc<dyn Clock>,
    partitions: Mutex<HashMap<(String, u16), Partition>>,
    workers: Mutex<HashMap<(String, String), BTreeMap<String, Duration>>>,
    published: Notify,
}

#[derive(Debug, Default)]
struct Partition {
    events: BTreeMap<EntryId, Event>,
    last: EntryId,
    ids: HashMap<String, Duration>,
    groups: BTreeMap<String, Group>,
    dead: BTreeMap<EntryId, DeadLetter>,
    last_dead: EntryId,
}

#[derive(Debug, Default)]
struct Group {
    delivered: EntryId,
    pending: BTreeMap<EntryId, Pending>,
}

#[derive(Debug)]
struct Pending {
    consumer: String,
    heard: Duration,
    attempts: u32,
    due: Option<Duration>,
}

const REMEMBERED: Duration = Duration::from_secs(600);

impl Default for MemoryEventBus {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }
}

impl MemoryEventBus {
    /// Makes an empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty bus that goes by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let (partitions, workers) = (Mutex::default(), Mutex::default());
        Self { clock, partitions, workers, published: Notify::new() }
    }

    fn with<T>(&self, topic: &Topic, partition: u16, act: impl FnOnce(&mut Partition) -> T) -> T {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        act(partitions.entry((topic.name().to_owned(), partition)).or_default())
    }

    fn with_group<T>(
        &self,
        reader: Reader<'_>,
        act: impl FnOnce(&mut Group, &BTreeMap<EntryId, Event>) -> T,
    ) -> Result<T> {
        reader.topic.check(reader.partition)?;
        self.with(reader.topic, reader.partition, |partition| {
            let group = partition.groups.get_mut(reader.group);
            let group = group.ok_or_else(|| Error::NoGroup {
                topic: reader.topic.name().to_owned(),
                group: reader.group.to_owned(),
            })?;
            Ok(act(group, &partition.events))
        })
    }

    fn add(&self, topic: &Topic, event: &Event) -> EntryId {
        let now = self.clock.now();
        self.with(topic, topic.partition_of(event), |partition| partition.add(event.clone(), now))
    }

    fn take_new(&self, reader: Reader<'_>, count: usize) -> Result<Vec<Delivery>> {
        let now = self.clock.now();
        self.with_group(reader, |group, events| {
            let after =
                EntryId::new(group.delivered.millis, group.delivered.sequence.saturating_add(1));
            let mut deliveries = Vec::new();
            for (entry, event) in events.range(after..) {
                if deliveries.len() == count {
                    break;
                }
                group.delivered = *entry;
                if event.only.as_deref().is_some_and(|only| only != reader.group) {
                    continue;
                }
                let consumer = reader.consumer.to_owned();
                let pending = Pending { consumer, heard: now, attempts: 1, due: None };
                group.pending.insert(*entry, pending);
                deliveries.push(Delivery::new(reader.partition, *entry, 1, Ok(event.clone())));
            }
            deliveries
        })
    }
}

impl Partition {
    fn add(&mut self, event: Event, now: Duration) -> EntryId {
        self.last = next(self.last, now);
        self.events.insert(self.last, event);
        self.last
    }
}

fn next(last: EntryId, now: Duration) -> EntryId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    if last.millis < millis {
        EntryId::new(millis, 0)
    } else {
        EntryId::new(last.millis, last.sequence + 1)
    }
}

#[async_trait]
impl EventBus for MemoryEventBus {
    async fn publish(&self, topic: &Topic, events: &[Event]) -> Result<Vec<EntryId>> {
        let published = events.iter().map(|event| self.add(topic, event)).collect();
        self.published.notify_waiters();
        Ok(published)
    }

    async fn publish_once(&self, topic: &Topic, events: &[Event]) -> Result<Vec<Option<EntryId>>> {
        let now = self.clock.now();
        let mut published = Vec::with_capacity(events.len());
        for event in events {
            published.push(self.with(topic, topic.partition_of(event), |partition| {
                partition.ids.retain(|_, at| now < *at + REMEMBERED);
                if partition.ids.contains_key(event.id()) {
                    return None;
                }
                partition.ids.insert(event.id.clone(), now);
                Some(partition.add(event.clone(), now))
            }));
        }
        self.published.notify_waiters();
        Ok(published)
    }

    async fn create_group(&self, topic: &Topic, group: &str, start: Start) -> Result<()> {
        name("group", group)?;
        for partition in 0..topic.partitions() {
            self.with(topic, partition, |partition| {
                let delivered = match start {
                    Start::Beginning => EntryId::default(),
                    Start::Now => partition.last,
                    Start::Millis(millis) => EntryId::new(millis, 0).before(),
                    Start::After(entry) => entry,
                };
                let new = || Group { delivered, ..Group::default() };
                partition.groups.entry(group.to_owned()).or_insert_with(new);
            });
        }
        Ok(())
    }

    async fn read(
        &self,
        reader: Reader<'_>,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>> {
        let end = tokio::time::Instant::now() + wait;
        loop {
            let published = self.published.notified();
            let deliveries = self.take_new(reader, count)?;
            if !deliveries.is_empty() || count == 0 {
                return Ok(deliveries);
            }
            if tokio::time::timeout_at(end, published).await.is_err() {
                return Ok(deliveries);
            }
        }
    }

    async fn claim(
        &self,
        reader: Reader<'_>,
        idle: Duration,
        from: Option<EntryId>,
        count: usize,
    ) -> Result<Claimed> {
        let now = self.clock.now();
        self.with_group(reader, |group, events| {
            let mut claimed = Claimed::default();
            let mut gone = Vec::new();
            let from = from.unwrap_or_default();
            for (entry, pending) in &mut group.pending {
                let is_due = match pending.due {
                    Some(due) => due <= now,
                    None => from <= *entry && pending.heard + idle <= now,
                };
                if !is_due {
                    continue;
                }
                if claimed.deliveries.len() == count {
                    claimed.next = Some(*entry);
                    break;
                }
                let Some(event) = events.get(entry) else {
                    gone.push(*entry);
                    continue;
                };
                pending.due = None;
                pending.heard = now;
                pending.attempts += 1;
                reader.consumer.clone_into(&mut pending.consumer);
                let event = Ok(event.clone());
                claimed.deliveries.push(Delivery::new(
                    reader.partition,
                    *entry,
                    pending.attempts,
                    event,
                ));
            }
            for entry in gone {
                group.pending.remove(&entry);
            }
            claimed
        })
    }

    async fn oldest_pending(&self, reader: Reader<'_>) -> Result<Option<EntryId>> {
        self.with_group(reader, |group, _| group.pending.keys().next().copied())
    }

    async fn ack(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<u64> {
        self.with(reader.topic, reader.partition, |partition| {
            let Some(group) = partition.groups.get_mut(reader.group) else { return Ok(0) };
            Ok(entries.iter().filter(|entry| group.pending.remove(entry).is_some()).count() as u64)
        })
    }

    async fn extend(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<()> {
        let now = self.clock.now();
        self.with_group(reader, |group, _| {
            for entry in entries {
                if let Some(pending) = group.pending.get_mut(entry) {
                    pending.heard = now;
                    reader.consumer.clone_into(&mut pending.consumer);
                }
            }
        })
    }

    async fn retry(&self, reader: Reader<'_>, entry: EntryId, delay: Duration) -> Result<()> {
        let now = self.clock.now();
        self.with_group(reader, |group, _| {
            if let Some(pending) = group.pending.get_mut(&entry) {
                pending.due = Some(now + delay);
            }
        })
    }

    async fn bury(&self, reader: Reader<'_>, delivery: &Delivery, reason: &str) -> Result<bool> {
        let now = self.clock.now();
        Ok(self.with(reader.topic, reader.partition, |partition| {
            let group = partition.groups.get_mut(reader.group);
            if group.and_then(|group| group.pending.remove(&delivery.entry)).is_none() {
                return false;
            }
            partition.last_dead = next(partition.last_dead, now);
            let entry = partition.last_dead;
            let letter = DeadLetter::new(entry, reader.group, reason, delivery);
            partition.dead.insert(entry, letter);
            true
        }))
    }

    async fn leave(&self, reader: Reader<'_>) -> Result<bool> {
        Ok(self.with(reader.topic, reader.partition, |partition| {
            let has = |group: &Group| {
                group.pending.values().any(|pending| pending.consumer == reader.consumer)
            };
            !partition.groups.get(reader.group).is_some_and(has)
        }))
    }

    async fn announce(
        &self,
        topic: &Topic,
        group: &str,
        consumer: &str,
        ttl: Duration,
    ) -> Result<usize> {
        let now = self.clock.now();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = workers.entry((topic.name().to_owned(), group.to_owned())).or_default();
        if ttl.is_zero() {
            alive.remove(consumer);
        } else {
            alive.insert(consumer.to_owned(), now + ttl);
        }
        alive.retain(|_, end| now < *end);
        Ok(alive.len())
    }

    async fn trim(&self, topic: &Topic, trim: Trim) -> Result<Trimmed> {
        let now = self.clock.now();
        let mut trimmed = Trimmed::default();
        for partition in 0..topic.partitions() {
            self.with(topic, partition, |partition| partition.trim(trim, now, &mut trimmed));
        }
        for groups in [&mut trimmed.held_by, &mut trimmed.overrun] {
            groups.sort_unstable();
            groups.dedup();
        }
        Ok(trimmed)
    }

    async fn status(&self, topic: &Topic) -> Result<Vec<PartitionStatus>> {
        let status = |partition: &mut Partition| PartitionStatus {
            length: partition.events.len() as u64,
            dead: partition.dead.len() as u64,
            groups: partition
                .groups
                .iter()
                .map(|(name, group)| (name.clone(), group.status(&partition.events)))
                .collect(),
        };
        Ok((0..topic.partitions()).map(|partition| self.with(topic, partition, status)).collect())
    }

    async fn dead_letters(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetter>> {
        topic.check(partition)?;
        Ok(self.with(topic, partition, |partition| {
            let letters = partition.dead.values();
            letters.filter(|letter| after < Some(letter.entry)).take(count).cloned().collect()
        }))
    }

    async fn requeue(&self, topic: &Topic, letter: &DeadLetter) -> Result<bool> {
        topic.check(letter.partition)?;
        let now = self.clock.now();
        let is_back = self.with(topic, letter.partition, |partition| {
            let Some(letter) = partition.dead.remove(&letter.entry) else { return false };
            if let Ok(mut event) = letter.event {
                event.only = Some(letter.group);
                partition.add(event, now);
            }
            true
        });
        self.published.notify_waiters();
        Ok(is_back)
    }

    async fn purge(&self, topic: &Topic, partition: u16, letters: &[EntryId]) -> Result<u64> {
        topic.check(partition)?;
        Ok(self.with(topic, partition, |partition| {
            letters.iter().filter(|letter| partition.dead.remove(letter).is_some()).count() as u64
        }))
    }
}

impl Group {
    fn status(&self, events: &BTreeMap<EntryId, Event>) -> GroupStatus {
        let mut consumers = BTreeMap::new();
        for pending in self.pending.values() {
            *consumers.entry(pending.consumer.clone()).or_insert(0) += 1;
        }
        GroupStatus {
            lag: events.keys().filter(|entry| self.delivered < **entry).count() as u64,
            pending: self.pending.len() as u64,
            oldest_pending: self.pending.keys().next().copied(),
            consumers,
        }
    }

    /// The last entry that it does not need.
    fn done(&self) -> EntryId {
        self.pending.keys().next().map_or(self.delivered, |oldest| oldest.before())
    }
}

impl Partition {
    fn trim(&mut self, trim: Trim, now: Duration, trimmed: &mut Trimmed) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let kept = |kept: u64| {
            let over = (self.events.len() as u64).saturating_sub(kept);
            usize::try_from(over).ok()?.checked_sub(1).and_then(|last| self.events.keys().nth(last))
        };
        let old =
            trim.age.map(|age| EntryId::new(millis(now).saturating_sub(millis(age)), 0).before());
        let bytes = trim.bytes.map(|bytes| {
            let all: usize = self.events.values().map(|event| event.data.len()).sum();
            bytes * self.events.len() as u64 / (all as u64).max(1)
        });
        let length = trim.length.into_iter().chain(bytes).min();
        let wanted = old.into_iter().chain(length.and_then(kept).copied()).max();
        if let Some(wanted) = wanted {
            let last = self.events.keys().next_back().copied().unwrap_or_default();
            let holds = |(_, group): &(&String, &Group)| group.done() < wanted.min(last);
            trimmed.held_by.extend(self.groups.iter().filter(holds).map(|(name, _)| name.clone()));
            let safe =
                self.groups.values().map(Group::done).chain([wanted]).min().unwrap_or(wanted);
            trimmed.removed += self.remove_through(safe);
        }
        if let Some(hard) = trim.hard
            && let Some(over) =
                (self.events.len() as u64).checked_sub(hard).filter(|over| 0 < *over)
            && let Some(last) =
                self.events.keys().nth(usize::try_from(over).unwrap_or(1) - 1).copied()
        {
            let loses = |(_, group): &(&String, &Group)| group.done() < last;
            trimmed.overrun.extend(self.groups.iter().filter(loses).map(|(name, _)| name.clone()));
            trimmed.removed += self.remove_through(last);
        }
    }

    fn remove_through(&mut self, last: EntryId) -> u64 {
        let before = self.events.len();
        self.events.retain(|entry, _| last < *entry);
        (before - self.events.len()) as u64
    }
}
