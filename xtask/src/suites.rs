//! The tests of each store, and the real servers that they need.

use std::process::Command;

use crate::{cargo, step};

/// One store's tests.
struct Suite {
    store: &'static str,
    package: &'static str,
    /// The servers that the package's tests need.
    servers: &'static [&'static str],
    /// A test of `tenure` that belongs to it.
    beside: Option<&'static str>,
    /// Parts of the names of other packages' tests that need them.
    elsewhere: &'static [&'static str],
}

const IDLE: &str = "an_idle_session_takes_no_more";

const SUITES: [Suite; 8] = [
    Suite {
        store: "memory",
        package: "tenure-conformance",
        servers: &[],
        beside: None,
        elsewhere: &[],
    },
    Suite { store: "sqlite", package: "tenure-sqlite", servers: &[], beside: None, elsewhere: &[] },
    Suite {
        store: "postgres",
        package: "tenure-postgres",
        servers: &["postgres", "pgbouncer"],
        beside: None,
        elsewhere: &["postgres", IDLE],
    },
    Suite {
        store: "redis",
        package: "tenure-redis",
        servers: &["redis", "redis-durable", "valkey", "redis-cluster", "redis-sentinel"],
        beside: None,
        elsewhere: &["redis", IDLE],
    },
    Suite {
        store: "etcd",
        package: "tenure-etcd",
        servers: &["etcd", "etcd-cluster", "etcd-tls"],
        beside: None,
        elsewhere: &["etcd", IDLE],
    },
    Suite {
        store: "object",
        package: "tenure-object",
        servers: &["s3", "azure"],
        beside: None,
        elsewhere: &["object"],
    },
    Suite {
        store: "dapr",
        package: "tenure-dapr",
        servers: &["dapr"],
        beside: None,
        elsewhere: &["dapr"],
    },
    Suite {
        store: "kubernetes",
        package: "tenure-kubernetes",
        servers: &["kubernetes"],
        beside: Some("client_go"),
        elsewhere: &["kubernetes", "client_go"],
    },
];

/// What takes longer than CI has: `conformance` runs it, and `verify` says at its end that it didn't.
pub(crate) const LEFT_TO_CONFORMANCE: &str = "etcd's suite with names shared with HAMode, and on \
     its cluster what one server shows as well (`cargo xtask conformance etcd` runs both); four of \
     five rounds of what repeats itself there and in PostgreSQL's suites with such \
     names, by observation and on sqlx";

/// What `soak` knows by name: the servers that it needs, and the test that it runs.
const SOAKS: [(&str, &[&str], &str); 11] = [
    ("sqlite", &[], "many"),
    ("postgres", &["postgres"], "many"),
    ("redis", &["redis"], "many"),
    ("redis-durable", &["redis-durable"], "many"),
    ("etcd", &["etcd"], "many"),
    ("etcd-cluster", &["etcd-cluster"], "many"),
    ("s3", &["s3"], "many"),
    ("azure", &["azure"], "many"),
    ("kubernetes", &["kubernetes"], "many"),
    ("dapr", &["dapr"], "many"),
    ("flat", &["postgres", "redis-durable", "etcd"], "flat"),
];

/// Servers that run for as long as this lives; nothing where none was needed.
#[cfg(target_os = "linux")]
pub(crate) type Running = Option<crate::stores::Servers>;
#[cfg(not(target_os = "linux"))]
pub(crate) type Running = ();

/// Starts servers, and tells the command where they are. One that can't be had is an error.
#[cfg(target_os = "linux")]
pub(crate) fn with_servers(command: &mut Command, names: &[&str]) -> Result<Running, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let servers = crate::stores::Servers::up(&crate::root(), &names)?;
    command.envs(servers.lines.iter().cloned());
    Ok(Some(servers))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn with_servers(_: &mut Command, _: &[&str]) -> Result<Running, String> {
    Ok(())
}

/// Installs the servers of all tests beside what the caller does meanwhile: it waits for a network,
/// and the caller for the processor. What goes wrong is said by whoever starts them.
#[cfg(target_os = "linux")]
pub(crate) fn install_meanwhile(left_out: &[&str]) {
    let meant = SUITES.iter().filter(|suite| !left_out.contains(&suite.store));
    let names: Vec<String> =
        meant.flat_map(|suite| suite.servers).map(|name| (*name).to_owned()).collect();
    if !names.is_empty() {
        std::thread::spawn(move || crate::stores::Servers::install(&crate::root(), &names));
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn install_meanwhile(_: &[&str]) {}

/// Every test, but for those of the stores that are left out.
pub(crate) fn all(left_out: &[&str]) -> Result<(), String> {
    let mut tests = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    let mut servers = Vec::new();
    for suite in &SUITES {
        if left_out.contains(&suite.store) {
            tests.args(["--exclude", suite.package]);
        } else {
            servers.extend(suite.servers);
        }
    }
    tests.arg("--");
    for suite in SUITES.iter().filter(|suite| left_out.contains(&suite.store)) {
        for part in suite.elsewhere {
            tests.args(["--skip", part]);
        }
        println!(
            "SKIPPED: {}: the tests of {}, and those elsewhere with {} in their names",
            suite.store,
            suite.package,
            suite.elsewhere.join(" or ")
        );
    }
    let _servers = with_servers(&mut tests, &servers)?;
    step("tests", tests)
}

/// The stores that `--without A,B` names: a user may have no such server. CI leaves out none.
pub(crate) fn left_out(args: &[String]) -> Result<Vec<&'static str>, String> {
    let names = match args {
        [] => return Ok(Vec::new()),
        [option, names] if option == "--without" => names,
        _ => return Err("`verify` takes nothing but --without STORE,STORE".to_owned()),
    };
    let of = |name: &str| {
        let found = SUITES.iter().find(|suite| suite.store == name && !suite.servers.is_empty());
        found.map(|suite| suite.store).ok_or_else(|| {
            format!(
                "`{name}` can't be left out; a store that needs servers can: postgres, redis, etcd, \
                 object, dapr, kubernetes"
            )
        })
    };
    names.split(',').map(of).collect()
}

/// Stores whose servers are built first, for longer than CI has.
#[cfg(target_os = "linux")]
pub(crate) fn with_built_servers() -> Vec<&'static str> {
    let built = SUITES.iter().filter(|suite| crate::stores::is_any_built(suite.servers));
    built.map(|suite| suite.store).collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn with_built_servers() -> Vec<&'static str> {
    Vec::new()
}

/// The suite on a cluster of the user's own: one variable says where, and nothing is started.
fn conformance_elsewhere(store: &str, url: &str) -> Result<(), String> {
    match store {
        "object" => return cloud(url),
        "kubernetes" => {}
        _ => return Err("`--url` is for object and kubernetes; others are started here".to_owned()),
    }
    let mut tests = cargo(&["test", "--package", "tenure-kubernetes", "--test", "conformance"]);
    tests.env("TENURE_TEST_KUBERNETES_URL", url);
    step(&format!("the suite on {url}"), tests)?;
    println!(
        "what the suite has left: `kubectl get lease -l tenure/namespace`, values that begin with `testx2d`"
    );
    Ok(())
}

pub(crate) fn conformance(args: &[String]) -> Result<(), String> {
    let asked = args.first().map_or("all", String::as_str);
    if let [_, option, url] = args
        && option == "--url"
    {
        return conformance_elsewhere(asked, url);
    }
    let chosen: Vec<_> =
        SUITES.iter().filter(|suite| asked == "all" || asked == suite.store).collect();
    if chosen.is_empty() {
        let known: Vec<_> = SUITES.iter().map(|suite| suite.store).collect();
        return Err(format!("there is no store `{asked}`; {} and all are", known.join(", ")));
    }
    for Suite { store, package, servers, beside, .. } in chosen {
        let mut tests = cargo(&["test", "--package", package, "--all-features"]);
        // What is left to this chore.
        tests.env("TENURE_TEST_WHOLE", "1");
        let _servers = with_servers(&mut tests, servers)?;
        step(&format!("the suite on {store}"), tests)?;
        if let Some(test) = beside {
            let mut tests = cargo(&["test", "--package", "tenure", "--all-features"]);
            tests.args(["--test", test, "--", "--nocapture"]).env("TENURE_TEST_WHOLE", "1");
            let _servers = with_servers(&mut tests, servers)?;
            step(&format!("{test} on {store}"), tests)?;
        }
    }
    Ok(())
}

/// The suite in a bucket of the user's own, with the credentials of the environment. It leaves its
/// objects below `test/` there.
fn cloud(url: &str) -> Result<(), String> {
    let (variable, test) = match url.split(':').next() {
        Some("s3" | "gs") => ("TENURE_TEST_S3", "conformance"),
        Some("az") => ("TENURE_TEST_AZURE", "azure"),
        _ => return Err("`--url` names a bucket: s3://…, gs://… or az://…".to_owned()),
    };
    let mut tests = cargo(&["test", "--package", "tenure-object", "--test", test]);
    tests.env(variable, url);
    step(&format!("the suite on {url}"), tests)
}

pub(crate) fn soak(args: &[String]) -> Result<(), String> {
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
    let _servers = with_servers(&mut run, needs)?;
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
