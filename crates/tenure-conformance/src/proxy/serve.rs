//! The proxy's own thread: accepts connections and hands each change of fault to them.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::CONNECTIONS_MAX;
use super::connection;
use super::count::Counter;
use super::fault::Fault;

/// How many connections the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;

/// Which connections a change of fault is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    New,
    Existing,
}

/// A change of fault.
pub(super) struct Order {
    pub scope: Scope,
    pub fault: Fault,
    /// Told when the change holds.
    pub done: mpsc::Sender<()>,
}

/// A port that is ours whether or not it is listened on.
pub(super) struct Port {
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// Bound and never listened on: sockets may share a port that they reuse, as long as one of
    /// them at most listens.
    _keeper: TcpSocket,
}

impl Port {
    /// A free port of 127.0.0.1, listened on. Must be called within a runtime.
    pub(super) fn open() -> io::Result<Self> {
        let keeper = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = keeper.local_addr()?;
        let listener = bind(address)?.listen(BACKLOG)?;
        Ok(Self { address, listener: Some(listener), _keeper: keeper })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens or refuses.
    fn listen(&mut self, listens: bool) {
        if !listens {
            self.listener = None;
        } else if self.listener.is_none() {
            let listening = bind(self.address).and_then(|socket| socket.listen(BACKLOG));
            self.listener = Some(listening.expect("the port is kept for us, and nobody listens"));
        }
    }

    /// The next connection; none ever comes while it refuses.
    async fn accept(&self) -> io::Result<TcpStream> {
        match &self.listener {
            Some(listener) => listener.accept().await.map(|(client, _)| client),
            None => std::future::pending().await,
        }
    }
}

pub(super) struct Server {
    target: SocketAddr,
    port: Port,
    counter: Counter,
    /// The fault of connections to come.
    fault: Fault,
    /// The faults of those that exist, by their number.
    existing: HashMap<u64, watch::Sender<Fault>>,
    connections: JoinSet<u64>,
    next: u64,
}

impl Server {
    pub(super) fn new(target: SocketAddr, port: Port, counter: Counter) -> Self {
        Self {
            target,
            port,
            counter,
            fault: Fault::Pass,
            existing: HashMap::new(),
            connections: JoinSet::new(),
            next: 0,
        }
    }

    /// Serves until nobody can send orders any more.
    pub(super) async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.change(order.scope, order.fault).await;
                    self.port.listen(self.fault != Fault::Refuse);
                    // Whoever asked may have been dropped since.
                    let _ = order.done.send(());
                }
                Some(ended) = self.connections.join_next() => self.forget(ended),
                accepted = self.port.accept(), if self.existing.len() < CONNECTIONS_MAX => {
                    // An error is of that connection alone: its client gave up.
                    if let Ok(client) = accepted {
                        self.welcome(client);
                    }
                }
            }
        }
    }

    async fn change(&mut self, scope: Scope, fault: Fault) {
        if scope != Scope::Existing {
            self.fault = fault;
        }
        if scope == Scope::New {
            return;
        }
        for connection in self.existing.values() {
            // A connection that has just ended needs no fault.
            let _ = connection.send(fault);
        }
        if fault == Fault::Reset {
            while let Some(ended) = self.connections.join_next().await {
                self.forget(ended);
            }
        }
    }

    fn welcome(&mut self, client: TcpStream) {
        self.counter.connection();
        let (fault, changes) = watch::channel(self.fault);
        let number = self.next;
        self.next += 1;
        self.existing.insert(number, fault);
        let (target, counter) = (self.target, self.counter.clone());
        self.connections.spawn_local(async move {
            connection::run(client, target, changes, counter).await;
            number
        });
    }

    fn forget(&mut self, ended: Result<u64, tokio::task::JoinError>) {
        let number = ended.expect("a connection of the proxy doesn't panic");
        self.existing.remove(&number);
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
