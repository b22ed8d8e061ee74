//! Filters on real servers: every value means itself, and every tree means what it means in memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![cfg(feature = "redis")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use inferkit_core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::{
    Document, Error, Field, Filter, Find, MAX_FILTER_DEPTH, MemoryVectorIndex, Page,
    RedisVectorIndex, Rendering, Schema, Text, VectorIndex, VectorIndexExt as _,
};
use proptest::prelude::*;

async fn driver(flavor: Flavor) -> DynDriver {
    let config = PoolConfig::single(Server::shared(flavor).unwrap().url()).unwrap();
    let config = config.with_timeout(Duration::from_secs(20));
    Pool::connect_with(config).await.unwrap().into_driver()
}

fn schema() -> Schema {
    let unique = unique_prefix();
    Schema::builder(
        format!("idx-{unique}"),
        format!("{unique}:"),
        Field::tag("tag").index_missing(),
    )
    .field(Field::tag("loose").case_insensitive().separated_by(','))
    .field(Field::numeric("number").index_missing())
    .field(Field::text("text").no_stem())
    .build()
    .unwrap()
}

async fn fresh(flavor: Flavor) -> RedisVectorIndex {
    let index = RedisVectorIndex::new(driver(flavor).await, schema());
    index.ensure_index().await.unwrap();
    index
}

/// The ids that a filter considers, as the index says.
async fn found(index: &dyn VectorIndex, filter: &Filter) -> BTreeSet<String> {
    let find = Find::new(filter.clone()).page(0, 10_000).unwrap();
    let page = index.find(&find).await.unwrap_or_else(|error| panic!("{filter:?}: {error}"));
    page.records.iter().map(|record| index.id(&record.key).unwrap()).collect()
}

/// The same with the values in the text of the query; `None` if one of them cannot be escaped.
async fn found_literally(index: &RedisVectorIndex, filter: &Filter) -> Option<BTreeSet<String>> {
    let rendered = filter.render(index.schema(), Rendering::Literal).ok()?;
    assert!(rendered.params.is_empty());
    let cmd = Cmd::new("FT.SEARCH").key(index.schema().index()).arg(&rendered.text);
    let cmd = cmd.args(["RETURN", "1", "tag", "LIMIT", "0", "10000", "DIALECT", "2"]);
    let page: Page =
        index.driver().query(cmd).await.unwrap_or_else(|error| panic!("{filter:?}: {error}"));
    Some(page.records.iter().map(|record| index.id(&record.key).unwrap()).collect())
}

/// Characters that mean something to some syntax on the way.
fn nasty() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::sample::select("|{}()[]<>@:;,.!?*%$&#-+=~^/\\\"'`_ ".chars().collect::<Vec<_>>()),
        3 => prop::sample::select("abAB01".chars().collect::<Vec<_>>()),
        1 => prop::sample::select("é中💥ß\t\n\r\u{1}\u{7f}\u{2028}".chars().collect::<Vec<_>>()),
    ];
    prop_oneof![
        8 => prop::collection::vec(character, 1..8).prop_map(String::from_iter),
        1 => prop::sample::select(vec!["*", "|", "$f0", "-", "(", "a*", "__key", "NOT", "inf", "\\", "%%", "w'a*'"])
            .prop_map(str::to_owned),
        1 => (1000_usize..4000).prop_map(|length| "x y|".repeat(length / 4)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_tag_is_found_by_itself_and_by_nothing_else(tags in prop::collection::btree_set(nasty(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for flavor in [Flavor::Redis, Flavor::Valkey] {
                let index = fresh(flavor).await;
                for tag in &tags {
                    let document = Document::new(tag).with("tag", tag.as_str());
                    let stored = index.put(&document).await;
                    let Ok(filter) = Filter::tag("tag", tag) else {
                        assert!(matches!(stored, Err(Error::InvalidField { .. })), "{tag:?}");
                        continue;
                    };
                    stored.unwrap();
                    let itself = BTreeSet::from([tag.clone()]);
                    assert_eq!(found(&index, &filter).await, itself, "{tag:?}");
                    if let Ok(prefix) = Filter::tag_prefix("tag", tag) {
                        let longer: BTreeSet<String> =
                            tags.iter().filter(|other| other.starts_with(tag.as_str())).cloned().collect();
                        let found = found(&index, &prefix).await;
                        assert!(found.contains(tag) && found.is_subset(&longer), "{tag:?}*");
                    }
                    if let Some(literally) = found_literally(&index, &filter).await {
                        assert_eq!(literally, itself, "{tag:?} as a literal");
                    }
                }
                let stored: Vec<&String> =
                    tags.iter().filter(|tag| Filter::tag("tag", tag.as_str()).is_ok()).collect();
                for tag in &stored {
                    let others = !Filter::tag("tag", tag.as_str()).unwrap();
                    assert_eq!(found(&index, &others).await.len(), stored.len() - 1, "{tag:?}");
                }
                if !stored.is_empty() {
                    let all = Filter::any_of("tag", stored.iter().map(|tag| tag.as_str())).unwrap();
                    assert_eq!(found(&index, &all).await.len(), stored.len());
                }
                index.drop_index().await.unwrap();
            }
        });
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "red", "Red", "shoe", "shoes", "the", "blue_1", "schön", "3", "x-y", "car",
    ])
}

fn any_document() -> impl Strategy<Value = Document> {
    let numbers = prop::sample::select(vec![-2.5, -1.0, 0.0, 0.5, 1.0, 3.0, 1e9]);
    (
        prop::option::of(prop::collection::vec(word(), 1..3)),
        prop::option::of(prop::collection::vec(word(), 1..3)),
        prop::option::of(numbers),
        prop::option::of(prop::collection::vec(word(), 1..6)),
    )
        .prop_map(|(tag, loose, number, text)| {
            let mut document = Document::new("x").with("always", 1);
            if let Some(tags) = tag {
                document = document.with_tags("tag", tags);
            }
            if let Some(tags) = loose {
                document = document.with_tags("loose", tags);
            }
            if let Some(number) = number {
                document = document.with("number", number);
            }
            match text {
                Some(words) => document.with("text", words.join(", ")),
                None => document,
            }
        })
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let bound = prop::sample::select(vec![-2.5, -1.0, 0.0, 0.5, 1.0, 3.0]);
    let leaf = prop_oneof![
        prop::collection::vec(word(), 1..3).prop_map(|tags| Filter::any_of("tag", tags)),
        prop::collection::vec(word(), 1..3).prop_map(|tags| Filter::any_of("loose", tags)),
        prop::sample::select(vec!["re", "sh", "sch", "blue_"])
            .prop_map(|start| Filter::tag_prefix("tag", start)),
        bound.clone().prop_map(|bound| Filter::number("number", bound..)),
        bound.clone().prop_map(|bound| Filter::number("number", ..bound)),
        bound.clone().prop_map(|bound| Filter::number("number", bound..=bound)),
        bound.prop_map(|bound| Filter::number("number", -2.0..=bound.max(-2.0))),
        prop::collection::vec(word(), 1..3)
            .prop_map(|words| Filter::text("text", Text::all(words.join(" ")))),
        prop::collection::vec(word(), 1..3)
            .prop_map(|words| Filter::text("text", Text::any(words.join(" ")))),
        prop::collection::vec(word(), 1..3)
            .prop_map(|words| Filter::text("text", Text::phrase(words.join(" ")))),
        prop::sample::select(vec!["re", "sho", "ca"])
            .prop_map(|start| Filter::text("text", Text::prefix(start))),
        prop::sample::select(vec!["tag", "number"]).prop_map(Filter::missing),
    ];
    let leaf = leaf.prop_filter_map("a filter", Result::ok);
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            inner.prop_map(|a| !a),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_tree_means_the_same_on_the_server_and_in_memory(
        documents in prop::collection::vec(any_document(), 1..25),
        filters in prop::collection::vec(any_filter(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for flavor in [Flavor::Redis, Flavor::Valkey] {
                let index = fresh(flavor).await;
                let memory = MemoryVectorIndex::new(index.schema().clone());
                for (number, document) in documents.iter().enumerate() {
                    let mut numbered = Document::new(number.to_string());
                    for (name, value) in document.fields() {
                        numbered = numbered.with(name.to_owned(), value.clone());
                    }
                    index.put(&numbered).await.unwrap();
                    memory.put(&numbered).await.unwrap();
                }
                for filter in &filters {
                    // Only stop words, or what negates everything.
                    let Ok(()) = filter.check(index.schema()) else { continue };
                    let expected = found(&memory, filter).await;
                    assert_eq!(found(&index, filter).await, expected, "{filter:?} on {flavor:?}");
                    assert_eq!(index.count(filter).await.unwrap(), expected.len() as u64);
                    let literally = found_literally(&index, filter).await;
                    assert_eq!(literally, Some(expected), "{filter:?} as a literal");
                }
                index.drop_index().await.unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bad_values_of_tags_are_refused_or_meant() {
    let index = fresh(Flavor::Redis).await;
    // What the bare server finds for these with the values in the text: another document, or none.
    for tag in [
        "ab cd",
        "ab!cd",
        "ab|cd",
        "gpt-4",
        "New York, Boston",
        "a}b",
        "{x}",
        "ab`cd",
        "ab\tcd",
        "ab\u{2}cd",
    ] {
        index.put(&Document::new(tag).with("tag", tag)).await.unwrap();
    }
    for tag in [
        "ab cd",
        "ab!cd",
        "ab|cd",
        "gpt-4",
        "New York, Boston",
        "a}b",
        "{x}",
        "ab`cd",
        "ab\tcd",
        "ab\u{2}cd",
    ] {
        let itself = BTreeSet::from([tag.to_owned()]);
        assert_eq!(found(&index, &Filter::tag("tag", tag).unwrap()).await, itself, "{tag:?}");
    }
    for tag in ["", " a", "a ", "\ta", "a\n", "a\0b"] {
        let refused = Filter::tag("tag", tag).unwrap_err();
        let typed =
            matches!(refused, Error::EmptyFilterValue { .. } | Error::InvalidFilterValue { .. });
        assert!(typed, "{tag:?}: {refused}");
    }
    let parted = Filter::tag("loose", "a,b").unwrap();
    assert!(matches!(index.count(&parted).await, Err(Error::InvalidFilterValue { .. })));
    let none: [&str; 0] = [];
    assert!(matches!(Filter::any_of("tag", none), Err(Error::EmptyFilterValue { .. })));
    assert!(matches!(Filter::tag_prefix("tag", "a"), Err(Error::InvalidFilterValue { .. })));
    assert!(matches!(
        Filter::text("text", Text::all(" .,! ")),
        Err(Error::EmptyFilterValue { .. })
    ));
    let stop = Filter::text("text", Text::all("the")).unwrap();
    assert!(matches!(index.count(&stop).await, Err(Error::InvalidFilterValue { .. })));
    let twice = Filter::text("text", Text::phrase("bora the bora")).unwrap();
    assert!(matches!(index.count(&twice).await, Err(Error::InvalidFilterValue { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_times_are_exact() {
    let index = fresh(Flavor::Redis).await;
    for number in [-1.5, 0.0, 1.0, 1.5, 1e300] {
        index.put(&Document::new(number.to_string()).with("number", number)).await.unwrap();
    }
    let count = async |filter: Result<Filter, Error>| index.count(&filter.unwrap()).await.unwrap();
    assert_eq!(count(Filter::number("number", 1.0..1.5)).await, 1);
    assert_eq!(count(Filter::number("number", 1.0..=1.5)).await, 2);
    assert_eq!(count(Filter::number("number", 1.0..)).await, 3);
    assert_eq!(count(Filter::number("number", ..0.0)).await, 1);
    let above = (std::ops::Bound::Excluded(1.0), std::ops::Bound::Unbounded);
    assert_eq!(count(Filter::number("number", above)).await, 2);
    for range in [(f64::NAN, 1.0), (2.0, 1.0), (f64::NEG_INFINITY, 1.0)] {
        let refused = Filter::number("number", range.0..=range.1);
        assert!(matches!(refused, Err(Error::InvalidFilterValue { .. })), "{range:?}");
    }
    assert!(matches!(Filter::number("number", ..), Err(Error::InvalidFilterValue { .. })));

    let noon = UNIX_EPOCH + Duration::new(1_700_000_000, 250_000_000);
    index.put(&Document::new("noon").with("number", "1700000000.25")).await.unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(count(Filter::time("number", noon..=noon)).await, 1);
    assert_eq!(count(Filter::time("number", noon - second..noon)).await, 0);
    assert_eq!(count(Filter::time("number", noon..noon + second)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_does_not_fit_the_schema_is_refused() {
    let memory: Arc<dyn VectorIndex> = Arc::new(MemoryVectorIndex::new(schema()));
    let redis: Arc<dyn VectorIndex> = Arc::new(fresh(Flavor::Redis).await);
    for index in [memory, redis] {
        let error = async |filter: Filter| index.count(&filter).await.unwrap_err();
        let unknown = error(Filter::tag("nowhere", "x").unwrap()).await;
        assert!(matches!(unknown, Error::UnknownField { .. }), "{unknown}");
        let kind = error(Filter::tag("number", "x").unwrap()).await;
        assert!(matches!(kind, Error::FieldKindMismatch { expected: "TAG", .. }), "{kind}");
        let kind = error(Filter::number("tag", 1.0..).unwrap()).await;
        assert!(matches!(kind, Error::FieldKindMismatch { expected: "NUMERIC", .. }), "{kind}");
        let missing = error(Filter::missing("text").unwrap()).await;
        assert!(matches!(missing, Error::MissingNotIndexed { .. }), "{missing}");
        let nothing = error(!Filter::all()).await;
        assert!(matches!(nothing, Error::MatchesNothing), "{nothing}");
        let mut deep = Filter::tag("tag", "x").unwrap();
        for _ in 0..MAX_FILTER_DEPTH {
            deep = !(deep & Filter::tag("tag", "y").unwrap());
        }
        assert!(matches!(error(deep).await, Error::InvalidParameter { .. }));
    }
    let everything = Filter::all() | Filter::tag("tag", "x").unwrap();
    assert!(everything.is_all());
    let narrow = Filter::all() & Filter::tag("tag", "x").unwrap();
    assert_eq!(narrow, Filter::tag("tag", "x").unwrap());
    assert_eq!(format!("{:?}", !narrow), "Filter !tag: any of 1");
}
