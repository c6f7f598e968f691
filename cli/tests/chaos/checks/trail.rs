//! I14: the audit trail's hashes hold, and it tells every transition that the rows show.

use super::{Checks, json, text};
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;

const I14: &str = "I14 every transition is in a trail that holds";

pub(super) async fn check(world: &World, checks: &mut Checks) -> anyhow::Result<()> {
    let (holds, said) = world.verify_audit().await?;
    checks.case(I14, holds, || said);
    let events = world
        .database
        .rows(
            "select subject, what, before, after, position from events where project = 'shop' \
             order by position",
        )
        .await?;
    let mut stands: BTreeMap<&str, Value> = BTreeMap::new();
    for (event, expected) in events.iter().zip(1_u64..) {
        checks.case(I14, event["position"] == expected, || {
            format!("entry {expected} is missing: {event}")
        });
        let (subject, after) = (text(event, "subject"), json(event, "after"));
        let is_life = subject.starts_with("shop.") && !subject.starts_with("shop.r");
        if !is_life || after.is_null() || !after.is_string() {
            continue;
        }
        let before = json(event, "before");
        let known = stands.insert(subject, after).unwrap_or_default();
        checks.case(I14, known == before, || {
            format!(
                "{subject} stood at {known}, then {} tells of {before}",
                text(event, "what")
            )
        });
    }
    let rows = world
        .database
        .rows("select id, word from runs union all select id, word from deployments")
        .await?;
    for row in &rows {
        let told = stands.get(text(row, "id"));
        checks.case(I14, told == Some(&row["word"]), || {
            format!("{row}, the trail says {told:?}")
        });
    }
    Ok(())
}
