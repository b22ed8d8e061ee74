use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Namespace, Ttl};

/// The keys of this crate.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "ml",
        "ml:events:{<topic>:<partition>}",
        "stream",
        Ttl::Never("events stay until `trim` removes them, never before every group has them"),
        &[
            "EXISTS",
            "XADD",
            "XREADGROUP",
            "XACK",
            "XCLAIM",
            "XAUTOCLAIM",
            "XPENDING",
            "XRANGE",
            "XREVRANGE",
            "XLEN",
            "XDEL",
            "XTRIM",
            "XGROUP|CREATE",
            "XGROUP|DELCONSUMER",
            "XINFO|GROUPS",
            "XINFO|STREAM",
            "XINFO|CONSUMERS",
            "MEMORY|USAGE",
            "EVALSHA",
            "EVAL",
            "TIME",
        ],
    ),
    KeyFamily::new(
        "ml",
        "ml:events:{<topic>:<partition>}:dead",
        "stream",
        Ttl::Never("the last 10 000 dead letters, about, until they are taken back or purged"),
        &["XADD", "XRANGE", "XDEL", "XLEN"],
    ),
    KeyFamily::new(
        "ml",
        "ml:events:{<topic>:<partition>}:ids",
        "zset",
        Ttl::Always("10 minutes from the last event that was published once"),
        &["ZADD", "ZREMRANGEBYSCORE", "PEXPIRE"],
    ),
    KeyFamily::new(
        "ml",
        "ml:events:{<topic>:<partition>}:floors",
        "hash",
        Ttl::Never("how far each group has come, for when its stream is lost"),
        &["HGET", "HSET", "HSETNX"],
    ),
    KeyFamily::new(
        "ml",
        "ml:events:{<topic>:<partition>}:delay:<group>",
        "zset",
        Ttl::Always("a day after the last retry was put off"),
        &["ZADD", "ZREM", "ZSCORE", "ZRANGEBYSCORE", "PEXPIRE"],
    ),
    KeyFamily::new(
        "ml",
        "ml:workers:{<topic>}:<group>",
        "zset",
        Ttl::Always("a minute after the last consumer was heard of"),
        &["ZADD", "ZREM", "ZREMRANGEBYSCORE", "ZCARD", "PEXPIRE"],
    ),
];

/// The beginning of a partition's keys, which share a slot.
pub(crate) fn partition(namespace: &Namespace, topic: &str, partition: u16) -> KeyBuilder {
    let number = partition.to_string();
    namespace.family("ml").literal("events").tag_of([topic.as_bytes(), number.as_bytes()])
}

pub(crate) fn workers(namespace: &Namespace, topic: &str, group: &str) -> Key {
    namespace.family("ml").literal("workers").tag(topic).part(group).build()
}
