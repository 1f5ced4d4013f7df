//! What the tests share: a runtime, servers of their own, and hands that reach behind the store.
#![allow(dead_code, reason = "no test needs all of it")]

pub(crate) mod harness;
#[path = "../../src/wire.rs"]
pub(crate) mod wire;

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tenure_core::chance::Chance;
use tenure_core::identity::{Name, Namespace};
use tenure_etcd::{EtcdConfig, EtcdStore};
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use wire::{
    DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp, Response,
    StatusRequest, StatusResponse, TxnRequest, TxnResponse, path,
};

/// How long a server may take to answer.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// One runtime for all tests of a binary: the suite calls from plain threads.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
    })
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    runtime().handle().block_on(future)
}

/// A line that `cargo xtask stores up` prints.
pub(crate) fn line(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set; say `export $(cargo xtask stores up etcd etcd-cluster \
             etcd-tls)` first"
        )
    })
}

/// A number that no other test has drawn.
pub(crate) fn draw() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one((std::process::id(), DRAWN.fetch_add(1, Ordering::Relaxed)))
}

/// A URL with a prefix that is this test's own.
pub(crate) fn own_prefix(server: &str) -> (String, String) {
    let prefix = format!("test-{:016x}/", draw());
    (format!("{server}/{prefix}"), prefix)
}

pub(crate) fn config(url: &str, namespace: &Namespace) -> EtcdConfig {
    let mut config = EtcdConfig::from_url(url).unwrap();
    config.namespace = namespace.clone();
    config
}

pub(crate) fn open(config: EtcdConfig) -> EtcdStore {
    block_on(EtcdStore::open(config, Chance::seeded(draw()))).unwrap()
}

/// The server at an address, behind every store's back.
pub(crate) struct Hand {
    channel: Channel,
    prefix: String,
}

impl Hand {
    /// `url` as a line has it: its first server is asked.
    pub(crate) fn on(url: &str, prefix: &str) -> Self {
        let address = url.trim_start_matches("etcd://").split([',', '/']).next().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let _in = runtime().enter();
        Self::over(endpoint.connect_lazy(), prefix)
    }

    /// Over a channel that somebody else has, too.
    pub(crate) fn over(channel: Channel, prefix: &str) -> Self {
        Self { channel, prefix: prefix.to_owned() }
    }

    pub(crate) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> A
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Q, A>::default();
        let request = tonic::Request::new(question);
        grpc.unary(request, PathAndQuery::from_static(method), codec).await.unwrap().into_inner()
    }

    /// Whether the server answers, and knows a leader.
    pub(crate) fn answers(&self) -> bool {
        block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
            let question = tonic::Request::new(StatusRequest {});
            let path = PathAndQuery::from_static(path::STATUS);
            let answered = async {
                grpc.ready().await.ok()?;
                grpc.unary(question, path, codec).await.ok()
            };
            let answered = tokio::time::timeout(Duration::from_secs(1), answered).await;
            answered.ok().flatten().is_some_and(|status| status.into_inner().leader != 0)
        })
    }

    /// Carries out one thing, and returns what it found, and the revision.
    pub(crate) fn txn(&self, request: Request) -> (Vec<KeyValue>, i64) {
        let success = vec![RequestOp::from(request)];
        let question = TxnRequest { success, ..TxnRequest::default() };
        let answer: TxnResponse = block_on(self.ask(path::TXN, question));
        let ranged = answer.responses.into_iter().find_map(|answer| match answer.response {
            Some(Response::Range(range)) => Some(range.kvs),
            _ => None,
        });
        (ranged.unwrap_or_default(), answer.header.unwrap().revision)
    }

    pub(crate) fn key(&self, namespace: &Namespace, name: &Name, kind: &str) -> Vec<u8> {
        format!("{}{namespace}\t{name}\t{kind}", self.prefix).into_bytes()
    }

    pub(crate) fn get(&self, key: Vec<u8>) -> Option<KeyValue> {
        self.txn(Request::Range(RangeRequest { key, ..RangeRequest::default() })).0.pop()
    }

    pub(crate) fn put(&self, put: PutRequest) {
        self.txn(Request::Put(put));
    }

    pub(crate) fn delete(&self, key: Vec<u8>) {
        self.txn(Request::Delete(DeleteRangeRequest { key }));
    }

    pub(crate) fn revision(&self) -> i64 {
        let key = b"nothing".to_vec();
        self.txn(Request::Range(RangeRequest { key, ..RangeRequest::default() })).1
    }
}

/// The programs of etcd, as `cargo xtask stores up etcd` installed them.
pub(crate) fn program(name: &str) -> PathBuf {
    let facts = Path::new(&line("TENURE_TEST_STORES")).join("etcd").join("facts");
    let facts = std::fs::read_to_string(&facts).unwrap_or_else(|error| {
        panic!("{}: {error}; say `cargo xtask stores up etcd`", facts.display())
    });
    let command = facts.lines().find_map(|line| line.strip_prefix("command=")).unwrap();
    Path::new(command.split(' ').next().unwrap()).with_file_name(name)
}

/// A server that no other test uses, so that it can be stopped, wiped and set back.
pub(crate) struct Server {
    folder: PathBuf,
    ports: [u16; 2],
    process: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("tenure-etcd-{:016x}", draw()));
        std::fs::create_dir_all(&folder).unwrap();
        let ports = [free_port(), free_port()];
        let server = Self { folder, ports, process: Mutex::new(None) };
        server.run();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.ports[0])
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn run(&self) {
        let [client, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        let child = Command::new(program("etcd"))
            .args(["--name", "own", "--log-level", "warn", "--data-dir"])
            .arg(self.data())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("own={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.process.lock().unwrap() = Some(child);
        let until = Instant::now() + STARTS_WITHIN;
        while !self.control(&["endpoint", "health"]).0 {
            assert!(Instant::now() < until, "no answer within {STARTS_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What `etcdctl` says, and whether it succeeded.
    pub(crate) fn control(&self, words: &[&str]) -> (bool, String) {
        let etcdctl = Command::new(program("etcdctl"))
            .args(["--dial-timeout", "1s", "--command-timeout", "2s", "--endpoints"])
            .arg(format!("127.0.0.1:{}", self.ports[0]))
            .args(words)
            .output()
            .unwrap();
        let said = [etcdctl.stdout, etcdctl.stderr].concat();
        (etcdctl.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    pub(crate) fn must(&self, words: &[&str]) {
        let (done, said) = self.control(words);
        assert!(done, "etcdctl {words:?}: {said}");
    }

    pub(crate) fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        self.run();
    }

    pub(crate) fn back_up(&self) {
        let id = self.process.lock().unwrap().as_ref().unwrap().id();
        signal(id, "STOP");
        copy(&self.data(), &self.folder.join("backup"));
        signal(id, "CONT");
    }

    pub(crate) fn restore(&self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(self.folder.join("backup"), self.data()).unwrap();
        self.run();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
    assert!(sent.unwrap().success(), "{signal} for {process}");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
