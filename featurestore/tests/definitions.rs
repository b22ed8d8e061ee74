//! What makes no group is refused, and says what to do.

use std::time::Duration;

use inferkit_featurestore::{DataType, Error, FeatureGroup, GroupBuilder, MAX_FEATURES};

#[test]
fn definitions_that_make_no_sense_are_refused() {
    let good = || FeatureGroup::builder("user", "g").feature("a", DataType::F32);
    let bare =
        |entity: &str, name: &str| FeatureGroup::builder(entity, name).feature("a", DataType::F32);
    let many = |count: usize| {
        FeatureGroup::builder("user", "g")
            .features((0..count).map(|n| format!("f{n}")), DataType::Bool)
    };
    let bad: [(GroupBuilder, &str); 15] = [
        (FeatureGroup::builder("user", "g"), "1 to 4096 features"),
        (many(MAX_FEATURES + 1), "1 to 4096 features"),
        (bare("user", ""), "letters, digits"),
        (bare("user", "a:b"), "letters, digits"),
        (bare("user", "a@2"), "letters, digits"),
        (bare("us*r", "g"), "letters, digits"),
        (bare("schema", "g"), "schema"),
        (good().feature("a", DataType::F32), "there twice"),
        (good().feature("", DataType::F32), "feature name"),
        (good().feature("_time", DataType::F32), "no _ in front"),
        (good().feature("a\nb", DataType::F32), "no control characters"),
        (good().feature("v", DataType::Vector(0)), "vector of 0"),
        (good().keyed_by((0..17).map(|n| n.to_string())), "up to 16 keys"),
        (good().ttl(Duration::ZERO), "ttl"),
        (good().fresh_for(Duration::MAX), "freshness"),
    ];
    for (builder, says) in bad {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says}");
    }
    assert_eq!(many(MAX_FEATURES).build().unwrap().features().len(), MAX_FEATURES);
    assert_eq!(many(500).build().unwrap().features().len(), 500);
}
