use std::fmt;

use inferkit_core::{Batch, Cmd, DriverExt as _, DynDriver, FromReply as _, Reply};

use crate::{Algorithm, DataType, Error, Field, FieldKind, Result, Schema};

/// Which search a server has.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Capability, Engine};
///
/// let engine = Engine::RediSearch { version: (2, 10, 5) };
/// assert!(engine.supports(Capability::HalfPrecision) && !engine.supports(Capability::FusedSearch));
/// assert!(!Engine::ValkeySearch { version: (1, 2, 1) }.supports(Capability::Aliases));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Engine {
    /// RediSearch: a module of Redis up to 7.4 and of Valkey, a part of Redis 8.
    RediSearch {
        /// Major, minor and patch version; those of Redis from 8.0.
        version: (u32, u32, u32),
    },
    /// valkey-search.
    ValkeySearch {
        /// Major, minor and patch version.
        version: (u32, u32, u32),
    },
    /// No search at all.
    None,
}

/// What an engine may be able to do beyond nearest neighbors with tags and numbers, which all of them have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Capability {
    /// `FT.ALIASADD` and `FT.ALIASUPDATE`; [`reindex`](crate::RedisVectorIndex::reindex) needs them.
    Aliases,
    /// `FT.AGGREGATE` with a cursor; removals and updates by filter need it.
    Cursors,
    /// 64-bit vectors.
    DoublePrecision,
    /// `FT.HYBRID`; without it two queries are fused here.
    FusedSearch,
    /// 16-bit vectors.
    HalfPrecision,
    /// Options of fields such as `SORTABLE`, and `SORTBY` by other fields than the distance.
    FieldOptions,
    /// `INDEXMISSING` and `INDEXEMPTY`.
    MissingValues,
    /// `PARAMS` inside filters; without them [`Rendering::Literal`](crate::Rendering::Literal) is needed.
    ParamsInFilters,
    /// `VECTOR_RANGE`; without it ranges are cut here.
    RangeQueries,
    /// 8-bit vectors.
    QuarterPrecision,
    /// SVS-VAMANA.
    SvsVamana,
    /// TEXT fields.
    Text,
}

impl Engine {
    /// Asks a server which search it has: one pipeline of `MODULE LIST` and `INFO server`.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if there is no answer.
    pub async fn probe(driver: &DynDriver) -> Result<Self> {
        let mut batch = Batch::new();
        let modules = batch.push::<Reply>(Cmd::new("MODULE").arg("LIST").readonly());
        let server = batch.push::<String>(Cmd::new("INFO").arg("server").readonly());
        let mut answers = driver.run(batch).await?;
        Self::read(answers.take(modules)?, &answers.take(server)?)
    }

    fn read(modules: Reply, server: &str) -> Result<Self> {
        let mut version = None;
        for module in modules.into_array()? {
            let (mut name, mut number) = (String::new(), 0);
            for (key, value) in module.into_pairs()? {
                match key.as_str() {
                    Some("name") => name = String::from_reply(value)?,
                    Some("ver") => number = u32::from_reply(value)?,
                    _ => {}
                }
            }
            if matches!(name.as_str(), "search" | "searchlight") {
                version = Some((number / 10_000, number / 100 % 100, number % 100));
            }
        }
        let is_valkey = server.contains("valkey");
        Ok(match version {
            None => Self::None,
            // valkey-search counts from 1.0, RediSearch was at 2.0 long before Valkey.
            Some(version) if is_valkey && version.0 < 2 => Self::ValkeySearch { version },
            Some(version) => Self::RediSearch { version },
        })
    }

    /// Tells whether the engine can do something.
    #[must_use]
    pub fn supports(self, capability: Capability) -> bool {
        match self {
            Self::None => false,
            Self::RediSearch { version } => {
                let since = match capability {
                    Capability::Aliases
                    | Capability::Cursors
                    | Capability::DoublePrecision
                    | Capability::FieldOptions
                    | Capability::ParamsInFilters
                    | Capability::RangeQueries
                    | Capability::Text => (2, 6, 0),
                    Capability::HalfPrecision | Capability::MissingValues => (2, 10, 0),
                    Capability::QuarterPrecision => (8, 0, 0),
                    Capability::SvsVamana => (8, 2, 0),
                    Capability::FusedSearch => (8, 4, 0),
                };
                since <= version
            }
            Self::ValkeySearch { version } => {
                capability == Capability::Text && (1, 2, 0) <= version
            }
        }
    }

    /// Checks that the engine can have an index of `schema`.
    ///
    /// # Errors
    ///
    /// [`Error::EngineLacks`] for the first thing that it cannot do, with what to do instead.
    pub fn check(self, schema: &Schema) -> Result<()> {
        if self == Self::None {
            let instead =
                "use Redis 8 or later, or load the RediSearch module into Redis 7.2+ or Valkey 8+";
            return Err(self.lacks("search", instead));
        }
        schema.fields().iter().try_for_each(|field| self.check_field(field))
    }

    fn check_field(self, field: &Field) -> Result<()> {
        let need = |capability, what, instead| {
            if self.supports(capability) { Ok(()) } else { Err(self.lacks(what, instead)) }
        };
        if field.is_index_missing() || field.is_index_empty() {
            let instead = "store a tag that means \"missing\" or \"empty\"";
            need(Capability::MissingValues, "INDEXMISSING and INDEXEMPTY", instead)?;
        }
        if field.is_sortable() || field.has_suffix_trie() {
            let instead = "leave the option out, and sort what you get";
            need(Capability::FieldOptions, "SORTABLE and WITHSUFFIXTRIE", instead)?;
        }
        match field.kind() {
            FieldKind::Text => need(Capability::Text, "TEXT fields", "use TAG fields"),
            FieldKind::Vector { algorithm, data_type, .. } => {
                if let Algorithm::SvsVamana(_) = algorithm {
                    need(Capability::SvsVamana, "SVS-VAMANA", "use HNSW with 16-bit floats")?;
                }
                match data_type {
                    DataType::F32 => Ok(()),
                    DataType::F64 => need(Capability::DoublePrecision, "FLOAT64", "use FLOAT32"),
                    DataType::F16 | DataType::BF16 => {
                        need(Capability::HalfPrecision, "16-bit vectors", "use FLOAT32")
                    }
                    DataType::I8 | DataType::U8 => need(
                        Capability::QuarterPrecision,
                        "8-bit vectors",
                        "use FLOAT16 or FLOAT32",
                    ),
                }
            }
            _ => Ok(()),
        }
    }

    fn lacks(self, what: &'static str, instead: &'static str) -> Error {
        Error::EngineLacks { engine: self.to_string(), what, instead }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, (major, minor, patch)) = match self {
            Self::RediSearch { version } => ("RediSearch", version),
            Self::ValkeySearch { version } => ("valkey-search", version),
            Self::None => return f.write_str("the server"),
        };
        write!(f, "{name} {major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hnsw, SvsVamana, VectorField};
    use bytes::Bytes;

    fn modules(modules: &[(&str, i64)]) -> Reply {
        let word = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let module = |(name, version): &(&str, i64)| {
            let path = [word("path"), word("/x.so"), word("args"), Reply::Array(Vec::new())];
            let head = [word("name"), word(name), word("ver"), Reply::Int(*version)];
            Reply::Array([head.to_vec(), path.to_vec()].concat())
        };
        Reply::Array(modules.iter().map(module).collect())
    }

    #[test]
    fn the_answers_of_known_servers_are_told_apart() {
        let redis = "redis_version:7.4.1\r\nredis_mode:standalone\r\n";
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n";
        for (found, server, engine) in [
            (&[("search", 20_811)][..], redis, Engine::RediSearch { version: (2, 8, 11) }),
            (
                &[("ReJSON", 20_804), ("search", 21_005)],
                valkey,
                Engine::RediSearch { version: (2, 10, 5) },
            ),
            (
                &[("vectorset", 1), ("search", 80_200)],
                redis,
                Engine::RediSearch { version: (8, 2, 0) },
            ),
            (&[("search", 10_201)], valkey, Engine::ValkeySearch { version: (1, 2, 1) }),
            (&[("json", 10_010)], valkey, Engine::None),
            (&[], redis, Engine::None),
        ] {
            assert_eq!(Engine::read(modules(found), server).unwrap(), engine);
        }
        assert!(Engine::read(Reply::Nil, redis).is_err());
    }

    #[test]
    fn what_an_engine_lacks_is_said_with_what_to_do_instead() {
        let schema = |field: Field| Schema::builder("i", "p:", field).build().unwrap();
        let half = VectorField::flat("v", 2).with_data_type(DataType::F16);
        let eighth = VectorField::flat("v", 2).with_data_type(DataType::I8);
        let svs = VectorField::new("v", 2, Algorithm::SvsVamana(SvsVamana::new()));
        let old = Engine::RediSearch { version: (2, 8, 11) };
        let middle = Engine::RediSearch { version: (2, 10, 5) };
        let new = Engine::RediSearch { version: (8, 2, 0) };
        let valkey = Engine::ValkeySearch { version: (1, 1, 1) };
        for (field, engine, fits) in [
            (Field::hnsw("v", 2, Hnsw::new()), valkey, true),
            (half.clone().into(), old, false),
            (half.clone().into(), middle, true),
            (half.into(), valkey, false),
            (eighth.clone().into(), middle, false),
            (eighth.into(), new, true),
            (svs.clone().into(), middle, false),
            (svs.into(), new, true),
            (Field::text("t"), valkey, false),
            (Field::text("t"), Engine::ValkeySearch { version: (1, 2, 0) }, true),
            (Field::tag("t").index_missing(), old, false),
            (Field::numeric("n").sortable(), valkey, false),
            (Field::numeric("n"), Engine::None, false),
        ] {
            let checked = engine.check(&schema(field.clone()));
            assert_eq!(checked.is_ok(), fits, "{field:?} on {engine}");
        }
        let error = valkey.check(&schema(Field::text("t"))).unwrap_err().to_string();
        assert_eq!(error, "valkey-search 1.1.1 has no TEXT fields: use TAG fields");
    }
}
