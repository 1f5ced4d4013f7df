//! A proxy between a session and its server that can break the next request in each way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenure_conformance::harness::ConnectionFault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A proxy to one server. Its fault is met by the first request that comes after it was set.
pub struct Proxy {
    pub address: SocketAddr,
    fault: Arc<Mutex<Option<ConnectionFault>>>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Arc::<Mutex<Option<ConnectionFault>>>::default();
        tokio::spawn(serve(listener, server, Arc::clone(&fault)));
        Self { address, fault }
    }

    /// The next request meets this fault.
    pub fn set(&self, fault: ConnectionFault) {
        *self.fault.lock().unwrap() = Some(fault);
    }
}

async fn serve(
    listener: TcpListener,
    server: SocketAddr,
    fault: Arc<Mutex<Option<ConnectionFault>>>,
) {
    let mut connections = JoinSet::new();
    let mut look = tokio::time::interval(Duration::from_millis(1));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                connections.spawn(pass(client, server, Arc::clone(&fault)));
            }
            _ = look.tick() => {
                if *fault.lock().unwrap() == Some(ConnectionFault::Refused) {
                    // All connections end, and for a while nobody listens.
                    connections.shutdown().await;
                    let address = listener.local_addr().unwrap();
                    drop(listener);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    *fault.lock().unwrap() = None;
                    let listener = TcpListener::bind(address).await.unwrap();
                    return Box::pin(serve(listener, server, fault)).await;
                }
            }
        }
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    fault: Arc<Mutex<Option<ConnectionFault>>>,
) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut met = None;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                if met.is_none() {
                    met = fault.lock().unwrap().take();
                }
                if met == Some(ConnectionFault::ResetBefore) {
                    return;
                }
                if server.write_all(&from_client[..read]).await.is_err() { return }
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                match met {
                    Some(ConnectionFault::ResetAfter) => return,
                    Some(ConnectionFault::NoAnswer) => {}
                    _ => if client.write_all(&from_server[..read]).await.is_err() { return },
                }
            }
        }
    }
}

/// How long both sides must be silent before the proxy passes answers on.
const SILENCE: Duration = Duration::from_millis(40);

/// A proxy that counts round trips: it passes answers on only when the client has nothing more to
/// ask before it has them.
pub struct Counter {
    pub address: SocketAddr,
    round_trips: Arc<AtomicUsize>,
}

impl Counter {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let round_trips = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&round_trips);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(count(client, server, Arc::clone(&counted)));
            }
        });
        Self { address, round_trips }
    }

    /// How many round trips there were since this was asked last.
    pub fn take(&self) -> usize {
        self.round_trips.swap(0, Ordering::SeqCst)
    }
}

async fn count(mut client: TcpStream, server: SocketAddr, counted: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut held = Vec::new();
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(read @ 1..) = read else { return };
                server.write_all(&from_client[..read]).await.unwrap();
            }
            read = server.read(&mut from_server) => {
                let Ok(read @ 1..) = read else { return };
                held.extend_from_slice(&from_server[..read]);
            }
            () = tokio::time::sleep(SILENCE), if !held.is_empty() => {
                counted.fetch_add(1, Ordering::SeqCst);
                if client.write_all(&std::mem::take(&mut held)).await.is_err() { return }
            }
        }
    }
}
