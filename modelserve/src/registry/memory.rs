use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};

use super::{
    AliasChange, AuditEntry, ModelRegistry, ModelStatus, ModelVersion, alias_conflict, no_alias,
    no_version,
};
use crate::error::{Error, Result, name};

/// A registry within this process, for tests and small tools.
#[derive(Debug)]
pub struct MemoryModelRegistry {
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    models: Mutex<BTreeMap<String, Model>>,
}

#[derive(Debug, Default)]
struct Model {
    versions: Vec<ModelVersion>,
    aliases: BTreeMap<String, String>,
    audit: Vec<AuditEntry>,
}

impl MemoryModelRegistry {
    /// Makes an empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Makes an empty registry that dates by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, models: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Model>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, action: &str, subject: &str, from: &str, to: &str, actor: &str) -> AuditEntry {
        let millis = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
        AuditEntry {
            at: Duration::from_millis(millis),
            action: action.to_owned(),
            subject: subject.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            actor: actor.to_owned(),
        }
    }
}

impl Default for MemoryModelRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    fn version(&self, version: &str) -> Option<&ModelVersion> {
        self.versions.iter().find(|other| other.version == version)
    }
}

#[async_trait]
impl ModelRegistry for MemoryModelRegistry {
    async fn publish(&self, version: &ModelVersion) -> Result<bool> {
        version.check()?;
        let mut models = self.lock();
        let model = models.entry(version.model.clone()).or_default();
        match model.version(&version.version) {
            Some(older) if older.contents() == version.contents() => return Ok(false),
            Some(_) => {
                return Err(Error::VersionExists {
                    model: version.model.clone(),
                    version: version.version.clone(),
                });
            }
            None => {}
        }
        let created_at = Duration::from_secs(self.clock.now().as_secs());
        let entry = self.entry("publish", &version.version, "", version.status.as_str(), "");
        model.versions.push(ModelVersion { created_at, ..version.clone() });
        model.audit.push(entry);
        Ok(true)
    }

    async fn version(&self, model: &str, version: &str) -> Result<ModelVersion> {
        let models = self.lock();
        let found = models.get(model).and_then(|model| model.version(version));
        found.cloned().ok_or_else(|| no_version(model, version))
    }

    async fn resolve(&self, model: &str, alias: &str) -> Result<ModelVersion> {
        let models = self.lock();
        let found = models.get(model).and_then(|model| model.version(model.aliases.get(alias)?));
        found.cloned().ok_or_else(|| no_alias(model, alias))
    }

    async fn versions(&self, model: &str) -> Result<Vec<ModelVersion>> {
        Ok(self.lock().get(model).map(|model| model.versions.clone()).unwrap_or_default())
    }

    async fn aliases(&self, model: &str) -> Result<BTreeMap<String, String>> {
        Ok(self.lock().get(model).map(|model| model.aliases.clone()).unwrap_or_default())
    }

    async fn move_alias(&self, change: &AliasChange<'_>) -> Result<()> {
        change.check()?;
        let mut models = self.lock();
        let Some(model) = models.get_mut(change.model) else {
            return Err(match (change.expected, change.to) {
                (None, Some(to)) => no_version(change.model, to),
                (None, None) => return Ok(()),
                (Some(_), _) => alias_conflict(change, String::new()),
            });
        };
        let current = model.aliases.get(change.alias).cloned();
        if current.as_deref() != change.expected {
            return Err(alias_conflict(change, current.unwrap_or_default()));
        }
        match change.to {
            Some(to) => {
                let version = model.version(to).ok_or_else(|| no_version(change.model, to))?;
                if version.status == ModelStatus::Deprecated {
                    return Err(Error::Deprecated {
                        model: change.model.to_owned(),
                        version: to.to_owned(),
                    });
                }
                model.aliases.insert(change.alias.to_owned(), to.to_owned());
            }
            None => {
                model.aliases.remove(change.alias);
            }
        }
        if change.expected != change.to {
            let [from, to] = [change.expected, change.to].map(Option::unwrap_or_default);
            model.audit.push(self.entry("alias", change.alias, from, to, change.actor));
        }
        Ok(())
    }

    async fn set_status(
        &self,
        model: &str,
        version: &str,
        status: ModelStatus,
        actor: &str,
    ) -> Result<()> {
        name("model's name", model)?;
        name("version", version)?;
        let mut models = self.lock();
        let unknown = || no_version(model, version);
        let found = models.get_mut(model).ok_or_else(unknown)?;
        let alias = found.aliases.iter().find(|(_, to)| *to == version).map(|(alias, _)| alias);
        let place = found.versions.iter().position(|other| other.version == version);
        let place = place.ok_or_else(unknown)?;
        if let (ModelStatus::Deprecated, Some(alias)) = (status, alias) {
            return Err(Error::InUse {
                model: model.to_owned(),
                version: version.to_owned(),
                alias: alias.clone(),
            });
        }
        let Some(changed) = found.versions.get_mut(place) else { return Err(unknown()) };
        let before = std::mem::replace(&mut changed.status, status);
        if before != status {
            let entry = self.entry("status", version, before.as_str(), status.as_str(), actor);
            found.audit.push(entry);
        }
        Ok(())
    }

    async fn audit(&self, model: &str, count: usize) -> Result<Vec<AuditEntry>> {
        let models = self.lock();
        let audit = models.get(model).map(|model| model.audit.iter());
        Ok(audit.into_iter().flatten().rev().take(count).cloned().collect())
    }
}
