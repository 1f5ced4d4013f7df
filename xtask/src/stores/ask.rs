//! One question to a port, and all that is answered until the server closes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, and each read, may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// Sends `question` to a local port and reads to the end. The question must be one after which
/// the server closes.
pub(super) fn ask(port: u16, question: &str) -> Result<String, String> {
    let asked = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    asked().map_err(|error: std::io::Error| format!("127.0.0.1:{port}: {error}"))
}

/// Asks, and wants the answer to contain `wanted`.
pub(super) fn expect(port: u16, question: &str, wanted: &str) -> Result<(), String> {
    let answer = ask(port, question)?;
    if answer.contains(wanted) {
        return Ok(());
    }
    Err(format!("127.0.0.1:{port} answers {:?} to {:?}", answer.trim(), question.trim()))
}
