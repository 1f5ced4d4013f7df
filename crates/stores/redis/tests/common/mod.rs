//! What the tests of this crate share: servers, sessions, and instances that claim.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod harness;

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Value;
use tenure_core::chance::Chance;
use tenure_core::clock::Timestamp;
use tenure_core::identity::{ClaimId, FencingToken, Incarnation, Instance, Name, Nonce};
use tenure_core::record::Metadata;
use tenure_core::store::{Acquired, Claim, Grant, Hold, Release, Released, Renewed, Store};
use tenure_core::{Error, ErrorKind};
use tenure_redis::{RedisConfig, RedisStore, redis};
use tokio::runtime::Runtime;

/// The runtime that all sessions of these tests live on.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

pub fn run<F: Future>(future: F) -> F::Output {
    RUNTIME.handle().block_on(future)
}

/// The server that a variable names, which `cargo xtask stores up` prints.
pub fn url_of(variable: &str) -> String {
    let url = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask stores up`, and set what it prints")
    });
    url.replace("redis-cluster:", "redis+cluster:").replace("redis-sentinel:", "redis+sentinel:")
}

/// A number that no other test of this or another process draws.
pub fn unique() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    (u64::from(std::process::id()) << 24) | DRAWN.fetch_add(1, Ordering::Relaxed)
}

/// Chance that differs between processes and calls, as the runtime's does.
pub fn chance() -> Chance {
    Chance::seeded(unique())
}

/// A server of a test's own, killed and swept away after it.
pub struct Server {
    pub port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
    process: Child,
}

/// What makes a server keep each write.
pub const DURABLE: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""];

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with("".as_ref(), arguments)
    }

    /// With a configuration file before the arguments, if one is named; each try has a copy.
    pub fn start_with(file: &std::path::Path, arguments: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("tenure-redis-{:x}", unique()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        if !file.as_os_str().is_empty() {
            let copy = directory.join("server.conf");
            std::fs::copy(file, &copy).unwrap();
            arguments.insert(0, copy.to_str().unwrap().to_owned());
        }
        // Somebody else may have taken a port that was free: then another is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let process = spawn(port, &directory, &arguments);
            let mut server =
                Self { port, directory: directory.clone(), arguments: arguments.clone(), process };
            if server.is_up() {
                return server;
            }
        }
        panic!("no redis-server could be started; is it installed (apt install redis-server)?");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> RedisConfig {
        RedisConfig::from_url(&self.url()).unwrap()
    }

    /// Stops it as a crash of its process does, and starts it on what it had kept.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.directory, &self.arguments);
        assert!(self.is_up(), "the server didn't come back");
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Value {
        command(&self.url(), words)
    }

    fn is_up(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            let up = redis::Client::open(self.url()).and_then(|client| {
                redis::cmd("PING").query::<Value>(&mut client.get_connection()?)
            });
            match up {
                Ok(_) => return true,
                // One that asks for a password, or loads, is up.
                Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                    return true;
                }
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn spawn(port: u16, directory: &std::path::Path, arguments: &[String]) -> Child {
    let (file, options) = match arguments.split_first() {
        Some((first, rest)) if !first.starts_with("--") => (Some(first), rest),
        _ => (None, arguments),
    };
    Command::new("redis-server")
        .args(file)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
        .arg("--dir")
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed (apt install redis-server)")
}

/// One command, behind the store's back.
pub fn command(url: &str, words: &[&str]) -> Value {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub fn try_open(config: RedisConfig) -> Result<RedisStore, Error> {
    run(RedisStore::open(config, chance()))
}

pub fn open(server: &Server) -> RedisStore {
    try_open(server.config()).unwrap()
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A new claim by a new instance, for 30 s.
pub fn claim(of: &str, chance: &mut Chance) -> Claim {
    Claim {
        name: name(of),
        instance: Instance::new(name("test"), Incarnation::draw(chance)),
        id: ClaimId::draw(chance),
        nonce: Nonce::draw(chance),
        ttl: Duration::from_secs(30),
        min_hold: Duration::ZERO,
        metadata: Metadata::new(),
        bound_to: None,
        at: Timestamp::default(),
        unanswered_for: Duration::ZERO,
        watched: None,
        above: None,
        ends_with_process: true,
    }
}

pub fn acquire(store: &dyn Store, claim: &Claim) -> Result<Acquired, Error> {
    let mut answers = run(store.acquire(std::slice::from_ref(claim)))?;
    assert_eq!(answers.len(), 1);
    Ok(answers.remove(0))
}

#[track_caller]
pub fn granted(store: &dyn Store, claim: &Claim) -> Grant {
    match acquire(store, claim) {
        Ok(Acquired::Granted(grant)) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
pub fn refused(store: &dyn Store, claim: &Claim) {
    let answer = acquire(store, claim);
    assert!(matches!(answer, Ok(Acquired::Refused(_))), "not refused: {answer:?}");
}

pub fn hold(claim: &Claim, grant: &Grant, chance: &mut Chance) -> Hold {
    Hold {
        name: claim.name.clone(),
        instance: claim.instance.clone(),
        claim: claim.id,
        token: grant.token,
        ttl: claim.ttl,
        not_before: Duration::ZERO,
        version: grant.version.clone(),
        nonce: Nonce::draw(chance),
        unconfirmed_for: Duration::ZERO,
    }
}

pub fn renew(store: &dyn Store, hold: &Hold) -> Result<Renewed, Error> {
    Ok(run(store.renew(std::slice::from_ref(hold)))?.remove(0))
}

pub fn release(
    store: &dyn Store,
    claim: &Claim,
    grant: &Grant,
    chance: &mut Chance,
) -> Result<Released, Error> {
    let release = Release {
        name: claim.name.clone(),
        instance: claim.instance.clone(),
        claim: claim.id,
        token: grant.token,
        version: grant.version.clone(),
        nonce: Nonce::draw(chance),
        successor: None,
        why: "it is done".to_owned(),
        at: Timestamp::default(),
    };
    Ok(run(store.release(std::slice::from_ref(&release)))?.remove(0))
}

pub fn number(token: FencingToken) -> u64 {
    token.get()
}

/// Asserts that an outcome is a failure of this kind, and says these words.
#[track_caller]
pub fn says<T: std::fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = outcome.expect_err("it should have failed");
    let said = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
}

/// How long something may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until there is something to see.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}
