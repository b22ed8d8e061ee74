//! Real servers of each flavor: they start, fail on demand and come back.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use inferkit_localredis::{Flavor, Server};

fn start(flavor: Flavor) -> Server {
    Server::builder(flavor).unix_socket(true).start().unwrap()
}

#[test]
fn redis_has_search() {
    let server = start(Flavor::Redis);
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
    assert_eq!(server.command(&["FT._LIST"]).unwrap(), "");
    assert!(server.supports_search());
    assert!(server.version().starts_with(['7', '8']), "{}", server.version());
}
