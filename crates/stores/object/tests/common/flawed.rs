//! A small object store that has one flaw at a time, as published ones have, for any session to
//! open as its host's client.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tenure_object::object_store::path::Path;
use tenure_object::object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: the control.
    None,
    /// `If-Match` is ignored where the object is there.
    IgnoresIfMatch,
    /// `If-None-Match: *` is ignored.
    IgnoresIfNoneMatch,
    /// `If-Match` on a missing object makes one.
    MakesMissing,
    /// The condition is checked, and then the write is done.
    ChecksThenActs,
    /// The etag is a hash of the content, as S3's is. No flaw: our writes are never byte-equal.
    ContentTag,
    /// The first reads after a write still find what was there before; by luck not those of the
    /// probe of an opening, which would refuse it.
    ReadsLate,
}

/// How many reads still find the state before.
const LATE_READS: usize = 2;

/// The store.
#[derive(Debug)]
pub struct Flawed {
    flaw: Flaw,
    objects: Arc<Mutex<HashMap<Path, Object>>>,
    writes: Mutex<u64>,
}

#[derive(Clone, Debug, Default)]
struct Object {
    now: Option<State>,
    before: Option<State>,
    /// How many reads of `before` are left.
    late: usize,
}

#[derive(Clone, Debug)]
struct State {
    bytes: Bytes,
    e_tag: String,
}

impl Flawed {
    pub fn with(flaw: Flaw) -> Arc<Self> {
        Arc::new(Self { flaw, objects: Arc::default(), writes: Mutex::default() })
    }

    fn tag(&self, bytes: &Bytes) -> String {
        if self.flaw == Flaw::ContentTag {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            return format!("\"{:x}\"", hasher.finish());
        }
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        format!("\"{writes}\"")
    }

    /// Whether a condition is met, as this store sees it.
    fn admits(&self, location: &Path, mode: &PutMode) -> Result<()> {
        let objects = self.objects.lock().unwrap();
        let now = objects.get(location).and_then(|object| object.now.as_ref());
        let (path, source) = (location.to_string(), Box::from("the condition isn't met"));
        match (mode, now) {
            (PutMode::Create, Some(_)) if self.flaw != Flaw::IgnoresIfNoneMatch => {
                Err(Error::AlreadyExists { path, source })
            }
            (PutMode::Update(_), None) if self.flaw != Flaw::MakesMissing => {
                Err(Error::Precondition { path, source })
            }
            (PutMode::Update(wanted), Some(now)) => {
                let same = wanted.e_tag.as_ref() == Some(&now.e_tag);
                if same || self.flaw == Flaw::IgnoresIfMatch {
                    Ok(())
                } else {
                    Err(Error::Precondition { path, source })
                }
            }
            _ => Ok(()),
        }
    }

    fn write(&self, location: &Path, bytes: Bytes) -> PutResult {
        let e_tag = self.tag(&bytes);
        let mut objects = self.objects.lock().unwrap();
        let object = objects.entry(location.clone()).or_default();
        let state = State { bytes, e_tag: e_tag.clone() };
        object.before = object.now.replace(state);
        let late = self.flaw == Flaw::ReadsLate && !location.as_ref().ends_with("=40probe");
        object.late = if late { LATE_READS } else { 0 };
        PutResult { e_tag: Some(e_tag), version: None, extensions: Default::default() }
    }

    fn read(&self, location: &Path) -> Option<State> {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(location)?;
        if object.late > 0 {
            object.late -= 1;
            return object.before.clone();
        }
        object.now.clone()
    }

    fn missing(operation: &str) -> Error {
        Error::NotImplemented { operation: operation.to_owned(), implementer: "flawed".to_owned() }
    }
}

fn meta(location: &Path, state: &State) -> ObjectMeta {
    ObjectMeta {
        location: location.clone(),
        last_modified: Default::default(),
        size: state.bytes.len() as u64,
        e_tag: Some(state.e_tag.clone()),
        version: None,
    }
}

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flawed({:?})", self.flaw)
    }
}

#[async_trait]
impl ObjectStore for Flawed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        if self.flaw == Flaw::ChecksThenActs {
            self.admits(location, &options.mode)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(self.write(location, bytes));
        }
        // One at a time: what is admitted is written.
        static WRITING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = WRITING.lock().await;
        self.admits(location, &options.mode)?;
        Ok(self.write(location, bytes))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // As over a network: whoever asks meanwhile reads the same.
        tokio::task::yield_now().await;
        let Some(state) = self.read(location) else {
            let source = Box::from("it isn't there");
            return Err(Error::NotFound { path: location.to_string(), source });
        };
        if options.if_none_match.as_ref() == Some(&state.e_tag) {
            let source = Box::from("it is the same");
            return Err(Error::NotModified { path: location.to_string(), source });
        }
        let meta = meta(location, &state);
        let size = meta.size;
        let bytes = state.bytes;
        let stream = stream::once(std::future::ready(Ok(bytes))).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream),
            meta,
            range: 0..size,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let objects = self.objects.lock().unwrap();
        let under = |location: &Path| prefix.is_none_or(|prefix| location.prefix_matches(prefix));
        let found: Vec<_> = objects
            .iter()
            .filter(|(location, _)| under(location))
            .filter_map(|(location, object)| Some(Ok(meta(location, object.now.as_ref()?))))
            .collect();
        stream::iter(found).boxed()
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let objects = Arc::clone(&self.objects);
        let delete = move |location: Result<Path>| {
            let location = location?;
            objects.lock().unwrap().remove(&location);
            Ok(location)
        };
        locations.map(delete).boxed()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Self::missing("put_multipart"))
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Self::missing("list_with_delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Self::missing("copy"))
    }
}
