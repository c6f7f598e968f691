//! Namespaces, and the operations that make and delete them.

use serde_json::{Value, json};

use super::{
    Namespace, NamespaceKind, Operation, filters, invalid, namespace_arn, new_id, page, plain, tags,
};
use crate::app::App;
use crate::services::ecs::input::Input;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

impl NamespaceKind {
    /// AWS's word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::PrivateDns => "DNS_PRIVATE",
        }
    }
}

pub(super) fn not_found(id: &str) -> AwsError {
    AwsError::client("NamespaceNotFound", format!("Namespace {id} not found."))
}

/// Starts to make a namespace; it is there at once.
pub(super) async fn create(app: &App, input: &Input<'_>, kind: NamespaceKind) -> JsonResult {
    let name = input.required("Name")?;
    if kind == NamespaceKind::PrivateDns {
        input.required("Vpc")?;
        let labels = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(labels) {
            return Err(invalid(format!("The name {name} is no DNS name.")));
        }
    } else if name.len() > 1024 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("A namespace has a name of 1 to 1024 characters."));
    }
    let creator_request_id = input.text("CreatorRequestId")?.map(str::to_owned);
    let tags = tags(input)?;
    let at = app.clock.now();
    app.store
        .change(|state| {
            if let Some(known) = state.namespaces.values().find(|one| one.name == name) {
                let repeated = known.kind == kind
                    && creator_request_id.is_some()
                    && known.creator_request_id == creator_request_id;
                if repeated {
                    return Ok(Reply::read(json!({"OperationId": known.operation})));
                }
                return Err(AwsError::client(
                    "NamespaceAlreadyExists",
                    format!("Namespace with name {name} already exists."),
                ));
            }
            let namespace = Namespace {
                id: new_id(app, "ns"),
                name: name.to_owned(),
                kind,
                created_at: at,
                operation: new_id(app, "op"),
                creator_request_id,
                shown: input.copy(&["Description"]),
            };
            note(
                state,
                &namespace.operation,
                "CREATE_NAMESPACE",
                &namespace.id,
                app,
            );
            let body = json!({"OperationId": namespace.operation});
            state.tags.insert(namespace_arn(app, &namespace.id), tags);
            state.namespaces.insert(namespace.id.clone(), namespace);
            Ok(Reply::changed(body))
        })
        .await
}

fn note(state: &mut State, id: &str, kind: &str, namespace: &str, app: &App) {
    let operation = Operation {
        id: id.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        at: app.clock.now(),
    };
    state.operations.insert(id.to_owned(), operation);
}

pub(super) fn get(app: &App, input: &Input<'_>) -> JsonResult {
    let id = plain(input.required("Id")?);
    app.store.read(|state| {
        let namespace = state.namespaces.get(id).ok_or_else(|| not_found(id))?;
        let mut shown = show(app, state, namespace);
        if let Some(creator) = &namespace.creator_request_id {
            shown["CreatorRequestId"] = json!(creator);
        }
        Ok(Reply::read(json!({ "Namespace": shown })))
    })
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let filters = filters(input, &["TYPE", "NAME", "HTTP_NAME"])?;
    let namespaces = app.store.read(|state| {
        let matches = |namespace: &&Namespace| {
            filters.iter().all(|(name, values)| {
                let own = match *name {
                    "TYPE" => namespace.kind.word(),
                    _ => namespace.name.as_str(),
                };
                values.contains(&own)
            })
        };
        let found = state.namespaces.values().filter(matches);
        found.map(|one| show(app, state, one)).collect()
    });
    page(input, "Namespaces", namespaces)
}

/// Starts to delete an empty namespace; it is gone at once.
pub(super) async fn delete(app: &App, input: &Input<'_>) -> JsonResult {
    let id = plain(input.required("Id")?);
    app.store
        .change(|state| {
            if !state.namespaces.contains_key(id) {
                return Err(not_found(id));
            }
            if state.registries.values().any(|one| one.namespace == id) {
                return Err(AwsError::client(
                    "ResourceInUse",
                    format!("Namespace {id} has associated services: delete them first."),
                ));
            }
            let operation = new_id(app, "op");
            note(state, &operation, "DELETE_NAMESPACE", id, app);
            state.namespaces.shift_remove(id);
            state.tags.shift_remove(&namespace_arn(app, id));
            Ok(Reply::changed(json!({ "OperationId": operation })))
        })
        .await
}

pub(super) fn get_operation(app: &App, input: &Input<'_>) -> JsonResult {
    let id = input.required("OperationId")?;
    app.store.read(|state| {
        let operation = state.operations.get(id).ok_or_else(|| {
            AwsError::client("OperationNotFound", format!("Operation {id} not found."))
        })?;
        let at = operation.at.epoch_seconds();
        Ok(Reply::read(json!({"Operation": {
            "Id": operation.id,
            "OwnerAccount": app.config.account,
            "Type": operation.kind,
            "Status": "SUCCESS",
            "CreateDate": at,
            "UpdateDate": at,
            "Targets": {"NAMESPACE": operation.namespace},
        }})))
    })
}

fn show(app: &App, state: &State, namespace: &Namespace) -> Value {
    let services = state.registries.values();
    let count = services.filter(|one| one.namespace == namespace.id).count();
    let mut properties = json!({"HttpProperties": {"HttpName": namespace.name}});
    if namespace.kind == NamespaceKind::PrivateDns {
        properties["DnsProperties"] = json!({
            "HostedZoneId": format!("Z{}", namespace.id[3..].to_ascii_uppercase()),
            "SOA": {"TTL": 15},
        });
    }
    let mut shown = json!({
        "Id": namespace.id,
        "Arn": namespace_arn(app, &namespace.id),
        "ResourceOwner": app.config.account,
        "Name": namespace.name,
        "Type": namespace.kind.word(),
        "ServiceCount": count,
        "Properties": properties,
        "CreateDate": namespace.created_at.epoch_seconds(),
    });
    for (member, value) in &namespace.shown {
        shown[member] = value.clone();
    }
    shown
}
