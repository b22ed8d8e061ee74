//! Every key that is written is in the table, and the documents say the same as the table.

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inferkit_core::keys::{acl, markdown};
use inferkit_core::{Cmd, DriverExt as _};
use inferkit_featurestore::{
    Column, DataType, Entity, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, KEYS, Layout,
    ModelInput, RedisFeatureStore, Row, Value,
};
use inferkit_localredis::{Flavor, Server};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_done_with_the_table_s_keys_and_permissions() {
    let server = Server::start(Flavor::Plain).unwrap();
    let admin = support::pool(server.url()).await.into_driver();
    let namespace = support::namespace();
    let cmd = Cmd::new("ACL").args(["SETUSER", "features", "on", ">secret", "resetchannels"]);
    admin.query::<()>(cmd.args(acl(KEYS, &namespace))).await.unwrap();
    let url = server.url().replace("redis://", "redis://features:secret@");
    let driver = support::pool(&url).await.into_driver();

    let store = RedisFeatureStore::new(Arc::clone(&driver), namespace.clone());
    let now = SystemTime::now();
    let entity = Entity::new("user 1");
    let mut groups = Vec::new();
    for (name, layout) in [("profile", Layout::Packed), ("counters", Layout::Hash)] {
        for (suffix, ttl) in [("", None), ("_short", Some(Duration::from_secs(60)))] {
            let builder = FeatureGroup::builder("user", format!("{name}{suffix}"));
            let mut builder = builder.layout(layout).feature("n", DataType::I64);
            if let Some(ttl) = ttl {
                builder = builder.ttl(ttl);
            }
            let group = store.register(&builder.build().unwrap()).await.unwrap();
            store.write(&group, &[Row::new(entity.clone(), now, [1_i64])]).await.unwrap();
            store.write_unguarded(&group, &[Row::new("gone", now, [1_i64])]).await.unwrap();
            store.remove(&group, &[Entity::new("gone")]).await.unwrap();
            store.record(&group, &entity).await.unwrap().unwrap();
            store.entities(&group, None).await.unwrap();
            groups.push(group);
        }
    }
    let by = Value::from(1_i64);
    store.increment(&groups[2], &entity, "n", &by, now).await.unwrap();
    let float = FeatureGroup::builder("user", "floats").layout(Layout::Hash);
    let float = store.register(&float.feature("x", DataType::F64).build().unwrap()).await.unwrap();
    store.increment(&float, &entity, "x", &Value::from(0.5_f64), now).await.unwrap();
    let mut input = ModelInput::builder().column(Column::event_age(&groups[0]));
    for group in &groups {
        input = input.all(group);
    }
    store.read(&input.build().unwrap(), std::slice::from_ref(&entity)).await.unwrap();
    let one = ModelInput::builder().all(&groups[0]).build().unwrap();
    store.read(&one, &[entity.clone(), Entity::new("nobody")]).await.unwrap();
    let dropped = FeatureGroup::builder("user", "dropped").feature("n", DataType::I64);
    let dropped = store.register(&dropped.build().unwrap()).await.unwrap();
    store.write(&dropped, &[Row::new("a", now, [1_i64])]).await.unwrap();
    assert_eq!(store.drop_group(&dropped).await.unwrap(), 1);

    let mut keys: Vec<String> = admin.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    keys.sort();
    let row = |name: &str| format!("{namespace}:feature:user:{{user%201}}:{name}");
    let schema = |name: &str| format!("{namespace}:feature:schema:user:{name}");
    let names = ["counters", "counters_short", "floats", "profile", "profile_short"];
    let mut expected: Vec<String> =
        names.iter().flat_map(|name| [row(name), schema(name)]).collect();
    expected.sort();
    assert_eq!(keys, expected);
    for key in &keys {
        let kind: String = admin.query(Cmd::new("TYPE").key(key)).await.unwrap();
        let is_packed = key.contains("}:profile");
        assert_eq!(kind, if is_packed { "string" } else { "hash" }, "{key}");
        let left: i64 = admin.query(Cmd::new("PTTL").key(key)).await.unwrap();
        let expires = key.contains("}:") && key.ends_with("_short");
        assert_eq!(0 < left, expires, "{key}: {left}");
    }
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    let table = markdown(KEYS);
    assert!(include_str!("../README.md").contains(&table), "{table}");
}

#[test]
fn every_script_says_what_it_takes_and_returns() {
    for script in [
        include_str!("../src/scripts/increment.lua"),
        include_str!("../src/scripts/put.lua"),
        include_str!("../src/scripts/put_feast.lua"),
        include_str!("../src/scripts/put_hash.lua"),
        include_str!("../src/scripts/register.lua"),
    ] {
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("#!lua"), "without it a full server would run the script");
        let header: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS[1]", "ARGV[1]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
}
