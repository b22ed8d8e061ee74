//! Which models there are, in which versions, and what their aliases mean.

mod memory;
mod redis;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

pub use memory::MemoryModelRegistry;
pub use redis::RedisModelRegistry;

use crate::error::{Error, Result, name};

/// Keeps the versions of models, and the aliases that point to them: the contract with those who implement one.
///
/// A version never changes once it is published, but for its status.
/// An alias such as `champion` points to one version, and is moved only by who knows where it points.
#[async_trait]
pub trait ModelRegistry: Debug + Send + Sync + 'static {
    /// Publishes a version; `false` if it is there already with the same contents.
    ///
    /// # Errors
    ///
    /// [`Error::VersionExists`] if it is there with other contents; [`Error::Invalid`] and [`Error::InvalidName`].
    async fn publish(&self, version: &ModelVersion) -> Result<bool>;

    /// Returns a version.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`] if there is none; [`Error::Record`] if it cannot be read.
    async fn version(&self, model: &str, version: &str) -> Result<ModelVersion>;

    /// Returns the version that an alias points to.
    ///
    /// # Errors
    ///
    /// As [`version`](Self::version).
    async fn resolve(&self, model: &str, alias: &str) -> Result<ModelVersion>;

    /// Returns all versions of a model in the order in which they were published; none if the model is not known.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if one cannot be read.
    async fn versions(&self, model: &str) -> Result<Vec<ModelVersion>>;

    /// Returns the aliases of a model, and the versions to which they point.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn aliases(&self, model: &str) -> Result<BTreeMap<String, String>>;

    /// Points an alias that points to `expected` (`None`: that is not there) to another version, or removes it (`None`).
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] if it points elsewhere by now; [`Error::UnknownModel`] if there is no such version;
    /// [`Error::Deprecated`] if that is deprecated. Nothing is changed then.
    async fn move_alias(&self, change: &AliasChange<'_>) -> Result<()>;

    /// Sets whether a version is to be served.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownModel`]; [`Error::InUse`] if it is to be deprecated while an alias points to it.
    async fn set_status(
        &self,
        model: &str,
        version: &str,
        status: ModelStatus,
        actor: &str,
    ) -> Result<()>;

    /// Returns the last changes of a model, the newest first, at most `count`.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn audit(&self, model: &str, count: usize) -> Result<Vec<AuditEntry>>;
}

/// A change of an alias.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AliasChange<'c> {
    /// The model.
    pub model: &'c str,
    /// The alias.
    pub alias: &'c str,
    /// Where it points before.
    pub expected: Option<&'c str>,
    /// Where it points after.
    pub to: Option<&'c str>,
    /// Who changes it, for the audit trail.
    pub actor: &'c str,
}

impl<'c> AliasChange<'c> {
    /// Points an alias that is not there yet to a version.
    #[must_use]
    pub fn new(model: &'c str, alias: &'c str, to: &'c str) -> Self {
        Self { model, alias, expected: None, to: Some(to), actor: "" }
    }

    /// Sets where it points before.
    #[must_use]
    pub fn from_version(mut self, expected: &'c str) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Removes it.
    #[must_use]
    pub fn removed(mut self) -> Self {
        self.to = None;
        self
    }

    /// Sets who changes it.
    #[must_use]
    pub fn by(mut self, actor: &'c str) -> Self {
        self.actor = actor;
        self
    }

    /// Checks that it makes sense, as an implementation does before it stores anything.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::InvalidName`].
    pub fn check(&self) -> Result<()> {
        name("model's name", self.model)?;
        name("alias", self.alias)?;
        for version in self.expected.iter().chain(&self.to) {
            name("version", version)?;
        }
        Ok(())
    }
}

/// One version of a model.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ModelVersion {
    /// The model.
    pub model: String,
    /// The version.
    pub version: String,
    /// Where it is served.
    pub endpoint: String,
    /// Whether it is to be served.
    pub status: ModelStatus,
    /// The feature groups that it needs.
    pub features_required: Vec<String>,
    /// The mean latency that it was published with, in milliseconds.
    pub avg_latency_ms: Option<u32>,
    /// The 99th percentile of the latency that it was published with, in milliseconds.
    pub p99_latency_ms: Option<u32>,
    /// The most inputs of one call.
    pub max_batch_size: Option<u32>,
    /// What else is known of it.
    pub tags: BTreeMap<String, String>,
    /// When it was published, since the Unix epoch, to the second; zero before.
    pub created_at: Duration,
}

/// Whether a version is to be served.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ModelStatus {
    /// It is.
    #[default]
    Active,
    /// It is not, and no alias may point to it.
    Deprecated,
}

impl ModelStatus {
    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
        }
    }
}

/// A change of a model.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// When, since the Unix epoch, to the millisecond.
    pub at: Duration,
    /// What: `publish`, `alias` or `status`.
    pub action: String,
    /// The version or the alias.
    pub subject: String,
    /// What was before; empty if nothing.
    pub from: String,
    /// What is after; empty if nothing.
    pub to: String,
    /// Who did it.
    pub actor: String,
}

impl ModelVersion {
    /// Describes a version.
    #[must_use]
    pub fn new(
        model: impl Into<String>,
        version: impl Into<String>,
        endpoint: impl Into<String>,
    ) -> Self {
        Self {
            model: model.into(),
            version: version.into(),
            endpoint: endpoint.into(),
            status: ModelStatus::Active,
            features_required: Vec::new(),
            avg_latency_ms: None,
            p99_latency_ms: None,
            max_batch_size: None,
            tags: BTreeMap::new(),
            created_at: Duration::ZERO,
        }
    }

    /// Sets the feature groups that it needs.
    #[must_use]
    pub fn with_features<F: Into<String>>(mut self, features: impl IntoIterator<Item = F>) -> Self {
        self.features_required = features.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the mean and the 99th percentile of the latency, in milliseconds.
    #[must_use]
    pub fn with_latency(mut self, avg_ms: u32, p99_ms: u32) -> Self {
        (self.avg_latency_ms, self.p99_latency_ms) = (Some(avg_ms), Some(p99_ms));
        self
    }

    /// Sets the most inputs of one call.
    #[must_use]
    pub fn with_max_batch_size(mut self, inputs: u32) -> Self {
        self.max_batch_size = Some(inputs);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(tag.into(), value.into());
        self
    }

    /// Checks that it makes sense, as an implementation does before it stores anything.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::InvalidName`].
    pub fn check(&self) -> Result<()> {
        name("model's name", &self.model)?;
        name("version", &self.version)?;
        let invalid = |problem: &str| {
            Err(Error::invalid(
                format!("version {} of model {}", self.version, self.model),
                problem,
            ))
        };
        if self.endpoint.trim().is_empty() {
            return invalid("has no endpoint: say where it is served");
        }
        if self.features_required.iter().any(|group| group.trim().is_empty() || group.contains(','))
        {
            return invalid("needs a feature group without a name, or with a comma in it");
        }
        if self.max_batch_size == Some(0) {
            return invalid("takes no inputs: leave the size out, or set one");
        }
        if self.tags.keys().any(|tag| tag.trim().is_empty()) {
            return invalid("has a tag without a name");
        }
        Ok(())
    }

    /// What makes it this version: everything but status and time, as stored fields.
    fn contents(&self) -> Vec<(String, String)> {
        let number =
            |name: &str, number: Option<u32>| number.map(|n| (name.to_owned(), n.to_string()));
        let features = (!self.features_required.is_empty())
            .then(|| ("features_required".to_owned(), self.features_required.join(",")));
        let tags = self.tags.iter().map(|(tag, value)| (format!("tag:{tag}"), value.clone()));
        [
            ("endpoint".to_owned(), self.endpoint.clone()),
            ("version".to_owned(), self.version.clone()),
        ]
        .into_iter()
        .chain(features)
        .chain(number("avg_latency_ms", self.avg_latency_ms))
        .chain(number("p99_latency_ms", self.p99_latency_ms))
        .chain(number("max_batch_size", self.max_batch_size))
        .chain(tags)
        .collect()
    }

    /// The digest of the contents: equal versions have equal digests.
    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for part in self.contents().iter().flat_map(|(name, value)| [name, value]) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn of_fields(model: &str, fields: &BTreeMap<String, String>) -> Result<Self> {
        let text = |name: &str| fields.get(name).cloned();
        let broken = |name: &str| {
            let version = fields.get("version").map_or("", String::as_str);
            let what = format!("version {version} of model {model}");
            Error::record(what, format!("the field {name} is missing or makes no sense"))
        };
        let number = |name: &str| -> Result<Option<u32>> {
            fields.get(name).map(|text| text.parse().map_err(|_| broken(name))).transpose()
        };
        let seconds = text("created_at").and_then(|text| text.parse().ok());
        Ok(Self {
            model: model.to_owned(),
            version: text("version").ok_or_else(|| broken("version"))?,
            endpoint: text("endpoint").ok_or_else(|| broken("endpoint"))?,
            status: match text("status").as_deref() {
                Some("active") => ModelStatus::Active,
                Some("deprecated") => ModelStatus::Deprecated,
                _ => return Err(broken("status")),
            },
            features_required: text("features_required")
                .map(|list| list.split(',').map(ToOwned::to_owned).collect())
                .unwrap_or_default(),
            avg_latency_ms: number("avg_latency_ms")?,
            p99_latency_ms: number("p99_latency_ms")?,
            max_batch_size: number("max_batch_size")?,
            tags: fields
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.strip_prefix("tag:")?.to_owned(), value.clone()))
                })
                .collect(),
            created_at: Duration::from_secs(seconds.ok_or_else(|| broken("created_at"))?),
        })
    }
}

fn no_version(model: &str, version: &str) -> Error {
    Error::UnknownModel { model: model.to_owned(), what: format!("version {version}") }
}

fn no_alias(model: &str, alias: &str) -> Error {
    Error::UnknownModel { model: model.to_owned(), what: format!("alias {alias}") }
}

fn alias_conflict(change: &AliasChange<'_>, current: String) -> Error {
    Error::Conflict { what: format!("alias {} of model {}", change.alias, change.model), current }
}
