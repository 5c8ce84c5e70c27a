//! A WebSocket server as it is often written on tokio: a task for each connection, a broadcast channel for each topic.
//! `tokio-broadcast PORT`. Subscribers connect to `/sub/{topic}`; the publisher to `/pub`, and sends `<topic> <json>`.
//!
//! One thread, for it has one processor. Whatever has piled up for a subscriber leaves in one write.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{LocalSet, spawn_local};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message, Result, Utf8Bytes};

/// Events that a subscriber may be behind before it misses some.
const BEHIND: usize = 16_384;

/// A subscriber sends next to nothing. The default, 128 KiB for each connection, is for those that do.
const READ_BUFFER: usize = 4096;

type Topics = HashMap<String, broadcast::Sender<Utf8Bytes>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        eprintln!("usage: tokio-broadcast PORT");
        std::process::exit(2);
    };
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    LocalSet::new().run_until(accept(socket.listen(4096)?)).await
}

async fn accept(listener: TcpListener) -> std::io::Result<()> {
    let topics = Rc::new(RefCell::new(Topics::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let topics = topics.clone();
        // Who breaks off has no one to tell it to.
        spawn_local(async move { serve(stream, topics).await.ok() });
    }
}

async fn serve(stream: TcpStream, topics: Rc<RefCell<Topics>>) -> Result<()> {
    let mut path = String::new();
    // The type is the library's.
    #[allow(clippy::result_large_err)]
    let read_path = |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, read_path, Some(config)).await?;
    match path.strip_prefix("/sub/") {
        Some(topic) => {
            let events = subscribe(&mut topics.borrow_mut(), topic);
            let ended = subscriber(socket, events).await;
            forget_unheard(&mut topics.borrow_mut(), topic);
            ended
        }
        None => publisher(socket, topics).await,
    }
}

fn subscribe(topics: &mut Topics, topic: &str) -> broadcast::Receiver<Utf8Bytes> {
    let channel = topics.entry(topic.to_owned()).or_insert_with(|| broadcast::Sender::new(BEHIND));
    channel.subscribe()
}

/// A channel goes with its last receiver.
fn forget_unheard(topics: &mut Topics, topic: &str) {
    if topics.get(topic).is_some_and(|channel| channel.receiver_count() == 0) {
        topics.remove(topic);
    }
}

async fn publisher(mut socket: WebSocketStream<TcpStream>, topics: Rc<RefCell<Topics>>) -> Result<()> {
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let Some(space) = text.find(' ') else { continue };
        let topics = topics.borrow();
        let Some(topic) = topics.get(&text[..space]) else { continue };
        let json = Bytes::from(text).slice(space + 1..);
        // An error means that nobody is subscribed.
        topic.send(Utf8Bytes::try_from(json)?).ok();
    }
    Ok(())
}

async fn subscriber(
    mut socket: WebSocketStream<TcpStream>,
    mut events: broadcast::Receiver<Utf8Bytes>,
) -> Result<()> {
    use broadcast::error::RecvError;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    socket.feed(Message::Text(event)).await?;
                    while let Ok(event) = events.try_recv() {
                        socket.feed(Message::Text(event)).await?;
                    }
                    socket.flush().await?;
                }
                // The generator counts what is missing.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            message = socket.next() => match message {
                Some(message) => drop(message?),
                None => return Ok(()),
            },
        }
    }
}
