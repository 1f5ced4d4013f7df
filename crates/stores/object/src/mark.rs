//! The mark of a store, in an object of its own beside the namespaces.

use object_store::PutOptions;
use tenure_core::record_store::{Expected, Written, store_key};
use tenure_core::{Error, ErrorKind, Operation, cluster};

use crate::records::Objects;

/// Compares the store's mark with the one that is asked for, and gives it to a store that has no
/// records yet.
///
/// # Errors
/// `Misconfigured`: it bears another, or none.
pub(crate) async fn compare(objects: &Objects, wanted: Option<&str>) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let mut found = read(objects).await?;
    if found.is_none() {
        let id = objects.bucket.fetch(&objects.keys.record(&store_key())).await?;
        if id.is_none() {
            write(objects, wanted).await?;
            found = read(objects).await?;
        }
    }
    cluster::compare(Some(wanted), found.as_deref())
}

/// Gives the store its mark.
///
/// # Errors
/// `Misconfigured`: it bears another already.
pub(crate) async fn give(objects: &Objects, mark: &str) -> Result<(), Error> {
    cluster::check(mark)?;
    write(objects, mark).await?;
    match read(objects).await? {
        Some(found) if found == mark => Ok(()),
        _ => Err(cluster::taken(mark)),
    }
}

/// What is there stays: a mark is never changed. What is read back counts.
async fn write(objects: &Objects, mark: &str) -> Result<Option<Written>, Error> {
    let bytes = serde_json::json!({ "format": 1, "cluster": mark }).to_string();
    let object = objects.keys.own("mark");
    let options = PutOptions::default();
    match objects.bucket.write(&object, bytes.as_bytes(), Expected::Absent, options).await {
        Ok(written) => Ok(Some(written)),
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Ok(None),
        Err(error) => Err(error.during(Operation::Init)),
    }
}

async fn read(objects: &Objects) -> Result<Option<String>, Error> {
    let Some(fetched) = objects.bucket.fetch(&objects.keys.own("mark")).await? else {
        return Ok(None);
    };
    let mark = serde_json::from_slice::<serde_json::Value>(&fetched.bytes)
        .ok()
        .and_then(|value| value.get("cluster")?.as_str().map(str::to_owned));
    mark.map(Some).ok_or_else(|| {
        let message = "the store's mark (`@mark`) can't be read; nothing was overwritten";
        Error::new(ErrorKind::Corrupt, Operation::Open, message)
    })
}
