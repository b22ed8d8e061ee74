//! Starts a server in the foreground and prints where it is, until Ctrl-C.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
    thread,
};

use inferkit_localredis::{Cluster, Deployments, Flavor, Sentinel, Server};

const USAGE: &str = "\
Starts a Redis for you to play with; Ctrl-C ends it and leaves nothing behind.

Usage: inferkit-localredis [--flavor redis|valkey|plain|tls|cluster|sentinel|five] [--port PORT]

  --flavor  redis (with RediSearch; the default), valkey (with RediSearch), plain, tls,
            cluster (3 primaries, 3 replicas), sentinel (1 primary, 1 replica, 3 Sentinels),
            five (five servers, each with the eviction policy of its task)
  --port    the port of a single server; without it a free one is chosen
";

/// What runs; kept until the process ends.
enum Running {
    Cluster(Cluster),
    Five(Deployments),
    Sentinel(Sentinel),
    Single(Box<Server>),
}

fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nobody is left to tell if standard error is closed.
            let _shown = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut flavor, mut port) = ("redis".to_owned(), None);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"));
        match arg.as_str() {
            "--flavor" => flavor = value()?,
            "--port" => {
                let text = value()?;
                port = Some(text.parse().map_err(|_| format!("`{text}` is no port"))?);
            }
            "--help" | "-h" => return say(USAGE),
            _ => return Err(format!("`{arg}` is not understood\n\n{USAGE}")),
        }
    }
    let running = start(&flavor, port)?;
    say(&running.text())?;
    // Ctrl-C, like any death, closes the pipe that keeps the servers running.
    loop {
        thread::park();
    }
}

fn start(flavor: &str, port: Option<u16>) -> Result<Running, String> {
    let single = match flavor {
        "redis" => Some(Flavor::Redis),
        "valkey" => Some(Flavor::Valkey),
        "plain" => Some(Flavor::Plain),
        "tls" => Some(Flavor::Tls),
        _ => None,
    };
    if let Some(single) = single {
        let builder = Server::builder(single);
        let builder = match port {
            Some(port) => builder.port(port),
            None => builder,
        };
        return builder
            .start()
            .map(|server| Running::Single(Box::new(server)))
            .map_err(|error| chain(&error));
    }
    if port.is_some() {
        return Err(format!("--port is for a single server, not for {flavor}"));
    }
    match flavor {
        "cluster" => Cluster::start().map(Running::Cluster),
        "sentinel" => Sentinel::start().map(Running::Sentinel),
        "five" => Deployments::start().map(Running::Five),
        _ => return Err(format!("there is no flavor `{flavor}`\n\n{USAGE}")),
    }
    .map_err(|error| chain(&error))
}

impl Running {
    /// What to print: URLs, one a line.
    fn text(&self) -> String {
        let mut text = match self {
            Self::Single(server) => match server.ca_certificate() {
                Some(file) => format!("{}\ntrust {}", server.url(), file.display()),
                None => server.url().to_owned(),
            },
            Self::Cluster(cluster) => cluster.urls().join("\n"),
            Self::Sentinel(sentinel) => {
                let urls = sentinel.sentinel_urls().join("\n");
                format!("{urls}\nthe Sentinels' name for the primary: {}", sentinel.master_name())
            }
            Self::Five(deployments) => deployments
                .iter()
                .map(|(name, server)| format!("{name} {}", server.url()))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        text.push('\n');
        text
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn say(text: &str) -> Result<(), String> {
    let mut output = io::stdout();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| format!("could not print: {error}"))
}
