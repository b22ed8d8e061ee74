//! Bulk loads, streams of rows, copies, and the comparison with what was loaded.
#![expect(clippy::cast_possible_wrap, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use inferkit_featurestore::{
    DataType, Entity, Error, FeatureGroup, FeatureStore, FeatureStoreExt as _, Feed, Group, Layout,
    Load, MemoryFeatureStore, ModelInput, RedisFeatureStore, Row, Value, Written, compare, copy,
    profile,
};
use inferkit_localredis::Flavor;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn row(id: u64, seconds: u64) -> Row {
    Row::new(id as i64, at(seconds), [Value::from(id as f32), Value::from(seconds as i64)])
}

async fn group(store: &dyn FeatureStore, name: &str, layout: Layout) -> Group {
    let group = FeatureGroup::builder("user", name)
        .layout(layout)
        .feature("x", DataType::F32)
        .feature("n", DataType::I64)
        .build()
        .unwrap();
    store.register(&group).await.unwrap()
}

async fn redis() -> RedisFeatureStore {
    RedisFeatureStore::new(support::shared(Flavor::Plain).await, support::namespace())
}

fn batches(rows: u64, size: usize) -> Vec<Result<Vec<Row>, std::io::Error>> {
    let rows: Vec<Row> = (0..rows).map(|id| row(id, 1)).collect();
    rows.chunks(size).map(|rows| Ok(rows.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_goes_on_where_it_ended() {
    let store = redis().await;
    let group = group(&store, "load", Layout::Packed).await;
    let through = Arc::new(Mutex::new(0));
    let report = Arc::clone(&through);
    let load = Load::default().in_flight(3).on_progress(move |loaded| {
        *report.lock().unwrap() = loaded.through;
    });
    let mut source = batches(5_000, 300);
    source[11] = Err(std::io::Error::other("the disk is gone"));
    let error = load.run(&store, &group, stream::iter(source)).await.unwrap_err();
    assert!(matches!(error, Error::Source { row: 3_300, .. }), "{error}");
    let done = *through.lock().unwrap();
    assert!(0 < done && done <= 3_300 && done.is_multiple_of(300), "{done}");
    let loaded =
        load.clone().skip(done).run(&store, &group, stream::iter(batches(5_000, 250))).await;
    let loaded = loaded.unwrap();
    assert_eq!((loaded.through, loaded.written), (5_000, Written::new(5_000 - done, 0)));
    let rows: Vec<Row> = (0..5_000).map(|id| row(id, 1)).collect();
    let comparison = compare(&store, &group, &rows).await.unwrap();
    assert!(comparison.is_consistent() && comparison.rows == 5_000, "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_load_leaves_newer_events() {
    let store = redis().await;
    let group = group(&store, "guarded", Layout::Packed).await;
    store.write(&group, &[row(7, 9)]).await.unwrap();
    let source = || stream::iter(batches(100, 10));
    let loaded = Load::default().run(&store, &group, source()).await.unwrap();
    assert_eq!(loaded.written, Written::new(99, 1));
    let loaded = Load::default().unguarded().run(&store, &group, source()).await.unwrap();
    assert_eq!(loaded.written, Written::new(100, 0));
    let record = store.record(&group, &Entity::new(7_i64)).await.unwrap().unwrap();
    assert_eq!(record.at(), at(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_tells_what_differs() {
    let store = redis().await;
    let group = group(&store, "compared", Layout::Hash).await;
    let rows: Vec<Row> = (0..10).map(|id| row(id, 5)).collect();
    store.write(&group, &rows[1..]).await.unwrap();
    store.write(&group, &[row(2, 6)]).await.unwrap();
    store.write_unguarded(&group, &[row(3, 4)]).await.unwrap();
    let other = Row::new(4_i64, at(5), [Value::from(99.0_f32), Value::from(5_i64)]);
    store.write(&group, &[other]).await.unwrap();
    let found = compare(&store, &group, &rows).await.unwrap();
    let counts = (found.rows, found.missing, found.ahead, found.behind, found.different);
    assert_eq!(counts, (10, 1, 1, 1, 1));
    assert_eq!(found.features, [("x".to_owned(), 1, Entity::new(4_i64))]);
    assert!(!found.is_consistent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_tells_ages_and_nulls() {
    let store = redis().await;
    let group = group(&store, "profiled", Layout::Packed).await;
    let now = SystemTime::now();
    let rows: Vec<Row> = (0..100_u64)
        .map(|id| {
            let value = if id % 4 == 0 { Value::Null } else { Value::from(1.0_f32) };
            Row::new(id as i64, now - Duration::from_secs(id), [value, Value::from(1_i64)])
        })
        .collect();
    store.write(&group, &rows).await.unwrap();
    let whole = profile(&store, &group, 1_000).await.unwrap();
    assert_eq!(whole.rows, 100);
    assert_eq!(whole.absent, [("x".to_owned(), 0.25), ("n".to_owned(), 0.0)]);
    let (median, last) = (whole.age(0.5).unwrap().as_secs(), whole.age(1.0).unwrap().as_secs());
    assert!((49..80).contains(&median) && (99..130).contains(&last), "{median} {last}");
    assert_eq!(profile(&store, &group, 10).await.unwrap().rows, 10);
}

/// From one layout and store to the other, beside a writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_changes_the_layout_and_keeps_newer_events() {
    let store = redis().await;
    let old = group(&store, "moved", Layout::Hash).await;
    let rows: Vec<Row> = (0..2_500).map(|id| row(id, 1)).collect();
    store.write(&old, &rows).await.unwrap();
    let new = FeatureGroup::builder("user", "moved")
        .generation(1)
        .feature("n", DataType::F64)
        .feature("added", DataType::Str)
        .feature("x", DataType::F32)
        .build()
        .unwrap();
    let new = store.register(&new).await.unwrap();
    let newer = Row::new(5_i64, at(9), [Value::from(9.0_f64), Value::Null, Value::from(9.0_f32)]);
    store.write(&new, &[newer]).await.unwrap();
    let mut reports = 0;
    let copied = copy((&store, &old), (&store, &new), |_| reports += 1).await.unwrap();
    assert!(0 < reports);
    // A scan may show an entity twice.
    assert!(2_499 <= copied.applied && 1 <= copied.older, "{copied:?}");
    let input = ModelInput::builder().features(&new, ["x", "n"]).build().unwrap();
    let entities: Vec<Entity> = (0..2_500_i64).map(Entity::new).collect();
    let matrix = store.read(&input, &entities).await.unwrap();
    for (id, row) in (0..2_500).map(|id| (id, matrix.row(id))) {
        assert_eq!(row, if id == 5 { [9.0, 9.0] } else { [id as f32, 1.0] });
    }
    let memory = MemoryFeatureStore::new();
    let target = memory.register(&new).await.unwrap();
    let copied = copy((&store, &new), (&memory, &target), |_| {}).await.unwrap();
    assert!(2_500 <= copied.applied, "{copied:?}");
    assert_eq!(memory.entities(&target, None).await.unwrap().entities.len(), 2_500);
}

/// A stream that repeats, reorders and is late ends with the newest events, soon after they came.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_rows_becomes_features() {
    let store = redis().await;
    let group = group(&store, "fed", Layout::Packed).await;
    let now = SystemTime::now();
    let event = |id: i64, ago: u64, n: i64| {
        Ok::<_, std::io::Error>(Row::new(
            id,
            now - Duration::from_secs(ago),
            [Value::from(0.5_f32), Value::from(n)],
        ))
    };
    let rows = vec![
        event(1, 10, 1),
        event(2, 10, 1),
        event(1, 5, 2),
        event(1, 8, 3),
        event(1, 5, 2),
        event(2, 7_200, 9),
    ];
    let feed = Feed::default().batch(2).drop_later_than(Duration::from_secs(3_600));
    let fed = feed.run(&store, &group, stream::iter(rows)).await.unwrap();
    assert_eq!((fed.written, fed.late), (Written::new(4, 1), 1));
    let input = ModelInput::builder().features(&group, ["n"]).build().unwrap();
    let entities = [1_i64, 2].map(Entity::new);
    assert_eq!(store.read(&input, &entities).await.unwrap().values(), [2.0, 1.0]);
    let rows =
        vec![event(3, 0, 3), Err(std::io::Error::other("the broker is gone")), event(4, 0, 4)];
    let error = feed.run(&store, &group, stream::iter(rows)).await.unwrap_err();
    assert!(matches!(error, Error::Source { row: 1, .. }), "{error}");
    assert_eq!(store.read(&input, &[Entity::new(3_i64)]).await.unwrap().values(), [3.0]);
}

/// What a stream brings can be read well within a minute of its event: here within a second.
#[tokio::test(flavor = "multi_thread")]
async fn features_are_fresh_soon_after_their_event() {
    let store = redis().await;
    let group = group(&store, "fresh", Layout::Packed).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Row>(16);
    let rows = stream::unfold(receiver, |mut receiver| async move {
        let row = receiver.recv().await?;
        Some((Ok::<_, Error>(row), receiver))
    });
    let writer = {
        let (store, group) = (store.clone(), group.clone());
        tokio::spawn(async move { Feed::default().run(&store, &group, rows).await })
    };
    let input = ModelInput::builder().features(&group, ["n"]).build().unwrap();
    for n in 1..=20_i64 {
        let sent = SystemTime::now();
        sender.send(Row::new(1_i64, sent, [Value::from(0.0_f32), Value::from(n)])).await.unwrap();
        loop {
            let matrix = store.read(&input, &[Entity::new(1_i64)]).await.unwrap();
            if matrix.row(0) == [n as f32] {
                break;
            }
            assert!(sent.elapsed().unwrap() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(sender);
    assert_eq!(writer.await.unwrap().unwrap().written.applied, 20);
}

#[cfg(feature = "parquet")]
mod files {
    use super::*;

    use arrow_array::{
        ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, RecordBatch,
        StringArray, TimestampMillisecondArray, types::Float32Type,
    };
    use inferkit_featurestore::arrow::{Columns, parquet_rows, read_parquet};
    use parquet::arrow::ArrowWriter;

    fn write(path: &std::path::Path, rows: usize) {
        let ids = StringArray::from_iter_values((0..rows).map(|n| format!("u{n}")));
        let items = Int64Array::from_iter_values((0..rows).map(|n| n as i64 % 7));
        let times = (0..rows).map(|n| 1_700_000_000_000 + n as i64);
        let times = TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC");
        let x = Float64Array::from_iter((0..rows).map(|n| (n % 10 != 0).then_some(n as f64 / 4.0)));
        let flags = BooleanArray::from_iter((0..rows).map(|n| Some(n % 2 == 0)));
        let vectors = (0..rows).map(|n| Some([n as f32, 1.0, 2.0].map(Some)));
        let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 3);
        let columns: [(&str, ArrayRef); 7] = [
            ("unused", Arc::new(Int64Array::from(vec![0; rows]))),
            ("user_id", Arc::new(ids)),
            ("item_id", Arc::new(items)),
            ("event_timestamp", Arc::new(times)),
            ("x", Arc::new(x)),
            ("flag", Arc::new(flags)),
            ("v", Arc::new(vectors)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_parquet_file_is_loaded_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.parquet");
        write(&path, 10_000);
        let store = redis().await;
        let (schema, rows) = inferkit_featurestore::arrow::parquet_schema(&path).unwrap();
        let inferred = Columns::new(["user_id", "item_id"], "event_timestamp");
        let inferred = inferred.group("pair", "inferred", &schema).unwrap().build().unwrap();
        let types: Vec<_> = inferred.features().iter().map(|own| own.data_type()).collect();
        let expected = [DataType::I64, DataType::F64, DataType::Bool, DataType::Vector(3)];
        assert_eq!((rows, &types[..]), (10_000, &expected[..]));
        let group = FeatureGroup::builder("pair", "file")
            .keyed_by(["user_id", "item_id"])
            .feature("v", DataType::Vector(3))
            .feature("x", DataType::F32)
            .feature("flag", DataType::Bool)
            .feature("not_in_the_file", DataType::I64)
            .build()
            .unwrap();
        let group = store.register(&group).await.unwrap();
        let columns = Columns::new(["user_id", "item_id"], "event_timestamp");
        let load = Load::default();
        let loaded = load.run(&store, &group, parquet_rows(&path, &group, &columns)).await.unwrap();
        assert_eq!(loaded.written, Written::new(10_000, 0));
        let entity = |n: i64| {
            Entity::composite([
                format!("u{n}").into(),
                inferkit_featurestore::EntityKey::from(n % 7),
            ])
        };
        let record = store.record(&group, &entity(9_999)).await.unwrap().unwrap();
        assert_eq!(record.at(), UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + 9_999));
        assert_eq!(record.get("v"), Some(&Value::Vector(vec![9_999.0, 1.0, 2.0])));
        assert_eq!(record.get("x"), Some(&Value::Float(2_499.75)));
        assert_eq!(record.get("flag"), Some(&Value::Bool(false)));
        assert_eq!(record.get("not_in_the_file"), Some(&Value::Null));
        let (total, batches) = read_parquet(&path, &group, &columns).unwrap();
        assert_eq!(total, 10_000);
        let mut compared = 0;
        for rows in batches {
            let comparison = compare(&store, &group, &rows.unwrap()).await.unwrap();
            assert!(comparison.is_consistent(), "{comparison:?}");
            compared += comparison.rows;
        }
        assert_eq!(compared, 10_000);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_do_not_fit_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.parquet");
        write(&path, 100);
        let store = redis().await;
        let load = async |name: &str,
                          feature: &str,
                          data_type,
                          path: &std::path::Path,
                          columns: &Columns| {
            let group =
                FeatureGroup::builder("user", name).feature(feature, data_type).build().unwrap();
            let group = store.register(&group).await.unwrap();
            Load::default()
                .run(&store, &group, parquet_rows(path, &group, columns))
                .await
                .unwrap_err()
        };
        let good = Columns::new(["user_id"], "event_timestamp");
        let error = load("a", "x", DataType::Str, &path, &good).await;
        assert!(matches!(error, Error::TypeMismatch { .. }), "{error}");
        let error =
            load("b", "x", DataType::F32, &path, &Columns::new(["nope"], "event_timestamp")).await;
        assert!(error.to_string().contains("nope"), "{error}");
        let error =
            load("c", "x", DataType::F32, &path, &Columns::new(["user_id"], "user_id")).await;
        assert!(error.to_string().contains("user_id"), "{error}");
        let error = load("d", "x", DataType::F32, &directory.path().join("none"), &good).await;
        assert!(matches!(error, Error::Source { row: 0, .. }), "{error}");
    }
}
