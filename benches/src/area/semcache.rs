use std::time::Instant;

use inferkit::core::{Cmd, DriverExt as _};
use inferkit::semcache::{Lookup, SemanticCache as _};
use inferkit::vectorsearch::Vector;
use redis::aio::MultiplexedConnection;

use crate::{
    DIMENSIONS, Effort, Fixture, Line, Promise, Result, clustered_vectors, median_micros,
    raw_connection,
};

const ENTRIES: usize = 2000;
/// What a lookup needs of an entry to serve its answer.
const FIELDS: [&str; 5] = ["v", "scope", "response", "timestamp", "tokens_used"];

/// What a lookup takes, one caller at a time, beside the bare commands that bring the same answer.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let fixture = Fixture::new(ENTRIES).await?;
    let raw = raw_connection(&fixture.server).await?;
    let exact = Promise::at_most("semcache", "exact_hit", 1.15, "us")
        .measure(
            effort,
            async || exact(&fixture, 4000 / effort.divisor).await,
            async || bare_exact(&fixture, &raw, 4000 / effort.divisor).await,
        )
        .await?;
    let searches = searches(&fixture).await?;
    let semantic = Promise::at_most("semcache", "semantic_hit", 1.15, "us")
        .measure(
            effort,
            async || semantic(&fixture, 1000 / effort.divisor).await,
            async || bare_semantic(&fixture, &raw, &searches, 1000 / effort.divisor).await,
        )
        .await?;
    Ok(vec![exact, semantic])
}

async fn exact(fixture: &Fixture, calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for request in fixture.stored.iter().cycle().take(calls) {
        let start = Instant::now();
        let lookup = fixture.cache.lookup(request).await?;
        times.push(start.elapsed().as_secs_f64());
        if !matches!(lookup, Lookup::Exact(_)) {
            return Err("this should have been an exact hit".into());
        }
    }
    Ok(median_micros(times))
}

async fn bare_exact(fixture: &Fixture, raw: &MultiplexedConnection, calls: usize) -> Result<f64> {
    let mut raw = raw.clone();
    let keys = keys(fixture, |fixture| &fixture.stored);
    let mut times = Vec::with_capacity(calls);
    for key in keys.iter().cycle().take(calls) {
        let start = Instant::now();
        let fields: Vec<Option<Vec<u8>>> =
            redis::cmd("HMGET").arg(key).arg(&FIELDS).query_async(&mut raw).await?;
        times.push(start.elapsed().as_secs_f64());
        if fields.iter().any(Option::is_none) {
            return Err("this should have been an exact hit".into());
        }
    }
    Ok(median_micros(times))
}

/// The median time of a semantic hit, in microseconds.
pub(crate) async fn semantic(fixture: &Fixture, calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for request in fixture.similar.iter().cycle().take(calls) {
        let start = Instant::now();
        let lookup = fixture.cache.lookup(request).await?;
        times.push(start.elapsed().as_secs_f64());
        if !matches!(lookup, Lookup::Semantic(_)) {
            return Err("this should have been a semantic hit".into());
        }
    }
    Ok(median_micros(times))
}

async fn bare_semantic(
    fixture: &Fixture,
    raw: &MultiplexedConnection,
    searches: &[Vec<Vec<u8>>],
    calls: usize,
) -> Result<f64> {
    let mut raw = raw.clone();
    let keys = keys(fixture, |fixture| &fixture.similar);
    let mut times = Vec::with_capacity(calls);
    for (key, search) in keys.iter().zip(searches).cycle().take(calls) {
        let start = Instant::now();
        let fields: Vec<Option<Vec<u8>>> =
            redis::cmd("HMGET").arg(key).arg(&FIELDS).query_async(&mut raw).await?;
        let mut cmd = redis::Cmd::new();
        for part in search {
            cmd.arg(part);
        }
        let found: redis::Value = cmd.query_async(&mut raw).await?;
        times.push(start.elapsed().as_secs_f64());
        if fields.iter().any(Option::is_some) || !matches!(found, redis::Value::Map(_)) {
            return Err("this should have been a miss and then a search".into());
        }
    }
    Ok(median_micros(times))
}

fn keys(fixture: &Fixture, of: fn(&Fixture) -> &Vec<inferkit::semcache::Request>) -> Vec<String> {
    of(fixture)
        .iter()
        .map(|request| fixture.cache.key(request.tenant(), &request.id()).to_string())
        .collect()
}

/// The search commands that the lookups send, word for word.
async fn searches(fixture: &Fixture) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut searches = Vec::new();
    for (request, vector) in fixture.similar.iter().zip(clustered_vectors(ENTRIES, DIMENSIONS)) {
        let epoch = Cmd::new("GET").key(fixture.cache.epoch_key(request.tenant()));
        let epoch: String = fixture.driver.query(epoch).await?;
        let knn = fixture.cache.query(request, &epoch, Vector::new(vector)?)?;
        // By the name of the alias, as the index does it.
        let index = fixture.cache.index();
        let schema = index.schema().with_index(index.alias().unwrap_or_default())?;
        let cmd = knn.to_cmd(&schema)?;
        searches.push(cmd.iter().map(<[u8]>::to_vec).collect());
    }
    Ok(searches)
}
