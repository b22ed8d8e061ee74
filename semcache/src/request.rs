use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Whose answers are meant: no tenant ever sees another's.
///
/// There is no default: answers that all may share are under [`Tenant::shared`], which must be written out.
/// Only a digest of the name is kept and stored.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Tenant(Digest);

impl Tenant {
    /// Names a tenant; any text that is not blank will do, and is taken to the letter.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyTenant`] if the name holds nothing but blanks.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        if name.trim().is_empty() {
            return Err(Error::EmptyTenant);
        }
        Ok(Self(digest(b"inferkit semcache tenant 1", [&b"named"[..], name.as_bytes()])))
    }

    /// Means the answers that all tenants share; no name makes the same.
    #[must_use]
    pub fn shared() -> Self {
        Self(digest(b"inferkit semcache tenant 1", [&b"shared"[..]]))
    }

    pub(crate) fn hex(&self) -> Hex {
        hex(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").finish_non_exhaustive()
    }
}

/// A question to a model, as the cache sees it.
///
/// Tenant, model and context must be equal for one request to be answered with the answer to another; the prompt must be
/// equal or near.
/// `Debug` prints none of the texts.
///
/// # Examples
///
/// ```
/// use inferkit_semcache::{Request, Tenant};
///
/// let request = Request::new(Tenant::new("acme")?, "gpt-4.1", "Explain photosynthesis briefly")?
///     .with_context("You are a teacher.");
/// assert_eq!(request.model(), "gpt-4.1");
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Request {
    tenant: Tenant,
    model: Arc<str>,
    prompt: Arc<str>,
    context: Option<Digest>,
}

impl Request {
    /// Makes a request without context.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyModel`] and [`Error::EmptyPrompt`] if the one or the other holds nothing but blanks.
    pub fn new(
        tenant: Tenant,
        model: impl Into<Arc<str>>,
        prompt: impl Into<Arc<str>>,
    ) -> Result<Self> {
        let (model, prompt) = (model.into(), prompt.into());
        if model.trim().is_empty() {
            return Err(Error::EmptyModel);
        }
        if prompt.trim().is_empty() {
            return Err(Error::EmptyPrompt);
        }
        Ok(Self { tenant, model, prompt, context: None })
    }

    /// Sets everything else that the answer depends on: system prompt, history, tools, sampling.
    ///
    /// Only its digest is kept.
    /// An empty context is not the same as none.
    #[must_use]
    pub fn with_context(mut self, context: impl AsRef<[u8]>) -> Self {
        self.context = Some(digest(b"inferkit semcache context 1", [context.as_ref()]));
        self
    }

    /// Returns the tenant.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Returns the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the prompt.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Returns the id of this request's entry: a digest of tenant, model, context and prompt.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId(self.digest(b"inferkit semcache id 1", self.prompt.as_bytes()))
    }

    /// Returns what must be equal for one request to take the answer to another: a digest, in hex, of tenant, model and
    /// context, followed by a digest of the name of the model that embeds the prompts.
    ///
    /// Vectors of different embedding models say nothing about each other, also where their dimensions are equal.
    #[must_use]
    pub fn scope(&self, embedding_model: &str) -> String {
        self.full_scope(embedding_model).to_string()
    }

    pub(crate) fn full_scope(&self, embedding_model: &str) -> Scope {
        Scope {
            request: hex(&self.digest(b"inferkit semcache scope 1", b"")),
            embedding: hex(&digest(
                b"inferkit semcache embedding model 1",
                [embedding_model.as_bytes()],
            )),
        }
    }

    pub(crate) fn shared_model(&self) -> Arc<str> {
        Arc::clone(&self.model)
    }

    pub(crate) fn shared_prompt(&self) -> Arc<str> {
        Arc::clone(&self.prompt)
    }

    fn digest(&self, domain: &[u8], prompt: &[u8]) -> Digest {
        let context = self.context.as_ref().map_or(&b""[..], |context| context);
        digest(domain, [&self.tenant.0[..], self.model.as_bytes(), context, prompt])
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("model", &self.model)
            .field("prompt_bytes", &self.prompt.len())
            .finish_non_exhaustive()
    }
}

/// Which entry is meant; its text has 64 hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId(Digest);

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

/// What a model answered, to be stored.
///
/// `Debug` does not print the answer.
#[derive(Clone, Eq, PartialEq)]
pub struct Answer {
    response: Bytes,
    tokens_used: Option<u64>,
}

impl Answer {
    /// Makes an answer of its text, or of any bytes that the caller can read again.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyAnswer`] if it holds nothing but blanks.
    pub fn new(response: impl Into<Bytes>) -> Result<Self> {
        let response = response.into();
        if is_blank(&response) {
            return Err(Error::EmptyAnswer);
        }
        Ok(Self { response, tokens_used: None })
    }

    /// Sets the number of tokens that the answer cost.
    #[must_use]
    pub fn with_tokens_used(mut self, tokens_used: u64) -> Self {
        self.tokens_used = Some(tokens_used);
        self
    }

    /// Returns the answer.
    #[must_use]
    pub fn response(&self) -> &Bytes {
        &self.response
    }

    /// Returns the number of tokens that the answer cost, if known.
    #[must_use]
    pub fn tokens_used(&self) -> Option<u64> {
        self.tokens_used
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("bytes", &self.response.len())
            .field("tokens_used", &self.tokens_used)
            .finish_non_exhaustive()
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty())
}

type Digest = [u8; 32];

/// The digest of a list of parts; each part goes in with its length, so that different lists never look the same.
fn digest<const N: usize>(domain: &[u8], parts: [&[u8]; N]) -> Digest {
    let mut hasher = Sha256::new();
    for part in [domain].iter().chain(&parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Among which entries an answer is looked for.
///
/// The exact tier compares the first part only: the answer to the very same request holds whoever embedded its prompt.
/// The semantic tier compares both.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Scope {
    request: Hex,
    embedding: Hex,
}

impl Scope {
    /// Tells whether `stored` is this scope.
    pub(crate) fn is(&self, stored: &[u8]) -> bool {
        self.is_of_request(stored) && stored.ends_with(&self.embedding.0)
    }

    /// Tells whether `stored` is this scope, under whatever embedding model.
    pub(crate) fn is_of_request(&self, stored: &[u8]) -> bool {
        stored.len() == self.request.0.len() + self.embedding.0.len()
            && stored.starts_with(&self.request.0)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.request.as_str())?;
        f.write_str(self.embedding.as_str())
    }
}

/// 64 hexadecimal digits, without an allocation.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Hex([u8; 64]);

impl Hex {
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn hex(digest: &Digest) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    let mut text = [b'0'; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    Hex(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(tenant: &str, model: &str, prompt: &str) -> Request {
        Request::new(Tenant::new(tenant).unwrap(), model, prompt).unwrap()
    }

    #[test]
    fn the_id_is_golden() {
        // A changed encoding must also change the version in its domain: entries of old would be served otherwise.
        let id = request("acme", "gpt-4", "Hello").id();
        assert_eq!(
            id.to_string(),
            "3149a531f48769c02929bf7e498ccdc6bded192bf600683579674eb3407cef66"
        );
        assert_eq!(id.to_string().parse::<EntryId>().unwrap(), id);
    }

    #[test]
    fn what_is_empty_is_refused() {
        let shared = Tenant::shared;
        for blank in ["", " ", "\n\t ", "\u{3000}"] {
            assert!(matches!(Tenant::new(blank), Err(Error::EmptyTenant)));
            assert!(matches!(Request::new(shared(), "m", blank), Err(Error::EmptyPrompt)));
            assert!(matches!(Request::new(shared(), blank, "p"), Err(Error::EmptyModel)));
            assert!(matches!(Answer::new(blank), Err(Error::EmptyAnswer)));
        }
        assert!(Answer::new(&b"\xff"[..]).is_ok());
        for text in ["", "0", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert!(matches!(text.parse::<EntryId>(), Err(Error::InvalidId)));
        }
    }

    #[test]
    fn no_text_is_printed() {
        let tenant = Tenant::new("s3cret").unwrap();
        let request = Request::new(tenant, "m", "s3cret").unwrap().with_context("s3cret");
        let answer = Answer::new("s3cret").unwrap();
        assert!(!format!("{request:?} {:?} {answer:?}", request.tenant()).contains("s3cret"));
    }

    #[test]
    fn shared_is_no_name_and_an_empty_context_is_not_none() {
        let shared = Request::new(Tenant::shared(), "m", "p").unwrap();
        for name in ["shared", "\0", "named"] {
            assert_ne!(shared.scope("e"), request(name, "m", "p").scope("e"));
        }
        assert_ne!(shared.scope("e"), shared.clone().with_context("").scope("e"));
        let id = shared.id();
        assert_ne!(id, shared.with_context("").id());
    }

    proptest! {
        #[test]
        fn different_requests_have_different_ids(
            a in ("[ab\0]{1,3}", "[ab\0]{1,3}", "[ab]{1,3}", prop::option::of("[ab]{0,2}")),
            b in ("[ab\0]{1,3}", "[ab\0]{1,3}", "[ab]{1,3}", prop::option::of("[ab]{0,2}")),
        ) {
            let build = |(tenant, model, prompt, context): &(String, String, String, Option<String>)| {
                let request = request(tenant, model, prompt);
                match context {
                    Some(context) => request.with_context(context),
                    None => request,
                }
            };
            prop_assert_eq!(a == b, build(&a).id() == build(&b).id());
            let same_scope = (&a.0, &a.1, &a.3) == (&b.0, &b.1, &b.3);
            prop_assert_eq!(same_scope, build(&a).scope("e") == build(&b).scope("e"));
            prop_assert_ne!(build(&a).scope("e"), build(&a).scope("f"));
        }
    }
}
