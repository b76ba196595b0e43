//! The load: calls as raw HTTP/2 frames over plain TCP, on one thread. Requests are made beforehand;
//! of the answers only frames are read, since the same requests were asked with a real client first.
//! What a real client would cost is so left out, and the server's core is the one that is full.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most that we ever let the server send without asking.
const WINDOW: u32 = i32::MAX as u32;
/// What an endpoint may send before it hears of another window.
const INITIAL_WINDOW: i64 = 65_535;
const MAX_FRAME: usize = 16_384;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Messages with their gRPC prefix, one after the other.
pub struct Requests {
    path: &'static str,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Checks in one message.
    pub checks: usize,
}

impl Requests {
    pub fn new<M: prost::Message>(
        path: &'static str,
        checks: usize,
        messages: impl IntoIterator<Item = M>,
    ) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for message in messages {
            bytes.push(0);
            bytes.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
            message.encode(&mut bytes).unwrap();
            ends.push(bytes.len());
        }
        Self { path, bytes, ends, checks }
    }

    pub fn message(&self, n: usize) -> &[u8] {
        let n = n % self.ends.len();
        let start = if n == 0 { 0 } else { self.ends[n - 1] };
        &self.bytes[start..self.ends[n]]
    }
}

/// How the requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Each in a call of its own, that many at once on a connection.
    Single { streams: usize },
    /// As messages of one call on each connection, that many unanswered at once.
    Stream { window: usize },
}

#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub address: &'a str,
    pub api_key: &'a str,
    pub requests: &'a Requests,
    pub connections: usize,
    pub calls: Calls,
    pub warmup: Duration,
    pub time: Duration,
}

/// What was seen between the end of the warm-up and the end of the time.
pub struct Run {
    pub checks: f64,
    pub seconds: f64,
    /// Nanoseconds from request to answer; only with one call at a time.
    pub latencies: Vec<u32>,
}

struct Shared<'a> {
    load: Load<'a>,
    answers: Cell<usize>,
    next: Cell<usize>,
    stopping: Cell<bool>,
    latencies: RefCell<Vec<u32>>,
}

/// Runs the load; `mark` is called when measuring begins and when it ends.
pub fn run(load: Load<'_>, mut mark: impl FnMut()) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shared = Shared {
        load,
        answers: Cell::new(0),
        next: Cell::new(0),
        stopping: Cell::new(false),
        latencies: RefCell::new(Vec::new()),
    };
    let connections: FuturesUnordered<_> =
        (0..load.connections).map(|_| Connection::drive(&shared)).collect();
    let clock = async {
        tokio::time::sleep(load.warmup).await;
        shared.latencies.borrow_mut().clear();
        mark();
        let (start, before) = (Instant::now(), shared.answers.get());
        tokio::time::sleep(load.time).await;
        let (answers, seconds) = (shared.answers.get() - before, start.elapsed().as_secs_f64());
        mark();
        shared.stopping.set(true);
        let latencies = shared.latencies.take();
        Run { checks: (answers * load.requests.checks) as f64, seconds, latencies }
    };
    runtime.block_on(async { tokio::join!(connections.collect::<()>(), clock).1 })
}

struct Connection<'a> {
    shared: &'a Shared<'a>,
    socket: TcpStream,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    next_stream: u32,
    in_flight: usize,
    sent_at: Instant,
    /// The server's settings are known.
    greeted: bool,
    /// What the server lets us send: on the connection, on a new stream, on our one stream.
    window: i64,
    initial_window: i64,
    stream_window: i64,
    /// Bytes since the server was last given room.
    received: u32,
    bodies: usize,
    ends: usize,
    messages: Messages,
}

impl<'a> Connection<'a> {
    async fn drive(shared: &'a Shared<'a>) {
        let socket = TcpStream::connect(shared.load.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut connection = Self {
            shared,
            socket,
            input: vec![0; 1 << 18],
            filled: 0,
            output: Vec::with_capacity(1 << 18),
            next_stream: 1,
            in_flight: 0,
            sent_at: Instant::now(),
            greeted: false,
            window: INITIAL_WINDOW,
            initial_window: INITIAL_WINDOW,
            stream_window: INITIAL_WINDOW,
            received: 0,
            bodies: 0,
            ends: 0,
            messages: Messages::default(),
        };
        connection.greet();
        while !(shared.stopping.get() && connection.in_flight == 0) {
            if connection.greeted && !shared.stopping.get() {
                connection.ask();
            }
            if !connection.output.is_empty() {
                connection.socket.write_all(&connection.output).await.unwrap();
                connection.output.clear();
            }
            let room = &mut connection.input[connection.filled..];
            let read = connection.socket.read(room).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            connection.filled += read;
            connection.take();
        }
    }

    fn greet(&mut self) {
        self.output.extend_from_slice(PREFACE);
        let mut settings = vec![0, 4]; // SETTINGS_INITIAL_WINDOW_SIZE
        settings.extend(WINDOW.to_be_bytes());
        self.frame(SETTINGS, 0, 0, &settings);
        self.frame(WINDOW_UPDATE, 0, 0, &(WINDOW - INITIAL_WINDOW as u32).to_be_bytes());
    }

    fn head(&mut self, len: usize, kind: u8, flags: u8, stream: u32) {
        self.output.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
        self.output.extend_from_slice(&[kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.head(payload.len(), kind, flags, stream);
        self.output.extend_from_slice(payload);
    }

    /// Opens a call. As with usual clients, headers that were sent once are later named by their
    /// place in the table.
    fn open(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        if stream > 1 {
            let known = [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
            self.frame(HEADERS, END_HEADERS, stream, &known);
            return stream;
        }
        let Load { address, api_key, requests, .. } = self.shared.load;
        let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
        let mut text = |name: &[u8], value: &str| {
            block.extend_from_slice(name);
            assert!(value.len() < 127, "one byte of length");
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        };
        text(&[0x44], requests.path);
        text(&[0x41], address);
        text(b"\x40\x02te", "trailers");
        text(&[0x5f], "application/grpc");
        text(&[0x7a], "rolecall-bench/1");
        text(&[0x57], &format!("Bearer {api_key}"));
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    fn ask(&mut self) {
        match self.shared.load.calls {
            Calls::Single { streams } => {
                while self.in_flight < streams && self.call() {
                    self.in_flight += 1;
                }
            }
            Calls::Stream { window } => {
                if self.next_stream == 1 {
                    self.stream_window = self.initial_window;
                    self.open();
                }
                while self.in_flight < window && self.send_messages(window) {}
            }
        }
    }

    /// One call; false when the server has no room for it.
    fn call(&mut self) -> bool {
        let shared = self.shared;
        let message = shared.load.requests.message(shared.next.get());
        if self.window < message.len() as i64 {
            return false;
        }
        assert!(self.initial_window >= message.len() as i64, "a message fits a stream's window");
        shared.next.set(shared.next.get() + 1);
        let stream = self.open();
        let mut chunks = message.chunks(MAX_FRAME).peekable();
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            self.frame(DATA, if last { END_STREAM } else { 0 }, stream, chunk);
        }
        self.window -= message.len() as i64;
        self.sent_at = Instant::now();
        true
    }

    /// As many messages as fit into one frame; false when the server has no room for any.
    fn send_messages(&mut self, window: usize) -> bool {
        let shared = self.shared;
        let room = self.window.min(self.stream_window).min(MAX_FRAME as i64) as usize;
        let start = self.output.len();
        self.head(0, DATA, 0, 1);
        while self.in_flight < window {
            let message = shared.load.requests.message(shared.next.get());
            if self.output.len() - start - HEAD + message.len() > room {
                break;
            }
            self.output.extend_from_slice(message);
            self.in_flight += 1;
            shared.next.set(shared.next.get() + 1);
        }
        let len = self.output.len() - start - HEAD;
        if len == 0 {
            self.output.truncate(start);
            return false;
        }
        self.output[start..start + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        self.window -= len as i64;
        self.stream_window -= len as i64;
        true
    }

    /// Takes the whole frames out of the input.
    fn take(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while self.filled - at >= HEAD {
            let len = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]) as usize;
            let end = at + HEAD + len;
            if end > self.filled {
                break;
            }
            self.took(
                input[at + 3],
                input[at + 4],
                number(&input[at + 5..]),
                &input[at + HEAD..end],
            );
            at = end;
        }
        input.copy_within(at..self.filled, 0);
        self.filled -= at;
        self.input = input;
    }

    fn took(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            DATA => {
                self.body(payload);
                self.received += payload.len() as u32;
                if self.received > WINDOW / 2 {
                    let more = std::mem::take(&mut self.received).to_be_bytes();
                    self.frame(WINDOW_UPDATE, 0, 0, &more);
                    if matches!(self.shared.load.calls, Calls::Stream { .. }) {
                        self.frame(WINDOW_UPDATE, 0, 1, &more);
                    }
                }
            }
            HEADERS if flags & END_STREAM != 0 => self.ended(),
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == [0, 4] {
                        self.initial_window = i64::from(number(&setting[2..]));
                    }
                }
                self.greeted = true;
                self.frame(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(payload)),
            WINDOW_UPDATE => self.stream_window += i64::from(number(payload)),
            HEADERS | SETTINGS | PING => {}
            other => panic!("frame {other} of the server on stream {stream}: {payload:?}"),
        }
    }

    fn body(&mut self, payload: &[u8]) {
        match self.shared.load.calls {
            Calls::Single { .. } => self.bodies += usize::from(!payload.is_empty()),
            Calls::Stream { .. } => {
                let answers = self.messages.count(payload);
                self.in_flight -= answers;
                self.shared.answers.set(self.shared.answers.get() + answers);
            }
        }
    }

    /// The trailers of a call. One that failed has trailers, but no body.
    fn ended(&mut self) {
        self.ends += 1;
        let Calls::Single { streams } = self.shared.load.calls else {
            panic!("the server ended the stream");
        };
        assert!(self.bodies >= self.ends, "a call failed");
        if streams == 1 && self.shared.load.connections == 1 {
            let nanos = self.sent_at.elapsed().as_nanos() as u32;
            self.shared.latencies.borrow_mut().push(nanos);
        }
        self.in_flight -= 1;
        self.shared.answers.set(self.shared.answers.get() + 1);
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & WINDOW
}

/// Counts messages in a stream of bytes that is cut anywhere.
#[derive(Default)]
struct Messages {
    prefix: [u8; 5],
    have: usize,
    left: usize,
}

impl Messages {
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.have < 5 {
                self.prefix[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
                self.left = number(&self.prefix[1..]) as usize;
            } else {
                let part = self.left.min(bytes.len());
                self.left -= part;
                bytes = &bytes[part..];
            }
            if self.have == 5 && self.left == 0 {
                self.have = 0;
                complete += 1;
            }
        }
        complete
    }
}
