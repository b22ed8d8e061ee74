//! Rows of structs, and structs of records.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferkit_featurestore::{
    DataType, Entity, Error, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, Layout,
    MemoryFeatureStore, Row, Value,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Profile {
    age: f32,
    purchases: i32,
    balance: f64,
    vip: bool,
    country: String,
    taste: Vec<f32>,
    seen: i64,
    referrer: Option<String>,
}

fn profile() -> Profile {
    Profile {
        age: 31.5,
        purchases: -4,
        balance: 1e300,
        vip: true,
        country: "ÅL".to_owned(),
        taste: vec![0.25, -1.0],
        seen: 1_700_000_000_123_456,
        referrer: None,
    }
}

#[tokio::test]
async fn structs_come_back_as_they_were() {
    let store = MemoryFeatureStore::new();
    for (name, layout) in [("p", Layout::Packed), ("h", Layout::Hash)] {
        let group = FeatureGroup::builder("user", name)
            .layout(layout)
            .feature("referrer", DataType::Str)
            .feature("seen", DataType::Time)
            .feature("taste", DataType::Vector(2))
            .feature("country", DataType::Str)
            .feature("vip", DataType::Bool)
            .feature("balance", DataType::F64)
            .feature("purchases", DataType::I32)
            .feature("age", DataType::F32);
        let group = store.register(&group.build().unwrap()).await.unwrap();
        let row = Row::of(&group, "u", SystemTime::now(), &profile()).unwrap();
        store.write(&group, &[row]).await.unwrap();
        let record = store.record(&group, &Entity::new("u")).await.unwrap().unwrap();
        assert_eq!(record.to::<Profile>().unwrap(), profile());
        assert_eq!(record.get("referrer"), Some(&Value::Null));
        let seen = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(record.get("seen"), Some(&Value::Time(seen)));
    }
}

#[tokio::test]
async fn what_does_not_fit_is_told() {
    let store = MemoryFeatureStore::new();
    let group = FeatureGroup::builder("user", "g").feature("age", DataType::F32);
    let group = store.register(&group.build().unwrap()).await.unwrap();
    let now = SystemTime::now();
    assert!(matches!(Row::of(&group, "u", now, &profile()), Err(Error::UnknownFeature { .. })));
    for bad in [Row::of(&group, "u", now, &7), Row::of(&group, "u", now, "text")] {
        assert!(matches!(bad, Err(Error::Invalid { .. })));
    }
    let nested = BTreeMap::from([("age", BTreeMap::from([("years", 3)]))]);
    assert!(matches!(Row::of(&group, "u", now, &nested), Err(Error::Invalid { .. })));
    let row = Row::of(&group, "u", now, &BTreeMap::from([("age", f32::NAN)])).unwrap();
    store.write(&group, &[row]).await.unwrap();
    let record = store.record(&group, &Entity::new("u")).await.unwrap().unwrap();
    assert!(record.to::<BTreeMap<String, f32>>().unwrap().values().all(|age| age.is_nan()));
    assert!(matches!(record.to::<Profile>(), Err(Error::Invalid { .. })));
}
