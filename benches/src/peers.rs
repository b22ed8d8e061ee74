use crate::area::{embcache::Hundred, semcache};
use crate::peer::Peer;
use crate::{Effort, Fixture, Line, Promise, Result};

/// Measures ours beside libraries of other languages, on one server in one run; the peers are installed the first time.
///
/// Both sides read the same number of entries of the same size, and their embedders return prepared vectors.
///
/// # Errors
///
/// If there is no server, no `python3` with `venv` and `pip`, or a peer fails.
pub async fn peers(effort: Effort) -> Result<Vec<Line>> {
    let fixture = Fixture::new(semcache::ENTRIES).await?;
    let hundred = Hundred::new(&fixture.server).await?;
    let program = include_str!("../peers/redisvl.py");
    let redisvl = Peer::python("redisvl==0.28.0", program, &fixture.server).await?;
    let redisvl = tokio::sync::Mutex::new(redisvl);
    let divisor = effort.divisor;
    let mget100 = Promise::at_most("embcache", "redisvl_mget100", 1.0 / 50.0, "us")
        .measure(
            effort,
            async || hundred.get(200 / divisor).await,
            async || redisvl.lock().await.run("mget100", 20 / divisor).await,
        )
        .await?;
    let check = Promise::at_most("semcache", "redisvl_check", 1.0 / 2.0, "us")
        .measure(
            effort,
            async || semcache::semantic(&fixture, 1000 / divisor).await,
            async || redisvl.lock().await.run("check", 500 / divisor).await,
        )
        .await?;
    Ok(vec![mget100, check])
}
