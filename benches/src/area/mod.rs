//! The promises, by the folder of the crate that makes them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::{Effort, Line, Result};

mod chatsession;
mod core;
pub(crate) mod embcache;
mod featurestore;
mod gateway;
mod mlevents;
mod modelserve;
mod ratelimit;
pub(crate) mod semcache;
mod vectorsearch;

type Measure = fn(Effort) -> Pin<Box<dyn Future<Output = Result<Vec<Line>>>>>;

/// An area and how to measure its promises.
#[non_exhaustive]
pub struct Area {
    /// The name: the folder of the crate.
    pub name: &'static str,
    /// Measures all of its promises.
    pub measure: Measure,
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Area").field(&self.name).finish()
    }
}

/// Every area that has promises.
pub const AREAS: &[Area] = &[
    Area { name: "chatsession", measure: |effort| Box::pin(chatsession::measure(effort)) },
    Area { name: "core", measure: |effort| Box::pin(core::measure(effort)) },
    Area { name: "embcache", measure: |effort| Box::pin(embcache::measure(effort)) },
    Area { name: "featurestore", measure: |effort| Box::pin(featurestore::measure(effort)) },
    Area { name: "gateway", measure: |effort| Box::pin(gateway::measure(effort)) },
    Area { name: "mlevents", measure: |effort| Box::pin(mlevents::measure(effort)) },
    Area { name: "modelserve", measure: |effort| Box::pin(modelserve::measure(effort)) },
    Area { name: "ratelimit", measure: |effort| Box::pin(ratelimit::measure(effort)) },
    Area { name: "semcache", measure: |effort| Box::pin(semcache::measure(effort)) },
    Area { name: "vectorsearch", measure: |effort| Box::pin(vectorsearch::measure(effort)) },
];
