use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use inferkit_vectorsearch::Similarity;
use serde::Serialize;

use crate::digest::{Digest, Hex, digest, hex};
use crate::fingerprint::Fingerprint;
use crate::policy::ttl_millis;
use crate::{Category, EntryId, Error, Result};

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

    pub(crate) fn digest(&self) -> &Digest {
        &self.0
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
/// Everything but the prompt must be equal for one request to be answered with the answer to another: tenant, model and
/// its version, category, system prompt, history, tools, response format and sampling.
/// The prompt, the last text of the user, must be equal or near.
/// Of all but model and prompt only digests are kept.
/// What the caller wants of the cache ([`CacheControl`]) is no part of the question: two requests that differ in it alone
/// have the same id.
/// `Debug` prints none of the texts.
///
/// # Examples
///
/// ```
/// use inferkit_semcache::{Category, Request, Tenant};
///
/// let request = Request::new(Tenant::new("acme")?, "gpt-4.1", "And in winter?")?
///     .with_model_version("2025-04-14")
///     .with_category(Category::FACTUAL)
///     .with_system("You are a travel agent.")
///     .with_history([("user", "Is Oslo warm?"), ("assistant", "In summer it is.")])
///     .with_sampling(&[("temperature", 0.2)])?;
/// assert_eq!(request.model(), "gpt-4.1");
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Request {
    tenant: Tenant,
    model: Arc<str>,
    model_version: Option<Arc<str>>,
    category: Option<Category>,
    prompt: Arc<str>,
    fingerprint: Fingerprint,
    control: CacheControl,
}

impl Request {
    /// Makes a request of nothing but a prompt.
    ///
    /// An empty prompt is allowed, as agents send them after a tool's result; like all prompts without content it is only
    /// answered with the answer to the very same request.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyModel`] if the model holds nothing but blanks.
    pub fn new(
        tenant: Tenant,
        model: impl Into<Arc<str>>,
        prompt: impl Into<Arc<str>>,
    ) -> Result<Self> {
        let model = model.into();
        if model.trim().is_empty() {
            return Err(Error::EmptyModel);
        }
        Ok(Self {
            tenant,
            model,
            model_version: None,
            category: None,
            prompt: prompt.into(),
            fingerprint: Fingerprint::default(),
            control: CacheControl::default(),
        })
    }

    /// Sets the version of the model, such as a date or a fingerprint that its provider reports.
    #[must_use]
    pub fn with_model_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.model_version = Some(version.into());
        self
    }

    /// Sets the kind of question, by which the policy chooses a threshold.
    #[must_use]
    pub fn with_category(mut self, category: Category) -> Self {
        self.category = Some(category);
        self
    }

    /// Sets the system prompt; an empty one is not the same as none.
    #[must_use]
    pub fn with_system(mut self, system: impl AsRef<[u8]>) -> Self {
        self.fingerprint.system = Some(Fingerprint::bytes(system.as_ref()));
        self
    }

    /// Sets the messages before the prompt, each a role and a text, the oldest first; none is the same as not set.
    #[must_use]
    pub fn with_history<R: AsRef<[u8]>, T: AsRef<[u8]>>(
        mut self,
        history: impl IntoIterator<Item = (R, T)>,
    ) -> Self {
        self.fingerprint.history = Fingerprint::messages(history);
        self
    }

    /// Sets the tools that the model may call, as they are sent; the order of names in JSON objects does not count.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`] if they cannot be written as JSON.
    pub fn with_tools<T: Serialize + ?Sized>(mut self, tools: &T) -> Result<Self> {
        self.fingerprint.tools = Some(Fingerprint::json(tools)?);
        Ok(self)
    }

    /// Sets the form that the answer must have, such as a JSON schema.
    ///
    /// # Errors
    ///
    /// As [`Request::with_tools`].
    pub fn with_response_format<T: Serialize + ?Sized>(mut self, format: &T) -> Result<Self> {
        self.fingerprint.response_format = Some(Fingerprint::json(format)?);
        Ok(self)
    }

    /// Sets the parameters of sampling: temperature, limits, seed.
    ///
    /// # Errors
    ///
    /// As [`Request::with_tools`].
    pub fn with_sampling<T: Serialize + ?Sized>(mut self, sampling: &T) -> Result<Self> {
        self.fingerprint.sampling = Some(Fingerprint::json(sampling)?);
        Ok(self)
    }

    /// Sets everything else that the answer depends on, such as retrieved documents; an empty context is not the same as
    /// none.
    #[must_use]
    pub fn with_context(mut self, context: impl AsRef<[u8]>) -> Self {
        self.fingerprint.context = Some(Fingerprint::bytes(context.as_ref()));
        self
    }

    /// Sets what the caller wants of the cache.
    #[must_use]
    pub fn with_control(mut self, control: CacheControl) -> Self {
        self.control = control;
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

    /// Returns the version of the model, if set.
    #[must_use]
    pub fn model_version(&self) -> Option<&str> {
        self.model_version.as_deref()
    }

    /// Returns the kind of question, if set.
    #[must_use]
    pub fn category(&self) -> Option<&Category> {
        self.category.as_ref()
    }

    /// Returns the prompt.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Returns what the caller wants of the cache.
    pub fn control(&self) -> &CacheControl {
        &self.control
    }

    /// Returns the id of this request's entry: a digest of everything but [`Request::control`].
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId(self.digest(b"inferkit semcache id 2", self.prompt.as_bytes()))
    }

    /// Returns what must be equal for one request to take the answer to another: a digest, in hex, of everything but the
    /// prompt, followed by a digest of the name of the model that embeds the prompts.
    ///
    /// Vectors of different embedding models say nothing about each other, also where their dimensions are equal.
    #[must_use]
    pub fn scope(&self, embedding_model: &str) -> String {
        self.full_scope(embedding_model).to_string()
    }

    pub(crate) fn full_scope(&self, embedding_model: &str) -> Scope {
        Scope {
            request: hex(&self.digest(b"inferkit semcache scope 2", b"")),
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
        fn optional(text: Option<&str>) -> [&[u8]; 2] {
            text.map_or([b"", b""], |text| [b"set", text.as_bytes()])
        }
        let [versioned, version] = optional(self.model_version.as_deref());
        let [categorized, category] = optional(self.category.as_ref().map(Category::as_str));
        let fixed = [
            self.tenant.0.as_slice(),
            self.model.as_bytes(),
            versioned,
            version,
            categorized,
            category,
            prompt,
        ];
        digest(domain, fixed.into_iter().chain(self.fingerprint.parts()))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("model", &self.model)
            .field("model_version", &self.model_version)
            .field("category", &self.category)
            .field("prompt_bytes", &self.prompt.len())
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

/// What the caller of one request wants of the cache, as `Cache-Control` does it for HTTP.
///
/// A caller can only ask for more care than the policy takes, never for less.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[must_use]
pub struct CacheControl {
    no_cache: bool,
    no_store: bool,
    max_age: Option<Duration>,
    ttl: Option<Duration>,
    /// The bits of a similarity, so that two can be compared and hashed.
    threshold: Option<u64>,
    truncated: bool,
    exact_only: bool,
}

impl CacheControl {
    /// Makes the default: read and store as the policy says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the header `Cache-Control` of a request (RFC 9111), of which it understands `no-cache`, `no-store` and
    /// `max-age`; nothing if the number of seconds is none.
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        let mut control = Self::new();
        for word in text.split(',').map(str::trim) {
            control = match word.split_once('=') {
                None if word.eq_ignore_ascii_case("no-cache") => control.no_cache(),
                None if word.eq_ignore_ascii_case("no-store") => control.no_store(),
                Some((name, seconds)) if name.trim().eq_ignore_ascii_case("max-age") => {
                    let seconds = seconds.trim().trim_matches('"').parse().ok()?;
                    control.max_age(Duration::from_secs(seconds))
                }
                _ => control,
            };
        }
        Some(control)
    }

    /// Asks for a new answer: nothing is read, and the answer is stored.
    pub fn no_cache(mut self) -> Self {
        self.no_cache = true;
        self
    }

    /// Keeps the answer out of the cache; an answer that is there may be served.
    pub fn no_store(mut self) -> Self {
        self.no_store = true;
        self
    }

    /// Accepts only the answer to the very same request, and embeds nothing.
    pub fn exact_only(mut self) -> Self {
        self.exact_only = true;
        self
    }

    /// Accepts only answers that were stored no longer ago, by the server's clock, to the second.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Sets how long the answer lives, in the place of the policy's time.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years.
    pub fn ttl(mut self, ttl: Duration) -> Result<Self> {
        ttl_millis(ttl)?;
        self.ttl = Some(ttl);
        Ok(self)
    }

    /// Asks for prompts that are at least this similar, where the policy would be content with less.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOutOfRange`] if it is not from 0 to 1.
    pub fn threshold(mut self, threshold: f64) -> Result<Self> {
        let similarity = crate::policy::threshold(threshold)?;
        self.threshold = Some(similarity.as_f64().to_bits());
        Ok(self)
    }

    /// Stores the answer also if it was cut off by a limit; see [`Finish::Truncated`](crate::Finish::Truncated).
    pub fn store_truncated(mut self) -> Self {
        self.truncated = true;
        self
    }

    /// Tells whether nothing is read.
    #[must_use]
    pub fn is_no_cache(&self) -> bool {
        self.no_cache
    }

    /// Tells whether nothing is stored.
    #[must_use]
    pub fn is_no_store(&self) -> bool {
        self.no_store
    }

    /// Tells whether only the answer to the very same request is accepted.
    #[must_use]
    pub fn is_exact_only(&self) -> bool {
        self.exact_only
    }

    /// Returns the greatest age that is accepted.
    #[must_use]
    pub fn accepted_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// Returns how long the answer is to live, if set.
    #[must_use]
    pub fn wanted_ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Returns the least similarity that is accepted, if set.
    #[must_use]
    pub fn least_similarity(&self) -> Option<Similarity> {
        self.threshold.and_then(|bits| Similarity::checked(f64::from_bits(bits)))
    }

    /// Tells whether a truncated answer is stored.
    #[must_use]
    pub fn stores_truncated(&self) -> bool {
        self.truncated
    }
}

/// Among which entries an answer is looked for.
///
/// The exact tier compares the first part only: the answer to the very same request holds whoever embedded its prompt.
/// The semantic tier compares both.
/// In an entry the epoch under which it was written stands behind.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct Scope {
    request: Hex,
    embedding: Hex,
}

impl Scope {
    /// Tells whether `stored` is this scope in `epoch`.
    pub(crate) fn is(&self, stored: &[u8], epoch: &[u8]) -> bool {
        self.is_of_request(stored, epoch)
            && stored.get(64..128).is_some_and(|embedding| embedding == self.embedding.0)
    }

    /// Tells whether `stored` is this scope in `epoch`, under whatever embedding model.
    pub(crate) fn is_of_request(&self, stored: &[u8], epoch: &[u8]) -> bool {
        !epoch.is_empty()
            && stored.starts_with(&self.request.0)
            && stored.get(128..).is_some_and(|rest| rest == epoch)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.request.as_str())?;
        f.write_str(self.embedding.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;
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
            "3747ef0ee8691fe762b58f3053c5c3b5c01b03039ba1a284c3a12701cd818588"
        );
        assert_eq!(id.to_string().parse::<EntryId>().unwrap(), id);
    }

    #[test]
    fn what_is_empty_is_refused() {
        let shared = Tenant::shared;
        for blank in ["", " ", "\n\t ", "\u{3000}"] {
            assert!(matches!(Tenant::new(blank), Err(Error::EmptyTenant)));
            assert!(matches!(Category::new(blank), Err(Error::EmptyCategory)));
            assert!(matches!(Request::new(shared(), blank, "p"), Err(Error::EmptyModel)));
            assert!(matches!(Answer::new(blank), Err(Error::EmptyAnswer)));
            assert!(Request::new(shared(), "m", blank).is_ok());
        }
        assert!(Answer::new(&b"\xff"[..]).is_ok());
        for text in ["", "0", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert!(matches!(text.parse::<EntryId>(), Err(Error::InvalidId)));
        }
    }

    #[test]
    fn what_the_caller_wants_of_the_cache_is_no_part_of_the_question() {
        let plain = request("acme", "gpt-4", "Hello");
        let control = CacheControl::new().no_cache().max_age(Duration::ZERO).store_truncated();
        let controlled = plain.clone().with_control(control.no_store());
        assert_eq!(plain.id(), controlled.id());
        assert_eq!(plain.scope("e"), controlled.scope("e"));
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
