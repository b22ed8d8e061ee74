//! Real servers of each flavor: they start, fail on demand and come back.
#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use inferkit_localredis::{Error, Flavor, Server, unique_prefix};

/// A connection of a client's, to see what faults do to it.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout can be set");
    stream
}

fn ping(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.write_all(b"PING\r\n")?;
    stream.read(&mut [0; 64])
}

#[test]
fn redis_has_search() {
    let server = Server::shared(Flavor::Redis).unwrap();
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
    assert!(server.command(&["FT._LIST"]).is_ok());
    assert!(server.supports_search());
    assert!(server.version().starts_with(['7', '8']), "{}", server.version());
    assert!(std::ptr::eq(server, Server::shared(Flavor::Redis).unwrap()));
}

#[test]
fn valkey_has_search() {
    let server = Server::start(Flavor::Valkey).unwrap();
    assert!(server.command(&["INFO", "server"]).unwrap().contains("valkey_version:"));
    assert!(server.command(&["FT._LIST"]).is_ok());
    assert!(server.supports_search() && !server.is_external());
}

#[test]
fn plain_has_no_search() {
    let server = Server::builder(Flavor::Plain).config("maxmemory", "100mb").start().unwrap();
    assert_eq!(server.command(&["CONFIG", "GET", "maxmemory"]).unwrap(), "maxmemory\n104857600");
    assert!(!server.supports_search());
    let refused = server.command(&["FT._LIST"]).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
}

#[test]
fn a_port_can_be_chosen_and_is_not_shared() {
    let first = Server::builder(Flavor::Plain).config("maxclients", "50").start().unwrap();
    let clash = Server::builder(Flavor::Plain).port(first.port()).start().unwrap_err();
    assert!(clash.to_string().contains("the end of its log"), "{clash}");
    let port = first.port();
    drop(first);
    let second = Server::builder(Flavor::Plain).port(port).start().unwrap();
    assert_eq!(second.url(), format!("redis://127.0.0.1:{port}"));
}

#[test]
fn a_bad_setting_is_told_with_the_log() {
    let error =
        Server::builder(Flavor::Plain).config("maxmemory-policy", "whatever").start().unwrap_err();
    assert!(matches!(error, Error::Start { .. }));
    assert!(error.to_string().contains("maxmemory-policy"), "{error}");
}

#[test]
fn a_password_and_a_socket() {
    let server = Server::builder(Flavor::Plain).password("p@ss").unix_socket(true).start().unwrap();
    assert!(server.url().starts_with("redis://:p%40ss@127.0.0.1:"), "{}", server.url());
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
    let mut stranger = connect(&server);
    stranger.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    stranger.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"-NOAUTH");

    let url = server.unix_url().unwrap();
    let path = url.strip_prefix("unix://").unwrap().split('?').next().unwrap();
    assert!(UnixStream::connect(path).is_ok());
}

#[test]
fn a_durable_server_keeps_data_over_kill_and_restart() {
    let server = Server::builder(Flavor::Plain).durable().start().unwrap();
    let (key, url) = (unique_prefix(), server.url().to_owned());
    server.command(&["SET", &key, "kept"]).unwrap();
    server.kill().unwrap();
    assert!(matches!(server.command(&["PING"]), Err(Error::NoAnswer { .. })));
    assert_eq!(server.process_id(), None);
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", &key]).unwrap(), "kept");
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", &key]).unwrap(), "kept");
    assert_eq!(server.url(), url);
}

#[test]
fn another_server_forgets_at_a_restart() {
    let server = Server::builder(Flavor::Plain).config("maxclients", "50").start().unwrap();
    server.command(&["SET", "key", "lost"]).unwrap();
    server.restart().unwrap();
    assert_eq!(server.command(&["EXISTS", "key"]).unwrap(), "0");
}

#[test]
fn a_paused_server_holds_its_connections() {
    let server = Server::builder(Flavor::Plain).config("maxclients", "50").start().unwrap();
    let mut client = connect(&server);
    assert_ne!(ping(&mut client).unwrap(), 0);
    server.pause().unwrap();
    assert!(ping(&mut client).is_err(), "a paused server does not answer");
    server.resume().unwrap();
    let begin = Instant::now();
    while client.read(&mut [0; 64]).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the answer comes after all");
    }
    // A paused server can be stopped too.
    server.pause().unwrap();
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn clients_are_cut_off() {
    let server = Server::builder(Flavor::Plain).config("maxclients", "50").start().unwrap();
    let mut clients = [connect(&server), connect(&server)];
    for client in &mut clients {
        assert_ne!(ping(client).unwrap(), 0);
    }
    assert_eq!(server.kill_clients().unwrap(), 2);
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 64]).unwrap_or_default(), 0);
    }
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
}

#[test]
fn prefixes_differ() {
    let prefixes: std::collections::HashSet<_> = (0..1000).map(|_| unique_prefix()).collect();
    assert_eq!(prefixes.len(), 1000);
}
