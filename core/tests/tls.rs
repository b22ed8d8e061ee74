//! The driver suite over TLS. Needs a server that was built with TLS, so it runs with the feature `tls` only.
#![cfg(feature = "tls")]
#![expect(clippy::unused_async, clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use inferkit_core::{Cmd, DriverExt as _, ErrorKind, Pool, PoolConfig, driver_conformance};
use inferkit_localredis::{Flavor, Server, unique_prefix};

async fn make() -> (Pool, String) {
    let server = Server::shared(Flavor::Tls).unwrap();
    let ca = std::fs::read(server.ca_certificate().unwrap()).unwrap();
    let config = PoolConfig::single(server.url()).unwrap().with_ca_certificate(ca);
    (Pool::new(config.with_timeout(Duration::from_secs(10))), unique_prefix())
}

driver_conformance!(make);

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused() {
    let server = Server::shared(Flavor::Tls).unwrap();
    let pool = Pool::new(PoolConfig::single(server.url()).unwrap());
    let error = pool.query::<()>(Cmd::new("PING")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("with_ca_certificate"), "{error}");
    assert!(!error.is_transient() && !error.maybe_applied());
}
