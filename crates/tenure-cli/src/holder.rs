//! What a holder says of itself, and how a holder is described to people.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tenure::core::decide::{Occupancy, occupancy};
use tenure::core::neighbour::LAYOUT;
use tenure::core::record::State;
use tenure::core::store::Snapshot;
use tenure::{HeldBy, Instance, Metadata, TimeLeft};

use crate::duration;

/// The metadata keys that `run` and `elect` write.
pub(crate) const PID: &str = "pid";
pub(crate) const USER: &str = "user";
pub(crate) const HOST: &str = "host";
pub(crate) const COMMAND: &str = "command";
pub(crate) const VERSION: &str = "version";

/// The longest word of it that is told, in bytes.
const WORD_MAX: usize = 200;

/// What this process tells others of itself: enough to find and to end it. Of CMD only the
/// program's name is told, since arguments may hold secrets.
#[cfg(target_os = "linux")]
pub(crate) fn metadata(command: &[OsString]) -> Result<Metadata, tenure::Error> {
    // The keeper's parent is the supervisor: the process that the user started.
    let pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_pid());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut metadata = Metadata::new()
        .with(PID, pid.to_string())?
        .with(USER, user(rustix::process::geteuid().as_raw()))?
        .with(HOST, cut(&host))?
        .with(VERSION, env!("CARGO_PKG_VERSION"))?;
    if let Some(program) = command.first() {
        let program = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
        metadata = metadata.with(COMMAND, cut(&program))?;
    }
    Ok(metadata)
}

/// The name of a user of this host, else its number.
fn user(uid: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_in(&known, uid).map_or_else(|| format!("uid {uid}"), cut)
}

fn user_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(WORD_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Who stands on a record: `api-2 (pid 77, root, backup.sh on web-1)`.
pub(crate) fn who(instance: &Instance, metadata: &Metadata) -> String {
    let said: Vec<String> = [
        metadata.get(PID).map(|pid| format!("pid {}", cut(pid))),
        metadata.get(USER).map(cut),
        metadata.get(COMMAND).map(cut),
        metadata
            .get(HOST)
            .filter(|host| *host != instance.name().as_str())
            .map(|host| format!("on {}", cut(host))),
        // Another system's holder says no more of itself than that.
        metadata.get(LAYOUT).map(|layout| format!("of {}", cut(layout))),
    ]
    .into_iter()
    .flatten()
    .collect();
    match said.is_empty() {
        true => instance.name().to_string(),
        false => format!("{} ({})", instance.name(), said.join(", ")),
    }
}

/// Why `me` has to wait, in one clause; `None` if the name is free.
pub(crate) fn taken(snapshot: &Snapshot, me: &Instance) -> Option<String> {
    let record = &snapshot.record;
    let left = match occupancy(snapshot, me) {
        Occupancy::Free => return None,
        Occupancy::Left(left) => format!("for {} more", duration::show(left)),
        Occupancy::Watch(whole) => format!("for up to {} more", duration::show(whole)),
    };
    let (name, token) = (&record.name, record.token);
    let who = who(&record.holder, &record.metadata);
    Some(match &record.state {
        State::Released { reserved_for: Some(reservation) } => {
            let successor = &reservation.successor.name;
            format!("lease `{name}` is kept for {successor} {left} (token {token})")
        }
        State::Released { .. } => {
            format!("lease `{name}` was released by {who} and stays taken {left} (token {token})")
        }
        State::Revoked => {
            format!("lease `{name}` was revoked, and {who} has it {left} (token {token})")
        }
        _ => format!("lease `{name}` is held by {who} {left} (token {token})"),
    })
}

/// The same of an answer to an attempt.
pub(crate) fn held(by: &HeldBy) -> String {
    let (name, token) = (&by.name, by.token);
    let who = who(&by.holder, &by.metadata);
    let left = match by.left {
        TimeLeft::Known(left) => format!("for {} more", duration::show(left)),
        TimeLeft::AtMost(left) => format!("for up to {} more", duration::show(left)),
    };
    match by.released {
        true => {
            format!("lease `{name}` was released by {who} and stays taken {left} (token {token})")
        }
        false => format!("lease `{name}` is held by {who} {left} (token {token})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure::{Incarnation, Name};

    #[test]
    fn users_are_found_by_their_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\nbroken\n";
        assert_eq!(user_in(passwd, 1000), Some("app"));
        assert_eq!(user_in(passwd, 7), None);
    }

    #[test]
    fn a_holder_is_described_by_what_it_said() {
        let api = Instance::new(Name::new("api-2").unwrap(), Incarnation::from_u128(1));
        assert_eq!(who(&api, &Metadata::new()), "api-2");
        let metadata = Metadata::new()
            .with(PID, "77")
            .and_then(|said| said.with(USER, "root"))
            .and_then(|said| said.with(COMMAND, "a\nb"))
            .and_then(|said| said.with(HOST, "api-2"))
            .unwrap();
        assert_eq!(who(&api, &metadata), "api-2 (pid 77, root, a?b)");
        let neighbours = Metadata::new().with(LAYOUT, "hamode").unwrap();
        assert_eq!(who(&api, &neighbours), "api-2 (of hamode)");
    }
}
