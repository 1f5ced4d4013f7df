//! The chores of this repository: `cargo xtask verify`, `fix`, `sim`, `conformance`, `stores`, `bench`.

#[cfg(target_os = "linux")]
mod stores;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
cargo xtask CHORE

  verify            all that CI runs; changes nothing
  fix               mends what can be mended: formatting, and lints with a known cure
  sim [ARGS]        the simulation: --seeds N, --from SEED, --seed SEED to replay one
  conformance [STORE|all]   the suite on one store's real servers, or on every store
  stores up|down|status [NAME…]   real servers for the tests, on free ports
  soak [ROUNDS]     rounds of killed, stopped and resumed commands under an observer
  soak STORE [FAULTS]       contenders on a store and its real servers, under random faults
  soak flat [BEATS]         idle sessions that hold 1, 1000 and 10 000 names
  bench [--turns N] [--svg FILE] [STORE…]   each store beside its client's bare calls, in one run
  tidy              what the compiler doesn't check: first lines, sizes, words
";

/// The most crates that the command's default build may have.
const CRATES_MAX: usize = 110;
/// How many seeds of the simulation CI runs, for each kind of store: about a minute.
const CI_SEEDS: &str = "1500";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = match chore.as_str() {
        "verify" => verify(),
        "fix" => fix(),
        "sim" => sim(&rest),
        "conformance" => conformance(&rest),
        #[cfg(target_os = "linux")]
        "stores" => stores::run(&root(), &rest),
        #[cfg(not(target_os = "linux"))]
        "stores" => {
            Err("the servers for tests are installed and found as on Linux only".to_owned())
        }
        "soak" => soak(&rest),
        "bench" => bench(&rest),
        "tidy" => tidy::check(&root()),
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn verify() -> Result<(), String> {
    let started = Instant::now();
    step("formatting", cargo(&["fmt", "--all", "--check"]))?;
    tidy::check(&root())?;
    step(
        "lints",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", doc)?;
    crate_count()?;
    sim(&["--seeds".to_owned(), CI_SEEDS.to_owned()])?;
    let mut tests = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    #[cfg(target_os = "linux")]
    let servers = stores::Servers::up(&root(), &[])?;
    #[cfg(target_os = "linux")]
    tests.envs(servers.lines.iter().cloned());
    step("tests", tests)?;
    println!("verified in {} s", started.elapsed().as_secs());
    Ok(())
}

fn fix() -> Result<(), String> {
    step(
        "lints",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--fix",
            "--allow-dirty",
            "--allow-staged",
        ]),
    )?;
    step("formatting", cargo(&["fmt", "--all"]))
}

fn sim(args: &[String]) -> Result<(), String> {
    let mut run = cargo(&["run", "--quiet", "--package", "tenure-sim", "--"]);
    run.args(args);
    step("simulation", run)
}

/// Each store: its package, and the servers that its suite needs.
const STORES: [(&str, &str, &[&str]); 5] = [
    ("memory", "tenure-conformance", &[]),
    ("sqlite", "tenure-sqlite", &[]),
    ("postgres", "tenure-postgres", &["postgres", "pgbouncer"]),
    ("etcd", "tenure-etcd", &["etcd", "etcd-cluster", "etcd-tls"]),
    ("redis", "tenure-redis", &["redis", "valkey", "redis-cluster"]),
];

fn conformance(args: &[String]) -> Result<(), String> {
    let asked = args.first().map_or("all", String::as_str);
    let chosen: Vec<_> =
        STORES.iter().filter(|(store, ..)| asked == "all" || asked == *store).collect();
    if chosen.is_empty() {
        let known: Vec<_> = STORES.iter().map(|(store, ..)| *store).collect();
        return Err(format!("there is no store `{asked}`; {} and all are", known.join(", ")));
    }
    for (store, package, needs) in chosen {
        let mut tests = cargo(&["test", "--package", package, "--all-features"]);
        #[cfg(target_os = "linux")]
        let needs: Vec<String> = needs.iter().map(|name| (*name).to_owned()).collect();
        #[cfg(target_os = "linux")]
        let _servers = if needs.is_empty() {
            None
        } else {
            let servers = stores::Servers::up(&root(), &needs)?;
            tests.envs(servers.lines.iter().cloned());
            Some(servers)
        };
        step(&format!("the suite on {store}"), tests)?;
    }
    Ok(())
}

/// What `soak` knows by name: the servers that it needs, and the test that it runs.
const SOAKS: [(&str, &[&str], &str); 7] = [
    ("sqlite", &[], "many"),
    ("postgres", &["postgres"], "many"),
    ("redis", &["redis"], "many"),
    ("redis-durable", &["redis-durable"], "many"),
    ("etcd", &["etcd"], "many"),
    ("etcd-cluster", &["etcd-cluster"], "many"),
    ("flat", &["postgres", "redis-durable", "etcd"], "flat"),
];

fn soak(args: &[String]) -> Result<(), String> {
    let (what, count) = match args {
        [count] if count.parse::<u64>().is_ok() => (None, Some(count)),
        [] => (None, None),
        [what] => (Some(what), None),
        [what, count, ..] => (Some(what), Some(count)),
    };
    let Some(what) = what else { return soak_command(count) };
    let Some((name, needs, test)) = SOAKS.into_iter().find(|(name, ..)| name == what) else {
        let known = SOAKS.map(|(name, ..)| name).join(", ");
        return Err(format!("`soak` knows no `{what}`; it knows {known}, and a number of rounds"));
    };
    let mut run = cargo(&["test", "--package", "tenure", "--all-features", "--test", "soak", "--"]);
    run.args([test, "--exact", "--ignored", "--nocapture"]).env("TENURE_SOAK_STORE", name);
    if let Some(count) = count {
        run.env("TENURE_SOAK_COUNT", count);
    }
    #[cfg(target_os = "linux")]
    let needs: Vec<String> = needs.iter().map(|name| (*name).to_owned()).collect();
    #[cfg(target_os = "linux")]
    let _servers = if needs.is_empty() {
        None
    } else {
        let servers = stores::Servers::up(&root(), &needs)?;
        run.envs(servers.lines.iter().cloned());
        Some(servers)
    };
    step(&format!("soak of {name}"), run)
}

/// The command, on SQLite.
fn soak_command(rounds: Option<&String>) -> Result<(), String> {
    let mut run = cargo(&["test", "--package", "tenure-cli", "--test", "soak", "--"]);
    run.args(["--ignored", "--nocapture"]);
    if let Some(rounds) = rounds {
        run.env("TENURE_SOAK_ROUNDS", rounds);
    }
    step("soak", run)
}

fn bench(args: &[String]) -> Result<(), String> {
    let mut run = cargo(&["run", "--quiet", "--release", "--package", "tenure-bench", "--"]);
    run.args(args);
    #[cfg(target_os = "linux")]
    let servers = stores::Servers::up(&root(), &["postgres", "redis", "etcd"].map(str::to_owned))?;
    #[cfg(target_os = "linux")]
    run.envs(servers.lines.iter().cloned());
    step("benchmark", run)
}

/// The default build of the command stays small.
fn crate_count() -> Result<(), String> {
    let tree =
        cargo(&["tree", "--package", "tenure-cli", "--edges", "normal,build", "--prefix", "none"])
            .output()
            .map_err(|error| format!("cargo tree could not be run: {error}"))?;
    let text = String::from_utf8_lossy(&tree.stdout);
    let mut crates: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(" (").next())
        .filter(|line| !line.is_empty())
        .collect();
    crates.sort_unstable();
    crates.dedup();
    println!("crates in the command's default build: {} (at most {CRATES_MAX})", crates.len());
    if crates.len() > CRATES_MAX {
        return Err(format!("{} crates are more than {CRATES_MAX}", crates.len()));
    }
    Ok(())
}

fn step(what: &str, mut command: Command) -> Result<(), String> {
    println!("== {what}");
    let started = Instant::now();
    let status =
        command.status().map_err(|error| format!("{what}: cargo could not be run: {error}"))?;
    println!("== {what}: {} s", started.elapsed().as_secs());
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository's root")
        .to_owned()
}
