use std::collections::HashMap;

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, Script};

use crate::error::{Error, Result};
use crate::keys;
use crate::schema::{FeatureGroup, Group, label};
use crate::store::{Meeting, meet};

static REGISTER: Script = Script::new(include_str!("../scripts/register.lua"));

/// What is registered under a name.
struct Registered {
    lineage: u16,
    versions: Vec<FeatureGroup>,
}

pub(super) async fn register(
    driver: &DynDriver,
    namespace: &Namespace,
    group: &FeatureGroup,
) -> Result<Group> {
    let label = group.label();
    let definition = serde_json::to_string(group)
        .map_err(|error| Error::invalid(format!("group {label}"), error.to_string()))?;
    let key = keys::definitions(namespace, group.entity_type(), &label);
    loop {
        let known = read(driver, namespace, group.entity_type(), &label).await?;
        if let Meeting::Known(version) = meet(group, &known.versions)? {
            return Ok(Group::new(group.clone(), version, known.lineage));
        }
        let version = u16::try_from(known.versions.len() + 1)
            .map_err(|_| Error::invalid(format!("group {label}"), "it has too many versions"))?;
        let cmd = Cmd::eval(&REGISTER, &[key.as_str()]);
        let cmd = cmd.arg(version).arg(&definition).arg(lineage());
        // If somebody else was quicker, what they registered is looked at first.
        if driver.query::<i64>(cmd.idempotent()).await? == 1 && 1 < version {
            return Ok(Group::new(group.clone(), version, known.lineage));
        }
    }
}

pub(super) async fn newest(
    driver: &DynDriver,
    namespace: &Namespace,
    entity_type: &str,
    group: &str,
    generation: u16,
) -> Result<Option<FeatureGroup>> {
    let mut known = read(driver, namespace, entity_type, &label(group, generation)).await?;
    Ok(known.versions.pop())
}

async fn read(
    driver: &DynDriver,
    namespace: &Namespace,
    entity_type: &str,
    label: &str,
) -> Result<Registered> {
    let key = keys::definitions(namespace, entity_type, label);
    let mut fields: HashMap<String, String> =
        driver.query(Cmd::new("HGETALL").key(key).readonly()).await?;
    let corrupt = |problem: String| Error::corrupt(label, format!("its registration: {problem}"));
    let Some(latest) = fields.remove("latest") else {
        return Ok(Registered { lineage: 0, versions: Vec::new() });
    };
    let number = |text: Option<String>, what: &str| {
        text.and_then(|text| text.parse::<u16>().ok())
            .ok_or_else(|| corrupt(format!("it has no {what}")))
    };
    let lineage = number(fields.remove("lineage"), "lineage")?;
    let latest = number(Some(latest), "latest version")?;
    let versions = (1..=latest).map(|version| {
        let stored = fields.remove(&format!("version:{version}")).unwrap_or_default();
        serde_json::from_str(&stored)
            .map_err(|error| corrupt(format!("version {version}: {error}")))
    });
    Ok(Registered { lineage, versions: versions.collect::<Result<_>>()? })
}

/// A number that tells this registration from others of the same name; 0 is none.
fn lineage() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Each state is seeded by the system's randomness.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u16::try_from(random % 65_535).unwrap_or(0) + 1
}
