//! What only the store's own rooms can see: migrations, batches, broken rows. The rest is tested
//! from outside, in `tests/store_*.rs`.

mod audit;
mod bodies;
mod checkpoint;
#[expect(dead_code, reason = "tests of servers use more of it")]
#[path = "../../tests/support/databases.rs"]
mod databases;
mod groups;
mod jobs;
#[path = "../../tests/support/noise.rs"]
mod noise;

use super::conn::{Access, Address, AnyConnection};
use super::schema::{projects, users};
use super::{Result, Store, StoreError, migrate};
use databases::on_both_databases;
use diesel::prelude::*;
use diesel::sql_types::Text;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc;

on_both_databases!(
    down_and_up_again_gives_the_same_tables,
    one_closure_does_not_harm_the_others,
    a_reader_sees_one_snapshot_and_writes_nothing,
    a_row_that_cannot_be_read_is_named,
);

#[derive(QueryableByName, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    nullable: String,
}

/// Tables and columns as the database reports them, in the words of `schema.rs`.
fn columns(connection: &mut AnyConnection) -> BTreeSet<String> {
    let found: Vec<Column> = match connection {
        AnyConnection::Sqlite(c) => diesel::sql_query(
            "SELECT m.name AS table_name, p.name AS column_name, lower(p.type) AS kind, \
             CASE p.\"notnull\" WHEN 1 THEN 'NO' ELSE 'YES' END AS nullable \
             FROM sqlite_master m, pragma_table_info(m.name) p \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
        )
        .load(c)
        .unwrap(),
        AnyConnection::Postgres(c) => diesel::sql_query(
            "SELECT table_name::text, column_name::text, data_type::text AS kind, \
             is_nullable::text AS nullable \
             FROM information_schema.columns WHERE table_schema = 'public'",
        )
        .load(c)
        .unwrap(),
    };
    found
        .into_iter()
        .filter(|column| column.table_name != "__diesel_schema_migrations")
        .map(|column| {
            let kind = match column.kind.as_str() {
                "text" => "Text",
                "bigint" | "integer" => "BigInt",
                "boolean" => "Bool",
                "blob" | "bytea" => "Binary",
                other => panic!("{column:?}: {other} is not in the common subset"),
            };
            let kind = match column.nullable.as_str() {
                "YES" => format!("Nullable<{kind}>"),
                _ => kind.to_owned(),
            };
            format!("{}.{} {kind}", column.table_name, column.column_name)
        })
        .collect()
}

/// The same, read off `schema.rs`.
fn schema() -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    let mut table = String::new();
    for line in include_str!("schema.rs").lines() {
        let line = line.trim();
        if let Some((name, rest)) = line.split_once(" (")
            && rest.ends_with('{')
        {
            table = name.to_owned();
        } else if let Some((column, kind)) = line.split_once(" -> ") {
            columns.insert(format!("{table}.{column} {}", kind.trim_end_matches(',')));
        }
    }
    columns
}

async fn down_and_up_again_gives_the_same_tables(url: &str) {
    let url = url.to_owned();
    let work = move || {
        let address = Address::parse(&url).unwrap();
        let mut connection = AnyConnection::connect(&address, Access::Write).unwrap();
        migrate::up(&mut connection).unwrap();
        assert_eq!(columns(&mut connection), schema());
        migrate::up(&mut connection).unwrap();
        migrate::down(&mut connection).unwrap();
        assert_eq!(columns(&mut connection), BTreeSet::new());
        migrate::up(&mut connection).unwrap();
        assert_eq!(columns(&mut connection), schema());
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../migrations")
            .join(database);
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
    assert!(!names("sqlite").is_empty());
}

fn add_user(connection: &mut AnyConnection, name: &str) -> Result<()> {
    diesel::insert_into(users::table)
        .values((
            users::name.eq(name),
            users::password_hash.eq("hash"),
            users::role.eq("viewer"),
            users::created_at.eq(0),
        ))
        .execute(connection)?;
    Ok(())
}

/// On SQLite all of these share one transaction: the first one keeps the writer busy until the
/// others wait.
async fn one_closure_does_not_harm_the_others(url: &str) {
    let store = Store::open(url).await.unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let writer = store.clone();
    let busy = tokio::spawn(async move {
        writer
            .write(move |c| {
                add_user(c, "first")?;
                // An error means that the test has ended.
                let _ = held.lock().unwrap().recv();
                Ok(())
            })
            .await
    });
    let mut good = vec![];
    let mut bad = vec![];
    for number in 0..10 {
        let writer = store.clone();
        good.push(tokio::spawn(async move {
            writer
                .write(move |c| add_user(c, &format!("good-{number}")))
                .await
        }));
        let writer = store.clone();
        bad.push(tokio::spawn(async move {
            writer
                .write(move |c| -> Result<()> {
                    add_user(c, &format!("bad-{number}"))?;
                    match number % 3 {
                        0 => panic!("closure {number} breaks off"),
                        1 => Err(StoreError::conflict("changed its mind")),
                        _ => add_user(c, &format!("bad-{number}")),
                    }
                })
                .await
        }));
    }
    release.send(()).unwrap();
    busy.await.unwrap().unwrap();
    for task in good {
        task.await.unwrap().unwrap();
    }
    for (number, task) in bad.into_iter().enumerate() {
        let error = task.await.unwrap().unwrap_err();
        match number % 3 {
            0 => assert_eq!(
                error.to_string(),
                format!("a defect: the work panicked: closure {number} breaks off")
            ),
            _ => assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}"),
        }
    }
    let names: Vec<String> = store
        .read(|c| {
            Ok(users::table
                .select(users::name)
                .order(users::name)
                .load(c)?)
        })
        .await
        .unwrap();
    let mut expected: Vec<String> = (0..10).map(|number| format!("good-{number}")).collect();
    expected.insert(0, "first".into());
    assert_eq!(names, expected);
}

async fn a_reader_sees_one_snapshot_and_writes_nothing(url: &str) {
    let store = Store::open(url).await.unwrap();
    let (looked, has_looked) = tokio::sync::oneshot::channel::<()>();
    let (release, held) = mpsc::channel::<()>();
    let reader = store.clone();
    let reading = tokio::spawn(async move {
        reader
            .read(move |c| {
                let before: i64 = users::table.count().get_result(c)?;
                // An error means that the test has ended.
                let _ = looked.send(());
                let _ = held.recv();
                let after: i64 = users::table.count().get_result(c)?;
                Ok((before, after))
            })
            .await
    });
    has_looked.await.unwrap();
    store.write(|c| add_user(c, "ada")).await.unwrap();
    release.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), (0, 0));
    store.read(|c| add_user(c, "bob")).await.unwrap_err();
    assert_eq!(store.list_users().await.unwrap().len(), 1);
}

async fn a_row_that_cannot_be_read_is_named(url: &str) {
    let store = Store::open(url).await.unwrap();
    store
        .write(|c| {
            diesel::insert_into(projects::table)
                .values((
                    projects::name.eq("Not A Name"),
                    projects::repository.eq(""),
                    projects::webhook_secret.eq(""),
                    projects::created_at.eq(0),
                ))
                .execute(c)?;
            Ok(())
        })
        .await
        .unwrap();
    let error = store.list_projects().await.unwrap_err();
    assert!(matches!(&error, StoreError::Data { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("row project Not A Name holds a value"),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_of_neither_database_is_refused() {
    let error = Store::open("mysql://localhost/roadstead")
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("`sqlite:PATH` or `postgres://"),
        "{error}"
    );
}
