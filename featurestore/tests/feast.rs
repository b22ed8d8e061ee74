//! Feast's layout: byte for byte what Feast 0.67 writes, and the same behaviour as the other layouts.
#![cfg(feature = "feast")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_featurestore::feast::{FeastStore, FeastValue};
use inferkit_featurestore::{
    Column, DataType, Entity, EntityKey, Error, FeatureGroup, FeatureStore, FeatureStoreExt as _,
    Group, ModelInput, Row, Status, Value,
};
use inferkit_localredis::{Flavor, unique_prefix};
use serde_json::Value as Json;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden() -> Option<Json> {
    let data = std::env::var_os("INFERKIT_SHARED_DATA")?;
    let path = std::path::Path::new(&data).join("featurestore/feast_golden.json");
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

/// `2024-01-02T03:04:05.678901+00:00` since 1970.
fn time(text: &str) -> SystemTime {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let months = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = |year: u64| u64::from(year.is_multiple_of(4));
    let leaps = (1970..year).map(leap).sum::<u64>() + if month > 2 { leap(year) } else { 0 };
    let days = (year - 1970) * 365 + leaps + months[month as usize - 1] + day - 1;
    let seconds = days * 86_400 + number(11..13) * 3_600 + number(14..16) * 60 + number(17..19);
    let fraction = text[19..].strip_prefix('.').map_or(0, |rest| rest[..6].parse().unwrap());
    UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(fraction)
}

fn feast_value(kind: &str, value: &Json) -> FeastValue {
    let floats = || value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    if value.is_null() {
        return FeastValue::Null;
    }
    match kind {
        "Int32" => FeastValue::Int32(value.as_i64().unwrap() as i32),
        "Int64" => FeastValue::Int64(value.as_i64().unwrap()),
        "Float32" => FeastValue::Float(value.as_f64().unwrap() as f32),
        "Float64" => FeastValue::Double(value.as_f64().unwrap()),
        "Bool" => FeastValue::Bool(value.as_bool().unwrap()),
        "String" => FeastValue::Str(value.as_str().unwrap().to_owned()),
        "Bytes" => FeastValue::Bytes(hex(value.as_str().unwrap()).into()),
        "UnixTimestamp" => {
            let after = time(value.as_str().unwrap()).duration_since(UNIX_EPOCH).unwrap();
            FeastValue::Time(after.as_secs() as i64)
        }
        "Array(Float32)" => FeastValue::FloatList(floats()),
        "Array(Int64)" => FeastValue::Int64List(
            value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect(),
        ),
        "Array(String)" => FeastValue::StrList(
            value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect(),
        ),
        other => panic!("{other}"),
    }
}

fn join_key(value: &Json) -> EntityKey {
    value.as_i64().map_or_else(|| EntityKey::from(value.as_str().unwrap()), EntityKey::from)
}

async fn view(
    store: &FeastStore,
    name: &str,
    keys: &[&str],
    features: &[(&str, DataType)],
) -> Group {
    let builder = FeatureGroup::builder("entity", name).keyed_by(keys.iter().copied());
    let builder = features.iter().fold(builder, |group, (name, kind)| group.feature(*name, *kind));
    store.register(&builder.build().unwrap()).await.unwrap()
}

async fn driver() -> DynDriver {
    support::shared(Flavor::Plain).await
}

/// What Feast wrote for the inputs of the golden file is what this crate writes for them, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn the_golden_rows_are_reproduced_byte_for_byte() {
    let Some(golden) = golden() else { return };
    let driver = driver().await;
    let project = golden["project"].as_str().unwrap();
    let store = FeastStore::new(Arc::clone(&driver), project).with_int32_key("shop_id");
    for expected in golden["materialized"].as_array().unwrap() {
        let key = hex(expected["key"].as_str().unwrap());
        driver.query::<u64>(Cmd::new("DEL").key(&key)).await.unwrap();
    }
    for (name, rows) in golden["inputs"].as_object().unwrap() {
        let definition = &golden["feature_views"][name];
        let keys: Vec<&str> = definition["join_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap())
            .collect();
        let keys: Vec<&str> = keys.into_iter().filter(|key| *key != "__dummy_id").collect();
        let group = view(&store, name, &keys, &[("any", DataType::F32)]).await;
        for row in rows.as_array().unwrap() {
            let entity = Entity::composite(keys.iter().map(|key| join_key(&row[*key])));
            let features = definition["features"].as_object().unwrap();
            let values: Vec<(&str, FeastValue)> = features
                .iter()
                .map(|(feature, kind)| {
                    let mut value = feast_value(kind.as_str().unwrap(), &row[feature]);
                    // The file offline store's null of a timestamp.
                    if kind == "UnixTimestamp" && value == FeastValue::Null {
                        value = FeastValue::Time(i64::MIN);
                    }
                    (feature.as_str(), value)
                })
                .collect();
            let at = time(row["event_timestamp"].as_str().unwrap());
            assert!(store.put_values(&group, &entity, at, &values).await.unwrap());
        }
    }
    let mut compared = 0;
    for expected in golden["materialized"].as_array().unwrap() {
        let key = hex(expected["key"].as_str().unwrap());
        let fields: std::collections::HashMap<bytes::Bytes, bytes::Bytes> =
            driver.query(Cmd::new("HGETALL").key(&key)).await.unwrap();
        let fields: BTreeMap<String, String> =
            fields.iter().map(|(field, value)| (to_hex(field), to_hex(value))).collect();
        let expected: BTreeMap<String, String> = expected["fields"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(field, value)| (field.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        compared += expected.len();
        assert_eq!(fields, expected);
    }
    assert_eq!(compared, 46);
}

/// Values that the golden file lists decode, and encode to the same bytes.
#[test]
fn the_golden_values_come_back() {
    let Some(golden) = golden() else { return };
    let mut known = 0;
    for value in golden["values"].as_array().unwrap() {
        let bytes = hex(value["bytes"].as_str().unwrap());
        if let Some(decoded) = FeastValue::decode(&bytes) {
            known += 1;
            if decoded != FeastValue::Null {
                assert_eq!(to_hex(&decoded.encode()), to_hex(&bytes), "{value}");
            }
        } else {
            println!("unknown to this release: {value}");
        }
    }
    assert!(17 <= known, "{known}");
}

/// Decoded straight into a matrix: numbers, embeddings, nulls of all kinds, and entities that are not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_is_filled_from_feast_s_layout() {
    let store = FeastStore::new(driver().await, unique_prefix());
    let features = [
        ("f32", DataType::F32),
        ("i64", DataType::I64),
        ("flag", DataType::Bool),
        ("vector", DataType::Vector(3)),
        ("seen", DataType::Time),
    ];
    let stats = view(&store, "stats", &["driver_id"], &features).await;
    let rating = view(&store, "rating", &["driver_id"], &[("rating", DataType::F64)]).await;
    let now = SystemTime::now();
    let values = |n: f32| {
        [
            Value::from(n),
            Value::from(7_i64),
            Value::from(true),
            Value::from(vec![n, 2.0, 3.0]),
            Value::from(now),
        ]
    };
    let rows = [Row::new(1_i64, now, values(0.5)), Row::new(2_i64, now, vec![Value::Null; 5])];
    assert_eq!(store.write(&stats, &rows).await.unwrap().applied, 2);
    store.write(&rating, &[Row::new(1_i64, now, [4.75_f64])]).await.unwrap();
    let input = ModelInput::builder()
        .features(&rating, ["rating"])
        .features(&stats, ["vector", "f32", "flag", "i64"])
        .column(Column::age_of(&stats, "seen"))
        .build()
        .unwrap();
    let matrix = store.read(&input, &[1_i64, 2, 3].map(Entity::new)).await.unwrap();
    assert_eq!(matrix.row(0)[..7], [4.75, 0.5, 2.0, 3.0, 0.5, 1.0, 7.0]);
    assert!((0.0..60.0).contains(&matrix.row(0)[7]));
    assert_eq!(matrix.statuses(0), [Status::Present; 6]);
    assert_eq!(matrix.statuses(1)[0], Status::Missing);
    assert_eq!(matrix.statuses(1)[1..], [Status::Null; 5]);
    assert_eq!(matrix.statuses(2), [Status::Missing; 6]);
    let record = store.record(&stats, &Entity::new(1_i64)).await.unwrap().unwrap();
    assert_eq!(record.get("i64"), Some(&Value::Int(7)));
    // A type that was declared wrongly is an error, never a wrong number.
    let wrong = view(&store, "stats", &["driver_id"], &[("f32", DataType::Vector(1))]).await;
    let input = ModelInput::builder().all(&wrong).build().unwrap();
    let error = store.read(&input, &[Entity::new(1_i64)]).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// Wide views are read whole, by one command or the other.
#[tokio::test(flavor = "multi_thread")]
async fn wide_views_are_read_whole() {
    let store = FeastStore::new(driver().await, unique_prefix());
    for width in [40, 200] {
        let names: Vec<String> = (0..width).map(|n| format!("f{n}")).collect();
        let features: Vec<(&str, DataType)> =
            names.iter().map(|name| (name.as_str(), DataType::F32)).collect();
        let wide = view(&store, &format!("wide_{width}"), &["id"], &features).await;
        let values: Vec<f32> = (0..width).map(|n| n as f32).collect();
        store.write(&wide, &[Row::new("a", UNIX_EPOCH, values.clone())]).await.unwrap();
        let input = ModelInput::builder().all(&wide).build().unwrap();
        assert_eq!(store.read(&input, &[Entity::new("a")]).await.unwrap().values(), values);
    }
}

/// Writers at once, in any order: the newest event stays, in seconds and in nanoseconds.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_event_stays() {
    let store = FeastStore::new(driver().await, unique_prefix());
    let group = view(&store, "v", &["id"], &[("n", DataType::I64)]).await;
    let at = |micros: u64| UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + micros);
    let mut tasks = Vec::new();
    for writer in 0..4_u64 {
        let (store, group) = (store.clone(), group.clone());
        tasks.push(tokio::spawn(async move {
            for step in 0..50_u64 {
                // Each writer has an order of its own.
                let n = (step * 7 + writer * 13) % 50 * 4 + writer;
                let micros = n * 300_000;
                store.write(&group, &[Row::new("e", at(micros), [n as i64])]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let record = store.record(&group, &Entity::new("e")).await.unwrap().unwrap();
    assert_eq!((record.get("n"), record.at()), (Some(&Value::Int(199)), at(199 * 300_000)));
}

/// What is removed takes neither other views nor other projects with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_not_taken_for_another() {
    let driver = driver().await;
    let name = unique_prefix();
    let prod = FeastStore::new(Arc::clone(&driver), &name);
    let nonprod = FeastStore::new(driver, format!("non{name}"));
    let group = view(&prod, "v", &["id"], &[("n", DataType::I64)]).await;
    let other = view(&prod, "w", &["id"], &[("n", DataType::I64)]).await;
    let rows: Vec<Row> = (0..20_i64).map(|n| Row::new(n, UNIX_EPOCH, [n])).collect();
    for store in [&prod, &nonprod] {
        store.write(&group, &rows).await.unwrap();
    }
    prod.write(&other, &rows[..5]).await.unwrap();
    assert_eq!(prod.drop_group(&group).await.unwrap(), 20);
    let count = async |store: &FeastStore, group: &Group| {
        let entities: Vec<Entity> = (0..20_i64).map(Entity::new).collect();
        store.records(group, &entities).await.unwrap().iter().flatten().count()
    };
    assert_eq!(count(&prod, &group).await, 0);
    assert_eq!(count(&prod, &other).await, 5);
    assert_eq!(count(&nonprod, &group).await, 20);
    assert!(matches!(prod.write_unguarded(&group, &rows).await, Err(Error::Unsupported(_))));
    assert!(prod.definition("entity", "v", 0).await.is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_values_or_not(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
        if let Some(value) = FeastValue::decode(&bytes) {
            let again = FeastValue::decode(&value.encode());
            // Not-a-numbers are alike by their text.
            proptest::prop_assert_eq!(format!("{:?}", Some(value)), format!("{again:?}"));
        }
    }
}
