//! The suite in memory, on Redis through redis-rs and through fred, on Valkey and on a cluster.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use inferkit_chatsession::{
    MemorySessionStore, RedisSessionStore, conformance, session_store_conformance,
};
use inferkit_localredis::{Flavor, Server};

mod memory {
    use super::*;
    async fn make() -> MemorySessionStore {
        MemorySessionStore::new(conformance::config()).unwrap()
    }
    session_store_conformance!(make);
}

mod redis_rs {
    use super::*;
    async fn make() -> RedisSessionStore {
        support::on_pool(Flavor::Redis).await
    }
    session_store_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisSessionStore {
        support::over(support::fred(Server::shared(Flavor::Redis).unwrap().url()).await)
    }
    session_store_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisSessionStore {
        support::on_pool(Flavor::Valkey).await
    }
    session_store_conformance!(make);
}

mod cluster {
    use super::*;
    async fn make() -> RedisSessionStore {
        support::over(support::cluster().await)
    }
    session_store_conformance!(make);
}
