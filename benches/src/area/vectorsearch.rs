use std::time::{Duration, Instant};

use inferkit::core::{Pool, PoolConfig};
use inferkit::vectorsearch::{
    Filter, Knn, RedisVectorIndex, Schema, Vector, VectorField, VectorIndexExt as _,
};
use inferkit_localredis::{Flavor, Server};
use redis::aio::MultiplexedConnection;

use crate::{
    DIMENSIONS, Effort, Line, Promise, Result, median_micros, raw_connection, unit_vectors,
};

const DOCUMENTS: usize = 2000;
const NEIGHBORS: usize = 10;
const FIELD: &str = "title";

/// What a search for the 10 nearest documents takes, one caller at a time, beside the bare `FT.SEARCH`.
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
    Ok(vec![knn10])
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
