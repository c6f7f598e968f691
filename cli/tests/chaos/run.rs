//! One run: draws and does until its time is over, heals, waits until all is quiet, checks.

use crate::checks;
use crate::database::Database;
use crate::draw::{Action, Button, Commit, Draw, Line, Victim};
use crate::ledger::Delivery;
use crate::options::{self, Options};
use crate::parts::until;
use crate::report::Report;
use crate::world::World;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longest wait until healed parts have done all that there was to do: leases run out after 30 s,
/// effects are tried again after at most 60 s, and two processors may be shared with others.
const SETTLED_WITHIN: Duration = Duration::from_secs(420);

/// How often the harness looks for parts that ended by themselves.
const SUPERVISED_EVERY: Duration = Duration::from_secs(1);

/// What has to be done later.
enum Due {
    Start(Victim),
    GoOn(Victim),
    Accept(Line),
    DatabaseUp,
    RoomOnDisk,
    Deliver(Vec<Delivery>),
}

struct Run {
    world: World,
    due: Vec<(Instant, Due)>,
    calls: JoinSet<()>,
    ids: u64,
}

/// Runs, and tells what came of it. The folder stays when a promise was broken.
///
/// # Errors
/// When something could not be set up, did not come to rest, or could not be read.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    eprintln!(
        "chaos: seed {}, {} s on {}, {} server(s), {} runners",
        options.seed,
        options.length.as_secs(),
        options.database.word(),
        options.servers,
        options.runners
    );
    let mut run = Run {
        world: World::start(options).await?,
        due: vec![],
        calls: JoinSet::new(),
        ids: 0,
    };
    eprintln!("chaos: everything is in {}", run.world.path.display());
    let outcome = run.tell(options).await;
    let broken = !outcome
        .as_ref()
        .is_ok_and(|report| report.violations.is_empty());
    let ended = run.world.end(options.keep || broken).await;
    let report = outcome.map_err(|error| error.context(format!("seed {}", options.seed)))?;
    ended?;
    Ok(report)
}

impl Run {
    async fn tell(&mut self, options: &Options) -> anyhow::Result<Report> {
        let began = Instant::now();
        self.act(options).await?;
        self.world.heal().await?;
        self.settle().await?;
        let settled = began.elapsed();
        let checks = checks::check(&self.world).await?;
        Ok(Report::new(
            options,
            settled,
            &self.world.caller.ledger(),
            checks,
        ))
    }

    async fn act(&mut self, options: &Options) -> anyhow::Result<()> {
        let mut draw = Draw::new(
            options.seed,
            options.servers,
            options.runners,
            options.outlasts_leases(),
            (
                options.database == options::Database::Postgresql,
                options.full_disk,
            ),
        );
        // Something to press buttons on.
        self.act_on(Action::Push {
            commit: Commit::Good,
            deliveries: 2,
            own_ids: true,
            after: Duration::ZERO,
        })
        .await?;
        let end = Instant::now() + options.length;
        let mut looked = Instant::now();
        while Instant::now() < end {
            let next = Instant::now() + draw.pause();
            let action = draw.next();
            self.act_on(action).await?;
            while Instant::now() < next {
                self.do_what_is_due(Instant::now()).await?;
                if looked.elapsed() > SUPERVISED_EVERY {
                    self.supervise()?;
                    looked = Instant::now();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let last = self.due.iter().map(|(at, _)| *at).max();
        self.do_what_is_due(last.unwrap_or(end)).await?;
        while self.calls.join_next().await.is_some() {}
        Ok(())
    }

    /// What a supervisor does: a part that ended by itself is started again, such as a server whose
    /// database went away while it was set up.
    fn supervise(&mut self) -> anyhow::Result<()> {
        let servers = (0..self.world.servers.len()).map(Victim::Server);
        let runners = (0..self.world.runners.len()).map(Victim::Runner);
        let parts: Vec<_> = servers.chain(runners).chain([Victim::Sandbox]).collect();
        for part in parts {
            let mut due = self.due.iter();
            let was_killed =
                due.any(|(_, due)| matches!(due, Due::Start(victim) if *victim == part));
            if !was_killed && !self.world.process(part).runs() {
                self.world
                    .caller
                    .ledger()
                    .work(format!("{} ended by itself, started again", word(part)));
                self.world.process(part).start()?;
            }
        }
        Ok(())
    }

    async fn do_what_is_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(index) = self.due.iter().position(|(at, _)| *at <= now) {
            match self.due.swap_remove(index).1 {
                Due::Start(victim) => self.world.process(victim).start()?,
                Due::GoOn(victim) => self.world.process(victim).go_on()?,
                Due::Accept(line) => self.world.proxy(line).refuse(false),
                Due::DatabaseUp => {
                    if let Database::Postgresql(cluster) = &mut self.world.database {
                        self.world
                            .caller
                            .database_turns
                            .fetch_add(1, Ordering::SeqCst);
                        cluster.begin().await?;
                    }
                }
                Due::RoomOnDisk => {
                    if let Some(disk) = &self.world.disk {
                        disk.clear()?;
                    }
                }
                Due::Deliver(deliveries) => self.deliver(deliveries),
            }
        }
        Ok(())
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.due.push((Instant::now() + after, due));
    }

    /// An id that no other delivery has.
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("delivery-{}", self.ids)
    }

    fn deliver(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let caller = self.world.caller.clone();
            self.calls.spawn(async move {
                caller.deliver(delivery).await;
            });
        }
    }

    async fn act_on(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Push {
                commit,
                deliveries,
                own_ids,
                after,
            } => {
                let pushed = self.world.forge.push(commit).await?;
                let first = self.id();
                let mut all = vec![];
                for number in 0..deliveries {
                    let id = if own_ids && number > 0 {
                        self.id()
                    } else {
                        first.clone()
                    };
                    all.push(Delivery {
                        id,
                        git_ref: pushed.git_ref.clone(),
                        commit: pushed.commit.clone(),
                        before: pushed.before.clone(),
                        push: pushed.number,
                    });
                }
                let mut ledger = self.world.caller.ledger();
                ledger.work(format!("push: {commit:?}"));
                ledger.deliveries.extend(all.iter().cloned());
                drop(ledger);
                self.later(after, Due::Deliver(all));
            }
            Action::DeliverAgain { pick, own_id } => {
                let known = self.world.caller.ledger().deliveries.clone();
                let Some(mut again) = known.get(pick % known.len().max(1)).cloned() else {
                    return Ok(());
                };
                if own_id {
                    again.id = self.id();
                }
                self.world.caller.ledger().work("delivered again");
                self.deliver(vec![again]);
            }
            Action::Press {
                button,
                production,
                pick,
            } => {
                let caller = self.world.caller.clone();
                self.calls
                    .spawn(async move { caller.press(button, production, pick).await });
            }
            other => self.harm(other).await?,
        }
        Ok(())
    }

    fn note(&self, kind: impl Into<String>) {
        self.world.caller.ledger().fault(kind);
    }

    async fn harm(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Kill { victim, down } => {
                let part = self.world.process(victim);
                // One that is down or stopped already is to be woken first.
                if part.runs() && !part.is_stopped() {
                    part.kill().await?;
                    self.note(format!("SIGKILL {}", word(victim)));
                    self.later(down, Due::Start(victim));
                }
            }
            Action::Stop { victim, lasts } => {
                let part = self.world.process(victim);
                if part.runs() && !part.is_stopped() {
                    part.stop()?;
                    let beyond = if lasts > Duration::from_secs(30) {
                        ", beyond the lease"
                    } else {
                        ""
                    };
                    self.note(format!("SIGSTOP {}{beyond}", word(victim)));
                    self.later(lasts, Due::GoOn(victim));
                }
            }
            Action::Cut(line) => {
                self.world.proxy(line).cut();
                self.note(format!("connections cut, {}", between(line)));
            }
            Action::Refuse { line, lasts } => {
                self.world.proxy(line).refuse(true);
                self.note(format!("no connections, {}", between(line)));
                self.later(lasts, Due::Accept(line));
            }
            Action::Fault {
                operation,
                kind,
                times,
                delay_ms,
            } => {
                let fault = json!({
                    "operation": operation, "kind": kind, "times": times, "delay_ms": delay_ms,
                });
                // A sandbox that is stopped or down cannot be told.
                let part = &mut self.world.sandbox;
                if part.runs() && !part.is_stopped() && self.world.break_calls(fault).await {
                    self.note(format!("AWS: {kind}"));
                }
            }
            Action::DatabaseDown { down } => self.take_database_away(down).await?,
            Action::DiskFull { lasts } => {
                if let Some(disk) = &self.world.disk
                    && disk.fill()?
                {
                    self.note("no room on the servers' disk");
                    self.later(lasts, Due::RoomOnDisk);
                }
            }
            Action::Push { .. } | Action::DeliverAgain { .. } | Action::Press { .. } => {}
        }
        Ok(())
    }

    async fn take_database_away(&mut self, down: Duration) -> anyhow::Result<()> {
        let turns = &self.world.caller.database_turns;
        if let Database::Postgresql(cluster) = &mut self.world.database
            && turns.load(Ordering::SeqCst).is_multiple_of(2)
        {
            cluster.shut_down_at_once().await?;
            turns.fetch_add(1, Ordering::SeqCst);
            self.note("PostgreSQL shut down at once");
            self.later(down, Due::DatabaseUp);
            // Nothing of this can be stored now.
            let known = self.world.caller.ledger().deliveries.clone();
            if let Some(last) = known.last() {
                let id = self.id();
                self.deliver(vec![Delivery { id, ..last.clone() }]);
            }
        }
        Ok(())
    }

    /// Tells the server of every push that it does not know of, and waits until nothing is left to do;
    /// then a last good commit has to reach production.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let unknown = self.world.caller.ledger().unacknowledged();
        for delivery in unknown {
            until("a redelivered push", SETTLED_WITHIN, async || {
                let status = self.world.caller.deliver(delivery.clone()).await;
                Ok((status == Some(202) || status == Some(200)).then_some(()))
            })
            .await?;
        }
        self.quiet().await?;
        let pushed = self.world.forge.push(Commit::Good).await?;
        let last = Delivery {
            id: self.id(),
            git_ref: pushed.git_ref,
            commit: pushed.commit.clone(),
            before: pushed.before,
            push: pushed.number,
        };
        self.world.caller.ledger().deliveries.push(last.clone());
        anyhow::ensure!(
            self.world.caller.deliver(last).await == Some(202),
            "the last push"
        );
        until("the last push in production", SETTLED_WITHIN, async || {
            self.world.alive()?;
            for production in [false, true] {
                self.resume(production).await;
            }
            let query = format!(
                "select d.id from deployments d join releases r on r.id = d.release \
                 where r.commit_sha = '{}' and d.environment = 'production' and d.word = 'deployed'",
                pushed.commit
            );
            Ok((!self.world.database.rows(&query).await?.is_empty()).then_some(()))
        })
        .await?;
        self.quiet().await
    }

    /// Lets automation go on where somebody holds the place.
    async fn resume(&self, production: bool) {
        let environment = if production { "production" } else { "staging" };
        let project = self
            .world
            .caller
            .get("/projects/shop")
            .await
            .unwrap_or_default();
        let places = project["places"].as_array().into_iter().flatten();
        let held = places
            .into_iter()
            .any(|place| place["environment"] == environment && !place["hold"].is_null());
        if held {
            self.world.caller.press(Button::Resume, production, 0).await;
        }
    }

    /// Waits until nothing is under way but what says what it waits for.
    async fn quiet(&mut self) -> anyhow::Result<()> {
        let mut left = vec![];
        let waited = until("quiet", SETTLED_WITHIN, async || {
            self.world.alive()?;
            left = self.under_way().await?;
            Ok(left.is_empty().then_some(()))
        })
        .await;
        waited.map_err(|error| error.context(format!("still under way: {left:?}")))
    }

    async fn under_way(&self) -> anyhow::Result<Vec<Value>> {
        self.world
            .database
            .rows(
                "select 'run' as kind, id, word from runs where ended_at is null \
                 union all select 'attempt', id, '' from attempts where ended_at is null \
                 union all select 'effect', key, state from effects where finished_at is null \
                 union all select 'deployment', id, word from deployments \
                 where ended_at is null and word <> 'queued'",
            )
            .await
    }
}

fn word(victim: Victim) -> &'static str {
    match victim {
        Victim::Server(_) => "server",
        Victim::Runner(_) => "runner",
        Victim::Sandbox => "sandbox",
    }
}

fn between(line: Line) -> &'static str {
    match line {
        Line::Server => "callers to server",
        Line::Aws => "server to AWS",
    }
}
