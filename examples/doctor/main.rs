//! Looks whether the servers of a platform are what their tasks need, and says what to do where they are not.
//!
//! `cargo run -p inferkit-examples --example doctor -- [URL] [DEPLOYMENT=URL ...]`
//!
//! The first URL (or `INFERKIT_REDIS_URL`) is where all deployments are that have none of their own: `caches`, `features`,
//! `search`, `coordination` and `events`.
//! Without any it starts five servers of its own and examines them.
//! It ends with 0 if nothing is broken, with 1 if something warns, with 2 if something fails.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

use std::process::ExitCode;

use inferkit::core::doctor::{Level, examine};
use inferkit::core::{Deployment, PoolConfig, Topology};
use inferkit_examples::Result;
use inferkit_localredis::Deployments;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(Level::Ok) => ExitCode::SUCCESS,
        Ok(Level::Warning) => ExitCode::from(1),
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            println!("doctor: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<Level> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = std::env::var("INFERKIT_REDIS_URL").ok().filter(|url| !url.is_empty());
    if arguments.is_empty() {
        arguments.extend(url);
    }
    // They live as long as this value.
    let mut five = None;
    if arguments.is_empty() {
        println!("no address is given: five servers are started and examined\n");
        let started = tokio::task::spawn_blocking(Deployments::start).await??;
        arguments =
            started.iter().map(|(name, server)| format!("{name}={}", server.url())).collect();
        five = Some(started);
    }
    let topology = topology(&arguments)?;
    let mut worst = Level::Ok;
    for (deployments, pool) in topology.pools().places() {
        let checkup = examine(pool, &deployments).await;
        println!("{checkup}");
        worst = worst.max(checkup.worst());
    }
    drop(five);
    Ok(worst)
}

fn topology(arguments: &[String]) -> Result<Topology> {
    let (mut whole, mut apart) = (None, Vec::new());
    for argument in arguments {
        let named = argument
            .split_once('=')
            .and_then(|(name, url)| Some((Deployment::of_name(name)?, PoolConfig::single(url))));
        match named {
            Some((deployment, config)) => apart.push((deployment, config?)),
            None => whole = Some(PoolConfig::single(argument)?),
        }
    }
    let first = whole.or_else(|| Some(apart.first()?.1.clone()));
    let first = first.ok_or("give the URL of a server")?;
    Ok(apart.into_iter().fold(Topology::single(first), |topology, (deployment, config)| {
        topology.with(deployment, config)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_the_arguments() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let one = topology(&words(&["redis://a", "events=redis://b"])).unwrap();
        assert_eq!(one.pools().places().count(), 2);
        let five = Deployment::ALL.map(|one| format!("{one}=redis://{one}"));
        assert_eq!(topology(&five).unwrap().pools().places().count(), 5);
        assert!(topology(&words(&["nowhere=redis://a"])).is_err());
        assert!(topology(&[]).is_err());
    }
}
