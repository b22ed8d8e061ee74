//! The suite on memory, on Redis through redis-rs (FLAT and HNSW, RESP2 and RESP3) and through fred, and on Valkey.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(all(feature = "redis", feature = "conformance"))]

use inferkit_core::{DynDriver, FredDriver, Pool, PoolConfig, Protocol};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::conformance::schema;
use inferkit_vectorsearch::{
    Hnsw, MemoryVectorIndex, RedisVectorIndex, VectorField, vector_index_conformance,
};

fn flat() -> VectorField {
    VectorField::flat("v", 3)
}

async fn pool(flavor: Flavor, protocol: Protocol) -> DynDriver {
    let config = PoolConfig::single(Server::shared(flavor).unwrap().url()).unwrap();
    Pool::connect_with(config.with_protocol(protocol)).await.unwrap().into_driver()
}

async fn on(driver: DynDriver, field: VectorField) -> RedisVectorIndex {
    let unique = unique_prefix();
    let schema = schema(&format!("idx-{unique}"), &format!("{unique}:"), field).unwrap();
    let index = RedisVectorIndex::new(driver, schema);
    index.ensure_index().await.unwrap();
    index
}

mod memory {
    use super::*;
    async fn make() -> MemoryVectorIndex {
        MemoryVectorIndex::new(schema("idx", "docs:", flat()).unwrap())
    }
    vector_index_conformance!(make);
    vector_index_conformance! { make: the_most_relevant_come_first }
}

mod redis_flat_resp2 {
    use super::*;
    async fn make() -> RedisVectorIndex {
        on(pool(Flavor::Redis, Protocol::Resp2).await, flat()).await
    }
    vector_index_conformance!(make);
    vector_index_conformance! { make: the_most_relevant_come_first }
}

mod redis_hnsw_resp3 {
    use super::*;
    async fn make() -> RedisVectorIndex {
        let field = VectorField::hnsw("v", 3, Hnsw::default());
        on(pool(Flavor::Redis, Protocol::Resp3).await, field).await
    }
    vector_index_conformance!(make);
    vector_index_conformance! { make: the_most_relevant_come_first }
}

mod fred {
    use super::*;
    async fn make() -> RedisVectorIndex {
        use ::fred::interfaces::ClientLike as _;
        let config =
            ::fred::types::config::Config::from_url(Server::shared(Flavor::Redis).unwrap().url());
        let client = ::fred::types::Builder::from_config(config.unwrap()).build().unwrap();
        client.init().await.unwrap();
        on(FredDriver::new(client).into_driver(), flat()).await
    }
    vector_index_conformance!(make);
    vector_index_conformance! { make: the_most_relevant_come_first }
}

mod valkey {
    use super::*;
    async fn make() -> RedisVectorIndex {
        on(pool(Flavor::Valkey, Protocol::Resp2).await, flat()).await
    }
    vector_index_conformance!(make);
    vector_index_conformance! { make: the_most_relevant_come_first }
}
