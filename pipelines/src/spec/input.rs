//! What a person may give to a run that they start: declared in the file, checked against it, and handed to
//! steps as variables. Never put into a script, so no value can change what a script does.

use super::diagnostic::{At, Reporter};
use super::fields::{self, Fields, list, nearest};
use super::keys;
use super::tree::{Entry, Value};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Inputs of one file.
pub(super) const MOST_INPUTS: usize = 20;
/// Characters of a value.
pub const LONGEST_INPUT: usize = 1000;
/// How the variable of an input begins.
const VARIABLE: &str = "INPUT_";

/// Values by the names of inputs.
pub type InputValues = BTreeMap<String, String>;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it is for, shown beside it.
    pub description: Option<String>,
    /// What it can be.
    #[serde(flatten)]
    pub kind: InputKind,
    /// What it is when nobody says anything.
    pub default: Option<String>,
    /// Whoever starts a run has to say it.
    pub required: bool,
}

/// What an input can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum InputKind {
    /// A line of text.
    String,
    /// One of several words.
    Choice {
        /// The words.
        options: Vec<String>,
    },
    /// `true` or `false`.
    Boolean,
}

/// The words for kinds, as the file has them.
pub(super) const KINDS: [(&str, InputKind); 3] = [
    ("string", InputKind::String),
    (
        "choice",
        InputKind::Choice {
            options: Vec::new(),
        },
    ),
    ("boolean", InputKind::Boolean),
];

impl Input {
    /// What it is when nothing is given for it.
    fn untold(&self) -> String {
        match (&self.default, &self.kind) {
            (Some(default), _) => default.clone(),
            (None, InputKind::Boolean) => "false".to_owned(),
            (None, InputKind::String | InputKind::Choice { .. }) => String::new(),
        }
    }

    /// What is wrong with a value, in words that follow it.
    fn misfit(&self, value: &str) -> Option<String> {
        match &self.kind {
            InputKind::String => input_line(value).err().map(str::to_owned),
            InputKind::Boolean if ["true", "false"].contains(&value) => None,
            InputKind::Boolean => Some("is neither `true` nor `false`".to_owned()),
            InputKind::Choice { options } if options.iter().any(|it| it == value) => None,
            InputKind::Choice { options } => Some(format!(
                "is none of its options, which are {}",
                list(options, "and")
            )),
        }
    }
}

/// A value that fits on a line.
///
/// # Errors
/// What is wrong with it.
pub fn input_line(value: &str) -> Result<String, &'static str> {
    if value.chars().any(char::is_control) {
        return Err("holds a control character, such as the end of a line");
    }
    if value.chars().count() > LONGEST_INPUT {
        return Err("has more than 1,000 characters");
    }
    Ok(value.to_owned())
}

/// The variable in which steps find an input: `INPUT_TARGET` of `target`.
#[must_use]
pub fn input_variable(name: &str) -> String {
    format!("{VARIABLE}{}", name.to_ascii_uppercase())
}

/// Every input of a file when nobody gives any: what it is by itself.
#[must_use]
pub fn untold_inputs(declared: &IndexMap<String, Input>) -> InputValues {
    let all = declared.iter();
    all.map(|(name, input)| (name.clone(), input.untold()))
        .collect()
}

/// Every input of a file with what was given for it, or what it is by itself. Of a choice or a boolean an empty
/// value counts as none.
///
/// # Errors
/// Everything that is wrong with what was given, each in a sentence.
pub fn told_inputs(
    declared: &IndexMap<String, Input>,
    given: &InputValues,
) -> Result<InputValues, Vec<String>> {
    let mut wrong = Vec::new();
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        let known: Vec<&String> = declared.keys().collect();
        wrong.push(match nearest(name, declared.keys().map(String::as_str)) {
            Some(meant) => format!("there is no input `{name}`; did you mean `{meant}`?"),
            None if known.is_empty() => format!("there is no input `{name}`: the file has none"),
            None => format!(
                "there is no input `{name}`; the file has {}",
                list(&known, "and")
            ),
        });
    }
    let mut told = InputValues::new();
    for (name, input) in declared {
        let is_text = input.kind == InputKind::String;
        let value = given
            .get(name)
            .filter(|value| !value.is_empty() || (is_text && !input.required));
        match value.map(|value| (value, input.misfit(value))) {
            Some((value, Some(misfit))) => {
                wrong.push(format!("input `{name}`: `{value}` {misfit}"));
            }
            Some((value, None)) => {
                told.insert(name.clone(), value.clone());
            }
            None if input.required => wrong.push(format!("input `{name}` has to be given")),
            None => {
                told.insert(name.clone(), input.untold());
            }
        }
    }
    if wrong.is_empty() {
        Ok(told)
    } else {
        Err(wrong)
    }
}

/// A lower-case letter, then these, digits and `_`: so that two inputs never share a variable.
pub(super) fn is_input_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    first && name.len() <= 40 && bytes.all(fine)
}

/// Reads `trigger.inputs`.
pub(super) fn read(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> IndexMap<String, Input> {
    let mut inputs = IndexMap::new();
    let Some(entry) = fields.get("inputs", reporter) else {
        return inputs;
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
        reporter.error(entry.at, "`inputs` is empty");
    }
    for entry in fields::named(entry, reporter).into_iter().flatten() {
        if inputs.len() == MOST_INPUTS {
            let message = format!("a file has at most {MOST_INPUTS} inputs");
            reporter.error(entry.at, message);
            break;
        }
        if !is_input_name(&entry.key) {
            reporter.error_with_help(
                entry.at,
                format!("`{}` cannot be the name of an input", entry.key),
                "use 1 to 40 of a-z, 0-9 and `_`, a letter first",
            );
        }
        if let Some(input) = one(entry, reporter) {
            inputs.insert(entry.key.clone(), input);
        }
    }
    inputs
}

fn one(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Input> {
    let fields = Fields::read(
        &entry.value,
        Some(&entry.key),
        entry.at,
        &keys::INPUT,
        reporter,
    )?;
    let description = fields.text("description", reporter).map(str::to_owned);
    let kind = kind(&fields, reporter);
    let required = fields.boolean("required", reporter).unwrap_or(false);
    let default = fields.get("default", reporter).and_then(|entry| {
        let scalar = fields::scalar(&entry.value, "default", reporter)?;
        Some((scalar.text.clone(), entry.value.at))
    });
    if required && let Some((_, at)) = &default {
        reporter.error_with_help(
            *at,
            format!("{} is required and has a default", fields.title),
            "what is required has to be given each time: remove one of the two",
        );
    }
    let input = Input {
        description,
        kind: kind?,
        default: default.as_ref().map(|(text, _)| text.clone()),
        required,
    };
    if let Some((text, at)) = default
        && let Some(misfit) = input.misfit(&text)
    {
        reporter.error(at, format!("`default`: `{text}` {misfit}"));
    }
    Some(input)
}

fn kind(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<InputKind> {
    let words = KINDS.map(|(word, _)| (word, word));
    let word = match fields.has("type") {
        true => fields.choice("type", &words, reporter)?,
        false if fields.has("options") => "choice",
        false => "string",
    };
    let options = options(fields, word == "choice", reporter);
    let (_, kind) = KINDS.into_iter().find(|(known, _)| *known == word)?;
    Some(match kind {
        InputKind::Choice { .. } => InputKind::Choice { options },
        other => other,
    })
}

fn options(fields: &Fields<'_>, is_choice: bool, reporter: &mut Reporter<'_>) -> Vec<String> {
    let entry = fields.get("options", reporter);
    match entry {
        Some(entry) if !is_choice => {
            let message = format!("{} has `options` and is no choice", fields.title);
            reporter.error_with_help(entry.at, message, "write `type: choice`");
        }
        Some(entry) if matches!(&entry.value.value, Value::List(items) if items.is_empty()) => {
            reporter.error(entry.value.at, "`options` is empty");
        }
        None if is_choice => {
            let message = format!("{} is a choice and needs `options`", fields.title);
            reporter.error(fields.owner, message);
        }
        Some(_) | None => {}
    }
    let texts: Vec<(&str, At)> = fields.texts("options", reporter).unwrap_or_default();
    let mut kept = Vec::with_capacity(texts.len());
    for (text, at) in texts {
        match input_line(text) {
            Ok(text) => kept.push(text),
            Err(reason) => reporter.error(at, format!("`{text}` {reason}")),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn declared(inputs: &str) -> IndexMap<String, Input> {
        let text = format!(
            "version: 1\nname: shop\ntrigger:\n  inputs:\n{inputs}steps:\n  one: {{ image: a, run: b }}\n"
        );
        let read = parse("pipeline.yml", &text);
        read.unwrap_or_else(|error| panic!("{error}"))
            .trigger
            .inputs
    }

    const INPUTS: &str = "    target: { options: [staging, production], default: staging }\n    \
                          note: { description: Why., required: true }\n    \
                          dry_run: { type: boolean }\n    \
                          words: { type: string, default: a b }\n";

    fn given(values: &[(&str, &str)]) -> InputValues {
        let values = values.iter();
        values
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_nobody_gave_is_what_it_is_by_itself() {
        let declared = declared(INPUTS);
        let told = told_inputs(&declared, &given(&[("note", "to see")])).unwrap();
        let all = [
            ("dry_run", "false"),
            ("note", "to see"),
            ("target", "staging"),
            ("words", "a b"),
        ];
        assert_eq!(told, given(&all));
        let untold = untold_inputs(&declared);
        assert_eq!(untold["note"], "", "nobody is asked");
        assert_eq!(untold["target"], "staging");
        // An empty choice or boolean is an untouched field of a form; an empty text is a text.
        let empty = given(&[
            ("note", "x"),
            ("target", ""),
            ("dry_run", ""),
            ("words", ""),
        ]);
        let told = told_inputs(&declared, &empty).unwrap();
        assert_eq!((&*told["target"], &*told["dry_run"]), ("staging", "false"));
        assert_eq!(told["words"], "");
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let declared = declared(INPUTS);
        let wrong = given(&[
            ("tarket", "staging"),
            ("target", "prodution"),
            ("dry_run", "yes"),
            ("words", "a\nb"),
        ]);
        let said = told_inputs(&declared, &wrong).unwrap_err();
        assert_eq!(
            said,
            [
                "there is no input `tarket`; did you mean `target`?",
                "input `target`: `prodution` is none of its options, which are `staging` and `production`",
                "input `note` has to be given",
                "input `dry_run`: `yes` is neither `true` nor `false`",
                "input `words`: `a\nb` holds a control character, such as the end of a line",
            ]
        );
        let long = "x".repeat(LONGEST_INPUT + 1);
        assert!(told_inputs(&declared, &given(&[("note", &long)])).is_err());
        assert!(told_inputs(&declared, &given(&[("note", &long[1..])])).is_ok());
        let none = told_inputs(&IndexMap::new(), &given(&[("a", "b")])).unwrap_err();
        assert_eq!(none, ["there is no input `a`: the file has none"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Whatever is given, a run has a value for each of its file's inputs, and each fits.
        #[test]
        fn what_is_told_fits_its_input(
            values in proptest::collection::btree_map("target|note|dry_run|words|other", "(?s).{0,12}|true|production", 0..4)
        ) {
            let declared = declared(INPUTS);
            if let Ok(told) = told_inputs(&declared, &values) {
                prop_assert!(told.keys().eq(untold_inputs(&declared).keys()));
                for (name, value) in &told {
                    let input = &declared[name];
                    prop_assert!(*value == input.untold() || input.misfit(value).is_none());
                    prop_assert!(!(input.required && value.is_empty()));
                }
            }
        }

        #[test]
        fn two_inputs_never_share_a_variable(one in "[a-z_0-9A-Z-]{1,4}", other in "[a-z_0-9A-Z-]{1,4}") {
            if one != other && is_input_name(&one) && is_input_name(&other) {
                prop_assert_ne!(input_variable(&one), input_variable(&other));
            }
        }
    }
}
