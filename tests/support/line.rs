//! One side of a connection, plain or under TLS, read line by line and never further than asked.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection, StreamOwned};

enum Stream {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
    Gone,
}

/// A connection with its read buffer.
pub struct Line {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Line {
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Line { stream: Stream::Plain(stream), buffer: Vec::new() }
    }

    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Plain(s) => Some(s),
            Stream::Client(s) => Some(&s.sock),
            Stream::Server(s) => Some(&s.sock),
            Stream::Gone => None,
        }
    }

    pub fn timeout(&self, timeout: Duration) {
        if let Some(socket) = self.socket() {
            let _ = socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))));
            let _ = socket.set_write_timeout(Some(Duration::from_secs(60)));
        }
    }

    /// TLS as the client, from here on.
    pub fn tls_as_client(&mut self, config: Arc<rustls::ClientConfig>, name: &str) -> io::Result<()> {
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::Error::other("already under TLS"));
        };
        let name = name.to_owned().try_into().map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = Box::new(StreamOwned::new(connection, socket));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        self.stream = Stream::Client(stream);
        self.buffer.clear();
        Ok(())
    }

    /// TLS as the server, from here on.
    pub fn tls_as_server(&mut self, config: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::Error::other("already under TLS"));
        };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = Box::new(StreamOwned::new(connection, socket));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        self.stream = Stream::Server(stream);
        self.buffer.clear();
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(s) => s.write_all(bytes),
            Stream::Client(s) => s.write_all(bytes).and_then(|()| s.flush()),
            Stream::Server(s) => s.write_all(bytes).and_then(|()| s.flush()),
            Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads once; 0 at the end.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 65_536];
        let n = match &mut self.stream {
            Stream::Plain(s) => s.read(&mut chunk),
            Stream::Client(s) => s.read(&mut chunk),
            Stream::Server(s) => s.read(&mut chunk),
            Stream::Gone => Ok(0),
        }?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// What was read and not taken.
    pub fn buffered(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// One line that CRLF ends, without it; `None` at the end of the stream.
    pub fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = self.buffer[from..].windows(2).position(|w| w == b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..from + at + 2).collect();
                line.truncate(line.len() - 2);
                return Ok(Some(line));
            }
            from = self.buffer.len().saturating_sub(1);
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Ends it at once with a TCP reset.
    pub fn reset(&mut self) {
        if let Some(socket) = self.socket() {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.stream = Stream::Gone;
    }

    /// Ends it in order.
    pub fn close(&mut self) {
        if let Some(socket) = self.socket() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        self.stream = Stream::Gone;
    }
}
