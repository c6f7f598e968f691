//! What an injected fault makes of a good answer: an older one, or one with a failure in it.

use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::Body;
use crate::services::Reply;

/// So many answers are remembered; then the oldest question goes.
const MOST: usize = 256;

/// The last answer to each question that changed nothing.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<IndexMap<String, Body>>);

impl Remembered {
    /// Keeps an answer; the one before it.
    pub(super) fn keep(&self, question: String, answer: Body) -> Option<Body> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = answers.insert(question, answer);
        if answers.len() > MOST {
            answers.shift_remove_index(0);
        }
        before
    }
}

/// The answer with its last item told as a failure instead; as it was, when it has no failures to
/// tell.
pub(super) fn with_a_failure(mut reply: Reply<Body>) -> Reply<Body> {
    if let Body::Value(Value::Object(members)) = &mut reply.body
        && members.contains_key("failures")
    {
        let lost = members
            .iter_mut()
            .filter(|(name, _)| *name != "failures")
            .find_map(|(_, value)| value.as_array_mut()?.pop());
        if let (Some(lost), Some(Value::Array(failures))) = (lost, members.get_mut("failures")) {
            failures.push(json!({"arn": arn_of(&lost), "reason": "MISSING"}));
        }
    }
    reply
}

/// The first ARN among the members: the item's own.
fn arn_of(item: &Value) -> Option<&str> {
    let members = item.as_object()?;
    members
        .values()
        .filter_map(Value::as_str)
        .find(|text| text.starts_with("arn:"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MOST, Remembered, with_a_failure};
    use crate::services::Reply;
    use crate::wire::Body;

    #[test]
    fn the_answer_before_comes_back_and_old_questions_are_forgotten() {
        let remembered = Remembered::default();
        let answer = |number: usize| Body::Value(json!(number));
        assert_eq!(remembered.keep("a".to_owned(), answer(1)), None);
        assert_eq!(remembered.keep("a".to_owned(), answer(2)), Some(answer(1)));
        for number in 0..MOST {
            remembered.keep(number.to_string(), answer(0));
        }
        assert_eq!(remembered.keep("a".to_owned(), answer(3)), None);
    }

    #[test]
    fn one_item_becomes_a_failure_by_its_arn() {
        let reply = |body| Reply::read(Body::Value(body));
        let whole = json!({"services": [{"serviceArn": "arn:a"}, {"serviceArn": "arn:b"}],
                           "failures": []});
        let spoilt = json!({"services": [{"serviceArn": "arn:a"}],
                            "failures": [{"arn": "arn:b", "reason": "MISSING"}]});
        assert_eq!(with_a_failure(reply(whole)), reply(spoilt));
        let none = json!({"cluster": {}});
        assert_eq!(with_a_failure(reply(none.clone())), reply(none));
    }
}
