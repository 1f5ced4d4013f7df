//! The high-water file.

use std::path::PathBuf;

use tenure::FencingToken;
use tenure::guard::{GuardError, HighWaterFile};

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn path(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("tenure-behaviours-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

#[test]
fn guard_rejects_older() {
    let guard = HighWaterFile::new(path("rejects"));
    guard.guard(token(7), || ()).unwrap();
    let refused = guard.guard(token(6), || panic!("a stale holder's effect ran"));
    assert!(matches!(
        refused,
        Err(GuardError::Stale { token: refused, newest, .. })
            if refused == token(6) && newest == token(7)
    ));
}

#[test]
fn guard_accepts_equal_and_newer() {
    let guard = HighWaterFile::new(path("accepts"));
    for number in [3, 3, 4, 9, 9] {
        assert_eq!(guard.guard(token(number), || number).unwrap(), number);
    }
}

#[test]
fn guard_survives_restart() {
    let path = path("survives");
    HighWaterFile::new(&path).guard(token(7), || ()).unwrap();
    let again = HighWaterFile::new(&path);
    assert_eq!(again.newest().unwrap(), Some(token(7)));
    assert!(again.guard(token(6), || ()).is_err());
}
