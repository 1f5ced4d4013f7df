//! One connection: reaching the server, its two streams, and how it ends.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::count::Counter;
use super::fault::{Fault, Flow, Stream};
use super::shared::{End, Shared};
use super::stream::{CHUNK, Pump, close};

/// How long the server may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Serves a connection to its end.
pub(super) async fn run(
    mut client: TcpStream,
    target: SocketAddr,
    mut fault: watch::Receiver<Fault>,
    counter: Counter,
) {
    let shared = Shared::new(counter);
    let Some(mut server) = reach(&client, target, &mut fault, &shared).await else {
        return reset(&client);
    };
    for side in [&client, &server] {
        // What can fail here can only make it slower.
        let _ = side.set_nodelay(true);
    }
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = Pump::new(Stream::Requests, from_client, to_server, fault.clone(), &shared);
        let answers = Pump::new(Stream::Answers, from_server, to_client, fault, &shared);
        both(requests, answers).await
    };
    match end {
        End::Reset => [&client, &server].into_iter().for_each(reset),
        End::Close => {
            close(&mut client).await;
            close(&mut server).await;
        }
    }
}

/// Runs both streams until both have ended, or one ends the connection.
async fn both(requests: Pump<'_>, answers: Pump<'_>) -> End {
    let shared = requests.shared();
    let (mut requests, mut answers) = (pin!(requests.run()), pin!(answers.run()));
    let first = tokio::select! {
        end = &mut requests => match end {
            None => answers.await,
            end => end,
        },
        end = &mut answers => match end {
            None => requests.await,
            end => end,
        },
    };
    first.unwrap_or(if shared.broken.get() { End::Reset } else { End::Close })
}

/// Connects to the server, as soon as the fault lets the client that far. None if it is to be
/// reset.
async fn reach(
    client: &TcpStream,
    target: SocketAddr,
    fault: &mut watch::Receiver<Fault>,
    shared: &Shared,
) -> Option<TcpStream> {
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::Reset || shared.lost.get() {
            return None;
        }
        let changed = match now.flow(Stream::Requests) {
            Flow::Stand => fault.changed().await,
            Flow::Swallow => tokio::select! {
                biased;
                changed = fault.changed() => changed,
                // It is gone, and nobody was told that it was there.
                _ = swallow(client, shared) => return None,
            },
            Flow::Deliver(_) | Flow::Keep => tokio::select! {
                biased;
                changed = fault.changed() => changed,
                server = timeout(CONNECT_MAX, TcpStream::connect(target)) => {
                    return server.ok()?.ok();
                }
            },
        };
        changed.ok()?;
    }
}

/// Reads to the client's end.
async fn swallow(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        client.readable().await?;
        match client.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                shared.lost.set(true);
                shared.arrived(Stream::Requests, count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the closing of a socket, which follows, a reset.
fn reset(side: &TcpStream) {
    // It fails if the other side has reset it first.
    let _ = side.set_zero_linger();
}
