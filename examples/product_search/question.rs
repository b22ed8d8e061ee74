//! What a question says about price, color and category; the rest is left to its meaning.

use inferkit::vectorsearch::{Filter, Result};

use crate::catalog::{CATEGORIES, COLORS};

/// The conditions that stand in a question.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Conditions {
    pub(crate) color: Option<&'static str>,
    pub(crate) category: Option<&'static str>,
    pub(crate) at_least: Option<f64>,
    pub(crate) at_most: Option<f64>,
}

impl Conditions {
    /// Reads colors, categories, and prices such as `under $100` or `over 20`.
    pub(crate) fn read(question: &str) -> Self {
        let lower = question.to_lowercase();
        let parts =
            |character: char| !(character.is_alphanumeric() || matches!(character, '$' | '.'));
        let words: Vec<&str> = lower.split(parts).filter(|word| !word.is_empty()).collect();
        let mut conditions = Self::default();
        for (place, word) in words.iter().enumerate() {
            let number = words.get(place + 1).and_then(|next| {
                next.trim_start_matches('$').trim_end_matches('.').parse::<f64>().ok()
            });
            match (*word, number.filter(|number| number.is_finite())) {
                ("under" | "below" | "max" | "most", Some(price)) => {
                    conditions.at_most = Some(price);
                }
                ("over" | "above" | "least", Some(price)) => conditions.at_least = Some(price),
                _ => {}
            }
            if let Some(color) = COLORS.iter().find(|color| *color == word) {
                conditions.color = Some(color);
            }
            if let Some((category, _)) = CATEGORIES.iter().find(|(_, names)| names.contains(word)) {
                conditions.category = Some(category);
            }
        }
        conditions
    }

    /// The same as a filter.
    pub(crate) fn filter(&self) -> Result<Filter> {
        let mut filter = Filter::all();
        if let Some(color) = self.color {
            filter = filter & Filter::tag("color", color)?;
        }
        if let Some(category) = self.category {
            filter = filter & Filter::tag("category", category)?;
        }
        Ok(match (self.at_least, self.at_most) {
            (Some(low), Some(high)) => filter & Filter::number("price", low..=high)?,
            (Some(low), None) => filter & Filter::number("price", low..)?,
            (None, Some(high)) => filter & Filter::number("price", ..=high)?,
            (None, None) => filter,
        })
    }

    pub(crate) fn describe(&self) -> String {
        let mut said = Vec::new();
        said.extend(self.color.map(str::to_owned));
        said.extend(self.category.map(str::to_owned));
        said.extend(self.at_least.map(|price| format!("at least ${price}")));
        said.extend(self.at_most.map(|price| format!("at most ${price}")));
        if said.is_empty() { "everything".to_owned() } else { said.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_colors_and_categories_are_read() {
        let read = Conditions::read("Red shoes under $100, please");
        assert_eq!((read.color, read.category), (Some("red"), Some("shoes")));
        assert_eq!((read.at_least, read.at_most), (None, Some(100.0)));
        assert_eq!(read.describe(), "red, shoes, at most $100");
        let read = Conditions::read("something for coffee over 20.50 and below $99.");
        assert_eq!((read.at_least, read.at_most), (Some(20.5), Some(99.0)));
        assert_eq!(Conditions::read("under pressure"), Conditions::default());
        assert!(Conditions::default().filter().unwrap().is_all());
    }

    #[test]
    fn a_range_that_cannot_be_is_an_error() {
        assert!(Conditions::read("over $100 and under $50").filter().is_err());
    }
}
