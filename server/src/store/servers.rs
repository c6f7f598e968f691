//! What servers on one database know of each other: who lives, who holds what only one is to do, and
//! the bell, which is heard by all of them.
//!
//! Each has a connection of its own for this. A ring becomes a NOTIFY outside the transaction that it
//! tells of: within it, PostgreSQL would let one such transaction commit at a time in the whole
//! database. So a server that dies in between rings nowhere, which costs the others an interval. With
//! SQLite there is no other server, and all of this is nothing.

use super::codec::micros;
use super::conn::{Access, Address, AnyConnection};
use super::schema::leases;
use super::{Result, Store, StoreError};
use crate::clock;
use crate::wake::Bell;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use jiff::{SignedDuration, Timestamp};
use std::thread;
use std::time::{Duration, Instant};

/// Where bells are rung.
const CHANNEL: &str = "roadstead_bell";
/// Between two looks for rings, from here and from elsewhere. The driver gives no way to wait for the
/// socket, and a look is one system call; rings of that time are one.
const LOOK: Duration = Duration::from_millis(10);
/// Rest before another connection is tried.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a server says that it lives.
const SAYS_SO: Duration = Duration::from_secs(3);
/// For how long it is believed. Runners' leases are longer by more than a heartbeat, so whoever starts
/// within this time need not prolong them.
const BELIEVED: SignedDuration = SignedDuration::from_secs(10);
/// What the names of living servers' leases begin with.
const SERVER: &str = "server/";

/// A name that no other server has.
pub(super) fn new_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Whether any server has said of late that it lives; none does on SQLite.
pub(super) fn any_lives(connection: &mut AnyConnection, now: Timestamp) -> Result<bool> {
    let living: i64 = leases::table
        .filter(leases::name.like(format!("{SERVER}%")))
        .filter(leases::held_until.ge(micros(now)))
        .count()
        .get_result(connection)?;
    Ok(living > 0)
}

/// Takes or prolongs a lease; false when another holds it.
fn take(
    connection: &mut AnyConnection,
    name: &str,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool> {
    let free = leases::table.find(name).filter(
        leases::holder
            .eq(holder)
            .or(leases::held_until.lt(micros(now))),
    );
    let taken = diesel::update(free)
        .set((
            leases::holder.eq(holder),
            leases::held_until.eq(micros(until)),
        ))
        .execute(connection)?;
    if taken == 1 {
        return Ok(true);
    }
    let known: i64 = leases::table.find(name).count().get_result(connection)?;
    if known == 1 {
        return Ok(false);
    }
    diesel::insert_into(leases::table)
        .values((
            leases::name.eq(name),
            leases::holder.eq(holder),
            leases::held_until.eq(micros(until)),
        ))
        .execute(connection)?;
    Ok(true)
}

impl Store {
    /// This server's name among those on one database: the holder of its leases. New with each start.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Takes what only one server is to do, or goes on holding it, for `lasting` from now. False while
    /// another server holds it; on SQLite there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn hold(&self, name: &str, lasting: SignedDuration) -> Result<bool> {
        if let Address::Sqlite(_) = self.inner.address {
            return Ok(true);
        }
        let now = clock::now();
        // Mostly another one holds it: looking is not to write.
        let other = self.holder(name).await?;
        if other.is_some_and(|(holder, until)| holder != self.id() && until >= micros(now)) {
            return Ok(false);
        }
        let (held, holder) = (name.to_owned(), self.id().to_owned());
        let taking = self.write(move |c| take(c, &held, &holder, now, now + lasting));
        match taking.await {
            // Somebody was faster, who may be another task of this server.
            Err(StoreError::Conflict { .. }) => {
                let faster = self.holder(name).await?;
                Ok(faster.is_some_and(|(holder, _)| holder == self.id()))
            }
            taken => taken,
        }
    }

    /// Who holds something, and until when.
    async fn holder(&self, name: &str) -> Result<Option<(String, i64)>> {
        let name = name.to_owned();
        self.read(move |c| {
            let row = leases::table.find(&name);
            Ok(row
                .select((leases::holder, leases::held_until))
                .first(c)
                .optional()?)
        })
        .await
    }

    /// Lets go of what this server holds, for the next one to take at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn let_go(&self, name: &str) -> Result<()> {
        if let Address::Sqlite(_) = self.inner.address {
            return Ok(());
        }
        let (name, holder) = (name.to_owned(), self.id().to_owned());
        self.write(move |c| {
            let own = leases::table.find(&name).filter(leases::holder.eq(&holder));
            diesel::delete(own).execute(c)?;
            Ok(())
        })
        .await
    }

    /// Joins the servers on this database: says that this one lives, and carries rings of `bell` to the
    /// others and theirs to it, until the bell is put away. `None` on SQLite.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no thread for it. A database that goes away later is
    /// waited for.
    pub fn join_others(&self, bell: &Bell) -> Result<Option<Carrier>> {
        let Address::Postgres(_) = &self.inner.address else {
            return Ok(None);
        };
        let (address, id, bell) = (
            self.inner.address.clone(),
            self.inner.id.clone(),
            bell.clone(),
        );
        thread::Builder::new()
            .name("store-bell".into())
            .spawn(move || {
                let mut carried = bell.rung_here();
                while !bell.is_put_away() {
                    if let Err(error) = carry(&address, &id, &bell, &mut carried) {
                        tracing::warn!("other servers are not heard for now: {error}");
                        thread::sleep(AGAIN);
                    }
                }
            })
            .map(|thread| Some(Carrier(thread)))
            .map_err(|error| StoreError::unavailable(format!("no thread for the bell: {error}")))
    }
}

/// The thread that carries rings; it ends once the bell is put away.
pub struct Carrier(thread::JoinHandle<()>);

impl Carrier {
    /// Waits until it has ended, `at_most` so long.
    pub async fn ended(self, at_most: Duration) {
        let ended = tokio::task::spawn_blocking(move || self.0.join());
        // Otherwise what it holds runs out by itself.
        let _ = tokio::time::timeout(at_most, ended).await;
    }
}

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Carries rings over one connection, until it breaks or the bell is put away. `carried` is how often
/// the bell had been rung here when the others were told last.
fn carry(address: &Address, id: &str, bell: &Bell, carried: &mut u64) -> Result<()> {
    let AnyConnection::Postgres(mut connection) = AnyConnection::connect(address, Access::Write)?
    else {
        return Ok(());
    };
    let own: Backend =
        diesel::sql_query("SELECT pg_backend_pid() AS pid").get_result(&mut connection)?;
    // So that whoever looks at the database's connections knows what this one is for.
    connection.batch_execute(&format!(
        "SET application_name = 'roadstead bell'; LISTEN {CHANNEL}"
    ))?;
    // Whatever was rung while nobody listened here.
    bell.ring_from_afar();
    let mut said = None::<Instant>;
    loop {
        if bell.is_put_away() {
            let name = format!("{SERVER}{id}");
            diesel::delete(leases::table.find(name)).execute(&mut connection)?;
            return Ok(());
        }
        if said.is_none_or(|said| said.elapsed() >= SAYS_SO) {
            say_so(&mut connection, id, clock::now())?;
            said = Some(Instant::now());
        }
        let rung = bell.rung_here();
        if rung != *carried {
            connection.batch_execute(&format!("NOTIFY {CHANNEL}"))?;
            *carried = rung;
        }
        let mut heard = false;
        for notification in connection.notifications_iter() {
            heard |= notification?.process_id != own.pid;
        }
        if heard {
            bell.ring_from_afar();
        }
        thread::sleep(LOOK);
    }
}

/// Says that this server lives, and forgets those that are long gone.
fn say_so(connection: &mut diesel::PgConnection, id: &str, now: Timestamp) -> Result<()> {
    let until = micros(now + BELIEVED);
    diesel::insert_into(leases::table)
        .values((
            leases::name.eq(format!("{SERVER}{id}")),
            leases::holder.eq(id),
            leases::held_until.eq(until),
        ))
        .on_conflict(leases::name)
        .do_update()
        .set(leases::held_until.eq(until))
        .execute(connection)?;
    let gone = leases::table
        .filter(leases::name.like(format!("{SERVER}%")))
        .filter(leases::held_until.lt(micros(now - BELIEVED * 6)));
    diesel::delete(gone).execute(connection)?;
    Ok(())
}
