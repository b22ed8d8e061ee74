use crate::error::{Error, Result, name};
use crate::event::Event;

/// A stream of events, in one or more partitions.
///
/// Events of one subject are in one partition; which one depends on the number of partitions, so that does not change
/// while order matters.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Topic {
    name: String,
    partitions: u16,
}

impl Topic {
    /// Makes a topic of one partition.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn new(topic: impl Into<String>) -> Result<Self> {
        let topic = topic.into();
        name("name of a topic", &topic)?;
        Ok(Self { name: topic, partitions: 1 })
    }

    /// Sets the number of partitions, from 1 to 1024: each is worked on by itself, and lies in a slot of its own on a
    /// cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`].
    pub fn with_partitions(mut self, partitions: u16) -> Result<Self> {
        if !(1..=1_024).contains(&partitions) {
            return Err(Error::Invalid {
                what: "partitions",
                problem: "a topic has 1 to 1024 of them",
            });
        }
        self.partitions = partitions;
        Ok(self)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Returns the partition of an event: the FNV-1a hash of its subject, or of its id, modulo their number.
    #[must_use]
    pub fn partition_of(&self, event: &Event) -> u16 {
        let hash = event
            .key()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        u16::try_from(hash % u32::from(self.partitions)).unwrap_or_default()
    }

    pub(crate) fn check(&self, partition: u16) -> Result<()> {
        if partition < self.partitions {
            return Ok(());
        }
        let (topic, partitions) = (self.name.clone(), self.partitions);
        Err(Error::NoPartition { topic, partitions, partition })
    }
}
