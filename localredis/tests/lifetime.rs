//! Servers do not outlive their owner, however it dies.
#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Starts the program and reads the address of its server.
fn owner(args: &[&str], lines: usize) -> (Child, Vec<String>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_inferkit-localredis"))
        .args(args)
        .env_remove("INFERKIT_REDIS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = child.stdout.take().expect("its output is a pipe");
    let addresses = BufReader::new(output)
        .lines()
        .take(lines)
        .map(|line| {
            let line = line.expect("its output is text");
            line.rsplit("//").next().expect("a line is not empty").to_owned()
        })
        .collect();
    (child, addresses)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.expect("there is a `kill`").success());
}

/// The data folder of the server at an address: the server itself knows it.
fn folder(address: &str) -> PathBuf {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(b"CONFIG GET dir\r\n").expect("it takes a command");
    let line = BufReader::new(stream).lines().nth(4).expect("it answers").expect("in text");
    PathBuf::from(line)
}

fn wait_until_gone(addresses: &[String], folders: &[PathBuf]) {
    let begin = Instant::now();
    loop {
        let listening = addresses.iter().filter(|address| TcpStream::connect(address).is_ok());
        let left = folders.iter().filter(|folder| folder.exists());
        let (listening, left) = (listening.count(), left.count());
        if listening + left == 0 {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{listening} servers and {left} folders are left"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn dies_with_its_owner(args: &[&str], servers: usize, name: &str) {
    let (mut child, addresses) = owner(args, servers);
    assert_eq!(addresses.len(), servers);
    let folders: Vec<_> = addresses.iter().map(|address| folder(address)).collect();
    assert!(folders.iter().all(|folder| folder.is_dir()), "{folders:?}");
    signal(&child, name);
    child.wait().expect("the owner ends");
    wait_until_gone(&addresses, &folders);
}

#[test]
fn killed_owner() {
    dies_with_its_owner(&["--flavor", "redis"], 1, "-KILL");
}

#[test]
fn interrupted_owner() {
    dies_with_its_owner(&["--flavor", "valkey"], 1, "-INT");
}

#[test]
fn killed_owner_of_five() {
    dies_with_its_owner(&["--flavor", "five"], 5, "-KILL");
}

#[test]
fn an_owner_that_exits_with_a_shared_server() {
    // The test binary itself is the owner here: run one of its neighbors that shares a server.
    let program = std::env::current_exe().expect("a test has a program");
    let output = Command::new(program)
        .args(["--exact", "shared_server_of_a_child", "--nocapture"])
        .env("INFERKIT_TEST_CHILD", "1")
        .env_remove("INFERKIT_REDIS_URL")
        .output()
        .expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let address = text
        .lines()
        .find_map(|line| line.split_once("redis://"))
        .map(|(_, address)| address.to_owned())
        .expect("the child prints its address");
    wait_until_gone(&[address], &[]);
}

/// Does its work only as the child of the test above.
#[test]
fn shared_server_of_a_child() {
    if std::env::var_os("INFERKIT_TEST_CHILD").is_some() {
        let server = inferkit_localredis::Server::shared(inferkit_localredis::Flavor::Plain);
        println!("{}", server.expect("a server starts").url());
    }
}
