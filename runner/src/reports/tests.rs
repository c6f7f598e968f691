//! What is read of reports, and of files that only look like some.

use super::junit::Tally;
use super::*;
use roadstead_protocol::{LONGEST_CASE_MESSAGE, LONGEST_CASE_NAME, MOST_FAILED_CASES};
use std::{fs, os::unix::fs::symlink};

fn tally(xml: &str) -> Result<Tally, String> {
    let mut tally = Tally::default();
    tally.add(xml).map(|()| tally)
}

fn numbers(tally: &Tally) -> (u64, u64, u64) {
    (tally.tests, tally.failed, tally.skipped)
}

/// As Maven, pytest, Jest and cargo-nextest write it, in one.
const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- numbers that lie -->
<testsuites name="all" tests="9999" failures="0">
  <properties><property name="a" value="b"/></properties>
  <testsuite name="cart" tests="1">
    <testcase classname="shop.Cart" name="adds &lt;up&gt; &amp; &#x41;" time="0.1">
      <failure message="expected &quot;12&quot;" type="AssertionError">at Cart.java:12
&lt;b&gt;left&lt;/b&gt; &#33;<![CDATA[ <i>raw</i> & more]]></failure>
      <system-out>not a message</system-out>
    </testcase>
    <testcase classname="shop.Cart" name="breaks"><error>panicked</error><failure message="second"/></testcase>
    <testcase name="fine" time="0.2"/>
    <testcase name="fine too"><system-err>loud</system-err></testcase>
    <testsuite name="inner"><testcase name="later"><skipped message="not yet"/></testcase></testsuite>
  </testsuite>
  <testsuite name="flaky"><testcase name="once"><flakyFailure message="was bad"/></testcase></testsuite>
</testsuites>
"#;

#[test]
fn cases_are_counted_and_those_that_failed_are_told() {
    let found = tally(REPORT).unwrap();
    assert_eq!(numbers(&found), (6, 2, 1));
    let [first, second] = found.cases.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        (first.class.as_str(), first.name.as_str()),
        ("shop.Cart", "adds <up> & A")
    );
    assert_eq!(
        first.message,
        "expected \"12\"\nat Cart.java:12\n<b>left</b> ! <i>raw</i> & more"
    );
    assert_eq!(second.message, "panicked");
    let one = "<testsuite><testcase name='a'><failure/></testcase></testsuite>";
    let found = tally(one).unwrap();
    assert_eq!(
        (numbers(&found), found.cases[0].message.as_str()),
        ((1, 1, 0), "")
    );
    assert_eq!(numbers(&tally("<testsuites/>").unwrap()), (0, 0, 0));
}

#[test]
fn of_a_file_with_a_mistake_nothing_counts() {
    let mut all = tally(REPORT).unwrap();
    for (wrong, said) in [
        ("", "no JUnit report"),
        ("{\"tests\": 1}", "no JUnit report"),
        ("<html><body/></html>", "begins with `html`"),
        ("<testsuite><testcase name='a'/>", "ends in the middle"),
        ("<testsuite><testcase name='a'></testsuite>", "at byte"),
        ("<testsuite><testcase", "at byte"),
    ] {
        let told = all.add(wrong).unwrap_err();
        assert!(told.contains(said), "{wrong}: {told}");
    }
    assert_eq!(numbers(&all), (6, 2, 1));
    let deep = format!("<testsuite>{}", "<testsuite>".repeat(100_000));
    assert!(tally(&deep).unwrap_err().contains("more than 64 deep"));
}

#[test]
fn entities_of_a_files_own_are_neither_read_nor_multiplied() {
    let lines: String = (1..12)
        .map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)))
        .collect();
    let bomb = format!(
        "<!DOCTYPE t [<!ENTITY l0 \"lol\"><!ENTITY x SYSTEM \"file:///etc/passwd\">{lines}]>\
         <testsuite><testcase name=\"&l11;\"><failure message=\"&x;\">&l11; &x;</failure></testcase></testsuite>"
    );
    let found = tally(&bomb).unwrap();
    assert_eq!(numbers(&found), (1, 1, 0));
    assert_eq!(found.cases[0].name, "&l11;");
    assert_eq!(found.cases[0].message, "&x;\n&l11; &x;");
}

#[test]
fn texts_and_cases_are_cut() {
    let case = format!(
        "<testcase classname='{0}' name='{0}'><failure message='{1}'>{1}</failure></testcase>",
        "ü".repeat(LONGEST_CASE_NAME),
        "ü".repeat(LONGEST_CASE_MESSAGE)
    );
    let found = tally(&format!("<testsuite>{}</testsuite>", case.repeat(60))).unwrap();
    assert_eq!(numbers(&found), (60, 60, 0));
    assert_eq!(found.cases.len(), MOST_FAILED_CASES);
    let first = &found.cases[0];
    assert!(first.class.len() <= LONGEST_CASE_NAME && first.name.len() <= LONGEST_CASE_NAME);
    assert!(
        first.message.len() <= LONGEST_CASE_MESSAGE + 1,
        "{}",
        first.message.len()
    );
    let many =
        "<testsuite>".to_owned() + &"<testcase a='1' a='2'/>".repeat(50_000) + "</testsuite>";
    assert_eq!(numbers(&tally(&many).unwrap()), (50_000, 0, 0));
    let attributes: String = (0..200_000).map(|n| format!(" a{n}='x'")).collect();
    let wide = format!("<testsuite><testcase{attributes} name='last'/></testsuite>");
    assert_eq!(numbers(&tally(&wide).unwrap()), (1, 0, 0));
}

#[test]
fn files_are_read_below_the_workspace_alone() {
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    fs::create_dir_all(work.join("target")).unwrap();
    fs::write(place.path().join("outside.xml"), REPORT).unwrap();
    fs::write(work.join("target/a.xml"), REPORT).unwrap();
    fs::write(work.join("target/b.xml"), "no XML").unwrap();
    fs::write(work.join("target/c.xml"), b"<testsuite>\xff</testsuite>").unwrap();
    fs::write(work.join("target/d.txt"), REPORT).unwrap();
    fs::File::create(work.join("target/large.xml"))
        .unwrap()
        .set_len(LARGEST_REPORT + 1)
        .unwrap();
    symlink("../../outside.xml", work.join("target/e.xml")).unwrap();
    let found = read(&work, &["target/*.xml".into()]).unwrap();
    assert_eq!((found.files, numbers(&found.tally)), (1, (6, 2, 1)));
    let told = found.trouble.join("\n");
    assert_eq!(found.trouble.len(), 3, "{told}");
    assert!(
        told.contains("`target/b.xml` is not read: it is no JUnit report"),
        "{told}"
    );
    assert!(
        told.contains("not UTF-8") && told.contains("more than 16777216 bytes"),
        "{told}"
    );
    let none = read(&work, &["*.json".into()]).unwrap();
    assert_eq!(none.nothing.unwrap(), "no file matches `*.json`");
}

#[test]
fn secrets_are_masked() {
    let secrets = ["hunter2-hunter2".to_owned()];
    assert_eq!(
        masked("it is hunter2-hunter2!", &secrets).unwrap(),
        "it is ***!"
    );
    assert_eq!(masked("nothing of it", &[]).unwrap(), "nothing of it");
}
