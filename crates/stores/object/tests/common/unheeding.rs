//! An endpoint as many are that call themselves S3-compatible: the real server, which never gets to
//! see one kind of condition.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Listens on a free port of 127.0.0.1, for as long as the test's process lives, and passes all on
/// to the server but for the name of one header, which is changed to one that means nothing.
pub fn endpoint(server: SocketAddr, header: &'static str) -> SocketAddr {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    thread::spawn(move || {
        for client in port.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            let (answers, back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || pass_on(client, server, header.as_bytes()));
            thread::spawn(move || pass_on(answers, back, &[]));
        }
    });
    address
}

/// Passes bytes on until either side ends, with each `word` spoilt in its first letter.
fn pass_on(mut from: TcpStream, mut to: TcpStream, word: &[u8]) {
    let mut held = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        held.extend_from_slice(&chunk[..length]);
        let mut at = 0;
        while !word.is_empty() && at + word.len() <= held.len() {
            if held[at..at + word.len()].eq_ignore_ascii_case(word) {
                held[at] = b'x';
            }
            at += 1;
        }
        // The beginning of a word may end here; no request ends with one.
        let begun = (1..word.len()).rev().find(|n| held.ends_with(&word[..*n])).unwrap_or(0);
        let rest = held.split_off(held.len() - begun);
        if to.write_all(&held).is_err() {
            break;
        }
        held = rest;
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
