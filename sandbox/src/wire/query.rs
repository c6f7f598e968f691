//! The Query protocol: form parameters in, XML out.
//!
//! Lists come as `Names.member.1`, structures as `Actions.member.1.Type`. Replies are JSON values
//! turned into elements, so that handlers look alike for both protocols. Must not know: any
//! operation.

use indexmap::IndexMap;
use quick_xml::escape::escape;
use serde_json::Value;

use crate::services::AwsError;

/// The form parameters of a call, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(pub IndexMap<String, String>);

impl Params {
    /// Reads an `application/x-www-form-urlencoded` body. A parameter given twice is refused.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, AwsError> {
        let mut params = IndexMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if params
                .insert(name.clone().into_owned(), value.into_owned())
                .is_some()
            {
                return Err(AwsError::client(
                    "MalformedInput",
                    format!("The parameter {name} is given twice."),
                ));
            }
        }
        Ok(Self(params))
    }

    /// A parameter that may be absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that may not be absent.
    pub(crate) fn required(&self, name: &str) -> Result<&str, AwsError> {
        self.get(name).ok_or_else(|| {
            AwsError::client(
                "ValidationError",
                format!("The request must contain the parameter {name}."),
            )
        })
    }

    /// A whole number between two bounds, or None when it is absent.
    pub(crate) fn number(
        &self,
        name: &str,
        least: u32,
        most: u32,
    ) -> Result<Option<u32>, AwsError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(AwsError::client(
                "ValidationError",
                format!("{name} must be a number from {least} to {most}, not '{text}'."),
            )),
        }
    }

    /// The strings of a list, in the order of their numbers.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        (1..)
            .map_while(|number| self.get(&format!("{name}.member.{number}")))
            .collect()
    }

    /// The structures of a list, in the order of their numbers.
    pub(crate) fn structures(&self, name: &str) -> Vec<Self> {
        (1..)
            .map(|number| self.structure(&format!("{name}.member.{number}")))
            .take_while(|structure| !structure.0.is_empty())
            .collect()
    }

    /// The members of a structure; empty when it is absent.
    pub(crate) fn structure(&self, name: &str) -> Self {
        let members = self.0.iter().filter_map(|(key, value)| {
            let member = key.strip_prefix(name)?.strip_prefix('.')?;
            Some((member.to_owned(), value.clone()))
        });
        Self(members.collect())
    }
}

impl Params {
    /// The parameters as values: structures and lists nest, every leaf is a text.
    pub(crate) fn tree(&self) -> Value {
        let mut root = Value::Object(serde_json::Map::new());
        for (name, text) in &self.0 {
            if name == "Action" || name == "Version" {
                continue;
            }
            let mut place = &mut root;
            for part in name.split('.').filter(|part| *part != "member") {
                if !place.is_object() {
                    *place = Value::Object(serde_json::Map::new());
                }
                place = &mut place[part];
            }
            *place = Value::String(text.clone());
        }
        number_lists(&mut root);
        root
    }
}

/// Makes lists of those structures whose members are `1`, `2` and so on.
fn number_lists(value: &mut Value) {
    let Value::Object(members) = value else {
        return;
    };
    for member in members.values_mut() {
        number_lists(member);
    }
    let mut items: Vec<(usize, Value)> = members
        .iter()
        .filter_map(|(name, item)| Some((name.parse().ok()?, item.clone())))
        .collect();
    if !items.is_empty() && items.len() == members.len() {
        items.sort_by_key(|(number, _)| *number);
        *value = items.into_iter().map(|(_, item)| item).collect();
    }
}

/// The XML body of a successful answer of CloudWatch.
pub(crate) fn cloudwatch_body(action: &str, mut result: Value, request_id: &str) -> String {
    write_times(&mut result);
    reply_body(
        action,
        "http://monitoring.amazonaws.com/doc/2010-08-01/",
        &result,
        request_id,
    )
}

/// Writes times as this protocol has them, which are numbers within.
fn write_times(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(write_times),
        Value::Object(members) => {
            for (name, member) in members {
                let seconds = member.as_f64().filter(|_| super::is_time(name));
                match seconds.and_then(|seconds| {
                    jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
                }) {
                    Some(time) => *member = Value::String(format!("{time:.3}")),
                    None => write_times(member),
                }
            }
        }
        _ => {}
    }
}

/// The XML body of a successful answer: `result` under `<ActionResult>`.
pub(crate) fn reply_body(
    action: &str,
    namespace: &str,
    result: &Value,
    request_id: &str,
) -> String {
    let mut content = String::new();
    write_members(&mut content, result);
    format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{content}</{action}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// The XML body of a refusal.
pub(crate) fn error_body(error: &AwsError, request_id: &str) -> String {
    let blame = if error.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    format!(
        "<ErrorResponse><Error><Type>{blame}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>{}</RequestId></ErrorResponse>",
        escape(&error.code),
        escape(&error.message),
        escape(request_id)
    )
}

/// Members of objects become elements, items of lists `<member>`s; null is left out.
fn write_members(xml: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => xml.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => xml.push_str(&number.to_string()),
        Value::String(text) => xml.push_str(&escape(text.as_str())),
        Value::Array(items) => {
            for item in items {
                write_element(xml, "member", item);
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(_, member)| !member.is_null()) {
                write_element(xml, name, member);
            }
        }
    }
}

fn write_element(xml: &mut String, name: &str, value: &Value) {
    xml.push_str(&format!("<{name}>"));
    write_members(xml, value);
    xml.push_str(&format!("</{name}>"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_and_structures_are_read_by_number() {
        let params = Params::parse(
            b"Action=X&Names.member.1=a%26b&Names.member.2=c+d&Names.member.4=lost\
              &Actions.member.1.Type=forward&Actions.member.1.Forward.Groups.member.1.Weight=3",
        )
        .unwrap();
        assert_eq!(params.list("Names"), ["a&b", "c d"]);
        let actions = params.structures("Actions");
        assert_eq!(actions.len(), 1);
        assert_eq!(actions[0].get("Type"), Some("forward"));
        let groups = actions[0].structure("Forward").structures("Groups");
        assert_eq!(groups[0].number("Weight", 0, 999).unwrap(), Some(3));
        assert!(groups[0].number("Weight", 4, 999).is_err());
        assert!(
            params
                .required("Port")
                .unwrap_err()
                .message
                .contains("Port")
        );
        assert!(Params::parse(b"A=1&A=2").is_err());
    }

    #[test]
    fn parameters_become_a_tree() {
        let params = Params::parse(
            b"Action=X&Version=1&AlarmName=a&Names.member.2=c&Names.member.1=b\
              &Dimensions.member.1.Name=n&Dimensions.member.1.Value=v",
        )
        .unwrap();
        assert_eq!(
            params.tree(),
            json!({"AlarmName": "a", "Names": ["b", "c"],
                   "Dimensions": [{"Name": "n", "Value": "v"}]})
        );
    }

    #[test]
    fn times_are_written_out() {
        let mut value = json!({"Alarms": [{"StateUpdatedTimestamp": 1.5, "Period": 60}]});
        write_times(&mut value);
        assert_eq!(
            value,
            json!({"Alarms": [{"StateUpdatedTimestamp": "1970-01-01T00:00:01.500Z",
                               "Period": 60}]})
        );
    }

    #[test]
    fn values_become_escaped_elements() {
        let xml = reply_body(
            "Describe",
            "urn:x",
            &json!({"Groups": [{"Name": "a<b>&", "Port": 80, "Gone": null}], "On": true, "No": []}),
            "id",
        );
        assert!(
            xml.starts_with(
                "<DescribeResponse xmlns=\"urn:x\"><DescribeResult><Groups><member>\
                 <Name>a&lt;b&gt;&amp;</Name><Port>80</Port></member></Groups><On>true</On><No></No>\
                 </DescribeResult><ResponseMetadata><RequestId>id</RequestId>"
            ),
            "{xml}"
        );
        let error = error_body(&AwsError::client("Bad", "1 < 2"), "id");
        assert!(
            error.contains("<Code>Bad</Code><Message>1 &lt; 2</Message>"),
            "{error}"
        );
    }
}
