//! Schemas on a real server, in YAML, and the engines that take them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(all(feature = "redis", feature = "yaml"))]

use inferkit_core::{DynDriver, Pool, PoolConfig, Protocol};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::{
    Algorithm, Capability, Compression, DataType, Engine, Error, Field, Hnsw, Metric, Phonetic,
    RedisVectorIndex, Schema, SvsVamana, VectorField,
};
use proptest::prelude::*;

const PRODUCTS: &str = include_str!("products.yaml");

async fn driver(flavor: Flavor, protocol: Protocol) -> DynDriver {
    let config = PoolConfig::single(Server::shared(flavor).unwrap().url()).unwrap();
    Pool::connect_with(config.with_protocol(protocol)).await.unwrap().into_driver()
}

fn option(field: Field, option: u8) -> Field {
    match option {
        0 => field.sortable(),
        1 => field.index_missing(),
        2 => field.index_empty(),
        3 => field.suffix_trie(),
        4 => field.no_stem(),
        5 => field.case_insensitive(),
        6 => field.separated_by(';'),
        7 => field.weight(2.5),
        _ => field.phonetic(Phonetic::English),
    }
}

/// Fields with options that may or may not fit them.
fn any_field() -> impl Strategy<Value = Field> {
    let metric = prop_oneof![Just(Metric::Cosine), Just(Metric::InnerProduct), Just(Metric::L2)];
    let data_type = prop_oneof![
        Just(DataType::F32),
        Just(DataType::F64),
        Just(DataType::F16),
        Just(DataType::BF16),
    ];
    let algorithm = prop_oneof![
        Just(Algorithm::Flat),
        (2_usize..64, 1_usize..400, 1_usize..100).prop_map(|(m, construction, runtime)| {
            let hnsw = Hnsw::new().with_m(m).with_ef_construction(construction);
            Algorithm::Hnsw(hnsw.with_ef_runtime(runtime))
        }),
    ];
    let vector = (1_usize..2000, algorithm, metric, data_type, prop::option::of(1_usize..1000));
    let vector = vector.prop_map(|(dimensions, algorithm, metric, data_type, cap)| {
        let field = VectorField::new("x", dimensions, algorithm);
        let field = Field::from(field.with_metric(metric).with_data_type(data_type));
        match cap {
            Some(cap) => field.with_initial_cap(cap),
            None => field,
        }
    });
    let plain = prop_oneof![
        Just(Field::tag("x")),
        Just(Field::numeric("x")),
        Just(Field::text("x")),
        vector,
    ];
    (plain, prop::collection::btree_set(0_u8..9, 0..4))
        .prop_map(|(field, options)| options.into_iter().fold(field, option))
}

/// Schemas that can be built; their fields are called `f0`, `f1`, ...
fn any_schema() -> impl Strategy<Value = Schema> {
    (prop::collection::vec(any_field(), 1..6), any::<bool>()).prop_filter_map(
        "options fit",
        |(fields, stop_words)| {
            let named = |(place, field): (usize, Field)| {
                // A field takes a name of its own through the format, which has names as text.
                let schema = Schema::builder("i", "p:", field).build().ok()?;
                let yaml = schema.to_yaml().ok()?.replace("name: x", &format!("name: f{place}"));
                Schema::from_yaml(&yaml).ok()?.fields().first().cloned()
            };
            let fields: Option<Vec<Field>> = fields.into_iter().enumerate().map(named).collect();
            let mut fields = fields?.into_iter();
            let builder = Schema::builder("index", "prefix:", fields.next()?);
            let builder = fields.fold(builder, |builder, field| builder.field(field));
            if stop_words { builder } else { builder.without_stop_words() }.build().ok()
        },
    )
}

proptest! {
    #[test]
    fn a_schema_comes_back_from_yaml_as_it_was(schema in any_schema()) {
        let yaml = schema.to_yaml().unwrap();
        prop_assert_eq!(Schema::from_yaml(&yaml).unwrap(), schema, "{}", yaml);
    }

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = Schema::from_yaml(&text);
        let _ = Schema::from_yaml(&format!("version: '0.1.0'\nindex: {{name: {text}}}\nfields: [{text}]"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_server_has_the_index_that_was_asked_for(schema in any_schema(), other in any_schema()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let unique = unique_prefix();
                let name = format!("idx-{unique}");
                let of = |schema: &Schema| {
                    schema.with_index(&name).unwrap().with_prefix(&format!("{unique}:")).unwrap()
                };
                let driver = driver(Flavor::Redis, protocol).await;
                let index = RedisVectorIndex::new(std::sync::Arc::clone(&driver), of(&schema));
                assert!(index.ensure_index().await.unwrap());
                assert!(!index.ensure_index().await.unwrap(), "no difference to itself");
                assert_eq!(index.info().await.unwrap().difference(index.schema()), None);
                let different = RedisVectorIndex::new(driver, of(&other)).ensure_index().await;
                // Parameters that only trade speed for recall may differ.
                if let Ok(created) = different {
                    assert!(!created);
                    let kinds = |schema: &Schema| {
                        schema.fields().iter().map(|field| field.name().to_owned()).collect::<Vec<_>>()
                    };
                    assert_eq!(kinds(&schema), kinds(&other));
                } else {
                    assert!(matches!(different, Err(Error::SchemaMismatch { .. })));
                }
                index.drop_index().await.unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_changed_option_is_a_difference() {
    let driver = driver(Flavor::Redis, Protocol::Resp2).await;
    let base = || Schema::builder("x", "x:", Field::tag("t")).field(Field::text("s"));
    let variants = [
        base().field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").case_insensitive())
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").separated_by(','))
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").sortable())
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").index_missing())
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").index_empty())
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t").suffix_trie())
            .field(Field::text("s"))
            .field(Field::flat("v", 4)),
        Schema::builder("x", "x:", Field::tag("t"))
            .field(Field::text("s").no_stem())
            .field(Field::flat("v", 4)),
        base().field(Field::flat("v", 4).with_metric(Metric::L2)),
        base().field(Field::flat("v", 4).with_data_type(DataType::F16)),
        base().field(Field::flat("v", 5)),
        base().field(Field::hnsw("v", 4, Hnsw::new())),
        base().field(Field::flat("w", 4)),
    ]
    .map(|builder| builder.build().unwrap());
    for (place, schema) in variants.iter().enumerate() {
        let unique = unique_prefix();
        let of = |schema: &Schema| {
            let named = schema.with_index(&format!("idx-{unique}")).unwrap();
            named.with_prefix(&format!("{unique}:")).unwrap()
        };
        let index = RedisVectorIndex::new(std::sync::Arc::clone(&driver), of(schema));
        index.ensure_index().await.unwrap();
        let info = index.info().await.unwrap();
        for (other_place, other) in variants.iter().enumerate() {
            let difference = info.difference(&of(other));
            assert_eq!(
                difference.is_none(),
                place == other_place,
                "{place} {other_place}: {difference:?}"
            );
        }
        index.drop_index().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_that_run_here_are_recognized() {
    for (flavor, engine) in
        [(Flavor::Redis, Some((2, 10))), (Flavor::Valkey, Some((2, 10))), (Flavor::Plain, None)]
    {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let driver = driver(flavor, protocol).await;
            let found = Engine::probe(&driver).await.unwrap();
            match (found, engine) {
                (Engine::RediSearch { version: (major, minor, _), .. }, Some(expected)) => {
                    assert_eq!((major, minor), expected);
                    assert!(found.supports(Capability::Aliases));
                    assert!(!found.supports(Capability::SvsVamana));
                }
                (Engine::None, None) => {}
                other => panic!("{flavor:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_file_of_redisvl_is_read() {
    let schema = Schema::from_yaml(PRODUCTS).unwrap();
    assert_eq!((schema.index(), schema.prefix()), ("products", "product:"));
    let color = schema.field("color").unwrap();
    assert!(!color.is_case_sensitive() && color.separator() == ',');
    let brand = schema.field("brand").unwrap();
    assert!(brand.is_case_sensitive() && brand.separator() == '|' && brand.is_sortable());
    let parts: Vec<String> =
        schema.create_cmd().iter().map(|part| part.escape_ascii().to_string()).collect();
    assert_eq!(
        parts.join(" "),
        "FT.CREATE products ON HASH PREFIX 1 product: STOPWORDS 0 SCHEMA \
         color TAG SEPARATOR , \
         brand TAG SEPARATOR | CASESENSITIVE SORTABLE UNF \
         title TEXT WEIGHT 2 NOSTEM PHONETIC dm:en WITHSUFFIXTRIE INDEXEMPTY INDEXMISSING SORTABLE UNF \
         price NUMERIC SORTABLE UNF \
         embedding VECTOR HNSW 14 TYPE FLOAT16 DIM 384 DISTANCE_METRIC COSINE INITIAL_CAP 1000 M 24 \
         EF_CONSTRUCTION 150 EF_RUNTIME 20"
    );
}

#[test]
fn newer_algorithms_are_rendered() {
    let svs = SvsVamana::new().with_compression(Compression::LeanVec4x8).with_graph_max_degree(40);
    let field = VectorField::new("v", 768, Algorithm::SvsVamana(svs)).with_data_type(DataType::F16);
    let bytes = VectorField::flat("b", 16).with_data_type(DataType::I8).with_metric(Metric::L2);
    let schema = Schema::builder("i", "p:", field).vector(bytes).build().unwrap();
    let parts: Vec<String> =
        schema.create_cmd().iter().map(|part| part.escape_ascii().to_string()).collect();
    assert_eq!(
        parts.join(" "),
        "FT.CREATE i ON HASH PREFIX 1 p: SCHEMA \
         v VECTOR SVS-VAMANA 14 TYPE FLOAT16 DIM 768 DISTANCE_METRIC COSINE COMPRESSION LeanVec4x8 \
         CONSTRUCTION_WINDOW_SIZE 200 GRAPH_MAX_DEGREE 40 SEARCH_WINDOW_SIZE 10 \
         b VECTOR FLAT 6 TYPE INT8 DIM 16 DISTANCE_METRIC L2"
    );
    let wrong = VectorField::new("v", 8, Algorithm::SvsVamana(svs)).with_data_type(DataType::F64);
    let wrong = Schema::builder("i", "p:", wrong).build();
    assert!(matches!(wrong, Err(Error::InvalidOption { .. })), "{wrong:?}");
}

#[test]
fn what_cannot_be_read_is_said_and_where() {
    let with = |line: &str| {
        format!("version: '0.1.0'\nindex: {{name: i, prefix: p}}\nfields:\n  - {line}\n")
    };
    for (text, said) in [
        (with("{name: g, type: geo}"), "`g`: type"),
        (with("{name: t, type: tag, attrs: {no_index: true}}"), "`t`: no_index"),
        (with("{name: t, type: tag, attrs: {sortabel: true}}"), "sortabel"),
        (with("{name: n, type: numeric, attrs: {dims: 3}}"), "`n`: it has attributes of a vector"),
        (with("{name: v, type: vector, attrs: {algorithm: flat}}"), "`v`: dims"),
        (with("{name: v, type: vector, attrs: {dims: 3}}"), "`v`: algorithm"),
        (with("{name: v, type: vector, attrs: {dims: 3, algorithm: flat, m: 3}}"), "is flat"),
        (
            with("{name: v, type: vector, attrs: {dims: 3, algorithm: flat, datatype: f8}}"),
            "datatype",
        ),
        (with("{name: s, type: text, attrs: {phonetic_matcher: dm:xx}}"), "phonetic_matcher"),
        (with("{name: t, type: tag}").replace("0.1.0", "0.2.0"), "version"),
        (with("{name: t, type: tag}").replace("prefix: p", "prefix: [p, q]"), "one prefix"),
        (with("{name: t, type: tag}").replace("name: i,", "name: i, storage_type: json,"), "hash"),
        (
            with("{name: t, type: tag}").replace("name: i,", "name: i, stopwords: [the],"),
            "stopwords",
        ),
        ("fields: []".to_owned(), "missing field"),
        (String::new(), "YAML"),
    ] {
        let error = Schema::from_yaml(&text).unwrap_err();
        assert!(
            matches!(error, Error::Yaml { .. }) && error.to_string().contains(said),
            "{text}: {error}"
        );
    }
    let twice = with("{name: t, type: tag}\n  - {name: t, type: text}");
    assert!(matches!(Schema::from_yaml(&twice), Err(Error::DuplicateField { .. })));
    let name = with("{name: \"a:{b}\", type: tag}");
    assert!(matches!(Schema::from_yaml(&name), Err(Error::InvalidName { .. })));
}
