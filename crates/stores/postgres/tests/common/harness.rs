//! The suite's hands on a schema of the real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as RealInstant};

use tenure_conformance::executor::Work;
use tenure_conformance::harness::{
    Capability, ConnectionFault, GuardedBy, GuardedTransaction, Harness,
};
use tenure_conformance::proxy::{Fault, FaultProxy, Then};
use tenure_core::clock::Instant;
use tenure_core::error::{Error, ErrorKind, Operation};
use tenure_core::identity::{Name, Namespace};
use tenure_core::store::{InitOptions, Store, StoreAdmin};
use tenure_postgres::{PostgresAdmin, PostgresConfig, PostgresStore};

use super::{Scratch, chance, client, env, runtime, url, wait};

/// How long a client takes at most to notice that its connection is gone, on a busy machine.
const NOTICES_A_RESET: Duration = Duration::from_secs(1);
/// How far the suite is cut short, with shared names, by observation and on a host's pool, where
/// nobody asks for the whole of it.
const THRIFT: usize = 5;

/// A fresh schema, as the suite sees it.
pub(crate) struct Postgres {
    pub(crate) scratch: Scratch,
    /// Whether contenders observe expiry, as `init --clock observed` has it.
    observed: bool,
    /// Through which server: the real one, or a pooler before it.
    through: String,
    /// Whether sessions are opened on a host's sqlx pool.
    #[cfg(feature = "sqlx")]
    on_sqlx: bool,
    began: RealInstant,
    turned: AtomicU64,
}

impl Postgres {
    /// The server's own clock decides.
    pub(crate) fn new() -> Self {
        Self::of(false, url())
    }

    /// Contenders observe.
    pub(crate) fn observed() -> Self {
        Self::of(true, url())
    }

    /// The server's own clock decides, behind a pooler in transaction mode.
    pub(crate) fn pooled() -> Self {
        Self::of(false, env("TENURE_TEST_PGBOUNCER", "pgbouncer"))
    }

    /// The server's own clock decides, and names are shared with HAMode.
    pub(crate) fn shared() -> Self {
        Self::in_schema(Scratch::unused_and_shared(), false, url())
    }

    /// The same behind a pooler in transaction mode.
    pub(crate) fn shared_and_pooled() -> Self {
        let pooler = env("TENURE_TEST_PGBOUNCER", "pgbouncer");
        Self::in_schema(Scratch::unused_and_shared(), false, pooler)
    }

    /// The server's own clock decides, and each session is on a host's sqlx pool.
    #[cfg(feature = "sqlx")]
    pub(crate) fn on_sqlx() -> Self {
        Self { on_sqlx: true, ..Self::new() }
    }

    fn of(observed: bool, through: String) -> Self {
        Self::in_schema(Scratch::unused(), observed, through)
    }

    fn in_schema(scratch: Scratch, observed: bool, through: String) -> Self {
        scratch.init(&options(observed));
        Self {
            scratch,
            observed,
            through,
            #[cfg(feature = "sqlx")]
            on_sqlx: false,
            began: RealInstant::now(),
            turned: AtomicU64::new(0),
        }
    }

    fn session(&self, mut config: PostgresConfig, namespace: &Namespace) -> PostgresStore {
        config.namespace = namespace.clone();
        #[cfg(feature = "sqlx")]
        if self.on_sqlx {
            return super::on_sqlx::open(config, super::on_sqlx::swift()).0;
        }
        wait(PostgresStore::open(config, chance())).unwrap()
    }

    fn row(&self, namespace: &Namespace, name: &Name) -> String {
        format!("namespace = {} AND name = {}", quoted(namespace.as_str()), quoted(name.as_str()))
    }
}

fn options(observed: bool) -> InitOptions {
    let mut options = InitOptions::default();
    options.observed = observed;
    options
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Harness for Postgres {
    fn name(&self) -> &str {
        #[cfg(feature = "sqlx")]
        if self.on_sqlx {
            return "postgres (sqlx)";
        }
        match (self.observed, self.scratch.shared) {
            (true, _) => "postgres (observed)",
            (false, true) => "postgres (layout=hamode)",
            (false, false) => "postgres",
        }
    }

    fn open(&self, namespace: &Namespace) -> Arc<dyn Store> {
        Arc::new(self.session(self.scratch.config(&self.through), namespace))
    }

    fn now(&self) -> Instant {
        let turned = Duration::from_nanos(self.turned.load(Ordering::SeqCst));
        Instant::default() + self.began.elapsed() + turned
    }

    fn advance(&self, by: Duration) {
        self.scratch.turn(by);
        self.turned.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    fn slack(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// A grant through the layout takes the server four times as long as one without. A host's
    /// pool is another client, and observation another rule, of the same server.
    fn thrift(&self) -> usize {
        #[cfg(feature = "sqlx")]
        let costly = self.scratch.shared || self.observed || self.on_sqlx;
        #[cfg(not(feature = "sqlx"))]
        let costly = self.scratch.shared || self.observed;
        let cut_short = costly && std::env::var_os("TENURE_TEST_WHOLE").is_none();
        if cut_short { THRIFT } else { 1 }
    }

    fn drive(&self, work: Work<'_>) {
        runtime().block_on(work);
    }

    fn lacks(&self, capability: Capability) -> Option<&'static str> {
        match capability {
            Capability::StoreClock if self.observed => Some("its clock isn't asked, by choice"),
            Capability::FencedTx if self.observed => {
                Some("without a clock nothing proves a grant unexpired within a transaction")
            }
            Capability::FencedTx if self.scratch.shared => {
                Some("no guard can tell a neighbour's work; tests/hamode.rs guards tenure's own")
            }
            Capability::Namespaces if self.scratch.shared => {
                Some("a neighbour's table has no namespaces: they share its names")
            }
            Capability::ObservedExpiry if !self.observed => {
                Some("its own clock decides; tests/observed.rs is the other choice")
            }
            Capability::Records => Some("it decides in one statement, without preconditions"),
            Capability::ProvesDeath => Some("a connection's end doesn't prove its process dead"),
            Capability::Purge => Some("it keeps its tombstones as yet"),
            Capability::Endpoints => Some("one server writes; standbys are refused"),
            Capability::Restart => Some("tests/faults.rs restarts a server of its own"),
            Capability::Credentials => Some("a pool keeps what it was opened with"),
            _ => None,
        }
    }

    fn forget(&self) {
        let schema = &self.scratch.schema;
        self.scratch.run(&format!("DROP SCHEMA {schema} CASCADE"));
        self.scratch.init(&options(self.observed));
        self.scratch.turn(Duration::from_nanos(self.turned.load(Ordering::SeqCst)));
    }

    fn back_up(&self) {
        let schema = &self.scratch.schema;
        self.scratch.run(&format!(
            "CREATE TABLE {schema}.store_copy AS SELECT * FROM {schema}.store;
             CREATE TABLE {schema}.leases_copy AS SELECT * FROM {schema}.leases"
        ));
    }

    fn restore_backup(&self) {
        let schema = &self.scratch.schema;
        self.scratch.run(&format!(
            "TRUNCATE {schema}.leases; DELETE FROM {schema}.store;
             INSERT INTO {schema}.store SELECT * FROM {schema}.store_copy;
             INSERT INTO {schema}.leases SELECT * FROM {schema}.leases_copy"
        ));
    }

    fn delete_by_hand(&self, namespace: &Namespace, name: &Name) {
        let (schema, row) = (&self.scratch.schema, self.row(namespace, name));
        self.scratch.run(&format!("DELETE FROM {schema}.leases WHERE {row}"));
        if self.scratch.shared {
            let entry = quoted(name.as_str());
            let table = format!("{schema}.app_runtime_leases");
            self.scratch.run(&format!("DELETE FROM {table} WHERE lease_name = {entry}"));
        }
    }

    fn writes(&self) -> u64 {
        let schema = &self.scratch.schema;
        let sum = format!("SELECT coalesce(sum(writes), 0)::text FROM {schema}.leases");
        self.scratch.value(&sum).unwrap().parse().unwrap()
    }

    fn raw_read(&self, namespace: &Namespace, name: &Name) -> Option<Vec<u8>> {
        let (schema, row) = (&self.scratch.schema, self.row(namespace, name));
        let read = format!("SELECT {schema}.record_1(l) FROM {schema}.leases AS l WHERE {row}");
        self.scratch.value(&read).map(String::into_bytes)
    }

    fn raw_write(&self, namespace: &Namespace, name: &Name, json: &[u8]) {
        let (schema, row) = (&self.scratch.schema, self.row(namespace, name));
        let json = quoted(std::str::from_utf8(json).unwrap());
        self.scratch.run(&format!(
            "UPDATE {schema}.leases AS l SET
                 nonce = coalesce({json}::jsonb ->> 'nonce', nonce),
                 (format, token, claim, state, holder, reserved, asked, past, record) = (
                     SELECT format, token, claim, state, holder, reserved, asked, past, record
                     FROM {schema}.stored_1(l, {json}::jsonb))
             WHERE {row}"
        ));
    }

    fn open_faulty(&self, fault: ConnectionFault, namespace: &Namespace) -> Arc<dyn Store> {
        let server = url();
        let address = server.split('@').nth(1).unwrap().split('/').next().unwrap();
        let proxy = FaultProxy::start(address).unwrap();
        let through = server.replace(address, &proxy.address().to_string());
        let mut config = self.scratch.config(&through);
        config.push = false;
        config.timeout = Duration::from_millis(500);
        let store = Arc::new(match fault {
            // A dead connection is told from a living one by a host's pool that asks it.
            #[cfg(feature = "sqlx")]
            ConnectionFault::Refused if self.on_sqlx => {
                config.namespace = namespace.clone();
                // sqlx goes on trying for so long.
                config.server.connect_timeout(Duration::from_secs(2));
                super::on_sqlx::open(config, super::on_sqlx::swift().test_before_acquire(true)).0
            }
            _ => self.session(config, namespace),
        });
        match fault {
            ConnectionFault::Refused => {
                // The connection that opening has left would still do.
                proxy.set(Fault::Reset);
                std::thread::sleep(NOTICES_A_RESET);
                proxy.set(Fault::Refuse);
            }
            ConnectionFault::ResetBefore => proxy.set(Fault::Reset),
            ConnectionFault::ResetAfter => {
                proxy.set(Fault::DropAnswers { pass: 0, then: Then::Reset });
            }
            ConnectionFault::NoAnswer => proxy.set(Fault::drop_answers()),
        }
        proxy.for_one_request(store)
    }

    fn cut_watches(&self) {
        // Whoever listens says so in its last statement.
        let channel = format!("tenure_{}", self.scratch.schema);
        self.scratch.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE query = 'LISTEN \"{channel}\"'"
        ));
    }

    fn admin(&self) -> Arc<dyn StoreAdmin> {
        Arc::new(PostgresAdmin::new(self.scratch.config(&url()), chance()).unwrap())
    }

    fn begin_guarded(
        &self,
        namespace: &Namespace,
        grant: &GuardedBy,
    ) -> Result<Box<dyn GuardedTransaction>, Error> {
        let connection = wait(client(&url()));
        let schema = &self.scratch.schema;
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {schema}.guarded (single int PRIMARY KEY, value text)"
        );
        wait(connection.batch_execute(&create)).unwrap();
        wait(connection.batch_execute("BEGIN")).unwrap();
        let (schema, grant) = (schema.clone(), grant.clone());
        let guarded = Guarded { connection, schema, namespace: namespace.clone(), grant };
        guarded.check()?;
        Ok(Box::new(guarded))
    }

    fn read_guarded(&self) -> Option<String> {
        let schema = &self.scratch.schema;
        self.scratch.value(&format!("SELECT value FROM {schema}.guarded"))
    }
}

/// A transaction of the user's own, guarded as a program in any language would.
struct Guarded {
    connection: tokio_postgres::Client,
    schema: String,
    namespace: Namespace,
    grant: GuardedBy,
}

impl Guarded {
    fn check(&self) -> Result<(), Error> {
        self.run(&format!(
            "SELECT {}.guard({}, {}, {})",
            self.schema,
            quoted(self.grant.name.as_str()),
            self.grant.token,
            quoted(self.namespace.as_str())
        ))
    }

    fn run(&self, statement: &str) -> Result<(), Error> {
        wait(self.connection.batch_execute(statement)).map_err(|error| {
            Error::new(ErrorKind::Unavailable, Operation::Guard, error.to_string())
        })
    }
}

impl GuardedTransaction for Guarded {
    fn write(&mut self, value: &str) -> Result<(), Error> {
        self.run(&format!(
            "INSERT INTO {}.guarded VALUES (1, {value}) \
             ON CONFLICT (single) DO UPDATE SET value = excluded.value",
            self.schema,
            value = quoted(value)
        ))
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        self.check()?;
        self.run("COMMIT")
    }
}
