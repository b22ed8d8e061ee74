//! Rollouts: stages, guards, promotion, rollback, and several controllers at once.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::DynDriver;
use inferkit_localredis::Flavor;
use inferkit_modelserve::{
    AliasChange, Decision, Experiment, Guard, ModelRegistry, ModelRouter, ModelRouterExt as _,
    ModelVersion, OutcomeRecorder, Outcomes, RedisModelRegistry, RedisModelRouter, RedisOutcomes,
    Rollout, Status, Step, Subject, Target, Verdict,
};

const NAME: &str = "rec-canary";
const STAGES: [u32; 3] = [1_000, 5_000, 10_000];

struct Scene {
    registry: Arc<RedisModelRegistry>,
    router: Arc<RedisModelRouter>,
    outcomes: Arc<dyn Outcomes>,
}

impl Scene {
    async fn new() -> Self {
        Self::over(support::shared(Flavor::Plain).await).await
    }

    async fn over(driver: DynDriver) -> Self {
        let namespace = support::namespace();
        let registry = RedisModelRegistry::new(Arc::clone(&driver), namespace.clone());
        for version in ["3", "4"] {
            let endpoint = format!("http://models/{version}");
            registry.publish(&ModelVersion::new("rec", version, endpoint)).await.unwrap();
        }
        registry.move_alias(&AliasChange::new("rec", "champion", "3")).await.unwrap();
        let router = RedisModelRouter::new(Arc::clone(&driver), namespace.clone());
        let canary = Experiment::new(NAME, "control", Target::alias("rec", "champion"))
            .with_arm("canary", Target::version("rec", "4"), 0)
            .unwrap();
        router.put_experiment(&canary).await.unwrap();
        router.refresh().await.unwrap();
        Self {
            registry: Arc::new(registry),
            router: Arc::new(router),
            outcomes: Arc::new(RedisOutcomes::new(driver, namespace)),
        }
    }

    fn controller(&self) -> Rollout {
        let guard = Guard::default().with_min_calls(100).with_min_time(Duration::ZERO);
        let router: Arc<dyn ModelRouter> = Arc::<RedisModelRouter>::clone(&self.router);
        let registry: Arc<dyn ModelRegistry> = Arc::<RedisModelRegistry>::clone(&self.registry);
        Rollout::new(router, Arc::clone(&self.outcomes), NAME, "canary", &STAGES)
            .unwrap()
            .with_guard(guard)
            .with_promotion(registry)
    }

    /// Routes users, and records what came of it.
    async fn serve(&self, users: u32, outcome: impl Fn(&Decision, u32) -> (bool, Duration)) {
        self.router.refresh().await.unwrap();
        let recorder = OutcomeRecorder::new(Arc::clone(&self.outcomes));
        for user in 0..users {
            let decision = self.router.route(NAME, &Subject::new(format!("user-{user}"))).unwrap();
            let (success, latency) = outcome(&decision, user);
            recorder.record(&decision, success, latency);
        }
        recorder.flush().await.unwrap();
    }

    async fn experiment(&self) -> Experiment {
        self.router.experiment(NAME).await.unwrap().unwrap()
    }
}

fn good(_: &Decision, user: u32) -> (bool, Duration) {
    (!user.is_multiple_of(100), Duration::from_millis(40))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_canary_goes_through_the_stages_and_is_promoted() {
    let scene = Scene::new().await;
    let controller = scene.controller();
    for stage in STAGES {
        assert_eq!(controller.step().await.unwrap(), Step::Advanced { to: stage });
        assert_eq!(scene.experiment().await.weight("canary"), stage);
        assert_eq!(controller.step().await.unwrap(), Step::Holding(Verdict::TooEarly));
        scene.serve(3_000, good).await;
    }
    assert_eq!(controller.step().await.unwrap(), Step::Promoted);
    assert_eq!(*scene.experiment().await.status(), Status::Concluded("canary".to_owned()));
    assert_eq!(scene.registry.resolve("rec", "champion").await.unwrap().version, "4");
    assert_eq!(controller.step().await.unwrap(), Step::Done);
    // Who moves the alias afterwards meant it: no later step moves it back.
    let back = AliasChange::new("rec", "champion", "3").from_version("4").by("ann");
    scene.registry.move_alias(&back).await.unwrap();
    assert_eq!(controller.step().await.unwrap(), Step::Done);
    assert_eq!(scene.registry.resolve("rec", "champion").await.unwrap().version, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_or_is_slow_is_taken_back() {
    let fails = |decision: &Decision, user: u32| {
        (&*decision.arm != "canary" || !user.is_multiple_of(3), Duration::from_millis(40))
    };
    let slow = |decision: &Decision, _: u32| {
        (true, Duration::from_millis(if &*decision.arm == "canary" { 200 } else { 40 }))
    };
    for (verdict, bad) in [
        (Verdict::TooManyErrors, &fails as &(dyn Fn(&Decision, u32) -> (bool, Duration) + Sync)),
        (Verdict::TooSlow, &slow),
    ] {
        let scene = Scene::new().await;
        let controller = scene.controller();
        controller.step().await.unwrap();
        scene.serve(3_000, bad).await;
        assert_eq!(controller.step().await.unwrap(), Step::RolledBack(verdict));
        assert_eq!(*scene.experiment().await.status(), Status::Paused);
        scene.router.refresh().await.unwrap();
        let decision = scene.router.route(NAME, &Subject::new("anybody")).unwrap();
        assert_eq!(&*decision.arm, "control");
        assert_eq!(controller.run(Duration::from_millis(10)).await.unwrap(), Step::Done);
        assert_eq!(scene.registry.resolve("rec", "champion").await.unwrap().version, "3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_take_every_step_once() {
    for _ in 0..5 {
        let scene = Arc::new(Scene::new().await);
        let mut advanced = 0;
        for round in 0..=STAGES.len() {
            let steps: Vec<_> = (0..4)
                .map(|_| {
                    let controller = scene.controller();
                    tokio::spawn(async move { controller.step().await.unwrap() })
                })
                .collect();
            let mut taken = 0;
            for step in steps {
                let step = step.await.unwrap();
                taken += u32::from(matches!(step, Step::Advanced { .. } | Step::Promoted));
            }
            assert_eq!(taken, 1, "round {round}");
            advanced += taken;
            scene.serve(3_000, good).await;
        }
        assert_eq!(advanced, 4);
        let audit = scene.registry.audit("rec", 100).await.unwrap();
        let moves = audit.iter().filter(|entry| entry.action == "alias").count();
        assert_eq!(moves, 2, "the first one, and the promotion");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_counted_together_and_by_revision() {
    let scene = Scene::new().await;
    scene.controller().step().await.unwrap();
    scene.serve(1_000, good).await;
    scene.serve(1_000, good).await;
    let revision = scene.experiment().await.revision();
    let counted = scene.outcomes.read(NAME, revision).await.unwrap();
    let calls: u64 = counted.arms.values().map(inferkit_modelserve::Tally::calls).sum();
    let failed: u64 = counted.arms.values().map(|tally| tally.failed).sum();
    assert_eq!((calls, failed), (2_000, 20));
    let p50 = counted.arms["canary"].quantile(0.5).unwrap();
    assert!((Duration::from_millis(40)..Duration::from_millis(51)).contains(&p50), "{p50:?}");
    assert!(scene.outcomes.read(NAME, revision + 1).await.unwrap().arms.is_empty());
}

#[tokio::test]
async fn stages_must_grow() {
    let scene = Scene::new().await;
    for stages in [&[0, 5][..], &[5, 5], &[6, 5], &[10_001], &[]] {
        let router: Arc<dyn ModelRouter> = Arc::<RedisModelRouter>::clone(&scene.router);
        let rollout = Rollout::new(router, Arc::clone(&scene.outcomes), NAME, "canary", stages);
        assert!(rollout.is_err(), "{stages:?}");
    }
}
