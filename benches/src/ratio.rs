use std::fmt;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::Result;

/// Which side of the target is good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Better {
    /// The ratio shall be at least the target.
    Higher,
    /// The ratio shall be at most the target.
    Lower,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Effort {
    /// How many times ours and the baseline are measured in turn.
    pub rounds: usize,
    /// What each round's number of calls is divided by.
    pub divisor: usize,
}

impl Effort {
    /// The whole measurement.
    pub const FULL: Self = Self { rounds: 9, divisor: 1 };
    /// A look whether everything runs; its numbers mean little.
    pub const QUICK: Self = Self { rounds: 3, divisor: 10 };
}

/// One promise about speed: ours against a baseline in the same run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Promise {
    /// The folder of the crate.
    pub area: &'static str,
    /// The promise's name.
    pub name: &'static str,
    /// The ratio that is promised.
    pub target: f64,
    /// Which side of it is good.
    pub better: Better,
    /// What ours and the baseline are measured in.
    pub unit: &'static str,
}

impl Promise {
    /// Makes a promise that the ratio is at most `target`.
    #[must_use]
    pub const fn at_most(
        area: &'static str,
        name: &'static str,
        target: f64,
        unit: &'static str,
    ) -> Self {
        Self { area, name, target, better: Better::Lower, unit }
    }

    /// Makes a promise that the ratio is at least `target`.
    #[must_use]
    pub const fn at_least(
        area: &'static str,
        name: &'static str,
        target: f64,
        unit: &'static str,
    ) -> Self {
        Self { area, name, target, better: Better::Higher, unit }
    }

    /// The line of an amount that is measured once, such as memory; its baseline is 1.
    #[must_use]
    pub fn line(self, amount: f64) -> Line {
        let met = match self.better {
            Better::Higher => self.target <= amount,
            Better::Lower => amount <= self.target,
        };
        Line {
            area: self.area,
            name: self.name,
            ratio: amount,
            target: self.target,
            better: self.better,
            met,
            spread: [amount, amount],
            ours: amount,
            baseline: 1.0,
            unit: self.unit,
        }
    }

    /// Measures both sides in turn, one round to warm up and then as many as `effort` says, each in the other order.
    ///
    /// The result is the median of the rounds' ratios: what disturbs one round disturbs both sides of it.
    ///
    /// # Errors
    ///
    /// What either side fails with.
    pub async fn measure(
        self,
        effort: Effort,
        mut ours: impl AsyncFnMut() -> Result<f64>,
        mut baseline: impl AsyncFnMut() -> Result<f64>,
    ) -> Result<Line> {
        let (mut mine, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=effort.rounds {
            let (a, b) = if round % 2 == 0 {
                let a = ours().await?;
                (a, baseline().await?)
            } else {
                let b = baseline().await?;
                (ours().await?, b)
            };
            if 0 < round {
                mine.push(a);
                theirs.push(b);
                ratios.push(a / b);
            }
        }
        let ratio = median(&mut ratios);
        let spread = (ratios.first().copied(), ratios.last().copied());
        let met = match self.better {
            Better::Higher => self.target <= ratio,
            Better::Lower => ratio <= self.target,
        };
        Ok(Line {
            area: self.area,
            name: self.name,
            ratio,
            target: self.target,
            better: self.better,
            met,
            spread: [spread.0.unwrap_or(ratio), spread.1.unwrap_or(ratio)],
            ours: median(&mut mine),
            baseline: median(&mut theirs),
            unit: self.unit,
        })
    }
}

/// A measured promise; serialized, one line of `ratios --json`.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Line {
    /// The folder of the crate.
    pub area: &'static str,
    /// The promise's name.
    pub name: &'static str,
    /// The median of the rounds' ratios, ours to baseline.
    pub ratio: f64,
    /// What is promised.
    pub target: f64,
    /// Which side of it is good.
    pub better: Better,
    /// Whether the promise is kept.
    pub met: bool,
    /// The smallest and the largest ratio of a round.
    pub spread: [f64; 2],
    /// The median of our rounds.
    pub ours: f64,
    /// The median of the baseline's rounds.
    pub baseline: f64,
    /// The unit of both.
    pub unit: &'static str,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.better {
            Better::Higher => ">=",
            Better::Lower => "<=",
        };
        let verdict = if self.met { "met" } else { "MISSED" };
        let [low, high] = self.spread;
        let name = format!("{}.{}", self.area, self.name);
        write!(
            f,
            "{name:<26} {:>6.3}  {sign} {:<5.2} {verdict:<6}  {low:.3} to {high:.3}   {:>9.3} / {:<9.3} {}",
            self.ratio, self.target, self.ours, self.baseline, self.unit
        )
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of times in seconds, in microseconds.
#[must_use]
pub fn median_micros(mut times: Vec<f64>) -> f64 {
    median(&mut times) * 1e6
}

/// The CPU time that this process has spent outside the kernel.
///
/// # Errors
///
/// If the system does not tell.
pub fn user_cpu() -> Result<Duration> {
    let time = getrusage(UsageWho::RUSAGE_SELF)?.user_time();
    let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
