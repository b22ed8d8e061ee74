//! Snapshots on a real server: changes arrive, torn reads are noticed, and records of others are handled.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Flavor, Server};
use inferkit_modelserve::{
    AliasChange, Error, Experiment, ModelRegistry, ModelRouter, ModelRouterExt as _, ModelVersion,
    RedisModelRegistry, RedisModelRouter, Status, Subject, Target,
};

fn plain(name: &str) -> Experiment {
    Experiment::new(name, "control", Target::model("m"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_arrives_at_once() {
    for flavor in [Flavor::Plain, Flavor::Valkey] {
        let pool = support::pool(Server::shared(flavor).unwrap().url()).await;
        let driver = pool.clone().into_driver();
        let namespace = support::namespace();
        let router = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
        let following = tokio::spawn(router.clone().run(Arc::new(pool), Duration::from_secs(30)));
        let writer = RedisModelRouter::new(driver, namespace);
        for round in 0..5 {
            let name = format!("e{round}");
            writer.put_experiment(&plain(&name)).await.unwrap();
            let start = Instant::now();
            while router.route(&name, &Subject::new("u")).is_err() {
                assert!(start.elapsed() < Duration::from_secs(5), "far less than the period");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        following.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_a_change_arrives_within_the_period() {
    let pool = support::pool(Server::shared(Flavor::Plain).unwrap().url()).await;
    let driver = pool.clone().into_driver();
    let namespace = support::namespace();
    let router = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
    let following = tokio::spawn(router.clone().run(Arc::new(pool), Duration::from_millis(100)));
    RedisModelRouter::new(Arc::clone(&driver), namespace.clone())
        .put_experiment(&plain("e"))
        .await
        .unwrap();
    // Written by hand, as the specification has it; nobody is told.
    let key = format!("{namespace}:ab:experiment:e");
    driver.query::<()>(Cmd::new("DEL").key(&key)).await.unwrap();
    let cmd = Cmd::new("HSET").key(&key).args([
        "control_model",
        "recommendation-v3",
        "treatment_model",
        "recommendation-v4",
        "traffic_split",
        "0:100",
    ]);
    driver.query::<i64>(cmd).await.unwrap();
    let start = Instant::now();
    while router
        .route("e", &Subject::new("u"))
        .is_ok_and(|found| &*found.model != "recommendation-v4")
    {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    following.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_never_torn() {
    let driver = support::shared(Flavor::Plain).await;
    let namespace = support::namespace();
    let writer = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
    for name in ["a", "b"] {
        writer.put_experiment(&plain(name)).await.unwrap();
    }
    // `a` is written before `b` in every round: no snapshot has a newer `b` than `a`.
    let done = Arc::new(AtomicBool::new(false));
    let writing = {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            for _ in 0..150 {
                for name in ["a", "b"] {
                    let stored = writer.experiment(name).await.unwrap().unwrap();
                    writer.put_experiment(&stored.with_status(Status::Paused)).await.unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let reader = RedisModelRouter::new(driver, namespace);
    let mut seen = 0;
    while !done.load(Ordering::SeqCst) {
        match reader.refresh().await {
            Ok(snapshot) => {
                let revision = |name| snapshot.experiment(name).unwrap().revision();
                let (a, b) = (revision("a"), revision("b"));
                assert!(b <= a && a <= b + 1, "{a} {b}");
                seen += 1;
            }
            Err(error) => assert!(matches!(error, Error::Unsettled), "{error:?}"),
        }
    }
    writing.await.unwrap();
    assert!(0 < seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_record_leaves_the_others_in_use() {
    let driver = support::shared(Flavor::Plain).await;
    let namespace = support::namespace();
    let router = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
    for name in ["good", "bad", "later"] {
        router.put_experiment(&plain(name)).await.unwrap();
    }
    let set = async |name: &str, field: &str, value: &str| {
        let cmd = Cmd::new("HSET").key(format!("{namespace}:ab:experiment:{name}"));
        driver.query::<i64>(cmd.arg(field).arg(value)).await.unwrap()
    };
    set("bad", "arms", "[{").await;
    set("later", "v", "2").await;
    let snapshot = router.refresh().await.unwrap();
    assert!(snapshot.route("good", &Subject::new("u")).is_ok());
    for (name, word) in [("bad", "arms"), ("later", "upgrade")] {
        let error = snapshot.route(name, &Subject::new("u")).unwrap_err();
        assert!(
            matches!(error, Error::Record { .. }) && error.to_string().contains(word),
            "{error}"
        );
    }
    assert_eq!(snapshot.broken().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_are_those_of_the_registry() {
    let driver = support::shared(Flavor::Plain).await;
    let namespace = support::namespace();
    let registry = RedisModelRegistry::new(Arc::clone(&driver), namespace.clone());
    let router = RedisModelRouter::new(driver, namespace);
    let target = Target::alias("rec", "champion");
    router.put_experiment(&Experiment::new("e", "only", target)).await.unwrap();
    router.refresh().await.unwrap();
    let version = || router.route("e", &Subject::new("u")).unwrap().version;
    assert_eq!(version(), None);
    for (number, before) in [("1", None), ("2", Some("1"))] {
        registry.publish(&ModelVersion::new("rec", number, "http://models")).await.unwrap();
        let mut change = AliasChange::new("rec", "champion", number);
        if let Some(before) = before {
            change = change.from_version(before);
        }
        registry.move_alias(&change).await.unwrap();
        router.refresh().await.unwrap();
        assert_eq!(version().as_deref(), Some(number));
    }
}
