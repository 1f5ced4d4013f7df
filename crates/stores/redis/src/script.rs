//! The scripts, and how calls of them are carried out: in one go to each server, never twice.

use std::sync::{Arc, LazyLock};

use futures_util::future::join_all;
use redis::{Arg, Cmd, Pipeline, Value};
use tenure_core::{Error, ErrorKind, Operation};

use crate::errors::from_server;
use crate::link::Link;
use crate::route::Route;

/// How often calls that certainly weren't carried out are sent again: a server that has to be
/// given the script, a bucket that has moved.
const ROUNDS_MAX: usize = 4;

/// A script, and its hash.
pub(crate) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

macro_rules! scripts {
    ($($name:ident = $($file:literal),+;)*) => {$(
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new([$(include_str!($file)),+].join("\n")));
    )*};
}

scripts! {
    ACQUIRE = "lua/common.lua", "lua/sweep.lua", "lua/taken.lua", "lua/acquire.lua";
    RENEW = "lua/common.lua", "lua/renew.lua";
    RELEASE = "lua/common.lua", "lua/sweep.lua", "lua/release.lua";
    READ = "lua/common.lua", "lua/read.lua";
    SWAP = "lua/common.lua", "lua/swap.lua";
    ACQUIRE_SHARED = "lua/common.lua", "lua/shared.lua", "lua/sweep.lua", "lua/taken.lua",
        "lua/acquire.lua";
    RENEW_SHARED = "lua/common.lua", "lua/shared.lua", "lua/renew.lua";
    RELEASE_SHARED = "lua/common.lua", "lua/shared.lua", "lua/sweep.lua", "lua/release.lua";
    READ_SHARED = "lua/common.lua", "lua/shared.lua", "lua/taken.lua", "lua/read.lua";
    SWAP_SHARED = "lua/common.lua", "lua/shared.lua", "lua/swap.lua";
    LIST = "lua/common.lua", "lua/list.lua";
    OPEN = "lua/open.lua";
    MARK = "lua/mark.lua";
    TRIAL = "lua/trial.lua";
}

/// One request's script where leases are tenure's alone, and where they are shared.
#[derive(Clone, Copy)]
pub(crate) struct Scripts {
    pub(crate) alone: &'static Script,
    pub(crate) shared: &'static Script,
}

macro_rules! pairs {
    ($($name:ident = $alone:ident or $shared:ident;)*) => {$(
        pub(crate) fn $name() -> Scripts {
            Scripts { alone: &$alone, shared: &$shared }
        }
    )*};
}

pairs! {
    acquire = ACQUIRE or ACQUIRE_SHARED;
    renew = RENEW or RENEW_SHARED;
    release = RELEASE or RELEASE_SHARED;
    read = READ or READ_SHARED;
    swap = SWAP or SWAP_SHARED;
}

/// One call of a script, on one bucket.
pub(crate) struct Call {
    pub(crate) bucket: usize,
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// A call with its keys; arguments follow.
    pub(crate) fn new(bucket: usize, script: &'static Script, keys: &[String]) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&script.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        Self { bucket, script, command }
    }

    /// The same call with the script's text.
    fn in_full(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(&self.script.text);
        for argument in self.command.args_iter().skip(2) {
            if let Arg::Simple(argument) = argument {
                command.arg(argument);
            }
        }
        command
    }

    pub(crate) fn arg(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.command.arg(argument.as_ref());
        self
    }

    pub(crate) fn number(&mut self, number: impl std::fmt::Display) -> &mut Self {
        self.arg(number.to_string())
    }
}

/// Carries calls out, each server's in one go, and tells what came of each.
pub(crate) async fn carry_out(
    route: &Route,
    operation: Operation,
    calls: &[Call],
) -> Vec<Result<Value, Error>> {
    let mut replies: Vec<Option<Result<Value, Error>>> = calls.iter().map(|_| None).collect();
    let mut missing = false;
    for _ in 0..ROUNDS_MAX {
        let pending: Vec<usize> = (0..calls.len()).filter(|n| replies[*n].is_none()).collect();
        if pending.is_empty() {
            break;
        }
        let groups = match grouped(route, calls, &pending).await {
            Ok(groups) => groups,
            Err(error) => {
                let error = error.during(operation);
                pending.iter().for_each(|n| replies[*n] = Some(Err(error.clone())));
                break;
            }
        };
        let rounds =
            groups.iter().map(|(link, group)| round(link, operation, calls, group, missing));
        let rounds = join_all(rounds).await;
        missing = false;
        for ((link, group), answers) in groups.iter().zip(rounds) {
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    route.doubt();
                    group.iter().for_each(|n| replies[*n] = Some(Err(error.clone())));
                    continue;
                }
            };
            for (n, answer) in group.iter().zip(answers) {
                missing |= is_code(&answer, "NOSCRIPT");
                replies[*n] = settled(route, link, operation, answer).await;
            }
        }
    }
    let gave_up = || {
        let message = "the server kept on sending the request elsewhere; try again";
        Err(Error::new(ErrorKind::Unavailable, operation, message))
    };
    replies.into_iter().map(|reply| reply.unwrap_or_else(gave_up)).collect()
}

/// Pending calls by the server of their bucket.
async fn grouped(
    route: &Route,
    calls: &[Call],
    pending: &[usize],
) -> Result<Vec<(Arc<Link>, Vec<usize>)>, Error> {
    let links = route.links().await?;
    let mut groups: Vec<(Arc<Link>, Vec<usize>)> = Vec::new();
    for n in pending {
        let link = &links[calls[*n].bucket];
        match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, link)) {
            Some((_, group)) => group.push(*n),
            None => groups.push((Arc::clone(link), vec![*n])),
        }
    }
    Ok(groups)
}

/// Sends one server its calls.
///
/// A script that it turned out not to have is given to it in full with the first call; the
/// others of its calls come after that and find it.
async fn round(
    link: &Link,
    operation: Operation,
    calls: &[Call],
    group: &[usize],
    missing: bool,
) -> Result<Vec<Value>, Error> {
    let mut commands = Pipeline::with_capacity(group.len());
    let mut given: Vec<&str> = Vec::new();
    for n in group {
        let call = &calls[*n];
        if missing && !given.contains(&call.script.hash.as_str()) {
            given.push(&call.script.hash);
            commands.add_command(call.in_full());
        } else {
            commands.add_command(call.command.clone());
        }
    }
    link.send(&commands, group.len(), operation).await
}

fn is_code(answer: &Value, code: &str) -> bool {
    matches!(answer, Value::ServerError(said) if said.code() == code)
}

/// What an answer means. None: it wasn't carried out, and may be sent again.
async fn settled(
    route: &Route,
    link: &Link,
    operation: Operation,
    answer: Value,
) -> Option<Result<Value, Error>> {
    let Value::ServerError(said) = answer else { return Some(Ok(answer)) };
    match said.code() {
        "NOSCRIPT" => None,
        "MOVED" => {
            route.doubt();
            None
        }
        "READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN" => {
            // Another may be master by now.
            route.doubt();
            link.doubt().await;
            Some(Err(from_server(&said, operation)))
        }
        _ => Some(Err(from_server(&said, operation))),
    }
}
