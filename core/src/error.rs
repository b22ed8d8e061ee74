use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of a question to the server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a question to the server was not answered.
///
/// One word wide.
/// The client library's own error is kept as the [`source`](StdError::source), boxed, so that no type of a
/// client library is part of this crate's API.
/// Arguments of commands are never part of an error: keys may be attached with [`Error::with`].
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    maybe_applied: bool,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`], by what a caller can do about them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server refused the credentials, or the user lacks a permission.
    Auth,
    /// A setting or an argument is wrong; repeating the call cannot help.
    Config,
    /// There is no connection, or it broke.
    Connection,
    /// Keys of one command or atomic batch lie in different cluster slots.
    CrossSlot,
    /// The server is loading its data set and answers no commands yet.
    Loading,
    /// The server does not know the script; [`DriverExt`](crate::DriverExt) handles this by itself.
    NoScript,
    /// The server's `maxmemory` is reached and its policy evicts nothing.
    OutOfMemory,
    /// The server is a replica, or lost its primary role.
    ReadOnly,
    /// The reply has a shape that the caller did not expect.
    Reply,
    /// The server refused the command for another reason; [`Error::code`] tells which.
    Server,
    /// No reply came within the configured time.
    Timeout,
}

impl Error {
    /// Makes an error of `kind`; `message` is lower-case, without a full stop, and says what to do next.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            maybe_applied: false,
            context: Vec::new(),
            source: None,
        }))
    }

    /// Makes an error of a server's error reply, `CODE message`, classified by its code.
    #[must_use]
    pub fn server(reply: impl Into<String>) -> Self {
        let mut reply = reply.into();
        // The server shows what it was sent to whoever misspelt a command.
        if let Some(shown) = reply.find(", with args beginning with") {
            reply.truncate(shown);
        }
        let code = reply.split_ascii_whitespace().next().unwrap_or_default();
        let kind = match code {
            "CROSSSLOT" => ErrorKind::CrossSlot,
            "LOADING" => ErrorKind::Loading,
            "NOAUTH" | "NOPERM" | "WRONGPASS" => ErrorKind::Auth,
            "NOSCRIPT" => ErrorKind::NoScript,
            "OOM" => ErrorKind::OutOfMemory,
            "READONLY" => ErrorKind::ReadOnly,
            _ => ErrorKind::Server,
        };
        Self::new(kind, reply)
    }

    /// Adds a fact about the call, such as the key; never a value, a prompt or a password.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.context.push((name, value.into()));
        self
    }

    /// Sets whether the command may have run; see [`Error::maybe_applied`].
    #[must_use]
    pub fn with_maybe_applied(mut self, maybe_applied: bool) -> Self {
        self.0.maybe_applied = maybe_applied;
        self
    }

    /// Sets the underlying cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the code of the server's error reply, such as `WRONGTYPE`, if the server sent one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        let word = self.0.message.split_ascii_whitespace().next()?;
        let is_code =
            1 < word.len() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        is_code.then_some(word)
    }

    /// Tells whether the same call may succeed later without anybody changing anything.
    ///
    /// This says nothing about whether a repetition is safe: that is [`Error::maybe_applied`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connection
            | ErrorKind::Loading
            | ErrorKind::ReadOnly
            | ErrorKind::Timeout => true,
            ErrorKind::Server => matches!(
                self.code(),
                Some(
                    "ASK"
                        | "BUSY"
                        | "CLUSTERDOWN"
                        | "MASTERDOWN"
                        | "MOVED"
                        | "NOREPLICAS"
                        | "TRYAGAIN"
                        | "UNBLOCKED"
                )
            ),
            _ => false,
        }
    }

    /// Tells whether the command may have run although no answer came.
    ///
    /// Where this is `false` the server did not run the command, and repeating it is safe.
    /// Where it is `true` a write must only be repeated if it is idempotent.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        self.0.maybe_applied
    }

    /// Returns the facts attached with [`Error::with`].
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            let separator = if index == 0 { " (" } else { ", " };
            write!(f, "{separator}{name}: {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("maybe_applied", &self.0.maybe_applied)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_wide_and_sendable() {
        fn sendable<T: Send + Sync + 'static>() {}
        sendable::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn server_replies_are_classified_by_code() {
        let kind = |reply: &str| Error::server(reply).kind();
        assert_eq!(kind("OOM command not allowed"), ErrorKind::OutOfMemory);
        assert_eq!(kind("NOPERM this user has no permissions"), ErrorKind::Auth);
        assert_eq!(kind("WRONGTYPE Operation against a key"), ErrorKind::Server);
        assert_eq!(Error::server("WRONGTYPE Operation").code(), Some("WRONGTYPE"));
        assert_eq!(Error::new(ErrorKind::Config, "no such thing").code(), None);
        assert!(Error::server("TRYAGAIN Multiple keys").is_transient());
        assert!(!Error::server("ERR syntax error").is_transient());
    }

    #[test]
    fn what_was_sent_is_not_shown() {
        let reply =
            "ERR unknown command 'FT.SEARCH', with args beginning with: 'idx' 'my hunter2' ";
        let error = Error::server(reply);
        assert_eq!(error.to_string(), "ERR unknown command 'FT.SEARCH'");
    }

    #[test]
    fn display_names_the_context_and_not_the_source() {
        let error = Error::new(ErrorKind::Timeout, "no reply within 1s")
            .with("command", "GET")
            .with("key", "a")
            .with_source(std::io::Error::other("inner"));
        assert_eq!(error.to_string(), "no reply within 1s (command: GET, key: a)");
        assert_eq!(error.source().map(ToString::to_string), Some("inner".to_owned()));
    }
}
