//! What the sandbox takes of each AWS operation: the members that it honours, those that it takes
//! without effect, and by omission those that it refuses.
//!
//! Every call is checked here before its handler sees it, so that nothing is ignored that is not
//! listed as ignored. The table in docs/sandbox-api.md is made of these lists and of AWS's own API
//! model; a test compares it. Must not know: what a member means. Values that a handler cannot
//! honour are the handler's to refuse.

mod discovery;
mod ecr;
mod ecs;
mod others;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::AwsError;

/// One operation. Members are named by their paths, separated by white space: `a.b` is the member
/// `b` of the structure `a`, or of each structure in the list `a`. A path without paths below it
/// stands for all there is inside.
pub(super) struct Operation {
    pub name: &'static str,
    /// Members that have the effect they have at AWS.
    pub honoured: &'static str,
    /// Members that are taken, perhaps shown again, and change nothing here.
    pub ignored: &'static str,
    /// Only for requests that are kept as they came: members that are refused, while those that
    /// nobody has listed pass, because they are newer than the sandbox.
    pub refused: Option<&'static str>,
}

impl Operation {
    /// An operation that takes these members and no other.
    const fn new(name: &'static str, honoured: &'static str, ignored: &'static str) -> Self {
        Self {
            name,
            honoured,
            ignored,
            refused: None,
        }
    }
}

/// How a member is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Honoured,
    Ignored,
    Refused,
}

impl Treatment {
    fn word(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// The members of a structure that are listed.
#[derive(Default)]
struct Node {
    treatment: Option<Treatment>,
    members: BTreeMap<&'static str, Node>,
}

struct Entry {
    root: Node,
    /// Whether members that are not listed pass.
    open: bool,
}

/// Operations by service, in the words of the SDKs.
const SERVICES: [(&str, &[Operation]); 7] = [
    ("ecs", ecs::OPERATIONS),
    ("ecr", ecr::OPERATIONS),
    ("elbv2", others::ELBV2),
    ("logs", others::LOGS),
    ("cloudwatch", others::CLOUDWATCH),
    ("sts", others::STS),
    ("servicediscovery", discovery::OPERATIONS),
];

static CATALOG: LazyLock<BTreeMap<(&str, &str), Entry>> = LazyLock::new(|| {
    let mut catalog = BTreeMap::new();
    for (service, operations) in SERVICES {
        for operation in operations {
            catalog.insert((service, operation.name), Entry::new(operation));
        }
    }
    catalog
});

impl Entry {
    fn new(operation: &Operation) -> Self {
        let mut root = Node::default();
        for (paths, treatment) in operation.lists() {
            for path in paths.split_whitespace() {
                let mut node = &mut root;
                for part in path.split('.') {
                    node = node.members.entry(part).or_default();
                }
                node.treatment = Some(treatment);
            }
        }
        Self {
            root,
            open: operation.refused.is_some(),
        }
    }
}

impl Operation {
    fn lists(&self) -> [(&'static str, Treatment); 3] {
        [
            (self.honoured, Treatment::Honoured),
            (self.ignored, Treatment::Ignored),
            (self.refused.unwrap_or_default(), Treatment::Refused),
        ]
    }
}

/// Whether a value says nothing: null, false, zero, empty. Such members pass everywhere, because
/// clients send them without meaning anything.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(members) => members.values().all(says_nothing),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// Refuses the first member of a request that is neither honoured nor ignored. With `lenient` it
/// is told in the log and left to be ignored.
pub(crate) fn check(
    service: &str,
    operation: &str,
    input: &Value,
    lenient: bool,
) -> Result<(), AwsError> {
    let entry = CATALOG
        .get(&(service, operation))
        .ok_or_else(|| AwsError::unsupported_operation(operation))?;
    let mut strangers = Vec::new();
    find_strangers(&entry.root, entry.open, input, "", &mut strangers);
    if lenient {
        for member in strangers {
            tracing::warn!(operation, member, "ignored: the sandbox is lenient");
        }
        return Ok(());
    }
    match strangers.first() {
        Some(member) => Err(AwsError::unsupported_member(member)),
        None => Ok(()),
    }
}

fn find_strangers(node: &Node, open: bool, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(_, value)| !says_nothing(value)) {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                match node.members.get(name.as_str()) {
                    Some(known) if known.treatment == Some(Treatment::Refused) => found.push(path),
                    // All there is inside.
                    Some(known) if known.members.is_empty() => {}
                    Some(known) => find_strangers(known, open, value, &path, found),
                    None if open => {}
                    None => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                // The containers of a task definition are told apart by their names.
                let path = match item.get("name").and_then(Value::as_str) {
                    Some(name) => format!("{path}[{name}]"),
                    None => path.to_owned(),
                };
                find_strangers(node, open, item, &path, found);
            }
        }
        // Of the wrong type, which the handler says better.
        _ => {}
    }
}

/// The lists as JSON: by service and operation, each listed path with `honoured`, `ignored` or
/// `refused`. `open` says that members beyond the lists pass.
#[must_use]
pub fn catalog() -> Value {
    let mut services = json!({});
    for (service, operations) in SERVICES {
        for operation in operations {
            let mut members = json!({});
            for (paths, treatment) in operation.lists() {
                for path in paths.split_whitespace() {
                    members[path] = json!(treatment.word());
                }
            }
            let open = operation.refused.is_some();
            services[service][operation.name] = json!({"open": open, "members": members});
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{CATALOG, SERVICES, check};

    fn refusal(operation: &str, input: &Value) -> Option<String> {
        let refusal = check("ecs", operation, input, false).err()?;
        assert_eq!(refusal.code, "UnsupportedFeatureException");
        Some(refusal.message)
    }

    #[test]
    fn members_that_say_nothing_pass_and_others_are_refused_by_their_path() {
        let nothing = json!({"cluster": "c", "service": "s", "placementStrategy": [],
                             "volumeConfigurations": [{"name": ""}],
                             "deploymentConfiguration": {"bakeTimeInMinutes": 0}});
        assert_eq!(refusal("UpdateService", &nothing), None);
        for (member, input) in [
            (
                "`placementStrategy`",
                json!({"placementStrategy": [{"type": "spread"}]}),
            ),
            (
                "`deploymentConfiguration.bakeTimeInMinutes`",
                json!({"deploymentConfiguration": {"bakeTimeInMinutes": 5}}),
            ),
            (
                "`loadBalancers.loadBalancerName`",
                json!({"loadBalancers": [{"loadBalancerName": "classic"}]}),
            ),
            ("`fromTheFuture`", json!({"fromTheFuture": 1})),
        ] {
            let message = refusal("UpdateService", &input).unwrap();
            assert!(message.contains(member), "{message}");
            check("ecs", "UpdateService", &input, true).unwrap();
        }
    }

    #[test]
    fn a_definition_may_have_members_from_the_future_but_none_that_are_known_and_refused() {
        let future = json!({
            "family": "web",
            "fromTheFuture": {"a": 1},
            "containerDefinitions": [{"name": "web", "alsoNew": true}],
        });
        assert_eq!(refusal("RegisterTaskDefinition", &future), None);
        let secret = json!({"containerDefinitions": [
            {"name": "web", "secrets": [{"name": "S", "valueFrom": "arn"}]}]});
        let message = refusal("RegisterTaskDefinition", &secret).unwrap();
        assert!(
            message.contains("containerDefinitions[web].secrets"),
            "{message}"
        );
    }

    #[test]
    fn what_is_no_structure_is_left_to_the_handler() {
        assert_eq!(refusal("ListClusters", &json!([1])), None);
        let wrong = json!({"deploymentConfiguration": "fast"});
        assert_eq!(refusal("UpdateService", &wrong), None);
    }

    #[test]
    fn an_operation_that_is_not_listed_is_refused() {
        let refusal = check("ecs", "CreateCapacityProvider", &json!({}), true).unwrap_err();
        assert!(refusal.message.contains("CreateCapacityProvider"));
    }

    /// A member listed twice would be treated as the list that comes last says.
    #[test]
    fn no_member_is_listed_twice() {
        for (service, operations) in SERVICES {
            for operation in operations {
                let mut seen = std::collections::BTreeSet::new();
                for (paths, _) in operation.lists() {
                    for path in paths.split_whitespace() {
                        assert!(seen.insert(path), "{service} {} {path}", operation.name);
                    }
                }
            }
        }
        let listed: usize = SERVICES.iter().map(|(_, listed)| listed.len()).sum();
        assert_eq!(CATALOG.len(), listed);
    }
}
