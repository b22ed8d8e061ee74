use crate::{Error, Result};

/// What the tokens of models cost, in millionths of whatever currency.
///
/// # Examples
///
/// ```
/// use inferkit_semcache::Prices;
///
/// // 2 dollars for a million tokens of the request, 8 for a million of the answer.
/// let prices = Prices::default().with_model("gpt-4.1", 2_000_000, 8_000_000)?;
/// assert_eq!(prices.cost_micros("gpt-4.1-2025-04-14", 1_000, 500), Some(6_000));
/// assert_eq!(prices.cost_micros("claude", 1_000, 500), None);
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices(Vec<(String, u64, u64)>);

impl Prices {
    /// Sets the prices of a million tokens of the request and of the answer, in millionths, for models whose name starts
    /// with `model`; the longest such beginning counts.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyModel`].
    pub fn with_model(
        mut self,
        model: impl Into<String>,
        prompt_micros: u64,
        completion_micros: u64,
    ) -> Result<Self> {
        let model = model.into();
        if model.trim().is_empty() {
            return Err(Error::EmptyModel);
        }
        self.0.retain(|(other, ..)| *other != model);
        self.0.push((model, prompt_micros, completion_micros));
        Ok(self)
    }

    /// Returns what a request and its answer cost, in millionths, or `None` for a model without a price.
    #[must_use]
    pub fn cost_micros(
        &self,
        model: &str,
        prompt_tokens: u64,
        completion_tokens: u64,
    ) -> Option<u64> {
        let (_, prompt, completion) = self
            .0
            .iter()
            .filter(|(start, ..)| model.starts_with(start.as_str()))
            .max_by_key(|(start, ..)| start.len())?;
        let of = |tokens: u64, price: &u64| u128::from(tokens) * u128::from(*price);
        let micros = (of(prompt_tokens, prompt) + of(completion_tokens, completion)) / 1_000_000;
        Some(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}
