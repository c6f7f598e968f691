//! The arithmetic of the audit trail: how an entry's hash follows from the entry and the one before
//! it, and which entry is the first that does not hold.
//!
//! Entries form *chains*: one per project and one for what concerns the whole installation. An entry's
//! hash is the SHA-256 of the hash before it (64 zeros before the first), a line feed, and the entry as
//! compact JSON without its `hash`, so `jq -c 'del(.hash)'` and `sha256sum` can check an export too.
//! Every chain has a *head*: how many entries it has and the last one's hash. Whoever can write to the
//! database can write a whole chain anew, head and all; a head that was noted elsewhere shows that.
//!
//! Pure: the store writes entries with it, the command line verifies an export with it. Knows nothing of
//! rows, files or HTTP.

use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;

#[cfg(test)]
mod tests;

/// What stands before the first entry of a chain.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Chain {
    /// Users, tokens: what concerns every project. Written `installation`.
    Installation,
    /// What concerns one project. Written `project/shop`.
    Project(ProjectName),
}

impl Chain {
    /// The chain of what belongs to a project, or to none.
    #[must_use]
    pub fn of(project: Option<&ProjectName>) -> Self {
        project.map_or(Self::Installation, |name| Self::Project(name.clone()))
    }

    /// The project, if it is one's.
    #[must_use]
    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Installation => None,
            Self::Project(name) => Some(name),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "installation" {
            return Some(Self::Installation);
        }
        let name = text.strip_prefix("project/")?;
        ProjectName::parse(name).ok().map(Self::Project)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("installation"),
            Self::Project(name) => write!(f, "project/{name}"),
        }
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.to_string()
    }
}

impl TryFrom<String> for Chain {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("`{text}` is neither `installation` nor `project/NAME`"))
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its chain.
    pub chain: Chain,
    /// Its place in the chain, from 1.
    pub position: u64,
    /// When, to a microsecond.
    pub at: Timestamp,
    /// What it is about: id of a run, release or deployment, `staging/web`, `user ada`.
    pub subject: String,
    /// Who: a person's name, a runner's id, or `Roadstead`.
    pub actor: String,
    /// What happened, a word.
    pub what: String,
    /// Why, in the words of whoever did it. May be empty.
    pub reason: String,
    /// How it stood before; null when there was nothing, or nothing that this changed.
    pub before: Value,
    /// How it stood afterwards.
    pub after: Value,
    /// Particulars.
    pub detail: Value,
    /// Its hash.
    pub hash: String,
}

/// An entry without its hash, in the order that is hashed.
#[derive(Serialize)]
struct Content<'a> {
    chain: &'a Chain,
    position: u64,
    at: Timestamp,
    subject: &'a str,
    actor: &'a str,
    what: &'a str,
    reason: &'a str,
    before: &'a Value,
    after: &'a Value,
    detail: &'a Value,
}

impl Entry {
    /// The hash that it has to have behind an entry with the hash `previous`: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which none of the store's can.
    pub fn hash_after(&self, previous: &str) -> serde_json::Result<String> {
        let content = Content {
            chain: &self.chain,
            position: self.position,
            at: self.at,
            subject: &self.subject,
            actor: &self.actor,
            what: &self.what,
            reason: &self.reason,
            before: &self.before,
            after: &self.after,
            detail: &self.detail,
        };
        let mut hasher = Sha256::new();
        hasher.update(previous.as_bytes());
        hasher.update(b"\n");
        hasher.update(serde_json::to_vec(&content)?);
        Ok(hex::encode(hasher.finalize()))
    }

    fn name(&self) -> String {
        format!(
            "entry {} of {} ({} {} by {}, {})",
            self.position, self.chain, self.what, self.subject, self.actor, self.at
        )
    }
}

/// How long a chain is, and the hash of its last entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The chain.
    pub chain: Chain,
    /// How many entries it has.
    pub length: u64,
    /// The last one's hash; [`NOTHING_BEFORE`] when there is none.
    pub head: String,
}

impl Head {
    /// Of a chain without entries.
    #[must_use]
    pub fn of_nothing(chain: Chain) -> Self {
        Self {
            chain,
            length: 0,
            head: NOTHING_BEFORE.to_owned(),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (chain, rest) = text.split_once('=')?;
        let (length, head) = rest.split_once(':')?;
        let is_hash = head.len() == NOTHING_BEFORE.len()
            && head
                .bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        is_hash.then_some(Self {
            chain: Chain::parse(chain)?,
            length: length.parse().ok()?,
            head: head.to_owned(),
        })
    }
}

/// `project/shop=12:<hash>`, to be noted and given to a later verification.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.chain, self.length, self.head)
    }
}

/// The first thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry that its hash does not fit.
    #[error("{entry} does not hold: it was changed, or the entry before it and its hash were")]
    Changed {
        /// Which one.
        entry: String,
    },
    /// A gap.
    #[error(
        "entry {first} of {chain} is missing, {count} in all: removed from before entry {next}"
    )]
    Missing {
        /// The chain.
        chain: Chain,
        /// The first one's position.
        first: u64,
        /// How many.
        count: u64,
        /// What follows the gap.
        next: u64,
    },
    /// An entry where another has to be, or behind the last one.
    #[error("{entry} was inserted: entry {expected} has to stand there")]
    Inserted {
        /// Which one.
        entry: String,
        /// The position that follows the entry before it.
        expected: u64,
    },
    /// Entries behind the head.
    #[error("entry {first} of {chain} was inserted: the chain's head says that it has {length}")]
    Beyond {
        /// The chain.
        chain: Chain,
        /// The first one's position.
        first: u64,
        /// What the head says.
        length: u64,
    },
    /// Fewer entries than the head says.
    #[error("entry {first} of {chain} is missing, {count} in all: removed from the chain's end")]
    CutOff {
        /// The chain.
        chain: Chain,
        /// The first one's position.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The head has another hash than the last entry.
    #[error("the head of {chain} was changed: it has another hash than entry {length}")]
    Head {
        /// The chain.
        chain: Chain,
        /// Its length.
        length: u64,
    },
    /// The chain holds, but it is not the one of which a head was noted.
    #[error(
        "{chain} was written anew: entry {length} has another hash than the head that was noted"
    )]
    Rewritten {
        /// The chain.
        chain: Chain,
        /// The noted head's length.
        length: u64,
    },
    /// No head follows the entries.
    #[error("the export is not whole: it has no head of {chain}")]
    NoHead {
        /// The chain.
        chain: Chain,
    },
    /// A hash that cannot be computed.
    #[error("{entry} cannot be hashed: {reason}")]
    Unhashable {
        /// Which one.
        entry: String,
        /// Why.
        reason: String,
    },
}

/// How far a chain was followed.
struct Reached {
    length: u64,
    hash: String,
    ended: bool,
}

/// Follows chains, entry by entry, each in its order; chains may come one after the other or mixed.
pub struct Verifier {
    reached: BTreeMap<Chain, Reached>,
    noted: Vec<Head>,
}

impl Verifier {
    /// For entries that have to agree with heads that were noted before.
    #[must_use]
    pub fn new(noted: Vec<Head>) -> Self {
        Self {
            reached: BTreeMap::new(),
            noted,
        }
    }

    fn reached(&mut self, chain: &Chain) -> &mut Reached {
        match self.reached.entry(chain.clone()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(Reached {
                length: 0,
                hash: NOTHING_BEFORE.to_owned(),
                ended: false,
            }),
        }
    }

    /// The next entry.
    ///
    /// # Errors
    /// What does not hold; nothing that follows tells anything then.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Broken> {
        let reached = self.reached(&entry.chain);
        let expected = reached.length + 1;
        if entry.position < expected || reached.ended {
            return Err(Broken::Inserted {
                entry: entry.name(),
                expected,
            });
        }
        if entry.position > expected {
            return Err(Broken::Missing {
                chain: entry.chain.clone(),
                first: expected,
                count: entry.position - expected,
                next: entry.position,
            });
        }
        let hash = entry
            .hash_after(&reached.hash)
            .map_err(|error| Broken::Unhashable {
                entry: entry.name(),
                reason: error.to_string(),
            })?;
        if hash != entry.hash {
            return Err(Broken::Changed {
                entry: entry.name(),
            });
        }
        reached.length = expected;
        reached.hash.clone_from(&hash);
        let differs = |noted: &&Head| {
            noted.chain == entry.chain && noted.length == expected && noted.head != hash
        };
        if let Some(noted) = self.noted.iter().find(differs) {
            return Err(Broken::Rewritten {
                chain: noted.chain.clone(),
                length: noted.length,
            });
        }
        Ok(())
    }

    /// The head that follows the entries of its chain.
    ///
    /// # Errors
    /// When it does not fit them.
    pub fn head(&mut self, head: &Head) -> Result<(), Broken> {
        let reached = self.reached(&head.chain);
        let chain = head.chain.clone();
        if reached.length < head.length {
            return Err(Broken::CutOff {
                chain,
                first: reached.length + 1,
                count: head.length - reached.length,
            });
        }
        if reached.length > head.length {
            return Err(Broken::Beyond {
                chain,
                first: head.length + 1,
                length: head.length,
            });
        }
        if reached.hash != head.head {
            return Err(Broken::Head {
                chain,
                length: head.length,
            });
        }
        reached.ended = true;
        Ok(())
    }

    /// Every chain's head, once all were given.
    ///
    /// # Errors
    /// When a chain has no head, or is shorter than a noted one.
    pub fn finish(self) -> Result<Vec<Head>, Broken> {
        for (chain, reached) in &self.reached {
            if !reached.ended {
                let chain = chain.clone();
                return Err(Broken::NoHead { chain });
            }
        }
        for noted in self.noted {
            let length = self.reached.get(&noted.chain).map_or(0, |r| r.length);
            if length < noted.length {
                return Err(Broken::CutOff {
                    first: length + 1,
                    count: noted.length - length,
                    chain: noted.chain,
                });
            }
        }
        let heads = self.reached.into_iter().map(|(chain, reached)| Head {
            chain,
            length: reached.length,
            head: reached.hash,
        });
        Ok(heads.collect())
    }
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// An entry.
    Entry(Box<Entry>),
    /// The head that ends a chain's entries.
    Head(Head),
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        // An entry has a position, a head a length: told apart first, so that errors name fields.
        let value: Value = serde_json::from_str(text)?;
        if value.get("length").is_some() {
            serde_json::from_value(value).map(Self::Head)
        } else {
            serde_json::from_value(value).map(|entry| Self::Entry(Box::new(entry)))
        }
    }
}
