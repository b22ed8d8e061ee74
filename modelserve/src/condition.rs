use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, name};
use crate::{Attribute, Subject};

/// How deep conditions may be nested.
const DEEPEST: usize = 32;

/// Whom a rule is for. A subject without the attribute never meets a condition on it, but for [`Condition::Not`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// All of these hold; also if there are none.
    All(Vec<Self>),
    /// One of these holds; not if there are none.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// The attribute has this value, of the same type.
    Is(String, Attribute),
    /// The attribute has one of these values.
    In(String, Vec<Attribute>),
    /// The attribute is a number of at least this.
    AtLeast(String, f64),
    /// The attribute is a number below this.
    Below(String, f64),
    /// The attribute is a text that begins so.
    StartsWith(String, String),
    /// The attribute is a text that ends so.
    EndsWith(String, String),
    /// The attribute is a text that holds this.
    Contains(String, String),
    /// The attribute is there.
    Exists(String),
}

impl Condition {
    /// The attribute has this value.
    #[must_use]
    pub fn is(attribute: impl Into<String>, value: impl Into<Attribute>) -> Self {
        Self::Is(attribute.into(), value.into())
    }

    /// The attribute has one of these values.
    #[must_use]
    pub fn one_of<V: Into<Attribute>>(
        attribute: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self::In(attribute.into(), values.into_iter().map(Into::into).collect())
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::All(vec![self, other])
    }

    /// One of the two holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Any(vec![self, other])
    }

    /// It does not hold.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Tells whether a subject meets the condition.
    #[must_use]
    pub fn holds(&self, subject: &Subject) -> bool {
        let text = |attribute: &str, holds: &dyn Fn(&str) -> bool| matches!(subject.get(attribute), Some(Attribute::Text(text)) if holds(text));
        let number = |attribute: &str, holds: &dyn Fn(f64) -> bool| matches!(subject.get(attribute), Some(Attribute::Number(number)) if holds(*number));
        match self {
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(subject)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(subject)),
            Self::Not(condition) => !condition.holds(subject),
            Self::Is(attribute, value) => subject.get(attribute) == Some(value),
            Self::In(attribute, values) => {
                subject.get(attribute).is_some_and(|value| values.contains(value))
            }
            Self::AtLeast(attribute, least) => number(attribute, &|number| *least <= number),
            Self::Below(attribute, most) => number(attribute, &|number| number < *most),
            Self::StartsWith(attribute, part) => text(attribute, &|text| text.starts_with(part)),
            Self::EndsWith(attribute, part) => text(attribute, &|text| text.ends_with(part)),
            Self::Contains(attribute, part) => text(attribute, &|text| text.contains(part)),
            Self::Exists(attribute) => subject.get(attribute).is_some(),
        }
    }

    /// Checks what cannot be meant: attributes without a name, numbers that are none, texts that everything begins with.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_at(0)
    }

    fn check_at(&self, depth: usize) -> Result<()> {
        let problem = |problem: &str| Err(Error::invalid("a condition", problem));
        if DEEPEST < depth {
            return problem("is nested more than 32 deep: flatten it");
        }
        match self {
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().try_for_each(|condition| condition.check_at(depth + 1))
            }
            Self::Not(condition) => condition.check_at(depth + 1),
            Self::Is(attribute, _) | Self::Exists(attribute) => {
                name("attribute", attribute).map(|_| ())
            }
            Self::In(_, values) if values.is_empty() => {
                problem("lists no values, so nobody meets it: leave it out or name some")
            }
            Self::In(attribute, _) => name("attribute", attribute).map(|_| ()),
            Self::AtLeast(_, number) | Self::Below(_, number) if !number.is_finite() => {
                problem("compares with NaN or infinity: use a number")
            }
            Self::AtLeast(attribute, _) | Self::Below(attribute, _) => {
                name("attribute", attribute).map(|_| ())
            }
            Self::StartsWith(_, part) | Self::EndsWith(_, part) | Self::Contains(_, part)
                if part.is_empty() =>
            {
                problem("looks for an empty text, which is in every text: use `Exists`")
            }
            Self::StartsWith(attribute, _)
            | Self::EndsWith(attribute, _)
            | Self::Contains(attribute, _) => name("attribute", attribute).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_by_value_and_type() {
        let subject = Subject::new("u1").with("plan", "pro").with("age", 30).with("beta", true);
        let starts = |part: &str| Condition::StartsWith("plan".into(), part.into());
        for (condition, holds) in [
            (Condition::is("plan", "pro"), true),
            (Condition::is("plan", "free"), false),
            (Condition::is("age", "30"), false),
            (Condition::is("age", 30), true),
            (Condition::is("beta", true), true),
            (Condition::one_of("plan", ["free", "pro"]), true),
            (Condition::AtLeast("age".into(), 30.0), true),
            (Condition::Below("age".into(), 30.0), false),
            (Condition::Below("height".into(), 30.0), false),
            (starts("pr"), true),
            (starts("ro"), false),
            (Condition::Exists("beta".into()), true),
            (Condition::Exists("gamma".into()).negated(), true),
            (Condition::is("plan", "pro").and(Condition::is("age", 31)), false),
            (Condition::is("plan", "pro").or(Condition::is("age", 31)), true),
            (Condition::All(Vec::new()), true),
            (Condition::Any(Vec::new()), false),
        ] {
            assert_eq!(condition.holds(&subject), holds, "{condition:?}");
            condition.check().unwrap();
            let text = serde_json::to_string(&condition).unwrap();
            assert_eq!(serde_json::from_str::<Condition>(&text).unwrap(), condition);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let mut deep = Condition::Exists("a".into());
        for _ in 0..40 {
            deep = deep.negated();
        }
        for condition in [
            Condition::is("", "x"),
            Condition::In("plan".into(), Vec::new()),
            Condition::AtLeast("age".into(), f64::NAN),
            Condition::Contains("plan".into(), String::new()),
            deep,
        ] {
            assert!(condition.check().is_err(), "{condition:?}");
        }
    }
}
