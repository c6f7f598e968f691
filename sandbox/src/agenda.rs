//! What is due when: at most one time per key, the earliest first.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Time;

/// Keys with the time at which each is due. Keys of the same time come in their own order.
#[derive(Debug)]
pub(crate) struct Agenda<K> {
    times: BTreeSet<(Time, K)>,
    of: BTreeMap<K, Time>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self {
            times: BTreeSet::new(),
            of: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// Makes `key` due at `time` instead of whenever it was; None: not at all.
    pub(crate) fn set(&mut self, key: &K, time: Option<Time>) {
        let before = match time {
            Some(time) => self.of.insert(key.clone(), time),
            None => self.of.remove(key),
        };
        if before == time {
            return;
        }
        if let Some(before) = before {
            self.times.remove(&(before, key.clone()));
        }
        self.times.extend(time.map(|time| (time, key.clone())));
    }

    /// The earliest time.
    pub(crate) fn first(&self) -> Option<Time> {
        self.times.first().map(|(time, _)| *time)
    }

    /// Takes out the first key that is due by `now`.
    pub(crate) fn take(&mut self, now: Time) -> Option<K> {
        if self.first()? > now {
            return None;
        }
        let (_, key) = self.times.pop_first()?;
        self.of.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::Agenda;
    use crate::clock::Time;

    #[test]
    fn the_earliest_comes_first_and_a_key_is_due_once() {
        let mut agenda = Agenda::default();
        agenda.set(&'b', Some(Time(5)));
        agenda.set(&'a', Some(Time(5)));
        agenda.set(&'c', Some(Time(3)));
        agenda.set(&'c', Some(Time(9)));
        agenda.set(&'d', Some(Time(1)));
        agenda.set(&'d', None);
        assert_eq!(agenda.first(), Some(Time(5)));
        assert_eq!(agenda.take(Time(4)), None);
        assert_eq!(agenda.take(Time(5)), Some('a'));
        assert_eq!(agenda.take(Time(5)), Some('b'));
        assert_eq!(agenda.take(Time(5)), None);
        assert_eq!(agenda.take(Time(9)), Some('c'));
        assert_eq!(agenda.first(), None);
    }
}
