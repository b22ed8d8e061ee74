//! Each crate's suite, as a user who may do what the crate's key table says; and what such a user may not.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, ErrorKind, Pool, PoolConfig};
use inferkit::users::{self, User};
use inferkit_localredis::{Flavor, Server, unique_prefix};

async fn pool(url: &str) -> Pool {
    let config = PoolConfig::single(url).unwrap().with_timeout(Duration::from_secs(10));
    Pool::connect_with(config).await.unwrap()
}

async fn default_user() -> Pool {
    pool(Server::shared(Flavor::Redis).unwrap().url()).await
}

/// A pool of the user, who is made on the shared server under a name of its own.
async fn pool_of(mut user: User) -> Pool {
    let name = unique_prefix();
    user.name.clone_from(&name);
    default_user().await.query::<()>(user.to_cmd("secret")).await.unwrap();
    let url = Server::shared(Flavor::Redis).unwrap().url();
    pool(&url.replace("redis://", &format!("redis://{name}:secret@"))).await
}

fn namespace() -> Namespace {
    Namespace::new(&unique_prefix()).unwrap()
}

fn user(name: &str, namespace: &Namespace) -> User {
    users::runtime(namespace).into_iter().find(|user| user.name == name).unwrap()
}

async fn driver(name: &str, namespace: &Namespace) -> DynDriver {
    pool_of(user(name, namespace)).await.into_driver()
}

mod ratelimit {
    use super::*;
    use inferkit::ratelimit::{Instances, RedisRateLimiter};
    use inferkit_ratelimit::rate_limiter_conformance;
    async fn make() -> RedisRateLimiter {
        let namespace = namespace();
        RedisRateLimiter::with_namespace(driver("ratelimit", &namespace).await, namespace)
    }
    rate_limiter_conformance!(make);

    mod queue {
        use super::*;
        use inferkit::ratelimit::{RedisSlotQueue, SlotPool, SlotQueue};
        use inferkit_ratelimit::slot_queue_conformance;
        async fn make(pool: SlotPool) -> Arc<dyn SlotQueue> {
            let namespace = namespace();
            let connection = pool_of(user("ratelimit", &namespace)).await;
            let connect = Arc::new(connection.clone());
            let driver = connection.into_driver();
            let queue = RedisSlotQueue::new(driver, connect, &namespace, pool);
            tokio::spawn(queue.run());
            Arc::new(queue)
        }
        slot_queue_conformance!(make);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn instances_are_counted() {
        let namespace = namespace();
        let driver = driver("ratelimit", &namespace).await;
        let make = || Instances::counted(Arc::clone(&driver), &namespace, "s").unwrap();
        let (one, two) = (make(), make());
        let mut runs = Vec::new();
        for instances in [&one, &two] {
            runs.push(tokio::spawn(instances.run()));
        }
        let begun = std::time::Instant::now();
        while one.count().max(two.count()) != 2 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (instances, run) in [one, two].into_iter().zip(runs) {
            instances.leave().await.unwrap();
            run.await.unwrap();
        }
    }
}

mod chatsession {
    use super::*;
    use inferkit::chatsession::RedisSessionStore;
    use inferkit_chatsession::{conformance, session_store_conformance};
    async fn make() -> RedisSessionStore {
        let namespace = namespace();
        let driver = driver("chatsession", &namespace).await;
        let config = conformance::config().with_namespace(namespace);
        RedisSessionStore::new(driver, config).unwrap()
    }
    session_store_conformance!(make);
}

mod featurestore {
    use super::*;
    use inferkit::featurestore::RedisFeatureStore;
    use inferkit_featurestore::feature_store_conformance;
    async fn make() -> RedisFeatureStore {
        let namespace = namespace();
        RedisFeatureStore::new(driver("featurestore", &namespace).await, namespace)
    }
    feature_store_conformance!(make);
}

mod mlevents {
    use super::*;
    use inferkit::mlevents::RedisEventBus;
    use inferkit_mlevents::event_bus_conformance;
    async fn make() -> RedisEventBus {
        let namespace = namespace();
        let pool = pool_of(user("mlevents", &namespace)).await;
        let connect = Arc::new(pool.clone());
        RedisEventBus::new(pool.into_driver(), namespace).with_connect(connect)
    }
    event_bus_conformance!(make);
}

mod registry {
    use super::*;
    use inferkit::modelserve::RedisModelRegistry;
    use inferkit_modelserve::model_registry_conformance;
    async fn make() -> RedisModelRegistry {
        let namespace = namespace();
        RedisModelRegistry::new(driver("modelserve", &namespace).await, namespace)
    }
    model_registry_conformance!(make);
}

mod router {
    use super::*;
    use inferkit::modelserve::RedisModelRouter;
    use inferkit_modelserve::model_router_conformance;
    async fn make() -> RedisModelRouter {
        let namespace = namespace();
        RedisModelRouter::new(driver("modelserve", &namespace).await, namespace)
    }
    model_router_conformance!(make);
}

mod results {
    use super::*;
    use inferkit::modelserve::RedisResultCache;
    use inferkit_modelserve::result_cache_conformance;
    async fn make() -> RedisResultCache {
        let namespace = namespace();
        RedisResultCache::new(driver("modelserve", &namespace).await, namespace)
    }
    result_cache_conformance!(make);
}

mod embcache {
    use super::*;
    use inferkit::embcache::RedisEmbeddingCache;
    use inferkit_embcache::embedding_cache_conformance;
    async fn make() -> RedisEmbeddingCache {
        let namespace = namespace();
        RedisEmbeddingCache::new(driver("embcache", &namespace).await, namespace)
    }
    embedding_cache_conformance!(make);
}

/// The index is made by the user for that.
mod semcache {
    use super::*;
    use inferkit::semcache::{Config, RedisSemanticCache};
    use inferkit_semcache::conformance::{Compass, policy};
    use inferkit_semcache::semantic_cache_conformance;
    async fn make() -> RedisSemanticCache {
        let namespace = namespace();
        let config = Config::new().with_namespace(namespace.clone()).with_policy(policy());
        let over = |driver| {
            RedisSemanticCache::new(driver, Arc::new(Compass::default()), config.clone()).unwrap()
        };
        let admin = over(pool_of(users::admin()).await.into_driver());
        assert!(admin.ensure_index().await.unwrap());
        let cache = over(driver("semcache", &namespace).await);
        assert!(!cache.ensure_index().await.unwrap(), "it is there, and may be looked at");
        cache
    }
    semantic_cache_conformance!(make);
}

mod vectorsearch {
    use super::*;
    use inferkit::vectorsearch::{RedisVectorIndex, VectorField};
    use inferkit_vectorsearch::conformance::schema;
    use inferkit_vectorsearch::vector_index_conformance;
    async fn make() -> RedisVectorIndex {
        let unique = unique_prefix();
        let (index, prefix) = (format!("idx-{unique}"), format!("{unique}:"));
        let schema = schema(&index, &prefix, VectorField::flat("v", 3)).unwrap();
        let admin = pool_of(users::admin()).await.into_driver();
        RedisVectorIndex::new(admin, schema.clone()).ensure_index().await.unwrap();
        let user = user("vectorsearch", &Namespace::default()).with_index(&prefix, &index);
        RedisVectorIndex::new(pool_of(user).await.into_driver(), schema)
    }
    vector_index_conformance!(make);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_beyond_its_own_keys_or_changes_an_index() {
    let ours = namespace();
    for user in users::runtime(&ours) {
        let name = user.name.clone();
        let driver = pool_of(user).await.into_driver();
        let refused = |cmd: Cmd| {
            let driver = Arc::clone(&driver);
            async move { driver.query::<()>(cmd).await.unwrap_err().kind() }
        };
        for cmd in [
            Cmd::new("SET").key("other").arg("1"),
            Cmd::new("GET").key("other"),
            Cmd::new("HGETALL").key("other"),
            Cmd::new("FLUSHALL"),
            Cmd::new("KEYS").arg("*"),
            Cmd::new("CONFIG").args(["GET", "*"]),
            Cmd::new("ACL").arg("LIST"),
            Cmd::new("FT.CREATE").key("i").args(["SCHEMA", "a", "TEXT"]),
            Cmd::new("FT.DROPINDEX").key("i"),
            Cmd::new("FT.ALIASADD").key("a").arg("i"),
        ] {
            let shown = format!("{cmd:?}");
            assert_eq!(refused(cmd).await, ErrorKind::Auth, "{name} {shown}");
        }
    }
    let admin = pool_of(users::admin()).await.into_driver();
    for cmd in [Cmd::new("HGETALL").key("other"), Cmd::new("DEL").key("other")] {
        assert_eq!(admin.query::<()>(cmd).await.unwrap_err().kind(), ErrorKind::Auth);
    }
}

/// The files of `deploy/` are what the tables say; with `INFERKIT_WRITE_DEPLOY` they are written.
#[test]
fn the_files_of_users_are_made_from_the_tables() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let mut all = users::runtime(&Namespace::default());
    all.push(users::admin());
    for deployment in inferkit::core::Deployment::ALL {
        let mut text = format!(
            "# Users of the deployment `{deployment}`, made from the key tables of the crates; see README.md.\n\
             user default off\n"
        );
        for user in all.iter().filter(|user| user.deployments.contains(&deployment)) {
            text.push_str(&format!("{user}\n"));
        }
        let path = format!("{folder}/{deployment}.users.acl");
        if std::env::var_os("INFERKIT_WRITE_DEPLOY").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, text, "{path}: run this test with INFERKIT_WRITE_DEPLOY=1");
    }
}
