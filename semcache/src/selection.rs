use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use inferkit_vectorsearch::Filter;

use crate::digest::{digest, hex};
use crate::entry::{LABELS, TIMESTAMP};
use crate::{Answer, Category, Request, Result, Tenant};

/// Which entries are to be invalidated: those for which everything that was set holds.
///
/// `Debug` shows how much was set, never a name.
///
/// # Examples
///
/// ```
/// use inferkit_semcache::{Selection, Tenant};
///
/// let answers_from_a_document = Selection::of_tenant(&Tenant::new("acme")?).with_tag("doc:42");
/// let all_of_a_model_but_its_new_version = Selection::of_all_tenants().with_outdated("gpt-4.1", "2025-04-14");
/// # let _ = (answers_from_a_document, all_of_a_model_but_its_new_version);
/// # Ok::<(), inferkit_semcache::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[must_use]
pub struct Selection {
    with: Vec<String>,
    without: Vec<String>,
    before: Option<Duration>,
}

impl Selection {
    /// Selects the entries of a tenant.
    ///
    /// [`SemanticCache::flush`](crate::SemanticCache::flush) takes a tenant's entries out of use at once; this removes
    /// them one by one.
    pub fn of_tenant(tenant: &Tenant) -> Self {
        Self { with: vec![tenant_label(tenant)], without: Vec::new(), before: None }
    }

    /// Selects the entries of all tenants, those of [`Tenant::shared`] included.
    pub fn of_all_tenants() -> Self {
        Self { with: Vec::new(), without: Vec::new(), before: None }
    }

    /// Selects entries with this tag; see [`Answer::with_tag`].
    pub fn with_tag(mut self, tag: impl AsRef<str>) -> Self {
        self.with.push(label('t', [tag.as_ref()]));
        self
    }

    /// Selects the answers of a model, of whatever version.
    pub fn with_model(mut self, model: impl AsRef<str>) -> Self {
        self.with.push(label('m', [model.as_ref()]));
        self
    }

    /// Selects the answers of one version of a model.
    pub fn with_model_version(mut self, model: impl AsRef<str>, version: impl AsRef<str>) -> Self {
        self.with.push(label('v', [model.as_ref(), version.as_ref()]));
        self
    }

    /// Selects the answers of a model that are not of this version, those of no version included.
    pub fn with_outdated(mut self, model: impl AsRef<str>, current: impl AsRef<str>) -> Self {
        self.without.push(label('v', [model.as_ref(), current.as_ref()]));
        self.with_model(model)
    }

    /// Selects the entries of a category.
    pub fn with_category(mut self, category: &Category) -> Self {
        self.with.push(label('c', [category.as_str()]));
        self
    }

    /// Selects entries that were stored before a time since the Unix epoch, to the second, by the server's clock.
    pub fn stored_before(mut self, time: Duration) -> Self {
        self.before = Some(time);
        self
    }

    /// Tells whether every entry is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.with.is_empty() && self.without.is_empty() && self.before.is_none()
    }

    /// Tells whether an entry is selected, for an implementor of [`SemanticCache`](crate::SemanticCache).
    #[must_use]
    pub fn matches(&self, request: &Request, answer: &Answer, stored_at: Duration) -> bool {
        self.matches_labels(&labels(request, answer), stored_at)
    }

    pub(crate) fn matches_labels(&self, labels: &BTreeSet<String>, stored_at: Duration) -> bool {
        self.with.iter().all(|label| labels.contains(label))
            && !self.without.iter().any(|label| labels.contains(label))
            && self.before.is_none_or(|time| stored_at.as_secs() < time.as_secs())
    }

    pub(crate) fn filter(&self) -> Result<Filter> {
        let mut filter = Filter::all();
        for label in &self.with {
            filter = filter & Filter::tag(LABELS, label)?;
        }
        for label in &self.without {
            filter = filter & !Filter::tag(LABELS, label)?;
        }
        if let Some(time) = self.before {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this era fit 53 bits")]
            let end = time.as_secs() as f64;
            filter = filter & Filter::number(TIMESTAMP, (Bound::Unbounded, Bound::Excluded(end)))?;
        }
        Ok(filter)
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("with", &self.with.len())
            .field("without", &self.without.len())
            .field("before", &self.before)
            .finish()
    }
}

/// What an entry can be selected by: a letter for the kind, and a digest.
pub(crate) fn labels(request: &Request, answer: &Answer) -> BTreeSet<String> {
    let mut labels =
        BTreeSet::from([tenant_label(request.tenant()), label('m', [request.model()])]);
    if let Some(version) = request.model_version() {
        labels.insert(label('v', [request.model(), version]));
    }
    if let Some(category) = request.category() {
        labels.insert(label('c', [category.as_str()]));
    }
    labels.extend(answer.tags().iter().map(|tag| label('t', [tag.as_str()])));
    labels
}

fn tenant_label(tenant: &Tenant) -> String {
    let hex = hex(tenant.digest());
    format!("o{}", hex.as_str().get(..32).unwrap_or_default())
}

/// Half a digest is enough to tell labels apart.
fn label<const N: usize>(kind: char, parts: [&str; N]) -> String {
    let domain = format!("inferkit semcache label {kind} 1");
    let hex = hex(&digest(domain.as_bytes(), parts.map(str::as_bytes)));
    format!("{kind}{}", hex.as_str().get(..32).unwrap_or_default())
}
