//! What the doctor says of real servers.

use inferkit_core::doctor::{Checkup, Level, examine};
use inferkit_core::{Cmd, Deployment, DriverExt as _, Pool, PoolConfig};
use inferkit_localredis::{Deployments, Flavor, Server};

#[expect(clippy::unwrap_used, reason = "helpers of tests")]
fn level(checkup: &Checkup, check: &str) -> Level {
    checkup.findings.iter().find(|finding| finding.check == check).unwrap().level
}

#[tokio::test(flavor = "multi_thread")]
async fn five_deployments_as_they_should_be_have_no_failure() {
    let five = Deployments::start().unwrap();
    for (name, server) in five.iter() {
        let deployment = Deployment::of_name(name).unwrap();
        let pool = Pool::connect(server.url()).await.unwrap();
        let checkup = examine(&pool, &[deployment]).await;
        let broken: Vec<_> =
            checkup.findings.iter().filter(|found| found.level == Level::Failure).collect();
        assert!(broken.is_empty(), "{checkup}");
        assert_eq!(level(&checkup, "eviction"), Level::Ok, "{checkup}");
        assert_eq!(level(&checkup, "clock"), Level::Ok, "{checkup}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_what_to_do() {
    let server = Server::start(Flavor::Plain).unwrap();
    let pool = Pool::connect(server.url()).await.unwrap();
    let all = Deployment::ALL;
    pool.query::<()>(Cmd::new("CONFIG").args(["SET", "maxmemory-policy", "allkeys-lru"]))
        .await
        .unwrap();
    pool.query::<()>(Cmd::new("CONFIG").args(["SET", "notify-keyspace-events", "Ex"]))
        .await
        .unwrap();
    let checkup = examine(&pool, &all).await;
    assert_eq!(checkup.worst(), Level::Failure);
    assert_eq!(level(&checkup, "eviction"), Level::Failure);
    assert_eq!(level(&checkup, "notifications"), Level::Warning);
    assert_eq!(level(&checkup, "persistence"), Level::Warning);
    assert_eq!(level(&checkup, "user"), Level::Warning);
    let table = checkup.to_string();
    assert!(table.contains("caches, features, search, coordination, events"), "{table}");
    assert!(table.contains("-> CONFIG SET maxmemory-policy noeviction"), "{table}");

    // A user who may do little is told what could not be looked at.
    let user = Cmd::new("ACL").args(["SETUSER", "u", "on", ">pw", "+ping", "+hello", "+client"]);
    pool.query::<()>(user).await.unwrap();
    let url = server.url().replace("redis://", "redis://u:pw@");
    let checkup = examine(&Pool::connect(&url).await.unwrap(), &[Deployment::Features]).await;
    assert_eq!(level(&checkup, "info"), Level::Warning, "{checkup}");

    let replica = Server::start(Flavor::Plain).unwrap();
    let (host, port) = server.address();
    let port = port.to_string();
    replica.command(&["REPLICAOF", host, &port]).unwrap();
    let reader = Pool::connect(replica.url()).await.unwrap();
    let checkup = examine(&reader, &[Deployment::Features]).await;
    assert_eq!(level(&checkup, "role"), Level::Failure, "{checkup}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_a_finding() {
    let pool = Pool::new(PoolConfig::single("redis://user:secret@127.0.0.1:1").unwrap());
    let checkup = examine(&pool, &[Deployment::Caches]).await;
    assert_eq!(level(&checkup, "reachable"), Level::Failure);
    assert_eq!(checkup.findings.len(), 1);
    assert!(!checkup.to_string().contains("secret"), "{checkup}");
}
