//! Free ports that stay a server's own while it is down.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// Where the search begins and ends: below the range from which kernels take the ports of
/// outgoing connections, so that a server that a test has killed finds its port free again.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// The ports of each server, by the server's name.
pub(super) type Ports = BTreeMap<String, Vec<u16>>;

/// Reads the ports that were given out before; none if nothing was.
pub(super) fn read(file: &Path) -> Ports {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// Writes all ports down.
pub(super) fn write(file: &Path, ports: &Ports) -> Result<(), String> {
    let text: String = ports.iter().map(|(name, ports)| line(name, ports)).collect();
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Gives `count` ports to a server that has none yet. `seed` says where the search begins, so
/// that two checkouts on one machine don't meet.
pub(super) fn assign(ports: &mut Ports, name: &str, count: usize, seed: u32) -> Result<(), String> {
    if ports.get(name).is_some_and(|given| given.len() == count) {
        return Ok(());
    }
    let taken: Vec<u16> = ports.values().flatten().copied().collect();
    let span = LAST - FIRST;
    let begin = u16::try_from(seed % u32::from(span)).expect("less than the span, a u16");
    let free: Vec<u16> = (0..span)
        .map(|step| FIRST + (begin + step) % span)
        .filter(|port| !taken.contains(port))
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect();
    if free.len() < count {
        return Err(format!("{name}: fewer than {count} ports are free from {FIRST} to {LAST}"));
    }
    ports.insert(name.to_owned(), free);
    Ok(())
}

fn line(name: &str, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{name}={}\n", ports.join(","))
}

fn parse(line: &str) -> Option<(String, Vec<u16>)> {
    let (name, ports) = line.split_once('=')?;
    let ports = ports.split(',').map(|port| port.parse().ok()).collect::<Option<_>>()?;
    Some((name.to_owned(), ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_kept() {
        let mut ports = Ports::new();
        assign(&mut ports, "a", 2, 7).unwrap();
        assign(&mut ports, "b", 1, 7).unwrap();
        let before = ports.clone();
        assign(&mut ports, "a", 2, 99).unwrap();
        assert_eq!(ports, before);
        assert!(!ports["a"].contains(&ports["b"][0]));
    }

    #[test]
    fn ports_read_as_they_were_written() {
        assert_eq!(parse(line("etcd", &[20_001, 20_002]).trim_end()).unwrap().1, [20_001, 20_002]);
        assert_eq!(parse("etcd=many"), None);
    }
}
