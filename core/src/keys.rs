//! Keys: the only place where key text is made.
//!
//! A key is a prefix, a family and components, joined by `:`.
//! Components that come from a user are percent-encoded: letters, digits and `-_.~@+=,/` stay as they are, every other
//! byte becomes `%XX`.
//! So a component never holds a `:`, a brace or a glob character, two different lists of components never make the same
//! key, and no id leaves its namespace.
//! Braces are Redis Cluster hash tags: keys that are written together carry the same tag.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// The caller's namespace: every key of the family starts with its prefix.
///
/// # Examples
///
/// ```
/// use inferkit_core::keys::Namespace;
///
/// let namespace = Namespace::new("prod")?;
/// let key = namespace.family("chat").tag("session 1").literal("log").build();
/// assert_eq!(key.as_str(), "prod:chat:{session%201}:log");
/// # Ok::<(), inferkit_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Namespace(String);

impl Namespace {
    /// Makes a namespace of `prefix`, such as `prod` or `team-a:prod`; the empty prefix is the default.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the prefix holds anything but letters, digits and `-_.:`, or starts or ends with `:`.
    pub fn new(prefix: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if !prefix.bytes().all(plain) || prefix.starts_with(':') || prefix.ends_with(':') {
            return Err(Error::new(
                ErrorKind::Config,
                "a key prefix takes letters, digits and -_.: and neither starts nor ends with a colon",
            )
            .with("prefix", prefix));
        }
        Ok(Self(prefix.to_owned()))
    }

    /// Starts a key of `family`, such as `cache`.
    #[must_use]
    pub fn family(&self, family: &'static str) -> KeyBuilder {
        let mut key = String::with_capacity(self.0.len() + family.len() + 48);
        if !self.0.is_empty() {
            key.push_str(&self.0);
            key.push(':');
        }
        key.push_str(family);
        KeyBuilder(key)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key under construction.
#[derive(Clone, Debug)]
pub struct KeyBuilder(String);

impl KeyBuilder {
    /// Goes on from a [prefix](Self::prefix), such as that of an index; its closing `:` may be there or not.
    #[must_use]
    pub fn after(prefix: &str) -> Self {
        Self(prefix.strip_suffix(':').unwrap_or(prefix).to_owned())
    }

    /// Appends a user's component, percent-encoded.
    #[must_use]
    pub fn part(mut self, component: impl AsRef<[u8]>) -> Self {
        self.0.push(':');
        encode(component.as_ref(), &mut self.0);
        self
    }

    /// Appends a user's component as the cluster hash tag: keys with the same tag share a slot.
    #[must_use]
    pub fn tag(self, component: impl AsRef<[u8]>) -> Self {
        self.tag_of([component])
    }

    /// Appends several of a user's components as one cluster hash tag, joined by `:`.
    #[must_use]
    pub fn tag_of<C: AsRef<[u8]>>(mut self, components: impl IntoIterator<Item = C>) -> Self {
        self.0.push_str(":{");
        let before = self.0.len();
        for (place, component) in components.into_iter().enumerate() {
            if 0 < place {
                self.0.push(':');
            }
            encode(component.as_ref(), &mut self.0);
        }
        // The server takes empty braces for no tag at all. No component is written as a lone `%`.
        if self.0.len() == before {
            self.0.push('%');
        }
        self.0.push('}');
        self
    }

    /// Appends bytes as lower-case hex digits, such as a digest.
    #[must_use]
    pub fn hex(mut self, bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.reserve(1 + 2 * bytes.len());
        self.0.push(':');
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                self.0.push(char::from(DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0')));
            }
        }
        self
    }

    /// Appends a fixed word.
    #[must_use]
    pub fn literal(mut self, word: &'static str) -> Self {
        self.0.push(':');
        self.0.push_str(word);
        self
    }

    /// Finishes the key.
    #[must_use]
    pub fn build(self) -> Key {
        Key(self.0)
    }

    /// Finishes the text before the next component, its `:` included: the prefix of an index or a scan.
    #[must_use]
    pub fn prefix(mut self) -> String {
        self.0.push(':');
        self.0
    }
}

/// A finished key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key(String);

impl Key {
    /// Returns the key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn encode(component: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // Digests, models and versions are plain all through, and copied at once.
    let plain = component.iter().take_while(|byte| is_plain(**byte)).count();
    let (start, rest) = component.split_at(plain);
    out.push_str(str::from_utf8(start).unwrap_or_default());
    for &byte in rest {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(HEX.get(usize::from(digit)).copied().unwrap_or(b'0')));
            }
        }
    }
}

/// Whether a byte stands for itself in a key; all of these are ASCII.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@' | b'+' | b'=' | b',' | b'/')
}

/// Undoes the percent-encoding of one component; `None` if `component` is not one that this module wrote.
#[must_use]
pub fn decode(component: &str) -> Option<Vec<u8>> {
    let mut bytes = component.bytes();
    let mut decoded = Vec::with_capacity(component.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    let mut encoded = String::with_capacity(component.len());
    encode(&decoded, &mut encoded);
    (encoded == component).then_some(decoded)
}

/// Returns the cluster slot of a key: CRC-16/XMODEM of its hash tag, modulo 16 384 (Redis Cluster specification).
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|&byte| byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    let mut crc = 0_u16;
    for &byte in tag.unwrap_or(key) {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16_384
}

/// One row of a crate's key table: what it stores, for how long, and which commands touch it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KeyFamily {
    /// The first component, such as `cache`.
    pub family: &'static str,
    /// The whole key as documentation shows it, such as `cache:<tenant digest>:<id>`.
    pub pattern: &'static str,
    /// The server's `TYPE` of the key.
    pub kind: &'static str,
    /// When the key goes away.
    pub ttl: Ttl,
    /// The commands that are used on it.
    pub commands: &'static [&'static str],
}

impl KeyFamily {
    /// Makes a row.
    #[must_use]
    pub const fn new(
        family: &'static str,
        pattern: &'static str,
        kind: &'static str,
        ttl: Ttl,
        commands: &'static [&'static str],
    ) -> Self {
        Self { family, pattern, kind, ttl, commands }
    }
}

/// When a key goes away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ttl {
    /// It always has an expiry.
    Always(&'static str),
    /// It has none, for the reason given.
    Never(&'static str),
}

/// Returns the ACL rules (`ACL SETUSER` words) that a user of `table` under `namespace` needs.
#[must_use]
pub fn acl(table: &[KeyFamily], namespace: &Namespace) -> Vec<String> {
    let mut rules = Vec::new();
    for row in table {
        let rule = format!("~{}", namespace.family(row.family).prefix() + "*");
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    // What the pool itself sends.
    let own = &["HELLO", "CLIENT", "PING", "ROLE", "CLUSTER|SLOTS", "ASKING"][..];
    for command in table.iter().flat_map(|row| row.commands).chain(own) {
        let rule = format!("+{}", command.to_ascii_lowercase());
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Returns `table` as a Markdown table, as it stands in the crates' READMEs.
#[must_use]
pub fn markdown(table: &[KeyFamily]) -> String {
    let mut text = String::from("| key | type | expiry | commands |\n|---|---|---|---|\n");
    for row in table {
        let ttl = match row.ttl {
            Ttl::Always(rule) => rule.to_owned(),
            Ttl::Never(reason) => format!("none: {reason}"),
        };
        let commands: Vec<String> =
            row.commands.iter().map(|command| format!("`{command}`")).collect();
        text.push_str(&format!(
            "| `{}` | {} | {ttl} | {} |\n",
            row.pattern,
            row.kind,
            commands.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn join(parts: &[Vec<u8>]) -> String {
        let mut key = Namespace::default().family("f");
        for part in parts {
            key = key.part(part);
        }
        key.build().to_string()
    }

    proptest! {
        #[test]
        fn different_components_make_different_keys(
            a in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..4),
            b in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..4),
        ) {
            prop_assert_eq!(a == b, join(&a) == join(&b));
        }

        #[test]
        fn components_never_hold_syntax_and_decode_to_themselves(part in prop::collection::vec(any::<u8>(), 0..40)) {
            let key = Namespace::default().family("f").part(&part).build();
            let encoded = key.as_str().strip_prefix("f:").unwrap();
            let syntax = encoded.contains([':', '{', '}', '*', '?', '[', ']', ' ', '\\', '"']);
            prop_assert!(!syntax, "{}", encoded);
            let decoded = decode(encoded);
            prop_assert_eq!(decoded.as_deref(), Some(&part[..]));
            let tagged = Namespace::default().family("f").tag(&part);
            let [a, b] = ["a", "b"].map(|word| slot(tagged.clone().literal(word).build().as_bytes()));
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn only_what_was_encoded_is_decoded() {
        for text in ["a:b", "*", "%6a", "%41", "%", "%4", "%zz"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("%6A"), None, "a letter stays as it is");
        assert_eq!(decode("a%20b").as_deref(), Some(&b"a b"[..]));
    }

    #[test]
    fn ordinary_ids_stay_readable() {
        let namespace = Namespace::new("prod").unwrap();
        let key = namespace.family("rl").tag("ann@example.com").part("gpt-4.1/mini").build();
        assert_eq!(key.as_str(), "prod:rl:{ann@example.com}:gpt-4.1/mini");
    }

    #[test]
    fn prefixes_with_syntax_are_refused() {
        for prefix in ["a b", "{a}", "a*", "a:", ":a", "ä"] {
            assert_eq!(Namespace::new(prefix).unwrap_err().kind(), ErrorKind::Config, "{prefix}");
        }
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        // `tests/cluster.rs` asks a real server about many more.
        for (key, expected) in [("foo", 12182), ("{foo}:bar", 12182), ("123456789", 12739)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }
}
