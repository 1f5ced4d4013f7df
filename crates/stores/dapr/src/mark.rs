//! The mark of a store, in a value of its own beside the namespaces.

use tenure_core::record_store::{Expected, store_key};
use tenure_core::{Error, ErrorKind, Operation, cluster};

use crate::records::Records;

/// Compares the store's mark with the one that is asked for, and gives it to a store that has no
/// records yet.
///
/// # Errors
/// `Misconfigured`: it bears another, or none.
pub(crate) async fn compare(records: &Records, wanted: Option<&str>) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut found = read(records).await?;
    if found.is_none() && records.values.read(&records.keys.record(&store_key())).await?.is_none() {
        write(records, wanted).await?;
        found = read(records).await?;
    }
    cluster::compare(Some(wanted), found.as_deref())
}

/// Gives the store its mark.
///
/// # Errors
/// `Misconfigured`: it bears another already.
pub(crate) async fn give(records: &Records, mark: &str) -> Result<(), Error> {
    cluster::check(mark)?;
    write(records, mark).await?;
    match read(records).await? {
        Some(found) if found == mark => Ok(()),
        _ => Err(cluster::taken(mark)),
    }
}

/// What is there stays: a mark is never changed. What is read back counts.
async fn write(records: &Records, mark: &str) -> Result<(), Error> {
    let bytes = serde_json::json!({ "format": 1, "cluster": mark }).to_string();
    match records.values.write_if(&records.keys.mark(), bytes.as_bytes(), Expected::Absent).await {
        Err(error) if error.kind() != ErrorKind::OutcomeUnknown => {
            Err(error.during(Operation::Init))
        }
        _ => Ok(()),
    }
}

async fn read(records: &Records) -> Result<Option<String>, Error> {
    let Some(stored) = records.values.read(&records.keys.mark()).await? else { return Ok(None) };
    let mark = serde_json::from_slice::<serde_json::Value>(&stored.bytes)
        .ok()
        .and_then(|value| value.get("cluster")?.as_str().map(str::to_owned));
    mark.map(Some).ok_or_else(|| {
        let message = "the store's mark can't be read; nothing was overwritten";
        Error::new(ErrorKind::Corrupt, Operation::Open, message)
    })
}
