use inferkit_core::keys::{Key, KeyFamily, Namespace, Ttl, decode};

use crate::entity::{Entity, EntityKey};
use crate::schema::FeatureGroup;

const SERVING: &str = "as the group says, from the last write; none in groups without one";

/// The keys of this crate.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "feature",
        "feature:<entity type>:{<entity id>}:<group>",
        "string or hash",
        Ttl::Never(SERVING),
        &[
            "GET",
            "MGET",
            "SET",
            "HGETALL",
            "HMGET",
            "HGET",
            "HSET",
            "HDEL",
            "HINCRBY",
            "HINCRBYFLOAT",
            "GETRANGE",
            "PEXPIRE",
            "DEL",
            "UNLINK",
            "SCAN",
            "TIME",
            "EVALSHA",
            "EVAL",
        ],
    ),
    KeyFamily::new(
        "feature",
        "feature:schema:<entity type>:<group>",
        "hash",
        Ttl::Never("rows cannot be read without their definition"),
        &["HGETALL", "HGET", "HSET", "DEL", "EVALSHA", "EVAL"],
    ),
];

/// The key of an entity's row.
pub(crate) fn row(
    namespace: &Namespace,
    group: &FeatureGroup,
    label: &str,
    entity: &Entity,
) -> Key {
    let family = namespace.family("feature").part(group.entity_type());
    family.tag_of(entity.parts()).part(label).build()
}

/// The key of a group's definitions.
pub(crate) fn definitions(namespace: &Namespace, entity_type: &str, label: &str) -> Key {
    namespace.family("feature").literal("schema").part(entity_type).part(label).build()
}

/// What comes before and behind the entity in the keys of a group's rows; neither holds a glob character.
pub(crate) fn around(namespace: &Namespace, group: &FeatureGroup, label: &str) -> (String, String) {
    // No entity's key holds a brace, so the first one ends what comes before.
    let key = row(namespace, group, label, &Entity::none()).to_string();
    let (before, behind) = key.split_once("{%}").unwrap_or((&key, ""));
    (format!("{before}{{"), format!("}}{behind}"))
}

/// The entity of a row's key; `None` if it is not one of the group's.
pub(crate) fn entity(key: &str, around: &(String, String), keys: usize) -> Option<Entity> {
    let inner = key.strip_prefix(&around.0)?.strip_suffix(&around.1)?;
    if inner.contains(['{', '}']) {
        return None;
    }
    if keys == 0 {
        return (inner == "%").then(Entity::none);
    }
    let parts: Option<Vec<EntityKey>> =
        inner.split(':').map(|part| Some(EntityKey::from(decode(part)?))).collect();
    parts.filter(|parts| parts.len() == keys).map(Entity::composite)
}
