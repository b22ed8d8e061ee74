//! Redis 8 in a container, for machines that the wheels do not serve.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{net::UnixStream, process::CommandExt as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use testcontainers::{
    Container as Running, GenericImage, ImageExt as _,
    core::{IntoContainerPort as _, WaitFor},
    runners::SyncRunner as _,
};

use crate::{server::Settings, wait::announce_if_slow};

const IMAGE: (&str, &str) = ("redis", "8");
const PORT: u16 = 6379;

/// A container that is removed when this value is dropped, or by its keeper when the owner dies.
#[derive(Debug)]
pub(crate) struct Container {
    running: Option<Running<GenericImage>>,
    keeper: Option<Child>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Container {
    /// Starts a container, if there is a Docker that answers.
    pub(crate) fn start(settings: &Settings) -> Result<Self, String> {
        daemon()?;
        let (name, tag) = IMAGE;
        let _slow = announce_if_slow(format!(
            "starting {name}:{tag} in Docker, pulling it first if need be"
        ));
        let mut command: Vec<String> =
            ["redis-server", "--protected-mode", "no", "--save", ""].map(String::from).into();
        for (name, value) in settings.options() {
            command.extend([format!("--{name}"), value]);
        }
        let image = GenericImage::new(name, tag)
            .with_exposed_port(PORT.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_cmd(command);
        let image = match settings.port {
            Some(port) => image.with_mapped_port(port, PORT.tcp()),
            None => image,
        };
        // testcontainers blocks on a runtime of its own, which panics inside another one.
        let start = move || -> Result<_, testcontainers::TestcontainersError> {
            let running = image.start()?;
            let (host, port) = (running.get_host()?.to_string(), running.get_host_port_ipv4(PORT)?);
            Ok((running, host, port))
        };
        let (running, host, port) = thread::spawn(start)
            .join()
            .map_err(|_| "testcontainers panicked".to_owned())?
            .map_err(|error| error.to_string())?;
        // As for a process: the pipe closes however the owner dies. It needs the docker program;
        // without it a killed owner leaves its container.
        let keeper = Command::new("sh")
            .args(["-c", "read -r word; docker rm -f \"$1\"", "inferkit-localredis", running.id()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .ok();
        Ok(Self { running: Some(running), keeper, host, port })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let running = self.running.take();
        // Nothing can be done about a container that does not go; the keeper tries again.
        let _removed = thread::spawn(move || drop(running)).join();
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ended = keeper.wait();
        }
    }
}

/// Asks the Docker daemon whether it is there, for at most two seconds.
fn daemon() -> Result<(), String> {
    let host = env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let patience = Some(Duration::from_secs(2));
    let silent = |error: std::io::Error| format!("no Docker answers at {host}: {error}");
    let mut answer = [0; 12];
    if let Some(path) = host.strip_prefix("unix://") {
        let mut stream = UnixStream::connect(path).map_err(silent)?;
        stream
            .set_read_timeout(patience)
            .and_then(|()| stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n"))
            .and_then(|()| stream.read_exact(&mut answer))
            .map_err(silent)?;
        return match answer.ends_with(b"200") {
            true => Ok(()),
            false => Err(format!("no Docker answers at {host}")),
        };
    }
    // It may want TLS, so a connection has to do.
    let place = host.split_once("://").map_or(host.as_str(), |(_, place)| place);
    let address = std::net::ToSocketAddrs::to_socket_addrs(place)
        .map_err(silent)?
        .next()
        .ok_or_else(|| format!("DOCKER_HOST={host} has no address"))?;
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).map(drop).map_err(silent)
}
