use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{check_name, check_text};
use crate::{Error, Limit, Result};

/// The most tiers of a policy.
pub(crate) const MAX_TIERS: usize = 1000;

/// Whose limit it is: a kind, such as `user`, and a name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) name: Cow<'static, str>,
}

impl Subject {
    /// Makes a subject of a kind of the caller's own.
    ///
    /// The name may be any text of up to 512 bytes: it is percent-encoded into the key.
    /// Of secret API keys pass a digest or an id: names stand in the server's keys.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] for the kind, [`Error::EmptyName`] and [`Error::NameTooLong`] for the name.
    pub fn new(kind: impl Into<Cow<'static, str>>, name: &str) -> Result<Self> {
        let kind = kind.into();
        check_name("kind of subject", &kind)?;
        check_text("name of the subject", name)?;
        Ok(Self { kind, name: Cow::Owned(name.to_owned()) })
    }

    /// An API key; pass its id, not the secret.
    ///
    /// # Errors
    ///
    /// As [`Subject::new`].
    pub fn api_key(id: &str) -> Result<Self> {
        Self::new("key", id)
    }

    /// A user.
    ///
    /// # Errors
    ///
    /// As [`Subject::new`].
    pub fn user(name: &str) -> Result<Self> {
        Self::new("user", name)
    }

    /// A team.
    ///
    /// # Errors
    ///
    /// As [`Subject::new`].
    pub fn team(name: &str) -> Result<Self> {
        Self::new("team", name)
    }

    /// A model.
    ///
    /// # Errors
    ///
    /// As [`Subject::new`].
    pub fn model(name: &str) -> Result<Self> {
        Self::new("model", name)
    }

    /// What everybody in the domain shares.
    #[must_use]
    pub fn global() -> Self {
        Self { kind: Cow::Borrowed("global"), name: Cow::Borrowed("all") }
    }
}

/// One limit of a policy: a name, whose limit it is, and how much.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tier {
    pub(crate) name: Cow<'static, str>,
    pub(crate) subject: Subject,
    pub(crate) limit: Limit,
    pub(crate) shadow: bool,
}

impl Tier {
    /// Makes a tier; the name stands in headers, metrics and logs.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn new(name: impl Into<Cow<'static, str>>, subject: Subject, limit: Limit) -> Result<Self> {
        let name = name.into();
        check_name("tier", &name)?;
        Ok(Self { name, subject, limit, shadow: false })
    }

    /// Makes it a dry run: it counts what it admits and reports what it would reject, and rejects nothing.
    #[must_use]
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whose limit it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the limit.
    #[must_use]
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Tells whether it is a dry run.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }
}

/// The limits that one request has to pass, all of them or none.
///
/// It is a plain value, made per request if need be: a changed number holds from the next call on, and the state stays.
/// Adding, removing or renaming a tier of a subject, and another algorithm or window, begin that subject's counting anew.
///
/// All subjects of a domain lie in one hash slot of a cluster; domains are independent of each other.
/// Two policies share the state of a subject if their tiers of this subject have the same names, units, algorithms and
/// order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy(Arc<Inner>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Inner {
    domain: Box<str>,
    tiers: Vec<Tier>,
}

impl Policy {
    /// Makes a policy without tiers, in a limit domain such as a tenant or a pool of models.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyName`] and [`Error::NameTooLong`].
    pub fn new(domain: &str) -> Result<Self> {
        check_text("limit domain", domain)?;
        Ok(Self(Arc::new(Inner { domain: domain.into(), tiers: Vec::new() })))
    }

    /// Adds a tier; at most 1000.
    ///
    /// # Errors
    ///
    /// [`Error::DuplicateTier`] and [`Error::TooManyTiers`].
    pub fn with_tier(mut self, tier: Tier) -> Result<Self> {
        let inner = Arc::make_mut(&mut self.0);
        if MAX_TIERS <= inner.tiers.len() {
            return Err(Error::TooManyTiers { max: MAX_TIERS });
        }
        if inner.tiers.iter().any(|known| known.name == tier.name) {
            return Err(Error::DuplicateTier { name: tier.name.into_owned() });
        }
        inner.tiers.push(tier);
        Ok(self)
    }

    /// Returns the limit domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.0.domain
    }

    /// Returns the tiers, in the order in which they were added.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.0.tiers
    }
}
