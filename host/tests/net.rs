//! The network of the seam on loopback.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::io::ErrorKind;

use resilver_host::real;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends() {
    let net = real::host().net;
    let listener = net.bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    assert_ne!(addr.port(), 0);

    let server = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        (asked, peer)
    });
    let mut client = net.connect(&format!("localhost:{}", addr.port())).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"pong");
    let (asked, peer) = server.await.unwrap();
    assert_eq!(&asked, b"ping");
    assert!(peer.ip().is_loopback());
}

#[tokio::test]
async fn a_port_in_use_is_refused_and_a_port_just_left_is_not() {
    let net = real::host().net;
    let listener = net.bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    assert_eq!(net.bind(&addr).await.err().unwrap().kind(), ErrorKind::AddrInUse);

    // The server closes first, so its side of the connection lingers in TIME_WAIT on this port.
    let mut client = net.connect(&addr).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    drop(client);
    drop(listener);
    net.bind(&addr).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once() {
    let net = real::host().net;
    let listener = net.bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_eq!(net.connect(&addr).await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(net.connect("no port here").await.err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn datagrams_arrive_whole_with_their_sender() {
    let net = real::host().net;
    let a = net.bind_datagram("127.0.0.1:0").await.unwrap();
    let b = net.bind_datagram("127.0.0.1:0").await.unwrap();
    let to = b.local_addr().unwrap();
    a.send_to(b"first", to).await.unwrap();
    a.send_to(b"second one", to).await.unwrap();
    let mut buf = [0; 64];
    let (len, from) = b.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..len], b"first");
    assert_eq!(from, a.local_addr().unwrap());
    let (len, _) = b.recv_from(&mut buf).await.unwrap();
    assert_eq!(&buf[..len], b"second one");
}
