//! A proxy that counts round trips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
