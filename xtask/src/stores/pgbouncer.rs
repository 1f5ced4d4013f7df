//! PgBouncer in transaction mode before PostgreSQL: what breaks statements kept by a session.

use std::fs;

use super::install::Package;
use super::postgres::{ACCOUNT, own_folder, select};
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct PgBouncer;

/// 1.18, too old to follow prepared statements from server to server: the hard case.
const PACKAGE: Package =
    Package::Apt { name: "pgbouncer", program: "pgbouncer", version: "PgBouncer 1.18." };

impl Server for PgBouncer {
    fn name(&self) -> &'static str {
        "pgbouncer"
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    fn ports(&self) -> usize {
        1
    }

    fn needs(&self) -> &'static [&'static str] {
        &["postgres"]
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = site.port(self.name(), 0);
        let mut process = Process::new(site, self.name(), PACKAGE.program(site.cache())?, port);
        process.account = Some(ACCOUNT);
        let folder = site.folder(self.name());
        own_folder(site, &folder)?;
        own_folder(site, &process.data)?;
        let users = process.data.join("users.txt");
        let settings = process.data.join("pgbouncer.ini");
        // It waits 15 s by default before it tries again a PostgreSQL that was down; tests that
        // restart PostgreSQL would measure that alone.
        let text = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir = {}\n\
             auth_type = trust\n\
             auth_file = {}\n\
             pool_mode = transaction\n\
             max_client_conn = 200\n\
             default_pool_size = 20\n\
             server_login_retry = 1\n",
            site.port("postgres", 0),
            folder.display(),
            users.display(),
        );
        fs::write(&users, "\"postgres\" \"\"\n")
            .and_then(|()| fs::write(&settings, text))
            .map_err(|error| format!("{}: {error}", process.data.display()))?;
        Ok(vec![process.with_args([settings.display().to_string()])])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        select(site.port(self.name(), 0))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        vec![("TENURE_TEST_PGBOUNCER", format!("postgres://postgres@{address}/postgres"))]
    }
}
