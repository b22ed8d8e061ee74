//! The other branch of the platform: features, candidates by vector, a model chosen by experiment, results in tiers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use bytes::Bytes;
use inferkit::core::DynDriver;
use inferkit::core::keys::Namespace;
use inferkit::featurestore::{
    Column, DataType, Entity, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, Group,
    ModelInput, RedisFeatureStore, Row, Value,
};
use inferkit::modelserve::{
    ComputeError, Decision, Experiment, Found, ModelRouter as _, ModelRouterExt as _,
    OutcomeRecorder, Question, RedisModelRouter, RedisResultCache, Subject, Target, Tier,
    TieredResults,
};
use inferkit::vectorsearch::{
    Document, Filter, Knn, RedisVectorIndex, Schema, Vector, VectorField, VectorIndexExt as _,
};
use inferkit_examples::{Result, chain};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::problem::Problem;

const DIMENSIONS: u16 = 16;
const ITEMS: u32 = 400;
const USERS: u32 = 200;
const CANDIDATES: usize = 40;
const EXPERIMENT: &str = "recommend";
const SCORER_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of `POST /v1/recommend`.
#[derive(Deserialize)]
pub(crate) struct Asked {
    pub(crate) user: String,
    #[serde(default = "home")]
    pub(crate) context: String,
    #[serde(default = "ten")]
    pub(crate) count: usize,
}

fn home() -> String {
    "home".to_owned()
}

fn ten() -> usize {
    10
}

/// A list of items, and how it was made.
#[derive(Deserialize, Serialize)]
struct Made {
    model: String,
    items: Vec<Item>,
}

#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) score: f64,
}

/// What is answered.
#[derive(Serialize)]
pub(crate) struct Recommended {
    pub(crate) user: String,
    /// `exact`, `precomputed` or `computed`.
    pub(crate) tier: &'static str,
    pub(crate) model: String,
    pub(crate) items: Vec<Item>,
}

/// Recommends items of a made-up shop.
#[derive(Debug)]
pub(crate) struct Recommender {
    features: RedisFeatureStore,
    input: ModelInput,
    items: RedisVectorIndex,
    router: RedisModelRouter,
    outcomes: OutcomeRecorder,
    results: TieredResults,
    scorer: Option<(reqwest::Client, String)>,
}

/// The places that a recommender needs.
pub(crate) struct Places {
    pub(crate) features: DynDriver,
    pub(crate) search: DynDriver,
    pub(crate) caches: DynDriver,
}

impl Recommender {
    /// Registers what it needs, and fills it with a made-up shop the first time.
    pub(crate) async fn open(
        places: Places,
        namespace: &Namespace,
        router: RedisModelRouter,
        outcomes: OutcomeRecorder,
        scorer: Option<String>,
    ) -> Result<Self> {
        let features = RedisFeatureStore::new(places.features, namespace.clone());
        let profile = FeatureGroup::builder("user", "profile")
            .feature_or("price_sensitivity", DataType::F32, 0.5)
            .feature_or("purchases_30d", DataType::F32, 0.0)
            .feature("taste", DataType::Vector(DIMENSIONS))
            .build()?;
        let profile = features.register(&profile).await?;
        let input = ModelInput::builder()
            .features(&profile, ["price_sensitivity", "purchases_30d"])
            // A stranger likes everything a little.
            .column(Column::feature(&profile, "taste").or(0.01))
            .build()?;

        let prefix = namespace.family("item").prefix();
        let field = VectorField::flat("embedding", usize::from(DIMENSIONS));
        let schema = Schema::builder(format!("{prefix}idx"), &*prefix, field)
            .numeric("price")
            .numeric("popularity")
            .build()?;
        let items = RedisVectorIndex::new(places.search, schema);
        let created = items.ensure_index().await?;
        if created {
            fill(&features, &profile, &items).await?;
        }
        if router.experiment(EXPERIMENT).await?.is_none() {
            let experiment =
                Experiment::new(EXPERIMENT, "taste", Target::version("recommender", "1"))
                    .with_arm("taste-and-price", Target::version("recommender", "2"), 3_000)?;
            router.put_experiment(&experiment).await?;
        }
        let results = Arc::new(RedisResultCache::new(places.caches, namespace.clone()));
        let results = TieredResults::new(results);
        let client = reqwest::Client::builder().timeout(SCORER_TIMEOUT).build()?;
        let scorer = scorer.map(|url| (client, url));
        Ok(Self { features, input, items, router, outcomes, results, scorer })
    }

    /// Answers from the tiers, or by asking the model.
    pub(crate) async fn recommend(&self, asked: &Asked) -> Result<Recommended, Problem> {
        let question = Question::new(&*asked.user, &*asked.context)
            .map_err(|error| Problem::bad_request(chain(&error)))?;
        let computed = AtomicBool::new(false);
        let compute = || {
            computed.store(true, Ordering::Relaxed);
            self.compute(asked)
        };
        let found = self.results.get_or_compute(&question, compute).await;
        let failed =
            |detail: String| Problem::new(StatusCode::BAD_GATEWAY, "recommendation_failed", detail);
        let found = found.map_err(|error: ComputeError| failed(error.to_string()))?;
        let (tier, result) = match found {
            Found::Result { result, .. } if computed.load(Ordering::Relaxed) => {
                ("computed", result)
            }
            Found::Result { tier, result, .. } => match tier {
                Tier::Exact => ("exact", result),
                Tier::Precomputed => ("precomputed", result),
                _ => ("computed", result),
            },
            _ => return Err(failed("nothing is known to recommend".to_owned())),
        };
        let made: Made =
            serde_json::from_slice(&result).map_err(|error| failed(error.to_string()))?;
        let items = made.items.into_iter().take(asked.count).collect();
        Ok(Recommended { user: asked.user.clone(), tier, model: made.model, items })
    }

    async fn compute(&self, asked: &Asked) -> Result<Option<Bytes>> {
        let start = std::time::Instant::now();
        let decision = self.router.route(EXPERIMENT, &Subject::new(&*asked.user))?;
        let made = self.score(asked, &decision).await;
        self.outcomes.record(&decision, made.is_ok(), start.elapsed());
        Ok(Some(Bytes::from(serde_json::to_vec(&made?)?)))
    }

    async fn score(&self, asked: &Asked, decision: &Decision) -> Result<Made> {
        // Features, then candidates near the user's taste: one round trip each.
        let matrix = self.features.read(&self.input, &[Entity::new(&*asked.user)]).await?;
        let [sensitivity, purchases, taste @ ..] = matrix.row(0) else {
            return Err("the matrix has no columns".into());
        };
        let knn = Knn::new("embedding", Vector::new(taste.to_vec())?, CANDIDATES, Filter::all())?
            .returning(["price", "popularity"])?;
        let near = self.items.knn(&knn).await?;
        let mut items = Vec::with_capacity(near.hits.len());
        for hit in &near.hits {
            let number = |name: &str| {
                let text = hit.field(name).and_then(|value| str::from_utf8(value).ok());
                text.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
            };
            let likeness = 1.0 - hit.distance.as_f64();
            let key = String::from_utf8_lossy(&hit.key);
            let id = self.items.schema().id(key.as_bytes()).unwrap_or_default();
            items.push((id, likeness, number("price"), number("popularity")));
        }
        let version = decision.version.as_deref().unwrap_or("1");
        let scores = match &self.scorer {
            Some((client, url)) => {
                let rows: Vec<_> = items.iter().map(|(_, a, b, c)| [*a, *b, *c]).collect();
                let body = json!({
                    "model": &*decision.model, "version": version,
                    "user": [sensitivity, purchases], "items": rows,
                });
                let response = client.post(url).json(&body).send().await?.error_for_status()?;
                response.json::<Vec<f64>>().await?
            }
            None => items
                .iter()
                .map(|(_, likeness, price, popularity)| match version {
                    "1" => *likeness,
                    // What is dear counts against it the more the user minds prices.
                    _ => {
                        likeness + 0.2 * popularity
                            - 0.3 * f64::from(*sensitivity) * (price / 100.0).min(1.0)
                            + 0.01 * f64::from(*purchases).min(10.0) * popularity
                    }
                })
                .collect(),
        };
        if scores.len() != items.len() {
            return Err("the scorer returned another number of scores than items".into());
        }
        let mut items: Vec<_> = items
            .into_iter()
            .zip(scores)
            .map(|((id, ..), score)| Item { id, score: (score * 1e4).round() / 1e4 })
            .collect();
        items.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(Made { model: format!("{}@{version}", decision.model), items })
    }
}

/// Fills the shop: the same items and users in every run.
async fn fill(
    features: &RedisFeatureStore,
    profile: &Group,
    items: &RedisVectorIndex,
) -> Result<()> {
    let documents = (0..ITEMS).map(|item| {
        let price = 5.0 + f64::from(item * 37 % 196);
        let popularity = f64::from(item * 53 % 101) / 100.0;
        Document::new(format!("item-{item}"))
            .with("price", price)
            .with("popularity", popularity)
            .with("embedding", direction(item))
    });
    items.load(documents, |_| {}).await?;
    let now = SystemTime::now();
    let rows: Vec<_> = (0..USERS)
        .map(|user| {
            let sensitivity = (user * 29 % 101) as f32 / 100.0;
            let purchases = (user * 7 % 12) as f32;
            let taste = direction(user + 10_000).as_slice().to_vec();
            let values: [Value; 3] = [sensitivity.into(), purchases.into(), taste.into()];
            Row::new(format!("user-{user}"), now, values)
        })
        .collect();
    features.write(profile, &rows).await?;
    Ok(())
}

/// A direction that a number always has (splitmix64).
fn direction(number: u32) -> Vector {
    let mut state = u64::from(number);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / 16_777_216.0 - 0.5
    };
    let mut components: Vec<f32> = (0..DIMENSIONS).map(|_| next()).collect();
    if let Some(first) = components.first_mut() {
        // Never all zero.
        *first += 1e-3;
    }
    Vector::new(components).unwrap_or_else(|_| unreachable!("finite and not zero"))
}
