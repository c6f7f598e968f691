//! Bodies of webhook calls: packed, as those of before, and on their way to another database.

use super::super::schema::deliveries;
use super::super::{Decision, NewDelivery, Store, transfer};
use super::databases::{self, Cluster};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;

fn delivery(id: &str, body: &str) -> NewDelivery {
    NewDelivery {
        project: ProjectName::parse("shop").unwrap(),
        forge: "github".into(),
        delivery_id: id.into(),
        event: "push".into(),
        body: body.into(),
        decision: Decision::Ignore {
            reason: "it is only kept".into(),
        },
        redelivery: None,
        received_at: Timestamp::UNIX_EPOCH,
    }
}

async fn body(store: &Store, id: &str) -> String {
    let shop = ProjectName::parse("shop").unwrap();
    let all = store.list_deliveries(&shop, None, 10).await.unwrap();
    let found = all.iter().find(|found| found.delivery_id == id).unwrap();
    store.get_delivery(found.id).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_kept_packed_and_those_of_before_are_read_and_move() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), Cluster::start());
    let (from, to) = (databases::sqlite(&folder), cluster.database());
    let store = Store::open(&from).await.unwrap();
    let shop = ProjectName::parse("shop").unwrap();
    let at = Timestamp::UNIX_EPOCH;
    let project = store.upsert_project(shop, "/srv/shop.git".into(), "key".into(), at);
    project.await.unwrap();
    let usual = r#"{"head":"⚓","url":"https://example.com/shop"},"#.repeat(150);
    let long = usual.repeat(60);
    let all = [
        ("none", ""),
        ("usual", &usual),
        ("long", &long),
        ("before", "{}"),
    ];
    for (id, body) in all {
        store.accept_delivery(delivery(id, body)).await.unwrap();
    }
    let kept = store.write(|c| {
        let of_before = deliveries::table.filter(deliveries::delivery_id.eq("before"));
        let packed = None::<Vec<u8>>;
        diesel::update(of_before)
            .set((
                deliveries::body.eq("{}"),
                deliveries::packed_body.eq(packed),
            ))
            .execute(c)?;
        let usual = deliveries::table.filter(deliveries::delivery_id.eq("usual"));
        let columns = (deliveries::body, deliveries::packed_body);
        Ok(usual
            .select(columns)
            .first::<(String, Option<Vec<u8>>)>(c)?)
    });
    let (text, packed) = kept.await.unwrap();
    let packed = packed.unwrap().len();
    assert_eq!(text, "");
    assert!(
        packed * 5 < usual.len(),
        "{packed} of {} bytes",
        usual.len()
    );
    for (id, told) in all {
        assert_eq!(body(&store, id).await, told, "{id}");
    }

    drop(store);
    let mut tries = 0;
    loop {
        let (from, to) = (from.clone(), to.clone());
        let moving = tokio::task::spawn_blocking(move || transfer::transfer(&from, &to));
        match moving.await.unwrap() {
            Ok(_) => break,
            // The store that was dropped has not let go of its file yet.
            Err(error) => assert!(
                tries < 600 && error.to_string().contains("is in use"),
                "{error}"
            ),
        }
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let store = Store::open(&to).await.unwrap();
    for (id, told) in all {
        assert_eq!(body(&store, id).await, told, "{id}");
    }

    let spoilt = store.write(|c| {
        let usual = deliveries::table.filter(deliveries::delivery_id.eq("usual"));
        let changed = diesel::update(usual).set(deliveries::packed_body.eq(vec![1_u8, 2]));
        Ok(changed.returning(deliveries::id).get_result::<i64>(c)?)
    });
    let id = spoilt.await.unwrap();
    let error = store.get_delivery(id).await.unwrap_err().to_string();
    let told = format!("row delivery {id} holds a value that cannot be read: packed_body: ");
    assert!(error.starts_with(&told), "{error}");
}
