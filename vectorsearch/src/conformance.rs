//! The suite that every [`VectorIndex`] passes; list it with
//! [`vector_index_conformance!`](crate::vector_index_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a case fails by a panic")]

use std::sync::Arc;
use std::time::Duration;

use crate::{
    Bulk, Distance, Document, Error, Filter, Find, Hybrid, Knn, MAX_K, Order, Query, Range, Schema,
    SearchResult, TenantIndex, Text, Vector, VectorField, VectorIndex, VectorIndexExt as _,
};

/// The schema of the indexes that the suite is run on: searched with `field`, a vector of three dimensions named `v`.
///
/// # Errors
///
/// If a name is not one.
pub fn schema(index: &str, prefix: &str, field: VectorField) -> crate::Result<Schema> {
    Schema::builder(index, prefix, field).tag("color").numeric("price").text("title").build()
}

/// Names a test per case, of all cases but
/// [`the_most_relevant_come_first`](crate::conformance::the_most_relevant_come_first), which is for indexes that rank
/// words and can be named after a colon; `$make` is an `async fn` that returns an empty index of
/// [`schema`](crate::conformance::schema).
#[macro_export]
macro_rules! vector_index_conformance {
    ($make:path) => {
        $crate::vector_index_conformance! { $make:
            the_nearest_come_first, filters_hold, a_put_replaces_everything, a_removed_document_is_gone,
            documents_read_back_as_they_were, any_id_is_its_own, documents_that_do_not_fit_change_nothing,
            queries_that_do_not_fit_are_refused, a_range_ends_at_its_radius, many_searches_answer_in_order,
            pages_cover_everything_once, counts_agree_with_pages, removals_by_filter_are_guarded,
            updates_by_filter_keep_the_rest, words_and_vectors_fuse, documents_expire, a_load_reports_progress,
            projections_read_as_structs, tags_are_found_one_by_one, tenants_are_kept_apart,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let index: ::std::sync::Arc<dyn $crate::VectorIndex> = ::std::sync::Arc::new($make().await);
            $crate::conformance::$case(&index).await;
        }
    )*};
}

fn vector(angle: f32) -> Vector {
    let (sine, cosine) = angle.to_radians().sin_cos();
    Vector::new([cosine, sine, 0.0]).unwrap()
}

fn document(id: &str, angle: f32, color: &str, price: f64) -> Document {
    Document::new(id).with("color", color).with("price", price).with("v", vector(angle))
}

fn knn(angle: f32, k: usize, filter: Filter) -> Knn {
    Knn::new("v", vector(angle), k, filter).unwrap()
}

fn red() -> Filter {
    Filter::tag("color", "red").unwrap()
}

fn ids(index: &dyn VectorIndex, result: &SearchResult) -> Vec<String> {
    assert!(!result.partial && result.unusable == 0, "{result:?}");
    result.hits.iter().map(|hit| index.id(&hit.key).unwrap()).collect()
}

/// Ten documents, 10 degrees apart, red and blue in turn, with prices from 0 to 9.
async fn ten(index: &Arc<dyn VectorIndex>) {
    let documents = (0..10_u8).map(|n| {
        let color = if n.is_multiple_of(2) { "red" } else { "blue" };
        document(&n.to_string(), f32::from(n) * 10.0, color, f64::from(n))
            .with("title", format!("shoe number{n} {color}"))
    });
    index.put_many(&documents.collect::<Vec<_>>()).await.unwrap();
}

/// Hits come by distance, with the distance of the metric.
pub async fn the_nearest_come_first(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let result = index.knn(&knn(31.0, 4, Filter::all())).await.unwrap();
    assert_eq!(ids(index, &result), ["3", "4", "2", "5"]);
    let nearest = result.nearest().unwrap();
    assert!((nearest.distance.as_f64() - (1.0 - 1_f64.to_radians().cos())).abs() < 1e-6);
    let all = index.knn(&knn(0.0, 100, Filter::all())).await.unwrap();
    assert_eq!(all.hits.len(), 10);
}

/// Only what passes the filter is a hit, and k is filled from further away.
pub async fn filters_hold(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let result = index.knn(&knn(31.0, 3, red())).await.unwrap();
    assert_eq!(ids(index, &result), ["4", "2", "6"]);
    let none = Filter::tag("color", "green").unwrap();
    assert_eq!(index.knn(&knn(31.0, 3, none)).await.unwrap().hits, []);
}

/// Nothing of an older document is left, its time to live included.
pub async fn a_put_replaces_everything(index: &Arc<dyn VectorIndex>) {
    let old =
        document("1", 0.0, "red", 1.0).with("note", "old").with_ttl(Duration::from_millis(60));
    index.put(&old).await.unwrap();
    index.put(&Document::new("1").with("price", 2).with("v", vector(90.0))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let record = index.get("1").await.unwrap().unwrap();
    assert_eq!((record.field("note"), record.field("color")), (None, None));
    assert_eq!(record.field("price").unwrap(), "2");
    assert_eq!(index.knn(&knn(0.0, 3, red())).await.unwrap().hits, []);
    assert_eq!(index.count(&Filter::all()).await.unwrap(), 1);
}

/// A removed document is neither found nor read.
pub async fn a_removed_document_is_gone(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    assert_eq!(index.remove_many(&["3", "nobody", "4"]).await.unwrap(), 2);
    assert!(!index.remove("3").await.unwrap());
    assert!(index.get("3").await.unwrap().is_none());
    let result = index.knn(&knn(31.0, 2, Filter::all())).await.unwrap();
    assert_eq!(ids(index, &result), ["2", "5"]);
    assert_eq!(index.remove_many(&[]).await.unwrap(), 0);
}

/// All fields come back, declared or not, in the order of the ids asked for.
pub async fn documents_read_back_as_they_were(index: &Arc<dyn VectorIndex>) {
    let bytes = vec![0_u8, 255, 13, 10, 0];
    index.put(&document("a", 0.0, "red", 1.5).with("raw", bytes.clone())).await.unwrap();
    let records = index.get_many(&["b", "a"]).await.unwrap();
    assert!(records[0].is_none());
    let record = records[1].as_ref().unwrap();
    assert_eq!(index.id(&record.key).unwrap(), "a");
    assert_eq!(record.field("raw").unwrap(), &bytes);
    assert_eq!(record.field("price").unwrap(), "1.5");
    assert_eq!(Vector::from_le_bytes(record.field("v").unwrap()).unwrap(), vector(0.0));
    let result = index.knn(&knn(0.0, 1, Filter::all()).returning(["raw"]).unwrap()).await.unwrap();
    assert_eq!(result.hits[0].field("raw").unwrap(), &bytes);
    assert_eq!(result.hits[0].field("price"), None);
}

/// Ids of any text neither collide nor leave the index.
pub async fn any_id_is_its_own(index: &Arc<dyn VectorIndex>) {
    let all = ["a", "A", "a:b", "a%3Ab", "a b", "{a}", "*", "é", "\n", "\0", "../x", "💥", "%"];
    let documents: Vec<Document> =
        all.iter().map(|id| document(id, 0.0, "red", 1.0).with("own", *id)).collect();
    index.put_many(&documents).await.unwrap();
    for (id, record) in all.iter().zip(index.get_many(&all).await.unwrap()) {
        let record = record.unwrap();
        assert_eq!(record.field("own").unwrap(), id.as_bytes());
        assert_eq!(index.id(&record.key).as_deref(), Some(*id));
    }
    assert_eq!(index.count(&Filter::all()).await.unwrap(), all.len() as u64);
    assert_eq!(index.id(b"elsewhere:1"), None);
}

/// A document that does not fit is refused before anything is written, and the older one stays.
pub async fn documents_that_do_not_fit_change_nothing(index: &Arc<dyn VectorIndex>) {
    index.put(&document("1", 0.0, "red", 1.0)).await.unwrap();
    let good = || document("1", 90.0, "blue", 2.0);
    let short = Vector::new([1.0]).unwrap();
    let long = "x".repeat(4096);
    for bad in [
        good().with("v", short),
        good().with("v", "text"),
        good().with("v", vec![0_u8; 12]),
        good().with("price", "cheap"),
        good().with("price", f64::NAN),
        good().with("price", f64::INFINITY),
        good().with("color", " red"),
        good().with("color", "re\0d"),
        good().with("color", long),
        good().with("color", vec![0xff_u8]),
        good().with_tags("color", ["red", ""]),
        good().with_tags("price", ["1"]),
        good().with("color", vector(1.0)),
        good().with("", "x"),
        good().with_ttl(Duration::ZERO),
        good().with_ttl(Duration::MAX),
        Document::new("1"),
        Document::new("").with("v", vector(0.0)),
    ] {
        let error = index.put_many(&[document("2", 0.0, "red", 1.0), bad]).await.unwrap_err();
        let fits = matches!(error, Error::InvalidField { .. } | Error::DimensionMismatch { .. });
        assert!(fits, "{error:?}");
    }
    assert!(index.get("2").await.unwrap().is_none());
    let result = index.knn(&knn(0.0, 5, red())).await.unwrap();
    assert_eq!(ids(index, &result), ["1"]);
}

/// Queries that do not fit the schema are errors that say so.
pub async fn queries_that_do_not_fit_are_refused(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let unknown = Knn::new("w", vector(0.0), 1, Filter::all()).unwrap();
    assert!(matches!(index.knn(&unknown).await, Err(Error::UnknownField { .. })));
    let tag = Knn::new("color", vector(0.0), 1, Filter::all()).unwrap();
    assert!(matches!(index.knn(&tag).await, Err(Error::FieldKindMismatch { .. })));
    let short = Knn::new("v", Vector::new([1.0]).unwrap(), 1, Filter::all()).unwrap();
    assert!(matches!(index.knn(&short).await, Err(Error::DimensionMismatch { .. })));
    let queries = [knn(0.0, 1, Filter::all()), short];
    let many = index.search_many(&queries.each_ref().map(Query::Knn)).await;
    assert!(matches!(many, Err(Error::DimensionMismatch { .. })));
    for k in [0, MAX_K + 1] {
        let query = Knn::new("v", vector(0.0), k, Filter::all());
        assert!(matches!(query, Err(Error::InvalidK { .. })));
    }
    let nowhere = Filter::tag("nowhere", "x").unwrap();
    assert!(matches!(index.count(&nowhere).await, Err(Error::UnknownField { .. })));
    let by_vector = Find::new(red()).sorted_by("v", Order::Ascending).unwrap();
    assert!(matches!(index.find(&by_vector).await, Err(Error::FieldKindMismatch { .. })));
}

/// A range holds what is near enough, the nearest first, and no more than its limit.
pub async fn a_range_ends_at_its_radius(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let range = |radius: f64, limit, filter| {
        Range::new("v", vector(30.0), Distance::new(radius).unwrap(), limit, filter).unwrap()
    };
    // 1 - cos(10°) is 0.0152, 1 - cos(20°) is 0.0603.
    let result = index.range(&range(0.02, 100, Filter::all())).await.unwrap();
    let mut found = ids(index, &result);
    found[1..].sort();
    assert_eq!(found, ["3", "2", "4"]);
    let result = index.range(&range(0.02, 1, Filter::all())).await.unwrap();
    assert_eq!(ids(index, &result), ["3"]);
    let mut red = ids(index, &index.range(&range(0.02, 100, red())).await.unwrap());
    red.sort();
    assert_eq!(red, ["2", "4"]);
    assert_eq!(index.range(&range(-1.0, 100, Filter::all())).await.unwrap().hits, []);
}

/// One result per query, in order.
pub async fn many_searches_answer_in_order(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let queries: Vec<Knn> =
        (0..10_u8).map(|n| knn(f32::from(n) * 10.0, 1, Filter::all())).collect();
    let queries: Vec<Query<'_>> = queries.iter().map(Query::from).collect();
    let results = index.search_many(&queries).await.unwrap();
    let found = results.into_iter().flat_map(|result| ids(index, &result.unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(index.search_many(&[]).await.unwrap().is_empty());
}

/// Sorted pages hold every document once.
pub async fn pages_cover_everything_once(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    for (order, expected) in [
        (Order::Ascending, ["0", "2", "4", "6", "8"]),
        (Order::Descending, ["8", "6", "4", "2", "0"]),
    ] {
        let mut found = Vec::new();
        for offset in [0, 2, 4, 6] {
            let find = Find::new(red()).sorted_by("price", order).unwrap();
            let find = find.page(offset, 2).unwrap().returning(["price"]).unwrap();
            let page = index.find(&find).await.unwrap();
            assert_eq!((page.total, page.partial, page.skipped), (5, false, 0));
            for record in page.records {
                let price = record.field("price").unwrap();
                let id = index.id(&record.key).unwrap();
                assert_eq!(price.as_ref(), id.as_bytes());
                found.push(id);
            }
        }
        assert_eq!(found, expected);
    }
    assert!(matches!(Find::new(red()).page(0, 0), Err(Error::InvalidParameter { .. })));
    assert!(matches!(Find::new(red()).page(0, MAX_K + 1), Err(Error::InvalidParameter { .. })));
}

/// A count is the total of the pages.
pub async fn counts_agree_with_pages(index: &Arc<dyn VectorIndex>) {
    assert_eq!(index.count(&Filter::all()).await.unwrap(), 0);
    ten(index).await;
    for (filter, expected) in [
        (Filter::all(), 10),
        (red(), 5),
        (Filter::any_of("color", ["red", "blue"]).unwrap(), 10),
        (Filter::tag("color", "green").unwrap(), 0),
    ] {
        assert_eq!(index.count(&filter).await.unwrap(), expected);
        assert_eq!(index.find(&Find::new(filter)).await.unwrap().total, expected);
    }
}

/// A removal by filter reaches what it says, and everything only if that is written out.
pub async fn removals_by_filter_are_guarded(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let all = Filter::all();
    assert!(matches!(index.remove_where(&all, Bulk::apply()).await, Err(Error::MatchesAll)));
    assert!(matches!(index.remove_where(&all, Bulk::dry_run()).await, Err(Error::MatchesAll)));
    let dry = index.remove_where(&red(), Bulk::dry_run()).await.unwrap();
    assert_eq!((dry.matched, dry.changed), (5, 0));
    assert_eq!(index.count(&all).await.unwrap(), 10);
    let done = index.remove_where(&red(), Bulk::apply()).await.unwrap();
    assert_eq!((done.matched, done.changed), (5, 5));
    assert_eq!((index.count(&red()).await.unwrap(), index.count(&all).await.unwrap()), (0, 5));
    let rest = index.remove_where(&all, Bulk::apply().allow_all()).await.unwrap();
    assert_eq!((rest.changed, index.count(&all).await.unwrap()), (5, 0));
}

/// An update by filter sets its fields and keeps the others.
pub async fn updates_by_filter_keep_the_rest(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let sale = [("price", 0.5.into()), ("note", "sale".into())];
    assert!(matches!(
        index.update_where(&Filter::all(), &sale, Bulk::apply()).await,
        Err(Error::MatchesAll)
    ));
    let bad = [("price", "cheap".into())];
    let error = index.update_where(&red(), &bad, Bulk::apply()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidField { .. }), "{error:?}");
    let error = index.update_where(&red(), &[], Bulk::apply()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidField { .. }), "{error:?}");
    let dry = index.update_where(&red(), &sale, Bulk::dry_run()).await.unwrap();
    assert_eq!((dry.matched, dry.changed), (5, 0));
    let done = index.update_where(&red(), &sale, Bulk::apply()).await.unwrap();
    assert_eq!((done.matched, done.changed), (5, 5));
    let record = index.get("4").await.unwrap().unwrap();
    assert_eq!(record.field("price").unwrap(), "0.5");
    assert_eq!(record.field("note").unwrap(), "sale");
    assert_eq!(record.field("color").unwrap(), "red");
    assert_eq!(index.get("5").await.unwrap().unwrap().field("note"), None);
    let result = index.knn(&knn(40.0, 1, red())).await.unwrap();
    assert_eq!(ids(index, &result), ["4"]);
}

/// A document that is good in both rankings comes before those that are good in one.
pub async fn words_and_vectors_fuse(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let near = knn(30.0, 3, Filter::all()).returning(["title"]).unwrap();
    let fused = index.hybrid(&Hybrid::new(red(), near).unwrap()).await.unwrap();
    assert_eq!(fused.hits.len(), 3);
    let best = &fused.hits[0];
    // Both are red and next to 30 degrees.
    assert!(["2", "4"].contains(&&*index.id(&best.key).unwrap()), "{fused:?}");
    assert!(best.distance.is_some() && best.text_score.is_some());
    assert!(best.fields.get("title").is_some());
    assert!(fused.hits.is_sorted_by(|a, b| b.score <= a.score));
}

/// By relevance a document with both words comes first, then the one with the rare word, then those with the common one.
pub async fn the_most_relevant_come_first(index: &Arc<dyn VectorIndex>) {
    let titled =
        |id: &str, title: &str| document(id, 0.0, "red", 1.0).with("title", title.to_owned());
    let mut documents: Vec<Document> =
        (0..12).map(|n| titled(&format!("a{n}"), "plain shoe")).collect();
    documents.extend((0..8).map(|n| titled(&format!("b{n}"), "plain boot")));
    documents.extend([titled("y", "crimson boot"), titled("z", "crimson shoe")]);
    index.put_many(&documents).await.unwrap();
    let words = Filter::text("title", Text::any("shoe crimson")).unwrap();
    let scored = Find::new(words.clone()).scored();
    let page = index.find(&scored.clone().page(0, 20).unwrap()).await.unwrap();
    let found: Vec<String> =
        page.records.iter().map(|record| index.id(&record.key).unwrap()).collect();
    assert_eq!((page.total, &found[..2]), (14, &["z".to_owned(), "y".to_owned()][..]));
    let scores: Vec<f64> = page.records.iter().map(|record| record.score.unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| b <= a), "{scores:?}");
    assert!(scores[1] < scores[0] && scores[2] < scores[1] && 0.0 < scores[13], "{scores:?}");
    let second = index.find(&scored.page(1, 1).unwrap()).await.unwrap();
    assert_eq!(index.id(&second.records[0].key).unwrap(), "y");
    let unscored = index.find(&Find::new(words)).await.unwrap();
    assert!(unscored.records.iter().all(|record| record.score.is_none()));
}

/// Expired documents are neither found nor read.
pub async fn documents_expire(index: &Arc<dyn VectorIndex>) {
    ten(index).await;
    let brief = document("brief", 30.0, "red", 1.0).with_ttl(Duration::from_millis(80));
    index.put(&brief).await.unwrap();
    let long = document("long", 30.5, "red", 1.0).with_ttl(Duration::from_secs(600));
    index.put(&long).await.unwrap();
    let found = ids(index, &index.knn(&knn(30.0, 2, red())).await.unwrap());
    assert!(found.contains(&"long".to_owned()), "{found:?}");
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(index.get("brief").await.unwrap().is_none());
    let result = index.knn(&knn(30.0, 4, Filter::all())).await.unwrap();
    let found = ids(index, &result);
    assert!(!found.contains(&"brief".to_owned()) && found.contains(&"long".to_owned()));
}

/// A load of many documents writes them all and says how far it is.
pub async fn a_load_reports_progress(index: &Arc<dyn VectorIndex>) {
    let documents = (0..1_200_u16).map(|n| document(&n.to_string(), f32::from(n), "red", 1.0));
    let mut seen = Vec::new();
    let written = index.load(documents, |count| seen.push(count)).await.unwrap();
    assert_eq!(written, 1_200);
    assert!(1 < seen.len() && seen.is_sorted() && seen.last() == Some(&1_200), "{seen:?}");
    assert_eq!(index.count(&red()).await.unwrap(), 1_200);
    let none = index.load([], |_| panic!("there is nothing to tell")).await;
    assert_eq!(none.unwrap(), 0);
}

/// Hits and records read as structs.
pub async fn projections_read_as_structs(index: &Arc<dyn VectorIndex>) {
    #[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
    struct Shoe {
        color: String,
        price: f64,
        sizes: Vec<u8>,
        brand: Option<String>,
    }
    let shoe = Shoe { color: "red".to_owned(), price: 79.5, sizes: vec![43, 44], brand: None };
    let stored = Document::new("1").with_fields(&shoe).unwrap().with("v", vector(0.0));
    index.put(&stored).await.unwrap();
    let query = knn(0.0, 1, red()).returning(["color", "price", "sizes", "brand"]).unwrap();
    let hit = index.knn(&query).await.unwrap().hits.remove(0);
    assert_eq!(hit.fields.read::<Shoe>().unwrap(), shoe);
    let record = index.get("1").await.unwrap().unwrap();
    assert_eq!(record.fields.read::<Shoe>().unwrap(), shoe);
    assert!(matches!(Document::new("1").with_fields(&[1, 2]), Err(Error::NotAMap { .. })));
}

/// A document with several tags is found by each.
pub async fn tags_are_found_one_by_one(index: &Arc<dyn VectorIndex>) {
    let document = Document::new("1").with_tags("color", ["red", "dark, blue", "a|b"]);
    index.put(&document.with("v", vector(0.0))).await.unwrap();
    for (tag, expected) in [("red", 1), ("dark, blue", 1), ("a|b", 1), ("dark", 0), ("a", 0)] {
        let filter = Filter::tag("color", tag).unwrap();
        assert_eq!(index.count(&filter).await.unwrap(), expected, "{tag}");
    }
}

/// Tenants of one index see and touch nothing of each other.
pub async fn tenants_are_kept_apart(index: &Arc<dyn VectorIndex>) {
    let acme = TenantIndex::new(Arc::clone(index), "color", "acme").unwrap();
    let other = TenantIndex::new(Arc::clone(index), "color", "other").unwrap();
    let own = |price: f64| Document::new("1").with("price", price).with("v", vector(0.0));
    acme.put(&own(1.0)).await.unwrap();
    assert!(other.get("1").await.unwrap().is_none());
    other.put(&own(2.0)).await.unwrap();
    other.put(&own(3.0).under("x")).await.unwrap();
    for (tenant, count, price) in [(&acme, 1, "1"), (&other, 2, "2")] {
        assert_eq!(tenant.count(&Filter::all()).await.unwrap(), count);
        let record = tenant.get("1").await.unwrap().unwrap();
        assert_eq!(record.field("price").unwrap(), price);
        let result = tenant.knn(&knn(0.0, 9, Filter::all())).await.unwrap();
        assert_eq!(result.hits.len() as u64, count);
        assert!(result.hits.iter().all(|hit| tenant.id(&hit.key).is_some()));
    }
    assert_eq!(acme.id(&other.get("1").await.unwrap().unwrap().key), None);
    assert!(matches!(
        acme.remove_where(&Filter::all(), Bulk::apply()).await,
        Err(Error::MatchesAll)
    ));
    let gone = acme.remove_where(&Filter::all(), Bulk::apply().allow_all()).await.unwrap();
    assert_eq!((gone.changed, other.count(&Filter::all()).await.unwrap()), (1, 2));
    let stolen = own(1.0).with("color", "other");
    assert!(matches!(acme.put(&stolen).await, Err(Error::InvalidField { .. })));
    let change = [("color", "other".into())];
    let error = acme.update_where(&Filter::all(), &change, Bulk::apply().allow_all()).await;
    assert!(matches!(error, Err(Error::InvalidField { .. })));
    assert!(matches!(
        TenantIndex::new(Arc::clone(index), "color", ""),
        Err(Error::EmptyFilterValue { .. })
    ));
    assert!(matches!(
        TenantIndex::new(Arc::clone(index), "price", "x"),
        Err(Error::FieldKindMismatch { .. })
    ));
}
