//! Digests, by which requests, tenants and labels are told apart, and their texts.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Which entry is meant; its text has 64 hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(pub(crate) Digest);

impl EntryId {
    pub(crate) fn hex(&self) -> Hex {
        hex(&self.0)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({self})")
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: &[u8; 64] = text.as_bytes().try_into().map_err(|_| Error::InvalidId)?;
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(bytes.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            });
            *byte = high.zip(low).map(|(high, low)| high << 4 | low).ok_or(Error::InvalidId)?;
        }
        Ok(Self(id))
    }
}

pub(crate) type Digest = [u8; 32];

/// The digest of a list of parts; each part goes in with its length, so that different lists never look the same.
pub(crate) fn digest<'p>(domain: &[u8], parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
    let mut hasher = Sha256::new();
    let mut put = |part: &[u8]| {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    put(domain);
    parts.into_iter().for_each(put);
    hasher.finalize().into()
}

/// 64 hexadecimal digits, without an allocation.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Hex(pub(crate) [u8; 64]);

impl Hex {
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

pub(crate) fn hex(digest: &Digest) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    let mut text = [b'0'; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    Hex(text)
}

/// A number that differs from process to process.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// Text that nobody else makes: 32 hexadecimal digits, different for every call in every process.
pub(crate) fn unique() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    // The standard library keys each `RandomState` with numbers of the system's random source.
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}
