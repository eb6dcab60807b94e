//! Distant, silent and absent servers, and wrong CAs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testbed::{ControlPlane, DistantServer, RefusedPort, RoundTripGate, SilentServer, WrongCa};

/// A server that answers every byte with a byte.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || std::io::copy(&mut stream.as_ref().unwrap(), &mut stream.as_ref().unwrap()));
        }
    });
    format!("https://{address}")
}

fn connect(server: &str) -> TcpStream {
    TcpStream::connect(server.strip_prefix("https://").unwrap()).unwrap()
}

fn send_and_receive(stream: &mut TcpStream) {
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn concurrent_requests_count_as_one_round_trip() {
    let gate = RoundTripGate::in_front_of(&echo());
    let (mut one, mut two) = (connect(&gate.server()), connect(&gate.server()));
    send_and_receive(&mut one);
    send_and_receive(&mut one);
    assert_eq!(gate.round_trips(), 2, "one after the other");
    one.write_all(b"x").unwrap();
    two.write_all(b"xy").unwrap();
    one.read_exact(&mut [0]).unwrap();
    two.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(gate.round_trips(), 3, "at once, over two connections");
    drop((one, two));
    thread::sleep(Duration::from_millis(200));
    assert_eq!((gate.round_trips(), gate.connections()), (3, 2), "closing the connection is no round trip");
}

#[test]
fn delay_applies_once_per_round_trip() {
    let distant = DistantServer::in_front_of(&echo(), Duration::from_millis(300));
    let start = Instant::now();
    let mut stream = connect(&distant.server());
    send_and_receive(&mut stream);
    let first = start.elapsed();
    assert!((600..900).contains(&first.as_millis()), "the connection and a round trip: {first:?}");
    let start = Instant::now();
    stream.write_all(b"xxxx").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    let second = start.elapsed();
    assert!((300..600).contains(&second.as_millis()), "a round trip: {second:?}");
}

#[test]
fn silent_server_and_refused_port_never_answer() {
    let mut stream = connect(&SilentServer::start().server());
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.write_all(b"hello?").unwrap();
    assert!(stream.read(&mut [0]).is_err(), "neither an answer nor the end");
    assert!(TcpStream::connect(RefusedPort.server().strip_prefix("https://").unwrap()).is_err());
}

#[test]
fn wrong_ca_is_rejected_by_kubectl() {
    let control_plane = ControlPlane::shared();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = control_plane.admin().kubeconfig(directory.path());
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&kubeconfig).unwrap()).unwrap();
    config["clusters"][0]["cluster"]["certificate-authority-data"] = json!(WrongCa::new().base64());
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let answer = control_plane.kubectl(&kubeconfig, &["get", "--raw", "/version"]);
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(!answer.status.success() && said.contains("certificate signed by unknown authority"), "{said}");
}
