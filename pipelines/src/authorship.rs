//! Who had a hand in what a release changes, as e-mail addresses: what `not_author` compares with.
//!
//! A release remembers who made its own commit, and who made the commits that came since some other
//! releases: the newest one of that moment, and what was verified in the places. From these the people
//! behind everything between two releases are found, without a look into git. The answer may name too
//! many people (a commit that was told twice), never too few: where that cannot be promised, it is
//! [`Unknown`].

use crate::id::ReleaseId;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Addresses in the form in which they are compared, see [`address`].
pub type Addresses = BTreeSet<String>;

/// Who made a release's commit, and those that it brings beside other releases.
///
/// Authors, committers and co-authors (`Co-authored-by:`) all count: git does not tell whether whoever
/// rebased, amended or merged somebody's commit changed it on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorship {
    /// People of the commit itself.
    pub commit: Addresses,
    /// People of the commits since other releases, as far as git could tell.
    pub since: Vec<AuthorsSince>,
}

/// Who made the commits that one release has and another has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorsSince {
    /// The other one.
    pub release: ReleaseId,
    /// Whether its commit is an ancestor, or the same: nothing of it is missing here.
    pub contained: bool,
    /// People of the commits that it has not.
    pub people: Addresses,
}

/// Who made a release cannot be told, and so nobody can be told not to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// It was not noted, or not compared with what is deployed.
    #[error(
        "who wrote what {release} changes cannot be told; start its run again, and git is read anew"
    )]
    NotRead {
        /// The release.
        release: ReleaseId,
    },
    /// Git does not tell either.
    #[error(
        "a commit that {release} brings names no e-mail address, and so is anybody's; only a gate \
         without `not_author` lets it pass"
    )]
    Nameless {
        /// The release.
        release: ReleaseId,
    },
}

/// An address as it is compared: without blanks around it and in lower case. Strictly, the part before
/// the `@` may differ in case; no mail server that people use makes that difference.
#[must_use]
pub fn address(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The people behind everything that `release` changes where `deployed` runs; without `deployed`, behind
/// every release up to it that is known.
///
/// # Errors
/// [`Unknown`] when a commit may have been made by somebody who is not told.
pub fn people_behind(
    world: &World,
    release: &ReleaseId,
    deployed: Option<&ReleaseId>,
) -> Result<Addresses, Unknown> {
    let unknown = || Unknown::NotRead {
        release: release.clone(),
    };
    let own = world.authorship(release).ok_or_else(unknown)?;
    let mut people = own.commit.clone();
    let covered = deployed.map(|deployed| contained_in(world, deployed));
    let mut current = release.clone();
    loop {
        let done = covered.as_ref().is_some_and(|all| all.contains(&current));
        if done {
            break;
        }
        let Some(authorship) = world.authorship(&current) else {
            // Of a first deployment there is no other end to find.
            if covered.is_none() {
                break;
            }
            return Err(unknown());
        };
        people.extend(authorship.commit.iter().cloned());
        let earlier = authorship
            .since
            .iter()
            .filter(|since| since.release.number() < current.number());
        let next = earlier.max_by_key(|since| {
            let ends = covered.as_ref().is_some_and(|c| c.contains(&since.release));
            (ends, since.release.number())
        });
        match next {
            Some(since) => {
                people.extend(since.people.iter().cloned());
                current = since.release.clone();
            }
            None if covered.is_none() => break,
            None => return Err(unknown()),
        }
    }
    // A commit without an address is somebody's, too, and no change is nobody's.
    if people.is_empty() || people.contains("") {
        return Err(Unknown::Nameless {
            release: release.clone(),
        });
    }
    Ok(people)
}

/// A release and those whose every commit it holds, as far as that is known.
fn contained_in(world: &World, release: &ReleaseId) -> BTreeSet<ReleaseId> {
    let mut found = BTreeSet::from([release.clone()]);
    let mut open = vec![release.clone()];
    while let Some(release) = open.pop() {
        let since = world.authorship(&release).map(|a| a.since.as_slice());
        for earlier in since.unwrap_or_default() {
            if earlier.contained && found.insert(earlier.release.clone()) {
                open.push(earlier.release.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProjectName;
    use std::collections::BTreeMap;

    fn id(number: u64) -> ReleaseId {
        ReleaseId::new(&ProjectName::parse("shop").unwrap(), number)
    }

    fn set(people: &[&str]) -> Addresses {
        people.iter().map(|p| (*p).to_owned()).collect()
    }

    /// A release by number: who made its commit, and since which others who did what.
    type Told<'a> = (u64, &'a str, &'a [(u64, bool, &'a [&'a str])]);

    fn world(releases: &[Told<'_>]) -> World {
        let authorship = releases
            .iter()
            .map(|(number, commit, since)| {
                let since = since
                    .iter()
                    .map(|(other, contained, people)| AuthorsSince {
                        release: id(*other),
                        contained: *contained,
                        people: set(people),
                    })
                    .collect();
                let commit = set(&[*commit]);
                (id(*number), Authorship { commit, since })
            })
            .collect();
        World {
            authorship,
            ..World::empty(ProjectName::parse("shop").unwrap())
        }
    }

    fn behind(world: &World, release: u64, deployed: Option<u64>) -> Option<Vec<String>> {
        let deployed = deployed.map(id);
        let people = people_behind(world, &id(release), deployed.as_ref());
        people.ok().map(|people| people.into_iter().collect())
    }

    #[test]
    fn everybody_since_what_is_deployed_counts() {
        let world = world(&[
            (1, "ada", &[]),
            (2, "bob", &[(1, true, &["bob"])]),
            (3, "cat", &[(2, true, &["cat", "dan"])]),
        ]);
        let told = |people: &[&str]| Some(people.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(behind(&world, 3, Some(1)), told(&["bob", "cat", "dan"]));
        assert_eq!(behind(&world, 3, Some(2)), told(&["cat", "dan"]));
        // The first deployment of all, one again, and one back.
        assert_eq!(behind(&world, 3, None), told(&["ada", "bob", "cat", "dan"]));
        assert_eq!(behind(&world, 3, Some(3)), told(&["cat"]));
        assert_eq!(behind(&world, 2, Some(3)), told(&["bob"]));
    }

    #[test]
    fn two_runs_at_once_miss_nobody() {
        // r3 was read before r2 was made: both know of r1 alone.
        let line = world(&[
            (1, "ada", &[]),
            (2, "bob", &[(1, true, &["bob"])]),
            (3, "cat", &[(1, true, &["bob", "cat"])]),
        ]);
        assert_eq!(behind(&line, 3, Some(2)).unwrap(), ["bob", "cat"]);
        // The same, but r2 is a branch that lacks what r1 brought: somebody would be missing.
        let branch = world(&[
            (0, "zoe", &[]),
            (1, "ada", &[(0, true, &["ada"])]),
            (2, "bob", &[(1, false, &["bob"])]),
            (3, "cat", &[(1, true, &["cat"])]),
        ]);
        assert_eq!(behind(&branch, 3, Some(2)), None);
        // Read anew, it is compared with what is deployed, and all is told.
        let mut again = branch.authorship;
        let since = vec![
            AuthorsSince {
                release: id(3),
                contained: true,
                people: set(&[]),
            },
            AuthorsSince {
                release: id(2),
                contained: false,
                people: set(&["ada", "cat"]),
            },
        ];
        let commit = set(&["cat"]);
        again.insert(id(4), Authorship { commit, since });
        let again = World {
            authorship: again,
            ..line
        };
        assert_eq!(behind(&again, 4, Some(2)).unwrap(), ["ada", "cat"]);
    }

    #[test]
    fn what_is_not_known_is_nobodys_word() {
        let old = world(&[(2, "bob", &[(1, true, &["bob"])])]);
        assert_eq!(behind(&old, 1, None), None);
        // What is deployed needs no authors of its own, but a way to it.
        assert_eq!(behind(&old, 2, Some(1)).unwrap(), ["bob"]);
        assert_eq!(behind(&old, 2, Some(0)), None);
        let nameless = world(&[(1, "", &[])]);
        assert_eq!(behind(&nameless, 1, None), None);
    }

    #[test]
    fn a_circle_in_the_rows_comes_to_an_end() {
        let broken: BTreeMap<_, _> = world(&[(1, "ada", &[(2, true, &[])])]).authorship;
        let mut world = world(&[(2, "bob", &[(1, true, &[])])]);
        world.authorship.extend(broken);
        assert_eq!(behind(&world, 2, Some(9)), None);
    }
}
