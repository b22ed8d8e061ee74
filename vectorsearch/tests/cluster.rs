//! Writing on a cluster: the servers here have no search in cluster mode, so documents are written and read, not searched.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]
#![cfg(feature = "redis")]

use std::collections::BTreeSet;
use std::time::Duration;

use inferkit_core::{DynDriver, Pool, PoolConfig};
use inferkit_localredis::{Cluster, unique_prefix};
use inferkit_vectorsearch::{
    Document, Error, RedisVectorIndex, Schema, Vector, VectorField, VectorIndex as _,
    VectorIndexExt as _,
};

async fn driver() -> DynDriver {
    let urls = Cluster::shared().unwrap().urls();
    let config = PoolConfig::cluster(&urls[..1]).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap().into_driver()
}

async fn index(prefix: &str) -> RedisVectorIndex {
    let schema = Schema::builder("docs", prefix, VectorField::flat("v", 2)).numeric("price");
    RedisVectorIndex::new(driver().await, schema.build().unwrap())
}

fn document(id: usize, price: usize) -> Document {
    let vector = Vector::new([1.0, 0.5]).unwrap();
    Document::new(id.to_string()).with("price", price).with("v", vector)
}

/// The prices of the documents 0 to `count`.
async fn prices(index: &RedisVectorIndex, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let records = index.get_many(&ids).await.unwrap();
    let price = |record: &inferkit_vectorsearch::Record| {
        String::from_utf8(record.field("price").unwrap().to_vec()).unwrap()
    };
    records.iter().map(|record| price(record.as_ref().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_documents_are_put_across_slots_and_replace_what_was_there() {
    let prefix = format!("{}:", unique_prefix());
    let index = index(&prefix).await;
    let cluster = Cluster::shared().unwrap();
    let slots: BTreeSet<u16> =
        (0..100).map(|id| cluster.slot_of(&format!("{prefix}{id}")).unwrap()).collect();
    assert!(50 < slots.len(), "the documents lie in many slots");

    let old = (0..100).map(|id| document(id, id).with("note", "old"));
    index.put_many(&old.collect::<Vec<_>>()).await.unwrap();
    let new: Vec<Document> = (0..100).map(|id| document(id, id + 1)).collect();
    index.put_many(&new).await.unwrap();
    let expected: Vec<String> = (1..=100_usize).map(|price| price.to_string()).collect();
    assert_eq!(prices(&index, 100).await, expected);
    assert_eq!(index.get("7").await.unwrap().unwrap().field("note"), None);
    assert_eq!(index.remove_many(&["0", "1", "2", "no"]).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_transaction_that_fits_one_slot_does_not_end_the_rest() {
    let index = index(&format!("{}:", unique_prefix())).await;
    // The first sixteen are the same document, and so in one slot; the others are not.
    let same = (0..16).map(|price| document(0, price));
    let others = (1..40).map(|id| document(id, 1));
    index.put_many(&same.chain(others).collect::<Vec<_>>()).await.unwrap();
    let found = prices(&index, 40).await;
    assert_eq!(found[0], "15", "the last one stays");
    assert!(found[1..].iter().all(|price| price == "1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_tag_keeps_the_documents_in_one_slot() {
    let prefix = format!("{{{}}}:", unique_prefix());
    let index = index(&prefix).await;
    let documents: Vec<Document> = (0..40).map(|id| document(id, 2)).collect();
    index.put_many(&documents).await.unwrap();
    assert!(prices(&index, 40).await.iter().all(|price| price == "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_do_not_fit_are_refused_before_any_is_written() {
    let index = index(&format!("{}:", unique_prefix())).await;
    let bad = document(2, 1).with("v", Vector::new([1.0]).unwrap());
    let error = index.put_many(&[document(1, 1), bad]).await.unwrap_err();
    assert!(matches!(error, Error::DimensionMismatch { .. }), "{error}");
    assert!(index.get("1").await.unwrap().is_none());
}
