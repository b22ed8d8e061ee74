use std::sync::Arc;
use std::time::Duration;

use crate::outcome::Counted;
use crate::registry::AliasChange;
use crate::{
    Error, Experiment, ModelRegistry, ModelRouter, Outcomes, Result, Status, TOTAL, Tally, Target,
};

/// Ramps a canary up in stages, as long as it does as well as the first arm, and takes it back if it does not.
///
/// Several controllers may run at once: every change compares the revision that the decision was made from, so each
/// step is taken once.
#[derive(Debug)]
pub struct Rollout {
    router: Arc<dyn ModelRouter>,
    outcomes: Arc<dyn Outcomes>,
    promotion: Option<Arc<dyn ModelRegistry>>,
    experiment: String,
    canary: String,
    stages: Vec<u32>,
    guard: Guard,
}

/// How many changes are looked through for the one that a rollout made.
const AUDITED: usize = 1_000;

/// What a canary has to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Guard {
    /// The fewest calls of the canary in a stage before anything is decided.
    pub min_calls: u64,
    /// How long a stage lasts at least.
    pub min_time: Duration,
    /// How much higher than that of the first arm its share of failures may be, 0 to 1.
    pub max_more_errors: f64,
    /// How many times as long as that of the first arm its 99th percentile of latency may be.
    pub max_latency_ratio: f64,
}

impl Default for Guard {
    /// 500 calls, 10 minutes, one failure in a hundred more, and a latency half as long again.
    fn default() -> Self {
        Self {
            min_calls: 500,
            min_time: Duration::from_secs(600),
            max_more_errors: 0.01,
            max_latency_ratio: 1.5,
        }
    }
}

impl Guard {
    /// Sets the fewest calls of the canary in a stage before anything is decided.
    #[must_use]
    pub fn with_min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    /// Sets how long a stage lasts at least.
    #[must_use]
    pub fn with_min_time(mut self, time: Duration) -> Self {
        self.min_time = time;
        self
    }

    /// Judges a canary beside the first arm.
    ///
    /// Errors count as too many when the excess is more than chance explains: more than three standard deviations of the
    /// difference of two shares besides what is allowed.
    #[must_use]
    pub fn judge(&self, control: &Tally, canary: &Tally) -> Verdict {
        let calls = canary.calls();
        // A canary that fails in every call need not fail in all of the calls that a good one needs.
        if calls < self.min_calls.min(20) {
            return Verdict::TooEarly;
        }
        let excess = canary.error_rate() - control.error_rate();
        if self.max_more_errors + 3.0 * deviation(control, canary) < excess {
            return Verdict::TooManyErrors;
        }
        if calls < self.min_calls {
            return Verdict::TooEarly;
        }
        if self.max_more_errors < excess && control.calls() < self.min_calls {
            return Verdict::TooEarly;
        }
        if self.max_more_errors < excess {
            return Verdict::TooManyErrors;
        }
        let latency = |tally: &Tally| tally.quantile(0.99).map(|latency| latency.as_secs_f64());
        match (latency(control), latency(canary)) {
            (Some(control), Some(canary)) if self.max_latency_ratio * control < canary => {
                Verdict::TooSlow
            }
            _ => Verdict::Good,
        }
    }
}

/// The standard deviation of the difference of two shares of failures, if the true shares were the same.
#[expect(clippy::cast_precision_loss, reason = "a statistic")]
fn deviation(a: &Tally, b: &Tally) -> f64 {
    let (m, n) = ((a.calls() as f64).max(1.0), (b.calls() as f64).max(1.0));
    // Agresti and Caffo: one failure and one success more keep it from being zero.
    let share = ((a.failed + b.failed) as f64 + 1.0) / (m + n + 2.0);
    (share * (1.0 - share) * (1.0 / m + 1.0 / n)).sqrt()
}

/// What a guard found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// It keeps to everything.
    Good,
    /// There are too few calls.
    TooEarly,
    /// It fails more often than it may.
    TooManyErrors,
    /// It takes longer than it may.
    TooSlow,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// The canary has the next stage's share now.
    Advanced {
        /// The share, of [`TOTAL`].
        to: u32,
    },
    /// The rollout is over: the experiment is concluded or paused, or does not run.
    Done,
    /// Nothing: the stage goes on.
    Holding(Verdict),
    /// Somebody else changed the experiment meanwhile.
    Overtaken,
    /// The canary was the last stage's and is concluded: everybody gets it.
    Promoted,
    /// The canary was taken back: the experiment is paused, and everybody gets the first arm.
    RolledBack(Verdict),
}

impl Rollout {
    /// Makes a controller; no I/O.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] unless the stages grow, from 1 to [`TOTAL`].
    pub fn new(
        router: Arc<dyn ModelRouter>,
        outcomes: Arc<dyn Outcomes>,
        experiment: impl Into<String>,
        canary: impl Into<String>,
        stages: &[u32],
    ) -> Result<Self> {
        let grow = stages.iter().zip(stages.iter().skip(1)).all(|(one, next)| one < next);
        let (experiment, canary) = (experiment.into(), canary.into());
        if !grow
            || stages.first().is_none_or(|first| *first == 0)
            || stages.last().is_some_and(|last| TOTAL < *last)
        {
            let what = format!("the rollout of {canary} in experiment {experiment}");
            return Err(Error::invalid(
                what,
                format!("has stages that do not grow from 1 to {TOTAL}"),
            ));
        }
        Ok(Self {
            router,
            outcomes,
            promotion: None,
            experiment,
            canary,
            stages: stages.to_vec(),
            guard: Guard::default(),
        })
    }

    /// Sets what the canary has to keep to.
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Moves the first arm's alias to the canary's version at the end, where both are of the same model.
    #[must_use]
    pub fn with_promotion(mut self, registry: Arc<dyn ModelRegistry>) -> Self {
        self.promotion = Some(registry);
        self
    }

    /// Looks at the outcomes of the present stage, and takes a step if it is time; call it now and then.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if there is no such experiment or arm; [`Error::Backend`]: nothing is decided then, but a
    /// promotion may be concluded whose alias is not moved yet; the next step of any controller moves it.
    pub async fn step(&self) -> Result<Step> {
        let unknown = |what: String| Error::Unknown { what };
        let experiment = self.router.experiment(&self.experiment).await?;
        let experiment =
            experiment.ok_or_else(|| unknown(format!("experiment {}", self.experiment)))?;
        if experiment.arm(&self.canary).is_none() {
            return Err(unknown(format!("arm {} in experiment {}", self.canary, self.experiment)));
        }
        match experiment.status() {
            Status::Running => {}
            Status::Concluded(arm) if *arm == self.canary => {
                // Whoever concluded it may have died before it moved the alias.
                self.promote(&experiment, experiment.revision()).await?;
                return Ok(Step::Done);
            }
            _ => return Ok(Step::Done),
        }
        let share = experiment.weight(&self.canary);
        let Some(first) = self.stages.first().copied().filter(|first| share < *first) else {
            return self.judge(experiment, share).await;
        };
        self.ramp(experiment, first).await
    }

    /// Steps every `period` until the rollout is over, and returns how it ended.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`], as [`step`](Self::step); other failures are logged, and it goes on.
    pub async fn run(&self, period: Duration) -> Result<Step> {
        loop {
            match self.step().await {
                Ok(step @ (Step::Done | Step::Promoted | Step::RolledBack(_))) => return Ok(step),
                Ok(_) => {}
                Err(error @ Error::Unknown { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "a rollout could not take a step"),
            }
            tokio::time::sleep(period).await;
        }
    }

    async fn judge(&self, mut experiment: Experiment, share: u32) -> Result<Step> {
        let Counted { arms, since } =
            self.outcomes.read(&self.experiment, experiment.revision()).await?;
        let none = Tally::default();
        let control = experiment.arms().first().and_then(|arm| arms.get(&arm.name));
        let canary = arms.get(&self.canary);
        let verdict = self.guard.judge(control.unwrap_or(&none), canary.unwrap_or(&none));
        match verdict {
            Verdict::TooManyErrors | Verdict::TooSlow => {
                experiment = experiment.with_status(Status::Paused);
                self.put(&experiment, Step::RolledBack(verdict)).await
            }
            Verdict::Good if self.guard.min_time <= since => {
                match self.stages.iter().find(|stage| share < **stage) {
                    Some(next) => self.ramp(experiment, *next).await,
                    None => {
                        experiment = experiment.with_status(Status::Concluded(self.canary.clone()));
                        match self.router.put_experiment(&experiment).await {
                            Ok(revision) => self.promote(&experiment, revision).await?,
                            Err(Error::Conflict { .. }) => return Ok(Step::Overtaken),
                            Err(error) => return Err(error),
                        }
                        Ok(Step::Promoted)
                    }
                }
            }
            _ => Ok(Step::Holding(verdict)),
        }
    }

    async fn ramp(&self, mut experiment: Experiment, share: u32) -> Result<Step> {
        experiment.ramp(&self.canary, share)?;
        self.put(&experiment, Step::Advanced { to: share }).await
    }

    async fn put(&self, experiment: &Experiment, step: Step) -> Result<Step> {
        match self.router.put_experiment(experiment).await {
            Ok(_) => Ok(step),
            Err(Error::Conflict { .. }) => Ok(Step::Overtaken),
            Err(error) => Err(error),
        }
    }

    /// Moves the alias of the first arm to the version of the canary, once for this conclusion: who moved it elsewhere
    /// since meant it.
    async fn promote(&self, experiment: &Experiment, revision: u64) -> Result<()> {
        let Some(registry) = &self.promotion else { return Ok(()) };
        let first = experiment.arms().first().map(|arm| &arm.target);
        let canary = experiment.arm(&self.canary).map(|arm| &arm.target);
        let (Some(Target::Alias { model, alias }), Some(canary)) = (first, canary) else {
            return Ok(());
        };
        let aliases = registry.aliases(model).await?;
        let to = match canary {
            Target::Version { model: other, version } if other == model => Some(version),
            Target::Alias { model: other, alias } if other == model => aliases.get(alias),
            _ => None,
        };
        let (Some(to), from) = (to, aliases.get(alias)) else { return Ok(()) };
        let actor = format!("rollout of experiment {}, revision {revision}", self.experiment);
        let audit = registry.audit(model, AUDITED).await?;
        if from == Some(to) || audit.iter().any(|entry| entry.actor == actor) {
            return Ok(());
        }
        let mut change = AliasChange::new(model, alias, to).by(&actor);
        change.expected = from.map(String::as_str);
        match registry.move_alias(&change).await {
            // Another controller was faster.
            Ok(()) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(calls: u64, failed: u64, millis: u64) -> Tally {
        let mut tally = Tally::default();
        for call in 0..calls {
            tally.add(failed <= call, Duration::from_millis(millis));
        }
        tally
    }

    #[test]
    fn a_guard_judges_by_what_chance_explains() {
        let guard = Guard::default();
        let control = tally(10_000, 100, 50);
        for (canary, verdict) in [
            (tally(10, 10, 50), Verdict::TooEarly),
            (tally(30, 30, 50), Verdict::TooManyErrors),
            (tally(100, 2, 50), Verdict::TooEarly),
            (tally(1_000, 12, 50), Verdict::Good),
            (tally(1_000, 60, 50), Verdict::TooManyErrors),
            (tally(1_000, 10, 200), Verdict::TooSlow),
            (tally(1_000, 10, 60), Verdict::Good),
        ] {
            assert_eq!(guard.judge(&control, &canary), verdict, "{canary:?}");
        }
    }
}
