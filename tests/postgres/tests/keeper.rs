//! The server keeps its promises, above all the one to leave nothing behind.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "waits for real processes in real time")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vmetal_test_postgres::{Listen, Server};

fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_server_crashes_and_comes_back_with_its_data_and_leaves_nothing() {
    let server = Server::start(Listen::Loopback).unwrap();
    assert!(server.socket().exists());
    std::net::TcpStream::connect(("127.0.0.1", server.port().unwrap())).unwrap();
    let url = server.database();
    assert!(url.starts_with("postgres://vmetal@/test_"), "{url}");

    let first = server.pid();
    server.crash().unwrap();
    assert!(!alive(first));
    server.restart().unwrap();
    assert_ne!(server.pid(), first);
    server.stop().unwrap();
    server.restart().unwrap();
    server.new_database();

    let (directory, pid) = (server.directory().to_owned(), server.pid());
    drop(server);
    assert!(!directory.exists() && !alive(pid));
}

#[test]
#[ignore = "a helper process of the test below"]
fn child_holds_a_server() {
    if std::env::var_os("VMETAL_TEST_CHILD").is_some() {
        let server = Server::start(Listen::Socket).unwrap();
        println!("\nchild: {} {}", server.pid(), server.directory().display());
        std::thread::sleep(Duration::from_secs(600));
    }
}

#[test]
fn nothing_is_left_when_the_test_is_killed() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_holds_a_server", "--ignored", "--nocapture"])
        .env("VMETAL_TEST_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.filter_map(|line| line.strip_prefix("child: ").map(str::to_owned)).next().unwrap();
    let (pid, directory) = said.split_once(' ').unwrap();
    let (pid, directory): (u32, PathBuf) = (pid.parse().unwrap(), directory.into());
    assert!(alive(pid) && directory.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the server outlives its test", || !alive(pid));
    wait_until("the server's directory outlives its test", || !directory.exists());
}
