use std::time::{Duration, Instant};

use inferkit::core::{Pool, PoolConfig};
use inferkit::vectorsearch::{
    Document, Filter, Hnsw, Knn, Query, RedisVectorIndex, Schema, SearchResult, Vector,
    VectorField, VectorIndex as _, VectorIndexExt as _,
};
use inferkit_localredis::{Flavor, Server};
use redis::aio::MultiplexedConnection;

use crate::{
    DIMENSIONS, Effort, Line, Promise, Result, median_micros, raw_connection, unit_vectors,
};

const DOCUMENTS: usize = 2000;
const NEIGHBORS: usize = 10;
const FIELD: &str = "title";

/// The documents of one load.
const LOADED: usize = 2000;
/// How many documents the bare client sends in one pipeline: about as many bytes as ours do.
const PIPELINED: usize = 160;
/// The documents that many searches at once go through.
const SEARCHED: usize = 10_000;
const AT_ONCE: usize = 32;

/// What a search for the 10 nearest documents takes, one caller at a time, beside the bare `FT.SEARCH`; what a load
/// takes beside bare pipelines of `HSET`; and what 32 searches at once take beside one after the other.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let raw = raw_connection(&server).await?;
    let field = VectorField::flat("embedding", DIMENSIONS);
    let schema = Schema::builder("bench", "bench:", field).build()?;
    let index = RedisVectorIndex::new(pool.into_driver(), schema);
    index.ensure_index().await?;
    let vectors = unit_vectors(DOCUMENTS, DIMENSIONS)
        .into_iter()
        .map(|vector| Ok(Vector::new(vector)?))
        .collect::<Result<Vec<_>>>()?;
    let mut load = redis::pipe();
    for (number, vector) in vectors.iter().enumerate() {
        load.cmd("HSET").arg(format!("bench:{number}")).arg("embedding").arg(vector.to_le_bytes());
        load.arg(FIELD).arg(format!("Document {number}")).ignore();
    }
    load.query_async::<()>(&mut raw.clone()).await?;
    index.wait_until_indexed(Duration::from_secs(30)).await?;

    let searches = vectors
        .iter()
        .map(|vector| {
            let cmd = knn(vector)?.to_cmd(index.schema())?;
            Ok(cmd.iter().map(<[u8]>::to_vec).collect())
        })
        .collect::<Result<Vec<Vec<Vec<u8>>>>>()?;
    let calls = 1000 / effort.divisor;
    let knn10 = Promise::at_most("vectorsearch", "knn10", 1.10, "us")
        .measure(
            effort,
            async || ours(&index, &vectors, calls).await,
            async || baseline(&raw, &searches, calls).await,
        )
        .await?;
    index.drop_index().await?;
    let load = measure_load(&server, &index, &raw, effort).await?;
    Ok(vec![knn10, load, measure_search_many(&index, effort).await?])
}

/// Writes the same documents into the same FLAT index, each round in the place of the last one's.
async fn measure_load(
    server: &Server,
    index: &RedisVectorIndex,
    raw: &MultiplexedConnection,
    effort: Effort,
) -> Result<Line> {
    let vectors = unit_vectors(LOADED / effort.divisor, DIMENSIONS);
    let mut documents = Vec::with_capacity(vectors.len());
    for (number, vector) in vectors.iter().enumerate() {
        let vector = Vector::new(vector.clone())?;
        let document = Document::new(number.to_string()).with("embedding", vector);
        documents.push(document.with(FIELD, format!("Document {number}")));
    }
    let bytes: Vec<Vec<u8>> = vectors
        .iter()
        .map(|vector| vector.iter().flat_map(|it| it.to_le_bytes()).collect())
        .collect();
    let raw_of = async || raw_connection(server).await;
    let (ours, bare) =
        (index.schema().with_index("bench-ours")?, index.schema().with_index("bench-bare")?);
    let ours =
        RedisVectorIndex::new(std::sync::Arc::clone(index.driver()), ours.with_prefix("ours:")?);
    let bare =
        RedisVectorIndex::new(std::sync::Arc::clone(index.driver()), bare.with_prefix("bare:")?);
    let clear = async |index: &RedisVectorIndex, raw: &MultiplexedConnection| -> Result<()> {
        // Each round begins with no document and an empty index.
        index.drop_index().await?;
        let mut remove = redis::pipe();
        for number in 0..documents.len() {
            remove.cmd("DEL").arg(format!("{}{number}", index.schema().prefix())).ignore();
        }
        remove.query_async::<()>(&mut raw.clone()).await?;
        index.ensure_index().await?;
        Ok(())
    };
    let line = Promise::at_least("vectorsearch", "load", 0.90, "documents/s")
        .measure(
            effort,
            async || {
                clear(&ours, raw).await?;
                let start = Instant::now();
                ours.put_many(&documents).await?;
                rate(documents.len(), start)
            },
            async || {
                clear(&bare, raw).await?;
                let mut raw = raw_of().await?;
                let start = Instant::now();
                for (chunk, vectors) in bytes.chunks(PIPELINED).enumerate() {
                    let mut pipe = redis::pipe();
                    for (place, vector) in vectors.iter().enumerate() {
                        let number = chunk * PIPELINED + place;
                        pipe.cmd("HSET").arg(format!("bare:{number}")).arg("embedding").arg(vector);
                        pipe.arg(FIELD).arg(format!("Document {number}")).ignore();
                    }
                    pipe.query_async::<()>(&mut raw).await?;
                }
                rate(documents.len(), start)
            },
        )
        .await?;
    for index in [&ours, &bare] {
        if index.info().await?.documents != documents.len() as u64 {
            return Err("a document is missing".into());
        }
        clear(index, raw).await?;
        index.drop_index().await?;
    }
    Ok(line)
}

fn rate(documents: usize, start: Instant) -> Result<f64> {
    Ok(f64::from(u32::try_from(documents)?) / start.elapsed().as_secs_f64())
}

/// Searches 32 times in one call, and in 32 calls.
async fn measure_search_many(index: &RedisVectorIndex, effort: Effort) -> Result<Line> {
    // Ten thousand vectors are more than are searched one by one for long.
    let field = VectorField::hnsw("embedding", DIMENSIONS, Hnsw::default());
    let schema = Schema::builder("bench-many", "many:", field).build()?;
    let index = RedisVectorIndex::new(std::sync::Arc::clone(index.driver()), schema);
    index.ensure_index().await?;
    let vectors = unit_vectors(SEARCHED / effort.divisor, DIMENSIONS);
    let document = |(number, vector): (usize, &Vec<f32>)| -> Result<Document> {
        Ok(Document::new(number.to_string()).with("embedding", Vector::new(vector.clone())?))
    };
    let documents = vectors.iter().enumerate().map(document).collect::<Result<Vec<_>>>()?;
    index.put_many(&documents).await?;
    let queries = vectors.iter().take(AT_ONCE).map(|vector| {
        Ok(Knn::new("embedding", Vector::new(vector.clone())?, NEIGHBORS, Filter::all())?)
    });
    let queries = queries.collect::<Result<Vec<Knn>>>()?;
    let calls = 10 / effort.divisor.min(10);
    Promise::at_most("vectorsearch", "search_many32", 0.80, "us")
        .measure(
            effort,
            async || {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let at_once: Vec<Query<'_>> = queries.iter().map(Query::from).collect();
                    let start = Instant::now();
                    for result in index.search_many(&at_once).await? {
                        check(&result?)?;
                    }
                    times.push(start.elapsed().as_secs_f64());
                }
                Ok(median_micros(times))
            },
            async || {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    for query in &queries {
                        check(&index.knn(query).await?)?;
                    }
                    times.push(start.elapsed().as_secs_f64());
                }
                Ok(median_micros(times))
            },
        )
        .await
}

fn check(found: &SearchResult) -> Result<()> {
    if found.hits.len() == NEIGHBORS { Ok(()) } else { Err("a neighbor is missing".into()) }
}

fn knn(vector: &Vector) -> Result<Knn> {
    let knn = Knn::new("embedding", vector.clone(), NEIGHBORS, Filter::all())?;
    Ok(knn.returning([FIELD])?)
}

async fn ours(index: &RedisVectorIndex, vectors: &[Vector], calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for vector in vectors.iter().cycle().take(calls) {
        let start = Instant::now();
        let found = index.knn(&knn(vector)?).await?;
        times.push(start.elapsed().as_secs_f64());
        if found.hits.len() != NEIGHBORS {
            return Err("a neighbor is missing".into());
        }
    }
    Ok(median_micros(times))
}

/// Sends the commands of ours, word for word, and takes the reply as it comes.
async fn baseline(
    raw: &MultiplexedConnection,
    searches: &[Vec<Vec<u8>>],
    calls: usize,
) -> Result<f64> {
    let mut raw = raw.clone();
    let mut times = Vec::with_capacity(calls);
    for search in searches.iter().cycle().take(calls) {
        let start = Instant::now();
        let mut cmd = redis::Cmd::new();
        for part in search {
            cmd.arg(part);
        }
        let found: redis::Value = cmd.query_async(&mut raw).await?;
        times.push(start.elapsed().as_secs_f64());
        if !matches!(found, redis::Value::Map(_)) {
            return Err("this should have been a search".into());
        }
    }
    Ok(median_micros(times))
}
