//! What stands between one replica and PostgreSQL: it can cut, swallow, delay, and lose notifications.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Connections stay open, and nothing comes through.
    Hold,
    Slow(Duration),
    /// Answers come through, notifications do not.
    Deaf,
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct Control {
    target: u16,
    mode: Mode,
    /// Connections of an earlier one are cut.
    generation: u64,
}

pub struct Proxy {
    pub port: u16,
    control: watch::Sender<Control>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (control, told) = watch::channel(Control { target, mode: Mode::Pass, generation: 0 });
        tokio::spawn(accept(listener, told));
        Self { port, control }
    }

    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| control.mode = mode);
    }

    pub fn cut(&self) {
        self.control.send_modify(|control| control.generation += 1);
    }

    /// Where new connections lead; those that are open stay as they are.
    pub fn lead_to(&self, target: u16) {
        self.control.send_modify(|control| control.target = target);
    }
}

async fn accept(listener: TcpListener, control: watch::Receiver<Control>) {
    while let Ok((near, _)) = listener.accept().await {
        let now = *control.borrow();
        if now.mode == Mode::Refuse {
            continue;
        }
        let mut control = control.clone();
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", now.target)).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let (there, back) = (control.clone(), control.clone());
            let cut = control.wait_for(|control| {
                control.generation != now.generation || control.mode == Mode::Refuse
            });
            tokio::select! {
                () = pump(near_in, far_out, there, false) => {}
                () = pump(far_in, near_out, back, true) => {}
                _ = cut => {}
            }
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut pending = Vec::new();
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if control.wait_for(|control| control.mode != Mode::Hold).await.is_err() {
            return;
        }
        let mode = control.borrow().mode;
        if let Mode::Slow(by) = mode {
            tokio::time::sleep(by).await;
        }
        pending.extend_from_slice(&buffer[..read]);
        let ready =
            if answers { whole(&mut pending, mode == Mode::Deaf) } else { take(&mut pending) };
        if to.write_all(&ready).await.is_err() {
            return;
        }
    }
}

fn take(pending: &mut Vec<u8>) -> Vec<u8> {
    std::mem::take(pending)
}

/// The complete messages of PostgreSQL among what has come; the rest waits for its end.
fn whole(pending: &mut Vec<u8>, deaf: bool) -> Vec<u8> {
    const NOTIFICATION: u8 = b'A';
    let (mut ready, mut at) = (Vec::new(), 0);
    while let Some(head) = pending.get(at..at + 5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize + 1;
        let Some(message) = pending.get(at..at + length) else { break };
        if !(deaf && head[0] == NOTIFICATION) {
            ready.extend_from_slice(message);
        }
        at += length;
    }
    pending.drain(..at);
    ready
}

#[test]
fn notifications_are_lost_and_nothing_else() {
    let notification = [b"A\0\0\0\x08abcd".as_slice()].concat();
    let ready = b"Z\0\0\0\x05I";
    let mut pending = [ready.as_slice(), &notification, ready, b"Z\0\0"].concat();
    assert_eq!(whole(&mut pending, true), [ready.as_slice(), ready].concat());
    assert_eq!(pending, b"Z\0\0");
    pending.extend_from_slice(b"\0\x05I");
    assert_eq!(whole(&mut pending, true), ready);
    let mut pending = notification.clone();
    assert_eq!(whole(&mut pending, false), notification);
}
