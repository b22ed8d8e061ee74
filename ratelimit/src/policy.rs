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
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tier {
    pub(crate) name: Cow<'static, str>,
    pub(crate) subject: Subject,
    pub(crate) limit: Limit,
    pub(crate) shadow: bool,
    pub(crate) domain: Option<Box<str>>,
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
        Ok(Self { name, subject, limit, shadow: false, domain: None })
    }

    /// Puts it into another limit domain than the policy's: on a cluster, what all tenants share then lies elsewhere than
    /// what is each tenant's own.
    ///
    /// The policy's own domain decides first, in a script of its own, and the other is asked only if that admits; if the
    /// other rejects, all that was charged is given back.
    /// So a tenant who floods the service never reaches what it shares with others.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyName`] and [`Error::NameTooLong`].
    pub fn in_domain(mut self, domain: &str) -> Result<Self> {
        check_text("limit domain", domain)?;
        self.domain = Some(domain.into());
        Ok(self)
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

    /// Returns the limit domain, if it is not the policy's.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
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
/// All subjects of a domain lie in one hash slot of a cluster, and are decided at once; see [`Tier::in_domain`] for a
/// policy that spans several.
/// Two policies share the state of a subject if their tiers of this subject have the same names, units, algorithms and
/// order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Policy(Arc<Inner>);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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

    /// Returns the policy of one of several instances: its part of every limit, and at least 1.
    pub(crate) fn divided(&self, instances: u64) -> Self {
        let mut policy = self.clone();
        for tier in &mut Arc::make_mut(&mut policy.0).tiers {
            tier.limit = tier.limit.divided(instances);
        }
        policy
    }

    /// Returns the policy of each domain: itself, if there is only one.
    pub(crate) fn by_domain(&self) -> Vec<Self> {
        match self.parts() {
            parts if parts.is_empty() => vec![self.clone()],
            parts => parts.into_iter().map(|part| part.policy).collect(),
        }
    }

    /// Returns the policy of each domain, its own first, with the places of its tiers; nothing if there is only one.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let own = self.domain();
        let other = |tier: &Tier| tier.domain().is_some_and(|domain| domain != own);
        if !self.tiers().iter().any(other) {
            return Vec::new();
        }
        let mut parts: Vec<(&str, Part)> = Vec::new();
        // Its own domain is the first to decide, wherever its tiers stand.
        let (here, there): (Vec<_>, Vec<_>) =
            self.tiers().iter().enumerate().partition(|(_, tier)| !other(tier));
        for (place, tier) in here.into_iter().chain(there) {
            let domain = tier.domain().unwrap_or(own);
            let tier = Tier { domain: None, ..tier.clone() };
            match parts.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, part)) => {
                    Arc::make_mut(&mut part.policy.0).tiers.push(tier);
                    part.places.push(place);
                }
                None => {
                    let inner = Inner { domain: domain.into(), tiers: vec![tier] };
                    let part = Part { policy: Self(Arc::new(inner)), places: vec![place] };
                    parts.push((domain, part));
                }
            }
        }
        parts.into_iter().map(|(_, part)| part).collect()
    }
}

/// The tiers of a policy that lie in one domain.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) policy: Policy,
    /// Where its tiers stand in the whole policy.
    pub(crate) places: Vec<usize>,
}
