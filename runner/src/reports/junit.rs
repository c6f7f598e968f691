//! Reads JUnit's XML, as nearly every test runner writes it.
//!
//! Owns what of it counts: the cases themselves, never the numbers that a file says of itself. The text is hostile:
//! entities of a file's own stay unread, so none grows, depth and lengths have limits, and bad XML is an error with its
//! place. Pure.

use quick_xml::{
    Reader,
    escape::{resolve_predefined_entity, unescape},
    events::{BytesRef, BytesStart, Event},
};
use roadstead_protocol::{FailedCase, LONGEST_CASE_MESSAGE, LONGEST_CASE_NAME, MOST_FAILED_CASES};

/// Elements within each other: suites hold suites, and no known tool goes beyond ten.
const DEEPEST: usize = 64;

/// What files of one step come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) tests: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// The first of those that failed.
    pub(crate) cases: Vec<FailedCase>,
}

/// How a case went, as far as it was read.
#[derive(Debug, Default)]
struct Case {
    class: String,
    name: String,
    failed: bool,
    skipped: bool,
    message: String,
}

impl Tally {
    /// Adds what `xml` says. Of a file with a mistake nothing counts.
    ///
    /// # Errors
    /// What is wrong with it, with the byte where.
    pub(crate) fn add(&mut self, xml: &str) -> Result<(), String> {
        let mut found = Self::default();
        let mut reader = Reader::from_str(xml);
        found.read(&mut reader).map_err(|why| {
            let at = reader.error_position().max(reader.buffer_position());
            format!("{why} (at byte {at})")
        })?;
        self.tests += found.tests;
        self.failed += found.failed;
        self.skipped += found.skipped;
        let left = MOST_FAILED_CASES.saturating_sub(self.cases.len());
        self.cases.extend(found.cases.into_iter().take(left));
        Ok(())
    }

    fn read(&mut self, reader: &mut Reader<&[u8]>) -> Result<(), String> {
        let mut depth = 0_usize;
        let mut is_report = false;
        let mut case: Option<Case> = None;
        // Within `failure` or `error` of a case: what stands there is the message.
        let mut telling: Option<usize> = None;
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(element) => {
                    depth += 1;
                    if depth > DEEPEST {
                        return Err(format!("elements are more than {DEEPEST} deep"));
                    }
                    is_report |= is_root(depth, &element)?;
                    if open(&element, &mut case) {
                        telling.get_or_insert(depth);
                    }
                }
                Event::Empty(element) => {
                    is_report |= is_root(depth + 1, &element)?;
                    let alone = element.local_name().as_ref() == "testcase";
                    open(&element, &mut case);
                    if alone {
                        self.close(case.take());
                    }
                }
                Event::End(element) => {
                    if telling == Some(depth) {
                        telling = None;
                    }
                    depth = depth.saturating_sub(1);
                    if element.local_name().as_ref() == "testcase" {
                        self.close(case.take());
                    }
                }
                Event::Text(text) if telling.is_some() => {
                    tell(&mut case, &text.xml10_content());
                }
                Event::CData(text) if telling.is_some() => {
                    tell(&mut case, &text.xml10_content());
                }
                Event::GeneralRef(reference) if telling.is_some() => {
                    tell(&mut case, &meant_by(&reference));
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if depth > 0 {
            return Err("it ends in the middle".to_owned());
        }
        if !is_report {
            return Err("it is no JUnit report: it has no `testsuite`".to_owned());
        }
        Ok(())
    }

    fn close(&mut self, case: Option<Case>) {
        let Some(case) = case else { return };
        self.tests += 1;
        if case.failed {
            self.failed += 1;
            if self.cases.len() < MOST_FAILED_CASES {
                self.cases.push(FailedCase {
                    class: case.class,
                    name: case.name,
                    message: case.message.trim().to_owned(),
                });
            }
        } else if case.skipped {
            self.skipped += 1;
        }
    }
}

/// Whether the element is a report's outermost one.
fn is_root(depth: usize, element: &BytesStart<'_>) -> Result<bool, String> {
    if depth != 1 {
        return Ok(false);
    }
    match element.local_name().as_ref() {
        "testsuites" | "testsuite" => Ok(true),
        other => {
            let name: String = other.chars().take(40).collect();
            Err(format!("it is no JUnit report: it begins with `{name}`"))
        }
    }
}

/// Takes an element in; true when its text is a message.
fn open(element: &BytesStart<'_>, case: &mut Option<Case>) -> bool {
    match (element.local_name().as_ref(), case) {
        ("testcase", case) => {
            *case = Some(Case {
                class: attribute(element, "classname", LONGEST_CASE_NAME),
                name: attribute(element, "name", LONGEST_CASE_NAME),
                ..Case::default()
            });
            false
        }
        ("failure" | "error", Some(case)) => {
            case.failed = true;
            // The first one is told.
            if case.message.is_empty() {
                case.message = attribute(element, "message", LONGEST_CASE_MESSAGE);
                if !case.message.is_empty() {
                    case.message.push('\n');
                }
                true
            } else {
                false
            }
        }
        ("skipped", Some(case)) => {
            case.skipped = true;
            false
        }
        _ => false,
    }
}

/// An attribute's text, cut; empty when it is not there, and as it is written when a reference in it is the file's own.
fn attribute(element: &BytesStart<'_>, name: &str, most: usize) -> String {
    // Looking for names that stand twice would compare each with each.
    let mut all = element.attributes();
    let found = all
        .with_checks(false)
        .flatten()
        .find(|it| it.key.as_ref() == name);
    let Some(found) = found else {
        return String::new();
    };
    let read = unescape(&found.value).unwrap_or_else(|_| found.value.clone());
    cut(&read, most).to_owned()
}

fn tell(case: &mut Option<Case>, text: &str) {
    let Some(case) = case else { return };
    let left = LONGEST_CASE_MESSAGE.saturating_sub(case.message.len());
    case.message.push_str(cut(text, left));
}

/// What a reference stands for; one of the file's own stays as it is written.
fn meant_by(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return character.to_string();
    }
    resolve_predefined_entity(reference)
        .map_or_else(|| format!("&{};", &**reference), str::to_owned)
}

/// The beginning of a text, at most so many bytes of it.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
