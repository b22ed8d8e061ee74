//! What an answer would have cost.

use crate::Result;

/// List prices in millionths of a dollar per 1,000 tokens of the prompt and of the answer.
///
/// They are a guide and change over time: `INFERKIT_PRICE_PER_1K_TOKENS` overrides them.
const PRICES: [(&str, u64, u64); 8] = [
    ("gpt-3.5-turbo", 500, 1_500),
    ("gpt-4", 30_000, 60_000),
    ("gpt-4-turbo", 10_000, 30_000),
    ("gpt-4.1", 2_000, 8_000),
    ("gpt-4.1-mini", 400, 1_600),
    ("gpt-4.1-nano", 100, 400),
    ("gpt-4o", 2_500, 10_000),
    ("gpt-4o-mini", 150, 600),
];

const GPT_4_CLASS: Price =
    Price { prompt_micros: 30_000, completion_micros: 60_000, basis: Basis::Gpt4Class };

/// The price of a model's tokens, in millionths of a dollar per 1,000.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    prompt_micros: u64,
    completion_micros: u64,
    basis: Basis,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Basis {
    Gpt4Class,
    List,
    Override,
}

impl Price {
    /// Returns the price of `model`: `per_1k` dollars if given, else its list price,
    /// else that of a model of the GPT-4 class.
    ///
    /// # Errors
    ///
    /// If `per_1k` is not a price.
    pub fn of(model: &str, per_1k: Option<&str>) -> Result<Self> {
        if let Some(text) = per_1k {
            let micros = parse_micros(text).ok_or_else(|| {
                format!("{text:?} is no price per 1,000 tokens in dollars, such as 0.03")
            })?;
            return Ok(Self {
                prompt_micros: micros,
                completion_micros: micros,
                basis: Basis::Override,
            });
        }
        // Versions of a model are named by a suffix: gpt-4o-2024-08-06.
        let listed = PRICES
            .iter()
            .filter(|(name, _, _)| {
                model
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
            .max_by_key(|(name, _, _)| name.len());
        Ok(match listed {
            Some(&(_, prompt_micros, completion_micros)) => {
                Self { prompt_micros, completion_micros, basis: Basis::List }
            }
            None => GPT_4_CLASS,
        })
    }

    /// Makes a price of dollars per 1,000 tokens of the prompt and of the answer.
    ///
    /// # Errors
    ///
    /// If one of them is no price.
    pub fn per_1k(dollars: [f64; 2]) -> Result<Self> {
        // Written out, so that digits are read as they were meant and not as the nearest binary number.
        let micros = |dollars: f64| {
            parse_micros(&format!("{dollars}"))
                .ok_or_else(|| format!("{dollars} is no price per 1,000 tokens in dollars"))
        };
        let [prompt, completion] = dollars;
        Ok(Self {
            prompt_micros: micros(prompt)?,
            completion_micros: micros(completion)?,
            basis: Basis::Override,
        })
    }

    /// Returns what the tokens cost, in millionths of a dollar, rounded up.
    pub fn cost_micros(&self, prompt_tokens: u64, completion_tokens: u64) -> u64 {
        let prompt = prompt_tokens.saturating_mul(self.prompt_micros);
        let completion = completion_tokens.saturating_mul(self.completion_micros);
        prompt.saturating_add(completion).div_ceil(1_000)
    }

    /// Says in words where the price comes from.
    pub fn basis(&self) -> String {
        let source = match self.basis {
            Basis::Gpt4Class => "what a GPT-4 class model would have cost",
            Basis::List => "the model's list price",
            Basis::Override => "from INFERKIT_PRICE_PER_1K_TOKENS",
        };
        format!(
            "{} per 1K prompt tokens and {} per 1K answer tokens, {source}",
            dollars(self.prompt_micros),
            dollars(self.completion_micros)
        )
    }
}

/// Writes millionths of a dollar as dollars.
pub fn dollars(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("${whole}.{:0<2}", fraction.trim_end_matches('0'))
}

/// Reads a decimal number of dollars as millionths; digits beyond the sixth are cut off.
fn parse_micros(text: &str) -> Option<u64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    format!("{whole}{fraction}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_wins_and_versions_count() {
        let price = |model| Price::of(model, None).unwrap();
        assert_eq!(price("gpt-4o-mini-2024-07-18").prompt_micros, 150);
        assert_eq!(price("gpt-4o").prompt_micros, 2_500);
        assert_eq!(price("gpt-4-0613").basis, Basis::List);
        assert_eq!(price("gpt-4ever").basis, Basis::Gpt4Class);
        assert!(price("offline").basis().contains("would have cost"));
    }

    #[test]
    fn costs_are_rounded_up_to_a_millionth() {
        let price = Price::of("gpt-4", None).unwrap();
        assert_eq!(price.cost_micros(1_000, 1_000), 90_000);
        assert_eq!(price.cost_micros(0, 0), 0);
        assert_eq!(Price::of("gpt-4o-mini", None).unwrap().cost_micros(1, 0), 1);
        assert_eq!(price.cost_micros(u64::MAX, 1), u64::MAX.div_ceil(1_000));
    }

    #[test]
    fn a_price_of_ones_own_is_read_exactly() {
        let price = Price::of("gpt-4", Some(" 0.045 ")).unwrap();
        assert_eq!(price.cost_micros(1_000, 1_000), 90_000);
        assert!(price.basis().starts_with("$0.045 per"));
        assert_eq!(parse_micros("2"), Some(2_000_000));
        assert_eq!(parse_micros(".000001"), Some(1));
        for text in ["", ".", "-1", "1e3", "free", "99999999999999999999"] {
            assert!(Price::of("gpt-4", Some(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn dollars_have_cents_and_no_idle_zeros() {
        assert_eq!(dollars(0), "$0.00");
        assert_eq!(dollars(1_500_000), "$1.50");
        assert_eq!(dollars(12_345), "$0.012345");
    }
}
