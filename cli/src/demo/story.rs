//! The story itself, line by line.

use super::crew::{Crew, Victim};
use super::scene::Scene;
use super::table::Table;
use serde_json::Value;

type Seen = Result<(String, Value), String>;

/// Tells all of it; stops at the first line that does not hold, since the rest leans on it.
pub(crate) async fn tell(scene: &Scene, crew: &mut Crew, table: &mut Table) -> anyhow::Result<()> {
    let placeholder = scene.placeholder().await?;
    for (name, address) in [
        ("staging", &scene.staging),
        ("production", &scene.production),
    ] {
        let port = address
            .rsplit(':')
            .next()
            .and_then(|p| p.parse().ok())
            .unwrap_or_default();
        scene.aws.environment(name, port, &placeholder).await?;
    }
    table.say("clusters, services and load balancers stand, with a placeholder in them");
    let client = scene.sign_in().await?;

    macro_rules! line {
        ($step:expr, $expected:expr, $seen:expr) => {{
            let seen: Seen = $seen
                .await
                .map_err(|error: anyhow::Error| format!("{error:#}"));
            let held = seen.is_ok();
            table.line($step, $expected, seen);
            if !held {
                return Ok(());
            }
        }};
    }

    scene.settled(&client, "staging").await?;
    line!(
        "push v1",
        "the webhook starts run shop.1",
        scene.push(&client, 1)
    );
    crew.strike(Victim::Server, "after the webhook's commit", table)
        .await?;
    if crew.armed {
        scene
            .reaches(&client, "/runs/shop.1", &["building", "succeeded"])
            .await?;
    }
    crew.strike(Victim::Runner, "during the build", table)
        .await?;
    line!(
        "build v1",
        "steps pass, the registry has the digest",
        scene.built(&client, 1)
    );
    if crew.armed {
        let under_way = ["rolling_out", "verifying", "deployed"];
        scene
            .reaches(&client, "/deployments/shop.d1", &under_way)
            .await?;
    }
    crew.strike(Victim::Sandbox, "during the rollout", table)
        .await?;
    crew.strike(Victim::Server, "during the rollout", table)
        .await?;
    line!(
        "v1 in staging",
        "deployed",
        scene.deployment(&client, "staging", "shop.r1", "deployed")
    );
    line!(
        "staging serves",
        "v1 staging",
        scene.serves(&scene.staging, "v1 staging")
    );
    if crew.armed {
        scene
            .reaches(&client, "/deployments/shop.d2", &["verifying", "deployed"])
            .await?;
    }
    crew.strike(Victim::Server, "during verification", table)
        .await?;
    line!(
        "v1 in production",
        "deployed",
        scene.deployment(&client, "production", "shop.r1", "deployed")
    );
    line!(
        "the gate held",
        "8 s of healthy staging came first",
        scene.gate_held(&client)
    );
    line!(
        "production serves",
        "v1 production",
        scene.serves(&scene.production, "v1 production")
    );

    line!(
        "push v2",
        "the webhook starts run shop.2",
        scene.push(&client, 2)
    );
    line!(
        "v2 in staging",
        "rolled_back, with the reason",
        scene.deployment(&client, "staging", "shop.r2", "rolled_back")
    );
    line!(
        "staging is back",
        "v1 staging",
        scene.serves(&scene.staging, "v1 staging")
    );
    line!(
        "production untouched",
        "no deployment of v2, serves v1",
        scene.untouched(&client)
    );

    line!(
        "push v3",
        "the webhook starts run shop.3",
        scene.push(&client, 3)
    );
    line!(
        "v3 in staging",
        "deployed",
        scene.deployment(&client, "staging", "shop.r3", "deployed")
    );
    if crew.armed {
        let id = scene.forward(&client, "production", "shop.r3").await?;
        let path = format!("/deployments/{id}");
        scene
            .reaches(&client, &path, &["rolling_back", "rolled_back"])
            .await?;
    }
    crew.strike(Victim::Server, "during the rollback", table)
        .await?;
    crew.strike(Victim::Sandbox, "during the rollback", table)
        .await?;
    line!(
        "v3 in production",
        "rolled_back, by itself",
        scene.deployment(&client, "production", "shop.r3", "rolled_back")
    );
    line!(
        "production is back",
        "v1 production",
        scene.serves(&scene.production, "v1 production")
    );
    line!(
        "production is held",
        "a hold, and nothing is retried",
        scene.held(&client)
    );

    line!(
        "roll staging back",
        "deployed, through the button's form",
        scene.press(&client, "rollback", "shop.r1")
    );
    line!(
        "staging serves",
        "v1 staging",
        scene.serves(&scene.staging, "v1 staging")
    );
    line!(
        "promote to staging",
        "deployed, through the button's form",
        scene.press(&client, "promote", "shop.r3")
    );
    line!(
        "staging serves",
        "v3 staging",
        scene.serves(&scene.staging, "v3 staging")
    );
    line!(
        "each update once",
        "one effective UpdateService per deployment",
        scene.updated_once(&client)
    );
    Ok(())
}
