use std::collections::HashMap;

use bytes::Bytes;
use inferkit_core::Cmd;

use super::{Find, Knn, append_params, filter_text, vector_field};
use crate::{
    Algorithm, Distance, Error, FieldKind, Fields, Filter, Page, Result, Schema, SearchResult,
};

/// What damps the weight of the first ranks: 60 in the paper.
const CONSTANT: u32 = 60;

/// A query by words and by meaning: one ranking by text relevance and one by distance, fused by their ranks.
///
/// Reciprocal rank fusion: a document scores 1 / (60 + its rank) in each ranking that holds it, and the sums decide
/// (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
/// SIGIR 2009).
/// Two queries in one pipeline, so it works on every server with full text and vectors.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Filter, Hybrid, Knn, Text, Vector};
///
/// let nearest = Knn::new("embedding", Vector::new([0.1, 0.9])?, 10, Filter::tag("tenant", "acme")?)?;
/// let query = Hybrid::new(Filter::text("title", Text::any("red shoe"))?, nearest)?;
/// # let _ = query;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Hybrid {
    words: Filter,
    knn: Knn,
    window: usize,
}

impl Hybrid {
    /// Fuses the documents that match `words`, best first, with the nearest neighbors of `knn`.
    ///
    /// The filter of `knn` holds for both; its `k` is the number of hits, and twice that many of each ranking are fused.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidK`] if twice `k` is above [`MAX_K`](super::MAX_K).
    pub fn new(words: Filter, knn: Knn) -> Result<Self> {
        let window = 2 * knn.k();
        Self { words, knn, window: 0 }.with_window(window)
    }

    /// Sets how many documents of each ranking are fused, from `k` up; more find more that are good in both.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidK`] if it is below `k` or above [`MAX_K`](super::MAX_K).
    pub fn with_window(mut self, window: usize) -> Result<Self> {
        if window < self.knn.k() || super::MAX_K < window {
            return Err(Error::InvalidK { k: window, max: super::MAX_K });
        }
        self.window = window;
        Ok(self)
    }

    /// The two queries whose answers [`fuse`](Self::fuse) takes.
    pub(crate) fn parts(&self) -> Result<(Find, Knn)> {
        let words = self.knn.filter().clone().and(self.words.clone());
        let mut find = Find::new(words).scored().page(0, self.window)?;
        find = find.returning(self.knn.returned().to_vec())?;
        if let Some(timeout) = self.knn.timeout() {
            find = find.with_timeout(timeout);
        }
        Ok((find, self.knn.with_k(self.window)))
    }

    pub(crate) fn with_filter(&self, filter: Filter) -> Self {
        Self { knn: self.knn.with_filter(filter), ..self.clone() }
    }

    pub(crate) fn filter(&self) -> &Filter {
        self.knn.filter()
    }

    /// Fuses two rankings by reciprocal rank.
    pub(crate) fn fuse(&self, words: Page, near: SearchResult) -> Fused {
        let partial = words.partial || near.partial;
        let mut hits: Vec<FusedHit> = Vec::with_capacity(words.records.len() + near.hits.len());
        let mut places: HashMap<Bytes, usize> = HashMap::new();
        let share = |rank: usize| {
            1.0 / f64::from(CONSTANT + u32::try_from(rank + 1).unwrap_or(u32::MAX / 2))
        };
        for (rank, record) in words.records.into_iter().enumerate() {
            places.insert(record.key.clone(), hits.len());
            hits.push(FusedHit {
                key: record.key,
                score: share(rank),
                distance: None,
                text_score: record.score,
                fields: record.fields,
            });
        }
        for (rank, hit) in near.hits.into_iter().enumerate() {
            match places.get(&hit.key).and_then(|&place| hits.get_mut(place)) {
                Some(both) => {
                    both.score += share(rank);
                    both.distance = Some(hit.distance);
                }
                None => hits.push(FusedHit {
                    key: hit.key,
                    score: share(rank),
                    distance: Some(hit.distance),
                    text_score: None,
                    fields: hit.fields,
                }),
            }
        }
        // Among equals the smaller key comes first, so that equal rankings always fuse alike.
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.key.cmp(&b.key)));
        hits.truncate(self.knn.k());
        Fused { hits, partial }
    }

    /// Returns the same query as the one `FT.HYBRID` command of Redis 8.4 and later.
    ///
    /// [`RedisVectorIndex`](crate::RedisVectorIndex) does not send it, since its replies could not be tested; it is for
    /// those who read them themselves.
    ///
    /// # Errors
    ///
    /// As [`Knn::to_cmd`].
    pub fn to_hybrid_cmd(&self, schema: &Schema) -> Result<Cmd> {
        let (kind, data_type) = vector_field(schema, self.knn.field(), self.knn.vector())?;
        let words = self.knn.filter().clone().and(self.words.clone());
        let (text, values) = filter_text(&words, schema)?;
        // The same filter comes first in `words`, so that its parameters have the same names there.
        let (filter, _) = filter_text(self.knn.filter(), schema)?;
        let mut cmd = Cmd::with_capacity("FT.HYBRID", 512 + 4 * self.knn.vector().dimensions())
            .key(schema.index())
            .arg("SEARCH")
            .arg(text)
            .arg("VSIM")
            .arg(format!("@{}", self.knn.field()))
            .arg("$vector")
            .arg("KNN");
        cmd = match kind {
            FieldKind::Vector { algorithm: Algorithm::Hnsw(_), .. } => {
                cmd.args(["4", "K"]).arg(self.window).arg("EF_RUNTIME").arg(self.knn.ef_runtime())
            }
            _ => cmd.args(["2", "K"]).arg(self.window),
        };
        if filter != "*" {
            cmd = cmd.arg("FILTER").arg(filter);
        }
        cmd = cmd
            .args(["COMBINE", "RRF", "4", "CONSTANT"])
            .arg(CONSTANT)
            .arg("WINDOW")
            .arg(self.window);
        cmd = cmd.args(["LIMIT", "0"]).arg(self.knn.k());
        cmd = cmd.arg("LOAD").arg(1 + self.knn.returned().len()).arg("@__key");
        for field in self.knn.returned() {
            cmd = cmd.arg(format!("@{field}"));
        }
        let vector = data_type.encode(self.knn.vector())?;
        Ok(append_params(cmd, Some(&vector), &values).readonly())
    }
}

/// What a [`Hybrid`] query found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Fused {
    /// The hits, the best first.
    pub hits: Vec<FusedHit>,
    /// Whether one of the two searches stopped early; see [`SearchResult::partial`].
    pub partial: bool,
}

/// A document that a [`Hybrid`] query found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FusedHit {
    /// The key of the hash.
    pub key: Bytes,
    /// The sum of the reciprocal ranks; it compares only with scores of the same answer.
    pub score: f64,
    /// The distance, if the document is among the nearest.
    pub distance: Option<Distance>,
    /// The server's relevance score, if the document matches the words and is among the most relevant.
    pub text_score: Option<f64>,
    /// The fields that the query asked for and that the hash has, with their values.
    pub fields: Fields,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hit, Record, Vector};

    fn hybrid(k: usize) -> Hybrid {
        let vector = Vector::new([1.0, 0.0]).unwrap();
        let filter = Filter::tag("tenant", "acme").unwrap();
        let knn = Knn::new("v", vector, k, filter).unwrap().returning(["title"]).unwrap();
        Hybrid::new(Filter::tag("color", "red").unwrap(), knn).unwrap()
    }

    #[test]
    fn ranks_fuse_and_ties_fall_to_the_smaller_key() {
        let record = |key: &'static str| Record::new(key, Some(1.5), Fields::default());
        let hit = |key: &'static str, distance| {
            Hit::new(key, Distance::new(distance).unwrap(), Fields::default())
        };
        let words = Page::new(vec![record("b"), record("both")], 2);
        let near = SearchResult::new(vec![hit("a", 0.1), hit("both", 0.2), hit("c", 0.3)]);
        let fused = hybrid(3).fuse(words, near);
        let keys: Vec<&[u8]> = fused.hits.iter().map(|hit| &*hit.key).collect();
        assert_eq!(keys, [&b"both"[..], b"a", b"b"]);
        let both = &fused.hits[0];
        assert!((both.score - 2.0 / 62.0).abs() < 1e-12);
        assert_eq!((both.distance.is_some(), both.text_score), (true, Some(1.5)));
        assert_eq!((fused.hits[1].text_score, fused.hits[2].distance), (None, None));
    }

    #[test]
    fn a_window_holds_at_least_the_hits() {
        assert!(matches!(hybrid(3).with_window(2), Err(Error::InvalidK { k: 2, .. })));
        assert_eq!(hybrid(3).with_window(9).unwrap().window, 9);
    }

    #[test]
    fn the_command_of_redis_8_4_is_golden() {
        let schema = Schema::builder("docs", "docs:", crate::VectorField::flat("v", 2))
            .tag("tenant")
            .tag("color")
            .build()
            .unwrap();
        let cmd = hybrid(10).to_hybrid_cmd(&schema).unwrap();
        let parts: Vec<String> = cmd.iter().map(|part| part.escape_ascii().to_string()).collect();
        assert_eq!(
            parts.join(" "),
            "FT.HYBRID docs SEARCH (@tenant:{$f0} @color:{$f1}) VSIM @v $vector KNN 2 K 20 \
             FILTER @tenant:{$f0} COMBINE RRF 4 CONSTANT 60 WINDOW 20 LIMIT 0 10 LOAD 2 @__key @title \
             PARAMS 6 vector \\x00\\x00\\x80?\\x00\\x00\\x00\\x00 f0 acme f1 red"
        );
    }
}
