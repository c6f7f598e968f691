//! What people do in a browser, with a real Chromium before the real product: sign in, watch a run
//! live, promote, roll back; with scripts and without. Whether it happened is asked of the load
//! balancers, not of the page alone.

#![expect(
    clippy::unwrap_used,
    reason = "a browser that does not answer is a failed test"
)]

#[path = "../support/aws.rs"]
mod aws;
mod chromium;
#[path = "../support/shop.rs"]
mod shop;
#[path = "../support/waiting.rs"]
mod waiting;
mod world;

use chromium::{Browser, Driver, Scripts};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn people_watch_a_run_promote_and_roll_back_in_a_browser() {
    let world = World::start();
    let told = AssertUnwindSafe(tell(&world)).catch_unwind().await;
    world.put_away().await;
    if let Err(broken) = told {
        std::panic::resume_unwind(broken);
    }
}

/// The whole story. Its browsers are gone when it ends, however it ends.
async fn tell(world: &World) {
    let driver = Driver::start();
    world.furnish().await;

    let browser = driver.open(Scripts::Run).await;
    a_wrong_password_is_refused_the_right_one_leads_on(world, &browser).await;
    a_run_is_watched_live(world, &browser).await;

    let plain = driver.open(Scripts::Refused).await;
    a_release_is_promoted_without_scripts(world, &plain).await;
    assert_eq!(plain.complaints().await, Vec::<String>::new());
    plain.close().await;

    the_log_goes_on_to_the_next_step(world, &browser).await;
    a_release_is_promoted(world, &browser).await;
    a_release_is_rolled_back(world, &browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    signing_out_closes_every_page(world, &browser).await;
    browser.close().await;
}

const STAGING: &str = "td[data-environment=staging]";
const PRODUCTION: &str = "td[data-environment=production]";

async fn sign_in(browser: &Browser, password: &str) {
    browser.fill("input[name=user]", "admin").await;
    browser.fill("input[name=password]", password).await;
    browser.press("main form button").await;
}

async fn a_wrong_password_is_refused_the_right_one_leads_on(world: &World, browser: &Browser) {
    browser.visit(&world.page("/runners")).await;
    browser.shows("h1", "Sign in").await;
    sign_in(browser, "not the password").await;
    browser
        .shows("[role=alert]", "This name and password do not fit.")
        .await;
    // The console tells of the 401, and of nothing else.
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|said| said.contains("401")),
        "{complaints:?}"
    );
    sign_in(browser, &world.password).await;
    browser.arrives("/runners").await;
    browser.shows(".who", "admin").await;
    browser.shows("#runners", "local").await;
}

async fn a_run_is_watched_live(world: &World, browser: &Browser) {
    let run = format!("/runs/{}.1", world.project);
    browser.visit(&world.page("/")).await;
    browser.shows("#running", "Nothing is running").await;
    browser.mark().await;
    world.push("v1", "Open the shop");
    browser.shows("#running", "Open the shop").await;
    assert!(browser.is_marked().await, "the first page was reloaded");

    browser
        .visit(&world.page(&format!("{run}?step=check")))
        .await;
    browser.mark().await;
    browser.shows("#log .log", "waiting for the tide").await;
    let log = browser.text("#log .log").await.unwrap();
    assert!(!log.contains("the tide is here"), "{log}");
    // What a step prints is text and colour, never elements.
    assert!(log.contains("<img src=x onerror=alert(1)>"), "{log}");
    browser.shows("#log .log .f2", "green").await;
    browser.shows("#head .badge", "running").await;

    world.let_go(1);
    browser.shows("#log .log", "the tide is here").await;
    browser.shows("#head .badge", "succeeded").await;
    browser.shows("#release", "sha256:").await;
    browser.shows("#deployments", "staging").await;
    assert!(browser.is_marked().await, "the run's page was reloaded");
}

async fn a_release_is_promoted_without_scripts(world: &World, browser: &Browser) {
    // Scripts are refused indeed: this one would change the title.
    let page = "data:text/html,<title>off</title><script>document.title='on'</script>";
    browser.visit(page).await;
    assert_eq!(browser.evaluate("return document.title").await, "off");

    let place = format!(
        "/projects/{}/environments/production/services/web",
        world.project
    );
    browser.visit(&world.page(&place)).await;
    sign_in(browser, &world.password).await;
    browser.arrives(&place).await;
    browser
        .shows_when_reloaded("#promote .candidate", "r1")
        .await;
    promote(browser).await;
    browser
        .shows_when_reloaded("#head .badge", "deployed")
        .await;
    world.serves("production", "v1").await;
    browser.visit(&world.page("/")).await;
    browser.shows_when_reloaded(PRODUCTION, "r1").await;
    browser.shows_when_reloaded(PRODUCTION, "healthy").await;
    browser.press(".who button").await;
    browser.shows("h1", "Sign in").await;
}

async fn the_log_goes_on_to_the_next_step(world: &World, browser: &Browser) {
    world.push("v2", "Paint the shop");
    let run = format!("/runs/{}.2", world.project);
    browser.visit(&world.page(&run)).await;
    browser.mark().await;
    browser.shows("#log h2", "check").await;
    browser.shows("#log .log", "waiting for the tide").await;
    world.let_go(2);
    // Nobody chose a step, so the page shows the one that runs.
    browser.shows("#log h2", "image").await;
    browser.shows("#head .badge", "succeeded").await;
    browser.shows("#log .log", "COPY index.html").await;
    assert!(browser.is_marked().await, "the run's page was reloaded");
}

async fn a_release_is_promoted(world: &World, browser: &Browser) {
    browser.visit(&world.page("/")).await;
    browser.mark().await;
    browser.shows(STAGING, "r2").await;
    world.serves("staging", "v2").await;
    assert!(browser.is_marked().await, "the first page was reloaded");

    let place = format!(
        "/projects/{}/environments/production/services/web",
        world.project
    );
    browser.press(&format!("{PRODUCTION} .live a")).await;
    browser.arrives(&place).await;
    browser.shows("#promote .candidate", "r2").await;
    promote(browser).await;
    // The matrix shows it, without a reload.
    browser.press(".brand").await;
    browser.shows("#matrices", "production").await;
    browser.mark().await;
    browser.shows(&format!("{PRODUCTION} .meta"), "r2").await;
    browser
        .shows(&format!("{PRODUCTION} .state"), "healthy")
        .await;
    assert!(browser.is_marked().await, "the first page was reloaded");
    world.serves("production", "v2").await;
}

/// Opens the confirmation, types the environment's name and sends the form.
async fn promote(browser: &Browser) {
    browser.press("#promote summary").await;
    browser
        .fill("#promote input[name=reason]", "it holds")
        .await;
    browser
        .fill("#promote input[name=confirm]", "production")
        .await;
    browser.press("#promote form button").await;
    browser.arrives("/deployments/").await;
    browser
        .shows(".notice", "as soon as its gates are open")
        .await;
}

async fn a_release_is_rolled_back(world: &World, browser: &Browser) {
    let place = format!(
        "/projects/{}/environments/production/services/web",
        world.project
    );
    browser.visit(&world.page(&place)).await;
    browser
        .press(&format!("#rollback input[value='{}.r1']", world.project))
        .await;
    browser.press("#rollback summary").await;
    browser
        .fill("#rollback input[name=reason]", "the paint peels")
        .await;
    browser
        .fill("#rollback input[name=confirm]", "production")
        .await;
    browser.press("#rollback details button").await;
    browser.arrives("/deployments/").await;
    browser.mark().await;
    browser.shows("#head", "rollback by admin").await;
    browser.shows("#head", "the paint peels").await;
    browser.shows("#head .badge", "deployed").await;
    assert!(
        browser.is_marked().await,
        "the deployment's page was reloaded"
    );
    world.serves("production", "v1").await;
    world.serves("staging", "v2").await;
    browser.visit(&world.page("/")).await;
    browser
        .shows(&format!("{PRODUCTION} .hold"), "the paint peels")
        .await;
    browser.shows(&format!("{PRODUCTION} .meta"), "r1").await;
}

async fn signing_out_closes_every_page(world: &World, browser: &Browser) {
    browser.press(".who button").await;
    browser.shows("h1", "Sign in").await;
    browser.visit(&world.page("/deliveries")).await;
    browser.arrives("/login").await;
}
