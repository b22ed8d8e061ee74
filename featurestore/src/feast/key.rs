//! Feast's entity keys, serialization version 3 as of Feast 0.44, and its field names.

use crate::entity::{Entity, EntityKey};
use crate::schema::FeatureGroup;

const BYTES: u32 = 1;
const STRING: u32 = 2;
const INT32: u32 = 3;
const INT64: u32 = 4;

/// What Feast puts where a view has no entity.
const DUMMY: (&str, &str) = ("__dummy_id", "");

/// Returns the key of an entity's hash: the join keys by name, their values, and the project.
pub(crate) fn encode(
    group: &FeatureGroup,
    entity: &Entity,
    project: &str,
    is_int32: impl Fn(&str) -> bool,
) -> Vec<u8> {
    let dummy = EntityKey::from(DUMMY.1);
    let mut keys: Vec<(&str, &EntityKey)> =
        group.keys().iter().map(String::as_str).zip(entity.keys()).collect();
    if keys.is_empty() {
        keys.push((DUMMY.0, &dummy));
    }
    keys.sort_unstable_by_key(|(name, _)| *name);
    let mut out = Vec::with_capacity(32 * keys.len() + project.len());
    out.extend_from_slice(&length(keys.len()));
    for (name, _) in &keys {
        out.extend_from_slice(&STRING.to_le_bytes());
        sized(name.as_bytes(), &mut out);
    }
    for (name, key) in &keys {
        match key {
            EntityKey::Int(value) => match i32::try_from(*value) {
                Ok(value) if is_int32(name) => {
                    out.extend_from_slice(&INT32.to_le_bytes());
                    sized(&value.to_le_bytes(), &mut out);
                }
                _ => {
                    out.extend_from_slice(&INT64.to_le_bytes());
                    sized(&value.to_le_bytes(), &mut out);
                }
            },
            EntityKey::Bytes(bytes) => {
                let kind = if str::from_utf8(bytes).is_ok() { STRING } else { BYTES };
                out.extend_from_slice(&kind.to_le_bytes());
                sized(bytes, &mut out);
            }
        }
    }
    out.extend_from_slice(project.as_bytes());
    out
}

/// Reads an entity of the group's keys; `None` if the key is of others, or of another project.
pub(crate) fn decode(group: &FeatureGroup, key: &[u8], project: &str) -> Option<Entity> {
    let mut rest = key;
    let mut names: Vec<&str> = group.keys().iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push(DUMMY.0);
    }
    names.sort_unstable();
    if number(&mut rest)? as usize != names.len() {
        return None;
    }
    for name in &names {
        if number(&mut rest)? != STRING || block(&mut rest)? != name.as_bytes() {
            return None;
        }
    }
    let mut keys = Vec::with_capacity(names.len());
    for name in &names {
        let kind = number(&mut rest)?;
        let bytes = block(&mut rest)?;
        keys.push((
            *name,
            match kind {
                STRING | BYTES => EntityKey::from(bytes),
                INT32 => EntityKey::from(i32::from_le_bytes(bytes.try_into().ok()?)),
                INT64 => EntityKey::from(i64::from_le_bytes(bytes.try_into().ok()?)),
                _ => return None,
            },
        ));
    }
    if rest != project.as_bytes() {
        return None;
    }
    let own = group
        .keys()
        .iter()
        .filter_map(|name| Some(keys.iter().find(|(own, _)| own == name)?.1.clone()));
    Some(Entity::composite(own))
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&length(bytes.len()));
    out.extend_from_slice(bytes);
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

fn block<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// The name of a view; later generations have Feast's suffix of versions.
pub(crate) fn view(group: &FeatureGroup) -> String {
    match group.generation() {
        0 => group.name().to_owned(),
        version => format!("{}_v{version}", group.name()),
    }
}

/// The field of a feature.
pub(crate) fn field(view: &str, feature: &str) -> [u8; 4] {
    murmur3_32(format!("{view}:{feature}").as_bytes()).to_le_bytes()
}

/// The field that holds when a view's event was.
pub(crate) fn time_field(view: &str) -> String {
    format!("_ts:{view}")
}

/// MurmurHash3 x86 32-bit with seed 0 (Austin Appleby, public domain).
fn murmur3_32(bytes: &[u8]) -> u32 {
    let scramble =
        |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        let hash = hash ^ scramble(u32::from_le_bytes(*block));
        hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
    hash ^= scramble(last);
    hash ^= u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
