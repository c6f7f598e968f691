//! I1, I2 and I15: what was acknowledged is stored, once, and nothing is acknowledged without a database.

use super::{Checks, text};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

const I1: &str = "I1 what was acknowledged is stored";
const I2: &str = "I2 one run per ref and commit";
const I15: &str = "I15 no 2xx while the database is gone";

pub(super) async fn check(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let rows = world
        .database
        .rows("select delivery_id, decision, run from deliveries")
        .await?;
    let stored: BTreeMap<&str, (&str, &str)> = rows
        .iter()
        .map(|row| {
            (
                text(row, "delivery_id"),
                (text(row, "decision"), text(row, "run")),
            )
        })
        .collect();
    let runs = world
        .database
        .rows(
            "select r.id, r.git_ref, r.commit_sha, e.actor from runs r \
             join events e on e.subject = r.id and e.what = 'asked_for'",
        )
        .await?;
    let known: BTreeSet<&str> = runs.iter().map(|row| text(row, "id")).collect();
    let deployments = world.database.rows("select id from deployments").await?;
    let deployed: BTreeSet<&str> = deployments.iter().map(|row| text(row, "id")).collect();

    let ledger = world.caller.ledger();
    let mut acknowledged = BTreeSet::new();
    for answered in &ledger.answered {
        let id = answered.delivery.id.as_str();
        if answered.is_acknowledged() {
            let found = stored.get(id);
            acknowledged.insert((&answered.delivery.git_ref, &answered.delivery.commit));
            checks.case(
                I1,
                found.is_some_and(|(_, run)| known.contains(run)),
                || format!("{:?} has {found:?}", answered.delivery),
            );
        }
        if answered.database_was_down {
            checks.case(I15, !answered.is_acknowledged(), || format!("{answered:?}"));
        }
    }
    for pressed in &ledger.pressed {
        let took = pressed
            .status
            .is_some_and(|status| (200..300).contains(&status));
        if let (true, Some(made)) = (took, &pressed.made) {
            let there = known.contains(made.as_str()) || deployed.contains(made.as_str());
            checks.case(I1, there, || {
                format!("{}: {made} is not stored", pressed.button)
            });
        }
    }

    let mut told: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in runs
        .iter()
        .filter(|row| ["github webhook", "gap filler"].contains(&text(row, "actor")))
    {
        let push = (text(row, "git_ref"), text(row, "commit_sha"));
        told.entry(push).or_default().push(text(row, "id"));
    }
    for (push, runs) in &told {
        checks.case(I2, runs.len() == 1, || format!("{push:?} has {runs:?}"));
    }
    // And each that was acknowledged has one.
    for (git_ref, commit) in acknowledged {
        let has = told.contains_key(&(git_ref.as_str(), commit.as_str()));
        checks.case(I1, has, || format!("no run of {git_ref} {commit}"));
    }
    Ok(())
}
