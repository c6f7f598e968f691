//! Every sample page: what it looks like, and what must hold for all of them.

mod samples;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use roadstead_web::view::{LogLine, LoginPage, Permission};
use roadstead_web::{CONTENT_SECURITY_POLICY, assets, log_lines, render, urls};
use samples::{releases, runs, services};

const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&{{7*7}}";

#[test]
fn every_page_looks_as_it_did() {
    for (name, html) in samples::pages() {
        // The fingerprint changes with every change of an asset; the pages do not.
        let prefix = assets::url("");
        insta::assert_snapshot!(name, html.replace(&prefix, "/assets/FINGERPRINT/"));
    }
}

#[test]
fn no_page_needs_more_than_the_policy_allows() {
    assert!(CONTENT_SECURITY_POLICY.starts_with("default-src 'none'; script-src 'self';"));
    for (name, html) in samples::pages() {
        for tag in tags(&html) {
            for (attribute, value) in attributes(tag) {
                assert!(
                    !attribute.starts_with("on"),
                    "{name}: inline handler in {tag}"
                );
                assert_ne!(attribute, "style", "{name}: inline style in {tag}");
                assert!(
                    !value.trim_start().starts_with("javascript:"),
                    "{name}: {tag}"
                );
            }
            let element = element(tag);
            assert_ne!(element, "style", "{name}");
            assert_ne!(element, "base", "{name}");
            if element == "script" {
                assert!(
                    attribute(tag, "src").is_some_and(|src| src.starts_with("/assets/")),
                    "{name}: {tag}"
                );
            }
            for link in ["src", "href"]
                .iter()
                .filter_map(|link| attribute(tag, link))
            {
                let loads = ["script", "link", "img", "use"].contains(&element);
                assert!(
                    !loads || link.starts_with("/assets/") || link.starts_with('#'),
                    "{name}: {tag} loads {link}"
                );
            }
        }
        assert_eq!(
            html.matches("<script").count(),
            1,
            "{name}: one module, no inline script"
        );
    }
}

#[test]
fn every_form_posts_to_a_known_address() {
    let mut used = BTreeSet::new();
    for (name, html) in samples::pages() {
        for form in tags(&html).into_iter().filter(|tag| element(tag) == "form") {
            assert_eq!(attribute(form, "method"), Some("post"), "{name}: {form}");
            let action = attribute(form, "action").unwrap_or_else(|| panic!("{name}: {form}"));
            let route = urls::route::POSTS
                .iter()
                .find(|route| matches(route, action));
            used.insert(*route.unwrap_or_else(|| panic!("{name}: no route takes {action}")));
        }
    }
    let known: BTreeSet<&str> = urls::route::POSTS.into_iter().collect();
    assert_eq!(used, known, "the samples show every form");
}

#[test]
fn every_link_leads_to_a_known_page() {
    use urls::route;
    let pages = [
        route::HOME,
        route::LOGIN,
        route::PROJECT,
        route::SECRETS,
        route::RUN,
        route::STEP_LOG,
        route::ARTIFACT,
        route::DEPLOYMENT,
        route::SERVICE,
        route::DELIVERIES,
        route::RUNNERS,
        route::ACCOUNT,
        route::USERS,
        route::AUDIT,
        route::AUDIT_EXPORT,
    ];
    for (name, html) in samples::pages() {
        for link in tags(&html)
            .into_iter()
            .filter(|tag| element(tag) == "a")
            .filter_map(|tag| attribute(tag, "href"))
        {
            let elsewhere = link.starts_with('#')
                || link.starts_with('?')
                || link.starts_with("https://forge.example.com/");
            let path = link.split(['?', '#', '&']).next().unwrap_or_default();
            assert!(
                elsewhere || pages.iter().any(|page| matches(page, path)),
                "{name}: {link}"
            );
        }
    }
}

#[test]
fn ids_are_unique_and_labels_and_tables_are_complete() {
    for (name, html) in samples::pages() {
        let tags = tags(&html);
        let mut ids = BTreeSet::new();
        for tag in &tags {
            if let Some(id) = attribute(tag, "id") {
                assert!(ids.insert(id), "{name}: two elements are called {id}");
            }
        }
        for tag in &tags {
            if let Some(target) = attribute(tag, "for") {
                assert!(ids.contains(target), "{name}: a label for nothing: {tag}");
            }
            match element(tag) {
                "th" => assert!(attribute(tag, "scope").is_some(), "{name}: {tag}"),
                "use" => assert!(
                    attribute(tag, "href").is_some_and(|href| ids.contains(&href[1..])),
                    "{name}: no such icon: {tag}"
                ),
                _ => {}
            }
            if tag.contains(" data-live") {
                assert!(
                    attribute(tag, "id").is_some(),
                    "{name}: a live region needs an id: {tag}"
                );
            }
        }
        assert_eq!(
            html.matches("<h1").count(),
            1,
            "{name}: one heading of the first rank"
        );
        assert_eq!(
            html.matches("<table").count(),
            html.matches("</table>").count(),
            "{name}"
        );
        assert_eq!(
            html.matches("<div").count(),
            html.matches("</div>").count(),
            "{name}"
        );
        assert_eq!(
            html.matches("<section").count(),
            html.matches("</section>").count(),
            "{name}"
        );
        assert_eq!(
            html.matches("aria-live=\"polite\"").count(),
            1,
            "{name}: one announcer"
        );
    }
}

/// The page swaps what is there: a region that only some states had would appear on a reload alone.
#[test]
fn every_state_of_a_page_has_the_same_live_regions() {
    let mut kinds = std::collections::BTreeMap::<String, (String, BTreeSet<String>)>::new();
    for (name, html) in samples::pages() {
        let regions: BTreeSet<String> = tags(&html)
            .into_iter()
            .filter(|tag| tag.contains(" data-live") || attribute(tag, "id") == Some("log"))
            .filter_map(|tag| attribute(tag, "id"))
            // It belongs to the log, which the page exchanges as a whole.
            .filter(|id| *id != "log-facts")
            .map(str::to_owned)
            .collect();
        let kind = name.split('-').next().unwrap_or_default().to_owned();
        let (first, expected) = kinds
            .entry(kind)
            .or_insert_with(|| (name.to_owned(), regions.clone()));
        assert_eq!(*expected, regions, "{first} and {name}");
    }
}

#[test]
fn what_others_wrote_is_escaped() {
    let mut run = runs::run_failed();
    run.run.commit.message = HOSTILE.into();
    run.run.commit.author = HOSTILE.into();
    run.run.commit.branch = HOSTILE.into();
    run.run.commit.sha = HOSTILE.into();
    run.run.commit.url = Some(format!("javascript:{HOSTILE}"));
    run.run.reason = HOSTILE.into();
    run.run.project = HOSTILE.into();
    run.untold.as_mut().unwrap().reason = HOSTILE.into();
    for step in &mut run.steps {
        step.name = HOSTILE.into();
        step.summary = HOSTILE.into();
        step.reason = HOSTILE.into();
    }
    let log = run.log.as_mut().unwrap();
    log.step = HOSTILE.into();
    log.lines
        .iter_mut()
        .for_each(|line| line.text = HOSTILE.into());

    let mut broken = runs::run_broken_file();
    for diagnostic in &mut broken.diagnostics {
        diagnostic.file = HOSTILE.into();
        diagnostic.message = HOSTILE.into();
        diagnostic.excerpt = HOSTILE.into();
    }

    let mut deployment = releases::deployment_rolled_back();
    deployment.deployment.reason = HOSTILE.into();
    deployment.deployment.environment = HOSTILE.into();
    deployment.image = HOSTILE.into();
    deployment.evidence = vec![HOSTILE.into()];
    deployment
        .events
        .iter_mut()
        .for_each(|event| event.message = HOSTILE.into());
    for task in &mut deployment.stopped {
        task.reason = HOSTILE.into();
        task.log_note = HOSTILE.into();
        task.last_lines
            .iter_mut()
            .for_each(|line| line.text = HOSTILE.into());
    }

    let mut service = services::service();
    service.project = HOSTILE.into();
    service.service = HOSTILE.into();
    service.confirm = Some(HOSTILE.into());
    service.promote = Permission::Denied(HOSTILE.into());
    for target in &mut service.rollback_targets {
        target.release_id = HOSTILE.into();
        target.note = HOSTILE.into();
    }

    let mut home = releases::home();
    for runs in &mut home.recent {
        runs.project = HOSTILE.into();
        runs.runs
            .iter_mut()
            .for_each(|run| run.commit.message = HOSTILE.into());
    }

    let login = LoginPage {
        frame: samples::frame(),
        user: HOSTILE.into(),
        next: HOSTILE.into(),
        error: HOSTILE.into(),
    };

    for (name, html) in [
        ("run", render(&run)),
        ("broken", render(&broken)),
        ("deployment", render(&deployment)),
        ("service", render(&service)),
        ("home", render(&home)),
        ("login", render(&login)),
    ] {
        let html = html.unwrap();
        assert!(
            html.contains("alert(1)"),
            "{name}: the text itself is shown"
        );
        assert!(!html.contains("<script>"), "{name}");
        assert!(!html.contains("<img"), "{name}");
        assert!(!html.contains("href=\"javascript:"), "{name}");
        for tag in tags(&html) {
            assert!(
                attributes(tag)
                    .iter()
                    .all(|(name, _)| !name.starts_with("on")),
                "{name}: {tag}"
            );
        }
    }
}

#[test]
fn no_template_switches_escaping_off() {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut seen = 0;
    for entry in fs::read_dir(templates).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("safe") && !text.contains("escape"),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 20);
}

#[test]
fn a_viewer_gets_no_working_button() {
    let html = render(&services::service_viewer()).unwrap();
    for action in ["/promote\"", "/approve\"", "/resume\"", "/hold\""] {
        assert!(!html.contains(action), "{action}");
    }
    assert!(html.contains("Needs the role deployer in production."));
    // The picker is shown, but nothing in it can be chosen or sent.
    assert!(!html.contains("Roll back api in production"));
    let radios = tags(&html)
        .into_iter()
        .filter(|tag| attribute(tag, "type") == Some("radio"));
    assert!(radios.clone().count() > 0 && radios.clone().all(|radio| radio.contains(" disabled")));
}

#[test]
fn guarded_environments_ask_for_their_name() {
    let mut page = services::service();
    assert_eq!(
        render(&page).unwrap().matches("name=\"confirm\"").count(),
        2
    );
    page.confirm = None;
    assert_eq!(
        render(&page).unwrap().matches("name=\"confirm\"").count(),
        0
    );
}

#[test]
fn failures_come_first_and_running_logs_are_followed() {
    let failed = render(&runs::run_failed()).unwrap();
    let place = |text: &str| failed.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(place("<h2>Failed") < place("<h2>Not run") && place("<h2>Not run") < place("<h2>Done"));
    assert!(!failed.contains("data-log-events"));
    let running = render(&runs::run_running()).unwrap();
    let events = urls::step_log_events("41", "images", 1, 6).replace('&', "&#38;");
    assert!(
        running.contains(&format!("data-log-events=\"{events}\"")),
        "{events}"
    );
}

#[test]
fn a_status_that_the_forge_does_not_show_says_why() {
    let mut run = runs::run_failed();
    let waits = render(&run).unwrap();
    assert!(waits.contains("the forge answered 401: the token is wrong"));
    assert!(waits.contains("The next try is <time"), "{waits}");
    run.untold.as_mut().unwrap().next = None;
    assert!(render(&run).unwrap().contains("It is not tried any more."));
    run.untold = None;
    assert!(!render(&run).unwrap().contains("at its forge"));
}

#[test]
fn streamed_lines_are_the_lines_of_the_page() {
    let page = runs::run_failed();
    let lines: Vec<LogLine> = page.log.as_ref().unwrap().lines.clone();
    let html = render(&page).unwrap();
    for line in &lines {
        let streamed = log_lines(std::slice::from_ref(line));
        assert!(!streamed.contains('\n'));
        assert!(html.contains(&streamed), "{streamed}");
    }
}

#[test]
fn assets_and_pages_stay_within_their_budgets() {
    let gzipped = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().len()
    };
    let total = |extension: &str| -> usize {
        assets::names()
            .iter()
            .filter(|name| name.ends_with(extension))
            .map(|name| gzipped(&assets::asset(name).unwrap().bytes))
            .sum()
    };
    assert!(total(".js") <= 30_000, "scripts: {}", total(".js"));
    assert!(total(".css") <= 15_000, "style sheets: {}", total(".css"));

    let mut home = releases::home();
    let mut matrix = home.matrices.remove(1);
    let (head, row) = (matrix.environments[1].clone(), matrix.rows[1].clone());
    matrix.environments = vec![head; 4];
    matrix.rows = (0..30)
        .map(|number| {
            let mut row = row.clone();
            row.service = format!("service-{number}");
            row.cells = row.cells.iter().cycle().take(4).cloned().collect();
            row
        })
        .collect();
    home.matrices = vec![matrix];
    let size = gzipped(render(&home).unwrap().as_bytes());
    assert!(size <= 60_000, "a matrix of 30 by 4: {size}");
}

/// WCAG 2.2 AA: 4.5 : 1 for every pair of text and ground that the style sheet puts together.
#[test]
fn colours_have_contrast_in_both_themes() {
    let css = String::from_utf8(assets::asset("app.css").unwrap().bytes.into_owned()).unwrap();
    let (light, rest) = css
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    let dark = rest.split_once("\n}\n").unwrap().0;
    let colour = |theme: &str, name: &str| -> [f64; 3] {
        let find = |text: &str| {
            let after = text.split_once(&format!("--{name}: #"))?.1;
            Some(after.split(';').next()?.to_owned())
        };
        let hex = find(theme)
            .or_else(|| find(light))
            .unwrap_or_else(|| panic!("--{name}"));
        let digits: Vec<u32> = hex
            .chars()
            .map(|digit| digit.to_digit(16).unwrap())
            .collect();
        match digits.as_slice() {
            [r, g, b] => [r * 17, g * 17, b * 17].map(f64::from),
            [r, s, g, h, b, c] => [r * 16 + s, g * 16 + h, b * 16 + c].map(f64::from),
            _ => panic!("--{name}: {hex}"),
        }
    };
    let luminance = |rgb: [f64; 3]| {
        let [r, g, b] = rgb.map(|part| {
            let part = part / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let mut pairs = vec![
        ("top-text", "top"),
        ("on-accent", "accent"),
        ("log-text", "log"),
        ("log-dim", "log"),
        ("text", "busy-bg"),
        ("text", "quiet-bg"),
    ];
    for ground in ["card", "page", "sunk"] {
        for text in ["text", "dim", "link", "bad", "warn"] {
            pairs.push((text, ground));
        }
    }
    let tones = [
        ("good", "good-bg"),
        ("busy", "busy-bg"),
        ("warn", "warn-bg"),
        ("bad", "bad-bg"),
        ("quiet", "quiet-bg"),
    ];
    pairs.extend(tones);
    for (theme_name, theme) in [("light", light), ("dark", dark)] {
        for (text, ground) in &pairs {
            let (a, b) = (
                luminance(colour(theme, text)),
                luminance(colour(theme, ground)),
            );
            let ratio = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(
                ratio >= 4.5,
                "{theme_name}: --{text} on --{ground} is {ratio:.2} : 1"
            );
        }
    }
}

/// Every start tag, without its angle brackets. Escaped text holds no `<`, and no attribute of
/// ours holds a raw `>`.
fn tags(html: &str) -> Vec<&str> {
    html.split('<')
        .skip(1)
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_alphabetic()))
        .map(|rest| rest.split('>').next().unwrap_or_default())
        .collect()
}

fn element(tag: &str) -> &str {
    tag.split([' ', '/', '\n']).next().unwrap_or_default()
}

/// Names and values of a tag's attributes; those without a value have an empty one.
fn attributes(tag: &str) -> Vec<(&str, &str)> {
    let mut rest = tag.get(element(tag).len()..).unwrap_or_default();
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\n', '/']);
        if rest.is_empty() {
            return found;
        }
        let end = rest.find([' ', '\n', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if let Some(quoted) = after.strip_prefix("=\"") {
            let (value, after) = quoted
                .split_once('"')
                .unwrap_or_else(|| panic!("unquoted: {tag}"));
            found.push((name, value));
            rest = after;
        } else {
            assert!(!after.starts_with('='), "unquoted attribute in {tag}");
            found.push((name, ""));
            rest = after;
        }
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    attributes(tag)
        .into_iter()
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Whether a route pattern takes a path: `{…}` stands for one segment, `{…:.+}` at the end for all that follow.
fn matches(route: &str, path: &str) -> bool {
    let takes_the_rest = route.ends_with(":.+}");
    let (route, path): (Vec<&str>, Vec<&str>) =
        (route.split('/').collect(), path.split('/').collect());
    (route.len() == path.len() || takes_the_rest && route.len() < path.len())
        && route.iter().zip(&path).all(|(pattern, segment)| {
            pattern == segment || (pattern.starts_with('{') && !segment.is_empty())
        })
}
