//! The story itself, line by line.

use super::crew::{Crew, Moment};
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
        scene.environment(name, port, &placeholder).await?;
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

    scene.settled().await?;
    // Deployment shop.d1 makes the first of these calls.
    crew.await_moment(Moment::Registration).await?;
    crew.await_moment(Moment::Update).await?;
    line!("push v1", "the webhook starts run shop.1", async {
        let commit = scene.repository.push(1).await?;
        crew.strike(Moment::Webhook, &client, "shop.1", table)
            .await?;
        scene.run_of(&client, 1, &commit).await
    });
    crew.strike(Moment::Build, &client, "shop.1", table).await?;
    line!(
        "build v1",
        "steps pass, the registry has the digest",
        scene.built(&client, 1)
    );
    crew.strike(Moment::Registration, &client, "shop.d1", table)
        .await?;
    crew.strike(Moment::Update, &client, "shop.d1", table)
        .await?;
    line!(
        "v1 in staging",
        "deployed",
        scene.deployment(&client, "staging", "shop.r1", "deployed")
    );
    let next = scene.forward(&client, "production", "shop.r1").await?;
    crew.strike(Moment::Verification, &client, &next, table)
        .await?;
    line!(
        "staging serves",
        "v1 staging",
        scene.serves(&scene.staging, "v1 staging")
    );
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

    crew.await_moment(Moment::Push).await?;
    line!(
        "push v2",
        "the webhook starts run shop.2",
        scene.push(&client, 2)
    );
    crew.strike(Moment::Push, &client, "shop.2", table).await?;
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
    let next = scene.forward(&client, "production", "shop.r3").await?;
    crew.strike(Moment::Rollback, &client, &next, table).await?;
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
