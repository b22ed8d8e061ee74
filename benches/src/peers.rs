use inferkit_localredis::{Flavor, Server};
use tokio::sync::Mutex;

use crate::area::{embcache::Hundred, semcache};
use crate::feast::feast;
use crate::peer::Peer;
use crate::{Effort, Fixture, Line, Promise, Result};

/// Names, numbers of entries, and the calls of a round.
const CHECKS: [(&str, &str, usize, usize); 3] = [
    ("redisvl_check300", "check300", 300, 1_000),
    ("redisvl_check2000", "check2000", 2_000, 500),
    ("redisvl_check10000", "check10000", 10_000, 200),
];

/// Measures ours beside libraries of other languages in one run, both sides on servers of this run with as many entries of
/// the same size; the peers are installed the first time.
///
/// Both sides' embedders return prepared vectors. Each semantic cache has its defaults: RedisVL's index compares every
/// vector, and ours walks a graph from about 5000 entries on.
///
/// # Errors
///
/// If there is no server, no `python3` with `venv` and `pip`, or a peer fails.
pub async fn peers(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let program = include_str!("../peers/redisvl.py");
    let words = [server.url(), "300", "2000", "10000"];
    let redisvl = Mutex::new(Peer::python("redisvl==0.28.0", program, &words).await?);
    let hundred = Hundred::new(&server).await?;
    let divisor = effort.divisor;
    let mget100 = Promise::at_most("embcache", "redisvl_mget100", 1.0 / 50.0, "us")
        .measure(
            effort,
            async || hundred.get(200 / divisor).await,
            async || redisvl.lock().await.run("mget100", 20 / divisor).await,
        )
        .await?;
    let mut lines = vec![mget100];
    for (name, op, entries, calls) in CHECKS {
        let fixture = Fixture::new(entries).await?;
        let check = Promise::at_most("semcache", name, 1.0 / 2.0, "us")
            .measure(
                effort,
                async || semcache::semantic(&fixture, calls / divisor).await,
                async || redisvl.lock().await.run(op, calls / divisor).await,
            )
            .await?;
        lines.push(check);
    }
    lines.extend(feast(effort).await?);
    Ok(lines)
}
