//! The suite that every [`EmbeddingCache`] passes; list it with [`embedding_cache_conformance!`](crate::embedding_cache_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]

use std::time::Duration;

use bytes::Bytes;

use crate::{EmbeddingCache, EmbeddingKey};

const LONG: Duration = Duration::from_secs(600);

/// Names a test per case; `$make` is an `async fn` that returns an empty cache.
#[macro_export]
macro_rules! embedding_cache_conformance {
    ($make:path) => {
        $crate::embedding_cache_conformance! { $make:
            values_come_back_in_order, keys_are_kept_apart, a_value_can_be_replaced,
            nothing_asked_is_nothing_done, a_time_of_nothing_is_refused, values_expire,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

/// Answers stand in the order of the keys, also where some are missing or asked twice.
pub async fn values_come_back_in_order(cache: &dyn EmbeddingCache) {
    let key = |text: &str| EmbeddingKey::new(1, "m", text);
    let values = [(key("a"), Bytes::from("A")), (key("b"), Bytes::from(&b"\0\xff\r\n"[..]))];
    cache.put_many(&values, LONG).await.unwrap();
    let found = cache.get_many(&[key("b"), key("none"), key("a"), key("b")]).await.unwrap();
    let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [Some(&b"\0\xff\r\n"[..]), None, Some(b"A"), Some(b"\0\xff\r\n")]);
}

/// Model, version and text each make another key, whatever the model is called.
pub async fn keys_are_kept_apart(cache: &dyn EmbeddingCache) {
    let keys = [
        EmbeddingKey::new(1, "m", "text"),
        EmbeddingKey::new(2, "m", "text"),
        EmbeddingKey::new(1, "M", "text"),
        EmbeddingKey::new(1, "m:{x}*", "text"),
        EmbeddingKey::new(1, "m", "Text"),
        EmbeddingKey::new(1, "m", ""),
    ];
    for (number, key) in keys.iter().enumerate() {
        cache.put_many(&[(key.clone(), number.to_string().into())], LONG).await.unwrap();
    }
    let found = cache.get_many(&keys).await.unwrap();
    for (number, value) in found.into_iter().enumerate() {
        assert_eq!(value.unwrap(), number.to_string().into_bytes());
    }
}

/// The last value counts.
pub async fn a_value_can_be_replaced(cache: &dyn EmbeddingCache) {
    let key = EmbeddingKey::new(1, "m", "replaced");
    for value in ["old", "new"] {
        cache.put_many(&[(key.clone(), value.into())], LONG).await.unwrap();
    }
    assert_eq!(cache.get_many(&[key]).await.unwrap(), [Some(Bytes::from("new"))]);
}

/// No keys and no entries are no error.
pub async fn nothing_asked_is_nothing_done(cache: &dyn EmbeddingCache) {
    assert!(cache.get_many(&[]).await.unwrap().is_empty());
    cache.put_many(&[], LONG).await.unwrap();
}

/// What would expire at once, or never, is refused.
pub async fn a_time_of_nothing_is_refused(cache: &dyn EmbeddingCache) {
    let key = EmbeddingKey::new(1, "m", "ttl");
    for ttl in [Duration::ZERO, Duration::from_micros(999), Duration::MAX] {
        assert!(cache.put_many(&[(key.clone(), "x".into())], ttl).await.is_err());
    }
    assert_eq!(cache.get_many(&[key]).await.unwrap(), [None]);
}

/// A value is gone after its time.
pub async fn values_expire(cache: &dyn EmbeddingCache) {
    let key = EmbeddingKey::new(1, "m", "short");
    cache.put_many(&[(key.clone(), "x".into())], Duration::from_millis(30)).await.unwrap();
    let start = std::time::Instant::now();
    while cache.get_many(std::slice::from_ref(&key)).await.unwrap() != [None] {
        assert!(start.elapsed() < Duration::from_secs(10), "it never expired");
        std::thread::sleep(Duration::from_millis(5));
    }
}
