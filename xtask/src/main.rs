//! The chores of this repository: `cargo xtask verify`, `fix`, `sim`, `conformance`, `stores`, `bench`.

#[cfg(target_os = "linux")]
mod stores;
mod suites;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
cargo xtask CHORE

  verify [--without STORE,STORE]   all that CI runs; changes nothing
  fix               mends what can be mended: formatting, and lints with a known cure
  sim [ARGS]        the simulation: --seeds N, --from SEED, --seed SEED to replay one
  conformance [STORE|all]   the suite on one store's real servers, or on every store
  conformance object --url URL    the suite in a bucket of your own (s3://, gs://, az://)
  conformance kubernetes --url URL   the suite on a cluster of your own
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
        "verify" => verify(&rest),
        "fix" => fix(),
        "sim" => sim(&rest),
        "conformance" => suites::conformance(&rest),
        #[cfg(target_os = "linux")]
        "stores" => stores::run(&root(), &rest),
        #[cfg(not(target_os = "linux"))]
        "stores" => {
            Err("the servers for tests are installed and found as on Linux only".to_owned())
        }
        "soak" => suites::soak(&rest),
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

fn verify(args: &[String]) -> Result<(), String> {
    let started = Instant::now();
    let mut left_out = suites::left_out(args)?;
    for store in suites::with_built_servers() {
        if !left_out.contains(&store) {
            left_out.push(store);
        }
    }
    suites::install_meanwhile(&left_out);
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
    suites::all(&left_out)?;
    let but = match left_out.len() {
        0 => String::new(),
        some => format!("; SKIPPED {some} of the stores: {}", left_out.join(", ")),
    };
    println!("verified in {} s{but}", started.elapsed().as_secs());
    println!("SKIPPED here: {}", suites::LEFT_TO_CONFORMANCE);
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

fn bench(args: &[String]) -> Result<(), String> {
    let mut run = cargo(&["run", "--quiet", "--release", "--package", "tenure-bench", "--"]);
    run.args(args);
    let _servers = suites::with_servers(&mut run, &["postgres", "redis", "etcd"])?;
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
