//! TCP relays in front of a server. TLS is passed through, so that they see the whole conversation, handshakes
//! included. One counts round trips, the other delays every byte.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::error::{OrFail, fail};

/// The silence after which held bytes are released. Longer than any pause of a program that still has something to
/// send, and than the server needs for one of several responses.
const SILENCE: Duration = Duration::from_millis(50);

/// Counts the round trips of a program: everything a server sends is held until both sides have been silent for a
/// while, then all of it is released at once, over all connections, as one round trip. Concurrent requests thus count
/// once, sequential ones count each. A TLS handshake counts; the opening of a TCP connection does not (see
/// [`RoundTripGate::connections`]).
#[derive(Debug)]
pub struct RoundTripGate {
    listener: Listener,
    state: Arc<Mutex<Gate>>,
}

#[derive(Debug)]
struct Gate {
    held: Vec<Held>,
    moved: Instant,
    round_trips: usize,
    connections: usize,
}

/// Bytes for a client; none is the end of the stream.
#[derive(Debug)]
struct Held(Arc<TcpStream>, Vec<u8>);

impl RoundTripGate {
    /// Listens on a free port, and relays to `server` (`https://127.0.0.1:<port>`).
    #[must_use]
    pub fn in_front_of(server: &str) -> Self {
        let state =
            Arc::new(Mutex::new(Gate { held: Vec::new(), moved: Instant::now(), round_trips: 0, connections: 0 }));
        let shared = Arc::clone(&state);
        let listener = Listener::start(server, move |client, upstream| {
            locked(&shared).connections += 1;
            let (shared, client) = (Arc::clone(&shared), Arc::new(client));
            gate_one(&shared, &client, upstream);
        });
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&listener.stopped));
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                release(&mut locked(&shared));
                sleep(Duration::from_millis(1));
            }
        });
        Self { listener, state }
    }

    /// The URL of the gate: `https://127.0.0.1:<port>`.
    pub fn server(&self) -> String {
        self.listener.server()
    }

    /// Round trips so far.
    pub fn round_trips(&self) -> usize {
        locked(&self.state).round_trips
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        locked(&self.state).connections
    }
}

/// Both directions of one connection: requests at once, responses into the hold.
fn gate_one(state: &Arc<Mutex<Gate>>, client: &Arc<TcpStream>, upstream: TcpStream) {
    let Ok(up) = upstream.try_clone() else { return };
    let (shared, from) = (Arc::clone(state), Arc::clone(client));
    thread::spawn(move || {
        pump(&from, |bytes| {
            locked(&shared).moved = Instant::now();
            (&up).write_all(bytes).is_ok()
        });
        let _ = up.shutdown(Shutdown::Write);
    });
    let (shared, to) = (Arc::clone(state), Arc::clone(client));
    thread::spawn(move || {
        let hold = |bytes: &[u8]| {
            let mut state = locked(&shared);
            state.moved = Instant::now();
            state.held.push(Held(Arc::clone(&to), bytes.to_vec()));
            true
        };
        pump(&upstream, hold);
        hold(&[]);
    });
}

fn release(gate: &mut Gate) {
    if gate.held.is_empty() || gate.moved.elapsed() < SILENCE {
        return;
    }
    let held = std::mem::take(&mut gate.held);
    // A server that only closes the connection, after the last response, is no round trip.
    gate.round_trips += usize::from(held.iter().any(|Held(_, bytes)| !bytes.is_empty()));
    gate.moved = Instant::now();
    for Held(client, bytes) in held {
        let _ = if bytes.is_empty() { client.shutdown(Shutdown::Write) } else { (&*client).write_all(&bytes) };
    }
}

/// A distant server: every byte arrives half a round trip later, and a connection is open after a whole one.
#[derive(Debug)]
pub struct DistantServer {
    listener: Listener,
}

impl DistantServer {
    /// Listens on a free port, and relays to `server` with this round trip time.
    #[must_use]
    pub fn in_front_of(server: &str, round_trip: Duration) -> Self {
        let listener = Listener::start(server, move |client, upstream| {
            let (Ok(down), Ok(up)) = (client.try_clone(), upstream.try_clone()) else { return };
            let half = round_trip / 2;
            // The kernel has already accepted the connection; the client's first bytes are delayed by a round trip
            // instead.
            let open = Instant::now() + round_trip;
            thread::spawn(move || delay(&client, &up, half, open));
            thread::spawn(move || delay(&upstream, &down, half, open));
        });
        Self { listener }
    }

    /// The URL of the relay: `https://127.0.0.1:<port>`.
    pub fn server(&self) -> String {
        self.listener.server()
    }
}

fn delay(from: &TcpStream, mut to: &TcpStream, by: Duration, open: Instant) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (due, bytes) in receiver {
                sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        pump(from, |bytes| sender.send((Instant::now().max(open) + by, bytes.to_vec())).is_ok());
        drop(sender);
    });
}

/// Passes on the bytes of a stream until it ends or `to` returns false.
fn pump(from: &TcpStream, mut to: impl FnMut(&[u8]) -> bool) {
    let mut from = from;
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !to(&buffer[..length]) {
            break;
        }
    }
}

/// A listening port that opens a connection to the server for each accepted one.
#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Listener {
    fn start(server: &str, serve: impl Fn(TcpStream, TcpStream) + Send + 'static) -> Self {
        let server = authority(server).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").or_fail("opening a relay");
        let address = listener.local_addr().or_fail("opening a relay");
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // If a client cannot be served, its connection is closed, as the server itself would do.
                let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(&server)) else { continue };
                let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
                serve(client, upstream);
            }
        });
        Self { address, stopped }
    }

    fn server(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the accepting thread
    }
}

/// `127.0.0.1:<port>` of `https://127.0.0.1:<port>`.
fn authority(server: &str) -> &str {
    match server.split_once("://") {
        Some((_, rest)) => rest.split('/').next().unwrap_or(rest),
        None => fail(format_args!("{server} is no URL")),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
