use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest id that is accepted, in bytes.
pub const MAX_ID_BYTES: usize = 256;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(id: String) -> Result<Self> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl $name {
            /// Takes any text of 1 to 256 bytes.
            ///
            /// # Errors
            ///
            /// [`Error::InvalidId`] for an empty or a longer text.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                match id.len() {
                    1..=MAX_ID_BYTES => Ok(Self(id)),
                    bytes => Err(Error::InvalidId { what: $what, bytes }),
                }
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The id of a session: any text of 1 to 256 bytes, braces and colons included.
    SessionId, "session id"
}
text_id! {
    /// The id of the user that a session belongs to.
    UserId, "user id"
}
text_id! {
    /// An id that the client gives a message, so that sending it twice stores it once.
    ClientId, "client message id"
}
text_id! {
    /// The name of an answer that is being streamed, unique within its session.
    Turn, "turn"
}

macro_rules! shown_id {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }
    )*};
}
shown_id!(SessionId, ClientId, Turn);

/// Shows nothing: user ids do not belong into logs.
impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserId").finish_non_exhaustive()
    }
}

/// The id of a message in its session's log, by which messages are ordered: the server's time in milliseconds and a
/// number within the millisecond.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId {
    millis: u64,
    sequence: u64,
}

impl EntryId {
    /// The place before every message.
    pub const ZERO: Self = Self::new(0, 0);

    /// Makes an id of its two numbers.
    #[must_use]
    pub const fn new(millis: u64, sequence: u64) -> Self {
        Self { millis, sequence }
    }

    /// Returns when the message was stored, in milliseconds since the Unix epoch by the server's clock.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Returns the number within the millisecond.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl TryFrom<String> for EntryId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> Self {
        id.to_string()
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('-').and_then(|(millis, sequence)| {
            Some(Self::new(millis.parse().ok()?, sequence.parse().ok()?))
        });
        numbers.ok_or(Error::InvalidEntryId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_any_text_that_is_not_empty_or_too_long() {
        for id in ["a}:b{", " ", "naïve 🙂", "a\0b"] {
            assert_eq!(SessionId::new(id).unwrap().as_str(), id);
        }
        for bytes in [0, 257] {
            let error = SessionId::new("x".repeat(bytes)).unwrap_err();
            assert!(matches!(error, Error::InvalidId { bytes: got, .. } if got == bytes));
        }
    }

    #[test]
    fn user_ids_are_not_shown() {
        let shown = format!("{:?}", UserId::new("ann@example.com").unwrap());
        assert!(!shown.contains("ann"), "{shown}");
    }

    #[test]
    fn entry_ids_are_ordered_as_numbers_and_read_back() {
        let (a, b): (EntryId, EntryId) = ("9-10".parse().unwrap(), "10-9".parse().unwrap());
        assert!(a < b);
        assert_eq!(b.to_string(), "10-9");
        for text in ["", "1", "1-", "-1", "a-1", "1-1-1", "99999999999999999999-0"] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
    }
}
