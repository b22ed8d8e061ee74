use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use inferkit_core::Cmd;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result, name};

/// Something that happened, in the terms of [CloudEvents](https://cloudevents.io) 1.0: what, where, when, to whom.
///
/// Events of the same subject keep their order, in topics of any number of partitions.
#[derive(Clone, PartialEq)]
pub struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) time: SystemTime,
    pub(crate) subject: Option<String>,
    pub(crate) data: Bytes,
    /// The one group that it is meant for, where it was taken back from the dead letters.
    pub(crate) only: Option<String>,
}

impl Event {
    /// Makes an event of a type, such as `training_start`, from a source, such as `trainer/7`; its data is JSON.
    ///
    /// It has a random id, and happened now.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`]; [`Error::Encode`].
    pub fn new<T: Serialize + ?Sized>(
        kind: impl Into<String>,
        source: impl Into<String>,
        data: &T,
    ) -> Result<Self> {
        let data = serde_json::to_vec(data).map_err(Error::Encode)?;
        Self::raw(kind.into(), source.into(), data.into())
    }

    /// Makes an event of an enum's value: the variant's name is the type, and what it holds is the data.
    ///
    /// Name variants with `#[serde(rename_all = "snake_case")]`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the value is no enum in serde's usual form; as [`new`](Self::new).
    pub fn of<T: Serialize + ?Sized>(source: impl Into<String>, value: &T) -> Result<Self> {
        let no_enum = Error::Invalid {
            what: "an event",
            problem: "it is no enum: give the type with `Event::new`",
        };
        let (kind, data) = match serde_json::to_value(value).map_err(Error::Encode)? {
            Value::String(kind) => (kind, Value::Null),
            Value::Object(variant) if variant.len() == 1 => {
                variant.into_iter().next().ok_or(no_enum)?
            }
            _ => return Err(no_enum),
        };
        Self::new(kind, source, &data)
    }

    fn raw(kind: String, source: String, data: Bytes) -> Result<Self> {
        name("type of an event", &kind)?;
        name("source of an event", &source)?;
        let (id, time) = (random_id(), SystemTime::now());
        Ok(Self { id, kind, source, time, subject: None, data, only: None })
    }

    /// Sets the id: an event that is [published once](crate::EventBus::publish_once) with it is not published again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn with_id(mut self, id: impl Into<String>) -> Result<Self> {
        self.id = id.into();
        name("id of an event", &self.id)?;
        Ok(self)
    }

    /// Sets whom the event is about, such as a model or a user: events of one subject keep their order.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn about(mut self, subject: impl Into<String>) -> Result<Self> {
        let subject = subject.into();
        name("subject of an event", &subject)?;
        self.subject = Some(subject);
        Ok(self)
    }

    /// Sets when it happened, to the microsecond.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.time = time;
        self
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns when it happened.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.time
    }

    /// Returns whom it is about.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Returns the one group that the event is meant for, where it was [taken back](crate::EventBus::requeue) from the dead
    /// letters.
    #[must_use]
    pub fn meant_for(&self) -> Option<&str> {
        self.only.as_deref()
    }

    /// Means the event for one group, for an implementor of [`EventBus`](crate::EventBus).
    #[must_use]
    pub fn for_group(mut self, group: &str) -> Self {
        self.only = Some(group.to_owned());
        self
    }

    /// Returns the data as it is stored: JSON.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// Reads the data.
    ///
    /// # Errors
    ///
    /// [`Error::Data`].
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.data).map_err(|source| self.no_data(source))
    }

    /// Reads the event as an enum's value; see [`of`](Self::of).
    ///
    /// # Errors
    ///
    /// [`Error::Data`], also for a type that the enum does not know.
    pub fn to_enum<T: DeserializeOwned>(&self) -> Result<T> {
        let data: Value = self.data()?;
        let value = if data.is_null() {
            Value::String(self.kind.clone())
        } else {
            Value::Object([(self.kind.clone(), data)].into_iter().collect())
        };
        serde_json::from_value(value).map_err(|source| self.no_data(source))
    }

    fn no_data(&self, source: serde_json::Error) -> Error {
        Error::Data { id: self.id.clone(), kind: self.kind.clone(), source }
    }

    /// What decides the partition: the subject, or the id.
    pub(crate) fn key(&self) -> &str {
        self.subject.as_deref().unwrap_or(&self.id)
    }

    /// Appends the fields of a stream's entry to a command, in an order that never changes, so that their names are stored
    /// once.
    pub(crate) fn write(&self, mut cmd: Cmd) -> Cmd {
        let time = humantime::format_rfc3339_micros(self.time).to_string();
        for (name, value) in [
            (ID, self.id.as_bytes()),
            (TYPE, self.kind.as_bytes()),
            (SOURCE, self.source.as_bytes()),
            (TIME, time.as_bytes()),
            (SUBJECT, self.subject.as_deref().unwrap_or_default().as_bytes()),
            (DATA, &self.data),
        ] {
            cmd = cmd.arg(name).arg(value);
        }
        match &self.only {
            Some(only) => cmd.arg(ONLY).arg(only),
            None => cmd,
        }
    }

    /// Reads the fields of an entry; the error says what is wrong with it.
    pub(crate) fn of_fields(fields: &[(Bytes, Bytes)]) -> Result<Self, String> {
        let find = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        let text = |name: &str| {
            let value = find(name).ok_or_else(|| format!("it has no field {name}"))?;
            str::from_utf8(value).map(str::to_owned).map_err(|_| format!("field {name} is no text"))
        };
        let time = humantime::parse_rfc3339(&text(TIME)?)
            .map_err(|_| format!("field {TIME} is no time"))?;
        let data = find(DATA).ok_or_else(|| format!("it has no field {DATA}"))?.clone();
        Ok(Self {
            id: text(ID)?,
            kind: text(TYPE)?,
            source: text(SOURCE)?,
            time,
            subject: text(SUBJECT).ok().filter(|subject| !subject.is_empty()),
            data,
            only: text(ONLY).ok(),
        })
    }
}

const ID: &str = "ce_id";
const TYPE: &str = "ce_type";
const SOURCE: &str = "ce_source";
const TIME: &str = "ce_time";
const SUBJECT: &str = "ce_subject";
const DATA: &str = "data";
pub(crate) const ONLY: &str = "only";

/// The data may be anything, so only its length is shown.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("type", &self.kind)
            .field("source", &self.source)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// 128 bits of the system's randomness, and of the time.
pub(crate) fn random_id() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let half = |salt: u8| {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u128(since.as_nanos());
        hasher.write_u8(salt);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}
