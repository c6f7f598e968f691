//! Rows by name, in order of their creation, that know which of them changed.
//!
//! Rows are shared: who writes or shows them elsewhere keeps the row as it was, and the next change
//! makes a copy. Invariant: there is no way to change a row without its name being noted.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A row as it was at some time.
#[derive(Debug)]
pub(super) struct Row<V>(Arc<V>);

impl<V: Serialize> Serialize for Row<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Row<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        V::deserialize(deserializer).map(|row| Self(Arc::new(row)))
    }
}

/// Some rows of a table, by name; None for one that is gone.
pub(super) type Rows<V> = IndexMap<String, Option<Row<V>>>;

/// Rows by name.
#[derive(Debug)]
pub(crate) struct Table<V> {
    rows: IndexMap<String, Arc<V>>,
    changed: IndexSet<String>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            rows: IndexMap::new(),
            changed: IndexSet::new(),
        }
    }
}

impl<V> Table<V> {
    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.rows.get(name).map(Arc::as_ref)
    }

    pub(crate) fn contains_key(&self, name: &str) -> bool {
        self.rows.contains_key(name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.rows.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.rows.values().map(Arc::as_ref)
    }

    /// Names and rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &V)> {
        self.rows.iter().map(|(name, row)| (name, row.as_ref()))
    }

    /// These rows as they are now, whatever becomes of them.
    pub(super) fn rows(&self, names: &IndexSet<String>) -> Rows<V> {
        names
            .iter()
            .map(|name| (name.clone(), self.rows.get(name).cloned().map(Row)))
            .collect()
    }

    /// Takes in rows of an earlier time; none of them counts as changed.
    pub(super) fn restore(&mut self, rows: Rows<V>) {
        for (name, row) in rows {
            match row {
                Some(row) => self.rows.insert(name, row.0),
                None => self.rows.shift_remove(&name),
            };
        }
    }

    /// Adds or replaces a row.
    pub(crate) fn insert(&mut self, name: String, row: V) {
        self.changed.insert(name.clone());
        self.rows.insert(name, Arc::new(row));
    }

    /// Removes a row; the others keep their order.
    pub(crate) fn shift_remove(&mut self, name: &str) {
        if self.rows.shift_remove(name).is_some() {
            self.changed.insert(name.to_owned());
        }
    }

    /// The names that changed since the last time.
    pub(super) fn take_changed(&mut self) -> IndexSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// A copy that shares the rows.
    pub(super) fn snapshot(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            changed: IndexSet::new(),
        }
    }
}

impl<V: Clone> Table<V> {
    /// A row to change; it counts as changed.
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let row = self.rows.get_mut(name)?;
        self.changed.insert(name.to_owned());
        Some(Arc::make_mut(row))
    }

    /// Every row to change; all of them count as changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.changed.extend(self.rows.keys().cloned());
        self.rows.values_mut().map(Arc::make_mut)
    }

    /// A row to change, made when there is none.
    pub(crate) fn row(&mut self, name: &str) -> &mut V
    where
        V: Default,
    {
        self.changed.insert(name.to_owned());
        Arc::make_mut(self.rows.entry(name.to_owned()).or_default())
    }

    /// Lets `update` see to a row, beside all rows as they were before, and says whether that changed it; when
    /// not, the row counts as untouched. None when there is no such row.
    pub(crate) fn update<T>(
        &mut self,
        name: &str,
        update: impl FnOnce(&mut V, &Self) -> T,
    ) -> Option<(T, bool)>
    where
        V: PartialEq,
    {
        let mut row = Arc::clone(self.rows.get(name)?);
        let value = update(Arc::make_mut(&mut row), self);
        let before = self.rows.get_mut(name)?;
        let changed = row != *before;
        if changed {
            self.changed.insert(name.to_owned());
            *before = row;
        }
        Some((value, changed))
    }
}

impl<V: Serialize> Serialize for Table<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.rows.iter().map(|(name, row)| (name, row.as_ref())))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = IndexMap::<String, V>::deserialize(deserializer)?;
        Ok(Self {
            rows: rows
                .into_iter()
                .map(|(name, row)| (name, Arc::new(row)))
                .collect(),
            changed: IndexSet::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn every_change_is_noted_and_what_changed_nothing_is_not() {
        let mut table = Table::default();
        table.insert("one".to_owned(), 1);
        table.insert("two".to_owned(), 2);
        assert_eq!(table.take_changed().len(), 2);
        assert_eq!(table.update("one", |row, _| *row = 1), Some(((), false)));
        assert_eq!(table.update("none", |row, _| *row = 1), None);
        assert!(table.take_changed().is_empty());
        assert_eq!(
            table.update("one", |row, all| *row = 6 + all.get("one").unwrap()),
            Some(((), true))
        );
        *table.get_mut("two").unwrap() = 8;
        *table.row("three") += 9;
        let changed = table.take_changed();
        let kept = table.rows(&changed);
        table.shift_remove("one");
        table.shift_remove("none");
        assert_eq!(table.take_changed().iter().collect::<Vec<_>>(), ["one"]);
        assert_eq!(table.values().copied().collect::<Vec<i32>>(), [8, 9]);
        let kept = serde_json::to_string(&kept).unwrap();
        assert_eq!(kept, r#"{"one":7,"two":8,"three":9}"#);
    }
}
