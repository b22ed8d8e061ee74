//! Every key that is written is in the table, and the documents say the same as the table.

mod support;

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::{Ttl, acl, markdown};
use inferkit_core::{Cmd, DriverExt as _, LEASE_KEYS, RedisLeases};
use inferkit_localredis::{Flavor, Server};
use inferkit_mlevents::{
    Consumer, ConsumerConfig, Event, EventBus, Failure, KEYS, RedisEventBus, Start, Topic, Trim,
    handler,
};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_done_with_the_table_s_keys_and_permissions() {
    let server = Server::start(Flavor::Plain).unwrap();
    let admin = support::pool(server.url()).await.into_driver();
    let namespace = support::namespace();
    let table = [KEYS, LEASE_KEYS].concat();
    let cmd = Cmd::new("ACL").args(["SETUSER", "events", "on", ">secret", "resetchannels"]);
    admin.query::<()>(cmd.args(acl(&table, &namespace))).await.unwrap();
    let url = server.url().replace("redis://", "redis://events:secret@");
    let pool = support::pool(&url).await;
    let connect = Arc::new(pool.clone());
    let driver = pool.into_driver();

    let bus = RedisEventBus::new(Arc::clone(&driver), namespace.clone()).with_connect(connect);
    let bus: Arc<dyn EventBus> = Arc::new(bus);
    let topic = Topic::new("a topic").unwrap();
    let event = |n: u64| Event::new("e", "s", &n).unwrap().about("one").unwrap();
    bus.publish(&topic, &[event(0), event(1)]).await.unwrap();
    bus.publish_once(&topic, &[event(2)]).await.unwrap();
    let handle = handler(|delivery| async move {
        match delivery.event.map_err(Failure::reject)?.data::<u64>()? {
            0 => Err("never".into()),
            1 => Err(Failure::reject("bad")),
            _ => Ok(()),
        }
    });
    let config = || {
        ConsumerConfig::new("a group")
            .look_every(Duration::from_millis(20))
            .backoff(Duration::from_secs(60), Duration::from_secs(60))
    };
    let half = || tokio::time::sleep(Duration::from_millis(500));
    let shared = Consumer::new(Arc::clone(&bus), topic.clone(), config());
    let ran = shared.run(&handle, half()).await.unwrap();
    assert_eq!((ran.handled, ran.retried, ran.buried), (1, 1, 1));
    bus.publish(&topic, &[event(5)]).await.unwrap();
    let ordered = config().ordered(Duration::from_secs(30)).named("o");
    let leases = Arc::new(RedisLeases::new(Arc::clone(&driver), namespace.clone()));
    let ordered = Consumer::new(Arc::clone(&bus), topic.clone(), ordered).with_leases(leases);
    ordered.run(&handle, half()).await.unwrap();
    bus.announce(&topic, "a group", "somebody", Duration::from_secs(60)).await.unwrap();
    bus.create_group(&topic, "other", Start::Now).await.unwrap();
    let letter = bus.dead_letters(&topic, 0, None, 1).await.unwrap().remove(0);
    bus.requeue(&topic, &letter).await.unwrap();
    bus.purge(&topic, 0, &[letter.entry]).await.unwrap();
    bus.trim(
        &topic,
        Trim::new().older_than(Duration::from_secs(60)).larger_than(1).hard_limit(1_000),
    )
    .await
    .unwrap();
    bus.status(&topic).await.unwrap();

    let mut keys: Vec<String> = admin.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    keys.retain(|key| !key.starts_with(&format!("{namespace}:lease")));
    keys.sort();
    let own = format!("{namespace}:ml:events:{{a%20topic:0}}");
    let expected = [
        (own.clone(), "ml:events:{<topic>:<partition>}"),
        (format!("{own}:dead"), "ml:events:{<topic>:<partition>}:dead"),
        (format!("{own}:delay:a%20group"), "ml:events:{<topic>:<partition>}:delay:<group>"),
        (format!("{own}:floors"), "ml:events:{<topic>:<partition>}:floors"),
        (format!("{own}:ids"), "ml:events:{<topic>:<partition>}:ids"),
        (format!("{namespace}:ml:workers:{{a%20topic}}:a%20group"), "ml:workers:{<topic>}:<group>"),
    ];
    let mut names: Vec<String> = expected.iter().map(|(key, _)| key.clone()).collect();
    // Its last letter was taken back.
    names.retain(|name| keys.contains(name) || !name.ends_with(":dead"));
    assert_eq!(keys, names);
    for (key, pattern) in expected.iter().filter(|(key, _)| keys.contains(key)) {
        let row = KEYS.iter().find(|row| row.pattern == *pattern).unwrap();
        let kind: String = admin.query(Cmd::new("TYPE").key(key)).await.unwrap();
        assert_eq!(kind, row.kind, "{key}");
        let left: i64 = admin.query(Cmd::new("PTTL").key(key)).await.unwrap();
        assert_eq!(0 < left, matches!(row.ttl, Ttl::Always(_)), "{key}: {left}");
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
        include_str!("../src/scripts/ack.lua"),
        include_str!("../src/scripts/announce.lua"),
        include_str!("../src/scripts/bury.lua"),
        include_str!("../src/scripts/claim.lua"),
        include_str!("../src/scripts/leave.lua"),
        include_str!("../src/scripts/publish_once.lua"),
        include_str!("../src/scripts/requeue.lua"),
        include_str!("../src/scripts/retry.lua"),
        include_str!("../src/scripts/trim.lua"),
    ] {
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("#!lua"), "without it a full server would run the script");
        let header: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
        for word in ["KEYS[1]", "ARGV[1]", "Reply"] {
            assert!(header.iter().any(|line| line.contains(word)), "the header lacks {word}");
        }
    }
}
