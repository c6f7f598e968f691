//! A task definition in a file: JSON in the form that RegisterTaskDefinition takes, with variables in its
//! texts.
//!
//! `${name}` in a text that is a value stands for that variable's value, and `$${` for `${`. Every other `$` is
//! itself. Keys, numbers and the structure are as they stand, and what a variable's value holds is not looked
//! at again. Members that are not known here are kept: ECS may know them.

use super::diagnostic::{At, Diagnostics, Reporter};
use super::fields::{is_variable_name, list, nearest};
use super::tree::{Entry, Node, Scalar, Value as Seen};
use super::values;
use crate::task_definition::{ADDED_BY_ECS, container_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The largest file that is read, in bytes: ECS takes no larger definition.
pub const LARGEST_TASK_DEFINITION: usize = 64 * 1024;

/// Reads such a file and puts its variables in. `name` is its name for messages; `container` is the one
/// that gets the image, if it has a name.
///
/// # Errors
/// Everything that is wrong with it: what is no JSON, what ECS sets itself, variables that nobody set. A
/// file above [`LARGEST_TASK_DEFINITION`] is not looked at.
pub fn parse_task_definition(
    name: &str,
    text: &str,
    variables: &BTreeMap<String, String>,
    container: Option<&str>,
) -> Result<Value, Diagnostics> {
    super::refuse_larger(name, text, LARGEST_TASK_DEFINITION)?;
    let mut reporter = Reporter::new(name, text);
    let mut definition: Value = match serde_json::from_str(text) {
        Ok(definition) => definition,
        Err(error) => {
            no_json(&error, text, &mut reporter);
            return reporter.finish(None);
        }
    };
    let node = Places::of(text).node();
    twice(&node, &mut reporter);
    if reporter.is_clean() {
        let mut putting = Putting {
            variables,
            reporter: &mut reporter,
        };
        putting.put(&mut definition, &node, &mut String::new());
        check(&definition, &node, container, &mut reporter);
    }
    reporter.finish(Some(definition))
}

fn no_json(error: &serde_json::Error, text: &str, reporter: &mut Reporter<'_>) {
    let line = error.line().max(1);
    // It counts bytes.
    let bytes = error.column().saturating_sub(1);
    let before = text
        .lines()
        .nth(line - 1)
        .unwrap_or_default()
        .char_indices();
    let characters = before.take_while(|(index, _)| *index < bytes).count();
    let at = At {
        file: 0,
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(characters + 1).unwrap_or(u32::MAX),
        width: 1,
    };
    let said = error.to_string();
    let said = said
        .rsplit_once(" at line ")
        .map_or(said.as_str(), |(said, _)| said);
    let help = "a task definition is JSON, as `aws ecs register-task-definition --cli-input-json` takes it";
    reporter.error_with_help(at, format!("this is not valid JSON: {said}"), help);
}

/// Refuses keys that a mapping has twice: who reads JSON takes one of the two, and nobody knows which.
fn twice(node: &Node, reporter: &mut Reporter<'_>) {
    match &node.value {
        Seen::Map(entries) => {
            let mut seen = BTreeSet::new();
            for entry in entries {
                if !seen.insert(&entry.key) {
                    let message = format!("`{}` stands in this mapping twice", entry.key);
                    reporter.error_with_help(entry.at, message, "keep one of the two");
                }
                twice(&entry.value, reporter);
            }
        }
        Seen::List(items) => items.iter().for_each(|item| twice(item, reporter)),
        Seen::Null | Seen::Scalar(_) => {}
    }
}

/// What ECS would refuse, and what only Roadstead can tell.
fn check(definition: &Value, node: &Node, container: Option<&str>, reporter: &mut Reporter<'_>) {
    let Some(members) = definition.as_object() else {
        let found = node.kind();
        reporter.error(
            node.at,
            format!("a task definition is a mapping, this is {found}"),
        );
        return;
    };
    if members.contains_key("taskDefinition") && !members.contains_key("containerDefinitions") {
        let help = "write what stands in `taskDefinition` at the top, and `tags` beside it";
        let at = node.key_at(&["taskDefinition"]);
        reporter.error_with_help(at, "this is an answer of DescribeTaskDefinition", help);
        return;
    }
    for member in ADDED_BY_ECS.iter().filter(|it| members.contains_key(**it)) {
        let message = format!("`{member}` is set by ECS and cannot be registered");
        reporter.error_with_help(node.key_at(&[member]), message, "remove it");
    }
    match members
        .get("family")
        .map(|family| family.as_str().map(values::ecs_name))
    {
        Some(Some(Ok(_))) => {}
        Some(Some(Err(reason))) => {
            let family = members["family"].as_str().unwrap_or_default();
            let message = format!("`family`: `{family}` {reason}");
            reporter.error(node.value_at(&["family"]), message);
        }
        Some(None) => reporter.error(node.value_at(&["family"]), "`family` has to be a text"),
        None => {
            let help = "name the family, such as `\"family\": \"${service}-${environment}\"`";
            reporter.error_with_help(node.at, "a task definition needs `family`", help);
        }
    }
    let containers = members
        .get("containerDefinitions")
        .and_then(Value::as_array);
    let Some(containers) = containers.filter(|list| !list.is_empty()) else {
        let at = node.value_at(&["containerDefinitions"]);
        let message = "`containerDefinitions` has to be a list with at least one container";
        reporter.error(at, message);
        return;
    };
    let mut names: Vec<&str> = vec![];
    for (index, container) in containers.iter().enumerate() {
        let index = index.to_string();
        let at = node.value_at(&["containerDefinitions", &index]);
        match container["name"].as_str() {
            Some(name) if names.contains(&name) => {
                let at = node.value_at(&["containerDefinitions", &index, "name"]);
                reporter.error(at, format!("a container `{name}` stands above"));
            }
            Some(name) => names.push(name),
            None => reporter.error(at, "a container needs a `name`, which is a text"),
        }
    }
    if let Some(wanted) = container
        && container_of(definition, container).is_none()
    {
        let at = node.value_at(&["containerDefinitions"]);
        let message = format!("there is no container `{wanted}`, which gets the image");
        let help = match nearest(wanted, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}` in `container` of the service?"),
            None => format!("the definition has {}", list(&names, "and")),
        };
        reporter.error_with_help(at, message, help);
    }
}

/// Puts the values of variables into texts.
struct Putting<'p, 'r> {
    variables: &'p BTreeMap<String, String>,
    reporter: &'p mut Reporter<'r>,
}

impl<'p> Putting<'p, '_> {
    /// `node` is where `value` stands; `way` leads there.
    fn put(&mut self, value: &mut Value, node: &Node, way: &mut String) {
        let length = way.len();
        match (value, &node.value) {
            (Value::String(text), _) => self.text(text, node.at, way),
            (Value::Array(items), Seen::List(nodes)) => {
                for (index, (item, node)) in items.iter_mut().zip(nodes).enumerate() {
                    way.push_str(&format!("[{index}]"));
                    self.put(item, node, way);
                    way.truncate(length);
                }
            }
            // No key stands there twice, so both have the same ones in the same order.
            (Value::Object(members), Seen::Map(entries)) => {
                for ((key, member), entry) in members.iter_mut().zip(entries) {
                    if length > 0 {
                        way.push('.');
                    }
                    way.push_str(key);
                    self.put(member, &entry.value, way);
                    way.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &mut String, at: At, way: &str) {
        if !text.contains("${") {
            return;
        }
        let mut made = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(found) = rest.find('$') {
            made.push_str(&rest[..found]);
            rest = &rest[found..];
            if let Some(after) = rest.strip_prefix("$${") {
                made.push_str("${");
                rest = after;
            } else if let Some(inside) = rest.strip_prefix("${") {
                let name = inside.split_once('}').map(|(name, _)| name);
                match name.filter(|name| is_variable_name(name)) {
                    Some(name) => {
                        made.push_str(self.value(name, at, way));
                        rest = &inside[name.len() + 1..];
                    }
                    None => {
                        let shown: String = rest.chars().take(20).collect();
                        let message = format!("`{shown}` in `{way}` names no variable");
                        let help = "write `${name}`, or `$${` for `${` itself";
                        self.reporter.error_with_help(at, message, help);
                        rest = inside;
                    }
                }
            } else {
                made.push('$');
                rest = &rest[1..];
            }
        }
        made.push_str(rest);
        *text = made;
    }

    fn value(&mut self, name: &str, at: At, way: &str) -> &'p str {
        if let Some(value) = self.variables.get(name) {
            return value;
        }
        let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
        let help = match nearest(name, known.iter().copied()) {
            Some(word) => format!("did you mean `${{{word}}}`?"),
            None => format!(
                "set it in `variables` of `task_definition`, or write `$${{{name}}}` for the text itself; there are {}",
                list(&known, "and")
            ),
        };
        let message = format!("there is no variable `{name}`, which `{way}` names");
        self.reporter.error_with_help(at, message, help);
        // Something that is no mistake of its own.
        "x"
    }
}

/// Finds where the values of a JSON text stand that was read before, so that it is one.
struct Places<'t> {
    text: &'t str,
    offset: usize,
    /// Where the line begins that `offset` is in, and its number from 1.
    line: (usize, u32),
}

impl<'t> Places<'t> {
    fn of(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            line: (0, 1),
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn blanks(&mut self) {
        while let Some(byte) = self.next().filter(u8::is_ascii_whitespace) {
            self.offset += 1;
            if byte == b'\n' {
                self.line = (self.offset, self.line.1 + 1);
            }
        }
    }

    fn at(&self, text: &str) -> At {
        let before = self.text[self.line.0..self.offset].chars().count();
        At {
            file: 0,
            line: self.line.1,
            column: u32::try_from(before + 1).unwrap_or(u32::MAX),
            width: u32::try_from(text.chars().count())
                .unwrap_or(u32::MAX)
                .max(1),
        }
    }

    /// A text in quotes, or a number, `true`, `false` or `null`.
    fn token(&self) -> &'t str {
        let rest = &self.text[self.offset..];
        let end = if rest.starts_with('"') {
            let mut escaped = false;
            let end = rest.bytes().skip(1).position(|byte| {
                let is_end = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                is_end
            });
            end.map(|before| before + 2)
        } else {
            rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ']' | '}' | ':'))
        };
        &rest[..end.unwrap_or(rest.len())]
    }

    fn scalar(&mut self) -> (At, String) {
        let token = self.token();
        let at = self.at(token);
        self.offset += token.len().max(1);
        let text = serde_json::from_str(token).unwrap_or_else(|_| token.to_owned());
        (at, text)
    }

    /// Steps over a bracket or comma when it is the next.
    fn takes(&mut self, byte: u8) -> bool {
        self.blanks();
        let is_next = self.next() == Some(byte);
        if is_next {
            self.offset += 1;
        }
        is_next
    }

    fn node(&mut self) -> Node {
        self.blanks();
        let at = self.at("");
        if self.takes(b'[') {
            let mut items = vec![];
            while !self.takes(b']') && self.next().is_some() {
                items.push(self.node());
                self.takes(b',');
            }
            let value = Seen::List(items);
            return Node { at, value };
        }
        if self.takes(b'{') {
            let mut entries = vec![];
            while !self.takes(b'}') && self.next().is_some() {
                let (at, key) = self.scalar();
                self.takes(b':');
                let value = self.node();
                entries.push(Entry { key, at, value });
                self.takes(b',');
            }
            let value = Seen::Map(entries);
            return Node { at, value };
        }
        let (at, text) = self.scalar();
        let value = Seen::Scalar(Scalar {
            text,
            boolean: None,
        });
        Node { at, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use serde_json::json;

    fn variables() -> BTreeMap<String, String> {
        let all = [("colour", "${green}\""), ("service", "web"), ("empty", "")];
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn read(definition: &Value) -> Result<Value, Diagnostics> {
        parse_task_definition("ecs/web.json", &definition.to_string(), &variables(), None)
    }

    /// What becomes of a text in a definition.
    fn text(text: &str) -> Value {
        let definition = json!({
            "family": "web", "containerDefinitions": [{"name": "app", "command": [text]}],
        });
        let mut read = read(&definition).unwrap_or_else(|error| panic!("{text}: {error}"));
        read["containerDefinitions"][0]["command"][0].take()
    }

    #[test]
    fn a_variable_is_put_in_and_what_is_none_stays() {
        for (text_of, expected) in [
            ("${service}", "web"),
            ("a-${service}-${service}.b", "a-web-web.b"),
            ("${empty}", ""),
            // What a value holds is not looked at again, and breaks no JSON.
            ("${colour}", "${green}\""),
            ("$${service}", "${service}"),
            ("$$${service}", "$${service}"),
            ("$HOME $$ $", "$HOME $$ $"),
            ("{service} $ {service}", "{service} $ {service}"),
        ] {
            assert_eq!(text(text_of), expected, "{text_of}");
        }
    }

    #[test]
    fn all_but_texts_is_kept_as_it_stands() {
        let definition = json!({
            "family": "${service}", "memberOfTheFuture": {"${service}": [1.5, true, null, {"deep": "${service}"}]},
            "containerDefinitions": [{"name": "${service}", "cpu": 1_234_567_890_123_u64}],
            "tags": [{"key": "of", "value": "${service}"}],
        });
        let expected = json!({
            "family": "web", "memberOfTheFuture": {"${service}": [1.5, true, null, {"deep": "web"}]},
            "containerDefinitions": [{"name": "web", "cpu": 1_234_567_890_123_u64}],
            "tags": [{"key": "of", "value": "web"}],
        });
        assert_eq!(read(&definition).unwrap(), expected);
    }

    /// What is said of a file with mistakes.
    fn said(text: &str, container: Option<&str>) -> String {
        let read = parse_task_definition("ecs/web.json", text, &variables(), container);
        read.unwrap_err().to_string()
    }

    #[test]
    fn every_mistake_is_shown_with_its_place() {
        let text = r#"{
  "family": "${servce}-${regoin}",
  "revision": 7, "status": "ACTIVE",
	"containerDefinitions": [
    { "name": "app", "environment": [ { "name": "Ü", "value": "\"ü\" ${COLOUR:-green}" } ] },
    { "name": "app", "image": "log:1" },
    { "image": "log:1" }
  ]
}
"#;
        insta::assert_snapshot!(said(text, Some("ap")));
    }

    #[test]
    fn what_is_no_definition_is_said_to_be_none() {
        let answer = r#"{ "taskDefinition": { "family": "web" }, "tags": [] }"#;
        let texts = [
            "",
            "family: web\n",
            "{\n  \"family\": \"ü\", }",
            "[]",
            "{}",
            answer,
            r#"{ "family": 7, "containerDefinitions": {} }"#,
            r#"{ "family": "a", "containerDefinitions": [{ "name": "b", "name": "c" }] }"#,
        ];
        let all: Vec<String> = texts
            .iter()
            .map(|text| format!("{text}\n{}", said(text, None)))
            .collect();
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn a_file_above_the_limit_is_not_looked_at() {
        let text = " ".repeat(LARGEST_TASK_DEFINITION + 1);
        assert!(said(&text, None).ends_with("the file has 65537 bytes, at most 65536 are read"));
        let deep = "[".repeat(LARGEST_TASK_DEFINITION);
        assert!(said(&deep, None).contains("recursion limit"));
    }

    /// Any JSON with few different keys.
    fn json_value() -> impl Strategy<Value = Value> {
        let text = "[a-c$\\{\\}\"\\\\ü\n/ ]{0,8}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((text, inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// What stands at every place, by way.
    fn texts_of(value: &Value) -> Vec<String> {
        match value {
            Value::Array(items) => items.iter().flat_map(texts_of).collect(),
            Value::Object(members) => members
                .iter()
                .flat_map(|(key, value)| [vec![key.clone()], texts_of(value)].concat())
                .collect(),
            Value::String(text) => vec![text.clone()],
            other => vec![other.to_string()],
        }
    }

    fn texts_at(node: &Node, text: &str) -> Vec<String> {
        let cut = |at: At| {
            let line = text.split('\n').nth(at.line as usize - 1).unwrap();
            let shown = line
                .chars()
                .skip(at.column as usize - 1)
                .take(at.width as usize);
            let shown: String = shown.collect();
            serde_json::from_str(&shown).unwrap_or(shown)
        };
        match &node.value {
            Seen::List(items) => items.iter().flat_map(|item| texts_at(item, text)).collect(),
            Seen::Map(entries) => entries
                .iter()
                .flat_map(|entry| [vec![cut(entry.at)], texts_at(&entry.value, text)].concat())
                .collect(),
            Seen::Scalar(_) | Seen::Null => vec![cut(node.at)],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_place_of_every_value_is_where_it_stands(value in json_value(), is_pretty: bool) {
            let text = if is_pretty { format!("{value:#}") } else { value.to_string() };
            let node = Places::of(&text).node();
            prop_assert_eq!(texts_at(&node, &text), texts_of(&value));
        }

        #[test]
        fn no_text_panics(text in "[a-c$\\{\\}\\[\\]\"\\\\:, \n0ü]{0,60}") {
            let _ = parse_task_definition("f", &text, &variables(), None);
            let value = Value::String(text);
            let definition = json!({"family": "a", "containerDefinitions": [{"name": value}]});
            let _ = read(&definition);
        }
    }
}
