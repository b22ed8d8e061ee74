//! How many of the true nearest neighbors are found, and what an index costs, beside what the specification claims.
//!
//! `cargo run --release -p inferkit-benches --bin recall [-- --quick] [--rows 10000,100000] [--dim 1536] [--index flat]`
//!
//! `--rows`, `--dim` and `--index` choose from the specification's table, and measure nothing else.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints a report")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit::vectorsearch::{
    DataType, Document, Filter, Hnsw, Knn, RedisVectorIndex, Schema, Vector, VectorField,
    VectorIndex as _, VectorIndexExt as _,
};
use inferkit_benches::{Result, clustered_vectors};
use inferkit_localredis::{Flavor, Server};

const NEIGHBORS: usize = 10;

/// What is measured of one index.
struct Measured {
    recall: f64,
    median: Duration,
    /// Bytes a document: the hash and the index.
    bytes: f64,
    built: Duration,
}

/// What the command line asks for.
struct Options {
    quick: bool,
    rows: Vec<usize>,
    dimensions: usize,
    /// The start of the names of the indexes in the specification's table.
    index: String,
    /// Whether only that table is measured.
    table_only: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut quick, mut rows, mut dimensions, mut index) = (false, None, None, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => quick = true,
                "--rows" => {
                    let each = value()?;
                    rows = Some(
                        each.split(',')
                            .map(|rows| number(rows, NEIGHBORS))
                            .collect::<Result<_>>()?,
                    );
                }
                "--dim" => dimensions = Some(number(&value()?, 1)?),
                "--index" => match value()?.to_ascii_uppercase() {
                    name if ["FLAT", "HNSW"].contains(&name.as_str()) => index = Some(name),
                    other => {
                        return Err(format!("there is no index `{other}`: flat or hnsw").into());
                    }
                },
                other => {
                    return Err(format!(
                        "there is no option `{other}`: --quick, --rows, --dim or --index"
                    )
                    .into());
                }
            }
        }
        let table_only = rows.is_some() || dimensions.is_some() || index.is_some();
        let usual = if quick { vec![1_000] } else { vec![10_000, 100_000] };
        Ok(Self {
            quick,
            rows: rows.unwrap_or(usual),
            dimensions: dimensions.unwrap_or(1536),
            index: index.unwrap_or_default(),
            table_only,
        })
    }
}

fn number(word: &str, least: usize) -> Result<usize> {
    match word.parse() {
        Ok(number) if least <= number => Ok(number),
        _ => Err(format!("`{word}` is not a number of at least {least}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let config = PoolConfig::single(server.url())?.with_timeout(Duration::from_secs(60));
    let driver = Pool::connect_with(config).await?.into_driver();
    if !options.table_only {
        clustered(&driver, options.quick).await?;
        glove(&driver, options.quick).await?;
    }
    table(&driver, &options).await
}

/// The promises about recall.
async fn clustered(driver: &DynDriver, quick: bool) -> Result<()> {
    let (count, asked) = if quick { (2_000, 50) } else { (50_000, 500) };
    println!(
        "recall@{NEIGHBORS} of {count} clustered vectors of 384 dimensions at our defaults, {asked} queries"
    );
    let all = clustered_vectors(count + asked, 384);
    let truth = truth(&all, count, "384 dimensions");
    let mut exact = None;
    for (name, field) in fields(384) {
        let measured = measure(driver, name, field, &all, count, &truth).await?;
        print(name, &measured);
        let reference = *exact.get_or_insert(measured.recall);
        match name {
            "HNSW FLOAT32" => verdict("recall >= 0.98", 0.98 <= measured.recall),
            "HNSW FLOAT16" => {
                verdict("within 0.005 of FLOAT32", (measured.recall - reference).abs() <= 0.005);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The specification's table.
async fn table(driver: &DynDriver, options: &Options) -> Result<()> {
    let dimensions = options.dimensions;
    println!(
        "\nthe specification's table, {dimensions} dimensions; for 1536 it claims 0.5 ms, 2 ms and 60 MB for 10K, 1 ms, 20 ms and 600 MB for 100K"
    );
    for &count in &options.rows {
        eprintln!("making {count} vectors of {dimensions} dimensions ...");
        let all = clustered_vectors(count + 100, dimensions);
        let truth = truth(&all, count, &format!("{dimensions} dimensions"));
        let wanted = |name: &str| name.starts_with(&options.index) && name.ends_with("FLOAT32");
        for (name, field) in fields(dimensions).into_iter().filter(|(name, _)| wanted(name)) {
            let label = format!("{count} {name}");
            print(&label, &measure(driver, &label, field, &all, count, &truth).await?);
        }
    }
    Ok(())
}

fn fields(dimensions: usize) -> Vec<(&'static str, VectorField)> {
    let hnsw = || VectorField::hnsw("v", dimensions, Hnsw::default());
    let flat = || VectorField::flat("v", dimensions);
    vec![
        ("HNSW FLOAT32", hnsw()),
        ("HNSW FLOAT16", hnsw().with_data_type(DataType::F16)),
        ("FLAT FLOAT32", flat()),
        ("FLAT FLOAT16", flat().with_data_type(DataType::F16)),
    ]
}

/// Real word vectors, if the folder with the data is there.
async fn glove(driver: &DynDriver, quick: bool) -> Result<()> {
    let Some(folder) = std::env::var_os("INFERKIT_SHARED_DATA") else {
        println!("INFERKIT_SHARED_DATA is not set: no word vectors are measured");
        return Ok(());
    };
    let bytes = std::fs::read(std::path::Path::new(&folder).join("vectorsearch/glove100_20k.f32"))?;
    let floats: Vec<f32> =
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut all: Vec<Vec<f32>> = floats.chunks_exact(100).map(<[f32]>::to_vec).collect();
    if quick {
        all.truncate(2_000);
    }
    let count = all.len() - 200;
    println!(
        "\nrecall@{NEIGHBORS} of {count} word vectors (GloVe) of 100 dimensions at our defaults, 200 queries"
    );
    let truth = truth(&all, count, "GloVe");
    for (name, field) in fields(100).into_iter().take(2) {
        print(name, &measure(driver, name, field, &all, count, &truth).await?);
    }
    Ok(())
}

fn print(name: &str, measured: &Measured) {
    println!(
        "{name:<22} recall {:.4}   p50 {:>7.3} ms   {:>6.0} B/document   built in {:.1} s",
        measured.recall,
        measured.median.as_secs_f64() * 1e3,
        measured.bytes,
        measured.built.as_secs_f64(),
    );
}

fn verdict(promise: &str, met: bool) {
    println!("{:<22} {promise}: {}", "", if met { "met" } else { "MISSED" });
}

/// The places of the true nearest neighbors of each query, by comparing every pair on two threads.
fn truth(all: &[Vec<f32>], count: usize, what: &str) -> Vec<HashSet<usize>> {
    eprintln!("comparing every pair of {what} ...");
    let (stored, queries) = all.split_at(count);
    let norms: Vec<f32> = stored.iter().map(|vector| dot(vector, vector).sqrt()).collect();
    let nearest = |query: &Vec<f32>| -> HashSet<usize> {
        let similar = stored.iter().zip(&norms).map(|(vector, norm)| dot(query, vector) / norm);
        let mut order: Vec<(f32, usize)> = similar.zip(0..).collect();
        order.select_nth_unstable_by(NEIGHBORS, |a, b| b.0.total_cmp(&a.0));
        order.into_iter().take(NEIGHBORS).map(|(_, place)| place).collect()
    };
    let (first, second) = queries.split_at(queries.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| second.iter().map(nearest).collect::<Vec<_>>());
        let mut all: Vec<HashSet<usize>> = first.iter().map(nearest).collect();
        all.extend(other.join().unwrap_or_default());
        all
    })
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums at a time, so that the compiler can use the processor's wide registers.
    let (a, rest_a) = a.as_chunks::<8>();
    let (b, rest_b) = b.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

async fn used_memory(driver: &DynDriver) -> Result<f64> {
    let info: String = driver.query(Cmd::new("INFO").arg("memory")).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.ok_or("the server does not tell its memory")?.trim().parse()?)
}

async fn measure(
    driver: &DynDriver,
    name: &str,
    field: VectorField,
    all: &[Vec<f32>],
    count: usize,
    truth: &[HashSet<usize>],
) -> Result<Measured> {
    let schema = Schema::builder("recall", "recall:", field).build()?;
    let index = RedisVectorIndex::new(Arc::clone(driver), schema);
    let before = used_memory(driver).await?;
    index.ensure_index().await?;
    let (stored, queries) = all.split_at(count);
    let start = Instant::now();
    let documents = stored.iter().zip(0..).filter_map(|(vector, number): (_, usize)| {
        let vector = Vector::new(vector.clone()).ok()?;
        Some(Document::new(number.to_string()).with("v", vector))
    });
    let mut shown = Instant::now();
    index
        .load(documents, |written| {
            if Duration::from_secs(5) < shown.elapsed() {
                eprintln!("{name}: {written} of {count} documents");
                shown = Instant::now();
            }
        })
        .await?;
    let built = start.elapsed();
    eprintln!("{name}: built in {:.0} s, searching ...", built.as_secs_f64());
    let after = used_memory(driver).await?;
    let (mut found, mut times) = (0, Vec::with_capacity(queries.len()));
    for (query, truth) in queries.iter().zip(truth) {
        let query = Knn::new("v", Vector::new(query.clone())?, NEIGHBORS, Filter::all())?;
        let query = query.with_timeout(Duration::from_secs(10));
        let start = Instant::now();
        let result = index.knn(&query).await?;
        times.push(start.elapsed());
        for hit in &result.hits {
            let id = index.id(&hit.key).ok_or("a hit of another index")?;
            found += usize::from(truth.contains(&id.parse()?));
        }
    }
    times.sort();
    let ids: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    index.drop_index().await?;
    for ids in ids.chunks(1_000) {
        index.remove_many(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    let (found, wanted) = (u32::try_from(found)?, u32::try_from(NEIGHBORS * truth.len())?);
    Ok(Measured {
        recall: f64::from(found) / f64::from(wanted),
        median: times.get(times.len() / 2).copied().unwrap_or_default(),
        bytes: (after - before) / f64::from(u32::try_from(count)?),
        built,
    })
}
