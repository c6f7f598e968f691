//! Services of Cloud Map, which ECS calls service registries.

use serde_json::{Value, json};

use super::{
    NamespaceKind, Registry, filters, instances, invalid, namespaces, new_id, page, plain,
    registry_arn, tags,
};
use crate::app::App;
use crate::services::ecs::input::Input;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

pub(super) fn not_found(id: &str) -> AwsError {
    AwsError::client("ServiceNotFound", format!("Service {id} not found."))
}

/// Whether the service is in DNS. Refuses records that the network's name server does not have.
fn read_dns(input: &Input<'_>) -> Result<bool, AwsError> {
    let Some(dns) = input.object("DnsConfig")? else {
        return Ok(false);
    };
    let records = dns.list("DnsRecords")?;
    for record in records {
        match Input::new(record)?.required("Type")? {
            "A" => {}
            other => {
                return Err(AwsError::unsupported_member(&format!(
                    "DnsConfig.DnsRecords.Type={other}"
                )));
            }
        }
    }
    Ok(!records.is_empty())
}

pub(super) async fn create(app: &App, input: &Input<'_>) -> JsonResult {
    let name = input.required("Name")?;
    let labels = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 127 || !name.split('.').all(labels) {
        return Err(invalid(format!("The name {name} is no DNS name.")));
    }
    let within = match input.object("DnsConfig")? {
        Some(dns) => dns.text("NamespaceId")?,
        None => None,
    };
    let namespace = input.text("NamespaceId")?.or(within);
    let namespace = plain(namespace.ok_or_else(|| invalid("NamespaceId must not be empty."))?);
    let in_dns = read_dns(input)?;
    let creator_request_id = input.text("CreatorRequestId")?.map(str::to_owned);
    let mut shown = input.copy(&["Description", "DnsConfig", "HealthCheckCustomConfig"]);
    if let Some(dns) = shown.get_mut("DnsConfig") {
        dns["NamespaceId"] = json!(namespace);
        if dns["RoutingPolicy"].is_null() {
            dns["RoutingPolicy"] = json!("MULTIVALUE");
        }
    }
    let tags = tags(input)?;
    let created_at = app.clock.now();
    app.store
        .change(|state| {
            let of = state
                .namespaces
                .get(namespace)
                .ok_or_else(|| namespaces::not_found(namespace))?;
            if in_dns && of.kind == NamespaceKind::Http {
                return Err(invalid("A service in an HTTP namespace has no DnsConfig."));
            }
            let same = |one: &&Registry| one.namespace == namespace && one.name == name;
            if let Some(known) = state.registries.values().find(same) {
                let repeated =
                    creator_request_id.is_some() && known.creator_request_id == creator_request_id;
                if repeated {
                    let body = json!({"Service": show(app, state, known, true)});
                    return Ok(Reply::read(body));
                }
                return Err(AwsError::client(
                    "ServiceAlreadyExists",
                    format!("Service already exists: {name}"),
                ));
            }
            let registry = Registry {
                id: new_id(app, "srv"),
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                created_at,
                in_dns,
                told_health: shown.contains_key("HealthCheckCustomConfig"),
                creator_request_id,
                shown,
            };
            let body = json!({"Service": show(app, state, &registry, true)});
            state.tags.insert(registry_arn(app, &registry.id), tags);
            state.registries.insert(registry.id.clone(), registry);
            Ok(Reply::changed(body))
        })
        .await
}

pub(super) fn get(app: &App, input: &Input<'_>) -> JsonResult {
    let id = plain(input.required("Id")?);
    app.store.read(|state| {
        let registry = state.registries.get(id).ok_or_else(|| not_found(id))?;
        Ok(Reply::read(
            json!({"Service": show(app, state, registry, true)}),
        ))
    })
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let filters = filters(input, &["NAMESPACE_ID"])?;
    let services = app.store.read(|state| {
        let matches = |one: &&Registry| {
            filters
                .iter()
                .all(|(_, values)| values.iter().any(|value| plain(value) == one.namespace))
        };
        let found = state.registries.values().filter(matches);
        found.map(|one| show(app, state, one, false)).collect()
    });
    page(input, "Services", services)
}

pub(super) async fn delete(app: &App, input: &Input<'_>) -> JsonResult {
    let id = plain(input.required("Id")?);
    app.store
        .change(|state| {
            let registry = state.registries.get(id).ok_or_else(|| not_found(id))?;
            if instances::of(app, state, registry).next().is_some() {
                return Err(AwsError::client(
                    "ResourceInUse",
                    "Service contains registered instances; delete the instances before deleting \
                     the service",
                ));
            }
            state.registries.shift_remove(id);
            state.tags.shift_remove(&registry_arn(app, id));
            Ok(Reply::changed(json!({})))
        })
        .await
}

/// As GetService shows it, `whole`, or as ListServices does.
fn show(app: &App, state: &State, registry: &Registry, whole: bool) -> Value {
    let kind = match state.namespaces.get(&registry.namespace) {
        Some(namespace) if namespace.kind == NamespaceKind::PrivateDns && registry.in_dns => {
            "DNS_HTTP"
        }
        _ => "HTTP",
    };
    let mut shown = json!({
        "Id": registry.id,
        "Arn": registry_arn(app, &registry.id),
        "ResourceOwner": app.config.account,
        "Name": registry.name,
        "Type": kind,
        "InstanceCount": instances::of(app, state, registry).count(),
        "CreateDate": registry.created_at.epoch_seconds(),
        "CreatedByAccount": app.config.account,
    });
    for (member, value) in &registry.shown {
        shown[member] = value.clone();
    }
    if whole {
        shown["NamespaceId"] = json!(registry.namespace);
        if let Some(creator) = &registry.creator_request_id {
            shown["CreatorRequestId"] = json!(creator);
        }
    }
    shown
}
