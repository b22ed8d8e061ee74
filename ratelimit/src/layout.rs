//! Where the tiers of a policy lie, and how a call describes them to the scripts.

use std::collections::BTreeMap;

use inferkit_core::keys::{Key, KeyFamily, Namespace, Ttl};
use sha2::{Digest as _, Sha256};

use crate::decision::burst_ticks;
use crate::limit::{ticks, to_f64};
use crate::{Algorithm, Error, Policy, Result, Tier, Unit, Weights};

/// The version of the packed strings, the first of their four bytes.
const VERSION: u8 = 1;
/// The second byte: what it is.
const PACKED: u8 = b'R';

/// The keys that [`RedisRateLimiter`](crate::RedisRateLimiter) writes.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "rl",
        "rl:{<domain>}:<kind>=<subject>:<shape>",
        "string",
        Ttl::Always("when all its tiers are full again, at least 1 s: packed counters"),
        &["EVALSHA", "EVAL", "TIME", "GET", "GETRANGE", "SETRANGE", "PEXPIRE", "DEL"],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<domain>}:<kind>=<subject>:<shape>",
        "zset",
        Ttl::Always("slots: 2 hours after the last use; logs: after the window"),
        &[
            "ZCARD",
            "ZCOUNT",
            "ZSCORE",
            "ZADD",
            "ZREM",
            "ZRANGE",
            "ZRANGEBYSCORE",
            "ZREMRANGEBYSCORE",
        ],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<domain>}:request:<id>:<policy>",
        "string",
        Ttl::Always("10 minutes, or when settled: a request id, under policies without slots"),
        &["SET", "EXISTS"],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<service>}:instances",
        "zset",
        Ttl::Always("30 seconds after the last instance said that it lives"),
        &["ZADD", "ZREM", "ZREMRANGEBYSCORE", "ZCARD"],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<pool>}:queue:<set>",
        "zset",
        Ttl::Always(
            "2 hours after the last use: `held`, `waiting`, `alive`: who holds a slot, and who waits",
        ),
        &[
            "ZRANK",
            "ZCARD",
            "ZCOUNT",
            "ZSCORE",
            "ZADD",
            "ZREM",
            "ZPOPMIN",
            "ZRANGE",
            "ZRANGEBYSCORE",
            "ZREMRANGEBYSCORE",
        ],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<pool>}:queue:state",
        "hash",
        Ttl::Always("2 hours after the last use: how far the tenants are"),
        &["HGET", "HMGET", "HSET", "DEL"],
    ),
    KeyFamily::new(
        "rl",
        "rl:{<pool>}:queue:granted",
        "stream",
        Ttl::Always("2 hours after the last use: about the last 1000 slots that were handed over"),
        &["XADD", "XREAD", "XREVRANGE"],
    ),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Packed,
    Slots,
    Log,
}

/// The tiers that lie in one key.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    /// Indices into the policy's tiers.
    pub(crate) tiers: Vec<usize>,
}

/// Where the tiers of a policy lie.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) groups: Vec<Group>,
    /// The group whose members are the record of request ids.
    pub(crate) holder: Option<usize>,
}

impl<'a> Layout<'a> {
    pub(crate) fn of(namespace: &Namespace, policy: &'a Policy) -> Result<Self> {
        if policy.tiers().is_empty() {
            return Err(Error::EmptyPolicy);
        }
        let mut sets: Vec<(Kind, Vec<usize>)> = Vec::new();
        let mut packed = BTreeMap::new();
        for (index, tier) in policy.tiers().iter().enumerate() {
            let kind = match tier.limit.algorithm {
                Algorithm::Slots => Kind::Slots,
                Algorithm::SlidingLog => Kind::Log,
                _ => {
                    let place = *packed.entry(&tier.subject).or_insert(sets.len());
                    if let Some((_, tiers)) = sets.get_mut(place) {
                        tiers.push(index);
                        continue;
                    }
                    Kind::Packed
                }
            };
            sets.push((kind, vec![index]));
        }
        let mut groups = Vec::with_capacity(sets.len());
        let mut holder = None;
        for (kind, tiers) in sets {
            let members = || tiers.iter().filter_map(|&index| policy.tiers().get(index));
            let Some(first) = members().next() else { continue };
            if kind == Kind::Slots && !first.shadow && holder.is_none() {
                holder = Some(groups.len());
            }
            let mut subject =
                String::with_capacity(first.subject.kind.len() + 1 + first.subject.name.len());
            subject.push_str(&first.subject.kind);
            subject.push('=');
            subject.push_str(&first.subject.name);
            let key = namespace
                .family("rl")
                .tag(policy.domain())
                .part(subject)
                .hex(&shape(members()))
                .build();
            groups.push(Group { key, kind, tiers });
        }
        Ok(Self { policy, groups, holder })
    }

    /// The tiers in the order of the groups.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = (usize, &'a Tier)> {
        let tiers = self.policy.tiers();
        self.groups
            .iter()
            .flat_map(|group| &group.tiers)
            .filter_map(move |&index| Some((index, tiers.get(index)?)))
    }

    /// The record of a request id, for policies without slots.
    pub(crate) fn record(&self, namespace: &Namespace, id: &str) -> Key {
        let mut digest = Sha256::new();
        for group in &self.groups {
            digest.update(group.key.as_bytes());
            digest.update(b"\n");
        }
        let digest: [u8; 32] = digest.finalize().into();
        let (short, _) = digest.split_at(8);
        namespace
            .family("rl")
            .tag(self.policy.domain())
            .literal("request")
            .part(id)
            .hex(short)
            .build()
    }

    /// The argument of `acquire`, as its header says.
    pub(crate) fn acquire(&self, weights: &Weights, commit: bool, record: Option<u64>) -> Vec<u8> {
        let mut spec = Vec::with_capacity(64 + 34 * self.policy.tiers().len());
        spec.push(u8::from(commit));
        spec.push(u8::from(record.is_some()));
        put_u16(&mut spec, self.groups.len());
        put_u16(&mut spec, self.holder.map_or(0, |holder| holder + 1));
        put_f64(&mut spec, to_f64(record.unwrap_or(0)));
        for group in &self.groups {
            self.put_group(&mut spec, group);
            for tier in self.members(group) {
                let limit = &tier.limit;
                spec.push(code(limit.algorithm));
                spec.push(u8::from(tier.shadow));
                put_f64(&mut spec, cost(tier, weights));
                put_f64(
                    &mut spec,
                    match limit.algorithm {
                        Algorithm::Gcra => burst_ticks(limit),
                        _ => to_f64(limit.amount),
                    },
                );
                match limit.algorithm {
                    Algorithm::Slots => {
                        put_f64(&mut spec, (ticks(limit.period) / 16_000.0).ceil());
                        put_f64(&mut spec, ticks(limit.hint));
                    }
                    _ => put_f64(&mut spec, ticks(limit.period)),
                }
            }
        }
        spec
    }

    /// The argument of `settle`, as its header says.
    pub(crate) fn settle(
        &self,
        reserved: &Weights,
        used: &Weights,
        recorded: bool,
        acquired: f64,
    ) -> Vec<u8> {
        let mut spec = Vec::with_capacity(64 + 26 * self.policy.tiers().len());
        spec.push(u8::from(recorded));
        put_u16(&mut spec, self.groups.len());
        put_u16(&mut spec, self.holder.map_or(0, |holder| holder + 1));
        put_f64(&mut spec, acquired);
        for group in &self.groups {
            self.put_group(&mut spec, group);
            for tier in self.members(group) {
                spec.push(code(tier.limit.algorithm));
                put_f64(&mut spec, difference(tier, reserved, used));
                put_f64(&mut spec, cost(tier, reserved));
                put_f64(&mut spec, ticks(tier.limit.period));
            }
        }
        spec
    }

    fn put_group(&self, spec: &mut Vec<u8>, group: &Group) {
        spec.push(match group.kind {
            Kind::Packed => 1,
            Kind::Slots => 2,
            Kind::Log => 3,
        });
        put_u16(spec, group.tiers.len());
        if group.kind == Kind::Packed {
            let numbers: usize =
                self.members(group).map(|tier| numbers(tier.limit.algorithm)).sum();
            spec.extend([VERSION, PACKED]);
            put_u16(spec, numbers);
        }
    }

    pub(crate) fn members(&self, group: &Group) -> impl Iterator<Item = &'a Tier> {
        let tiers = self.policy.tiers();
        group.tiers.iter().filter_map(|&index| tiers.get(index))
    }
}

/// What a request costs in a tier: under GCRA in ticks, else in units.
pub(crate) fn cost(tier: &Tier, weights: &Weights) -> f64 {
    let limit = &tier.limit;
    let weight = weights.or_default(&limit.unit);
    match limit.algorithm {
        Algorithm::Gcra if weight == 0 => 0.0,
        // A charge is never rounded to nothing.
        Algorithm::Gcra => (to_f64(weight) * limit.emission()).round().max(1.0),
        Algorithm::Slots => 1.0,
        _ => to_f64(weight),
    }
}

/// What is charged in a tier, or given back, beyond what was reserved.
pub(crate) fn difference(tier: &Tier, reserved: &Weights, used: &Weights) -> f64 {
    if tier.limit.algorithm == Algorithm::Slots || used.get(&tier.limit.unit).is_none() {
        return 0.0;
    }
    let used = match (tier.limit.algorithm, used.get(&Unit::Requests)) {
        // The log holds an entry per request.
        (Algorithm::SlidingLog, Some(requests)) => to_f64(requests.min(tier.limit.amount)),
        _ => cost(tier, used),
    };
    used - cost(tier, reserved)
}

/// What a string's content depends on, as 8 bytes.
fn shape<'t>(tiers: impl Iterator<Item = &'t Tier>) -> [u8; 8] {
    let mut digest = Sha256::new_with_prefix([VERSION]);
    for tier in tiers {
        digest.update([
            code(tier.limit.algorithm),
            u8::from(matches!(tier.limit.unit, Unit::Custom(_))),
        ]);
        for name in [&*tier.name, tier.limit.unit.name()] {
            digest.update([u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            digest.update(name);
        }
        if matches!(
            tier.limit.algorithm,
            Algorithm::FixedWindow | Algorithm::SlidingLog | Algorithm::SlidingWindow
        ) {
            digest.update(ticks(tier.limit.period).to_le_bytes());
        }
    }
    let digest: [u8; 32] = digest.finalize().into();
    let mut short = [0; 8];
    short.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    short
}

fn code(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Slots => 0,
        Algorithm::Gcra => 1,
        Algorithm::FixedWindow => 2,
        Algorithm::SlidingWindow => 3,
        Algorithm::CalendarMonth => 4,
        Algorithm::SlidingLog => 5,
    }
}

/// How many numbers a tier keeps in a packed string.
pub(crate) fn numbers(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Gcra => 1,
        Algorithm::FixedWindow | Algorithm::CalendarMonth => 2,
        Algorithm::SlidingWindow => 3,
        Algorithm::SlidingLog | Algorithm::Slots => 0,
    }
}

fn put_u16(spec: &mut Vec<u8>, value: usize) {
    // At most 1000 tiers and 3000 numbers.
    spec.extend(u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_f64(spec: &mut Vec<u8>, value: f64) {
    spec.extend(value.to_le_bytes());
}
