//! What names and numbers a schema takes; `const`, so that a static schema with a mistake does not compile.
#![expect(
    clippy::indexing_slicing,
    reason = "constant evaluation has no iterators; every index is below a length"
)]

use super::{Algorithm, Field, FieldKind};
use crate::MAX_DIMENSIONS;

/// A mistake in a schema; numbers are places of fields.
#[derive(Clone, Copy)]
pub(super) enum Mistake {
    IndexName(&'static str),
    Prefix,
    FieldName(usize, &'static str),
    Duplicate(usize),
    Option(usize, &'static str),
    Range { name: &'static str, got: usize, min: usize, max: usize },
}

/// The rule that an index name breaks.
pub(crate) const fn index_name_problem(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some("it is empty");
    }
    let mut place = 0;
    while place < bytes.len() {
        let byte = bytes[place];
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
        let starts = byte.is_ascii_alphabetic() || byte == b'_';
        if !plain || (place == 0 && !starts) {
            return Some("it takes letters, digits and `_-.:`, and starts with a letter or `_`");
        }
        place += 1;
    }
    None
}

/// The rule that a field name breaks.
pub(crate) const fn field_name_problem(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some("it is empty");
    }
    let mut place = 0;
    while place < bytes.len() {
        let byte = bytes[place];
        if !(byte.is_ascii_alphanumeric() || byte == b'_') || (place == 0 && byte.is_ascii_digit())
        {
            return Some("it takes letters, digits and `_`, and does not start with a digit");
        }
        place += 1;
    }
    if 2 <= bytes.len() && bytes[0] == b'_' && bytes[1] == b'_' {
        return Some("names that start with `__` belong to the server");
    }
    if bytes.len() == 2
        && bytes[0].eq_ignore_ascii_case(&b'a')
        && bytes[1].eq_ignore_ascii_case(&b's')
    {
        return Some("it is a word of the query language");
    }
    None
}

/// The first mistake in a schema.
pub(super) const fn mistake(index: &str, prefix: &str, fields: &[Field]) -> Option<Mistake> {
    if let Some(problem) = index_name_problem(index) {
        return Some(Mistake::IndexName(problem));
    }
    if !is_prefix(prefix.as_bytes()) {
        return Some(Mistake::Prefix);
    }
    let mut place = 0;
    while place < fields.len() {
        let field = &fields[place];
        if let Some(problem) = field_name_problem(field.name()) {
            return Some(Mistake::FieldName(place, problem));
        }
        let mut earlier = 0;
        while earlier < place {
            if equal(fields[earlier].name().as_bytes(), field.name().as_bytes()) {
                return Some(Mistake::Duplicate(place));
            }
            earlier += 1;
        }
        if let Some(problem) = field.option_problem() {
            return Some(Mistake::Option(place, problem));
        }
        if let Some(mistake) = range_mistake(field.kind()) {
            return Some(mistake);
        }
        place += 1;
    }
    None
}

const fn is_prefix(prefix: &[u8]) -> bool {
    let mut place = 0;
    while place < prefix.len() {
        if prefix[place] == 0 {
            return false;
        }
        place += 1;
    }
    2 <= prefix.len() && prefix[prefix.len() - 1] == b':'
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut place = 0;
    while place < a.len() {
        if a[place] != b[place] {
            return false;
        }
        place += 1;
    }
    true
}

const fn range_mistake(kind: &FieldKind) -> Option<Mistake> {
    let FieldKind::Vector { dimensions, algorithm, .. } = kind else { return None };
    let ranges: [(&'static str, usize, usize, usize); 4] = match algorithm {
        Algorithm::Flat => [("DIM", *dimensions, 1, MAX_DIMENSIONS); 4],
        Algorithm::Hnsw(hnsw) => [
            ("DIM", *dimensions, 1, MAX_DIMENSIONS),
            ("M", hnsw.m, 2, 512),
            ("EF_CONSTRUCTION", hnsw.ef_construction, 1, 4096),
            ("EF_RUNTIME", hnsw.ef_runtime, 1, 4096),
        ],
        Algorithm::SvsVamana(svs) => [
            ("DIM", *dimensions, 1, MAX_DIMENSIONS),
            ("GRAPH_MAX_DEGREE", svs.graph_max_degree, 1, 4096),
            ("CONSTRUCTION_WINDOW_SIZE", svs.construction_window_size, 1, 4096),
            ("SEARCH_WINDOW_SIZE", svs.search_window_size, 1, 4096),
        ],
    };
    let mut place = 0;
    while place < ranges.len() {
        let (name, got, min, max) = ranges[place];
        if got < min || max < got {
            return Some(Mistake::Range { name, got, min, max });
        }
        place += 1;
    }
    None
}

/// Stops the compiler at a mistake in a static schema.
pub(super) const fn refuse(mistake: Mistake) {
    #[expect(clippy::panic, reason = "a panic in constant evaluation is a compile error")]
    match mistake {
        Mistake::IndexName(_) => {
            panic!(
                "the index name takes letters, digits and `_-.:`, and starts with a letter or `_`"
            )
        }
        Mistake::Prefix => panic!("the key prefix must end with `:`, and hold more"),
        Mistake::FieldName(_, _) => {
            panic!(
                "a field name takes letters, digits and `_`, starts with no digit and no `__`, and is not `as`"
            )
        }
        Mistake::Duplicate(_) => panic!("two fields have the same name"),
        Mistake::Option(_, _) => panic!("an option does not fit the kind of its field"),
        Mistake::Range { .. } => panic!("a number of a vector field is out of its range"),
    }
}
