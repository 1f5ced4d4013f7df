//! The last state of the objects that are asked for again and again, so that a poll of one that
//! didn't change is an answer without a body.

use std::collections::HashMap;

use object_store::path::Path;

use crate::tag::Tag;

/// How many objects are remembered; beyond that the one that was looked at longest ago goes.
const OBJECTS_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Seen {
    objects: HashMap<Path, Entry>,
    looks: u64,
}

struct Entry {
    tag: Tag,
    bytes: Vec<u8>,
    looked: u64,
}

impl Seen {
    pub(crate) fn get(&mut self, object: &Path) -> Option<(Tag, Vec<u8>)> {
        self.looks += 1;
        let entry = self.objects.get_mut(object)?;
        entry.looked = self.looks;
        Some((entry.tag.clone(), entry.bytes.clone()))
    }

    pub(crate) fn put(&mut self, object: &Path, tag: &Tag, bytes: &[u8]) {
        if self.objects.len() >= OBJECTS_MAX && !self.objects.contains_key(object) {
            let oldest = self.objects.iter().min_by_key(|(_, entry)| entry.looked);
            if let Some(oldest) = oldest.map(|(object, _)| object.clone()) {
                self.objects.remove(&oldest);
            }
        }
        self.looks += 1;
        let entry = Entry { tag: tag.clone(), bytes: bytes.to_vec(), looked: self.looks };
        self.objects.insert(object.clone(), entry);
    }

    pub(crate) fn forget(&mut self, object: &Path) {
        self.objects.remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::PutResult;

    #[test]
    fn what_is_looked_at_stays() {
        let result =
            PutResult { e_tag: Some("1".into()), version: None, extensions: Default::default() };
        let tag = Tag::of_write(&result, false).expect("a tag");
        let mut seen = Seen::default();
        let object = |n: usize| Path::from(format!("o/{n}"));
        for n in 0..OBJECTS_MAX * 2 {
            seen.put(&object(n), &tag, b"x");
            assert!(seen.get(&object(0)).is_some(), "lost after {n}");
        }
        assert_eq!(seen.objects.len(), OBJECTS_MAX);
        assert!(seen.get(&object(1)).is_none());
    }
}
