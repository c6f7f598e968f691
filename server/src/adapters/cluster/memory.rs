//! Remembers what never changes, up to a limit.

use indexmap::IndexMap;
use std::sync::{Mutex, PoisonError};

/// Entries that are kept; the oldest go first.
const MOST: usize = 2_000;

/// A bounded memory by name.
pub(super) struct Memory<V>(Mutex<IndexMap<String, V>>);

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self(Mutex::new(IndexMap::new()))
    }
}

impl<V: Clone> Memory<V> {
    pub(super) fn get(&self, key: &str) -> Option<V> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    pub(super) fn keep(&self, key: &str, value: V) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST && !entries.contains_key(key) {
            entries.shift_remove_index(0);
        }
        entries.insert(key.to_owned(), value);
    }
}
