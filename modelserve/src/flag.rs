use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bucketing::flagd;
use crate::condition::Condition;
use crate::error::{Error, Result, name};
use crate::subject::ID;
use crate::{Reason, Subject};

/// A switch with named values, and rules that say who gets which.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) enabled: bool,
    pub(crate) unit: String,
    pub(crate) variants: BTreeMap<String, Value>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) otherwise: Serve,
    pub(crate) off: String,
}

/// What is served to those who meet a condition; the first rule that holds counts.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// For whom.
    pub when: Condition,
    /// What.
    pub serve: Serve,
}

/// One variant, or a split among some by integer weights.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Serve {
    /// This variant.
    Variant(String),
    /// One of these, each in proportion to its weight, as flagd's fractional evaluation does it, version 2.
    Split(Vec<(String, u32)>),
}

/// What a flag says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FlagDecision {
    /// The value.
    pub value: Value,
    /// The variant whose value it is.
    pub variant: String,
    /// Why.
    pub reason: Reason,
    /// The revision of the flag.
    pub revision: u64,
}

impl Flag {
    /// Begins a definition with the variant that is served while the flag is off, and to whom no rule is for.
    #[must_use]
    pub fn new(flag: impl Into<String>, off: impl Into<String>, value: impl Into<Value>) -> Self {
        let off = off.into();
        Self {
            name: flag.into(),
            revision: 0,
            enabled: true,
            unit: ID.to_owned(),
            variants: BTreeMap::from([(off.clone(), value.into())]),
            rules: Vec::new(),
            otherwise: Serve::Variant(off.clone()),
            off,
        }
    }

    /// Makes a flag that is on or off, and off unless a rule or [`with_otherwise`](Self::with_otherwise) says `on`.
    #[must_use]
    pub fn boolean(flag: impl Into<String>) -> Self {
        Self::new(flag, "off", false).with_variant("on", true)
    }

    /// Adds a variant.
    #[must_use]
    pub fn with_variant(mut self, variant: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variants.insert(variant.into(), value.into());
        self
    }

    /// Adds a rule, behind those that are there.
    #[must_use]
    pub fn with_rule(mut self, when: Condition, serve: Serve) -> Self {
        self.rules.push(Rule { when, serve });
        self
    }

    /// Sets what is served to whom no rule is for.
    #[must_use]
    pub fn with_otherwise(mut self, serve: Serve) -> Self {
        self.otherwise = serve;
        self
    }

    /// Sets the attribute by which splits tell units apart, `id` unless set.
    #[must_use]
    pub fn with_unit(mut self, attribute: impl Into<String>) -> Self {
        self.unit = attribute.into();
        self
    }

    /// Switches it on or off; off, everybody gets the first variant.
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the revision that was read, 0 if it was never stored.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Sets the revision under which it is stored; for implementors of [`ModelRouter`](crate::ModelRouter).
    #[must_use]
    pub fn with_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Evaluates it for a subject; no I/O.
    #[must_use]
    pub fn evaluate(&self, subject: &Subject) -> FlagDecision {
        if !self.enabled {
            return self.decision(&self.off, Reason::Paused);
        }
        let rule = self.rules.iter().find(|rule| rule.when.holds(subject));
        let (serve, plain) = match rule {
            Some(rule) => (&rule.serve, Reason::Targeted),
            None => (&self.otherwise, Reason::Default),
        };
        match serve {
            Serve::Variant(variant) => self.decision(variant, plain),
            Serve::Split(weights) => match self.split(weights, subject) {
                Some(variant) => self.decision(variant, Reason::Split),
                None => self.decision(&self.off, Reason::NoUnit),
            },
        }
    }

    fn split<'w>(&self, weights: &'w [(String, u32)], subject: &Subject) -> Option<&'w str> {
        let unit = subject.unit(&self.unit)?;
        let total = weights.iter().map(|(_, weight)| weight).sum();
        let place = flagd::bucket(&self.name, unit, total);
        let mut end = 0;
        weights
            .iter()
            .find(|(_, weight)| {
                end += weight;
                place < end
            })
            .map(|(variant, _)| variant.as_str())
    }

    fn decision(&self, variant: &str, reason: Reason) -> FlagDecision {
        let value = self.variants.get(variant).cloned().unwrap_or(Value::Null);
        FlagDecision { value, variant: variant.to_owned(), reason, revision: self.revision }
    }

    /// Checks that it makes sense, as an implementation does before it stores anything.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::InvalidName`].
    pub fn check(&self) -> Result<()> {
        name("flag's name", &self.name)?;
        name("unit", &self.unit)?;
        let invalid = |problem: String| Error::invalid(format!("flag {}", self.name), problem);
        let known = |variant: &String| {
            let unknown = || invalid(format!("serves {variant}, which is no variant of it"));
            self.variants.get(variant).map(|_| ()).ok_or_else(unknown)
        };
        known(&self.off)?;
        let serves = self.rules.iter().map(|rule| &rule.serve).chain([&self.otherwise]);
        for serve in serves {
            match serve {
                Serve::Variant(variant) => known(variant)?,
                Serve::Split(weights) => {
                    weights.iter().try_for_each(|(variant, _)| known(variant))?;
                    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
                    // The bound of flagd's definition.
                    if sum == 0 || i32::MAX.unsigned_abs() < u32::try_from(sum).unwrap_or(u32::MAX)
                    {
                        return Err(invalid(
                            "has weights whose sum is not from 1 to 2147483647".to_owned(),
                        ));
                    }
                }
            }
        }
        self.rules.iter().try_for_each(|rule| rule.when.check())
    }
}
