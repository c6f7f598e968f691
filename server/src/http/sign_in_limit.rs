//! Failed sign-ins cost time, so that a password cannot be guessed by trying. Each name from each
//! address, each address and each name has a budget of failures that fills up again slowly; who has used
//! one up has to wait. The budget of a name alone is wide: strangers at a few addresses cannot use it up
//! and so keep the one out whose name it is.
//!
//! In memory, and never more than a bounded number of names and addresses: a restart forgets them, and
//! each server of several counts for itself. It must not know what a user or a session is.

use actix_web::HttpRequest;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures of a name from one address at once, then one in thirty seconds.
const OF_A_PAIR: Budget = Budget {
    failures: 10,
    refill: Duration::from_secs(30),
};
/// So many failures of a name at once, from wherever, then one in ten seconds.
const OF_A_NAME: Budget = Budget {
    failures: 100,
    refill: Duration::from_secs(10),
};
/// So many failures from an address at once, whatever the names, then one in three seconds: a whole
/// office may share an address.
const OF_AN_ADDRESS: Budget = Budget {
    failures: 60,
    refill: Duration::from_secs(3),
};
/// So many of each are remembered; whoever is closest to a full budget again is
/// forgotten first.
const MOST_KEYS: usize = 10_000;

struct Budget {
    failures: u32,
    refill: Duration,
}

/// When each key's failures will be paid off. One that is not there owes nothing.
struct Ledger<K> {
    budget: Budget,
    paid_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq + Clone> Ledger<K> {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            paid_at: HashMap::new(),
        }
    }

    /// How long the key has to wait before it may try.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let owed = self.paid_at.get(key).map_or(Duration::ZERO, |paid_at| {
            paid_at.saturating_duration_since(now)
        });
        let most = self.budget.refill * self.budget.failures;
        (owed + self.budget.refill).saturating_sub(most)
    }

    fn charge(&mut self, key: K, now: Instant) {
        if self.paid_at.len() >= MOST_KEYS && !self.paid_at.contains_key(&key) {
            self.paid_at.retain(|_, paid_at| *paid_at > now);
            if self.paid_at.len() >= MOST_KEYS {
                let nearest = self.paid_at.iter().min_by_key(|(_, paid_at)| **paid_at);
                if let Some(key) = nearest.map(|(key, _)| key.clone()) {
                    self.paid_at.remove(&key);
                }
            }
        }
        let paid_at = self.paid_at.entry(key).or_insert(now);
        *paid_at = (*paid_at).max(now) + self.budget.refill;
    }

    fn give_back(&mut self, key: &K) {
        if let Some(paid_at) = self.paid_at.get_mut(key) {
            *paid_at = paid_at.checked_sub(self.budget.refill).unwrap_or(*paid_at);
        }
    }
}

/// Why somebody has to wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Too many failures of this name.
    Name(Duration),
    /// Too many failures from this address.
    Address(Duration),
}

impl Wait {
    /// In whole seconds, never none.
    #[must_use]
    pub fn seconds(self) -> u64 {
        let (Self::Name(wait) | Self::Address(wait)) = self;
        wait.as_secs() + 1
    }
}

/// Recent failures.
pub struct SignInLimit(Mutex<Ledgers>);

struct Ledgers {
    /// Without an address: from this machine, or behind a proxy that names none.
    pairs: Ledger<(String, Option<IpAddr>)>,
    names: Ledger<String>,
    addresses: Ledger<IpAddr>,
}

impl Default for SignInLimit {
    fn default() -> Self {
        Self(Mutex::new(Ledgers {
            pairs: Ledger::new(OF_A_PAIR),
            names: Ledger::new(OF_A_NAME),
            addresses: Ledger::new(OF_AN_ADDRESS),
        }))
    }
}

impl SignInLimit {
    /// Counts a try as failed until [`Self::succeeded`] says otherwise, so that tries at the same
    /// time cannot get past the limit. One that has to wait is not counted.
    ///
    /// # Errors
    /// How long to wait.
    pub fn begin(&self, name: &str, address: Option<IpAddr>, now: Instant) -> Result<(), Wait> {
        let mut ledgers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ledgers {
            pairs,
            names,
            addresses,
        } = &mut *ledgers;
        let address = address.map(network);
        if let Some(address) = &address {
            let wait = addresses.wait(address, now);
            if !wait.is_zero() {
                return Err(Wait::Address(wait));
            }
        }
        let pair = (name.to_owned(), address);
        let wait = pairs.wait(&pair, now).max(names.wait(&pair.0, now));
        if !wait.is_zero() {
            return Err(Wait::Name(wait));
        }
        names.charge(pair.0.clone(), now);
        pairs.charge(pair, now);
        if let Some(address) = address {
            addresses.charge(address, now);
        }
        Ok(())
    }

    /// The try went well: the name owes nothing any more at this address; address and name not for
    /// this try, but for what others tried.
    pub fn succeeded(&self, name: &str, address: Option<IpAddr>) {
        let mut ledgers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.to_owned();
        let address = address.map(network);
        ledgers.names.give_back(&name);
        ledgers.pairs.paid_at.remove(&(name, address));
        if let Some(address) = &address {
            ledgers.addresses.give_back(address);
        }
    }
}

/// Who has one address of a network of version 6 has all of it: 64 bits count.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let high = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(high))
        }
        version_4 @ IpAddr::V4(_) => version_4,
    }
}

/// Where a request comes from, when that can be told: of a proxy on this machine, which all people
/// share, it cannot. Behind a proxy, the last address that `X-Forwarded-For` names is the one that the
/// proxy itself saw; what stands before it anybody may have written.
pub(super) fn client_of(request: &HttpRequest, behind_proxy: bool) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let client = if behind_proxy {
        let last = request.headers().get_all("x-forwarded-for").last();
        last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok())
            .or(peer)
    } else {
        peer
    };
    client.filter(|address| !address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_name_that_failed_too_often_waits_longer_than_others() {
        let limit = SignInLimit::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        for second in 0..10 {
            limit.begin("ada", None, at(second)).unwrap();
        }
        let wait = limit.begin("ada", None, at(10)).unwrap_err();
        assert_eq!(wait, Wait::Name(Duration::from_secs(20)));
        assert_eq!(wait.seconds(), 21);
        // Waiting costs nothing more, and others do not wait.
        limit.begin("ole", None, at(10)).unwrap();
        limit.begin("ada", None, at(30)).unwrap();
        limit.begin("ada", None, at(31)).unwrap_err();
        limit.succeeded("ada", None);
        for _ in 0..10 {
            limit.begin("ada", None, at(31)).unwrap();
        }
        limit.begin("ada", None, at(31)).unwrap_err();
    }

    #[test]
    fn a_stranger_keeps_nobody_out() {
        let limit = SignInLimit::default();
        let start = Instant::now();
        let stranger = address("192.0.2.7");
        for _ in 0..10 {
            limit.begin("ada", stranger, start).unwrap();
        }
        limit.begin("ada", stranger, start).unwrap_err();
        // Neither at her desk nor on the server itself.
        for own in [address("198.51.100.9"), None] {
            limit.begin("ada", own, start).unwrap();
            limit.succeeded("ada", own);
        }
        limit.begin("ada", stranger, start).unwrap_err();

        // Many together get a hundred tries, and then one in ten seconds.
        for host in 8..17 {
            let one = address(&format!("192.0.2.{host}"));
            for _ in 0..10 {
                limit.begin("ada", one, start).unwrap();
            }
        }
        let wait = limit.begin("ada", address("198.51.100.9"), start);
        assert_eq!(wait, Err(Wait::Name(Duration::from_secs(10))));
        let later = start + Duration::from_secs(10);
        limit.begin("ada", address("198.51.100.9"), later).unwrap();
    }

    #[test]
    fn an_address_that_tries_many_names_waits() {
        let limit = SignInLimit::default();
        let start = Instant::now();
        for number in 0..60 {
            let name = format!("name {number}");
            limit.begin(&name, address("192.0.2.7"), start).unwrap();
        }
        let wait = limit.begin("ada", address("::ffff:192.0.2.7"), start);
        assert_eq!(wait, Err(Wait::Address(Duration::from_secs(3))));
        limit.begin("ada", address("192.0.2.8"), start).unwrap();
        // A try that went well is not a failure.
        limit.succeeded("name 1", address("192.0.2.7"));
        limit.begin("ada", address("192.0.2.7"), start).unwrap();

        for host in 0..60 {
            let one = format!("2001:db8:0:1::{host:x}");
            limit.begin(&one, address(&one), start).unwrap();
        }
        let neighbour = limit.begin("bob", address("2001:db8:0:1:ffff::1"), start);
        assert!(matches!(neighbour, Err(Wait::Address(_))), "{neighbour:?}");
        limit
            .begin("bob", address("2001:db8:0:2::1"), start)
            .unwrap();
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_worst() {
        let limit = SignInLimit::default();
        let start = Instant::now();
        for _ in 0..10 {
            limit.begin("ada", None, start).unwrap();
        }
        for number in 0..MOST_KEYS + 500 {
            limit.begin(&number.to_string(), None, start).unwrap();
        }
        assert_eq!(limit.0.lock().unwrap().pairs.paid_at.len(), MOST_KEYS);
        assert_eq!(limit.0.lock().unwrap().names.paid_at.len(), MOST_KEYS);
        limit.begin("ada", None, start).unwrap_err();
        // All is paid off by then.
        limit
            .begin("ada", None, start + Duration::from_secs(300))
            .unwrap();
        limit
            .begin("new", None, start + Duration::from_secs(300))
            .unwrap();
        assert_eq!(limit.0.lock().unwrap().pairs.paid_at.len(), 2);
        assert_eq!(limit.0.lock().unwrap().names.paid_at.len(), 2);
    }

    #[test]
    fn the_client_is_who_the_proxy_saw() {
        let from = |peer: &str, forwarded: &[&'static str], behind_proxy| {
            let mut request = TestRequest::get().peer_addr(peer.parse().unwrap());
            for value in forwarded {
                request = request.append_header(("x-forwarded-for", *value));
            }
            client_of(&request.to_http_request(), behind_proxy)
        };
        assert_eq!(from("192.0.2.7:1", &[], false), address("192.0.2.7"));
        assert_eq!(from("127.0.0.1:1", &[], false), None);
        let forged = ["203.0.113.1, 198.51.100.9"];
        assert_eq!(from("192.0.2.7:1", &forged, false), address("192.0.2.7"));
        assert_eq!(from("192.0.2.7:1", &forged, true), address("198.51.100.9"));
        assert_eq!(from("127.0.0.1:1", &forged, true), address("198.51.100.9"));
        let twice = ["203.0.113.1", "198.51.100.9"];
        assert_eq!(from("127.0.0.1:1", &twice, true), address("198.51.100.9"));
        assert_eq!(from("192.0.2.7:1", &["x"], true), address("192.0.2.7"));
        assert_eq!(from("127.0.0.1:1", &[], true), None);
    }
}
