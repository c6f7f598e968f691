//! Secrets of projects, sealed before they come here (see [`crate::secrets`]).
//!
//! Whoever changes one has the whole table to themselves until the transaction ends, because a rotation
//! of the installation's key has to find every row. No decision reads them.

use super::codec::{Row, json, micros, signed};
use super::conn::{Access, Address, AnyConnection};
use super::events::Line;
use super::schema::{projects, secrets};
use super::{Result, SealedSecret, SecretLine, Store, StoreError, audit, joined};
use crate::secrets::{KeyError, Of, Sealed};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::secret::SecretRef;
use serde_json::{Value, json};

type Record = (
    String,
    String,
    String,
    String,
    i64,
    String,
    String,
    String,
    String,
    i64,
);

fn read(record: Record) -> Result<(ProjectName, SealedSecret)> {
    let (project, environment, name, branches, version, key_id, data_key, value, set_by, set_at) =
        record;
    let text = if environment.is_empty() {
        name
    } else {
        format!("{environment}/{name}")
    };
    let row = Row("secret", &text);
    let found = SealedSecret {
        line: SecretLine {
            secret: row.word("name", &text)?,
            branches: row.json("branches", &branches)?,
            version: row.number("version", version)?,
            set_at: row.time(set_at)?,
            set_by,
        },
        sealed: Sealed {
            key_id,
            data_key,
            value,
        },
    };
    Ok((row.word("project", &project)?, found))
}

/// The row's key.
fn parts(secret: &SecretRef) -> (&str, &str) {
    let environment = secret.environment.as_ref();
    (
        environment.map_or("", |environment| environment.as_str()),
        secret.name.as_str(),
    )
}

fn of_project(connection: &mut AnyConnection, project: &ProjectName) -> Result<Vec<SealedSecret>> {
    let found: Vec<Record> = secrets::table
        .filter(secrets::project.eq(project.as_str()))
        .order((secrets::environment, secrets::name))
        .load(connection)?;
    let read = found.into_iter().map(|record| Ok(read(record)?.1));
    read.collect()
}

fn find(
    connection: &mut AnyConnection,
    project: &ProjectName,
    secret: &SecretRef,
) -> Result<Option<SealedSecret>> {
    let (environment, name) = parts(secret);
    let key = (project.as_str(), environment, name);
    let found: Option<Record> = secrets::table.find(key).first(connection).optional()?;
    Ok(found.map(read).transpose()?.map(|(_, found)| found))
}

fn key_ids(connection: &mut AnyConnection) -> Result<Vec<String>> {
    let ids = secrets::table.select(secrets::key_id).distinct();
    Ok(ids.order(secrets::key_id).load(connection)?)
}

/// Nobody else changes a secret until the transaction ends. SQLite has one writer in any case.
fn alone(connection: &mut AnyConnection) -> Result<()> {
    if let AnyConnection::Postgres(c) = connection {
        c.batch_execute("LOCK TABLE secrets IN SHARE ROW EXCLUSIVE MODE")?;
    }
    Ok(())
}

fn refused(error: &KeyError) -> StoreError {
    StoreError::conflict(error.to_string())
}

/// What the history says of a secret: never its value.
fn told(line: Option<&SecretLine>) -> Value {
    line.map_or(
        Value::Null,
        |line| json!({"version": line.version, "branches": line.branches}),
    )
}

fn tell(
    connection: &mut AnyConnection,
    project: &ProjectName,
    (secret, what): (&SecretRef, &str),
    (by, now): (&str, Timestamp),
    (before, after): (Value, Value),
) -> Result<()> {
    let line = Line {
        at: now,
        project: Some(project),
        subject: &format!("secret {secret}"),
        actor: by,
        what,
        before,
        after,
        detail: &json!({}),
    };
    audit::append(connection, &line)
}

impl Store {
    /// Gives a secret a value, for the branches that match one of `branches`; of none, for every branch.
    /// `None` keeps those that it has, which of a new one is every branch. `seal` gets the version that the
    /// value has, and the ids of the keys that stored secrets are sealed under. Gives what is stored now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a project; [`StoreError::Conflict`] with what `seal` says.
    pub async fn set_secret(
        &self,
        project: &ProjectName,
        secret: &SecretRef,
        branches: Option<Vec<String>>,
        (by, now): (&str, Timestamp),
        seal: impl Fn(u64, &[String]) -> Result<Sealed, KeyError> + Send + 'static,
    ) -> Result<SecretLine> {
        let (project, secret, by) = (project.clone(), secret.clone(), by.to_owned());
        self.write(move |c| {
            alone(c)?;
            let known: i64 = projects::table
                .find(project.as_str())
                .count()
                .get_result(c)?;
            if known == 0 {
                return Err(StoreError::not_found(format!("project `{project}`")));
            }
            let in_use = key_ids(c)?;
            let before = find(c, &project, &secret)?.map(|found| found.line);
            let kept = || before.as_ref().map(|line| line.branches.clone());
            let line = SecretLine {
                secret: secret.clone(),
                branches: branches.clone().or_else(kept).unwrap_or_default(),
                version: before.as_ref().map_or(1, |line| line.version + 1),
                set_by: by.clone(),
                set_at: now,
            };
            let sealed = seal(line.version, &in_use).map_err(|error| refused(&error))?;
            let (environment, name) = parts(&secret);
            let key = (project.as_str(), environment, name);
            diesel::delete(secrets::table.find(key)).execute(c)?;
            diesel::insert_into(secrets::table)
                .values((
                    secrets::project.eq(project.as_str()),
                    secrets::environment.eq(environment),
                    secrets::name.eq(name),
                    secrets::branches.eq(json(&line.branches)?),
                    secrets::version.eq(signed(line.version)),
                    secrets::key_id.eq(&sealed.key_id),
                    secrets::data_key.eq(&sealed.data_key),
                    secrets::value.eq(&sealed.value),
                    secrets::set_by.eq(&line.set_by),
                    secrets::set_at.eq(micros(now)),
                ))
                .execute(c)?;
            let turn = (told(before.as_ref()), told(Some(&line)));
            tell(c, &project, (&secret, "secret_set"), (&by, now), turn)?;
            Ok(line)
        })
        .await
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_secret(
        &self,
        project: &ProjectName,
        secret: &SecretRef,
        by: &str,
        now: Timestamp,
    ) -> Result<()> {
        let (project, secret, by) = (project.clone(), secret.clone(), by.to_owned());
        self.write(move |c| {
            alone(c)?;
            let missing = || StoreError::not_found(format!("secret `{secret}` of `{project}`"));
            let before = find(c, &project, &secret)?.ok_or_else(missing)?.line;
            let (environment, name) = parts(&secret);
            let key = (project.as_str(), environment, name);
            diesel::delete(secrets::table.find(key)).execute(c)?;
            let turn = (told(Some(&before)), Value::Null);
            tell(c, &project, (&secret, "secret_removed"), (&by, now), turn)
        })
        .await
    }

    /// A project's secrets by environment and name, without their values.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_secrets(&self, project: &ProjectName) -> Result<Vec<SecretLine>> {
        let all = self.sealed_secrets(project).await?;
        Ok(all.into_iter().map(|secret| secret.line).collect())
    }

    /// A project's secrets by environment and name, sealed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sealed_secrets(&self, project: &ProjectName) -> Result<Vec<SealedSecret>> {
        let project = project.clone();
        self.read(move |c| of_project(c, &project)).await
    }

    /// The ids of the installation's keys that stored secrets are sealed under.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_key_ids(&self) -> Result<Vec<String>> {
        self.read(key_ids).await
    }

    /// The same of the database at `url`, of which nothing is changed: a server may be at work.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be reached, or no server ever began there.
    pub async fn probe_key_ids(url: &str) -> Result<Vec<String>> {
        let address = Address::parse(url)?;
        let probing = tokio::task::spawn_blocking(move || {
            key_ids(&mut AnyConnection::connect(&address, Access::Read)?)
        });
        joined(probing.await)
    }

    /// Puts each secret's data key under another key, as `rewrap` says (`None`: it stays). Gives how many
    /// changed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with what `rewrap` says; nothing is changed then.
    pub async fn rewrap_secrets(
        &self,
        now: Timestamp,
        rewrap: impl Fn(Of<'_>, &Sealed) -> Result<Option<Sealed>, KeyError> + Send + 'static,
    ) -> Result<usize> {
        self.write(move |c| {
            alone(c)?;
            let all: Vec<Record> = secrets::table.load(c)?;
            let mut changed = 0;
            for record in all {
                let (project, SealedSecret { line, sealed }) = read(record)?;
                let of = Of {
                    project: &project,
                    secret: &line.secret,
                    version: line.version,
                };
                let Some(new) = rewrap(of, &sealed).map_err(|error| refused(&error))? else {
                    continue;
                };
                let (environment, name) = parts(&line.secret);
                let row = secrets::table.find((project.as_str(), environment, name));
                diesel::update(row)
                    .set((
                        secrets::key_id.eq(&new.key_id),
                        secrets::data_key.eq(&new.data_key),
                    ))
                    .execute(c)?;
                changed += 1;
            }
            let line = Line {
                at: now,
                project: None,
                subject: "secrets",
                actor: "Roadstead",
                what: "key_rotated",
                before: Value::Null,
                after: Value::Null,
                detail: &json!({"secrets": changed}),
            };
            audit::append(c, &line)?;
            Ok(changed)
        })
        .await
    }
}
