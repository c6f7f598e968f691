//! Chains that hold, and every way in which one does not.

use super::*;
use serde_json::json;

fn shop() -> Chain {
    Chain::parse("project/shop").unwrap()
}

/// A chain that holds, with its head.
fn chain(length: u64) -> (Vec<Entry>, Head) {
    let mut previous = NOTHING_BEFORE.to_owned();
    let mut entries = vec![];
    for position in 1..=length {
        let mut entry = Entry {
            chain: shop(),
            position,
            at: Timestamp::UNIX_EPOCH,
            subject: format!("shop.{position}"),
            actor: "ada".into(),
            what: "asked_for".into(),
            reason: String::new(),
            before: Value::Null,
            after: json!("fetching"),
            detail: json!({"commit": "0123"}),
            hash: String::new(),
        };
        entry.hash = entry.hash_after(&previous).unwrap();
        previous.clone_from(&entry.hash);
        entries.push(entry);
    }
    let head = Head {
        chain: shop(),
        length,
        head: previous,
    };
    (entries, head)
}

fn verify(entries: &[Entry], head: &Head, noted: &[Head]) -> Result<Vec<Head>, Broken> {
    let mut verifier = Verifier::new(noted.to_vec());
    for entry in entries {
        verifier.entry(entry)?;
    }
    verifier.head(head)?;
    verifier.finish()
}

#[test]
fn the_hash_is_the_documented_one() {
    let (entries, _) = chain(1);
    let text = serde_json::to_string(&entries[0]).unwrap();
    let (content, _) = text.split_once(",\"hash\":").unwrap();
    let hashed = format!("{NOTHING_BEFORE}\n{content}}}");
    assert_eq!(entries[0].hash, hex::encode(Sha256::digest(hashed)));
}

#[test]
fn a_chain_that_holds_gives_its_head_and_agrees_with_every_earlier_one() {
    let (entries, head) = chain(5);
    for noted in 0..=5 {
        let earlier = chain(noted).1;
        assert_eq!(verify(&entries, &head, &[earlier]), Ok(vec![head.clone()]));
    }
    let told = head.to_string();
    assert!(told.starts_with("project/shop=5:"), "{told}");
    assert_eq!(Head::parse(&told), Some(head));
}

#[test]
fn every_field_counts() {
    let (entries, head) = chain(5);
    let changes: [fn(&mut Entry); 9] = [
        |e| e.at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_micros(1),
        |e| e.subject = "shop.9".into(),
        |e| e.actor = "eve".into(),
        |e| e.what = "cancelled".into(),
        |e| e.reason = "because".into(),
        |e| e.before = json!("queued"),
        |e| e.after = Value::Null,
        |e| e.detail = json!({"commit": "0124"}),
        |e| e.hash.replace_range(0..1, "x"),
    ];
    for change in changes {
        let mut tampered = entries.clone();
        change(&mut tampered[2]);
        let broken = verify(&tampered, &head, &[]).unwrap_err();
        assert!(
            matches!(&broken, Broken::Changed { entry } if entry.starts_with("entry 3 of")),
            "{broken}"
        );
    }
}

#[test]
fn an_entry_whose_hash_was_computed_anew_breaks_the_next_one() {
    let (mut entries, head) = chain(5);
    entries[2].actor = "eve".into();
    let previous = entries[1].hash.clone();
    entries[2].hash = entries[2].hash_after(&previous).unwrap();
    let broken = verify(&entries, &head, &[]).unwrap_err();
    assert!(
        broken.to_string().starts_with("entry 4 of project/shop"),
        "{broken}"
    );
}

#[test]
fn what_is_gone_or_too_much_is_named() {
    let (entries, head) = chain(5);
    let mut gone = entries.clone();
    gone.drain(1..3);
    let missing = Broken::Missing {
        chain: shop(),
        first: 2,
        count: 2,
        next: 4,
    };
    assert_eq!(verify(&gone, &head, &[]), Err(missing));
    let cut = Broken::CutOff {
        chain: shop(),
        first: 5,
        count: 1,
    };
    assert_eq!(verify(&entries[..4], &head, &[]), Err(cut.clone()));
    // Also the head was taken back: only a noted one shows it.
    let (shorter, its_head) = chain(4);
    assert!(verify(&shorter, &its_head, &[]).is_ok());
    assert_eq!(
        verify(&shorter, &its_head, std::slice::from_ref(&head)),
        Err(cut)
    );
    let mut twice = entries.clone();
    twice.insert(3, entries[1].clone());
    let broken = verify(&twice, &head, &[]).unwrap_err();
    assert!(matches!(broken, Broken::Inserted { expected: 4, .. }));
    let beyond = verify(&entries, &its_head, &[]).unwrap_err();
    assert!(matches!(beyond, Broken::Beyond { first: 5, .. }));
}

#[test]
fn a_chain_written_anew_is_not_the_one_that_was_noted() {
    let (_, noted) = chain(3);
    let mut previous = NOTHING_BEFORE.to_owned();
    let (mut entries, mut head) = chain(5);
    for entry in &mut entries {
        entry.actor = "eve".into();
        entry.hash = entry.hash_after(&previous).unwrap();
        previous.clone_from(&entry.hash);
    }
    head.head = previous;
    assert!(verify(&entries, &head, &[]).is_ok());
    let broken = verify(&entries, &head, &[noted]).unwrap_err();
    assert!(matches!(broken, Broken::Rewritten { length: 3, .. }));
}

#[test]
fn an_export_without_its_end_is_not_whole() {
    let (entries, mut head) = chain(2);
    let mut verifier = Verifier::new(vec![]);
    verifier.entry(&entries[0]).unwrap();
    assert!(matches!(verifier.finish(), Err(Broken::NoHead { .. })));
    head.head = NOTHING_BEFORE.into();
    assert!(matches!(
        verify(&entries, &head, &[]),
        Err(Broken::Head { length: 2, .. })
    ));
}

#[test]
fn lines_are_read_as_they_are_written() {
    let (entries, head) = chain(1);
    let text = serde_json::to_string(&entries[0]).unwrap();
    let entry = Line::Entry(Box::new(entries[0].clone()));
    assert_eq!(Line::parse(&text).unwrap(), entry);
    let text = serde_json::to_string(&head).unwrap();
    assert_eq!(Line::parse(&text).unwrap(), Line::Head(head));
    Line::parse("{}").unwrap_err();
}
