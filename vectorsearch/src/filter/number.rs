//! Ranges of numbers and times, and how the server reads a number.

use std::fmt;
use std::ops::Bound;
use std::time::{SystemTime, UNIX_EPOCH};

/// A range of numbers.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Interval {
    lower: Bound<f64>,
    upper: Bound<f64>,
}

/// One end of an [`Interval`], as the server writes it.
pub(super) enum End {
    Open,
    Inclusive(f64),
    Exclusive(f64),
}

impl Interval {
    pub(super) fn new(lower: Bound<f64>, upper: Bound<f64>) -> Self {
        Self { lower, upper }
    }

    pub(super) fn problem(&self) -> Option<&'static str> {
        let (lower, upper) = (value(self.lower), value(self.upper));
        let mut ends = [lower, upper].into_iter().flatten();
        if ends.clone().any(f64::is_nan) {
            return Some("is not a number: check what computed it");
        }
        if ends.any(f64::is_infinite) {
            return Some("is infinite: leave that side of the range open instead");
        }
        let (Some(lower), Some(upper)) = (lower, upper) else {
            let open = lower.is_none() && upper.is_none();
            return open.then_some("is a range without bounds: give it one, or use Filter::all()");
        };
        let closed =
            matches!(self.lower, Bound::Included(_)) && matches!(self.upper, Bound::Included(_));
        if upper < lower || (lower == upper && !closed) {
            return Some(
                "is an empty range: put the smaller bound first, or write `x..=x` for one number",
            );
        }
        None
    }

    pub(super) fn contains(&self, number: f64) -> bool {
        let above = match self.lower {
            Bound::Unbounded => true,
            Bound::Included(lower) => lower <= number,
            Bound::Excluded(lower) => lower < number,
        };
        let below = match self.upper {
            Bound::Unbounded => true,
            Bound::Included(upper) => number <= upper,
            Bound::Excluded(upper) => number < upper,
        };
        above && below
    }

    pub(super) fn ends(&self) -> [End; 2] {
        [self.lower, self.upper].map(|bound| match bound {
            Bound::Unbounded => End::Open,
            Bound::Included(value) => End::Inclusive(value),
            Bound::Excluded(value) => End::Exclusive(value),
        })
    }
}

fn value(bound: Bound<f64>) -> Option<f64> {
    match bound {
        Bound::Unbounded => None,
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
    }
}

/// The seconds since the Unix epoch, rounded as the server rounds the same decimal number.
pub(super) fn seconds(time: SystemTime) -> f64 {
    let (sign, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ("", after),
        Err(before) => ("-", before.duration()),
    };
    let text = format!("{sign}{}.{:09}", distance.as_secs(), distance.subsec_nanos());
    // A decimal number always parses.
    text.parse().unwrap_or(f64::NAN)
}

/// Writes a finite number so that it reads back as the same one.
pub(crate) struct Decimal(pub(crate) f64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Zero has no sign, and huge or tiny numbers no hundreds of digits.
        let number = self.0 + 0.0;
        let size = number.abs();
        if number == 0.0 || (1e-6..1e16).contains(&size) {
            write!(f, "{number}")
        } else {
            write!(f, "{number:e}")
        }
    }
}

/// Reads a number as the server does when it indexes one; `None` if it would leave the document out.
///
/// Hexadecimal numbers, which Redis takes and Valkey does not, are none.
pub(crate) fn parse(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: f64 = text.parse().ok()?;
    let digits = text.split(['e', 'E']).next().unwrap_or_default();
    let overflows = number.is_infinite() && digits.contains(|digit: char| digit.is_ascii_digit());
    let underflows = number == 0.0 && digits.contains(|digit| matches!(digit, '1'..='9'));
    (!number.is_nan() && !overflows && !underflows).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_are_read_as_the_server_reads_them() {
        for (text, number) in [
            ("5", 5.0),
            ("+5", 5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-0", 0.0),
            ("1e5", 1e5),
            ("1E+5", 1e5),
            ("4e-320", 4e-320),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e9", 0.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "", " 1", "1 ", "1\n", "1abc", "nan", "-nan", "1e400", "1e-400", "1_0", "--1", "1,5",
            "1e", ".", "0x10",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"1\0"), None);
        assert_eq!(parse(b"\xff"), None);
    }

    #[test]
    fn numbers_are_written_short_and_exact() {
        for (number, text) in [
            (5.0, "5"),
            (-0.0, "0"),
            (5.5, "5.5"),
            (1e-7, "1e-7"),
            (1e300, "1e300"),
            (-1.5e-300, "-1.5e-300"),
            (1_679_063_400.25, "1679063400.25"),
        ] {
            assert_eq!(Decimal(number).to_string(), text);
            assert_eq!(text.parse::<f64>().unwrap(), number);
        }
    }

    #[test]
    fn times_are_decimal_seconds() {
        let after = UNIX_EPOCH + Duration::new(1_679_063_400, 250_000_000);
        assert_eq!(seconds(after), 1_679_063_400.25);
        assert_eq!(seconds(UNIX_EPOCH), 0.0);
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_millis(1500)), -1.5);
    }
}
