use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Error, Result,
    control::{Control, Endpoint},
    process::{Launch, Process, free_port},
    resolve::{Binary, Source, resolve},
    tls::Certificates,
};

/// What kind of server is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flavor {
    /// Redis without modules that matter; 7.2 or newer.
    Plain,
    /// Redis with RediSearch: the `FT.` commands are there.
    Redis,
    /// Redis behind TLS, with a certificate made for the occasion.
    Tls,
    /// Valkey with RediSearch.
    Valkey,
}

impl Flavor {
    /// Every flavor.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Redis, Self::Tls, Self::Valkey];
}

impl fmt::Display for Flavor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain => "plain",
            Self::Redis => "redis",
            Self::Tls => "tls",
            Self::Valkey => "valkey",
        })
    }
}

/// A running server; it stops when this value is dropped or its process dies.
///
/// All methods block for the time of a local round trip or two.
#[derive(Debug)]
pub struct Server {
    url: String,
    host: String,
    port: u16,
    control: Control,
    version: String,
    search: bool,
    origin: Origin,
}

/// How a [`Server`] is to be started.
///
/// Any setting asks for a server of our own: one named by `INFERKIT_REDIS_URL` is not used then.
#[derive(Clone)]
#[must_use]
pub struct ServerBuilder {
    flavor: Flavor,
    settings: Settings,
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) port: Option<u16>,
    pub(crate) config: Vec<(String, String)>,
    pub(crate) durable: bool,
    pub(crate) unix_socket: bool,
    pub(crate) password: Option<String>,
    pub(crate) tls: bool,
    /// A whole Sentinel configuration, less its port and folder.
    pub(crate) sentinel: Option<String>,
}

#[derive(Debug)]
enum Origin {
    #[cfg(feature = "docker")]
    #[expect(dead_code, reason = "held for its drop")]
    Container(Box<crate::docker::Container>),
    External,
    Own(Own),
}

#[derive(Debug)]
struct Own {
    /// Nothing after a restart that failed.
    process: Mutex<Option<Process>>,
    launch: Launch,
    unix_socket: Option<PathBuf>,
    certificate: Option<PathBuf>,
    _folder: TempDir,
}

impl Server {
    /// Starts a server of the caller's own.
    ///
    /// `INFERKIT_REDIS_URL`, if set, is used instead for [`Flavor::Redis`] and [`Flavor::Plain`].
    ///
    /// # Errors
    ///
    /// [`Error::NoServer`] if no server could be found or fetched: the message lists what was tried.
    /// [`Error::Start`] with the end of the server's log if it did not start.
    pub fn start(flavor: Flavor) -> Result<Self> {
        Self::builder(flavor).start()
    }

    /// Begins to describe a server.
    pub fn builder(flavor: Flavor) -> ServerBuilder {
        let settings = Settings { tls: flavor == Flavor::Tls, ..Settings::default() };
        ServerBuilder { flavor, settings }
    }

    /// Returns this process's shared server of a flavor, starting it the first time.
    ///
    /// It lives as long as the process. Keep tests apart with [`unique_prefix`](crate::unique_prefix).
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`]; the next call tries again.
    pub fn shared(flavor: Flavor) -> Result<&'static Self> {
        static SHARED: [Mutex<Option<&'static Server>>; 4] = [const { Mutex::new(None) }; 4];
        let slot = Flavor::ALL.iter().zip(&SHARED).find(|(known, _)| **known == flavor);
        let Some((_, slot)) = slot else { return Err(Error::Unknown(format!("flavor {flavor}"))) };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match *slot {
            Some(server) => Ok(server),
            None => {
                let server: &'static Self = Box::leak(Box::new(Self::start(flavor)?));
                *slot = Some(server);
                Ok(server)
            }
        }
    }

    /// Returns the URL for clients: `redis://127.0.0.1:PORT`, or `rediss://` for [`Flavor::Tls`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the host and the port.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of the Unix socket, if one was asked for: `unix:///…`.
    #[must_use]
    pub fn unix_url(&self) -> Option<String> {
        match &self.origin {
            Origin::Own(own) => {
                let path = own.unix_socket.as_ref()?.display();
                Some(match &self.control.password {
                    Some(password) => format!("unix://{path}?pass={}", encode(password)),
                    None => format!("unix://{path}"),
                })
            }
            _ => None,
        }
    }

    /// Returns the PEM file of the certificate authority to trust, for [`Flavor::Tls`].
    #[must_use]
    pub fn ca_certificate(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Own(own) => own.certificate.as_deref(),
            _ => None,
        }
    }

    /// Returns the server's version, such as `8.2.3`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Tells whether the server answers the `FT.` commands.
    #[must_use]
    pub fn supports_search(&self) -> bool {
        self.search
    }

    /// Tells whether the server was not started by us, but named by `INFERKIT_REDIS_URL`.
    ///
    /// The fault handles answer [`Error::NotOurs`] then.
    #[must_use]
    pub fn is_external(&self) -> bool {
        matches!(self.origin, Origin::External)
    }

    /// Returns the server's process number, if it runs and is ours.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        match &self.origin {
            Origin::Own(own) => {
                own.process().as_ref().filter(|process| process.is_alive()).map(Process::id)
            }
            _ => None,
        }
    }

    /// Ends the server with `kill -9`; [`restart`](Server::restart) brings it back.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if the server is not ours.
    pub fn kill(&self) -> Result<()> {
        self.with_process("kill", Process::kill)
    }

    /// Starts the server again with the same port, folder and settings.
    ///
    /// One that still runs is ended first, with `SIGTERM`. Returns when the server answers PING.
    /// Data survives only a server that was built [`durable`](ServerBuilder::durable).
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if the server is not ours, [`Error::Start`] if it does not start.
    pub fn restart(&self) -> Result<()> {
        let own = self.own("restart")?;
        let mut process = own.process();
        if let Some(old) = process.take() {
            old.stop(true);
        }
        *process = Some(own.launch.start(&self.control)?);
        Ok(())
    }

    /// Stops the server in its tracks (`SIGSTOP`): connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if the server is not ours.
    pub fn pause(&self) -> Result<()> {
        self.with_process("pause", |process| process.signal(Signal::STOP))
    }

    /// Lets a paused server go on (`SIGCONT`).
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if the server is not ours.
    pub fn resume(&self) -> Result<()> {
        self.with_process("resume", |process| process.signal(Signal::CONT))
    }

    /// Cuts every client's connection (`CLIENT KILL TYPE normal`, then `pubsub`) and returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] if the server is not ours: others may be using it.
    /// [`Error::NoAnswer`] or [`Error::Refused`] if the server does not do it.
    pub fn kill_clients(&self) -> Result<usize> {
        if self.is_external() {
            self.own("kill_clients")?;
        }
        let mut cut = 0;
        for kind in ["normal", "pubsub"] {
            let reply = self.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])?;
            cut += reply.parse::<usize>().unwrap_or_default();
        }
        Ok(cut)
    }

    /// Sends one control command and renders its reply as text, one line for each element.
    ///
    /// The command goes over a connection of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the server's words, or [`Error::NoAnswer`] after five seconds.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        self.control.text(args)
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Connects to a server that someone else started.
    pub(crate) fn external(url: &str) -> Result<Self, String> {
        let control = Control::parse(url)?;
        let Endpoint::Tcp(host, port) = control.endpoint.clone() else {
            return Err(format!("`{url}` names no host"));
        };
        let (version, search) = inspect(&control).map_err(|error| error.chain())?;
        let url = url.to_owned();
        Ok(Self { url, host, port, control, version, search, origin: Origin::External })
    }

    /// Runs a binary, trying other ports while the one chosen turns out to be taken.
    pub(crate) fn launch(binary: &Binary, settings: &Settings) -> Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::launch_once(binary, settings) {
                Err(error)
                    if settings.port.is_none() && tries < 5 && Launch::is_port_clash(&error) => {}
                other => return other,
            }
        }
    }

    fn launch_once(binary: &Binary, settings: &Settings) -> Result<Self> {
        let port = settings.port.map_or_else(free_port, Ok)?;
        let folder = tempfile::Builder::new()
            .prefix("inferkit-")
            .tempdir()
            .map_err(|source| Error::io("create a folder in", &std::env::temp_dir(), source))?;
        let path = folder.path();
        let socket = path.join("redis.sock");
        let mut args = Vec::new();
        let mut set = |name: &str, value: &str| {
            args.extend([format!("--{name}"), value.to_owned()]);
        };
        let mut certificate = None;
        if let Some(text) = &settings.sentinel {
            // A Sentinel writes what it learns into its configuration, so it must be a file.
            let file = path.join("sentinel.conf");
            let text = format!("port {port}\nbind 127.0.0.1\ndir {}\n{text}", path.display());
            std::fs::write(&file, text).map_err(|source| Error::io("write", &file, source))?;
            args.extend([file.display().to_string(), "--sentinel".to_owned()]);
        } else {
            set("bind", "127.0.0.1");
            set("protected-mode", "no");
            set("dir", &path.display().to_string());
            set("save", "");
            set("enable-debug-command", "local");
            set("repl-diskless-sync-delay", "0");
            for (name, value) in settings.options() {
                set(&name, &value);
            }
            if settings.unix_socket || settings.tls {
                set("unixsocket", &socket.display().to_string());
            }
            set("port", &if settings.tls { 0 } else { port }.to_string());
            if settings.tls {
                let files = Certificates::write(path)?;
                set("tls-port", &port.to_string());
                set("tls-cert-file", &files.certificate.display().to_string());
                set("tls-key-file", &files.key.display().to_string());
                set("tls-ca-cert-file", &files.authority.display().to_string());
                set("tls-auth-clients", "no");
                certificate = Some(files.authority);
            }
            if let Some(module) = &binary.module {
                set("loadmodule", &module.display().to_string());
            }
        }
        let endpoint = match settings.tls {
            true => Endpoint::Unix(socket.clone()),
            false => Endpoint::Tcp("127.0.0.1".to_owned(), port),
        };
        let control = Control::new(endpoint, settings.password.clone());
        let launch = Launch { program: binary.program.clone(), args, folder: path.to_path_buf() };
        let process = launch.start(&control)?;
        let (version, search) = inspect(&control)?;
        let scheme = if settings.tls { "rediss" } else { "redis" };
        let url = url(scheme, "127.0.0.1", port, settings);
        let origin = Origin::Own(Own {
            process: Mutex::new(Some(process)),
            launch,
            unix_socket: settings.unix_socket.then_some(socket),
            certificate,
            _folder: folder,
        });
        Ok(Self { url, host: "127.0.0.1".to_owned(), port, control, version, search, origin })
    }

    /// Runs Redis in a container.
    #[cfg(feature = "docker")]
    pub(crate) fn in_docker(settings: &Settings) -> Result<Self, String> {
        let container = crate::docker::Container::start(settings)?;
        let (host, port) = (container.host.clone(), container.port);
        let control = Control::new(Endpoint::Tcp(host.clone(), port), settings.password.clone());
        let (version, search) = inspect(&control).map_err(|error| error.chain())?;
        let url = url("redis", &host, port, settings);
        let origin = Origin::Container(Box::new(container));
        Ok(Self { url, host, port, control, version, search, origin })
    }

    #[cfg(not(feature = "docker"))]
    pub(crate) fn in_docker(_settings: &Settings) -> Result<Self, String> {
        Err("the feature `docker` is off".to_owned())
    }

    fn own(&self, operation: &'static str) -> Result<&Own> {
        match &self.origin {
            Origin::Own(own) => Ok(own),
            Origin::External => Err(Error::NotOurs {
                operation,
                url: self.url.clone(),
                kind: "the one INFERKIT_REDIS_URL names",
                fix: "unset INFERKIT_REDIS_URL, or set something in the builder to get a server \
                      of your own",
            }),
            #[cfg(feature = "docker")]
            Origin::Container(_) => Err(Error::NotOurs {
                operation,
                url: self.url.clone(),
                kind: "in a container",
                fix: "install python3 with pip (x86-64 Linux), or set INFERKIT_REDIS_SERVER",
            }),
        }
    }

    fn with_process(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Process) -> Result<()>,
    ) -> Result<()> {
        match &*self.own(operation)?.process() {
            Some(process) => act(process),
            None => Err(Error::Io {
                what: format!("{operation} a server that did not come back; restart it first"),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        }
    }
}

impl Settings {
    /// What holds wherever the server runs, in the order in which the server is to read it.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        let mut options = Vec::new();
        let mut set = |name: &str, value: &str| options.push((name.to_owned(), value.to_owned()));
        set("appendonly", if self.durable { "yes" } else { "no" });
        if self.durable {
            set("appendfsync", "always");
        }
        if let Some(password) = &self.password {
            set("requirepass", password);
            set("masterauth", password);
        }
        options.extend(self.config.iter().cloned());
        options
    }
}

impl Own {
    /// Held for short sections and across no callback that could take it again.
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerBuilder {
    /// Sets the port; without it a free one is chosen.
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = Some(port);
        self
    }

    /// Sets a line of the server's configuration, such as `("maxmemory", "100mb")`.
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.settings.config.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps data over [`Server::kill`] and [`Server::restart`]: append-only file, `fsync` always.
    pub fn durable(mut self) -> Self {
        self.settings.durable = true;
        self
    }

    /// Listens on a Unix socket too, or not; see [`Server::unix_url`].
    pub fn unix_socket(mut self, listen: bool) -> Self {
        self.settings.unix_socket = listen;
        self
    }

    /// Asks clients for a password; it is part of [`Server::url`].
    pub fn password(mut self, password: &str) -> Self {
        self.settings.password = Some(password.to_owned());
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`].
    pub fn start(self) -> Result<Server> {
        let standard = self.settings == Server::builder(self.flavor).settings;
        match resolve(self.flavor, standard)? {
            Source::External(url) => Server::external(&url).map_err(Error::NoServer),
            Source::Binary(binary) => Server::launch(&binary, &self.settings),
            Source::Docker => Server::in_docker(&self.settings).map_err(Error::NoServer),
        }
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerBuilder")
            .field("flavor", &self.flavor)
            .field("port", &self.settings.port)
            .field("durable", &self.settings.durable)
            .finish_non_exhaustive()
    }
}

/// Asks for the version and whether there is a search module.
fn inspect(control: &Control) -> Result<(String, bool)> {
    let info = control.text(&["INFO", "server"])?;
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
    };
    let version = field("valkey_version").or_else(|| field("redis_version")).unwrap_or("unknown");
    let search = control.call(&["FT._LIST"]).is_ok();
    Ok((version.to_owned(), search))
}

fn url(scheme: &str, host: &str, port: u16, settings: &Settings) -> String {
    match &settings.password {
        Some(password) => format!("{scheme}://:{}@{host}:{port}", encode(password)),
        None => format!("{scheme}://{host}:{port}"),
    }
}

/// Percent-encodes what may not stand in a URL's password.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_server_is_not_broken() {
        let ours = Server::builder(Flavor::Plain).password("a b").start().unwrap();
        let foreign = Server::external(ours.url()).unwrap();
        assert!(foreign.is_external() && !ours.is_external());
        assert_eq!(foreign.address(), ours.address());
        assert_eq!(foreign.command(&["PING"]).unwrap(), "PONG");
        for refused in [
            foreign.kill(),
            foreign.restart(),
            foreign.pause(),
            foreign.resume(),
            foreign.kill_clients().map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::NotOurs { .. }), "{error}");
            assert!(error.to_string().contains("unset INFERKIT_REDIS_URL"), "{error}");
        }
        drop(foreign);
        assert_eq!(ours.command(&["PING"]).unwrap(), "PONG");
    }
}
