//! A server process that cannot outlive its owner.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result, control::Control, random};

/// The keeper: its standard input is a pipe that only the owner holds.
///
/// Whatever ends the owner closes the pipe, `read` returns, and the keeper ends the server: first
/// politely, after two seconds with `kill -9`.
/// Then it removes the folder, unless it was told to keep it, and ends whatever the server left in
/// the process group, itself included.
/// A stopped server would never see the signal, hence the CONT.
const KEEPER: &str = r#"
folder=$1; log=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
server=$!
echo "$server"
exec >/dev/null 2>&1
read -r word
kill -CONT "$server"
kill -TERM "$server"
{ sleep 2; kill -9 "$server"; } &
wait "$server"
[ "$word" = keep ] || rm -rf "$folder"
kill -9 0
"#;

/// How long a server may take to answer its first PING, on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A server under its keeper.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Child,
    server: Pid,
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Working and data folder; removed by the keeper.
    pub(crate) folder: PathBuf,
}

impl Launch {
    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The last lines of the server's log.
    fn tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Start { program: self.program.clone(), reason: reason.into(), log: self.tail() }
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start(&self, control: &Control) -> Result<Process> {
        let process = self.spawn()?;
        let begin = Instant::now();
        while !control.answers_as(process.id()) {
            if !process.is_alive() {
                return Err(self.failed("it ended at once"));
            }
            if START < begin.elapsed() {
                return Err(
                    self.failed(format!("it gave no answer to PING in {} s", START.as_secs()))
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    fn spawn(&self) -> Result<Process> {
        let spawn = |source| Error::io("start", &self.program, source);
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "inferkit-localredis"])
            .arg(&self.folder)
            .arg(self.log())
            .arg(&self.program)
            .args(&self.args)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the group: the keeper must live to clean up.
            .process_group(0)
            .spawn()
            .map_err(spawn)?;
        let mut line = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(spawn)?;
        }
        match line.trim().parse().ok().and_then(Pid::from_raw) {
            Some(server) => Ok(Process { keeper, server }),
            None => {
                drop(keeper.stdin.take());
                let _ended = keeper.wait();
                Err(self.failed("`sh` did not start it"))
            }
        }
    }

    /// Whether a failed start may be cured by another port.
    pub(crate) fn is_port_clash(error: &Error) -> bool {
        match error {
            Error::Start { log, .. } => log.contains("Address already in use"),
            _ => false,
        }
    }
}

impl Process {
    /// Ends the server; its folder stays if `keep`, for a later start.
    pub(crate) fn stop(mut self, keep: bool) {
        self.end(keep);
    }

    /// Sends a signal. The keeper does not reap the server, so the number cannot be another's.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.server, signal).map_err(|source| Error::Io {
            what: format!("send {signal:?} to process {}", self.server),
            source: source.into(),
        })
    }

    /// `kill -9`; returns when the process is gone and its sockets are closed.
    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let begin = Instant::now();
        while self.is_alive() {
            if START < begin.elapsed() {
                return Err(Error::Late {
                    what: format!("the end of process {}", self.server),
                    seconds: START.as_secs(),
                    seen: "it still runs".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether the server runs: a dead one stays a zombie until its keeper goes.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = format!("/proc/{}/stat", self.server);
        let state = match fs::read_to_string(stat) {
            Ok(text) => text
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next().map(String::from))
                .unwrap_or_default(),
            Err(_) if Path::new("/proc/self/stat").exists() => return false,
            Err(_) => {
                let number = self.server.to_string();
                match Command::new("ps").args(["-o", "stat=", "-p", &number]).output() {
                    Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
                    Err(_) => return true,
                }
            }
        };
        !state.is_empty() && !state.starts_with(['Z', 'X'])
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.as_raw_nonzero().get().unsigned_abs()
    }

    fn end(&mut self, keep: bool) {
        if let Some(mut pipe) = self.keeper.stdin.take() {
            if keep {
                // If this fails the keeper is gone, and nothing is left to be kept.
                let _told = pipe.write_all(b"keep\n");
            }
            drop(pipe);
            let _ended = self.keeper.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// A port that is free now, below the range that the system gives to outgoing connections.
///
/// From inside that range a client that keeps dialing a stopped server can be given the very port
/// it dials, and then it talks to itself.
pub(crate) fn free_port() -> Result<u16> {
    let mut last = None;
    for _ in 0..1000 {
        let port = 12_000 + u16::try_from(random() % 20_000).unwrap_or_default();
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(source) => last = Some(source),
        }
    }
    let source = last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into());
    Err(Error::Io { what: "find a free port on 127.0.0.1".to_owned(), source })
}
