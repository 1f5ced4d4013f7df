//! The mark of a store of records, in a record of its own beside the namespaces.

use crate::cluster;
use crate::error::{Error, ErrorKind, Operation};
use crate::identity::Name;
use crate::record_store::{Expected, RecordStore, store_key};

/// The record that holds the mark.
const MARK_KEY: &str = "@mark";

/// Compares the mark `beside` the namespaces with the one that is wanted, and gives it to a store
/// that has no `records` yet.
///
/// # Errors
/// [`Misconfigured`](ErrorKind::Misconfigured): it bears another, or none.
/// [`Corrupt`](ErrorKind::Corrupt): what stands there can't be read. Others as the store's.
///
/// # Cancel safety
/// The mark was given or not; the next comparison finds it either way.
pub async fn compare<R: RecordStore>(
    beside: &R,
    records: &R,
    wanted: Option<&str>,
) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut found = read(beside).await?;
    if found.is_none() && records.read(&[store_key()]).await?.pop().flatten().is_none() {
        write(beside, wanted).await?;
        found = read(beside).await?;
    }
    cluster::compare(Some(wanted), found.as_deref())
}

/// Gives a store its mark, for good.
///
/// # Errors
/// [`Misconfigured`](ErrorKind::Misconfigured): it bears another already.
/// [`Invalid`](ErrorKind::Invalid): `mark` can't be one. [`Corrupt`](ErrorKind::Corrupt): what
/// stands there can't be read. Others as the store's.
///
/// # Cancel safety
/// It was given or not; to give it again does no harm.
pub async fn give<R: RecordStore>(beside: &R, mark: &str) -> Result<(), Error> {
    cluster::check(mark)?;
    write(beside, mark).await?;
    match read(beside).await? {
        Some(found) if found == mark => Ok(()),
        _ => Err(cluster::taken(mark)),
    }
}

/// What is there stays: a mark is never changed. What is read back counts.
async fn write<R: RecordStore>(beside: &R, mark: &str) -> Result<(), Error> {
    let bytes = serde_json::json!({ "format": 1, "cluster": mark }).to_string();
    match beside.write_if(&key(), bytes.as_bytes(), Expected::Absent).await {
        Err(error) if error.kind() != ErrorKind::OutcomeUnknown => {
            Err(error.during(Operation::Init))
        }
        _ => Ok(()),
    }
}

async fn read<R: RecordStore>(beside: &R) -> Result<Option<String>, Error> {
    let Some(stored) = beside.read(&[key()]).await?.pop().flatten() else { return Ok(None) };
    let mark = serde_json::from_slice::<serde_json::Value>(&stored.bytes)
        .ok()
        .and_then(|value| value.get("cluster")?.as_str().map(str::to_owned));
    mark.map(Some).ok_or_else(|| {
        let message =
            format!("the store's mark (`{MARK_KEY}`) can't be read; nothing was overwritten");
        Error::new(ErrorKind::Corrupt, Operation::Open, message)
    })
}

fn key() -> Name {
    Name::reserved(MARK_KEY).expect("the key begins with @")
}
