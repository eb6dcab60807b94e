//! A webhook authorizer without TLS on loopback that gives one response to every review, as the authorizer of a cloud
//! does for users that it does not know.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::error::OrFail as _;

/// Starts an authorizer that answers every review with this status, as `{"allowed": false}`. Returns the arguments for
/// the API server; the file that they name is written into the directory, and must outlive the server.
pub fn authorizer(directory: &Path, status: &Value) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").or_fail("listening");
    let server = format!("http://{}/authorize", listener.local_addr().or_fail("listening"));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status});
    let answer = review.to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || serve(stream, &answer));
        }
    });
    let config = directory.join("authorizer.json");
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "w",
        "clusters": [{"name": "w", "cluster": {"server": server}}], "users": [{"name": "w", "user": {}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
    });
    fs::write(&config, document.to_string()).or_fail("writing the authorizer's configuration");
    vec![
        "--authorization-webhook-version=v1".to_owned(),
        format!("--authorization-webhook-config-file={}", config.display()),
    ]
}

/// Answers the requests of one connection until it ends.
fn serve(mut stream: TcpStream, answer: &str) -> Option<()> {
    loop {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        while !is_whole(&bytes) {
            let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
            bytes.extend_from_slice(&chunk[..read]);
        }
        let length = answer.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + answer).as_bytes()).ok()?;
    }
}

/// Whether these bytes are a complete request: a head, a blank line, and a body of the announced length.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let length = |head: &str| head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok();
    text.split_once("\r\n\r\n")
        .is_some_and(|(head, _)| length(head).is_some_and(|body| bytes.len() >= head.len() + 4 + body))
}
