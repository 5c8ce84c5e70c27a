//! Networks that go wrong: far ends that vanish, stop and are cut off in the middle of whatever is said.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use common::proxy::{Proxy, Way};
use common::{PATIENCE, wait_until};

/// The proxy of these tests is held to what it promises: a test behind one that forwards nothing shows nothing.
#[test]
fn the_proxy_does_what_it_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap());
    let connect = || {
        let client = TcpStream::connect(proxy.addr()).unwrap();
        let (server, _) = listener.accept().unwrap();
        [client, server].map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    };
    let read = |stream: &mut TcpStream, count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    // All of much, both ways at once.
    let [mut client, mut server] = connect();
    let much: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&much).unwrap());
        scope.spawn(|| assert!(read(&mut client.try_clone().unwrap(), much.len()).unwrap() == much));
        scope.spawn(|| (&server).write_all(&much).unwrap());
        assert!(read(&mut server.try_clone().unwrap(), much.len()).unwrap() == much);
    });
    assert_eq!(proxy.forwarded(Way::ToNode), much.len() as u64);
    // Exactly so much, then nothing, then the rest.
    proxy.hold_after(Way::ToNode, 3);
    client.write_all(b"abcdef").unwrap();
    assert_eq!(read(&mut server, 3).unwrap(), b"abc");
    server.write_all(b"back").unwrap();
    assert_eq!(read(&mut client, 4).unwrap(), b"back");
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(read(&mut server, 1).is_err(), "held bytes came through");
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    proxy.release(Way::ToNode);
    assert_eq!(read(&mut server, 3).unwrap(), b"def");
    // Later, and in pieces.
    proxy.delay(Way::FromNode, Duration::from_millis(200));
    proxy.cut_up(Way::FromNode, 1);
    let sent = std::time::Instant::now();
    server.write_all(b"late").unwrap();
    assert_eq!(read(&mut client, 4).unwrap(), b"late");
    assert!(sent.elapsed() >= Duration::from_millis(200));
    // An end goes through, and both ends are an end of the connection.
    assert_eq!(proxy.connections(), 1);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert!(wait_until(PATIENCE, || (proxy.connections() == 0).then_some(())).is_some());
    // Both are reset; both are closed.
    let [mut client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.reset();
    for stream in [&mut client, &mut server] {
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    let [mut client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.close();
    assert!([&mut client, &mut server].iter_mut().all(|stream| stream.read(&mut [0]).unwrap() == 0));
    // What has vanished acknowledges nothing: the kernel gives up, which it would not do with a stopped reader.
    let [_client, mut server] = connect();
    wait_until(PATIENCE, || (proxy.connections() == 1).then_some(())).unwrap();
    proxy.vanish();
    socket2::SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
    server.write_all(b"hello?").unwrap();
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
