//! Whatever happens to a file, reading it gives a pipeline that holds together or says what is wrong.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use roadstead_pipelines::spec::{Diagnostics, Gate, Pipeline, StepAction, parse};
use std::collections::BTreeSet;

const EXAMPLES: [&str; 5] = [
    include_str!("../examples/one-service.yml"),
    include_str!("../examples/monorepo.yml"),
    include_str!("../examples/approval.yml"),
    include_str!("../examples/dev-qa-production.yml"),
    include_str!("../examples/own-cluster.yml"),
];

/// Pieces that mean something to YAML, to the format or to a terminal.
const PIECES: [&str; 36] = [
    ":",
    "\n",
    "  ",
    "\t",
    "-",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: *a",
    "|",
    ">",
    "'",
    "\"",
    "#",
    "!",
    "!!str ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "null",
    "~",
    "true",
    "-1",
    "1e999",
    "after: production\n",
    "needs: [test]\n",
    "build: [api]\n",
    "../",
    "\u{0}",
    "\u{1b}[2J",
    "\u{202e}ü",
];

#[derive(Debug, Clone)]
enum Mutation {
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    CopyLine(prop::sample::Index, prop::sample::Index),
    Truncate(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => (place(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        4 => (place(), 1..12_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        2 => (place(), place()).prop_map(|(from, to)| Mutation::CopyLine(from, to)),
        1 => place().prop_map(Mutation::Truncate),
    ]
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    let characters: Vec<char> = text.chars().collect();
    let join = |parts: [&[char]; 2], between: &str| {
        let [before, after] = parts.map(|part| part.iter().collect::<String>());
        format!("{before}{between}{after}")
    };
    match mutation {
        Mutation::Insert(at, piece) => {
            let at = at.index(characters.len() + 1);
            join([&characters[..at], &characters[at..]], piece)
        }
        Mutation::Remove(at, length) => {
            let at = at.index(characters.len() + 1);
            let end = characters.len().min(at + length);
            join([&characters[..at], &characters[end..]], "")
        }
        Mutation::CopyLine(from, to) => {
            let mut lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                return String::new();
            }
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len()), line);
            lines.join("\n")
        }
        Mutation::Truncate(at) => characters[..at.index(characters.len() + 1)]
            .iter()
            .collect(),
    }
}

fn mutated() -> impl Strategy<Value = String> {
    (
        prop::sample::select(&EXAMPLES[..]),
        prop::collection::vec(mutation(), 1..6),
    )
        .prop_map(|(text, mutations)| {
            mutations
                .iter()
                .fold(text.to_owned(), |text, m| mutate(&text, m))
        })
}

/// What the model promises, checked on the model alone.
fn holds_together(pipeline: &Pipeline) {
    let mut built = BTreeSet::new();
    for step in pipeline.steps.values() {
        assert!(
            step.needs
                .iter()
                .all(|needed| pipeline.steps.contains_key(needed))
        );
        if let StepAction::Build { images } = &step.action {
            assert!(
                images.iter().all(|image| built.insert(image.clone())),
                "built twice"
            );
        }
    }
    assert!(
        built
            .iter()
            .eq(pipeline.images.keys().collect::<BTreeSet<_>>())
    );
    let mut left: Vec<_> = pipeline.steps.iter().collect();
    let mut ran = BTreeSet::new();
    while !left.is_empty() {
        let before = left.len();
        let (ready, waiting) = left
            .into_iter()
            .partition(|(_, step)| step.needs.iter().all(|n| ran.contains(n)));
        left = waiting;
        let ready: Vec<_> = ready;
        ran.extend(ready.into_iter().map(|(name, _)| name));
        assert!(left.len() < before, "steps in a circle");
    }
    assert!(
        pipeline
            .services
            .values()
            .all(|service| pipeline.images.contains_key(&service.image))
    );
    let mut above = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for (name, environment) in &pipeline.environments {
        assert!(environment.after.iter().all(|after| above.contains(after)));
        for gate in &environment.gates {
            if let Gate::Healthy { environment, .. } = gate {
                assert!(above.contains(environment));
            }
        }
        for service in pipeline.services.keys() {
            let target = environment.target(service);
            assert!(targets.insert((target.region, target.cluster, target.service)));
        }
        above.insert(name.clone());
    }
}

/// What every answer about a mistake promises.
fn can_be_shown(text: &str, diagnostics: &Diagnostics) {
    assert!(!diagnostics.list().is_empty());
    let lines = text.lines().count().max(1);
    for diagnostic in diagnostics.list() {
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
        assert!(
            diagnostic.line as usize <= lines + 1,
            "line {} of {lines}",
            diagnostic.line
        );
        assert!(!diagnostic.message.is_empty());
        let shown = diagnostic.to_string();
        assert!(
            shown.chars().all(|c| c == '\n' || !c.is_control()),
            "{shown:?}"
        );
        assert!(shown.len() < 4_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        // The same cases in every run: a red run is a change's fault, never luck's.
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_mutated_file_is_sound_or_refused(text in mutated()) {
        match parse("pipeline.yml", &text) {
            Ok(pipeline) => holds_together(&pipeline),
            Err(diagnostics) => can_be_shown(&text, &diagnostics),
        }
    }

    #[test]
    fn a_text_of_yaml_pieces_is_sound_or_refused(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60),
    ) {
        let text = pieces.concat();
        match parse("pipeline.yml", &text) {
            Ok(pipeline) => holds_together(&pipeline),
            Err(diagnostics) => can_be_shown(&text, &diagnostics),
        }
    }

    #[test]
    fn a_stored_pipeline_is_the_pipeline(text in mutated()) {
        if let Ok(pipeline) = parse("pipeline.yml", &text) {
            let stored = serde_json::to_string(&pipeline).unwrap();
            prop_assert_eq!(serde_json::from_str::<Pipeline>(&stored).unwrap(), pipeline);
        }
    }
}
