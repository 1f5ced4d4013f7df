//! A TCP proxy before a real server whose faults are switched while it runs.
//!
//! What [`Faulty`](crate::faulty::Faulty) does to requests, this does to bytes: the store's own
//! client, its pool and its time limits are part of what is tested. It also counts at the wire,
//! so that a test can assert how many round trips an operation took.
//!
//! This module needs the feature `proxy`, which brings tokio. The proxy runs on a thread and a
//! runtime of its own: a test may have any runtime or none, block it, or stop its clock.

mod connection;
mod count;
mod fault;
mod once;
mod serve;
mod shared;
mod stream;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use count::Counter;
pub use count::{Count, Traffic};
pub use fault::{Direction, Fault, Then};
use serve::{Order, Port, Scope, Server};

/// The most connections at a time; more wait in the kernel until one ends.
pub const CONNECTIONS_MAX: usize = 400;

/// The most bytes of one direction of a connection that are held or delayed. Further bytes wait
/// in the kernel's buffers.
pub const HELD_MAX: usize = 8 * 1024 * 1024;

/// A proxy before one server. Dropping it closes the port and every connection.
///
/// # Timing
/// A change of fault holds when the call returns: bytes that arrive later meet the new fault,
/// and so do those that are still held or delayed, while what had left the proxy may still be on
/// its way. The proxy adds tens of microseconds to a round trip.
///
/// # Example
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use tenure_conformance::proxy::{Fault, FaultProxy};
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = FaultProxy::start(server.local_addr()?)?;
/// let mut client = TcpStream::connect(proxy.address())?;
/// client.write_all(b"ping")?;
/// let mut request = [0; 4];
/// let (mut served, _) = server.accept()?;
/// served.read_exact(&mut request)?;
/// assert_eq!(&request, b"ping");
/// assert_eq!(proxy.count().turns(), 1);
///
/// proxy.set(Fault::Reset);
/// assert!(client.read(&mut request).is_err());
/// # std::io::Result::Ok(())
/// ```
pub struct FaultProxy {
    address: SocketAddr,
    orders: Option<UnboundedSender<Order>>,
    counter: Counter,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy on a free port of 127.0.0.1, without a fault as yet. The server is connected to
    /// once for each connection; it needn't run before. A client whose connection can't be passed
    /// on is accepted and then reset.
    ///
    /// # Errors
    /// When `target` names no address, or when no port, thread or runtime can be had.
    pub fn start(target: impl ToSocketAddrs) -> io::Result<Self> {
        let target = target.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let port = {
            let _within = runtime.enter();
            Port::open()?
        };
        let address = port.address();
        let (orders, received) = unbounded_channel();
        let counter = Counter::new();
        let server = Server::new(target, port, counter.clone());
        let thread = thread::Builder::new().name("fault-proxy".to_owned()).spawn(move || {
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, server.run(received));
        })?;
        Ok(Self { address, orders: Some(orders), counter, thread: Some(thread) })
    }

    /// Where clients connect; it never changes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Treats every connection like this from now on, existing ones and new ones.
    pub fn set(&self, fault: Fault) {
        self.order(Scope::All, fault);
    }

    /// Treats new connections like this from now on, and leaves the existing ones as they are.
    pub fn set_for_new(&self, fault: Fault) {
        self.order(Scope::New, fault);
    }

    /// Treats the connections that exist like this from now on, and new ones as before.
    pub fn set_for_existing(&self, fault: Fault) {
        self.order(Scope::Existing, fault);
    }

    /// Lets all pass again: as `set(Fault::Pass)`. What was held is delivered, and connections of
    /// which bytes were lost are reset.
    pub fn heal(&self) {
        self.set(Fault::Pass);
    }

    /// What was seen at the wire so far.
    pub fn count(&self) -> Count {
        self.counter.now()
    }

    /// Waits until the count satisfies a condition, and returns it: until a request has arrived
    /// (`|count| count.requests.runs > before`), or until the server has answered, although
    /// nobody will read it. Works on every runtime. It has no limit of its own.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn until(&self, mut condition: impl FnMut(&Count) -> bool) -> Count {
        let mut counts = self.counter.follow();
        let count = counts.wait_for(|count| condition(count)).await;
        *count.expect("the counter lives as long as the proxy")
    }

    fn order(&self, scope: Scope, fault: Fault) {
        let (done, is_done) = mpsc::channel();
        let orders = self.orders.as_ref().expect("it is taken by `drop` alone");
        orders
            .send(Order { scope, fault, done })
            .ok()
            .and_then(|()| is_done.recv().ok())
            .expect("the proxy's thread ends by `drop` alone; another end is a bug, told above");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}
