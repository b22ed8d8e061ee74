//! The suite that every implementation of [`FeatureStore`] passes.
//!
//! It is called by [`feature_store_conformance`](crate::feature_store_conformance); not covered by semver.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "cases of a suite fail by panicking"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    Column, DataType, Entity, Error, FeatureGroup, FeatureStore, FeatureStoreExt as _, Group,
    GroupBuilder, Layout, ModelInput, OnStale, Row, Status, Value, Written,
};

/// Names a test per case; `$make` is an `async fn` that returns an empty store.
#[macro_export]
macro_rules! feature_store_conformance {
    ($make:path) => {
        $crate::feature_store_conformance! { @ $make:
            rows_come_back_with_their_types, a_matrix_has_the_declared_order, newer_events_win,
            null_missing_and_absent_rows_differ, defaults_and_required_columns, stale_values_are_told,
            ages_are_columns, rows_expire, features_are_appended, other_definitions_are_refused,
            bad_rows_are_refused, bad_inputs_are_refused, counters_count, any_ids_are_kept_apart,
            composite_ids_are_kept_apart, several_entity_types_make_a_row, wide_groups_are_read_whole,
            embeddings_are_slices, numbers_at_the_edges_come_back, rows_are_removed, entities_are_listed,
            groups_are_dropped_alone, unguarded_writes_do_not_look, nothing_is_read_for_nobody,
            generations_are_apart,
        }
    };
    (@ $make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

const LAYOUTS: [Layout; 2] = [Layout::Packed, Layout::Hash];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn user(name: &str) -> Entity {
    Entity::new(name)
}

fn group(name: &str, layout: Layout) -> GroupBuilder {
    let suffix = if layout == Layout::Hash { "h" } else { "p" };
    FeatureGroup::builder("user", format!("{name}_{suffix}")).layout(layout)
}

async fn register(store: &dyn FeatureStore, group: GroupBuilder) -> Group {
    store.register(&group.build().unwrap()).await.unwrap()
}

/// Three floats under a name.
async fn floats(store: &dyn FeatureStore, name: &str, layout: Layout) -> Group {
    register(store, group(name, layout).features(["a", "b", "c"], DataType::F32)).await
}

async fn put(
    store: &dyn FeatureStore,
    group: &Group,
    id: &str,
    seconds: u64,
    values: &[f32],
) -> Written {
    let row = Row::new(id, at(seconds), values.iter().copied());
    store.write(group, &[row]).await.unwrap()
}

fn all(group: &Group) -> ModelInput {
    ModelInput::builder().all(group).build().unwrap()
}

/// What is written comes back, of every type.
pub async fn rows_come_back_with_their_types(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let types = group("types", layout)
            .feature("f32", DataType::F32)
            .feature("f64", DataType::F64)
            .feature("i32", DataType::I32)
            .feature("i64", DataType::I64)
            .feature("bool", DataType::Bool)
            .feature("text", DataType::Str)
            .feature("bytes", DataType::Bytes)
            .feature("time", DataType::Time)
            .feature("vector", DataType::Vector(2));
        let types = register(store, types).await;
        let texts = ["", "a", "\"", "\"\"quoted\"", "ünï 🙂", "0", "a\0b\r\n"];
        for (n, text) in texts.into_iter().enumerate() {
            let values = [
                Value::from(0.1_f32),
                Value::from(1e300_f64),
                Value::from(i32::MIN),
                Value::from(i64::MAX),
                Value::from(n % 2 == 0),
                Value::from(text),
                Value::from(text.as_bytes().to_vec()),
                Value::from(UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)),
                Value::from(vec![1.5_f32, -0.0]),
            ];
            store.write(&types, &[Row::new("u", at(n as u64), values.clone())]).await.unwrap();
            let record = store.record(&types, &user("u")).await.unwrap().unwrap();
            assert_eq!(record.at(), at(n as u64));
            let read: Vec<Value> = record.iter().map(|(_, value)| value.unwrap().clone()).collect();
            assert_eq!(read, values, "{layout:?}");
        }
        assert_eq!(store.record(&types, &user("nobody")).await.unwrap(), None);
    }
}

/// The order of a matrix is the input's, whatever the order of groups and features.
pub async fn a_matrix_has_the_declared_order(store: &dyn FeatureStore) {
    for (first, second) in [(Layout::Packed, Layout::Hash), (Layout::Hash, Layout::Packed)] {
        let one = floats(store, "order_1", first).await;
        let two = floats(store, "order_2", second).await;
        for (n, id) in ["x", "y", "z"].into_iter().enumerate() {
            let n = n as f32 * 10.0;
            put(store, &one, id, 1, &[n + 1.0, n + 2.0, n + 3.0]).await;
            put(store, &two, id, 2, &[n + 4.0, n + 5.0, n + 6.0]).await;
        }
        let input = ModelInput::builder()
            .features(&two, ["c"])
            .features(&one, ["b", "a"])
            .features(&two, ["a", "c"])
            .features(&one, ["c"])
            .build()
            .unwrap();
        let names: Vec<&str> = input.columns().iter().map(|column| column.name.as_str()).collect();
        let label = |group: &Group, feature: &str| format!("{}:{feature}", group.name());
        assert_eq!(names[0], label(&two, "c"));
        assert_eq!(names[1], label(&one, "b"));
        let entities = [user("z"), user("x"), user("z")];
        let mut matrix = store.read(&input, &entities).await.unwrap();
        let x = [6.0, 2.0, 1.0, 4.0, 6.0, 3.0];
        let z = x.map(|value| value + 20.0);
        assert_eq!(matrix.values(), [z, x, z].concat());
        assert_eq!(matrix.event(1, 0), Some(at(2)));
        assert_eq!(matrix.event(1, 1), Some(at(1)));
        // A matrix that was used before holds nothing of the past.
        store.read_into(&input, &[user("x")], &mut matrix).await.unwrap();
        assert_eq!((matrix.rows(), matrix.values()), (1, &x[..]));
    }
}

/// Of two events the newer one stays, in whichever order they come, and in one batch.
pub async fn newer_events_win(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let group = floats(store, "newer", layout).await;
        assert_eq!(put(store, &group, "u", 10, &[1.0; 3]).await, Written::new(1, 0));
        assert_eq!(put(store, &group, "u", 9, &[2.0; 3]).await, Written::new(0, 1));
        assert_eq!(store.read(&all(&group), &[user("u")]).await.unwrap().values(), [1.0; 3]);
        // A repetition, and a correction, replace the event of the same time.
        assert_eq!(put(store, &group, "u", 10, &[3.0; 3]).await, Written::new(1, 0));
        let rows = [5, 12, 7].map(|n| Row::new("u", at(n), [n as f32; 3]));
        assert_eq!(store.write(&group, &rows).await.unwrap(), Written::new(1, 2));
        assert_eq!(store.read(&all(&group), &[user("u")]).await.unwrap().values(), [12.0; 3]);
        // Microseconds count.
        let later = at(12) + Duration::from_micros(1);
        let row = Row::new("u", later, [13.0_f32; 3]);
        store.write(&group, &[row]).await.unwrap();
        assert_eq!(put(store, &group, "u", 12, &[0.0; 3]).await.older, 1);
        let matrix = store.read(&all(&group), &[user("u")]).await.unwrap();
        assert_eq!((matrix.event(0, 0), matrix.row(0)), (Some(later), &[13.0; 3][..]));
    }
}

/// Null, zero, a feature that was appended and a row that is not there are four things.
pub async fn null_missing_and_absent_rows_differ(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let group = floats(store, "nulls", layout).await;
        let values = [Value::from(0.0_f32), Value::Null, Value::from(f32::NAN)];
        store.write(&group, &[Row::new("u", at(1), values)]).await.unwrap();
        let matrix = store.read(&all(&group), &[user("u"), user("nobody")]).await.unwrap();
        assert_eq!(matrix.statuses(0), [Status::Present, Status::Null, Status::Present]);
        assert_eq!(matrix.statuses(1), [Status::Missing; 3]);
        assert_eq!(matrix.row(0)[0].to_bits(), 0);
        assert!(matrix.row(0)[1].is_nan() && matrix.row(0)[2].is_nan());
        assert!(matrix.row(1).iter().all(|value| value.is_nan()));
        assert!(matrix.event(0, 0).is_some() && matrix.event(1, 0).is_none());
    }
}

/// Where there is no value, the column's own stands, or the feature's, or an error.
pub async fn defaults_and_required_columns(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let builder = group("defaults", layout).feature_or("a", DataType::I64, 7.0).feature_or(
            "v",
            DataType::Vector(2),
            0.25,
        );
        let group = register(store, builder).await;
        store.write(&group, &[Row::new("u", at(1), [Value::Null, Value::Null])]).await.unwrap();
        let input = ModelInput::builder()
            .all(&group)
            .column(Column::feature(&group, "a").or(-1.0))
            .build()
            .unwrap();
        let matrix = store.read(&input, &[user("u"), user("nobody")]).await.unwrap();
        assert_eq!(matrix.values(), [[7.0, 0.25, 0.25, -1.0]; 2].concat());
        let input = ModelInput::builder().column(Column::feature(&group, "a").required());
        let input = input.build().unwrap();
        let error = store.read(&input, &[user("u")]).await.unwrap_err();
        assert!(matches!(error, Error::Absent { status: "null", row: 0, .. }), "{error}");
        store
            .write(&group, &[Row::new("u", at(2), [Value::from(1_i64), Value::Null])])
            .await
            .unwrap();
        assert_eq!(store.read(&input, &[user("u")]).await.unwrap().values(), [1.0]);
        let error = store.read(&input, &[user("u"), user("nobody")]).await.unwrap_err();
        assert!(matches!(error, Error::Absent { status: "missing", row: 1, .. }), "{error}");
    }
}

/// What is older than the group's freshness is told, and served, filled or refused.
pub async fn stale_values_are_told(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let builder = group("stale", layout)
            .features(["a", "b"], DataType::F32)
            .fresh_for(Duration::from_secs(60));
        let group = register(store, builder).await;
        let now = SystemTime::now();
        let old = now - Duration::from_secs(600);
        let row = |id: &str, at| Row::new(id, at, [Value::from(5.0_f32), Value::Null]);
        store.write(&group, &[row("fresh", now), row("old", old)]).await.unwrap();
        let entities = [user("fresh"), user("old"), user("nobody")];
        let read = |on_stale| {
            let column = |name| Column::feature(&group, name).or(-1.0).on_stale(on_stale);
            ModelInput::builder().column(column("a")).column(column("b")).build().unwrap()
        };
        let matrix = store.read(&read(OnStale::Serve), &entities).await.unwrap();
        assert_eq!(matrix.statuses(0), [Status::Present, Status::Null]);
        assert_eq!(matrix.statuses(1), [Status::Stale, Status::Null]);
        assert_eq!(matrix.values(), [5.0, -1.0, 5.0, -1.0, -1.0, -1.0]);
        let age = matrix.age(1, 0).unwrap().as_secs();
        assert!((595..660).contains(&age), "{age}");
        let matrix = store.read(&read(OnStale::Fill), &entities).await.unwrap();
        assert_eq!(matrix.row(1), [-1.0, -1.0]);
        assert_eq!(matrix.statuses(1), [Status::Stale, Status::Null]);
        let error = store.read(&read(OnStale::Error), &entities).await.unwrap_err();
        assert!(matches!(error, Error::Stale { row: 1, .. }), "{error}");
        store.read(&read(OnStale::Error), &entities[..1]).await.unwrap();
    }
}

/// The age of a time, and of the event, are columns; seconds by the store's clock.
pub async fn ages_are_columns(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let group = register(store, group("ages", layout).feature("seen", DataType::Time)).await;
        let now = SystemTime::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        store.write(&group, &[Row::new("u", ago(100), [ago(1000)])]).await.unwrap();
        store.write(&group, &[Row::new("null", ago(100), [Value::Null])]).await.unwrap();
        let input = ModelInput::builder()
            .column(Column::age_of(&group, "seen"))
            .column(Column::event_age(&group).or(9.0))
            .build()
            .unwrap();
        let matrix = store.read(&input, &[user("u"), user("null"), user("nobody")]).await.unwrap();
        assert!((995.0..1060.0).contains(&matrix.row(0)[0]), "{:?}", matrix.row(0));
        assert!((95.0..160.0).contains(&matrix.row(0)[1]), "{:?}", matrix.row(0));
        assert_eq!(matrix.statuses(1), [Status::Null, Status::Present]);
        assert_eq!(matrix.statuses(2), [Status::Missing, Status::Missing]);
        assert_eq!(matrix.row(2)[1], 9.0);
    }
}

/// Rows end, and what comes after them ends as well, also if it is an older event.
pub async fn rows_expire(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let builder =
            group("expiring", layout).feature("a", DataType::I64).ttl(Duration::from_millis(600));
        let group = register(store, builder).await;
        let input = all(&group);
        let is_there = async || {
            store.read(&input, &[user("u")]).await.unwrap().statuses(0) == [Status::Present]
        };
        for seconds in [5, 1] {
            store.write(&group, &[Row::new("u", at(seconds), [1_i64])]).await.unwrap();
            assert!(is_there().await);
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert!(!is_there().await, "{layout:?}");
        }
        store.write_unguarded(&group, &[Row::new("u", at(6), [1_i64])]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(!is_there().await);
        if layout == Layout::Hash {
            store.increment(&group, &user("u"), "a", &Value::from(1_i64), at(1)).await.unwrap();
            assert!(is_there().await);
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert!(!is_there().await);
        }
    }
}

/// Older and newer readers and writers work side by side.
pub async fn features_are_appended(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let define = |names: &[&str]| {
            group("growing", layout).features(names.iter().copied(), DataType::F32).build().unwrap()
        };
        let (two, three) = (define(&["a", "b"]), define(&["a", "b", "c"]));
        let old = store.register(&two).await.unwrap();
        assert_eq!(old.version(), 1);
        let new = store.register(&three).await.unwrap();
        assert_eq!(new.version(), 2);
        assert_eq!(store.register(&two).await.unwrap().version(), 1);
        assert_eq!(store.register(&three).await.unwrap().version(), 2);
        assert_eq!(store.definition("user", three.name(), 0).await.unwrap(), Some(three));
        put(store, &old, "by_old", 1, &[1.0, 2.0]).await;
        put(store, &new, "by_new", 1, &[1.0, 2.0, 3.0]).await;
        let entities = [user("by_old"), user("by_new")];
        let matrix = store.read(&all(&old), &entities).await.unwrap();
        assert_eq!(matrix.values(), [1.0, 2.0, 1.0, 2.0]);
        let matrix = store.read(&all(&new), &entities).await.unwrap();
        assert_eq!(matrix.row(1), [1.0, 2.0, 3.0]);
        assert_eq!(matrix.row(0)[..2], [1.0, 2.0]);
        assert_eq!(matrix.statuses(0), [Status::Present, Status::Present, Status::Missing]);
        let record = store.record(&new, &entities[0]).await.unwrap().unwrap();
        assert_eq!((record.get("b"), record.get("c")), (Some(&Value::Float(2.0)), None));
    }
}

/// A definition that is no continuation is refused, and says where it differs.
pub async fn other_definitions_are_refused(store: &dyn FeatureStore) {
    let first = || group("fixed", Layout::Packed).features(["a", "b"], DataType::F32);
    register(store, first()).await;
    let renamed = group("fixed", Layout::Packed).features(["a", "x"], DataType::F32);
    let retyped = group("fixed", Layout::Packed).feature("a", DataType::F64);
    let swapped = group("fixed", Layout::Packed).features(["b", "a"], DataType::F32);
    let rekeyed = first().keyed_by(["other_id"]);
    for other in [renamed, retyped, swapped, rekeyed, first().layout(Layout::Hash)] {
        let error = store.register(&other.build().unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    }
    assert_eq!(store.definition("user", "none", 0).await.unwrap(), None);
}

/// A bad row is refused, and the good ones beside it are not stored either.
pub async fn bad_rows_are_refused(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let builder = group("strict", layout)
            .feature("a", DataType::F32)
            .feature("n", DataType::I32)
            .feature("v", DataType::Vector(2));
        let group = register(store, builder).await;
        let good = [Value::from(1.0_f32), Value::from(1_i64), Value::from(vec![1.0_f32, 2.0])];
        let with = |position: usize, value: Value| {
            let mut values = good.to_vec();
            values[position] = value;
            Row::new("bad", at(1), values)
        };
        let bad = [
            with(0, Value::from("1.0")),
            with(0, Value::from(1e300)),
            with(1, Value::from(1_i64 << 40)),
            with(1, Value::from(0.5_f32)),
            with(2, Value::from(vec![1.0_f32])),
            with(2, Value::from(1.0_f32)),
            Row::new("bad", at(1), good[..2].to_vec()),
            Row::new("bad", at(1), [&good[..], &good[..1]].concat()),
            Row::new("", at(1), good.to_vec()),
            Row::new(Entity::composite(["a", "b"]), at(1), good.to_vec()),
            Row::new("bad", UNIX_EPOCH - Duration::from_secs(1), good.to_vec()),
        ];
        for row in bad {
            let rows = [Row::new("good", at(1), good.to_vec()), row];
            let error = store.write(&group, &rows).await.unwrap_err();
            assert!(!matches!(error, Error::Backend(_)), "{error}");
            assert!(store.write_unguarded(&group, &rows).await.is_err());
        }
        assert_eq!(store.record(&group, &user("good")).await.unwrap(), None);
        assert!(matches!(
            Row::named(&group, "u", at(1), [("nope", Value::Null)]),
            Err(Error::UnknownFeature { .. })
        ));
    }
}

/// What is no number, unknown or of other keys makes no input.
pub async fn bad_inputs_are_refused(store: &dyn FeatureStore) {
    let builder = group("inputs", Layout::Packed)
        .feature("text", DataType::Str)
        .feature("time", DataType::Time)
        .feature("n", DataType::F64);
    let group = register(store, builder).await;
    for column in [
        Column::feature(&group, "text"),
        Column::feature(&group, "time"),
        Column::feature(&group, "nope"),
        Column::age_of(&group, "n"),
    ] {
        assert!(ModelInput::builder().column(column).build().is_err());
    }
    let input = ModelInput::builder().features(&group, ["n"]).build().unwrap();
    let values = [Value::Null, Value::Null, Value::from(1e300)];
    store.write(&group, &[Row::new("u", at(1), values)]).await.unwrap();
    let error = store.read(&input, &[user("u")]).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(store.read(&input, &[user("")]).await.is_err());
    assert!(store.records(&group, &[Entity::composite(["a", "b"])]).await.is_err());
}

/// Numbers of a hash are added to, from null and from nothing.
pub async fn counters_count(store: &dyn FeatureStore) {
    let builder =
        group("counters", Layout::Hash).feature("n", DataType::I64).feature("x", DataType::F64);
    let counters = register(store, builder).await;
    let add = async |name: &str, by: Value, seconds| {
        store.increment(&counters, &user("u"), name, &by, at(seconds)).await
    };
    assert_eq!(add("n", Value::from(2_i64), 5).await.unwrap(), Value::Int(2));
    let input = all(&counters);
    let matrix = store.read(&input, &[user("u")]).await.unwrap();
    assert_eq!(matrix.statuses(0), [Status::Present, Status::Missing]);
    assert_eq!(add("n", Value::from(-5_i64), 3).await.unwrap(), Value::Int(-3));
    assert_eq!(add("x", Value::from(0.5_f64), 7).await.unwrap(), Value::Float(0.5));
    assert_eq!(add("x", Value::from(0.25_f64), 6).await.unwrap(), Value::Float(0.75));
    let matrix = store.read(&input, &[user("u")]).await.unwrap();
    assert_eq!((matrix.row(0), matrix.event(0, 0)), (&[-3.0, 0.75][..], Some(at(7))));
    // The whole row is replaced by a newer event, nulls included.
    let row = Row::new("u", at(8), [Value::Null, Value::from(1.0_f64)]);
    store.write(&counters, &[row]).await.unwrap();
    assert_eq!(add("n", Value::from(1_i64), 9).await.unwrap(), Value::Int(1));
    let large = (1_i64 << 53) + 1;
    assert_eq!(add("n", Value::from(large - 1), 9).await.unwrap(), Value::Int(large));
    assert!(matches!(add("n", Value::from(0.5_f32), 9).await, Err(Error::TypeMismatch { .. })));
    assert!(matches!(add("nope", Value::from(1_i64), 9).await, Err(Error::UnknownFeature { .. })));
    let packed =
        register(store, group("counters", Layout::Packed).feature("n", DataType::I64)).await;
    let error = store.increment(&packed, &user("u"), "n", &Value::from(1_i64), at(1)).await;
    assert!(matches!(error, Err(Error::Layout { .. })));
}

/// Ids are any bytes, and none leaves its place.
pub async fn any_ids_are_kept_apart(store: &dyn FeatureStore) {
    let ids: [&[u8]; 12] = [
        b"a",
        b"A",
        b"a:b",
        b"{a}",
        b"a}:b{",
        b"*",
        b"%",
        b"%25",
        b" ",
        b"\0\xff",
        "日本 🙂".as_bytes(),
        b"schema",
    ];
    for layout in LAYOUTS {
        let group = floats(store, "ids", layout).await;
        let rows: Vec<Row> =
            ids.iter().enumerate().map(|(n, id)| Row::new(*id, at(1), [n as f32; 3])).collect();
        store.write(&group, &rows).await.unwrap();
        let entities: Vec<Entity> = ids.iter().map(|id| Entity::new(*id)).collect();
        let matrix = store.read(&all(&group), &entities).await.unwrap();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(matrix.row(n), [n as f32; 3], "{id:?}");
        }
    }
}

/// Several keys make one entity, in their order.
pub async fn composite_ids_are_kept_apart(store: &dyn FeatureStore) {
    let pairs = [("a", "b"), ("b", "a"), ("a:b", "c"), ("a", "b:c"), ("a%3A", "b")];
    for layout in LAYOUTS {
        let builder =
            group("pairs", layout).keyed_by(["user_id", "item_id"]).feature("x", DataType::I32);
        let group = register(store, builder).await;
        let entities: Vec<Entity> =
            pairs.iter().map(|(a, b)| Entity::composite([*a, *b])).collect();
        let rows: Vec<Row> =
            entities.iter().zip(0_i32..).map(|(e, n)| Row::new(e.clone(), at(1), [n])).collect();
        store.write(&group, &rows).await.unwrap();
        let matrix = store.read(&all(&group), &entities).await.unwrap();
        assert_eq!(matrix.values(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(matches!(
            store.read(&all(&group), &[user("a")]).await,
            Err(Error::EntityKeys { .. })
        ));
    }
}

/// A row of the matrix may be of a user and an item.
pub async fn several_entity_types_make_a_row(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let name = if layout == Layout::Hash { "h" } else { "p" };
        let define = |entity: &str| {
            FeatureGroup::builder(entity, name).layout(layout).feature("x", DataType::I64)
        };
        let users = register(store, define("user")).await;
        let items = register(store, define("item")).await;
        for n in 0..3_i64 {
            store.write(&users, &[Row::new(n, at(1), [n])]).await.unwrap();
            store.write(&items, &[Row::new(n, at(1), [10 + n])]).await.unwrap();
        }
        let input = ModelInput::builder().all(&items).all(&users).build().unwrap();
        assert_eq!(input.entity_types().collect::<Vec<_>>(), ["item", "user"]);
        let entities = [0_i64, 2, 1, 1].map(Entity::new);
        let matrix = store.read(&input, &entities).await.unwrap();
        assert_eq!((matrix.row(0), matrix.row(1)), (&[10.0, 2.0][..], &[11.0, 1.0][..]));
        let error = store.read(&input, &entities[..3]).await.unwrap_err();
        assert!(matches!(error, Error::EntityCount { types: 2, entities: 3 }));
    }
}

/// Five hundred features are read whole, and any of them alone.
pub async fn wide_groups_are_read_whole(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let names: Vec<String> = (0..500).map(|n| format!("feature_{n}")).collect();
        let group =
            register(store, group("wide", layout).features(names.clone(), DataType::F32)).await;
        let values: Vec<f32> = (0..500).map(|n| n as f32 * 0.1).collect();
        put(store, &group, "u", 1, &values).await;
        let matrix = store.read(&all(&group), &[user("u"), user("u")]).await.unwrap();
        assert_eq!((matrix.row(0), matrix.row(1)), (&values[..], &values[..]));
        for count in [1, 10, 70, 200] {
            let some: Vec<usize> = (0..count).map(|n| (n * 37 + 11) % 500).collect();
            let input = some.iter().map(|n| names[*n].clone());
            let input = ModelInput::builder().features(&group, input).build().unwrap();
            let matrix = store.read(&input, &[user("u")]).await.unwrap();
            let expected: Vec<f32> = some.iter().map(|n| values[*n]).collect();
            assert_eq!(matrix.values(), expected, "{count}");
        }
    }
}

/// An embedding is a slice of its row.
pub async fn embeddings_are_slices(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let builder = group("vectors", layout)
            .feature("a", DataType::Bool)
            .feature("v", DataType::Vector(384))
            .feature("b", DataType::F32);
        let group = register(store, builder).await;
        let vector: Vec<f32> = (0..384).map(|n| (n as f32).sin()).collect();
        let values = [Value::from(true), Value::from(vector.clone()), Value::from(2.0_f32)];
        store.write(&group, &[Row::new("u", at(1), values)]).await.unwrap();
        let input = all(&group);
        let matrix = store.read(&input, &[user("u")]).await.unwrap();
        assert_eq!(matrix.cell(0, &input.columns()[1]), vector);
        assert_eq!((matrix.row(0)[0], matrix.row(0)[385]), (1.0, 2.0));
    }
}

/// Infinities, the smallest and the largest come back bit by bit.
pub async fn numbers_at_the_edges_come_back(store: &dyn FeatureStore) {
    let numbers = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        -0.0,
        0.1,
        16_777_217.0,
    ];
    for layout in LAYOUTS {
        let names: Vec<String> = (0..numbers.len()).map(|n| format!("f{n}")).collect();
        let group = register(store, group("edges", layout).features(names, DataType::F32)).await;
        put(store, &group, "u", 1, &numbers).await;
        let matrix = store.read(&all(&group), &[user("u")]).await.unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(matrix.values()), bits(&numbers));
    }
}

/// Rows are removed, and only those.
pub async fn rows_are_removed(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let group = floats(store, "removed", layout).await;
        for id in ["a", "b", "c"] {
            put(store, &group, id, 1, &[1.0; 3]).await;
        }
        assert_eq!(store.remove(&group, &[user("a"), user("b"), user("x")]).await.unwrap(), 2);
        let records = store.records(&group, &[user("a"), user("b"), user("c")]).await.unwrap();
        assert_eq!(records.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
        // An older event counts as the first one then.
        assert_eq!(put(store, &group, "a", 0, &[1.0; 3]).await.applied, 1);
    }
}

async fn listed(store: &dyn FeatureStore, group: &Group) -> Vec<Entity> {
    let (mut entities, mut next) = (Vec::new(), None);
    loop {
        let page = store.entities(group, next.as_deref()).await.unwrap();
        entities.extend(page.entities);
        next = page.next;
        if next.is_none() {
            entities.sort();
            entities.dedup();
            return entities;
        }
    }
}

/// The entities of a group are listed, and no others.
pub async fn entities_are_listed(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let one = floats(store, "listed", layout).await;
        let other = floats(store, "listed2", layout).await;
        let mut ids: Vec<Entity> =
            ["a", "b:c", "}:listed_p", "{*}", "日本"].into_iter().map(Entity::new).collect();
        for n in 0..50 {
            ids.push(Entity::new(format!("id-{n}")));
        }
        for id in &ids {
            store.write(&one, &[Row::new(id.clone(), at(1), [1.0_f32; 3])]).await.unwrap();
        }
        put(store, &other, "not me", 1, &[1.0; 3]).await;
        ids.sort();
        assert_eq!(listed(store, &one).await, ids);
    }
}

/// A group that is dropped takes nothing of others with it, and can be registered anew with other features.
pub async fn groups_are_dropped_alone(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let name = if layout == Layout::Hash { "prod_h" } else { "prod_p" };
        let define = |name: &str| {
            FeatureGroup::builder("user", name)
                .layout(layout)
                .features(["a", "b", "c"], DataType::F32)
        };
        let gone = register(store, define(name)).await;
        let longer = register(store, define(&format!("non{name}"))).await;
        let shorter = register(store, define(&format!("{name}2"))).await;
        for group in [&gone, &longer, &shorter] {
            for n in 0..30_i64 {
                let row = Row::new(n, at(1), [n as f32; 3]);
                store.write(group, &[row]).await.unwrap();
            }
        }
        assert_eq!(store.drop_group(&gone).await.unwrap(), 30);
        assert_eq!(listed(store, &gone).await, []);
        assert_eq!(listed(store, &longer).await.len(), 30);
        assert_eq!(listed(store, &shorter).await.len(), 30);
        let anew = FeatureGroup::builder("user", name).layout(layout).feature("z", DataType::Bool);
        let anew = register(store, anew).await;
        assert_eq!(anew.version(), 1);
        if layout == Layout::Packed {
            // A process that knows nothing of it is told, and shifts no values.
            store.write(&anew, &[Row::new("u", at(1), [true])]).await.unwrap();
            let error = store.read(&all(&gone), &[user("u")]).await.unwrap_err();
            assert!(matches!(error, Error::OtherLineage { .. }), "{error}");
        }
    }
}

/// An unguarded write replaces what is there.
pub async fn unguarded_writes_do_not_look(store: &dyn FeatureStore) {
    for layout in LAYOUTS {
        let group = floats(store, "unguarded", layout).await;
        put(store, &group, "u", 9, &[9.0; 3]).await;
        store.write_unguarded(&group, &[Row::new("u", at(1), [1.0_f32; 3])]).await.unwrap();
        let matrix = store.read(&all(&group), &[user("u")]).await.unwrap();
        assert_eq!((matrix.row(0), matrix.event(0, 0)), (&[1.0; 3][..], Some(at(1))));
    }
}

/// No entities and no columns are no errors.
pub async fn nothing_is_read_for_nobody(store: &dyn FeatureStore) {
    let group = floats(store, "nobody", Layout::Packed).await;
    let matrix = store.read(&all(&group), &[]).await.unwrap();
    assert_eq!((matrix.rows(), matrix.values()), (0, &[][..]));
    assert_eq!(store.write(&group, &[]).await.unwrap(), Written::default());
    assert_eq!(store.records(&group, &[]).await.unwrap(), []);
    let none = ModelInput::builder().build().unwrap();
    let matrix = store.read(&none, &[user("a"), user("b")]).await.unwrap();
    assert_eq!((matrix.rows(), matrix.width()), (2, 0));
}

/// Generations of a group have definitions and rows of their own.
pub async fn generations_are_apart(store: &dyn FeatureStore) {
    let first = register(store, group("gen", Layout::Packed).feature("a", DataType::F32)).await;
    let second =
        group("gen", Layout::Packed).generation(2).layout(Layout::Hash).feature("z", DataType::I64);
    let second = register(store, second).await;
    put(store, &first, "u", 1, &[1.0]).await;
    assert_eq!(store.record(&second, &user("u")).await.unwrap(), None);
    store.write(&second, &[Row::new("u", at(1), [2_i64])]).await.unwrap();
    let input = ModelInput::builder().all(&first).all(&second).build().unwrap();
    assert_eq!(store.read(&input, &[user("u")]).await.unwrap().values(), [1.0, 2.0]);
    let definition = store.definition("user", "gen_p", 2).await.unwrap().unwrap();
    assert_eq!(definition.features()[0].name(), "z");
}
