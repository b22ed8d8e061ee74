//! What others have left under a row's key: an error that says so, and never a wrong number.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::UNIX_EPOCH;

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_featurestore::{
    DataType, Entity, Error, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, Group, Layout,
    Matrix, ModelInput, RedisFeatureStore, Row,
};
use inferkit_localredis::{Flavor, unique_prefix};

struct Fixture {
    driver: DynDriver,
    store: RedisFeatureStore,
    group: Group,
    key: String,
}

async fn fixture(layout: Layout) -> Fixture {
    let driver = support::shared(Flavor::Plain).await;
    let prefix = unique_prefix();
    let store =
        RedisFeatureStore::new(std::sync::Arc::clone(&driver), Namespace::new(&prefix).unwrap());
    let group = FeatureGroup::builder("user", "g")
        .layout(layout)
        .feature("x", DataType::F32)
        .feature("n", DataType::I64)
        .feature("v", DataType::Vector(2))
        .build()
        .unwrap();
    let group = store.register(&group).await.unwrap();
    let values = [1.5_f32.into(), 7_i64.into(), vec![0.5_f32, 0.25].into()];
    let values: [inferkit_featurestore::Value; 3] = values;
    store.write(&group, &[Row::new("u", UNIX_EPOCH, values)]).await.unwrap();
    Fixture { driver, store, group, key: format!("{prefix}:feature:user:{{u}}:g") }
}

impl Fixture {
    async fn read(&self) -> Result<Matrix, Error> {
        let input = ModelInput::builder().all(&self.group).build().unwrap();
        let read = self.store.read(&input, &[Entity::new("u")]).await;
        let record = self.store.record(&self.group, &Entity::new("u")).await;
        assert_eq!(read.is_ok(), record.is_ok());
        read
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_packed_rows_are_told() {
    let f = fixture(Layout::Packed).await;
    let good: Vec<u8> = f.driver.query(Cmd::new("GET").key(&f.key)).await.unwrap();
    assert_eq!(f.read().await.unwrap().values(), [1.5, 7.0, 0.5, 0.25]);
    let with = |place: usize, byte: u8| {
        let mut row = good.clone();
        if let Some(place) = row.get_mut(place) {
            *place = byte;
        }
        row
    };
    for (row, says) in [
        (Vec::new(), "shorter than a header"),
        (b"something else entirely".to_vec(), "no row of features"),
        (with(0, 2), "format is 2"),
        (with(4, 0), "no features or too many"),
        (good.get(..good.len() - 1).unwrap().to_vec(), "ends before its last cell"),
    ] {
        f.driver.query::<()>(Cmd::new("SET").key(&f.key).arg(&row)).await.unwrap();
        let error = f.read().await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says}");
    }
    let other = with(2, good.get(2).unwrap().wrapping_add(1));
    f.driver.query::<()>(Cmd::new("SET").key(&f.key).arg(&other)).await.unwrap();
    assert!(matches!(f.read().await.unwrap_err(), Error::OtherLineage { .. }));
    f.driver.query::<u64>(Cmd::new("DEL").key(&f.key)).await.unwrap();
    f.driver.query::<u64>(Cmd::new("HSET").key(&f.key).args(["x", "1"])).await.unwrap();
    // What is no string is nothing to `MGET`; the others say so.
    let record = f.store.record(&f.group, &Entity::new("u")).await;
    assert!(matches!(record, Err(Error::Backend(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_hashes_are_told() {
    let f = fixture(Layout::Hash).await;
    assert_eq!(f.read().await.unwrap().values(), [1.5, 7.0, 0.5, 0.25]);
    for (field, good, bad) in [
        ("x", &b"1.5"[..], &b"one"[..]),
        ("n", b"7", b"7.5"),
        ("v", b"\0\0\0\x3f\0\0\x80\x3e", b"\0\0\0\x3f"),
        ("_time", b"0", b"yesterday"),
    ] {
        let set = async |value: &[u8]| {
            let cmd = Cmd::new("HSET").key(&f.key).arg(field).arg(value);
            f.driver.query::<u64>(cmd).await.unwrap();
        };
        set(bad).await;
        let error = f.read().await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{field}: {error}");
        set(good).await;
        f.read().await.unwrap();
    }
}
