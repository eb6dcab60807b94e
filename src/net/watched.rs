//! A stream that records the TLS alert with which the peer ended the connection: HTTP/2 reports only a broken connection,
//! and with TLS 1.3 a server rejects a missing client certificate after the handshake.

use std::{
    io::Error as IoError,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

use crate::net::tls::Witness;

/// A byte stream with a record of how its TLS session ended.
pub(crate) struct Watched<S> {
    stream: S,
    witness: Witness,
}

impl<S> Watched<S> {
    /// Wraps this stream.
    pub(crate) const fn new(stream: S, witness: Witness) -> Self {
        Self { stream, witness }
    }
}

impl<S: Unpin> Watched<S> {
    fn inner(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    fn note<T>(&self, outcome: Poll<Result<T, IoError>>) -> Poll<Result<T, IoError>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.witness.saw(error);
        }
        outcome
    }
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<(), IoError>> {
        let outcome = self.inner().poll_read(context, buffer);
        self.note(outcome)
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, IoError>> {
        let outcome = self.inner().poll_write(context, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize, IoError>> {
        let outcome = self.inner().poll_write_vectored(context, bytes);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        let outcome = self.inner().poll_flush(context);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        self.inner().poll_shutdown(context)
    }
}
