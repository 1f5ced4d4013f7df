//! What an idle session takes must not grow: memory, tasks, threads, files, connections; nor
//! connections with the number of names it holds.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::idler;
use crate::place::Place;
use crate::wire::Wire;

/// How much memory may grow after the warm-up: what a beat or two that the machine delayed leave in
/// pieces. Eight bytes for each of 1000 holds and 300 beats would be more.
const MEMORY_GROWTH_KIB: u64 = 2048;
/// The share of samples that warms up: the pool, the allocator's arenas, the server's plans.
const WARM_UP: usize = 4;

/// What an idler took at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    beats: u64,
    kib: u64,
    tasks: u64,
    threads: u64,
    files: u64,
    sockets: u64,
    lost: u64,
}

/// What an idler took from its warm-up on.
pub(crate) struct Idled {
    warm: Sample,
    last: Sample,
    most_kib: u64,
    /// Connections made in all.
    made: u64,
}

/// Lets a session hold so many names for so many beats, and asserts that nothing grew.
pub(crate) fn idle(place: Place, holds: u64, beats: u64, ttl: Duration) -> Idled {
    let _alone = place.alone();
    let folder = place.folder("idler", holds);
    let url = place.url(&folder);
    Place::init(&url);
    let wire = Wire::to(&url);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["idler", "--exact", "--ignored", "--nocapture"]);
    command.env(idler::URL, &wire.url).env(idler::HOLDS, holds.to_string());
    command.env(idler::BEATS, beats.to_string());
    command.env(idler::TTL_MS, ttl.as_millis().to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let samples: Vec<Sample> = lines.filter_map(|line| sample(&line.unwrap())).collect();
    assert!(child.wait().unwrap().success(), "the idler failed; what it said stands above");
    let made = wire.seen().connections;
    drop(wire);
    place.clear(&url);
    std::fs::remove_dir_all(&folder).unwrap();
    let idled = Idled::of(&samples, made);
    idled.print(place, holds);
    println!("  KiB: {:?}", samples.iter().map(|sample| sample.kib).collect::<Vec<_>>());
    idled.is_flat(beats, holds);
    idled
}

fn sample(line: &str) -> Option<Sample> {
    let numbers = line.strip_prefix(idler::LINE)?.split_ascii_whitespace();
    let numbers: Vec<u64> = numbers.map_while(|number| number.parse().ok()).collect();
    let [beats, kib, tasks, threads, files, sockets, lost] = numbers.try_into().ok()?;
    Some(Sample { beats, kib, tasks, threads, files, sockets, lost })
}

impl Idled {
    fn of(samples: &[Sample], made: u64) -> Self {
        let after = &samples[samples.len() / WARM_UP..];
        let [warm, .., last] = after else { panic!("{} samples are too few", samples.len()) };
        let most_kib = after.iter().map(|sample| sample.kib).max().unwrap_or(0);
        Self { warm: *warm, last: *last, most_kib, made }
    }

    fn print(&self, place: Place, holds: u64) {
        let (warm, last) = (self.warm, self.last);
        println!(
            "{}, {holds} holds, beat {} to {}: {} to {} KiB (at most {}), {} to {} tasks, {} to {} \
             threads, {} to {} files, {} to {} sockets, {} connections made, {} holds lost",
            place.name(),
            warm.beats,
            last.beats,
            warm.kib,
            last.kib,
            self.most_kib,
            warm.tasks,
            last.tasks,
            warm.threads,
            last.threads,
            warm.files,
            last.files,
            warm.sockets,
            last.sockets,
            self.made,
            last.lost,
        );
    }

    fn is_flat(&self, beats: u64, holds: u64) {
        let (warm, last) = (self.warm, self.last);
        assert_eq!(last.beats, beats);
        // A machine that stands still for a second loses holds, and would take less.
        assert!(last.lost * 2 <= holds, "{} of {holds} holds were lost", last.lost);
        assert!(last.tasks <= warm.tasks, "tasks grew");
        assert!(last.threads <= warm.threads, "threads grew");
        assert!(last.files <= warm.files, "files grew");
        assert!(last.sockets <= warm.sockets, "connections grew");
        assert!(last.kib <= warm.kib + MEMORY_GROWTH_KIB, "memory grew");
    }

    /// Asserts that another number of holds took as many connections.
    pub(crate) fn as_many_connections(&self, other: &Self) {
        assert_eq!(self.last.sockets, other.last.sockets, "connections grow with holds");
    }
}
