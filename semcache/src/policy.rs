use std::sync::Arc;
use std::time::Duration;

use inferkit_vectorsearch::Similarity;

use crate::adaptive::FLOOR;
use crate::contentless::has_content;
use crate::{
    Answer, Category, Error, Finish, Guard, Prices, Rate, Request, Result, Rules, Skip,
    Verification,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred years.
const LONGEST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// What may be served, for how long, and what it is worth.
///
/// Defaults: the [factual](Rules::factual) threshold of 0.95 for all but [`Category::CREATIVE`], checked by [`Guard`];
/// 7 days for models whose name starts with `gpt-4`, 1 day for `gpt-3.5` and all others; prompts of up to 8 KiB in the
/// semantic tier, answers of up to 1 MiB.
///
/// Where a threshold comes from is decided in one place, [`Policy::threshold_of`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inferkit_semcache::{Category, Policy, Rules};
///
/// let legal = Category::new("legal")?;
/// let policy = Policy::default()
///     .with_threshold(0.92)?
///     .with_category(legal, Rules::exact_only())
///     .with_model_ttl("llama-", Duration::from_secs(3600))?;
/// assert_eq!(policy.ttl("llama-3.3-70b"), Duration::from_secs(3600));
/// assert!(Policy::default().with_threshold(95.0).is_err());
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Rules,
    categories: Vec<(Category, Rules)>,
    default_ttl: Duration,
    /// By the beginning of the model's name.
    model_ttls: Vec<(String, Duration)>,
    sliding: bool,
    max_prompt_bytes: usize,
    max_answer_bytes: usize,
    contentless: Vec<String>,
    verification: Option<Verification>,
    prices: Prices,
    adaptive: Option<Rate>,
}

impl Policy {
    /// Makes a policy that learns where answers are right, and holds wrong ones to `max_wrong` of the lookups of the semantic
    /// tier, in the mean; all else is the default.
    ///
    /// It takes the place of the thresholds: what is not known to be safe makes a [`Lookup::Near`](crate::Lookup::Near) with
    /// [`Rejection::Explored`](crate::Rejection::Explored), and what is [reported](crate::SemanticCache::report) of such
    /// candidates and of hits is learned by all instances of a namespace.
    /// A [`Coalescer`](crate::Coalescer::with_judge) with a [`Judge`](crate::Judge) does so by itself.
    /// Without reports it stays at a similarity of 0.97. One in 25 answers that could be served is explored, to learn from,
    /// and up to one in 4 at first.
    /// A request's own [threshold](crate::CacheControl::threshold) holds as well.
    #[must_use]
    pub fn adaptive(max_wrong: Rate) -> Self {
        Self::default().with_adaptive(max_wrong)
    }

    /// Learns where answers are right; see [`Policy::adaptive`].
    #[must_use]
    pub fn with_adaptive(mut self, max_wrong: Rate) -> Self {
        self.adaptive = Some(max_wrong);
        self
    }

    /// Returns the share of lookups that may be answered wrong, if the policy learns.
    #[must_use]
    pub fn max_wrong(&self) -> Option<Rate> {
        self.adaptive
    }

    /// Sets the threshold of requests whose category has no rules; see [`Rules::with_threshold`].
    ///
    /// 0.92 to 0.95 suit factual questions, 0.85 to 0.90 creative ones; the numbers depend on the embedding model.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOutOfRange`].
    pub fn with_threshold(mut self, threshold: f64) -> Result<Self> {
        self.rules = self.rules.with_threshold(threshold)?;
        Ok(self)
    }

    /// Sets the rules of requests whose category has none of its own.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the rules of a category.
    #[must_use]
    pub fn with_category(mut self, category: Category, rules: Rules) -> Self {
        self.categories.retain(|(other, _)| *other != category);
        self.categories.push((category, rules));
        self
    }

    /// Sets how long answers of models live that no other rule names.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years.
    pub fn with_default_ttl(mut self, ttl: Duration) -> Result<Self> {
        ttl_millis(ttl)?;
        self.default_ttl = ttl;
        Ok(self)
    }

    /// Sets how long answers of models live whose name starts with `model`; the longest such beginning counts.
    ///
    /// # Errors
    ///
    /// [`Error::TtlOutOfRange`] if it is under a millisecond or over a hundred years; [`Error::EmptyModel`].
    pub fn with_model_ttl(mut self, model: impl Into<String>, ttl: Duration) -> Result<Self> {
        let model = model.into();
        ttl_millis(ttl)?;
        if model.trim().is_empty() {
            return Err(Error::EmptyModel);
        }
        self.model_ttls.retain(|(other, _)| *other != model);
        self.model_ttls.push((model, ttl));
        Ok(self)
    }

    /// Lets every hit begin an entry's time anew: the time that it was stored with, not the policy's.
    ///
    /// It costs each hit one more round trip, and answers that are asked for often are never made anew: set
    /// [`CacheControl::max_age`](crate::CacheControl::max_age) where that matters.
    #[must_use]
    pub fn with_sliding_ttl(mut self) -> Self {
        self.sliding = true;
        self
    }

    /// Sets the length of the longest prompt of the semantic tier, in bytes; longer ones use the exact tier only.
    ///
    /// Embedders that read only the beginning of a text make long prompts look the same: allow no more than yours reads.
    #[must_use]
    pub fn with_max_prompt_bytes(mut self, max_prompt_bytes: usize) -> Self {
        self.max_prompt_bytes = max_prompt_bytes;
        self
    }

    /// Sets the length of the longest answer, in bytes; longer ones are not stored.
    #[must_use]
    pub fn with_max_answer_bytes(mut self, max_answer_bytes: usize) -> Self {
        self.max_answer_bytes = max_answer_bytes;
        self
    }

    /// Adds words that say nothing by themselves, for other languages than English.
    ///
    /// A prompt of such words alone uses the exact tier only.
    #[must_use]
    pub fn with_contentless_words<W: Into<String>>(
        mut self,
        words: impl IntoIterator<Item = W>,
    ) -> Self {
        self.contentless.extend(words.into_iter().map(|word| word.into().to_lowercase()));
        self
    }

    /// Sets what checks a candidate of the semantic tier before it is served; [`Guard`] is the default.
    #[must_use]
    pub fn with_verification(mut self, verification: Verification) -> Self {
        self.verification = Some(verification);
        self
    }

    /// Serves what is similar enough without another check.
    #[must_use]
    pub fn without_verification(mut self) -> Self {
        self.verification = None;
        self
    }

    /// Sets what tokens cost, so that the money saved can be told.
    #[must_use]
    pub fn with_prices(mut self, prices: Prices) -> Self {
        self.prices = prices;
        self
    }

    /// Returns the threshold of requests whose category has no rules.
    #[must_use]
    pub fn threshold(&self) -> Similarity {
        self.rules.threshold()
    }

    /// Returns the rules of a category, or those of all others.
    pub fn rules(&self, category: Option<&Category>) -> &Rules {
        category
            .and_then(|wanted| self.categories.iter().find(|(category, _)| category == wanted))
            .map_or(&self.rules, |(_, rules)| rules)
    }

    /// Returns the least similarity by which `request` is answered: its category's, or its own if that is higher.
    #[must_use]
    pub fn threshold_of(&self, request: &Request) -> Similarity {
        let rule = self.rules(request.category()).threshold();
        request.control().least_similarity().map_or(rule, |own| own.max(rule))
    }

    /// Returns how similar candidates must be to be looked at.
    pub(crate) fn floor_of(&self, request: &Request) -> Similarity {
        match self.adaptive {
            Some(_) => Similarity::checked(FLOOR).unwrap_or_else(|| self.threshold_of(request)),
            None => self.threshold_of(request),
        }
    }

    /// Returns how long answers of `model` live.
    #[must_use]
    pub fn ttl(&self, model: &str) -> Duration {
        self.model_ttls
            .iter()
            .filter(|(start, _)| model.starts_with(start.as_str()))
            .max_by_key(|(start, _)| start.len())
            .map_or(self.default_ttl, |(_, ttl)| *ttl)
    }

    /// Returns how long the answer to `request` lives: its own time, its category's, or its model's.
    #[must_use]
    pub fn ttl_of(&self, request: &Request) -> Duration {
        let own = request.control().wanted_ttl();
        own.or_else(|| self.rules(request.category()).ttl())
            .unwrap_or_else(|| self.ttl(request.model()))
    }

    /// Tells whether every hit begins an entry's time anew.
    #[must_use]
    pub fn is_sliding(&self) -> bool {
        self.sliding
    }

    /// Returns the length of the longest prompt of the semantic tier, in bytes.
    #[must_use]
    pub fn max_prompt_bytes(&self) -> usize {
        self.max_prompt_bytes
    }

    /// Returns the length of the longest answer, in bytes.
    #[must_use]
    pub fn max_answer_bytes(&self) -> usize {
        self.max_answer_bytes
    }

    /// Tells whether `request` may be answered with the answer to another: its category allows it, and its prompt is not
    /// too long and has content.
    #[must_use]
    pub fn is_semantic(&self, request: &Request) -> bool {
        !self.rules(request.category()).is_exact_only()
            && !request.control().is_exact_only()
            && request.prompt().len() <= self.max_prompt_bytes
            && has_content(request.prompt(), &self.contentless)
    }

    /// Returns why the answer to `request` is not to be stored, if it is not.
    #[must_use]
    pub fn skips(&self, request: &Request, answer: &Answer) -> Option<Skip> {
        let control = request.control();
        match answer.finish() {
            _ if control.is_no_store() => Some(Skip::NoStore),
            Finish::Failed => Some(Skip::Failed),
            Finish::Truncated if !control.stores_truncated() => Some(Skip::Truncated),
            _ if self.max_answer_bytes < answer.response().len() => Some(Skip::TooLong),
            _ => None,
        }
    }

    /// Returns what checks candidates, if anything does.
    #[must_use]
    pub fn verification(&self) -> Option<&Verification> {
        self.verification.as_ref()
    }

    /// Returns what tokens cost.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.prices
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rules: Rules::factual(),
            categories: vec![
                (Category::FACTUAL, Rules::factual()),
                (Category::CREATIVE, Rules::creative()),
            ],
            default_ttl: DAY,
            model_ttls: vec![("gpt-4".to_owned(), 7 * DAY), ("gpt-3.5".to_owned(), DAY)],
            sliding: false,
            max_prompt_bytes: 8 * 1024,
            max_answer_bytes: 1024 * 1024,
            contentless: Vec::new(),
            verification: Some(Verification::new(Arc::new(Guard::default()))),
            prices: Prices::default(),
            adaptive: None,
        }
    }
}

/// A similarity from 0 to 1.
pub(crate) fn threshold(value: f64) -> Result<Similarity> {
    Similarity::checked(value)
        .filter(|similarity| 0.0 <= similarity.as_f64())
        .ok_or(Error::ThresholdOutOfRange { value })
}

/// The time to live in milliseconds, if it is one.
pub(crate) fn ttl_millis(ttl: Duration) -> Result<u64> {
    match u64::try_from(ttl.as_millis()) {
        Ok(millis) if 0 < millis && ttl <= LONGEST => Ok(millis),
        _ => Err(Error::TtlOutOfRange { ttl }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CacheControl, Tenant};

    #[test]
    fn thresholds_are_similarities_from_0_to_1() {
        for value in [0.0, 0.85, 1.0] {
            assert!(Policy::default().with_threshold(value).is_ok());
            assert!(Rules::factual().with_near_margin(value).is_ok());
        }
        for value in [-0.01, 1.01, 95.0, f64::NAN, f64::INFINITY] {
            let error = Policy::default().with_threshold(value).unwrap_err();
            assert!(matches!(error, Error::ThresholdOutOfRange { .. }));
            assert!(error.to_string().contains("from 0 to 1"), "{error}");
            assert!(CacheControl::new().threshold(value).is_err());
        }
    }

    #[test]
    fn the_longest_beginning_of_the_model_s_name_decides_how_long() {
        let policy = Policy::default().with_model_ttl("gpt-4.1-nano", DAY / 2).unwrap();
        assert_eq!(policy.ttl("gpt-4.1-nano-2026"), DAY / 2);
        assert_eq!(policy.ttl("gpt-4.1"), 7 * DAY);
        assert_eq!(policy.ttl("gpt-3.5-turbo"), DAY);
        assert_eq!(policy.ttl("other"), DAY);
        let again = policy.with_model_ttl("gpt-4.1-nano", DAY / 4).unwrap();
        assert_eq!(again.ttl("gpt-4.1-nano"), DAY / 4);
        assert!(Policy::default().with_default_ttl(LONGEST).is_ok());
        let over = LONGEST + Duration::from_millis(1);
        for ttl in [Duration::ZERO, Duration::from_micros(1), over, Duration::MAX] {
            assert!(matches!(
                Policy::default().with_model_ttl("m", ttl),
                Err(Error::TtlOutOfRange { .. })
            ));
            assert!(Policy::default().with_default_ttl(ttl).is_err());
            assert!(
                CacheControl::new().ttl(ttl).is_err() && Rules::factual().with_ttl(ttl).is_err()
            );
        }
    }

    fn request() -> Request {
        Request::new(Tenant::shared(), "gpt-4.1", "What is a monad?").unwrap()
    }

    #[test]
    fn a_request_only_raises_the_bar() {
        let policy = Policy::default();
        let threshold = |request: Request| policy.threshold_of(&request).as_f64();
        let bits = |value: f64| value.to_bits();
        assert_eq!(bits(threshold(request())), bits(0.95));
        let creative = request().with_category(Category::CREATIVE);
        assert_eq!(bits(threshold(creative.clone())), bits(0.88));
        for (own, expected) in [(0.5, 0.88), (0.9, 0.9)] {
            let control = CacheControl::new().threshold(own).unwrap();
            assert_eq!(bits(threshold(creative.clone().with_control(control))), bits(expected));
        }
        let unknown = request().with_category(Category::new("poems").unwrap());
        assert_eq!(bits(threshold(unknown)), bits(0.95));
    }

    #[test]
    fn the_nearest_rule_decides_how_long() {
        let poems = Category::new("poems").unwrap();
        let rules = Rules::creative().with_ttl(DAY / 3).unwrap();
        let policy = Policy::default().with_category(poems.clone(), rules);
        let request = request();
        assert_eq!(policy.ttl_of(&request), 7 * DAY);
        let poem = request.with_category(poems);
        assert_eq!(policy.ttl_of(&poem), DAY / 3);
        let own = CacheControl::new().ttl(DAY / 4).unwrap();
        assert_eq!(policy.ttl_of(&poem.with_control(own)), DAY / 4);
    }

    #[test]
    fn what_is_not_worth_keeping_is_skipped() {
        let policy = Policy::default().with_max_answer_bytes(4);
        let answer = |finish| Answer::new("yes").unwrap().with_finish(finish);
        let skips = |request: &Request, finish| policy.skips(request, &answer(finish));
        assert_eq!(skips(&request(), Finish::Complete), None);
        assert_eq!(skips(&request(), Finish::Truncated), Some(Skip::Truncated));
        assert_eq!(skips(&request(), Finish::Failed), Some(Skip::Failed));
        let asked = request().with_control(CacheControl::new().store_truncated());
        assert_eq!(skips(&asked, Finish::Truncated), None);
        assert_eq!(skips(&asked, Finish::Failed), Some(Skip::Failed));
        let private = request().with_control(CacheControl::new().no_store());
        assert_eq!(skips(&private, Finish::Complete), Some(Skip::NoStore));
        let long = Answer::new("maybe").unwrap();
        assert_eq!(policy.skips(&request(), &long), Some(Skip::TooLong));
    }

    #[test]
    fn the_semantic_tier_takes_prompts_with_content_of_a_fair_length() {
        let policy = Policy::default().with_max_prompt_bytes(30).with_contentless_words(["Weiter"]);
        let ask = |prompt: &str| {
            policy.is_semantic(&Request::new(Tenant::shared(), "m", prompt).unwrap())
        };
        assert!(ask("What is a monad?"));
        assert!(!ask("") && !ask("Continue!") && !ask("weiter, weiter...") && !ask("?!"));
        assert!(ask(&"x".repeat(30)) && !ask(&"x".repeat(31)));
        let exact = policy.clone().with_rules(Rules::exact_only());
        assert!(
            !exact.is_semantic(&request())
                && !exact.is_semantic(&request().with_category(Category::new("x").unwrap()))
        );
        assert!(
            exact
                .with_max_prompt_bytes(99)
                .is_semantic(&request().with_category(Category::FACTUAL))
        );
    }
}
