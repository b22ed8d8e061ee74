use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Batch, Cmd, DriverExt as _, DynDriver, FromReply as _, Reply, Script};

use super::{
    AliasChange, AuditEntry, ModelRegistry, ModelStatus, ModelVersion, alias_conflict, no_alias,
    no_version,
};
use crate::error::{Error, Result, name};
use crate::keys::{ALIAS, model as keys_of};

static PUBLISH: Script = Script::new(include_str!("../scripts/publish.lua"));
static MOVE_ALIAS: Script = Script::new(include_str!("../scripts/alias.lua"));
static SET_STATUS: Script = Script::new(include_str!("../scripts/status.lua"));

/// What the fields of versions begin with, in the hash of a model.
const VERSION: &str = "version:";

/// A registry on Redis: a hash for each model and for each version, and a stream of changes.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct RedisModelRegistry {
    driver: DynDriver,
    namespace: Namespace,
}

type Fields = HashMap<String, String>;

impl RedisModelRegistry {
    /// Makes a registry; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace }
    }

    fn key(&self, model: &str) -> Key {
        keys_of(&self.namespace, model).build()
    }

    fn version_key(&self, model: &str, version: &str) -> Key {
        keys_of(&self.namespace, model).literal("version").part(version).build()
    }

    fn audit_key(&self, model: &str) -> Key {
        keys_of(&self.namespace, model).literal("audit").build()
    }

    async fn fields(&self, model: &str) -> Result<Fields> {
        name("model's name", model)?;
        Ok(self.driver.query(Cmd::new("HGETALL").key(self.key(model)).readonly()).await?)
    }
}

#[async_trait]
impl ModelRegistry for RedisModelRegistry {
    /// One `EVALSHA`.
    async fn publish(&self, version: &ModelVersion) -> Result<bool> {
        version.check()?;
        let ModelVersion { model, version: number, .. } = version;
        let keys = [self.key(model), self.version_key(model, number), self.audit_key(model)];
        let mut cmd = Cmd::eval(&PUBLISH, &keys)
            .arg(number)
            .arg(version.digest())
            .arg(version.status.as_str());
        for (field, text) in version.contents() {
            cmd = cmd.arg(field).arg(text);
        }
        match self.driver.query::<i64>(cmd.idempotent()).await? {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(Error::VersionExists { model: model.clone(), version: number.clone() }),
        }
    }

    /// One `HGETALL`.
    async fn version(&self, model: &str, version: &str) -> Result<ModelVersion> {
        name("model's name", model)?;
        name("version", version)?;
        let cmd = Cmd::new("HGETALL").key(self.version_key(model, version)).readonly();
        let fields: Fields = self.driver.query(cmd).await?;
        if fields.is_empty() {
            return Err(no_version(model, version));
        }
        ModelVersion::of_fields(model, &fields.into_iter().collect())
    }

    /// One `HGET` and one `HGETALL`, one after the other; versions never change, so what comes is whole.
    async fn resolve(&self, model: &str, alias: &str) -> Result<ModelVersion> {
        name("model's name", model)?;
        name("alias", alias)?;
        let cmd = Cmd::new("HGET").key(self.key(model)).arg(format!("{ALIAS}{alias}")).readonly();
        let version: Option<String> = self.driver.query(cmd).await?;
        let version = version.ok_or_else(|| no_alias(model, alias))?;
        self.version(model, &version).await
    }

    /// One `HGETALL`, then one pipeline of `HGETALL`.
    async fn versions(&self, model: &str) -> Result<Vec<ModelVersion>> {
        let fields = self.fields(model).await?.into_iter();
        let mut numbered: Vec<(u64, String)> = fields
            .filter_map(|(field, number)| {
                Some((number.parse().ok()?, field.strip_prefix(VERSION)?.to_owned()))
            })
            .collect();
        numbered.sort_unstable();
        let mut batch = Batch::new();
        let slots: Vec<_> = numbered
            .iter()
            .map(|(_, version)| {
                let key = self.version_key(model, version);
                batch.push::<Fields>(Cmd::new("HGETALL").key(key).readonly())
            })
            .collect();
        let mut answers = self.driver.run(batch).await?;
        let mut versions = Vec::with_capacity(slots.len());
        for slot in slots {
            let fields = answers.take(slot)?;
            versions.push(ModelVersion::of_fields(model, &fields.into_iter().collect())?);
        }
        Ok(versions)
    }

    /// One `HGETALL`.
    async fn aliases(&self, model: &str) -> Result<BTreeMap<String, String>> {
        let fields = self.fields(model).await?.into_iter();
        Ok(fields
            .filter_map(|(field, version)| Some((field.strip_prefix(ALIAS)?.to_owned(), version)))
            .collect())
    }

    /// One `EVALSHA`.
    async fn move_alias(&self, change: &AliasChange<'_>) -> Result<()> {
        change.check()?;
        let mut keys = vec![self.key(change.model), self.audit_key(change.model)];
        keys.extend(change.to.map(|to| self.version_key(change.model, to)));
        let cmd = Cmd::eval(&MOVE_ALIAS, &keys)
            .arg(change.alias)
            .arg(change.expected.unwrap_or_default())
            .arg(change.to.unwrap_or_default())
            .arg(change.actor);
        let to = change.to.unwrap_or_default();
        match self.driver.query::<(i64, String)>(cmd).await? {
            (1, _) => Ok(()),
            (0, current) => Err(alias_conflict(change, current)),
            (-2, _) => {
                Err(Error::Deprecated { model: change.model.to_owned(), version: to.to_owned() })
            }
            _ => Err(no_version(change.model, to)),
        }
    }

    /// One `EVALSHA`.
    async fn set_status(
        &self,
        model: &str,
        version: &str,
        status: ModelStatus,
        actor: &str,
    ) -> Result<()> {
        name("model's name", model)?;
        name("version", version)?;
        let keys = [self.key(model), self.version_key(model, version), self.audit_key(model)];
        let cmd = Cmd::eval(&SET_STATUS, &keys).arg(version).arg(status.as_str()).arg(actor);
        match self.driver.query::<(i64, String)>(cmd.idempotent()).await? {
            (1, _) => Ok(()),
            (0, alias) => {
                Err(Error::InUse { model: model.to_owned(), version: version.to_owned(), alias })
            }
            _ => Err(no_version(model, version)),
        }
    }

    /// One `XREVRANGE`.
    async fn audit(&self, model: &str, count: usize) -> Result<Vec<AuditEntry>> {
        name("model's name", model)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let cmd = Cmd::new("XREVRANGE").key(self.audit_key(model)).args(["+", "-", "COUNT"]);
        let entries: Vec<Reply> = self.driver.query(cmd.arg(count as u64).readonly()).await?;
        entries.into_iter().map(|entry| Ok(audit_entry(entry)?)).collect()
    }
}

fn audit_entry(entry: Reply) -> inferkit_core::Result<AuditEntry> {
    let (id, fields) = <(String, Reply)>::from_reply(entry)?;
    let mut fields = HashMap::<String, String>::from_reply(fields)?;
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let millis = id.split('-').next().and_then(|millis| millis.parse().ok()).unwrap_or(0);
    Ok(AuditEntry {
        at: Duration::from_millis(millis),
        action: take("action"),
        subject: take("subject"),
        from: take("from"),
        to: take("to"),
        actor: take("actor"),
    })
}
