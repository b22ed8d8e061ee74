//! A server behind TLS; needs a redis-server that was built with it, hence the feature `interop`.

use std::process::Command;

use inferkit_localredis::{Flavor, Server};

#[test]
fn tls_is_spoken_with_our_certificate() {
    let server = Server::start(Flavor::Tls).unwrap();
    assert!(server.url().starts_with("rediss://127.0.0.1:"), "{}", server.url());
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
    let authority = server.ca_certificate().unwrap().to_owned();
    assert!(std::fs::read_to_string(&authority).unwrap().contains("BEGIN CERTIFICATE"));

    let (host, port) = server.address();
    for name in ["-verify_ip=127.0.0.1", "-verify_hostname=localhost"] {
        let (option, value) = name.split_once('=').unwrap();
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("{host}:{port}"), "-CAfile"])
            .arg(&authority)
            .args(["-verify_return_error", option, value])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    }

    server.restart().unwrap();
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
}
