use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{check_name, check_text};
use crate::{Error, Result};

/// The largest amount: integers up to here are exact in a script.
pub(crate) const MAX_AMOUNT: u64 = 1 << 53;

/// What a limit counts.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Unit {
    /// Something of the caller's own, made by [`Unit::custom`].
    Custom(Cow<'static, str>),
    /// Billionths of a dollar.
    NanoDollars,
    /// Requests; each weighs 1 unless the demand says otherwise.
    Requests,
    /// Tokens, of the input and the output.
    Tokens,
}

impl Unit {
    /// Makes a unit of the caller's own, such as `images`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`].
    pub fn custom(name: impl Into<Cow<'static, str>>) -> Result<Self> {
        let name = name.into();
        check_name("unit", &name)?;
        Ok(Self::Custom(name))
    }

    /// Returns the unit's name, as headers show it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            Self::NanoDollars => "nano-dollars",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// How much of each unit a request uses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Weights(Vec<(Unit, u64)>);

impl Weights {
    /// Names no unit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the weight in a unit.
    ///
    /// More than 2^53 counts as 2^53, which fits no limit.
    #[must_use]
    pub fn with(mut self, unit: Unit, amount: u64) -> Self {
        let amount = amount.min(MAX_AMOUNT);
        match self.0.iter_mut().find(|(known, _)| *known == unit) {
            Some((_, known)) => *known = amount,
            None => self.0.push((unit, amount)),
        }
        self
    }

    /// Sets the weight in a unit from a computed number, rounded up.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidWeight`] if it is negative, not a number, or above 2^53.
    pub fn try_with(self, unit: Unit, amount: f64) -> Result<Self> {
        let most = 9_007_199_254_740_992.0;
        if !(0.0..=most).contains(&amount) {
            return Err(Error::InvalidWeight { value: amount });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 2^53, and whole"
        )]
        Ok(self.with(unit, amount.ceil() as u64))
    }

    /// Sets the number of tokens.
    #[must_use]
    pub fn with_tokens(self, tokens: u64) -> Self {
        self.with(Unit::Tokens, tokens)
    }

    /// Returns the weight in a unit, if it is named.
    #[must_use]
    pub fn get(&self, unit: &Unit) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == unit).map(|(_, amount)| *amount)
    }

    /// Names every unit of a policy, and nothing of it.
    pub(crate) fn none_of(policy: &crate::Policy) -> Self {
        let units = policy.tiers().iter().map(|tier| tier.limit.unit.clone());
        units.fold(Self::new(), |all, unit| all.with(unit, 0))
    }

    /// What it weighs in a unit that it may not name: one request, and nothing else.
    pub(crate) fn or_default(&self, unit: &Unit) -> u64 {
        self.get(unit).unwrap_or_else(|| u64::from(*unit == Unit::Requests))
    }
}

/// What a request asks for: its weights, and an id if it shall be charged once only.
///
/// # Examples
///
/// ```
/// use inferkit_ratelimit::{Demand, Unit};
///
/// let demand = Demand::once("req-7f3a")?.with_tokens(1_500).with(Unit::NanoDollars, 2_400_000);
/// # Ok::<(), inferkit_ratelimit::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Demand {
    pub(crate) id: Option<Arc<str>>,
    pub(crate) weights: Weights,
}

impl Demand {
    /// Asks for one request; it is charged as often as it is asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for one request under an id: until it is settled, asking again under the same id charges nothing.
    ///
    /// This makes it safe to repeat a call that timed out.
    /// Under a policy without slots it costs the server one short-lived key.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyName`] and [`Error::NameTooLong`].
    pub fn once(id: &str) -> Result<Self> {
        check_text("request id", id)?;
        Ok(Self { id: Some(id.into()), ..Self::default() })
    }

    /// Sets the weight in a unit; see [`Weights::with`].
    #[must_use]
    pub fn with(mut self, unit: Unit, amount: u64) -> Self {
        self.weights = self.weights.with(unit, amount);
        self
    }

    /// Sets the weight in a unit from a computed number, rounded up.
    ///
    /// # Errors
    ///
    /// As [`Weights::try_with`].
    pub fn try_with(mut self, unit: Unit, amount: f64) -> Result<Self> {
        self.weights = self.weights.try_with(unit, amount)?;
        Ok(self)
    }

    /// Sets the estimated number of tokens, of the input and the output.
    #[must_use]
    pub fn with_tokens(self, tokens: u64) -> Self {
        self.with(Unit::Tokens, tokens)
    }

    /// Returns the request id, if the caller gave one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the weights.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}
