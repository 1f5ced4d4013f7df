//! The fault proxy before a real echo server: what each fault does to bytes, and what is counted.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tenure_conformance::drive::block_on;
use tenure_conformance::proxy::{Direction, Fault, FaultProxy, HELD_MAX, Then};

/// Far longer than anything here takes: only a fault of the proxy lets it run out.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long we look for something that must not come.
const GLANCE: Duration = Duration::from_millis(50);

/// Sends back what it gets, and remembers it.
struct Echo {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let remembers = heard.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, remembers) = (stream.unwrap(), remembers.clone());
                thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        remembers.lock().unwrap().extend_from_slice(&bytes[..count]);
                        if stream.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

fn scene() -> (Echo, FaultProxy, TcpStream) {
    let echo = Echo::start();
    let proxy = FaultProxy::start(echo.address).unwrap();
    let client = connect(&proxy);
    (echo, proxy, client)
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn say(client: &mut TcpStream, words: &str) {
    client.write_all(words.as_bytes()).unwrap();
}

fn hear(client: &mut TcpStream, words: &str) {
    let mut bytes = vec![0; words.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, words.as_bytes());
}

fn round_trip(client: &mut TcpStream, words: &str) {
    say(client, words);
    hear(client, words);
}

fn hears_nothing(client: &mut TcpStream) {
    client.set_read_timeout(Some(GLANCE)).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn is_reset(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn is_closed(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Waits until so many runs of bytes have come from clients and from the server.
fn until(proxy: &FaultProxy, requests: u64, answers: u64) {
    block_on(proxy.until(|seen| seen.requests.runs >= requests && seen.answers.runs >= answers));
}

#[test]
fn without_a_fault_all_passes_and_is_counted() {
    let (_echo, proxy, mut client) = scene();
    for _ in 0..3 {
        round_trip(&mut client, "hello");
    }
    let mut another = connect(&proxy);
    round_trip(&mut another, "hi");
    let count = proxy.count();
    assert_eq!(count.connections, 2);
    assert_eq!((count.requests.bytes, count.answers.bytes), (17, 17));
    assert_eq!((count.turns(), count.answers.runs), (4, 4));
}

#[test]
fn requests_sent_together_are_one_turn_however_many_packets_they_take() {
    let (_echo, proxy, mut client) = scene();
    let before = proxy.count();
    proxy.set(Fault::Hold(Direction::Requests));
    for part in 1..=10 {
        say(&mut client, "ab");
        block_on(proxy.until(|count| count.requests.bytes == 2 * part));
    }
    proxy.heal();
    hear(&mut client, "abababababababababab");
    assert_eq!((proxy.count() - before).turns(), 1);
}

#[test]
fn megabytes_pass_whole_in_both_directions() {
    let (_echo, proxy, mut client) = scene();
    let much: Vec<u8> =
        (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let mut writer = client.try_clone().unwrap();
    let sent = much.clone();
    let sending = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; much.len()];
    client.read_exact(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == much);
    assert_eq!(proxy.count().requests.bytes, much.len() as u64);
}

#[test]
fn a_client_that_is_done_sending_still_hears_the_answer_and_the_end() {
    let (_echo, _proxy, mut client) = scene();
    say(&mut client, "last words");
    client.shutdown(Shutdown::Write).unwrap();
    hear(&mut client, "last words");
    is_closed(&mut client);
}

#[test]
fn each_direction_is_delayed_by_its_own_time_and_not_slowed_down() {
    let (_echo, proxy, mut client) = scene();
    let [requests, answers] = [60, 90].map(Duration::from_millis);
    proxy.set(Fault::Delay { requests, answers });
    let begun = Instant::now();
    for _ in 0..20 {
        say(&mut client, "x");
    }
    hear(&mut client, "xxxxxxxxxxxxxxxxxxxx");
    assert!(begun.elapsed() >= requests + answers, "{:?}", begun.elapsed());

    // What is on its way when the fault is healed waits no longer.
    let hour = Duration::from_secs(3600);
    proxy.set(Fault::Delay { requests: hour, answers: hour });
    say(&mut client, "y");
    until(&proxy, 2, 1);
    proxy.heal();
    hear(&mut client, "y");
}

#[test]
fn held_requests_are_delivered_in_order_when_it_heals() {
    let (echo, proxy, mut client) = scene();
    proxy.set(Fault::Hold(Direction::Requests));
    say(&mut client, "one ");
    say(&mut client, "two");
    block_on(proxy.until(|count| count.requests.bytes == 7));
    hears_nothing(&mut client);
    assert_eq!(echo.heard(), b"");
    proxy.heal();
    hear(&mut client, "one two");
}

#[test]
fn held_answers_have_been_given_by_the_server() {
    let (echo, proxy, mut client) = scene();
    proxy.set(Fault::Hold(Direction::Answers));
    say(&mut client, "write");
    until(&proxy, 1, 1);
    assert_eq!(echo.heard(), b"write");
    hears_nothing(&mut client);
    proxy.heal();
    hear(&mut client, "write");
}

#[test]
fn a_held_request_reaches_the_server_late_although_its_client_has_left() {
    let (echo, proxy, mut client) = scene();
    proxy.set(Fault::Hold(Direction::Both));
    say(&mut client, "too late");
    until(&proxy, 1, 0);
    drop(client);
    assert_eq!(echo.heard(), b"");
    proxy.heal();
    until(&proxy, 1, 1);
    assert_eq!(echo.heard(), b"too late");
}

#[test]
fn what_is_held_is_bounded() {
    let (_echo, proxy, mut client) = scene();
    proxy.set(Fault::Hold(Direction::Requests));
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let much = vec![0; 64 * 1024];
    while client.write(&much).is_ok() {}
    let held = proxy.count().requests.bytes;
    let most = (HELD_MAX + 64 * 1024) as u64;
    assert!(held <= most, "{held} bytes were read");
}

#[test]
fn a_dropped_answer_was_given_and_nobody_hears_it() {
    let (echo, proxy, mut client) = scene();
    round_trip(&mut client, "before ");
    proxy.set(Fault::drop_answers());
    say(&mut client, "commit");
    until(&proxy, 2, 2);
    assert_eq!(echo.heard(), b"before commit");
    hears_nothing(&mut client);
    // Requests still reach the server.
    say(&mut client, ";more");
    until(&proxy, 3, 3);
    assert_eq!(echo.heard(), b"before commit;more");
    // Answers are missing, so none may follow them.
    proxy.heal();
    is_reset(&mut client);
    round_trip(&mut connect(&proxy), "new");
}

#[test]
fn so_many_answers_pass_before_one_is_dropped() {
    let (echo, proxy, mut client) = scene();
    round_trip(&mut client, "0");
    proxy.set(Fault::DropAnswers { pass: 2, then: Then::Close });
    round_trip(&mut client, "1");
    round_trip(&mut client, "2");
    say(&mut client, "3");
    is_closed(&mut client);
    assert_eq!(echo.heard(), b"0123");

    let mut another = connect(&proxy);
    round_trip(&mut another, "4");
    round_trip(&mut another, "5");
    say(&mut another, "6");
    is_closed(&mut another);
    assert_eq!(echo.heard(), b"0123456");
}

#[test]
fn a_connection_can_be_reset_in_place_of_an_answer() {
    let (echo, proxy, mut client) = scene();
    proxy.set(Fault::DropAnswers { pass: 0, then: Then::Reset });
    say(&mut client, "commit");
    is_reset(&mut client);
    assert_eq!(echo.heard(), b"commit");
}

#[test]
fn a_reset_meets_existing_connections_and_new_ones() {
    let (_echo, proxy, mut client) = scene();
    round_trip(&mut client, "before");
    proxy.set(Fault::Reset);
    is_reset(&mut client);
    let mut new = connect(&proxy);
    is_reset(&mut new);
    proxy.heal();
    round_trip(&mut connect(&proxy), "after");
}

#[test]
fn a_half_open_connection_reads_nothing_and_goes_on_when_it_heals() {
    let (echo, proxy, mut client) = scene();
    round_trip(&mut client, "before ");
    proxy.set(Fault::HalfOpen);
    say(&mut client, "during");
    hears_nothing(&mut client);
    let mut new = connect(&proxy);
    say(&mut new, " new");
    hears_nothing(&mut new);
    assert_eq!(echo.heard(), b"before ");
    assert_eq!(proxy.count().requests.bytes, 7);
    proxy.heal();
    hear(&mut client, "during");
    hear(&mut new, " new");
}

#[test]
fn a_half_open_connection_s_sender_finds_in_the_end_that_it_can_t_write() {
    let (_echo, proxy, mut client) = scene();
    proxy.set(Fault::HalfOpen);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let much = vec![0; 1024 * 1024];
    let mut written = 0;
    while let Ok(count) = client.write(&much) {
        written += count;
        assert!(written < 1_000_000_000, "the proxy reads");
    }
    assert_eq!(proxy.count().requests.bytes, 0);
}

#[test]
fn a_black_hole_swallows_all_and_what_lost_bytes_is_reset() {
    let (echo, proxy, mut client) = scene();
    round_trip(&mut client, "before");
    let mut idle = connect(&proxy);
    round_trip(&mut idle, " idle");
    proxy.set(Fault::BlackHole);
    say(&mut client, "gone");
    let mut new = connect(&proxy);
    say(&mut new, "gone, too");
    block_on(proxy.until(|count| count.requests.bytes == 24));
    hears_nothing(&mut client);
    hears_nothing(&mut new);
    assert_eq!(echo.heard(), b"before idle");
    proxy.heal();
    is_reset(&mut client);
    is_reset(&mut new);
    // It lost nothing, so it goes on.
    round_trip(&mut idle, "still here");
}

#[test]
fn new_connections_are_refused_and_existing_ones_go_on() {
    let (_echo, proxy, mut client) = scene();
    round_trip(&mut client, "a");
    for _ in 0..3 {
        proxy.set(Fault::Refuse);
        let refused = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        round_trip(&mut client, "b");
        proxy.heal();
        round_trip(&mut connect(&proxy), "c");
    }
}

#[test]
fn a_refused_port_is_never_the_kernel_s_choice_for_another() {
    let (_echo, proxy, _client) = scene();
    proxy.set(Fault::Refuse);
    let others: Vec<_> = (0..200).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    assert!(others.iter().all(|other| other.local_addr().unwrap() != proxy.address()));
    proxy.heal();
    round_trip(&mut connect(&proxy), "still ours");
}

#[test]
fn a_fault_can_be_for_new_or_for_existing_connections_alone() {
    let (_echo, proxy, mut client) = scene();
    round_trip(&mut client, "a");
    proxy.set_for_new(Fault::Reset);
    is_reset(&mut connect(&proxy));
    round_trip(&mut client, "b");

    proxy.heal();
    proxy.set_for_existing(Fault::HalfOpen);
    say(&mut client, "c");
    round_trip(&mut connect(&proxy), "d");
    hears_nothing(&mut client);
    proxy.set_for_existing(Fault::Pass);
    hear(&mut client, "c");
}

#[test]
fn a_server_that_is_down_is_a_reset() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(nobody).unwrap();
    is_reset(&mut connect(&proxy));
}

#[test]
fn a_server_s_end_reaches_the_client() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(server.local_addr().unwrap()).unwrap();
    let mut client = connect(&proxy);
    let (mut accepted, _) = server.accept().unwrap();
    say(&mut accepted, "bye");
    drop(accepted);
    hear(&mut client, "bye");
    is_closed(&mut client);
}

#[test]
fn dropping_the_proxy_closes_everything() {
    let (_echo, proxy, mut client) = scene();
    round_trip(&mut client, "a");
    let address = proxy.address();
    drop(proxy);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn changes_under_load_never_leave_a_gap_in_a_stream() {
    let echo = Echo::start();
    let proxy = FaultProxy::start(echo.address).unwrap();
    let faults = [
        Fault::Pass,
        Fault::Hold(Direction::Both),
        Fault::HalfOpen,
        Fault::BlackHole,
        Fault::drop_answers(),
        Fault::DropAnswers { pass: 1, then: Then::Close },
        Fault::Delay { requests: Duration::from_millis(1), answers: Duration::from_millis(2) },
        Fault::Reset,
        Fault::Refuse,
    ];
    let over = Arc::new(AtomicBool::new(false));
    let talkers: Vec<_> = (0..4)
        .map(|_| {
            let (address, over) = (proxy.address(), over.clone());
            thread::spawn(move || {
                let is_over = || over.load(Ordering::Relaxed);
                while !is_over() {
                    let Ok(mut client) = TcpStream::connect(address) else { continue };
                    client.set_read_timeout(Some(GLANCE)).unwrap();
                    let mut answer = [0; 8];
                    for turn in (0_u64..).take_while(|_| !is_over()) {
                        if client.write_all(&turn.to_le_bytes()).is_err()
                            || client.read_exact(&mut answer).is_err()
                        {
                            break;
                        }
                        assert_eq!(u64::from_le_bytes(answer), turn);
                    }
                }
            })
        })
        .collect();
    for round in 0..200 {
        proxy.set(faults[round * 7 % faults.len()]);
        // Some bytes meet the fault.
        thread::sleep(Duration::from_millis(2));
        if round % 5 == 0 {
            proxy.heal();
            let before = proxy.count().answers.runs;
            block_on(proxy.until(|count| count.answers.runs > before + 20));
        }
    }
    over.store(true, Ordering::Relaxed);
    proxy.heal();
    talkers.into_iter().for_each(|talker| talker.join().unwrap());
}
