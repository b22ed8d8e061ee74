//! Sets of servers: Cluster, Sentinel, five deployments.

use inferkit_localredis::{Cluster, Deployments, Error, Sentinel, unique_prefix};

#[test]
fn a_cluster_fails_over_and_moves_slots() {
    let cluster = Cluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 6);
    for index in 0..cluster.node_count() {
        let info = cluster.node(index).command(&["CLUSTER", "INFO"]).unwrap();
        assert!(info.contains("cluster_state:ok"), "{info}");
        assert!(info.contains("cluster_known_nodes:6"), "{info}");
    }
    let key = unique_prefix();
    let primary = cluster.primary_of(&key).unwrap();
    assert!(primary < 3);
    cluster.node(primary).command(&["SET", &key, "kept"]).unwrap();

    let slot = cluster.slot_of(&key).unwrap();
    let other = (primary + 1) % 3;
    cluster.migrate_slot(slot, primary, other).unwrap();
    assert_eq!(cluster.primary_of(&key).unwrap(), other);
    assert_eq!(cluster.node(other).command(&["GET", &key]).unwrap(), "kept");
    let moved = cluster.node(primary).command(&["GET", &key]).unwrap_err();
    assert!(moved.to_string().contains("MOVED"), "{moved}");

    let heir = cluster.failover(&key).unwrap();
    assert_eq!(heir, other + 3);
    assert_eq!(cluster.node(heir).command(&["GET", &key]).unwrap(), "kept");

    let killed = cluster.kill_primary_of(&key).unwrap();
    assert_eq!(killed, heir);
    cluster.wait_until_whole().unwrap();
    assert_eq!(cluster.primary_of(&key).unwrap(), other);
    assert_eq!(cluster.node(other).command(&["GET", &key]).unwrap(), "kept");
    cluster.node(killed).restart().unwrap();
    cluster.wait_until_whole().unwrap();
}

#[test]
fn an_open_migration_answers_ask() {
    let cluster = Cluster::shared().unwrap();
    let key = unique_prefix();
    let (slot, from) = (cluster.slot_of(&key).unwrap(), cluster.primary_of(&key).unwrap());
    let to = (from + 1) % 3;
    cluster.begin_migration(slot, from, to).unwrap();
    let ask = cluster.node(from).command(&["GET", &key]).unwrap_err();
    assert!(ask.to_string().contains("ASK"), "{ask}");
    cluster.migrate_slot(slot, from, to).unwrap();
    assert_eq!(cluster.primary_of(&key).unwrap(), to);
}

#[test]
fn sentinels_replace_the_primary() {
    let sentinel = Sentinel::start().unwrap();
    assert_eq!(sentinel.sentinel_urls().len(), 3);
    let first = sentinel.primary().unwrap().port();
    sentinel.primary().unwrap().command(&["SET", "key", "kept"]).unwrap();

    sentinel.failover().unwrap();
    let second = sentinel.primary().unwrap();
    assert_ne!(second.port(), first);
    assert_eq!(second.command(&["GET", "key"]).unwrap(), "kept");

    let killed = sentinel.kill_primary().unwrap();
    let third = sentinel.wait_for_new_primary(killed).unwrap();
    assert_eq!(third.port(), first);
    assert_eq!(third.command(&["SET", "key", "new"]).unwrap(), "OK");
}

#[test]
fn each_deployment_has_its_policy() {
    let deployments = Deployments::start_with_maxmemory("64mb").unwrap();
    let names: Vec<_> = deployments.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["caches", "features", "search", "coordination", "events"]);
    for (name, server) in deployments.iter() {
        let policy = server.command(&["CONFIG", "GET", "maxmemory-policy"]).unwrap();
        let expected = if name == "caches" { "allkeys-lfu" } else { "noeviction" };
        assert_eq!(policy, format!("maxmemory-policy\n{expected}"));
        assert!(server.command(&["CONFIG", "GET", "maxmemory"]).unwrap().ends_with("67108864"));
    }
    assert!(deployments.get("search").unwrap().supports_search());
    assert!(matches!(deployments.get("cache"), Err(Error::Unknown(_))));
}
