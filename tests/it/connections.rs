//! What connections put up with: a greeting in pieces, another protocol, calls that are given up, and a
//! server that stops.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::Request;
use prost::Message;
use rolecall::proto as pb;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    checks::{CHECK, frame},
    world::{World, check},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_in_pieces_is_understood() {
    let world = World::start().await;
    let mut socket = TcpStream::connect(world.server.grpc).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in [&PREFACE[..1], &PREFACE[1..10], &PREFACE[10..], SETTINGS] {
        socket.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the server's settings come first: {head:?}");
    drop(socket);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_is_answered_on_the_same_port() {
    let world = World::start().await;
    let mut socket = TcpStream::connect(world.server.grpc).await.unwrap();
    let request = b"PRIVATE /nowhere HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("grpc-status: 12"), "there is nothing there: {answer}");
    world.stop().await;
}

async fn open(world: &World) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(world.server.grpc).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn post(world: &World) -> Request<()> {
    Request::post(format!("http://{}{CHECK}", world.server.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", world.operator.bearer())
        .body(())
        .unwrap()
}

/// Asks once, with the message in so many pieces; the answer, or the gRPC status.
async fn ask(
    sender: &SendRequest<Bytes>,
    world: &World,
    pieces: usize,
) -> Result<pb::CheckPermissionResponse, String> {
    let mut sender = sender.clone().ready().await.unwrap();
    let (answer, mut body) = sender.send_request(post(world), false).unwrap();
    let question = check("acme", &format!("usr_{}", "0".repeat(32)), "files.read", "");
    let message = frame(&question.encode_to_vec());
    for piece in message.chunks(message.len().div_ceil(pieces)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
    }
    body.send_data(Bytes::new(), true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        read.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
    match trailers["grpc-status"].to_str().unwrap() {
        "0" => Ok(pb::CheckPermissionResponse::decode(&read[5..]).unwrap()),
        other => Err(other.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_pieces_is_answered_like_a_whole_one() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let sender = open(&world).await;
    let whole = ask(&sender, &world, 1).await.unwrap();
    assert_eq!(whole.reason(), pb::Reason::NotAMember);
    let pieces = ask(&sender, &world, 7).await.unwrap();
    assert_eq!((pieces.allowed, pieces.reason), (whole.allowed, whole.reason));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_leave_the_connection_to_the_others() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let sender = open(&world).await;
    // Fewer than those at which a client is taken for an attacker.
    for n in 0..50 {
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(post(&world), false).unwrap();
        if n % 2 == 0 {
            body.send_data(Bytes::from_static(&[0, 0, 0, 1]), false).unwrap();
        }
        body.send_reset(Reason::CANCEL);
        assert!(answer.await.is_err());
    }
    assert_eq!(ask(&sender, &world, 1).await.unwrap().reason(), pb::Reason::NotAMember);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_and_lets_calls_in_flight_end() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let socket = TcpStream::connect(world.server.grpc).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(post(&world), false).unwrap();
    let question = check("acme", &format!("usr_{}", "0".repeat(32)), "files.read", "");
    let message = frame(&question.encode_to_vec());
    body.send_data(message.slice(..3), false).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopping = tokio::spawn(world.stop());
    // Whoever was told opens no more calls here.
    let told = async {
        while poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(300), told).await;
    body.send_data(message.slice(3..), true).unwrap();
    let head = answer.await.unwrap();
    assert_eq!(head.status(), 200);
    stopping.await.unwrap();
    drop(head);
    assert!(connection.await.unwrap().is_ok());
}
