//! `cargo xtask stores`: real servers for the tests, on a machine without containers.
//!
//! `up` installs and starts them on free ports of 127.0.0.1 and prints, as lines of environment,
//! where tests find them; `down` stops them; `status` says what runs. Each checkout has servers
//! of its own, in the folder that `TENURE_TEST_STORES` names; what is in there, see `running`.

mod ask;
mod azure;
mod certificates;
mod command;
mod dapr;
mod etcd;
mod etcd_tls;
mod go;
mod install;
mod kubernetes;
mod pgbouncer;
mod ports;
mod postgres;
mod redis;
mod redis_cluster;
mod redis_sentinel;
mod running;
mod s3;
mod server;
mod site;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use certificates::Certificates;
use command::last_lines;
use running::{LOOK_EVERY, Pid, fact};
use server::Server;
use site::{FOLDER_VARIABLE, Site};

/// Every server, in the order of their lines. Whatever another needs stands before it.
const SERVERS: [&dyn Server; 14] = [
    &postgres::Postgres,
    &pgbouncer::PgBouncer,
    &redis::Redis,
    &redis::DurableRedis,
    &redis::Valkey,
    &redis_cluster::RedisCluster,
    &redis_sentinel::RedisSentinel,
    &etcd::SINGLE,
    &etcd::CLUSTER,
    &etcd_tls::EtcdTls,
    &s3::S3,
    &azure::Azure,
    &dapr::Dapr,
    &kubernetes::Kubernetes,
];

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);

/// Runs one of the commands.
pub(crate) fn run(checkout: &Path, args: &[String]) -> Result<(), String> {
    let site = Site::of(checkout)?;
    match args.split_first().map(|(verb, names)| (verb.as_str(), names)) {
        Some(("up", names)) => {
            for (variable, value) in up(site, &chosen(names)?)? {
                println!("{variable}={value}");
            }
            Ok(())
        }
        Some(("down", names)) => down(&site, &chosen(names)?),
        Some(("status", [])) => status(&site),
        _ => Err(help()),
    }
}

/// Whether one of these servers is built here.
pub(crate) fn is_any_built(names: &[&str]) -> bool {
    SERVERS.into_iter().any(|server| names.contains(&server.name()) && server.is_built())
}

/// Servers that run for as long as this lives, unless they ran before.
pub(crate) struct Servers {
    /// Where tests find them.
    pub(crate) lines: Vec<(String, String)>,
    /// The site, if it is ours to clear.
    ours: Option<Site>,
}

impl Servers {
    /// Installs what the servers of these names need, and starts nothing.
    pub(crate) fn install(checkout: &Path, names: &[String]) -> Result<(), String> {
        let site = Site::of(checkout)?;
        let _lock = site.lock()?;
        install_for(&site, &with_needs(&chosen(names)?))
    }

    /// Starts the servers of these names; none: all.
    pub(crate) fn up(checkout: &Path, names: &[String]) -> Result<Self, String> {
        let ours = Site::of(checkout)?;
        let before = !ours.processes().is_empty();
        let lines = up(Site::of(checkout)?, &chosen(names)?)?;
        Ok(Self { lines, ours: (!before).then_some(ours) })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(site) = &self.ours
            && let Err(why) = down(site, &[])
        {
            eprintln!("the servers can't be stopped: {why}");
        }
    }
}

fn up(mut site: Site, chosen: &[&dyn Server]) -> Result<Vec<(String, String)>, String> {
    let servers = with_needs(chosen);
    let _lock = site.lock()?;
    let begun = Instant::now();
    install_for(&site, &servers)?;
    site.prepare(servers.iter().map(|server| (server.name(), server.ports())))?;
    Certificates::make(&site)?;
    let (later, sooner): (Vec<_>, Vec<_>) =
        servers.iter().copied().partition(|server| !server.needs().is_empty());
    for wave in [sooner, later] {
        start_all(&site, &wave)?;
    }
    eprintln!("== all answer after {:.1} s", begun.elapsed().as_secs_f64());
    let authority = Certificates::of(&site).authority.display().to_string();
    let mut lines = vec![
        (FOLDER_VARIABLE.to_owned(), site.root().display().to_string()),
        ("TENURE_TEST_CA".to_owned(), authority),
    ];
    let told = servers.iter().flat_map(|server| server.lines(&site));
    lines.extend(told.map(|(variable, value)| (variable.to_string(), value)));
    Ok(lines)
}

fn install_for(site: &Site, servers: &[&dyn Server]) -> Result<(), String> {
    let packages: BTreeSet<_> =
        servers.iter().flat_map(|server| server.packages()).copied().collect();
    install::install(site.cache(), &packages)
}

/// Starts servers beside each other; the error tells of all that failed.
fn start_all(site: &Site, servers: &[&dyn Server]) -> Result<(), String> {
    let faults: Vec<String> = thread::scope(|scope| {
        let starts: Vec<_> =
            servers.iter().map(|server| scope.spawn(|| start(site, *server))).collect();
        let ends = starts.into_iter().map(|start| start.join().expect("starting doesn't panic"));
        ends.filter_map(Result::err).collect()
    });
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("{}\n`cargo xtask stores down` stops the others", faults.join("\n")))
}

fn start(site: &Site, server: &dyn Server) -> Result<(), String> {
    let begun = Instant::now();
    let told = |error: String| format!("{}: {error}", server.name());
    let processes = server.lay_out(site).map_err(told)?;
    let mut started = Vec::new();
    for process in &processes {
        let folder = site.folder(&process.name);
        running::describe(site, server.name(), process).map_err(told)?;
        match Pid::of(&folder) {
            None => started.push((running::start(&folder).map_err(told)?, folder)),
            Some(pid) if pid.is_paused() => pid.resume().map_err(told)?,
            Some(_) => {}
        }
    }
    while let Err(reason) = server.answers(site) {
        for (child, folder) in &mut started {
            if let Ok(Some(end)) = child.try_wait() {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                let run = folder.join("run");
                let shown = last_lines(&log);
                return Err(told(format!("`{}` ended ({end}):\n{shown}", run.display())));
            }
        }
        if begun.elapsed() > START_MAX {
            let most = START_MAX.as_secs();
            return Err(told(format!("doesn't answer after {most} s: {reason}")));
        }
        thread::sleep(LOOK_EVERY);
    }
    let word = if started.is_empty() { "was running" } else { "started" };
    eprintln!("== {}: {word}, answers after {:.2} s", server.name(), begun.elapsed().as_secs_f64());
    Ok(())
}

fn down(site: &Site, servers: &[&dyn Server]) -> Result<(), String> {
    let _lock = site.lock()?;
    let begun = Instant::now();
    let meant = |folder: &PathBuf| {
        let of = fact(folder, "server").unwrap_or_default();
        servers.is_empty() || servers.iter().any(|server| server.name() == of)
    };
    let folders: Vec<PathBuf> = site.processes().into_iter().filter(meant).collect();
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let ended = running::stop(&folders)?;
    for folder in &folders {
        remove(folder)?;
    }
    // Only what is ours goes: the folder may be anywhere.
    if site.processes().is_empty() && site.root().exists() {
        remove(&site.folder("tls"))?;
        let _ = fs::remove_file(site.folder("ports"));
        let _ = fs::remove_dir(site.root());
    }
    match ended.as_slice() {
        [] => println!("nothing ran"),
        names => println!("ended {} in {:.1} s", names.join(", "), begun.elapsed().as_secs_f64()),
    }
    Ok(())
}

fn status(site: &Site) -> Result<(), String> {
    let folders = site.processes();
    if folders.is_empty() {
        println!("nothing runs in {}", site.root().display());
        return Ok(());
    }
    println!("{:<16} {:>8}  {:>5}  {:<8} version", "process", "pid", "port", "state");
    for folder in folders {
        let told = |key| fact(&folder, key).unwrap_or_default();
        let pid = Pid::of(&folder);
        let state = match pid {
            None => "down",
            Some(pid) if pid.is_paused() => "paused",
            Some(_) => "runs",
        };
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.id().to_string());
        let [name, port, version] = ["name", "port", "version"].map(told);
        // Redis goes on about its build.
        let version = version.split(" sha=").next().unwrap_or_default();
        println!("{name:<16} {pid:>8}  {port:>5}  {state:<8} {version}");
    }
    println!("folders and logs: {}", site.root().display());
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static dyn Server>, String> {
    let by_name = |name: &String| {
        let found = SERVERS.into_iter().find(|server| server.name() == name);
        found.ok_or_else(|| format!("no server is called `{name}`\n\n{}", help()))
    };
    names.iter().map(by_name).collect()
}

/// The chosen servers with those that they need, in the order of the list; or all but those that
/// are built here.
fn with_needs(chosen: &[&dyn Server]) -> Vec<&'static dyn Server> {
    let is_meant = |server: &&dyn Server| {
        let name = server.name();
        if chosen.is_empty() {
            return !server.is_built();
        }
        chosen.iter().any(|one| one.name() == name || one.needs().contains(&name))
    };
    SERVERS.into_iter().filter(is_meant).collect()
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn help() -> String {
    let names: Vec<&str> = SERVERS.iter().map(|server| server.name()).collect();
    format!(
        "cargo xtask stores up [NAME…]     starts servers, and prints their URLs\n\
         cargo xtask stores down [NAME…]   stops them, and removes their data\n\
         cargo xtask stores status         says what runs\n\n\
         NAME: {}\n\
         Without a name: all but kubernetes, which is built first, for minutes, once\n\
         For tests: export $(cargo xtask stores up)",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_comes_with_what_it_needs_and_after_it() {
        let names = |servers: Vec<&dyn Server>| -> Vec<&str> {
            servers.iter().map(|server| server.name()).collect()
        };
        let chosen = chosen(&["pgbouncer".to_owned()]).unwrap();
        assert_eq!(names(with_needs(&chosen)), ["postgres", "pgbouncer"]);
        let all = names(with_needs(&[]));
        assert!(all.contains(&"etcd") && !all.contains(&"kubernetes"), "{all:?}");
    }

    #[test]
    fn each_need_is_a_server_that_needs_nothing_itself() {
        for need in SERVERS.iter().flat_map(|server| server.needs()) {
            let needed = SERVERS.iter().find(|server| server.name() == *need).unwrap();
            assert!(needed.needs().is_empty());
        }
    }
}
