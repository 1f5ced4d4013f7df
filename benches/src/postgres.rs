//! PostgreSQL: our requests beside a bare update of one row, by the same client, turn by turn.

use anyhow::{Context as _, Result};
use tenure::Session;
use tenure::core::store::{Claim, Hold, InitOptions};
use tenure::postgres::tokio_postgres::{Client, NoTls, Statement, connect};

use crate::measure::{Samples, row};
use crate::{Caller, MANY};

const SCHEMA: &str = "tenure_bench";

/// A table of plain rows, and a prepared update of one of them.
struct Raw {
    client: Client,
    update: Statement,
    written: i64,
}

impl Raw {
    async fn open(url: &str) -> Result<Self> {
        let (client, connection) = connect(url, NoTls).await.context("connecting by hand")?;
        tokio::spawn(connection);
        client
            .batch_execute(&format!(
                "CREATE TABLE {SCHEMA}.raw (name text PRIMARY KEY, written bigint, record bytea)
                 WITH (fillfactor = 70);
                 INSERT INTO {SCHEMA}.raw SELECT 'many-' || n, 0, '\\x00' FROM
                 generate_series(0, {MANY}) AS n"
            ))
            .await?;
        let update = format!(
            "UPDATE {SCHEMA}.raw SET written = $2 WHERE name = $1 AND written < $2 RETURNING name"
        );
        let update = client.prepare(&update).await?;
        Ok(Self { client, update, written: 0 })
    }

    async fn update(&mut self) -> Result<()> {
        self.written += 1;
        self.client.query_one(&self.update, &[&"many-1", &self.written]).await?;
        Ok(())
    }

    async fn update_many(&mut self) -> Result<()> {
        self.written += 1;
        let update = format!("UPDATE {SCHEMA}.raw SET written = {}", self.written);
        self.client.batch_execute(&update).await?;
        Ok(())
    }
}

/// Our requests, one by one and in one beat, beside the bare statement.
pub(crate) async fn beside_the_raw_statement(url: &str, turns: usize) -> Result<()> {
    let ours = format!("{url}?schema={SCHEMA}&sslmode=disable");
    let (client, connection) = connect(url, NoTls).await.context("connecting by hand")?;
    tokio::spawn(connection);
    let clean = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
    client.batch_execute(&clean).await?;
    let mut chance = tenure::chance_of_system()?;
    tenure::connect::admin(&ours, &mut chance).await?.init(&InitOptions::default()).await?;
    let session = Session::open(ours.as_str()).await?;
    let mut raw = Raw::open(url).await?;
    let mut caller = Caller::new(&session);

    let (mut updates, mut acquisitions) = (Samples::default(), Samples::default());
    let (mut renewals, mut releases) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        let claims = [caller.claim("one")?];
        updates.time(raw.update()).await?;
        let grant = acquisitions.time(caller.acquire(&claims)).await?.remove(0);
        updates.time(raw.update()).await?;
        let hold = [caller.hold(&claims[0], &grant)];
        renewals.time(caller.renew(&hold)).await?;
        updates.time(raw.update()).await?;
        releases.time(caller.release(&claims[0], &grant)).await?;
    }
    row("postgres: one bare update, prepared", &updates, None);
    row("postgres: acquire", &acquisitions, Some(&updates));
    row("postgres: renewal of one", &renewals, Some(&updates));
    row("postgres: release", &releases, Some(&updates));

    let claims: Vec<Claim> =
        (0..MANY).map(|n| caller.claim(&format!("many-{n}"))).collect::<Result<_>>()?;
    let grants = caller.acquire(&claims).await?;
    let (mut raws, mut beats) = (Samples::default(), Samples::default());
    for _ in 0..5 {
        raws.time(raw.update_many()).await?;
        let holds: Vec<Hold> =
            claims.iter().zip(&grants).map(|(claim, grant)| caller.hold(claim, grant)).collect();
        beats.time(caller.renew(&holds)).await?;
    }
    row(&format!("postgres: one bare update of {MANY} rows"), &raws, None);
    row(&format!("postgres: {MANY} renewals in one beat"), &beats, Some(&raws));
    session.close().await?;
    client.batch_execute(&clean).await?;
    Ok(())
}
