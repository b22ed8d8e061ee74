use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Namespace, Ttl};

/// What the fields of aliases begin with, in the hash of a model.
pub(crate) const ALIAS: &str = "alias:";

/// The keys of this crate.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "model",
        "model:registry:{<model>}",
        "hash",
        Ttl::Never("a registry is kept until it is removed"),
        &["EVALSHA", "EVAL", "HGETALL", "HGET", "HSET", "HDEL", "HINCRBY", "HMGET"],
    ),
    KeyFamily::new(
        "model",
        "model:registry:{<model>}:version:<version>",
        "hash",
        Ttl::Never("versions are never changed or lost"),
        &["HGETALL", "HGET", "HSET", "EXISTS", "TIME"],
    ),
    KeyFamily::new(
        "model",
        "model:registry:{<model>}:audit",
        "stream",
        Ttl::Never("the last thousand changes, about"),
        &["XADD", "XREVRANGE"],
    ),
    KeyFamily::new(
        "ab",
        "ab:experiment:<name>",
        "hash",
        Ttl::Never("an experiment lives until it is removed"),
        &["EVALSHA", "EVAL", "HGETALL", "HGET", "HSET", "DEL", "TIME"],
    ),
    KeyFamily::new(
        "flag",
        "flag:<name>",
        "hash",
        Ttl::Never("a flag lives until it is removed"),
        &["EVALSHA", "EVAL", "HGETALL", "HGET", "HSET", "DEL", "TIME"],
    ),
    KeyFamily::new(
        "ab",
        "ab:index",
        "hash",
        Ttl::Never("the names of all experiments and flags"),
        &["HGETALL", "HINCRBY", "HDEL"],
    ),
    KeyFamily::new(
        "ab",
        "ab:changes",
        "stream",
        Ttl::Never("the last hundred changes, about"),
        &["XADD", "XREAD", "XREVRANGE"],
    ),
    KeyFamily::new(
        "ab",
        "ab:sticky:<attribute>:<unit>",
        "hash",
        Ttl::Always("as the caller sets it, from the last use"),
        &["EVALSHA", "EVAL", "HGET", "HSET", "PTTL", "PEXPIRE"],
    ),
    KeyFamily::new(
        "ab",
        "ab:outcome:<experiment>:<revision>",
        "hash",
        Ttl::Always("30 days from the last outcome"),
        &["EVALSHA", "EVAL", "HGETALL", "HINCRBY", "HSETNX", "PEXPIRE", "TIME"],
    ),
    KeyFamily::new(
        "rec",
        "rec:user:{<user>}:context:<context>",
        "string",
        Ttl::Always("5 minutes, and as long again to be served while it is made anew"),
        &["GET", "EVALSHA", "EVAL", "SET", "TIME", "DEL"],
    ),
    KeyFamily::new(
        "rec",
        "rec:user:{<user>}:precomputed",
        "string",
        Ttl::Always("an hour, and as long again"),
        &["GET", "EVALSHA", "EVAL", "SET", "TIME", "DEL"],
    ),
    KeyFamily::new(
        "rec",
        "rec:user:{<user>}:preferences",
        "string",
        Ttl::Always("an hour, and as long again"),
        &["GET", "EVALSHA", "EVAL", "SET", "TIME", "DEL"],
    ),
    KeyFamily::new(
        "rec",
        "rec:popular:{<category>}",
        "zset",
        Ttl::Always("10 minutes"),
        &["ZREVRANGE", "MULTI", "EXEC", "ZADD", "DEL", "PEXPIRE", "TIME"],
    ),
];

/// The beginning of the keys of a model, which share a slot.
pub(crate) fn model(namespace: &Namespace, model: &str) -> KeyBuilder {
    namespace.family("model").literal("registry").tag(model)
}

pub(crate) fn experiment(namespace: &Namespace, name: &str) -> Key {
    namespace.family("ab").literal("experiment").part(name).build()
}

pub(crate) fn flag(namespace: &Namespace, name: &str) -> Key {
    namespace.family("flag").part(name).build()
}
