//! What is written, by whom it may be done, and what each operation costs the server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(feature = "redis")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::markdown;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit_localredis::{Flavor, Server};
use inferkit_vectorsearch::{
    Bulk, Document, Filter, Find, Hybrid, KEYS, Knn, Query, RedisVectorIndex, Schema, Vector,
    VectorField, VectorIndex as _, VectorIndexExt as _,
};

const SCRIPTS: &[(&str, &str)] = &[
    ("put", include_str!("../src/scripts/put.lua")),
    ("update", include_str!("../src/scripts/update.lua")),
    ("set_attributes", include_str!("../src/scripts/set_attributes.lua")),
];

async fn pool(url: &str) -> DynDriver {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

fn schema(index: &str) -> Schema {
    let schema = Schema::builder(index, "app:docs:", VectorField::flat("v", 2));
    schema.tag("color").numeric("price").build().unwrap()
}

fn red() -> Filter {
    Filter::tag("color", "red").unwrap()
}

fn knn(filter: Filter) -> Knn {
    Knn::new("v", Vector::new([1.0, 0.0]).unwrap(), 3, filter).unwrap()
}

fn document(id: &str) -> Document {
    Document::new(id).with("color", "red").with("v", Vector::new([1.0, 0.0]).unwrap())
}

#[test]
fn every_script_is_listed_and_explains_itself() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scripts");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), SCRIPTS.len());
    for (name, source) in SCRIPTS {
        let mut lines = source.lines();
        assert_eq!(lines.next(), Some("#!lua"), "{name}: a full server would run half of it");
        let header: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS[1]", "ARGV", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "{name}: {word}");
        }
    }
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    assert!(include_str!("../README.md").contains(&markdown(KEYS)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_index_s_permissions_can_do_everything_and_nothing_elsewhere() {
    let server = Server::start(Flavor::Redis).unwrap();
    let admin = pool(server.url()).await;
    let planned = RedisVectorIndex::behind_alias(Arc::clone(&admin), schema("v1"), "docs").unwrap();
    let cmd = Cmd::new("ACL").args(["SETUSER", "app", "on", ">secret", "resetchannels"]);
    let own = ["+hello", "+client", "+ping"].map(str::to_owned);
    let next = RedisVectorIndex::new(Arc::clone(&admin), schema("v2"));
    admin.query::<()>(cmd.args(planned.acl()).args(next.acl()).args(own)).await.unwrap();
    let driver = pool(&server.url().replace("redis://", "redis://app:secret@")).await;
    let index = RedisVectorIndex::behind_alias(driver, schema("v1"), "docs").unwrap();
    index.ensure_index().await.unwrap();
    let brief = document("brief").with_ttl(Duration::from_secs(60));
    index.put_many(&[document("1"), document("2"), brief]).await.unwrap();
    assert_eq!(index.knn(&knn(red())).await.unwrap().hits.len(), 3);
    assert_eq!(index.find(&Find::new(red())).await.unwrap().total, 3);
    let change = [("price", 1.into())];
    assert_eq!(index.update_where(&red(), &change, Bulk::apply()).await.unwrap().changed, 3);
    assert!(index.verify().await.unwrap().is_complete());
    let wait = Duration::from_secs(30);
    let index = index.reindex(schema("v2"), wait, |_| {}).await.unwrap();
    assert!(index.remove("1").await.unwrap());
    assert_eq!(index.remove_where(&red(), Bulk::apply()).await.unwrap().changed, 2);
    assert!(index.drop_index().await.unwrap());
    let elsewhere = Cmd::new("HGETALL").key("app:other");
    assert!(index.driver().query::<()>(elsewhere).await.is_err());
    // The table is whole and holds nothing that is not needed.
    let keys: Vec<String> = admin.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    assert_eq!(keys, [""; 0]);
}

/// What the server counted since the last call, but for the counting itself and the connections' own commands.
async fn spent(driver: &DynDriver) -> BTreeMap<String, u64> {
    let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
    driver.query::<()>(Cmd::new("CONFIG").arg("RESETSTAT")).await.unwrap();
    stats
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_ascii_lowercase(), rest.split(',').next()?.parse().ok()?))
        })
        .filter(|(name, _)| {
            !["info", "config|resetstat", "ping", "hello"].contains(&name.as_str())
                && !name.starts_with("client|")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_costs_what_it_says() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = pool(server.url()).await;
    let index = RedisVectorIndex::new(Arc::clone(&driver), schema("docs"));
    index.ensure_index().await.unwrap();
    // The first calls make the server know the scripts.
    index.put(&document("1")).await.unwrap();
    let change = [("price", 1.into())];
    index.update_where(&red(), &change, Bulk::apply()).await.unwrap();
    spent(&driver).await;
    let expect = async |what: &str, expected: &[(&str, u64)]| {
        let expected = expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(spent(&driver).await, expected, "{what}");
    };

    index.put_many(&[document("1"), document("2")]).await.unwrap();
    expect("put_many", &[("del", 2), ("exec", 1), ("hset", 2), ("multi", 1)]).await;
    index.put(&document("1").with_ttl(Duration::from_secs(60))).await.unwrap();
    expect("put", &[("evalsha", 1), ("del", 1), ("hset", 1), ("pexpire", 1)]).await;
    index.get_many(&["1", "2"]).await.unwrap();
    expect("get_many", &[("hgetall", 2)]).await;
    index.knn(&knn(red())).await.unwrap();
    expect("search", &[("ft.search", 1)]).await;
    let queries = [knn(red()), knn(Filter::all())];
    index.search_many(&queries.each_ref().map(Query::Knn)).await.unwrap();
    expect("search_many", &[("ft.search", 2)]).await;
    index.find(&Find::new(red())).await.unwrap();
    expect("find", &[("ft.search", 1)]).await;
    index.hybrid(&Hybrid::new(red(), knn(Filter::all())).unwrap()).await.unwrap();
    expect("hybrid", &[("ft.search", 2)]).await;
    index.count(&red()).await.unwrap();
    expect("count", &[("ft.search", 1)]).await;
    index.update_where(&red(), &change, Bulk::dry_run()).await.unwrap();
    expect("a dry run", &[("ft.search", 1)]).await;
    index.update_where(&red(), &change, Bulk::apply()).await.unwrap();
    let inside = [("evalsha", 2), ("exists", 2), ("ft.aggregate", 1), ("hset", 2)];
    expect("update_where", &inside).await;
    index.remove_where(&red(), Bulk::apply()).await.unwrap();
    expect("remove_where", &[("ft.aggregate", 1), ("unlink", 2)]).await;
    index.remove_many(&["1", "2"]).await.unwrap();
    expect("remove_many", &[("unlink", 2)]).await;
    for nothing in [index.put_many(&[]).await, index.search_many(&[]).await.map(drop)] {
        nothing.unwrap();
    }
    index.get_many(&[]).await.unwrap();
    expect("nothing", &[]).await;
}
