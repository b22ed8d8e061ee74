//! The Lua scripts and the keys of this crate, on every server flavor.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use inferkit_core::keys::{Namespace, Ttl};
use inferkit_core::{Cmd, DriverExt as _, LEASE_KEYS, Leases as _, Protocol, RedisLeases};
use inferkit_localredis::Flavor;

const SCRIPTS: &[(&str, &str)] = &[
    ("lease_acquire", include_str!("../src/scripts/lease_acquire.lua")),
    ("lease_release", include_str!("../src/scripts/lease_release.lua")),
    ("lease_renew", include_str!("../src/scripts/lease_renew.lua")),
];

#[test]
fn every_script_is_listed_and_explains_itself() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scripts");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), SCRIPTS.len());
    for (name, source) in SCRIPTS {
        let header: String =
            source.lines().take_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n");
        assert!(header.contains("Reply"), "{name}: the header does not give the reply");
        for number in 1..10 {
            for list in ["KEYS", "ARGV"] {
                let name_of = format!("{list}[{number}]");
                assert_eq!(
                    source.contains(&name_of),
                    header.contains(&name_of),
                    "{name}: {name_of}"
                );
            }
        }
        assert!(!source.contains("math.random"), "{name}");
    }
}

#[tokio::test]
async fn every_script_loads_everywhere() {
    for flavor in [Flavor::Redis, Flavor::Valkey, Flavor::Plain] {
        let (pool, _) = support::pool(flavor, Protocol::Resp3).await;
        for (name, source) in SCRIPTS {
            let loaded: Result<String, _> =
                pool.query(Cmd::new("SCRIPT").arg("LOAD").arg(source)).await;
            assert_eq!(loaded.unwrap().len(), 40, "{name}");
        }
    }
}

#[tokio::test]
async fn every_key_is_of_the_table_and_expires() {
    let (pool, prefix) = support::pool(Flavor::Redis, Protocol::Resp3).await;
    let namespace = Namespace::new(&prefix).unwrap();
    let leases = RedisLeases::new(pool.clone().into_driver(), namespace);
    leases.acquire("a:b {c}*", "me", Duration::from_secs(60)).await.unwrap().unwrap();
    let (_, keys): (i64, Vec<String>) = pool
        .query(
            Cmd::new("SCAN").arg(0).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(10_000),
        )
        .await
        .unwrap();
    assert_eq!(keys, [format!("{prefix}:lease:{{a%3Ab%20%7Bc%7D%2A}}")]);
    let row = LEASE_KEYS[0];
    let kind: String = pool.query(Cmd::new("TYPE").key(&keys[0]).readonly()).await.unwrap();
    assert_eq!(kind, row.kind);
    assert!(matches!(row.ttl, Ttl::Always(_)));
    let ttl: i64 = pool.query(Cmd::new("PTTL").key(&keys[0]).readonly()).await.unwrap();
    assert!((1..=60_000).contains(&ttl), "{ttl}");
}
