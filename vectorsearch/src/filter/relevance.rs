//! How well documents match the words of a filter: Okapi BM25, as Robertson and Zaragoza give it ("The Probabilistic
//! Relevance Framework: BM25 and Beyond", 2009), with the logarithm kept above zero.

use std::collections::BTreeSet;

use super::check::stop_words;
use super::text::{Text, TextKind, indexed_tokens};
use super::{Condition, Filter, Leaf, Node};
use crate::{Field, Result, Schema};

/// How soon more of the same word counts no more.
const SATURATION: f64 = 1.2;
/// How much a long text counts less than a short one, from 0 to 1.
const LENGTH: f64 = 0.75;

/// Returns the bytes of a field of a document.
pub(crate) type Lookup<'d> = Box<dyn Fn(&str) -> Option<&'d [u8]> + 'd>;

impl Filter {
    /// Returns how well each of `documents`, which are all there are, matches the words of the filter.
    ///
    /// Conditions on other than text, and negations, add nothing; nor do parts that a document does not fulfil.
    pub(crate) fn relevance(&self, schema: &Schema, documents: &[Lookup<'_>]) -> Result<Vec<f64>> {
        self.0.relevance(schema, documents)
    }
}

impl Node {
    fn relevance(&self, schema: &Schema, documents: &[Lookup<'_>]) -> Result<Vec<f64>> {
        let mut scores = vec![0.0; documents.len()];
        match self {
            Self::And(nodes) | Self::Or(nodes) => {
                for node in nodes {
                    add(&mut scores, &node.relevance(schema, documents)?);
                }
            }
            Self::Leaf(Leaf { field, condition: Condition::Text(text) }) => {
                let stored: Vec<_> = documents.iter().map(|document| document(field)).collect();
                let weight = schema.field(field).map_or(1.0, Field::text_weight);
                scores = text.relevance(&stored, weight, stop_words(schema));
            }
            Self::All | Self::Not(_) | Self::Leaf(_) => return Ok(scores),
        }
        for (score, document) in scores.iter_mut().zip(documents) {
            if !self.matches(schema, document)? {
                *score = 0.0;
            }
        }
        Ok(scores)
    }
}

impl Text {
    fn relevance(&self, stored: &[Option<&[u8]>], weight: f64, stop_words: &[&str]) -> Vec<f64> {
        let texts: Vec<Vec<Vec<u8>>> = stored
            .iter()
            .map(|text| indexed_tokens(text.unwrap_or_default(), stop_words))
            .collect();
        let held = real(texts.iter().filter(|text| !text.is_empty()).count());
        let average = real(texts.iter().map(Vec::len).sum()) / held.max(1.0);
        let mut scores = vec![0.0; texts.len()];
        let words: BTreeSet<&str> = self.indexed_words(stop_words).into_iter().collect();
        for word in words.into_iter().map(str::as_bytes) {
            let is_it = |token: &&Vec<u8>| match self.kind {
                TextKind::Prefix => token.starts_with(word),
                _ => token.as_slice() == word,
            };
            let often: Vec<f64> =
                texts.iter().map(|text| real(text.iter().filter(is_it).count())).collect();
            let holding = real(often.iter().filter(|often| 0.0 < **often).count());
            let rarity = (1.0 + (held - holding + 0.5) / (holding + 0.5)).ln();
            for ((score, often), text) in scores.iter_mut().zip(often).zip(&texts) {
                let length = 1.0 - LENGTH + LENGTH * real(text.len()) / average.max(1.0);
                let share = often * (SATURATION + 1.0) / (often + SATURATION * length);
                *score += weight * rarity * share;
            }
        }
        scores
    }
}

fn add(scores: &mut [f64], more: &[f64]) {
    scores.iter_mut().zip(more).for_each(|(score, more)| *score += more);
}

fn real(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^53")]
    let real = count as f64;
    real
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VectorField;

    const TEXTS: [&str; 4] = ["red shoe", "shoe shoe", "the shoe", "blue boot of wool"];

    fn scores(filter: &Filter) -> Vec<f64> {
        let schema = Schema::builder("i", "p:", VectorField::flat("v", 2)).text("t").tag("c");
        let schema = schema.field(Field::text("heavy").weight(3.0)).build().unwrap();
        let documents = TEXTS.iter().map(|text| -> Lookup<'_> {
            Box::new(move |field| match field {
                "t" | "heavy" => Some(text.as_bytes()),
                _ => Some(b"x".as_slice()),
            })
        });
        filter.relevance(&schema, &documents.collect::<Vec<_>>()).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?}");
    }

    fn any(words: &str) -> Filter {
        Filter::text("t", Text::any(words)).unwrap()
    }

    #[test]
    fn scores_are_those_of_the_formula() {
        // Lengths without stop words: 2, 2, 1, 3, so 2 on average.
        // Three of four hold `shoe`: ln(1 + 1.5 / 3.5) = 0.35667; one holds `red`: ln(1 + 3.5 / 1.5) = 1.20397.
        let length_one = 2.2 / (1.0 + 1.2 * 0.625);
        close(&scores(&any("shoe")), &[0.35667, 0.35667 * 4.4 / 3.2, 0.35667 * length_one, 0.0]);
        close(&scores(&any("red the RED")), &[1.20397, 0.0, 0.0, 0.0]);
        let prefix = Filter::text("t", Text::prefix("re")).unwrap();
        close(&scores(&prefix), &[1.20397, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn words_add_up_and_weights_count() {
        close(&scores(&any("red wool shoe"))[..1], &[1.20397 + 0.35667]);
        let heavy = Filter::text("heavy", Text::all("red")).unwrap();
        close(&scores(&heavy)[..1], &[3.0 * 1.20397]);
    }

    #[test]
    fn only_words_that_are_fulfilled_count() {
        let none = [0.0; 4];
        close(&scores(&Filter::all()), &none);
        close(&scores(&!any("shoe")), &none);
        let tag = || Filter::tag("c", "x").unwrap();
        close(&scores(&tag()), &none);
        close(&scores(&(any("red") & tag())), &[1.20397, 0.0, 0.0, 0.0]);
        let both = Filter::text("t", Text::all("red boot")).unwrap();
        close(&scores(&(both | tag())), &none);
        close(&scores(&(any("red") & !tag())), &none);
    }
}
