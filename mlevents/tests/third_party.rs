//! The public API suffices to write a bus: this one passes everything on to another, taken apart and put together again.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use async_trait::async_trait;
use inferkit_mlevents::{
    Claimed, DeadLetter, Delivery, EntryId, Event, EventBus, MemoryEventBus, PartitionStatus,
    Reader, Result, Start, Topic, Trim, Trimmed, event_bus_conformance,
};

#[derive(Debug, Default)]
struct Passing(MemoryEventBus);

fn delivery(of: &Delivery) -> Delivery {
    let event = of.event.as_ref().map(event).map_err(Clone::clone);
    Delivery::new(of.partition, of.entry, of.attempt, event)
}

fn event(of: &Event) -> Event {
    let data: serde_json::Value = of.data().unwrap();
    let event = Event::new(of.kind(), of.source(), &data).unwrap().with_id(of.id()).unwrap();
    let event = event.at(of.time());
    let event = of.subject().map_or(Ok(event.clone()), |subject| event.about(subject)).unwrap();
    match of.meant_for() {
        Some(group) => event.for_group(group),
        None => event,
    }
}

#[async_trait]
impl EventBus for Passing {
    async fn publish(&self, topic: &Topic, events: &[Event]) -> Result<Vec<EntryId>> {
        let entries = self.0.publish(topic, &events.iter().map(event).collect::<Vec<_>>()).await?;
        Ok(entries.iter().map(|entry| EntryId::new(entry.millis, entry.sequence)).collect())
    }

    async fn publish_once(&self, topic: &Topic, events: &[Event]) -> Result<Vec<Option<EntryId>>> {
        self.0.publish_once(topic, events).await
    }

    async fn create_group(&self, topic: &Topic, group: &str, start: Start) -> Result<()> {
        self.0.create_group(topic, group, start).await
    }

    async fn read(
        &self,
        reader: Reader<'_>,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>> {
        let reader = Reader::new(reader.topic, reader.partition, reader.group, reader.consumer);
        Ok(self.0.read(reader, count, wait).await?.iter().map(delivery).collect())
    }

    async fn claim(
        &self,
        reader: Reader<'_>,
        idle: Duration,
        from: Option<EntryId>,
        count: usize,
    ) -> Result<Claimed> {
        let claimed = self.0.claim(reader, idle, from, count).await?;
        Ok(Claimed::new(claimed.deliveries.iter().map(delivery).collect(), claimed.next))
    }

    async fn oldest_pending(&self, reader: Reader<'_>) -> Result<Option<EntryId>> {
        self.0.oldest_pending(reader).await
    }

    async fn ack(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<u64> {
        self.0.ack(reader, entries).await
    }

    async fn extend(&self, reader: Reader<'_>, entries: &[EntryId]) -> Result<()> {
        self.0.extend(reader, entries).await
    }

    async fn retry(&self, reader: Reader<'_>, entry: EntryId, delay: Duration) -> Result<()> {
        self.0.retry(reader, entry, delay).await
    }

    async fn bury(&self, reader: Reader<'_>, of: &Delivery, reason: &str) -> Result<bool> {
        self.0.bury(reader, &delivery(of), reason).await
    }

    async fn leave(&self, reader: Reader<'_>) -> Result<bool> {
        self.0.leave(reader).await
    }

    async fn announce(
        &self,
        topic: &Topic,
        group: &str,
        consumer: &str,
        ttl: Duration,
    ) -> Result<usize> {
        self.0.announce(topic, group, consumer, ttl).await
    }

    async fn trim(&self, topic: &Topic, trim: Trim) -> Result<Trimmed> {
        let mut own = Trim::new();
        (own.age, own.length, own.bytes, own.hard) = (trim.age, trim.length, trim.bytes, trim.hard);
        let of = self.0.trim(topic, own).await?;
        let mut trimmed = Trimmed::default();
        (trimmed.removed, trimmed.held_by, trimmed.overrun) = (of.removed, of.held_by, of.overrun);
        Ok(trimmed)
    }

    async fn status(&self, topic: &Topic) -> Result<Vec<PartitionStatus>> {
        self.0.status(topic).await
    }

    async fn dead_letters(
        &self,
        topic: &Topic,
        partition: u16,
        after: Option<EntryId>,
        count: usize,
    ) -> Result<Vec<DeadLetter>> {
        let letters = self.0.dead_letters(topic, partition, after, count).await?;
        let again = letters.iter().map(|letter| {
            let of = Delivery::new(
                letter.partition,
                letter.origin,
                letter.attempts,
                letter.event.clone(),
            );
            DeadLetter::new(letter.entry, &letter.group, &letter.reason, &of)
        });
        Ok(again.collect())
    }

    async fn requeue(&self, topic: &Topic, letter: &DeadLetter) -> Result<bool> {
        self.0.requeue(topic, letter).await
    }

    async fn purge(&self, topic: &Topic, partition: u16, letters: &[EntryId]) -> Result<u64> {
        self.0.purge(topic, partition, letters).await
    }
}

async fn make() -> Passing {
    Passing::default()
}

event_bus_conformance!(make);
