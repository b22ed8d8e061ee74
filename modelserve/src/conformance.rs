//! The suites that every implementation of [`ModelRegistry`], [`ModelRouter`] and [`ResultCache`] passes.
//!
//! They are called by [`model_registry_conformance`](crate::model_registry_conformance),
//! [`model_router_conformance`](crate::model_router_conformance) and
//! [`result_cache_conformance`](crate::result_cache_conformance); not covered by semver.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "cases of a suite fail by panicking"
)]

use std::time::Duration;

use bytes::Bytes;

use crate::{
    AliasChange, Condition, Error, Experiment, Flag, Found, Kept, ModelRegistry, ModelRouter,
    ModelRouterExt as _, ModelStatus, ModelVersion, Place, Question, Reason, ResultCache, Serve,
    Status, Subject, Target, Tier, Ttl,
};

/// Names a test per case; `$make` is an `async fn` that returns an empty registry.
#[macro_export]
macro_rules! model_registry_conformance {
    ($make:path) => {
        $crate::model_conformance! { $make:
            versions_never_change, versions_come_in_order, aliases_move_by_compare_and_set,
            aliases_point_to_active_versions, changes_are_audited, what_is_not_there_is_an_error,
            any_names_are_kept_apart, bad_versions_are_refused,
        }
    };
}

/// Names a test per case; `$make` is an `async fn` that returns a router without experiments.
#[macro_export]
macro_rules! model_router_conformance {
    ($make:path) => {
        $crate::model_conformance! { $make:
            nothing_is_routed_before_the_first_load, an_experiment_assigns, the_kill_switch_works,
            experiments_are_replaced_by_compare_and_set, changes_that_move_users_are_refused,
            bad_experiments_are_refused, removed_experiments_are_gone, flags_are_evaluated,
            sticky_units_stay_where_they_were, any_experiment_names_are_kept_apart,
        }
    };
}

/// Names a test per case; `$make` is an `async fn` that returns an empty cache.
#[macro_export]
macro_rules! result_cache_conformance {
    ($make:path) => {
        $crate::model_conformance! { $make:
            an_empty_cache_has_nothing, tiers_are_read_together, fresh_comes_before_stale_before_popular,
            that_there_is_nothing_is_kept, results_end, popular_items_are_replaced,
            users_and_contexts_are_kept_apart, bad_times_are_refused,
        }
    };
}

/// What the three have in common.
#[doc(hidden)]
#[macro_export]
macro_rules! model_conformance {
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

fn version(model: &str, version: &str) -> ModelVersion {
    ModelVersion::new(model, version, format!("http://models/{version}"))
        .with_features(["profile", "realtime"])
        .with_latency(45, 120)
        .with_max_batch_size(32)
        .with_tag("framework", "onnx")
}

/// A version is published once, and never changes.
pub async fn versions_never_change(registry: &dyn ModelRegistry) {
    let published = version("rec", "4.1.0");
    assert!(registry.publish(&published).await.unwrap());
    assert!(!registry.publish(&published).await.unwrap(), "the same again is no change");
    let other = published.clone().with_tag("framework", "torch");
    let error = registry.publish(&other).await.unwrap_err();
    assert!(matches!(error, Error::VersionExists { .. }), "{error:?}");
    let found = registry.version("rec", "4.1.0").await.unwrap();
    assert!(Duration::from_secs(1_600_000_000) < found.created_at);
    assert_eq!(ModelVersion { created_at: Duration::ZERO, ..found }, published);
}

/// Versions come in the order in which they were published.
pub async fn versions_come_in_order(registry: &dyn ModelRegistry) {
    for number in ["2.0.0", "10.0.0", "1.0.0"] {
        registry.publish(&version("rec", number)).await.unwrap();
    }
    let found = registry.versions("rec").await.unwrap();
    let numbers: Vec<&str> = found.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(numbers, ["2.0.0", "10.0.0", "1.0.0"]);
    assert!(registry.versions("unknown").await.unwrap().is_empty());
}

/// An alias is moved only by who knows where it points.
pub async fn aliases_move_by_compare_and_set(registry: &dyn ModelRegistry) {
    for number in ["1", "2", "3"] {
        registry.publish(&version("rec", number)).await.unwrap();
    }
    registry.move_alias(&AliasChange::new("rec", "champion", "1")).await.unwrap();
    let late = registry.move_alias(&AliasChange::new("rec", "champion", "2")).await.unwrap_err();
    assert!(matches!(&late, Error::Conflict { current, .. } if current == "1"), "{late:?}");
    let next = AliasChange::new("rec", "champion", "2").from_version("1").by("me");
    registry.move_alias(&next).await.unwrap();
    let late = registry.move_alias(&next).await.unwrap_err();
    assert!(matches!(&late, Error::Conflict { current, .. } if current == "2"), "{late:?}");
    assert_eq!(registry.resolve("rec", "champion").await.unwrap().version, "2");
    let aliases = registry.aliases("rec").await.unwrap();
    assert_eq!(aliases.into_iter().collect::<Vec<_>>(), [("champion".to_owned(), "2".to_owned())]);
    let removal = AliasChange::new("rec", "champion", "2").from_version("2").removed();
    registry.move_alias(&removal).await.unwrap();
    let error = registry.resolve("rec", "champion").await.unwrap_err();
    assert!(matches!(error, Error::UnknownModel { .. }), "{error:?}");
}

/// No alias points to what is not there or not to be served.
pub async fn aliases_point_to_active_versions(registry: &dyn ModelRegistry) {
    for number in ["1", "2"] {
        registry.publish(&version("rec", number)).await.unwrap();
    }
    registry.set_status("rec", "2", ModelStatus::Deprecated, "me").await.unwrap();
    let error = registry.move_alias(&AliasChange::new("rec", "champion", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Deprecated { .. }), "{error:?}");
    let error = registry.move_alias(&AliasChange::new("rec", "champion", "9")).await.unwrap_err();
    assert!(matches!(error, Error::UnknownModel { .. }), "{error:?}");
    registry.move_alias(&AliasChange::new("rec", "champion", "1")).await.unwrap();
    let error = registry.set_status("rec", "1", ModelStatus::Deprecated, "me").await.unwrap_err();
    assert!(matches!(&error, Error::InUse { alias, .. } if alias == "champion"), "{error:?}");
    registry.set_status("rec", "2", ModelStatus::Active, "me").await.unwrap();
    let change = AliasChange::new("rec", "champion", "2").from_version("1");
    registry.move_alias(&change).await.unwrap();
    registry.set_status("rec", "1", ModelStatus::Deprecated, "me").await.unwrap();
    assert_eq!(registry.version("rec", "1").await.unwrap().status, ModelStatus::Deprecated);
}

/// Every change is in the trail once, with its author.
pub async fn changes_are_audited(registry: &dyn ModelRegistry) {
    registry.publish(&version("rec", "1")).await.unwrap();
    registry.publish(&version("rec", "1")).await.unwrap();
    registry.publish(&version("rec", "2")).await.unwrap();
    registry.move_alias(&AliasChange::new("rec", "champion", "1").by("ann")).await.unwrap();
    registry
        .move_alias(&AliasChange::new("rec", "champion", "2").from_version("1").by("ben"))
        .await
        .unwrap();
    registry.set_status("rec", "1", ModelStatus::Deprecated, "eve").await.unwrap();
    registry.set_status("rec", "1", ModelStatus::Deprecated, "eve").await.unwrap();
    let audit = registry.audit("rec", 10).await.unwrap();
    let told: Vec<_> = audit
        .iter()
        .map(|entry| {
            [&entry.action, &entry.subject, &entry.from, &entry.to, &entry.actor]
                .map(String::as_str)
        })
        .collect();
    assert_eq!(
        told,
        [
            ["status", "1", "active", "deprecated", "eve"],
            ["alias", "champion", "1", "2", "ben"],
            ["alias", "champion", "", "1", "ann"],
            ["publish", "2", "", "active", ""],
            ["publish", "1", "", "active", ""],
        ]
    );
    assert!(audit.iter().all(|entry| Duration::from_secs(1_600_000_000) < entry.at));
    assert_eq!(registry.audit("rec", 2).await.unwrap().len(), 2);
    assert!(registry.audit("rec", 0).await.unwrap().is_empty());
}

/// What is not there is an error that names it.
pub async fn what_is_not_there_is_an_error(registry: &dyn ModelRegistry) {
    for error in [
        registry.version("rec", "1").await.unwrap_err(),
        registry.resolve("rec", "champion").await.unwrap_err(),
        registry.set_status("rec", "1", ModelStatus::Active, "").await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::UnknownModel { .. }), "{error:?}");
    }
    assert!(registry.aliases("rec").await.unwrap().is_empty());
}

/// Names are only names, whatever they hold.
pub async fn any_names_are_kept_apart(registry: &dyn ModelRegistry) {
    let names = ["a}:b{", "a", "a:version", "naïve 日本", "*", "a b\n"];
    for model in names {
        for number in names {
            let tagged = version(model, number).with_tag("of", model);
            assert!(registry.publish(&tagged).await.unwrap(), "{model:?} {number:?}");
        }
    }
    for model in names {
        assert_eq!(registry.versions(model).await.unwrap().len(), names.len());
        for number in names {
            let found = registry.version(model, number).await.unwrap();
            assert_eq!(
                (found.version.as_str(), found.tags.get("of").unwrap().as_str()),
                (number, model)
            );
        }
        registry.move_alias(&AliasChange::new(model, model, "*")).await.unwrap();
        assert_eq!(registry.resolve(model, model).await.unwrap().version, "*");
    }
}

/// What makes no sense is refused.
pub async fn bad_versions_are_refused(registry: &dyn ModelRegistry) {
    for bad in [
        ModelVersion::new("", "1", "http://models"),
        ModelVersion::new("rec", " ", "http://models"),
        ModelVersion::new("rec", "1", ""),
        ModelVersion::new("rec", "1".repeat(257), "http://models"),
        version("rec", "1").with_max_batch_size(0),
        version("rec", "1").with_features(["a,b"]),
        version("rec", "1").with_tag("", "x"),
    ] {
        let error = registry.publish(&bad).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. } | Error::InvalidName { .. }), "{error:?}");
    }
    assert!(registry.versions("rec").await.unwrap().is_empty());
}

fn halves() -> Experiment {
    Experiment::new("halves", "control", Target::version("rec", "3"))
        .with_arm("treatment", Target::version("rec", "4"), 5_000)
        .unwrap()
}

/// The arms of `count` users.
fn arms(router: &dyn ModelRouter, experiment: &str, count: u32) -> Vec<String> {
    let route = |user| router.route(experiment, &Subject::new(format!("user-{user}"))).unwrap();
    (0..count).map(|user| route(user).arm.to_string()).collect()
}

/// Before the first load there is no answer, and no default.
pub async fn nothing_is_routed_before_the_first_load(router: &dyn ModelRouter) {
    assert_eq!(router.snapshot().age(), None);
    let error = router.route("halves", &Subject::new("u")).unwrap_err();
    assert!(matches!(error, Error::NotLoaded), "{error:?}");
    router.refresh().await.unwrap();
    assert!(router.snapshot().age().is_some());
    let error = router.route("halves", &Subject::new("u")).unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
}

/// A stored experiment assigns by its shares, always the same.
pub async fn an_experiment_assigns(router: &dyn ModelRouter) {
    assert_eq!(router.put_experiment(&halves()).await.unwrap(), 1);
    router.refresh().await.unwrap();
    let once = arms(router, "halves", 1_000);
    assert_eq!(once, arms(router, "halves", 1_000));
    let treated = once.iter().filter(|arm| *arm == "treatment").count();
    assert!((430..570).contains(&treated), "{treated}");
    let decision = router.route("halves", &Subject::new("user-1")).unwrap();
    assert_eq!((decision.revision, decision.reason), (1, Reason::Split));
    assert_eq!(&*decision.model, "rec");
    let nobody = router.route("halves", &Subject::default()).unwrap();
    assert_eq!((&*nobody.arm, nobody.reason), ("control", Reason::NoUnit));
    let stored = router.experiment("halves").await.unwrap().unwrap();
    assert_eq!((stored.weight("treatment"), stored.revision()), (5_000, 1));
    assert!(router.experiment("other").await.unwrap().is_none());
}

/// Pausing gives everybody the first arm.
pub async fn the_kill_switch_works(router: &dyn ModelRouter) {
    router.put_experiment(&halves()).await.unwrap();
    let stored = router.experiment("halves").await.unwrap().unwrap();
    router.put_experiment(&stored.with_status(Status::Paused)).await.unwrap();
    router.refresh().await.unwrap();
    assert!(arms(router, "halves", 100).iter().all(|arm| arm == "control"));
    let stored = router.experiment("halves").await.unwrap().unwrap();
    let concluded = stored.with_status(Status::Concluded("treatment".to_owned()));
    router.put_experiment(&concluded).await.unwrap();
    router.refresh().await.unwrap();
    assert!(arms(router, "halves", 100).iter().all(|arm| arm == "treatment"));
}

/// A change that was made from an older revision is refused.
pub async fn experiments_are_replaced_by_compare_and_set(router: &dyn ModelRouter) {
    router.put_experiment(&halves()).await.unwrap();
    let error = router.put_experiment(&halves()).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { current, .. } if current == "1"), "{error:?}");
    let mut first = router.experiment("halves").await.unwrap().unwrap();
    let mut second = first.clone();
    first.ramp("treatment", 6_000).unwrap();
    second.ramp("treatment", 7_000).unwrap();
    assert_eq!(router.put_experiment(&first).await.unwrap(), 2);
    let error = router.put_experiment(&second).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { current, .. } if current == "2"), "{error:?}");
    let stored = router.experiment("halves").await.unwrap().unwrap();
    assert_eq!((stored.weight("treatment"), stored.revision()), (6_000, 2));
}

/// Users are not moved from one tested arm to another, unless all are placed anew.
pub async fn changes_that_move_users_are_refused(router: &dyn ModelRouter) {
    let three = halves().with_arm("other", Target::model("m"), 2_000).unwrap();
    router.put_experiment(&three).await.unwrap();
    let stored = router.experiment("halves").await.unwrap().unwrap();
    let mut swapped = stored.clone();
    swapped.ramp("treatment", 3_000).unwrap();
    swapped.ramp("other", 4_000).unwrap();
    let error = router.put_experiment(&swapped).await.unwrap_err();
    assert!(matches!(error, Error::MovesUsers { .. }), "{error:?}");
    let error = router.put_experiment(&stored.clone().with_unit("session")).await.unwrap_err();
    assert!(matches!(error, Error::MovesUsers { .. }), "{error:?}");
    router.put_experiment(&swapped.with_bucket_version(2)).await.unwrap();
}

/// What makes no sense is refused, and nothing is stored.
pub async fn bad_experiments_are_refused(router: &dyn ModelRouter) {
    let plain = || Experiment::new("bad", "control", Target::model("m"));
    for bad in [
        Experiment::new("", "control", Target::model("m")),
        Experiment::new("bad", "", Target::model("m")),
        Experiment::new("bad", "control", Target::model("")),
        plain().with_override("u", "unknown"),
        plain().with_status(Status::Concluded("unknown".to_owned())),
        plain().with_start(2).with_end(2),
        plain().with_exclusion("g", 5, 5),
        plain().with_exclusion("g", 0, 10_001),
        plain().with_targeting(Condition::is("", "x")),
        plain().with_unit(""),
    ] {
        let error = router.put_experiment(&bad).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. } | Error::InvalidName { .. }), "{error:?}");
    }
    assert!(plain().with_arm("control", Target::model("m"), 1).is_err());
    assert!(plain().with_arm("more", Target::model("m"), 10_001).is_err());
    assert!(router.experiment("bad").await.unwrap().is_none());
}

/// What is removed is not routed any more.
pub async fn removed_experiments_are_gone(router: &dyn ModelRouter) {
    router.put_experiment(&halves()).await.unwrap();
    router.put_flag(&Flag::boolean("f")).await.unwrap();
    router.refresh().await.unwrap();
    assert!(router.remove_experiment("halves").await.unwrap());
    assert!(!router.remove_experiment("halves").await.unwrap());
    assert!(router.remove_flag("f").await.unwrap());
    assert!(router.route("halves", &Subject::new("u")).is_ok(), "until it is loaded anew");
    router.refresh().await.unwrap();
    assert!(router.route("halves", &Subject::new("u")).is_err());
    assert!(router.flag("f", &Subject::new("u")).is_err());
    assert_eq!(router.put_experiment(&halves()).await.unwrap(), 1);
}

/// The first rule that holds counts.
pub async fn flags_are_evaluated(router: &dyn ModelRouter) {
    let flag = Flag::boolean("new-ui")
        .with_rule(Condition::is("plan", "free"), Serve::Variant("off".to_owned()))
        .with_rule(
            Condition::Exists("plan".to_owned()),
            Serve::Split(vec![("on".to_owned(), 1), ("off".to_owned(), 1)]),
        )
        .with_otherwise(Serve::Variant("on".to_owned()));
    assert_eq!(router.put_flag(&flag).await.unwrap(), 1);
    let error = router.put_flag(&flag).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    router.refresh().await.unwrap();
    let ask = |subject: &Subject| router.flag("new-ui", subject).unwrap();
    let free = ask(&Subject::new("u").with("plan", "free"));
    assert_eq!((free.value, free.reason), (false.into(), Reason::Targeted));
    let none = ask(&Subject::new("u"));
    assert_eq!((none.value, none.reason, none.revision), (true.into(), Reason::Default, 1));
    let on = (0..1_000)
        .filter(|user| ask(&Subject::new(format!("u{user}")).with("plan", "pro")).value == true)
        .count();
    assert!((430..570).contains(&on), "{on}");
    let stored = router.snapshot().flags().next().unwrap().clone();
    assert_eq!(router.put_flag(&stored.with_enabled(false)).await.unwrap(), 2);
    router.refresh().await.unwrap();
    assert_eq!(ask(&Subject::new("u")).reason, Reason::Paused);
    for bad in [
        Flag::boolean(""),
        Flag::boolean("b").with_otherwise(Serve::Variant("unknown".to_owned())),
        Flag::boolean("b").with_otherwise(Serve::Split(vec![("on".to_owned(), 0)])),
        Flag::boolean("b").with_otherwise(Serve::Split(vec![("on".to_owned(), u32::MAX)])),
    ] {
        assert!(router.put_flag(&bad).await.is_err(), "{bad:?}");
    }
}

/// A unit keeps its first arm while it takes part.
pub async fn sticky_units_stay_where_they_were(router: &dyn ModelRouter) {
    const DAY: Duration = Duration::from_secs(86_400);
    let targeted = halves().with_targeting(Condition::is("plan", "pro"));
    router.put_experiment(&targeted).await.unwrap();
    router.refresh().await.unwrap();
    let subject = |user: u32| Subject::new(format!("user-{user}")).with("plan", "pro");
    let mut first = Vec::new();
    for user in 0..50 {
        let decision = router.route_sticky("halves", &subject(user), DAY).await.unwrap();
        assert_eq!(decision.reason, Reason::Split);
        first.push(decision.arm);
    }
    let mut stored = router.experiment("halves").await.unwrap().unwrap();
    stored.ramp("treatment", 0).unwrap();
    router.put_experiment(&stored).await.unwrap();
    router.refresh().await.unwrap();
    for (user, arm) in (0..50).zip(first) {
        let decision = router.route_sticky("halves", &subject(user), DAY).await.unwrap();
        assert_eq!(decision.arm, arm);
        let reason = if &*arm == "treatment" { Reason::Sticky } else { Reason::Split };
        assert_eq!(decision.reason, reason);
        let now = Subject::new(format!("user-{user}")).with("plan", "free");
        let decision = router.route_sticky("halves", &now, DAY).await.unwrap();
        assert_eq!((&*decision.arm, decision.reason), ("control", Reason::NotTargeted));
    }
}

/// Names are only names, whatever they hold.
pub async fn any_experiment_names_are_kept_apart(router: &dyn ModelRouter) {
    let names = ["a", "a:b", "flag:a", "naïve 日本", "{x}", "*"];
    for name in names {
        let experiment = Experiment::new(name, name, Target::model(name));
        router.put_experiment(&experiment).await.unwrap();
        router.put_flag(&Flag::new(name, "only", name)).await.unwrap();
    }
    router.refresh().await.unwrap();
    assert_eq!(router.snapshot().experiments().count(), names.len());
    for name in names {
        assert_eq!(&*router.route(name, &Subject::new("u")).unwrap().model, name);
        assert_eq!(router.flag(name, &Subject::new("u")).unwrap().value, name);
    }
}

fn question() -> Question {
    Question::new("u1", "home").unwrap().or_popular("books", 3).unwrap()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

const MINUTE: Ttl = Ttl::new(Duration::from_secs(60), Duration::from_secs(60));

/// Fresh for a moment, stale for a minute.
const BRIEF: Ttl = Ttl::new(Duration::from_millis(20), Duration::from_secs(60));

/// Nothing is made up.
pub async fn an_empty_cache_has_nothing(cache: &dyn ResultCache) {
    let tiers = cache.read(&question().with_preferences()).await.unwrap();
    assert_eq!(tiers, crate::Tiers::default());
    assert_eq!(tiers.best(), None);
    assert!(!cache.remove(&question().place()).await.unwrap());
}

/// All tiers come with one read.
pub async fn tiers_are_read_together(cache: &dyn ResultCache) {
    let user = "u1";
    cache.put(&question().place(), Some(&bytes("exact")), MINUTE).await.unwrap();
    cache.put(&Place::Precomputed { user }, Some(&bytes("before")), MINUTE).await.unwrap();
    cache.put(&Place::Preferences { user }, Some(&bytes("likes")), MINUTE).await.unwrap();
    let items = [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)];
    let items = items.map(|(item, score)| (item.to_owned(), score));
    cache.put_popular("books", &items, Duration::from_secs(60)).await.unwrap();
    let tiers = cache.read(&question()).await.unwrap();
    let kept = |text| Some(Kept { result: Some(bytes(text)), is_stale: false });
    assert_eq!((&tiers.exact, &tiers.precomputed), (&kept("exact"), &kept("before")));
    assert_eq!(
        (&tiers.preferences, &tiers.popular[..]),
        (&None, &["d", "c", "b"].map(String::from)[..])
    );
    let tiers = cache.read(&question().with_preferences()).await.unwrap();
    assert_eq!(tiers.preferences, kept("likes"));
    assert!(cache.remove(&question().place()).await.unwrap());
    assert_eq!(cache.read(&question()).await.unwrap().exact, None);
}

/// The fallback order.
pub async fn fresh_comes_before_stale_before_popular(cache: &dyn ResultCache) {
    let best = async || cache.read(&question()).await.unwrap().best().unwrap();
    let found = |tier, text, is_stale| Found::Result { tier, result: bytes(text), is_stale };
    let items = [("top".to_owned(), 1.0)];
    cache.put_popular("books", &items, Duration::from_secs(60)).await.unwrap();
    assert_eq!(best().await, Found::Popular(vec!["top".to_owned()]));
    cache.put(&question().place(), Some(&bytes("exact")), BRIEF).await.unwrap();
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(best().await, found(Tier::Exact, "exact", true));
    let before = Place::Precomputed { user: "u1" };
    cache.put(&before, Some(&bytes("before")), MINUTE).await.unwrap();
    assert_eq!(best().await, found(Tier::Precomputed, "before", false));
    cache.put(&question().place(), Some(&bytes("new")), MINUTE).await.unwrap();
    assert_eq!(best().await, found(Tier::Exact, "new", false));
}

/// That there is no result is known, and is no empty result.
pub async fn that_there_is_nothing_is_kept(cache: &dyn ResultCache) {
    cache.put(&question().place(), None, MINUTE).await.unwrap();
    let tiers = cache.read(&question()).await.unwrap();
    assert_eq!(tiers.exact, Some(Kept { result: None, is_stale: false }));
    assert_eq!(tiers.best(), Some(Found::Nothing));
    cache.put(&question().place(), Some(&Bytes::new()), MINUTE).await.unwrap();
    let kept = cache.read(&question()).await.unwrap().exact.unwrap();
    assert_eq!(kept.result, Some(Bytes::new()));
}

/// What is neither fresh nor stale is gone.
pub async fn results_end(cache: &dyn ResultCache) {
    let brief = Ttl::new(Duration::from_millis(20), Duration::ZERO);
    cache.put(&question().place(), Some(&bytes("x")), brief).await.unwrap();
    cache.put_popular("books", &[("a".to_owned(), 1.0)], Duration::from_millis(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(cache.read(&question()).await.unwrap(), crate::Tiers::default());
}

/// Popular items are replaced as a whole.
pub async fn popular_items_are_replaced(cache: &dyn ResultCache) {
    let put = async |items: &[(&str, f64)]| {
        let items: Vec<_> =
            items.iter().map(|(item, score)| ((*item).to_owned(), *score)).collect();
        cache.put_popular("books", &items, Duration::from_secs(60)).await
    };
    put(&[("old", 9.0), ("both", 1.0)]).await.unwrap();
    put(&[("both", 5.0), ("new", 7.0)]).await.unwrap();
    assert_eq!(cache.read(&question()).await.unwrap().popular, ["new", "both"]);
    assert!(put(&[("bad", f64::NAN)]).await.is_err());
    assert_eq!(cache.read(&question()).await.unwrap().popular, ["new", "both"]);
    put(&[]).await.unwrap();
    assert!(cache.read(&question()).await.unwrap().popular.is_empty());
}

/// Names are only names, whatever they hold.
pub async fn users_and_contexts_are_kept_apart(cache: &dyn ResultCache) {
    let names = ["popular", "a", "a:context", "a}:b{", "*", "日本 🙂"];
    for user in names {
        for context in names {
            let place = Place::Exact { user, context };
            let text = Bytes::from(format!("{user}/{context}"));
            cache.put(&place, Some(&text), MINUTE).await.unwrap();
        }
    }
    for user in names {
        for context in names {
            let question = Question::new(user, context).unwrap();
            let kept = cache.read(&question).await.unwrap().exact.unwrap();
            assert_eq!(kept.result.unwrap(), format!("{user}/{context}"));
        }
    }
    assert!(Question::new("", "x").is_err() && Question::new("x", " ").is_err());
}

/// A result that never ends, or never begins, is refused.
pub async fn bad_times_are_refused(cache: &dyn ResultCache) {
    for ttl in [
        Ttl::new(Duration::ZERO, Duration::from_secs(1)),
        Ttl::new(Duration::MAX, Duration::ZERO),
        Ttl::new(Duration::from_secs(1), Duration::MAX),
    ] {
        let error = cache.put(&question().place(), Some(&bytes("x")), ttl).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
    assert_eq!(cache.read(&question()).await.unwrap().exact, None);
}
