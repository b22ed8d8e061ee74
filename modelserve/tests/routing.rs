//! Who gets which arm: shares, ramp-ups, independence, and every reason.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::ManualClock;
use inferkit_modelserve::bucketing::{Bucketing, growthbook, unleash};
use inferkit_modelserve::{
    Condition, Decision, Experiment, MemoryModelRouter, ModelRouter, ModelRouterExt as _, Reason,
    Subject, TOTAL, Target,
};
use proptest::prelude::*;

const ALL: [Bucketing; 5] = [
    Bucketing::Eppo,
    Bucketing::Flagd2,
    Bucketing::GrowthBook2,
    Bucketing::LaunchDarkly,
    Bucketing::Unleash,
];

fn experiment(name: &str, weight: u32) -> Experiment {
    Experiment::new(name, "control", Target::model("a"))
        .with_arm("treatment", Target::model("b"), weight)
        .unwrap()
}

async fn over(experiments: &[Experiment]) -> MemoryModelRouter {
    let router = MemoryModelRouter::new();
    for experiment in experiments {
        router.put_experiment(experiment).await.unwrap();
    }
    router.refresh().await.unwrap();
    router
}

fn user(number: u32) -> Subject {
    Subject::new(format!("user-{number}"))
}

fn in_treatment(router: &MemoryModelRouter, name: &str, users: u32) -> Vec<bool> {
    (0..users).map(|n| &*router.route(name, &user(n)).unwrap().arm == "treatment").collect()
}

#[tokio::test]
async fn shares_are_kept_to_three_deviations() {
    const USERS: u32 = 100_000;
    for bucketing in ALL {
        for weight in [100, 5_000] {
            let name = format!("share-{weight}");
            let router = over(&[experiment(&name, weight).with_bucketing(bucketing)]).await;
            let found = in_treatment(&router, &name, USERS).into_iter().filter(|t| *t).count();
            let share = f64::from(weight) / f64::from(TOTAL);
            let expected = f64::from(USERS) * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            let off = (f64::from(u32::try_from(found).unwrap()) - expected).abs() / deviation;
            assert!(off < 3.0, "{bucketing:?} {weight}: {found}, {off:.1} deviations off");
        }
    }
}

#[tokio::test]
async fn arms_of_experiments_do_not_depend_on_each_other() {
    const USERS: u32 = 20_000;
    for bucketing in ALL {
        let names: Vec<String> = (0..4).map(|number| format!("experiment-{number}")).collect();
        let all: Vec<_> =
            names.iter().map(|name| experiment(name, 5_000).with_bucketing(bucketing)).collect();
        let router = over(&all).await;
        let arms: Vec<_> = names.iter().map(|name| in_treatment(&router, name, USERS)).collect();
        for (place, one) in arms.iter().enumerate() {
            for other in arms.iter().skip(place + 1) {
                let same = one.iter().zip(other).filter(|(a, b)| a == b).count();
                let phi = 2.0 * f64::from(u32::try_from(same).unwrap()) / f64::from(USERS) - 1.0;
                // Six pairs of five formulas; the users are the same in every run.
                assert!(phi.abs() < 3.0 / f64::from(USERS).sqrt(), "{bucketing:?}: {phi}");
            }
        }
    }
}

#[tokio::test]
async fn who_takes_part_and_which_arm_do_not_depend_on_each_other() {
    for bucketing in ALL {
        let arms = ["b", "c", "d"];
        let mut canary = Experiment::new("quarters", "a", Target::model("a"))
            .with_eligible(1_000)
            .with_bucketing(bucketing);
        for arm in arms {
            canary = canary.with_arm(arm, Target::model(arm), 2_500).unwrap();
        }
        let router = over(&[canary]).await;
        let decisions: Vec<Decision> =
            (0..100_000).map(|n| router.route("quarters", &user(n)).unwrap()).collect();
        let assigned: Vec<_> = decisions.iter().filter(|found| found.is_assigned()).collect();
        assert!((9_600..10_400).contains(&assigned.len()), "{bucketing:?} {}", assigned.len());
        for arm in ["a", "b", "c", "d"] {
            let share = assigned.iter().filter(|found| &*found.arm == arm).count();
            assert!((2_350..2_650).contains(&share), "{bucketing:?} {arm}: {share}");
        }
    }
}

proptest! {
    #[test]
    fn a_ramp_up_moves_nobody_who_was_in(mut weights in prop::collection::vec(0..=TOTAL, 1..6), eligible in 1..=TOTAL) {
        weights.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut current = experiment("ramp", 0).with_eligible(eligible);
            let mut before = vec![false; 2_000];
            for weight in weights {
                current.ramp("treatment", weight).unwrap();
                let router = over(std::slice::from_ref(&current)).await;
                let now = in_treatment(&router, "ramp", 2_000);
                assert!(before.iter().zip(&now).all(|(before, now)| *now || !*before));
                before = now;
            }
        });
    }

    #[test]
    fn any_sequence_of_ramps_keeps_every_place_in_one_arm(steps in prop::collection::vec((0..3_usize, 0..=TOTAL), 0..20)) {
        let mut experiment = Experiment::new("e", "first", Target::model("m"));
        for arm in ["a", "b", "c"] {
            experiment = experiment.with_arm(arm, Target::model("m"), 0).unwrap();
        }
        for (arm, weight) in steps {
            let arm = ["a", "b", "c"][arm];
            let before = experiment.weight(arm);
            let done = experiment.ramp(arm, weight).is_ok();
            assert_eq!(experiment.weight(arm), if done { weight } else { before });
            let sum: u32 = experiment.arms().iter().map(|arm| experiment.weight(&arm.name)).sum();
            assert_eq!(sum, TOTAL);
        }
    }
}

#[tokio::test]
async fn exclusion_groups_never_share_a_unit() {
    let one = experiment("one", 5_000).with_exclusion("search", 0, 4_000);
    let two = experiment("two", 5_000).with_exclusion("search", 4_000, 10_000);
    let router = over(&[one, two]).await;
    let (mut first, mut second) = (0, 0);
    for n in 0..10_000 {
        let [one, two] = ["one", "two"].map(|name| router.route(name, &user(n)).unwrap());
        assert!(one.is_assigned() != two.is_assigned());
        for decision in [&one, &two] {
            assert!(decision.is_assigned() || decision.reason == Reason::Excluded);
        }
        first += u32::from(one.is_assigned());
        second += u32::from(two.is_assigned());
    }
    assert!((3_850..4_150).contains(&first), "{first}");
    assert_eq!(first + second, 10_000);
}

#[tokio::test]
async fn every_decision_says_why() {
    let clock = Arc::new(ManualClock::new(Duration::from_secs(1_000)));
    let router = MemoryModelRouter::with_clock(Arc::<ManualClock>::clone(&clock));
    let timed = experiment("timed", 5_000)
        .with_start(2_000)
        .with_end(3_000)
        .with_targeting(Condition::is("plan", "pro"))
        .with_override("tester", "treatment");
    router.put_experiment(&timed).await.unwrap();
    let pro = Subject::new("u").with("plan", "pro");
    let at = async |seconds: u64, subject: &Subject| {
        let now = inferkit_core::Clock::now(&*clock);
        clock.advance(Duration::from_secs(seconds).saturating_sub(now));
        router.refresh().await.unwrap();
        let decision = router.route("timed", subject).unwrap();
        (decision.arm.to_string(), decision.reason)
    };
    let control = |reason| ("control".to_owned(), reason);
    assert_eq!(at(1_000, &pro).await, control(Reason::NotStarted));
    assert_eq!(
        at(1_000, &Subject::new("tester")).await,
        ("treatment".to_owned(), Reason::Override)
    );
    assert_eq!(at(2_000, &Subject::new("u")).await, control(Reason::NotTargeted));
    assert_eq!(at(2_000, &Subject::default()).await, control(Reason::NoUnit));
    assert_eq!(at(2_000, &Subject::default().with("id", 7)).await, control(Reason::NoUnit));
    assert_eq!(at(2_000, &pro).await.1, Reason::Split);
    assert_eq!(at(3_000, &pro).await, control(Reason::Ended));
}

#[tokio::test]
async fn an_experiment_of_another_system_gives_the_same_arms() {
    // A GrowthBook experiment with two variations and equal weights, whose seed is its key.
    let mirrored = experiment("mirrored", 5_000)
        .with_bucketing(Bucketing::GrowthBook2)
        .with_salts("", "growth-key");
    // An Unleash flag with a rollout to 30 % and two variants of equal weight in the group `gr`.
    let rollout = experiment("rollout", 5_000)
        .with_bucketing(Bucketing::Unleash)
        .with_salts("gr", "gr")
        .with_eligible(3_000);
    let router = over(&[mirrored, rollout]).await;
    let ranges = growthbook::bucket_ranges(2, 1.0, None);
    for n in 0..2_000 {
        let id = format!("user-{n}");
        let place = growthbook::hash("growth-key", &id, 2).unwrap();
        let variation = growthbook::choose_variation(place, &ranges).unwrap();
        let decision = router.route("mirrored", &Subject::new(&*id)).unwrap();
        assert_eq!(&*decision.arm, ["control", "treatment"][variation]);
        let in_rollout = unleash::normalized("gr", &id, TOTAL, unleash::ROLLOUT_SEED) <= 3_000;
        let decision = router.route("rollout", &Subject::new(&*id)).unwrap();
        assert_eq!(decision.is_assigned(), in_rollout);
    }
}

#[tokio::test]
async fn places_are_golden() {
    // Whoever changes a formula or a salt moves every user of every running experiment.
    let router = over(&[experiment("golden", 5_000).with_eligible(8_000)]).await;
    let told: String = (0..24)
        .map(|n| {
            let decision =
                router.route("golden", &Subject::new(format!("naïve 日本 {n}"))).unwrap();
            match (&*decision.arm, decision.reason) {
                ("treatment", _) => 'T',
                (_, Reason::Split) => 'c',
                _ => '-',
            }
        })
        .collect();
    assert_eq!(told, "TTcTTcTTTc-TTTc-TTTTTcTT");
}
