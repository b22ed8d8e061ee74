//! The formulas of other systems, by the cases that they publish.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;

use inferkit_modelserve::bucketing::{
    Bucketing, Stage, eppo, flagd, growthbook, launchdarkly, unleash,
};
use serde_json::Value;

/// GrowthBook's own cases, where the data sets are; the few below hold everywhere.
fn growthbook_cases() -> Option<Value> {
    let folder = PathBuf::from(std::env::var_os("INFERKIT_SHARED_DATA")?);
    let file = folder.join("modelserve/growthbook/packages/sdk-js/test/cases.json");
    Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
}

fn ranges(value: &Value) -> Vec<(f64, f64)> {
    let bound = |range: &Value, place: usize| range[place].as_f64().unwrap();
    value.as_array().unwrap().iter().map(|range| (bound(range, 0), bound(range, 1))).collect()
}

#[test]
fn growthbook_s_cases_pass() {
    let Some(cases) = growthbook_cases() else { return };
    let all = |name: &str| cases[name].as_array().unwrap().clone();
    let (mut checked, text) = (0, |value: &Value| value.as_str().unwrap().to_owned());
    for case in all("hash") {
        let version = u32::try_from(case[2].as_u64().unwrap()).unwrap();
        let found = growthbook::hash(&text(&case[0]), &text(&case[1]), version);
        assert_eq!(found, case[3].as_f64(), "{case}");
        checked += 1;
    }
    for case in all("getBucketRange") {
        let input = &case[1];
        let weights = input[2].as_array().map(|weights| {
            weights.iter().map(|weight| weight.as_f64().unwrap()).collect::<Vec<_>>()
        });
        let count = usize::try_from(input[0].as_u64().unwrap()).unwrap();
        let found =
            growthbook::bucket_ranges(count, input[1].as_f64().unwrap(), weights.as_deref());
        let expected = ranges(&case[2]);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9,
                "{case}"
            );
        }
        checked += 1;
    }
    for case in all("chooseVariation") {
        let found = growthbook::choose_variation(case[1].as_f64().unwrap(), &ranges(&case[2]));
        let found = found.map_or(-1, |place| i64::try_from(place).unwrap());
        assert_eq!(found, case[3].as_i64().unwrap(), "{case}");
        checked += 1;
    }
    for case in all("inNamespace") {
        let (user, namespace) = (text(&case[1]), &case[2]);
        let bound = |place: usize| namespace[place].as_f64().unwrap();
        let found = growthbook::in_namespace(&user, &text(&namespace[0]), bound(1), bound(2));
        assert_eq!(found, case[3].as_bool().unwrap(), "{case}");
        checked += 1;
    }
    for case in all("getEqualWeights") {
        let found =
            growthbook::equal_weights(usize::try_from(case[0].as_i64().unwrap()).unwrap_or(0));
        let expected = case[1].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-8, "{case}");
        }
        checked += 1;
    }
    assert_eq!(checked, 15 + 13 + 13 + 16 + 6);
}

#[test]
fn known_places() {
    assert_eq!(growthbook::hash("", "a", 1), Some(0.22));
    assert_eq!(growthbook::hash("seed", "a", 2), Some(0.0505));
    assert_eq!(growthbook::hash("abc", "def", 99), None);
    // Unleash's client specification: 73 of 100 for the group gr1, 25 for the group groupX.
    assert_eq!(unleash::normalized("gr1", "123", 100, unleash::ROLLOUT_SEED), 73);
    assert_eq!(unleash::normalized("groupX", "999", 100, unleash::ROLLOUT_SEED), 25);
    // LaunchDarkly's SDKs: the key hashKey with the salt saltyA, and the seed 61.
    for (unit, expected) in
        [("userKeyA", 0.421_575_9_f32), ("userKeyB", 0.670_848_5), ("userKeyC", 0.103_431_06)]
    {
        assert!((launchdarkly::bucket("hashKey", "saltyA", unit) - expected).abs() < 1e-6);
    }
    assert!((launchdarkly::seeded_bucket(61, "userKeyA") - 0.098_012_07).abs() < 1e-6);
}

#[test]
fn places_lie_below_the_total_whatever_the_texts() {
    let all = [
        Bucketing::Eppo,
        Bucketing::Flagd2,
        Bucketing::GrowthBook2,
        Bucketing::LaunchDarkly,
        Bucketing::Unleash,
    ];
    for bucketing in all {
        for total in [0, 1, 2, 100, 10_000, i32::MAX.cast_unsigned(), u32::MAX] {
            for unit in ["", "user", "naïve 日本 🙂", &"x".repeat(1_000)] {
                for stage in [Stage::Arm, Stage::Eligibility] {
                    let place = bucketing.place(stage, "salt", unit, total);
                    assert!(place < total.max(1), "{bucketing:?} {total} {unit:?}");
                    assert_eq!(place, bucketing.place(stage, "salt", unit, total));
                }
            }
        }
    }
}

#[test]
fn formulas_are_their_own() {
    assert_eq!(eppo::shard("salt", "subject", 0), 0);
    assert_eq!(flagd::bucket("flag", "user", 0), 0);
    assert_eq!(Bucketing::Eppo.place(Stage::Arm, "s", "u", 10_000), eppo::shard("s", "u", 10_000));
    assert_eq!(Bucketing::Flagd2.place(Stage::Arm, "s", "u", 77), flagd::bucket("s", "u", 77));
}
