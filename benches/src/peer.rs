use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;

/// A library of another language, in a process of its own that runs an operation when it is asked to.
#[derive(Debug)]
pub(crate) struct Peer {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Serialize)]
struct Order<'o> {
    op: &'o str,
    calls: usize,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seconds: f64,
}

impl Peer {
    /// Starts a Python program with a package that is installed into a folder of the user's cache the first time; it gets
    /// `words`, and has filled what it reads when this returns.
    #[expect(clippy::print_stderr, reason = "the progress of a program")]
    pub(crate) async fn python(package: &str, program: &str, words: &[&str]) -> Result<Self> {
        let python = environment(package).await?;
        let mut process = Command::new(python)
            .args(["-c", program])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().ok_or("the peer has no input")?;
        let answers = process.stdout.take().ok_or("the peer has no output")?;
        let answers = BufReader::new(answers).lines();
        let mut peer = Self { _process: process, orders, answers };
        eprintln!("peers: {package} fills its caches");
        peer.answer().await?;
        Ok(peer)
    }

    /// Has it run an operation; returns the median time of a call, in microseconds.
    pub(crate) async fn run(&mut self, op: &str, calls: usize) -> Result<f64> {
        let mut order = serde_json::to_vec(&Order { op, calls })?;
        order.push(b'\n');
        self.orders.write_all(&order).await?;
        Ok(self.answer().await?.seconds * 1e6)
    }

    async fn answer(&mut self) -> Result<Answer> {
        let line = self.answers.next_line().await?;
        let line = line.ok_or("the peer ended before it answered: see its message above")?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// The Python of a virtual environment that holds `package`.
#[expect(clippy::print_stderr, reason = "the progress of a program")]
async fn environment(package: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or(home).ok_or("set HOME or XDG_CACHE_HOME")?;
    let folder = cache
        .join("inferkit")
        .join(format!("peer-{}", package.replace("==", "-").replace(['[', ']'], "-")));
    let python = folder.join("bin/python");
    // Written last, so that half an environment is made again.
    let done = folder.join("complete");
    if !done.exists() {
        eprintln!("peers: installing {package} into {}", folder.display());
        let venv = [Path::new("-m"), Path::new("venv"), Path::new("--clear"), &folder];
        run(Command::new("python3").args(venv)).await?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", package])).await?;
        tokio::fs::write(&done, package).await?;
    }
    Ok(python)
}

async fn run(command: &mut Command) -> Result<()> {
    let status = command.kill_on_drop(true).status().await?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{:?}` failed: {status}", command.as_std()).into()),
    }
}
