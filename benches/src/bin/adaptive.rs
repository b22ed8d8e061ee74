//! Prints what the adaptive policy serves beside fixed thresholds: `cargo run --release -p inferkit-benches --bin adaptive [-- --quick]`.
//!
//! A stream of questions to a bank, of 77 kinds (banking77), with vectors of all-MiniLM-L6-v2 that were made beforehand, in
//! another order for each of 20 seeds. An answer is right if it was given to a question of the same kind; what is missed is
//! generated, judged and stored. The wrong rate is wrong answers per 100 lookups, and the adaptive policy is bound to 2.
//! The cache of the adaptive policy is in memory, behind a `Coalescer` as a service would use it, and for one seed on Redis;
//! fixed thresholds are computed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use inferkit::core::Pool;
use inferkit::core::keys::Namespace;
use inferkit::embcache::{self, Embedder};
use inferkit::semcache::{
    Answer, Coalescer, Config, MemorySemanticCache, Policy, Rate, RedisSemanticCache, Request,
    SameAnswer, SemanticCache, Source, Tenant,
};
use inferkit_benches::{Matrix, Result};
use inferkit_localredis::{Flavor, Server};

const SEEDS: u64 = 20;
const BOUND: f64 = 2.0;
/// The best of these that keeps to the bound is what the adaptive policy is compared with.
const THRESHOLDS: [f64; 7] = [0.84, 0.85, 0.86, 0.87, 0.88, 0.90, 0.92];
/// What a quick run takes of the stream.
const QUICK: usize = 400;

#[tokio::main]
async fn main() -> ExitCode {
    match report().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adaptive: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn report() -> Result<()> {
    let quick = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [word] if word == "--quick" => true,
        _ => return Err("usage: adaptive [--quick]".into()),
    };
    let folder = std::env::var_os("INFERKIT_SHARED_DATA")
        .ok_or("set INFERKIT_SHARED_DATA to the folder of the data sets")?;
    let stream = Arc::new(Stream::read(&PathBuf::from(folder).join("semcache"))?);
    let (seeds, count) = if quick { (1, QUICK) } else { (SEEDS, stream.texts.len()) };
    if quick {
        eprintln!("adaptive: --quick shows that everything runs; its numbers mean little");
    }
    println!("{:<16} {:>7} {:>10} {:>12}", "policy", "hits", "wrong/100", "worst seed");
    let mut best = 0.0_f64;
    for threshold in THRESHOLDS {
        let score = |seed| stream.fixed(threshold, seed, count);
        let (hits, wrong, worst) = sum((0..seeds).map(score).collect(), count)?;
        println!("{threshold:<16.2} {hits:>6.2}% {wrong:>10.2} {worst:>12.2}");
        if wrong <= BOUND {
            best = best.max(hits);
        }
    }
    let policy = Policy::adaptive(Rate::per_hundred(BOUND)?).without_verification();
    let mut scores = Vec::new();
    // Two at a time.
    let mut running = tokio::task::JoinSet::new();
    for seed in 0..seeds {
        if running.len() == 2 {
            scores.extend(running.join_next().await.transpose()?.transpose()?);
        }
        let (stream, policy) = (Arc::clone(&stream), policy.clone());
        running.spawn(async move {
            let cache = MemorySemanticCache::new(Vectors::of(&stream), policy);
            stream.run(Arc::new(cache), seed, count).await
        });
    }
    while let Some(score) = running.join_next().await {
        scores.push(score??);
    }
    let (hits, wrong, worst) = sum(scores, count)?;
    println!("{:<16} {hits:>6.2}% {wrong:>10.2} {worst:>12.2}", "adaptive");
    println!("{:.2} times the hits of the best fixed threshold that keeps to {BOUND}", hits / best);
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let driver = Pool::connect(server.url()).await?.into_driver();
    let config = Config::new().with_namespace(Namespace::default()).with_policy(policy);
    let cache = RedisSemanticCache::new(driver, Vectors::of(&stream), config)?;
    cache.ensure_index().await?;
    let score = stream.run(Arc::new(cache), 0, count).await?;
    println!(
        "{:<16} {:>6.2}% {:>10.2}",
        "on Redis, seed 0",
        percent(score.hits, count),
        percent(score.wrong, count)
    );
    Ok(())
}

/// The mean share of hits and of wrong answers, and the worst share of wrong ones, in percent.
fn sum(scores: Vec<Score>, count: usize) -> Result<(f64, f64, f64)> {
    let all = count * scores.len();
    let hits = scores.iter().map(|score| score.hits).sum();
    let wrong = scores.iter().map(|score| score.wrong).sum();
    let worst = scores.iter().map(|score| score.wrong).max().ok_or("no seed was run")?;
    Ok((percent(hits, all), percent(wrong, all), percent(worst, count)))
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// Questions and their kinds.
struct Stream {
    texts: Vec<String>,
    kinds: Vec<String>,
    matrix: Matrix,
    vectors: Arc<HashMap<String, Vec<f32>>>,
}

#[derive(Default)]
struct Score {
    hits: usize,
    wrong: usize,
}

impl Stream {
    fn read(folder: &Path) -> Result<Self> {
        let file = std::fs::read_to_string(folder.join("banking77_test.csv"))?;
        let matrix = Matrix::read(&folder.join("banking77_test_minilm_f16.npz"))?;
        let (mut texts, mut kinds, mut vectors) = (Vec::new(), Vec::new(), HashMap::new());
        for row in inferkit_benches::csv_rows(&file).skip(1) {
            let Ok([text, kind]) = <[String; 2]>::try_from(row) else {
                return Err("a row has not two fields".into());
            };
            let vector = matrix.row(texts.len()).ok_or("there is no vector for a text")?;
            vectors.insert(text.clone(), vector.to_vec());
            texts.push(text);
            kinds.push(kind);
        }
        Ok(Self { texts, kinds, matrix, vectors: Arc::new(vectors) })
    }

    /// What a fixed threshold serves: the most similar prompt, if it is similar enough.
    fn fixed(&self, threshold: f64, seed: u64, count: usize) -> Score {
        let (mut score, mut stored) = (Score::default(), Vec::new());
        for asked in inferkit_benches::shuffled(self.texts.len(), seed).into_iter().take(count) {
            let best = stored.iter().map(|other| (self.matrix.similarity(asked, *other), *other));
            let best = best.max_by(|(a, _): &(f32, usize), (b, _)| a.total_cmp(b));
            match best.filter(|(similarity, _)| threshold <= f64::from(*similarity)) {
                Some((_, served)) => {
                    score.hits += 1;
                    score.wrong += usize::from(self.kinds.get(asked) != self.kinds.get(served));
                }
                None => stored.push(asked),
            }
        }
        score
    }

    async fn run(&self, cache: Arc<dyn SemanticCache>, seed: u64, count: usize) -> Result<Score> {
        let coalescer = Coalescer::new(cache).with_judge(Arc::new(SameAnswer::default()));
        let mut score = Score::default();
        let order = inferkit_benches::shuffled(self.texts.len(), seed);
        for place in order.into_iter().take(count) {
            let (Some(text), Some(kind)) = (self.texts.get(place), self.kinds.get(place)) else {
                continue;
            };
            let request = Request::new(Tenant::new("bank")?, "model", &**text)?;
            let right = kind.clone();
            let generate = || async { Answer::new(right) };
            let served = coalescer.get_or_generate(&request, generate).await?;
            if matches!(served.source, Source::Semantic(_)) {
                score.hits += 1;
                score.wrong += usize::from(served.answer.text() != Some(kind));
            }
        }
        Ok(score)
    }
}

/// Knows the vectors of all texts.
#[derive(Debug)]
struct Vectors(Arc<HashMap<String, Vec<f32>>>);

impl Vectors {
    fn of(stream: &Stream) -> Arc<dyn Embedder> {
        Arc::new(Self(Arc::clone(&stream.vectors)))
    }
}

#[async_trait]
impl Embedder for Vectors {
    fn model(&self) -> &'static str {
        "all-MiniLM-L6-v2"
    }

    fn dimensions(&self) -> usize {
        384
    }

    async fn embed_many(&self, texts: &[&str]) -> embcache::Result<Vec<Vec<f32>>> {
        let known = |text: &&str| self.0.get(*text).cloned();
        let unknown = || embcache::Error::embedder("the text is not one of the stream");
        texts.iter().map(|text| known(text).ok_or_else(unknown)).collect()
    }
}
