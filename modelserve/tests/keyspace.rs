//! Every key that is written is in the table, and the documents say the same as the table.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inferkit_core::keys::{acl, markdown};
use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Flavor, Server};
use inferkit_modelserve::{
    AliasChange, Experiment, Flag, KEYS, ModelRegistry, ModelRouter, ModelRouterExt as _,
    ModelStatus, ModelVersion, OutcomeKey, Outcomes, Place, Question, RedisModelRegistry,
    RedisModelRouter, RedisOutcomes, RedisResultCache, ResultCache, Subject, Tally, Target, Ttl,
};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_done_with_the_table_s_keys_and_permissions() {
    let server = Server::start(Flavor::Plain).unwrap();
    let admin = support::pool(server.url()).await.into_driver();
    let namespace = support::namespace();
    let cmd = Cmd::new("ACL").args(["SETUSER", "serve", "on", ">secret", "resetchannels"]);
    let cmd = cmd.args(acl(KEYS, &namespace));
    admin.query::<()>(cmd).await.unwrap();
    let url = server.url().replace("redis://", "redis://serve:secret@");
    let driver = support::pool(&url).await.into_driver();

    let registry = RedisModelRegistry::new(Arc::clone(&driver), namespace.clone());
    for version in ["1", "2"] {
        registry.publish(&ModelVersion::new("rec", version, "http://m")).await.unwrap();
    }
    registry.move_alias(&AliasChange::new("rec", "champion", "1")).await.unwrap();
    registry.resolve("rec", "champion").await.unwrap();
    registry.versions("rec").await.unwrap();
    registry.set_status("rec", "2", ModelStatus::Deprecated, "me").await.unwrap();
    registry.audit("rec", 5).await.unwrap();

    let router = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
    let experiment = Experiment::new("e", "only", Target::alias("rec", "champion"));
    router.put_experiment(&experiment).await.unwrap();
    router.put_experiment(&Experiment::new("gone", "only", Target::model("m"))).await.unwrap();
    router.remove_experiment("gone").await.unwrap();
    router.put_flag(&Flag::boolean("f")).await.unwrap();
    router.refresh().await.unwrap();
    let minute = Duration::from_secs(60);
    router.route_sticky("e", &Subject::new("user 1"), minute).await.unwrap();

    let outcomes = RedisOutcomes::new(Arc::clone(&driver), namespace.clone());
    let decision = router.route("e", &Subject::new("user 1")).unwrap();
    let mut tally = Tally::default();
    tally.add(true, minute);
    outcomes.add(&[(OutcomeKey::of(&decision), tally)]).await.unwrap();
    outcomes.read("e", 1).await.unwrap();

    let results = RedisResultCache::new(driver, namespace.clone());
    let question = Question::new("user 1", "home").unwrap().or_popular("books", 3).unwrap();
    let user = "user 1";
    for place in [question.place(), Place::Precomputed { user }, Place::Preferences { user }] {
        results.put(&place, Some(&Bytes::from_static(b"x")), Ttl::EXACT).await.unwrap();
    }
    results.put_popular("books", &[("a".to_owned(), 1.0)], minute).await.unwrap();
    results.read(&question.clone().with_preferences()).await.unwrap();

    let mut keys: Vec<String> = admin.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    keys.sort();
    let patterns = [
        ("ab:changes", "ab:changes"),
        ("ab:experiment:e", "ab:experiment:<name>"),
        ("ab:index", "ab:index"),
        ("ab:outcome:e:1", "ab:outcome:<experiment>:<revision>"),
        ("ab:sticky:id:user%201", "ab:sticky:<attribute>:<unit>"),
        ("flag:f", "flag:<name>"),
        ("model:registry:{rec}", "model:registry:{<model>}"),
        ("model:registry:{rec}:audit", "model:registry:{<model>}:audit"),
        ("model:registry:{rec}:version:1", "model:registry:{<model>}:version:<version>"),
        ("model:registry:{rec}:version:2", "model:registry:{<model>}:version:<version>"),
        ("rec:popular:{books}", "rec:popular:{<category>}"),
        ("rec:user:{user%201}:context:home", "rec:user:{<user>}:context:<context>"),
        ("rec:user:{user%201}:precomputed", "rec:user:{<user>}:precomputed"),
        ("rec:user:{user%201}:preferences", "rec:user:{<user>}:preferences"),
    ];
    let expected: Vec<String> =
        patterns.iter().map(|(key, _)| format!("{namespace}:{key}")).collect();
    assert_eq!(keys, expected);
    for (key, (_, pattern)) in keys.iter().zip(patterns) {
        let row = KEYS.iter().find(|row| row.pattern == pattern).unwrap();
        let kind: String = admin.query(Cmd::new("TYPE").key(key)).await.unwrap();
        assert_eq!(kind, row.kind, "{key}");
        let left: i64 = admin.query(Cmd::new("PTTL").key(key)).await.unwrap();
        let expires = matches!(row.ttl, inferkit_core::keys::Ttl::Always(_));
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
        include_str!("../src/scripts/alias.lua"),
        include_str!("../src/scripts/keep.lua"),
        include_str!("../src/scripts/publish.lua"),
        include_str!("../src/scripts/put.lua"),
        include_str!("../src/scripts/record.lua"),
        include_str!("../src/scripts/status.lua"),
        include_str!("../src/scripts/stick.lua"),
    ] {
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("#!lua"), "without it a full server would run the script");
        let header: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS[1]", "ARGV[1]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
}
