//! The operator's side: what `init` creates and what `doctor` finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_core::chance::Chance;
use tenure_core::cluster;
use tenure_core::identity::StoreId;
use tenure_core::store::{Answer, Expiry, Finding, InitOptions, StoreAdmin, Verdict};
use tenure_core::{Error, ErrorKind, Operation};
use tokio::sync::Mutex;
use tokio_postgres::types::Type;

use crate::config::PostgresConfig;
use crate::driver::{Own, Pool, Row};
use crate::errors::Failure;
use crate::layout::Hamode;
use crate::link::{Effect, Params, Server, clock_word, own};
use crate::rows::get;
use crate::schema::setup;

/// How many commits `doctor` times.
const COMMITS: u32 = 8;
/// A commit that is slower than this makes a short ttl hard to keep.
const COMMIT_MOST: Duration = Duration::from_millis(100);
/// How far the server's clock may be from ours before `doctor` mentions it. Nothing depends on
/// it but what people read.
const OFFSET_MOST: Duration = Duration::from_secs(1);

/// The operator's side of a store that may not be one yet.
pub struct PostgresAdmin {
    pool: Own,
    server: Server,
    config: PostgresConfig,
    location: Arc<str>,
    chance: Mutex<Chance>,
}

impl PostgresAdmin {
    /// Prepares to connect; nothing is sent yet.
    ///
    /// # Errors
    /// `Misconfigured`: the certificates that the configuration names.
    pub fn new(config: PostgresConfig, chance: Chance) -> Result<Self, Error> {
        let pool = own(&config)?;
        let server = Pool::Own(pool.clone());
        let location = config.location(&server).into();
        let server = Server::new(server, &config);
        Ok(Self { pool, server, config, location, chance: Mutex::new(chance) })
    }

    async fn ask(
        &self,
        operation: Operation,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let asked = self.server.query(operation, Effect::Reads, statement, params).await;
        asked.map_err(|failure| match failure {
            Failure::Told(error) => error,
            Failure::OtherStore(_) => {
                Error::new(ErrorKind::StoreReset, operation, "the store's id changed meanwhile")
            }
        })
    }

    async fn create(&self, options: &InitOptions) -> Result<StoreId, Error> {
        let fresh = StoreId::draw(&mut *self.chance.lock().await).to_string();
        let schema = self.config.schema.quoted();
        // One statement string without parameters is one transaction of the server's.
        let clock =
            clock_word(if options.observed { Expiry::Observed } else { Expiry::StoreClock });
        let create = format!(
            "SELECT pg_advisory_xact_lock(hashtext('tenure init {channel}'));\n{setup}\n\
             INSERT INTO {schema}.store (format, store, clock, floor) \
             VALUES (1, '{fresh}', '{clock}', 0) ON CONFLICT DO NOTHING;",
            channel = self.config.schema.channel(),
            setup = setup(&self.config.schema),
        );
        self.run(&create).await?;
        if let Some(mark) = &options.cluster {
            let marked = format!(
                "UPDATE {schema}.store SET cluster = $1 WHERE cluster IS NULL OR cluster = $1 \
                 RETURNING store"
            );
            let params: Params<'_> = &[(mark, Type::TEXT)];
            if self.ask(Operation::Init, &marked, params).await?.is_empty() {
                return Err(cluster::taken(mark));
            }
        }
        let about = format!("SELECT store, clock FROM {schema}.store");
        let rows = self.ask(Operation::Init, &about, &[]).await?;
        let about = rows.first().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, Operation::Init, "the store's row is gone again")
        })?;
        let found: &str = get(about, "clock")?;
        if options.observed && found != clock {
            return Err(Error::new(
                ErrorKind::Misconfigured,
                Operation::Init,
                "the store exists, and its own clock decides expiry; that is not changed under \
                 those who use it: create another with ?schema=",
            ));
        }
        get::<&str>(about, "store")?.parse()
    }

    async fn run(&self, statements: &str) -> Result<(), Error> {
        let client = self.pool.pool.get().await;
        let client = client.map_err(|error| crate::link::no_connection(error, Operation::Init))?;
        client.batch_execute(statements).await.map_err(|error| {
            let schema = self.config.schema.as_str();
            match crate::errors::from_statement(error, Operation::Init, false, schema) {
                Failure::Told(error) if error.kind() == ErrorKind::Denied => Error::new(
                    ErrorKind::Denied,
                    Operation::Init,
                    format!(
                        "this role may not create the schema `{schema}`; run `tenure init` as one \
                         that may, or give its owner what `tenure init --print` shows"
                    ),
                )
                .with_source(error),
                Failure::Told(error) => error,
                Failure::OtherStore(_) => Error::new(
                    ErrorKind::StoreReset,
                    Operation::Init,
                    "the store's id changed meanwhile",
                ),
            }
        })
    }

    async fn look(&self) -> Result<Vec<Finding>, Error> {
        let operation = Operation::Diagnose;
        let server = self
            .ask(
                operation,
                "SELECT current_setting('server_version') AS version, \
                 current_setting('fsync') AS fsync, \
                 current_setting('synchronous_commit') AS synchronous_commit, \
                 current_setting('full_page_writes') AS full_page_writes, \
                 current_setting('synchronous_standby_names') AS standbys, \
                 (SELECT count(*) FROM pg_stat_replication) AS replicas, \
                 (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now",
                &[],
            )
            .await?;
        let Some(server) = server.first() else { return Ok(Vec::new()) };
        let asked_at = wall_millis();
        let now: i64 = get(server, "now")?;
        let mut findings = vec![
            Finding::new("version", Verdict::Good, get::<String>(server, "version")?),
            durable(server, "fsync")?,
            durable(server, "full_page_writes")?,
            durable(server, "synchronous_commit")?,
            replication(get(server, "replicas")?, get(server, "standbys")?),
            offset(now.abs_diff(asked_at)),
        ];
        let schema = self.config.schema.quoted();
        let touch = format!("UPDATE {schema}.store SET format = format");
        let mut slowest = Duration::ZERO;
        for _ in 0..COMMITS {
            let begun = Instant::now();
            self.ask(operation, &touch, &[]).await?;
            slowest = slowest.max(begun.elapsed());
        }
        findings.push(commits(slowest));
        let hot = format!(
            "SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot FROM pg_stat_user_tables \
             WHERE relid = '{schema}.leases'::regclass"
        );
        if let Some(row) = self.ask(operation, &hot, &[]).await?.first() {
            findings.push(hot_updates(get(row, "updates")?, get(row, "hot")?));
        }
        if let Some(hamode) = &self.config.hamode {
            findings.push(self.layout(hamode).await?);
        }
        let pushes = crate::watch::hears_itself(&self.server, &self.config).await;
        findings.push(hints(pushes));
        Ok(findings)
    }
}

impl PostgresAdmin {
    /// How far ahead of the server's a neighbour's clock was at least: what it wrote lately says
    /// so. One that is behind doesn't show.
    async fn layout(&self, hamode: &Hamode) -> Result<Finding, Error> {
        let newest = format!(
            "SELECT (extract(epoch FROM max(acquired_at_utc) - clock_timestamp()) * 1000)::bigint \
             AS ahead FROM {}",
            hamode.quoted()
        );
        let rows = self.ask(Operation::Diagnose, &newest, &[]).await?;
        let ahead = rows.first().map_or(Ok(None), |row| get::<Option<i64>>(row, "ahead"))?;
        let ahead = Duration::from_millis(ahead.unwrap_or(0).try_into().unwrap_or(0));
        let skew = hamode.skew;
        if ahead > skew {
            let detail = format!(
                "a client of `{hamode}` has a clock that is {ahead:?} ahead, and {skew:?} are allowed \
                 for: it can take what is held; set its clock, or raise skew_ms"
            );
            return Ok(Finding::new("layout", Verdict::Bad, detail));
        }
        let detail = format!(
            "names are shared with `{hamode}`: its clients' clocks decide, and must be within \
             {skew:?} of the server's"
        );
        Ok(Finding::new("layout", Verdict::Limited, detail))
    }
}

impl StoreAdmin for PostgresAdmin {
    fn setup(&self) -> String {
        setup(&self.config.schema)
    }

    fn init<'a>(&'a self, options: &'a InitOptions) -> Answer<'a, StoreId> {
        Box::pin(async move {
            if let Some(mark) = &options.cluster {
                cluster::check(mark)?;
            }
            let created = self.create(options).await;
            created.map_err(|error| error.with_store(Arc::clone(&self.location)))
        })
    }

    fn diagnose(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let found = self.look().await;
            found.map_err(|error| error.with_store(Arc::clone(&self.location)))
        })
    }
}

fn wall_millis() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn durable(server: &Row, setting: &str) -> Result<Finding, Error> {
    let found: &str = get(server, setting)?;
    Ok(if found == "off" {
        let cure = format!("it is off: a crash may forget grants; set `{setting} = on`");
        Finding::new(setting, Verdict::Bad, cure)
    } else {
        Finding::new(setting, Verdict::Good, format!("it is {found}"))
    })
}

fn replication(replicas: i64, standbys: &str) -> Finding {
    let (verdict, detail) = match (replicas, standbys) {
        (0, _) => (Verdict::Good, "no replica is connected".to_owned()),
        (_, "") => (
            Verdict::Limited,
            format!(
                "{replicas} replicas follow asynchronously: a failover to one may forget grants; \
                 name synchronous_standby_names"
            ),
        ),
        (_, names) => (Verdict::Good, format!("commits wait for {names}")),
    };
    Finding::new("replication", verdict, detail)
}

fn offset(millis: u64) -> Finding {
    let apart = Duration::from_millis(millis);
    let verdict = if apart > OFFSET_MOST { Verdict::Limited } else { Verdict::Good };
    let detail = format!("{apart:?} from this machine's wall clock; no decision compares the two");
    Finding::new("clock", verdict, detail)
}

fn commits(slowest: Duration) -> Finding {
    let (verdict, advice) = if slowest > COMMIT_MOST {
        (Verdict::Limited, "; keep the ttl long")
    } else {
        (Verdict::Good, "")
    };
    let detail = format!("the slowest of {COMMITS} commits took {slowest:?}{advice}");
    Finding::new("durability", verdict, detail)
}

fn hot_updates(updates: i64, hot: i64) -> Finding {
    let share = if updates > 0 { hot * 100 / updates } else { 100 };
    if updates > 1000 && share < 50 {
        let detail = format!("only {share} % of updates stay on their page; vacuum the table");
        return Finding::new("hot_updates", Verdict::Limited, detail);
    }
    Finding::new("hot_updates", Verdict::Good, format!("{share} % of updates stay on their page"))
}

fn hints(pushes: bool) -> Finding {
    if pushes {
        return Finding::new("hints", Verdict::Good, "notifications arrive: waiters wake at once");
    }
    let detail =
        "no notification arrives (a pooler in transaction mode?): waiters poll each second";
    Finding::new("hints", Verdict::Limited, detail)
}
