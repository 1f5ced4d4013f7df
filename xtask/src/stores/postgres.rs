//! PostgreSQL 15: durable as by its defaults, with TLS beside plain connections on one port.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::certificates::Certificates;
use super::command::{quoted, run};
use super::install::{Package, program};
use super::server::{Process, Server};
use super::site::Site;

pub(super) struct Postgres;

/// The account for servers that refuse root; Debian's package makes it.
pub(super) const ACCOUNT: &str = "postgres";

pub(super) const PACKAGE: Package =
    Package::Apt { name: "postgresql-15", program: "postgres", version: "(PostgreSQL) 15." };

/// Where init reaps late, a killed postmaster stays a zombie for seconds, and PostgreSQL takes it
/// for alive by its number in its lock files. A number that is its own counts as left over. Its
/// other check, whether anything still uses the old shared memory, stands.
const BEFORE: &str = "\
rm -f .s.PGSQL.*
[ -f data/postmaster.pid ] && sed -i \"1s/.*/$$/\" data/postmaster.pid
";

/// How often what was left behind is looked for, 20 ms apart.
const SWEEPS_MAX: u32 = 250;

impl Server for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn packages(&self) -> &'static [Package] {
        &[PACKAGE]
    }

    fn ports(&self) -> usize {
        1
    }

    fn lay_out(&self, site: &Site) -> Result<Vec<Process>, String> {
        let port = site.port(self.name(), 0);
        let mut process = Process::new(site, self.name(), PACKAGE.program(site.cache())?, port);
        let folder = site.folder(self.name());
        own_folder(site, &folder)?;
        // PostgreSQL takes a key only from a file that is its own.
        let tls = Certificates::of(site);
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        own_copy(site, &tls.certificate, &certificate)?;
        own_copy(site, &tls.key, &key)?;
        if !process.data.exists() {
            initialise(site, &process.data)?;
        }
        // `fast` shutdown: open connections don't hold it up.
        process.stop = "INT";
        process.before = BEFORE;
        process.sweep = Some(sweep(&folder, &process.program));
        process.account = Some(ACCOUNT);
        // Nothing of durability is set here: fsync and synchronous_commit are on by default.
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            "max_connections=200".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", key.display()),
        ];
        let data = process.data.display().to_string();
        let process = process
            .with_args(["-D", data.as_str(), "-p", &port.to_string()])
            .with_args(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        Ok(vec![process])
    }

    fn answers(&self, site: &Site) -> Result<(), String> {
        select(site.port(self.name(), 0))
    }

    fn lines(&self, site: &Site) -> Vec<(&'static str, String)> {
        let address = site.address(self.name(), 0);
        vec![("TENURE_TEST_POSTGRES", format!("postgres://postgres@{address}/postgres"))]
    }
}

/// Asks for a row as a client does.
pub(super) fn select(port: u16) -> Result<(), String> {
    let mut psql = Command::new(program("psql")?);
    psql.env("PGCONNECT_TIMEOUT", "2");
    psql.args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    run(psql.args(["-d", "postgres", "-Atqc", "select 1"])).map(|_| ())
}

/// Makes a folder that belongs to the account under which the server will run.
pub(super) fn own_folder(site: &Site, folder: &Path) -> Result<(), String> {
    site.make(folder)?;
    if site.is_root() {
        run(Command::new("chown").arg(ACCOUNT).arg(folder))?;
    }
    Ok(())
}

/// Copies a file for the account under which the server will run, and for nobody else.
pub(super) fn own_copy(site: &Site, from: &Path, to: &Path) -> Result<(), String> {
    let mut install = Command::new("install");
    install.args(["-m", "600"]);
    if site.is_root() {
        install.args(["-o", ACCOUNT]);
    }
    run(install.arg(from).arg(to)).map(|_| ())
}

/// Kills the backends that a killed postmaster left at work, and waits until they are gone: until
/// then PostgreSQL refuses to start, and a busy one may never notice. They are known by program
/// and working directory.
fn sweep(folder: &Path, program: &Path) -> String {
    let [folder, program] = [folder, program].map(|path| quoted(&path.to_string_lossy()));
    format!(
        r#"#!/bin/sh
# Kills what a killed postmaster left at work.
cd {folder} || exit
for _ in $(seq {SWEEPS_MAX}); do
    left=
    for exe in $(find /proc -maxdepth 2 -name exe -lname {program} 2>/dev/null); do
        process=${{exe%/exe}}
        [ "$(readlink "$process/cwd")" = "$PWD/data" ] && left="$left ${{process#/proc/}}"
    done
    [ -z "$left" ] && break
    kill -9 $left 2>/dev/null
    sleep .02
done
[ -z "$left" ] || exit 1
# Key and number of the shared memory that it didn't give back.
set -- $(sed -n 7p data/postmaster.pid 2>/dev/null)
if [ $# = 2 ] && ipcs -m | grep -q "^$(printf '0x%08x %s ' "$1" "$2")"; then
    ipcrm -m "$2"
fi
"#
    )
}

fn initialise(site: &Site, data: &Path) -> Result<(), String> {
    let part = data.with_extension("part");
    // What an interrupted run may have left.
    let _ = fs::remove_dir_all(&part);
    let initdb = program("initdb")?;
    let mut command = if site.is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", ACCOUNT, "--"]).arg(initdb);
        command
    } else {
        Command::new(initdb)
    };
    // Only this writing is not synced: what fails here is begun anew.
    command.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D"]);
    run(command.arg(&part))?;
    fs::rename(&part, data).map_err(|error| format!("{}: {error}", data.display()))
}
