use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::event::Event;
use crate::topic::Topic;

/// The id of an entry in a partition: milliseconds and a number, as the server gives them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, by the server's clock.
    pub millis: u64,
    /// Counts the entries of a millisecond.
    pub sequence: u64,
}

impl EntryId {
    /// Makes an id.
    #[must_use]
    pub const fn new(millis: u64, sequence: u64) -> Self {
        Self { millis, sequence }
    }

    /// The greatest id that is smaller.
    pub(crate) fn before(self) -> Self {
        match (self.millis, self.sequence) {
            (0, 0) => self,
            (millis, 0) => Self::new(millis - 1, u64::MAX),
            (millis, sequence) => Self::new(millis, sequence - 1),
        }
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl std::str::FromStr for EntryId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (millis, sequence) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self::new(millis.parse()?, sequence.parse()?))
    }
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Start {
    /// With the oldest event that is there.
    #[default]
    Beginning,
    /// With the next event that is published.
    Now,
    /// With events that were published from this time on, in milliseconds since the Unix epoch by the server's clock.
    Millis(u64),
    /// Behind an entry.
    After(EntryId),
}

/// Who reads what.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Reader<'r> {
    /// The topic.
    pub topic: &'r Topic,
    /// The partition.
    pub partition: u16,
    /// The group.
    pub group: &'r str,
    /// The consumer, unique among those of the group.
    pub consumer: &'r str,
}

impl<'r> Reader<'r> {
    /// Names a reader.
    #[must_use]
    pub const fn new(topic: &'r Topic, partition: u16, group: &'r str, consumer: &'r str) -> Self {
        Self { topic, partition, group, consumer }
    }
}

/// An event on its way to a group; until it is acknowledged it is delivered again.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The partition.
    pub partition: u16,
    /// The entry.
    pub entry: EntryId,
    /// How often it was delivered to the group, this time included.
    pub attempt: u32,
    /// Grows with each new owner of the partition, where [order](crate::ConsumerConfig::ordered) is kept: what writes
    /// elsewhere can refuse smaller ones.
    pub fence: Option<u64>,
    /// The event; the error says why the entry is none.
    pub event: Result<Event, String>,
}

impl Delivery {
    /// Makes a delivery, for an implementor of [`EventBus`].
    #[must_use]
    pub fn new(partition: u16, entry: EntryId, attempt: u32, event: Result<Event, String>) -> Self {
        Self { partition, entry, attempt, fence: None, event }
    }

    /// Returns what is the same for every delivery of the event to the group: a handler that notes it together with its
    /// effect has the effect once.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        match &self.event {
            Ok(event) => event.id.clone(),
            Err(_) => format!("{}:{}", self.partition, self.entry),
        }
    }
}

/// Deliveries that were taken over from others.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Claimed {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Where the next search begins; `None` if it was through.
    pub next: Option<EntryId>,
}

impl Claimed {
    /// Makes what was claimed, for an implementor of [`EventBus`].
    #[must_use]
    pub fn new(deliveries: Vec<Delivery>, next: Option<EntryId>) -> Self {
        Self { deliveries, next }
    }
}

/// An event that a group gave up.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The partition.
    pub partition: u16,
    /// Its entry among the dead letters.
    pub entry: EntryId,
    /// Its entry in the topic.
    pub origin: EntryId,
    /// The group.
    pub group: String,
    /// Why.
    pub reason: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// The event; the error says why the entry was none.
    pub event: Result<Event, String>,
}

impl DeadLetter {
    /// Makes a dead letter of a delivery, for an implementor of [`EventBus`].
    #[must_use]
    pub fn new(entry: EntryId, group: &str, reason: &str, delivery: &Delivery) -> Self {
        Self {
            partition: delivery.partition,
            entry,
            origin: delivery.entry,
            group: group.to_owned(),
            reason: reason.to_owned(),
            attempts: delivery.attempt,
            event: delivery.event.clone(),
        }
    }
}

/// What is removed from a topic; see [`EventBus::trim`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Trim {
    /// Events that are older are removed.
    pub age: Option<Duration>,
    /// So many events are kept.
    pub length: Option<u64>,
    /// About so many bytes are kept.
    pub bytes: Option<u64>,
    /// No more than so many events are kept, also where groups need them.
    pub hard: Option<u64>,
}

impl Trim {
    /// Removes nothing, until something is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes events that are older, by the server's clock.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Keeps so many events of a partition.
    pub fn longer_than(mut self, events: u64) -> Self {
        self.length = Some(events);
        self
    }

    /// Keeps about so many bytes of a partition, as the server counts its memory.
    pub fn larger_than(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Keeps no more than so many events of a partition, also where groups need them still; they are named.
    pub fn hard_limit(mut self, events: u64) -> Self {
        self.hard = Some(events);
        self
    }
}

/// What was removed from a topic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Trimmed {
    /// How many events.
    pub removed: u64,
    /// Groups because of which events stay that would have been removed.
    pub held_by: Vec<String>,
    /// Groups that lost events which they had not acknowledged, for the [hard limit](Trim::hard_limit).
    pub overrun: Vec<String>,
}

/// How a group stands in a partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Events that it has not been given yet; where the server does not know, they are counted up to 10 000.
    pub lag: u64,
    /// Events that it was given and has not acknowledged.
    pub pending: u64,
    /// The oldest of them.
    pub oldest_pending: Option<EntryId>,
    /// How many of them each consumer has.
    pub consumers: BTreeMap<String, u64>,
}

/// How a partition stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// Events that are there.
    pub length: u64,
    /// Dead letters that are there.
    pub dead: u64,
    /// The groups.
    pub groups: BTreeMap<String, GroupStatus>,
}

/// A bus of events: the contract with those who implement one. Callers consume with a [`Consumer`](crate::Consumer).
///
/// Each group gets every event at least once; events of a partition come in their order, as long as none has to come
/// again.
#[async_trait]
pub trait EventBus: Debug + Send + Sync + 'static {
    /// Publishes events, in order within each partition, and returns their entries.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): some may have been published.
    async fn publish(&self, topic: &Topic, events: &[Event]) -> Result<Vec<EntryId>>;

    /// Publishes events whose ids were not published to the topic in the last 10 minutes; `None` for those that were.
    ///
    /// After an error it can be repeated.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn publish_once(&self, topic: &Topic, events: &[Event]) -> Result<Vec<Option<EntryId>>>;

    /// Creates a group in all partitions; where it is already, it stays as it is.
    ///
    /// A group that was there once, and whose stream is gone, goes on where it had acknowledged everything, whatever
    /// `start` says.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`](crate::Error::InvalidName); [`Error::Backend`](crate::Error::Backend).
    async fn create_group(&self, topic: &Topic, group: &str, start: Start) -> Result<()>;

    /// Takes up to `count` events that the group was not given yet, waiting up to `wait` for one.
    ///
    /// Events that are meant for another group are acknowledged and left out.
    ///
    /// # Errors
    ///
    /// [`Error::NoGroup`](crate::Error::NoGroup); [`Error::Backend`](crate::Error::Backend): events that were taken
    /// come again by [`claim`](Self::claim).
    async fn read(&self, reader: Reader<'_>, count: usize, wait: Duration)
    -> Result<Vec<Delivery>>;

    /// Takes over up to `count` deliveries that are due again: put off until now, or not heard of for `idle`.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn claim(
        &self,
        reader: Reader<'_>,
        idle: Duration,
        from: Option<EntryId>,
        count: usize,
    ) -> Result<Claimed>;

    /// Returns the oldest entry that the group was given and has not acknowledged.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn oldest_pending(&self, reader: Reader<'_>) -> Result<Option<EntryId>>;

    /// Acknowledges deliveries and returns how many had not been.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): it can be repeated.
    async fn ack(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<u64>;

    /// Says that deliveries are still being worked on, so that nobody claims them.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn extend(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<()>;

    /// Puts a delivery off: whoever claims after `delay` gets it, and nobody before.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): it comes again when it was not heard of for long enough.
    async fn retry(&self, reader: Reader<'_>, entry: EntryId, delay: Duration) -> Result<()>;

    /// Moves a delivery to the dead letters, at once; `false` if it was acknowledged before.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): it can be repeated.
    async fn bury(&self, reader: Reader<'_>, delivery: &Delivery, reason: &str) -> Result<bool>;

    /// Removes a consumer that has no delivery; `false` if it has one still.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn leave(&self, reader: Reader<'_>) -> Result<bool>;

    /// Says that a consumer lives for `ttl`, and returns how many of the group live; with a `ttl` of zero it leaves.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn announce(
        &self,
        topic: &Topic,
        group: &str,
        consumer: &str,
        ttl: Duration,
    ) -> Result<usize>;

    /// Removes old events, and none that a group has not acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): some may have been removed.
    async fn trim(&self, topic: &Topic, trim: Trim) -> Result<Trimmed>;

    /// Tells how each partition stands.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn status(&self, topic: &Topic) -> Result<Vec<PartitionStatus>>;

    /// Returns up to `count` dead letters of a partition, from the oldest, behind `after`.
    ///
    /// # Errors
    ///
    /// [`Error::NoPartition`](crate::Error::NoPartition); [`Error::Backend`](crate::Error::Backend).
    async fn dead_letters(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Publishes a dead letter again, for the group that gave it up and no other, and takes it out; `false` if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): it can be repeated.
    async fn requeue(&self, topic: &Topic, letter: &DeadLetter) -> Result<bool>;

    /// Removes dead letters and returns how many were there.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn purge(&self, topic: &Topic, partition: u16, letters: &[EntryId]) -> Result<u64>;
}
