//! How many of the true nearest neighbors are found, and what an index costs, beside what the specification claims.
//!
//! `cargo run --release -p inferkit-benches --bin recall [-- --quick]`
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

#[tokio::main]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let config = PoolConfig::single(server.url())?.with_timeout(Duration::from_secs(60));
    let driver = Pool::connect_with(config).await?.into_driver();

    let (count, asked) = if quick { (2_000, 50) } else { (50_000, 500) };
    println!(
        "recall@{NEIGHBORS} of {count} clustered vectors of 384 dimensions at our defaults, {asked} queries"
    );
    let all = clustered_vectors(count + asked, 384);
    let truth = truth(&all, count, "384 dimensions");
    let mut exact = None;
    for (name, field) in fields(384) {
        let measured = measure(&driver, name, field, &all, count, &truth).await?;
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
    glove(&driver, quick).await?;

    println!(
        "\nthe specification's table, 1536 dimensions; it claims 0.5 ms, 2 ms and 60 MB for 10K, 1 ms, 20 ms and 600 MB for 100K"
    );
    let sizes: &[usize] = if quick { &[1_000] } else { &[10_000, 100_000] };
    for &count in sizes {
        let all = clustered_vectors(count + 100, 1536);
        let truth = self::truth(&all, count, "1536 dimensions");
        for (name, field) in fields(1536).into_iter().filter(|(name, _)| name.ends_with("FLOAT32"))
        {
            let label = format!("{count} {name}");
            print(&label, &measure(&driver, &label, field, &all, count, &truth).await?);
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
