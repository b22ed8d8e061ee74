use std::time::Duration;

use crate::demand::MAX_AMOUNT;
use crate::{Error, Result, Unit};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest period of a window.
const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The longest time that a whole burst takes to come back: longer ones would leave the exact numbers of a script.
const MAX_REFILL: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);
/// The shortest period and the shortest lease.
const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(60 * 60);
const MAX_SLOTS: u64 = 100_000;
const MAX_LOGGED: u64 = 10_000;

/// How a limit counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// A budget per calendar month, in UTC.
    CalendarMonth,
    /// A counter per window; windows begin at multiples of the period, in UTC.
    ///
    /// Around a window's end twice the limit can pass within a short time.
    FixedWindow,
    /// The generic cell rate algorithm (ITU-T I.371): a token bucket that stores one time.
    Gcra,
    /// The exact times of the last requests; it takes room for each of them.
    SlidingLog,
    /// Two counters, of which the older one fades; right if requests come evenly.
    SlidingWindow,
    /// How many requests may be at work at a time, as leases.
    Slots,
}

/// A budget's period on the calendar, in UTC.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "these are what budgets are written for")]
pub enum Calendar {
    /// From midnight to midnight.
    Day,
    /// From full hour to full hour.
    Hour,
    /// From the first to the last day of a month.
    Month,
}

/// How much of a unit is allowed.
///
/// Numbers may change from call to call; see [`Policy`](crate::Policy).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inferkit_ratelimit::{Calendar, Limit, Unit};
///
/// let minute = Duration::from_secs(60);
/// Limit::new(60, minute, Unit::Requests)?.with_burst(10)?;
/// Limit::new(100_000, minute, Unit::Tokens)?;
/// Limit::calendar(50_000_000_000, Calendar::Month, Unit::NanoDollars)?; // $50 a month
/// Limit::slots(8)?.with_lease(Duration::from_secs(20))?;
/// # Ok::<(), inferkit_ratelimit::Error>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Limit {
    pub(crate) algorithm: Algorithm,
    pub(crate) unit: Unit,
    pub(crate) amount: u64,
    pub(crate) burst: u64,
    pub(crate) period: Duration,
    pub(crate) hint: Duration,
}

impl Limit {
    /// Allows `amount` per `period` by [`Algorithm::Gcra`], and all of it at once after a rest.
    ///
    /// So up to twice the amount can pass within one period; [`with_burst`](Self::with_burst) lowers that.
    /// Times are counted in 1/16 microseconds: above 15 625 units a second each charge is rounded to one.
    ///
    /// # Errors
    ///
    /// [`Error::AmountOutOfRange`] and [`Error::TimeOutOfRange`].
    pub fn new(amount: u64, period: Duration, unit: Unit) -> Result<Self> {
        Self::made(Algorithm::Gcra, amount, period, unit)
    }

    /// Allows `amount` per window of `period`, by [`Algorithm::FixedWindow`].
    ///
    /// # Errors
    ///
    /// As [`Limit::new`].
    pub fn fixed_window(amount: u64, period: Duration, unit: Unit) -> Result<Self> {
        Self::made(Algorithm::FixedWindow, amount, period, unit)
    }

    /// Allows about `amount` in any `period`, by [`Algorithm::SlidingWindow`].
    ///
    /// # Errors
    ///
    /// As [`Limit::new`].
    pub fn sliding_window(amount: u64, period: Duration, unit: Unit) -> Result<Self> {
        Self::made(Algorithm::SlidingWindow, amount, period, unit)
    }

    /// Allows `amount` requests in any `period`, by [`Algorithm::SlidingLog`]; at most 10 000.
    ///
    /// # Errors
    ///
    /// As [`Limit::new`].
    pub fn sliding_log(amount: u64, period: Duration) -> Result<Self> {
        if MAX_LOGGED < amount {
            return Err(Error::AmountOutOfRange { amount });
        }
        Self::made(Algorithm::SlidingLog, amount, period, Unit::Requests)
    }

    /// Allows `amount` per hour, day or month of the calendar.
    ///
    /// # Errors
    ///
    /// [`Error::AmountOutOfRange`].
    pub fn calendar(amount: u64, calendar: Calendar, unit: Unit) -> Result<Self> {
        match calendar {
            Calendar::Day => Self::fixed_window(amount, DAY, unit),
            Calendar::Hour => Self::fixed_window(amount, DAY / 24, unit),
            Calendar::Month => Self::made(Algorithm::CalendarMonth, amount, 31 * DAY, unit),
        }
    }

    /// Allows `amount` requests at work at a time; at most 100 000.
    ///
    /// Each holds a lease of 30 s, which the limiter's `run` renews.
    ///
    /// # Errors
    ///
    /// [`Error::AmountOutOfRange`].
    pub fn slots(amount: u64) -> Result<Self> {
        if MAX_SLOTS < amount {
            return Err(Error::AmountOutOfRange { amount });
        }
        Self::made(Algorithm::Slots, amount, Duration::from_secs(30), Unit::Requests)
    }

    fn made(algorithm: Algorithm, amount: u64, period: Duration, unit: Unit) -> Result<Self> {
        if amount == 0 || MAX_AMOUNT < amount {
            return Err(Error::AmountOutOfRange { amount });
        }
        let what = "the period of a limit";
        check_time(what, period, MILLISECOND, MAX_PERIOD)?;
        let hint = Duration::from_secs(1);
        Ok(Self { algorithm, unit, amount, burst: amount, period, hint })
    }

    /// Sets how much may pass at once after a rest, under GCRA.
    ///
    /// # Errors
    ///
    /// [`Error::AmountOutOfRange`] if it is nothing, and [`Error::TimeOutOfRange`] if it takes more than five years to
    /// come back.
    pub fn with_burst(mut self, burst: u64) -> Result<Self> {
        if burst == 0 || MAX_AMOUNT < burst {
            return Err(Error::AmountOutOfRange { amount: burst });
        }
        self.burst = burst;
        if self.algorithm == Algorithm::Gcra {
            let refill = Duration::try_from_secs_f64(self.emission() * to_f64(burst) / 16e6)
                .unwrap_or(Duration::MAX);
            check_time("the time for a burst to come back", refill, Duration::ZERO, MAX_REFILL)?;
        }
        Ok(self)
    }

    /// Sets how long a slot is held without a sign of life, from 1 ms to an hour.
    ///
    /// # Errors
    ///
    /// [`Error::TimeOutOfRange`].
    pub fn with_lease(mut self, lease: Duration) -> Result<Self> {
        check_time("the lease of a slot", lease, MILLISECOND, MAX_LEASE)?;
        if self.algorithm == Algorithm::Slots {
            self.period = lease;
        }
        Ok(self)
    }

    /// Sets the time after which to ask again when all slots are taken; 1 s at first.
    ///
    /// # Errors
    ///
    /// [`Error::TimeOutOfRange`].
    pub fn with_retry_hint(mut self, hint: Duration) -> Result<Self> {
        check_time("the hint of slots", hint, MILLISECOND, MAX_LEASE)?;
        self.hint = hint;
        Ok(self)
    }

    /// Returns how the limit counts.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns what the limit counts.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Returns how much is allowed per period, or how many slots there are.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Returns how much may pass at once; the amount where the limit is not GCRA.
    #[must_use]
    pub fn burst(&self) -> u64 {
        if self.algorithm == Algorithm::Gcra { self.burst } else { self.amount }
    }

    /// Returns the period; of slots the lease, of a month 31 days.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// One instance's part of it, and at least 1.
    pub(crate) fn divided(&self, instances: u64) -> Self {
        let part = |amount: u64| amount.checked_div(instances).unwrap_or(amount).max(1);
        Self { amount: part(self.amount), burst: part(self.burst), ..self.clone() }
    }

    /// The ticks between two units under GCRA: whole, so that bursts are exact, unless that would change the rate.
    pub(crate) fn emission(&self) -> f64 {
        let exact = ticks(self.period) / to_f64(self.amount);
        if exact < 1024.0 { exact } else { exact.round() }
    }
}

fn check_time(what: &'static str, got: Duration, min: Duration, max: Duration) -> Result<()> {
    if got < min || max < got {
        return Err(Error::TimeOutOfRange { what, min, max, got });
    }
    Ok(())
}

/// A time in ticks of 1/16 microsecond, rounded down to microseconds.
pub(crate) fn ticks(time: Duration) -> f64 {
    to_f64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)) * 16.0
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "amounts and times are at most 2^53")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

/// A time of ticks, rounded up to microseconds.
pub(crate) fn duration(ticks: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and far below 2^63"
    )]
    Duration::from_micros((ticks.max(0.0) / 16.0).ceil() as u64)
}
