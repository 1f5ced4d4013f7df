//! A client of HAMode 1.0.6, by its exact statements.

use std::time::{Duration, SystemTime};

use tenure_conformance::contended::Neighbour;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{client, wait};

/// One .NET process: a connection, and a wall clock of its own.
pub(crate) struct Peer {
    client: Client,
    table: String,
    /// How far its clock is ahead of ours.
    pub(crate) ahead: Duration,
    pub(crate) behind: Duration,
}

impl Peer {
    /// On `"schema"."app_runtime_leases"` of the server at `url`.
    pub(crate) fn connect(url: &str, schema: &str) -> Self {
        let table = format!("\"{schema}\".\"app_runtime_leases\"");
        let (ahead, behind) = (Duration::ZERO, Duration::ZERO);
        Self { client: wait(client(url)), table, ahead, behind }
    }

    /// `DateTimeOffset.UtcNow`.
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead - self.behind
    }
}

impl Neighbour for Peer {
    fn acquire(&mut self, name: &str, holder: &str, ttl: Duration) -> bool {
        let table = &self.table;
        let statement = format!(
            "INSERT INTO {table} (lease_name, holder_id, version, acquired_at_utc, expires_at_utc)
VALUES ($1, $2, 1, $3, $4)
ON CONFLICT (lease_name) DO UPDATE
SET holder_id = EXCLUDED.holder_id, version = {table}.version + 1,
    acquired_at_utc = EXCLUDED.acquired_at_utc, expires_at_utc = EXCLUDED.expires_at_utc
WHERE {table}.expires_at_utc < EXCLUDED.acquired_at_utc
   OR {table}.holder_id = EXCLUDED.holder_id
RETURNING holder_id;"
        );
        let acquired = self.now();
        let expires = acquired + ttl;
        let rows = wait(self.client.query_typed(
            &statement,
            &[
                (&name, Type::TEXT),
                (&holder, Type::TEXT),
                (&acquired, Type::TIMESTAMPTZ),
                (&expires, Type::TIMESTAMPTZ),
            ],
        ));
        !rows.unwrap().is_empty()
    }

    fn release(&mut self, name: &str, holder: &str) {
        let statement =
            format!("DELETE FROM {} WHERE lease_name = $1 AND holder_id = $2;", self.table);
        let params = [(&name as _, Type::TEXT), (&holder as _, Type::TEXT)];
        wait(self.client.query_typed(&statement, &params)).unwrap();
    }

    fn holder(&mut self, name: &str) -> Option<String> {
        // What its own acquire would go by.
        let statement = format!(
            "SELECT holder_id FROM {} WHERE lease_name = $1 AND NOT expires_at_utc < $2",
            self.table
        );
        let params = [(&name as _, Type::TEXT), (&self.now() as _, Type::TIMESTAMPTZ)];
        let rows = wait(self.client.query_typed(&statement, &params)).unwrap();
        rows.first().map(|row| row.get(0))
    }
}
