//! Load balancers and their listeners.

use serde_json::{Value, json};

use super::target_groups::no_target_group;
use super::{checked_name, new_id, page, validation};
use crate::app::App;
use crate::proxy::{BalancerRecords, Forward, Listener, LoadBalancer};
use crate::services::AwsError;
use crate::wire::query::Params;

fn no_load_balancer(arn: &str) -> AwsError {
    AwsError::client(
        "LoadBalancerNotFound",
        format!("One or more load balancers not found: {arn}"),
    )
}

fn no_listener(arn: &str) -> AwsError {
    AwsError::client(
        "ListenerNotFound",
        format!("One or more listeners not found: {arn}"),
    )
}

pub(super) async fn create_load_balancer(app: &App, params: &Params) -> Result<Value, AwsError> {
    let name = checked_name(params)?;
    if let Some(kind) = params.get("Type").filter(|it| *it != "application") {
        return Err(AwsError::unsupported_member(&format!("Type={kind}")));
    }
    let load_balancer = LoadBalancer {
        name,
        scheme: params.get("Scheme").unwrap_or("internet-facing").to_owned(),
        created_at: app.clock.now(),
        subnets: subnets(params),
    };
    let arn = app.config.arn(
        "elasticloadbalancing",
        &format!("loadbalancer/app/{}/{}", load_balancer.name, new_id(app)),
    );
    app.balancer
        .change(|records| {
            let existing = records
                .load_balancers
                .iter()
                .find(|(_, it)| it.name == load_balancer.name);
            let (arn, load_balancer) = match existing {
                Some((arn, it)) if it.scheme == load_balancer.scheme => (arn.clone(), it.clone()),
                Some(_) => {
                    return Err(AwsError::client(
                        "DuplicateLoadBalancerName",
                        format!(
                            "A load balancer with the same name '{}' exists, but with different settings",
                            load_balancer.name
                        ),
                    ));
                }
                None => {
                    records
                        .load_balancers
                        .insert(arn.clone(), load_balancer.clone());
                    (arn, load_balancer)
                }
            };
            Ok(json!({ "LoadBalancers": [load_balancer_value(app, &arn, &load_balancer)] }))
        })
        .await
}

pub(super) fn describe_load_balancers(app: &App, params: &Params) -> Result<Value, AwsError> {
    let records = app.balancer.records();
    let names = params.list("Names");
    let arns = params.list("LoadBalancerArns");
    for name in &names {
        if !records.load_balancers.values().any(|it| it.name == *name) {
            return Err(no_load_balancer(name));
        }
    }
    if let Some(arn) = arns
        .iter()
        .find(|arn| !records.load_balancers.contains_key(**arn))
    {
        return Err(no_load_balancer(arn));
    }
    let found = records.load_balancers.iter().filter(|(arn, it)| {
        (names.is_empty() || names.contains(&it.name.as_str()))
            && (arns.is_empty() || arns.contains(&arn.as_str()))
    });
    let found: Vec<Value> = found
        .map(|(arn, it)| load_balancer_value(app, arn, it))
        .collect();
    page(params, "LoadBalancers", found)
}

fn subnets(params: &Params) -> Vec<String> {
    let mapped = params.structures("SubnetMappings");
    let mapped = mapped.iter().filter_map(|one| one.get("SubnetId"));
    let named = params.list("Subnets").into_iter().chain(mapped);
    named.map(str::to_owned).collect()
}

/// The cluster's two zones, in which the subnets are taken to be by turns.
fn zones(app: &App, subnets: &[String]) -> Vec<Value> {
    let zone = |number: usize| ["a", "b"][number % 2];
    let named = |number: usize| format!("{}{}", app.config.region, zone(number));
    if subnets.is_empty() {
        return (0..2).map(|at| json!({ "ZoneName": named(at) })).collect();
    }
    let subnets = subnets.iter().enumerate();
    subnets
        .map(|(at, subnet)| json!({ "ZoneName": named(at), "SubnetId": subnet }))
        .collect()
}

fn load_balancer_value(app: &App, arn: &str, load_balancer: &LoadBalancer) -> Value {
    let created = jiff::Timestamp::from_millisecond(load_balancer.created_at.0);
    json!({
        "AvailabilityZones": zones(app, &load_balancer.subnets),
        "LoadBalancerArn": arn,
        "LoadBalancerName": load_balancer.name,
        "DNSName": "127.0.0.1",
        "CanonicalHostedZoneId": "Z35SXDOTRQ7X7K",
        "CreatedTime": created.ok().map(|it| it.to_string()),
        "Scheme": load_balancer.scheme,
        "State": { "Code": "active" },
        "Type": "application",
        "IpAddressType": "ipv4",
    })
}

pub(super) async fn delete_load_balancer(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("LoadBalancerArn")?;
    app.balancer
        .change(|records| {
            records.load_balancers.shift_remove(arn);
            records
                .listeners
                .retain(|_, listener| listener.load_balancer_arn != arn);
            Ok(json!({}))
        })
        .await
}

pub(super) async fn create_listener(app: &App, params: &Params) -> Result<Value, AwsError> {
    let load_balancer_arn = params.required("LoadBalancerArn")?;
    require_http(params)?;
    params.required("Port")?;
    let port = port(params)?.unwrap_or_default();
    let forward = forward(params, &app.balancer.records())?;
    // Checked before the port is opened, and again when it is stored.
    if !app
        .balancer
        .records()
        .load_balancers
        .contains_key(load_balancer_arn)
    {
        return Err(no_load_balancer(load_balancer_arn));
    }
    let arn = format!(
        "{}/{}",
        load_balancer_arn.replacen(":loadbalancer/", ":listener/", 1),
        new_id(app)
    );
    let listener = app
        .balancer
        .listen(&arn, port, |records, port| {
            if !records.load_balancers.contains_key(load_balancer_arn) {
                return Err(no_load_balancer(load_balancer_arn));
            }
            Ok(Listener {
                load_balancer_arn: load_balancer_arn.to_owned(),
                port,
                forward,
            })
        })
        .await?;
    Ok(json!({ "Listeners": [listener_value(&arn, &listener)] }))
}

pub(super) async fn modify_listener(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("ListenerArn")?;
    require_http(params)?;
    let port = port(params)?;
    app.balancer
        .change(|records| {
            let forward = params
                .get("DefaultActions.member.1.Type")
                .map(|_| forward(params, records))
                .transpose()?;
            let listener = records.listeners.get_mut(arn);
            let listener = listener.ok_or_else(|| no_listener(arn))?;
            if port.is_some_and(|port| port != listener.port) {
                return Err(AwsError::unsupported_member(
                    "a new Port of a listener; delete it and create another",
                ));
            }
            if let Some(forward) = forward {
                listener.forward = forward;
            }
            Ok(json!({ "Listeners": [listener_value(arn, listener)] }))
        })
        .await
}

pub(super) fn describe_listeners(app: &App, params: &Params) -> Result<Value, AwsError> {
    let records = app.balancer.records();
    let arns = params.list("ListenerArns");
    let load_balancer = params.get("LoadBalancerArn");
    if let Some(arn) = load_balancer.filter(|arn| !records.load_balancers.contains_key(*arn)) {
        return Err(no_load_balancer(arn));
    }
    if let Some(arn) = arns
        .iter()
        .find(|arn| !records.listeners.contains_key(**arn))
    {
        return Err(no_listener(arn));
    }
    let found = records.listeners.iter().filter(|(arn, listener)| {
        (arns.is_empty() || arns.contains(&arn.as_str()))
            && load_balancer.is_none_or(|it| it == listener.load_balancer_arn)
    });
    let found: Vec<Value> = found.map(|(arn, it)| listener_value(arn, it)).collect();
    page(params, "Listeners", found)
}

pub(super) async fn delete_listener(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("ListenerArn")?;
    app.balancer
        .change(|records| {
            let removed = records.listeners.shift_remove(arn);
            removed.map(|_| json!({})).ok_or_else(|| no_listener(arn))
        })
        .await
}

fn require_http(params: &Params) -> Result<(), AwsError> {
    match params.get("Protocol") {
        None | Some("HTTP") => Ok(()),
        Some(other) => Err(AwsError::unsupported_member(&format!("Protocol={other}"))),
    }
}

fn port(params: &Params) -> Result<Option<u16>, AwsError> {
    let port = params.number("Port", 0, 65_535)?;
    Ok(port.and_then(|port| u16::try_from(port).ok()))
}

/// The one forward action of a listener, in its short or its weighted form.
fn forward(params: &Params, records: &BalancerRecords) -> Result<Vec<Forward>, AwsError> {
    let actions = params.structures("DefaultActions");
    let [action] = actions.as_slice() else {
        return Err(validation(
            "A listener must have exactly one default action, of type 'forward'",
        ));
    };
    let kind = action.required("Type")?;
    if kind != "forward" {
        return Err(AwsError::unsupported_member(&format!("Type={kind}")));
    }
    let weighted = action.structure("ForwardConfig").structures("TargetGroups");
    let forward = if weighted.is_empty() {
        vec![Forward {
            target_group_arn: action.required("TargetGroupArn")?.to_owned(),
            weight: 1,
        }]
    } else {
        weighted
            .iter()
            .map(|group| {
                Ok(Forward {
                    target_group_arn: group.required("TargetGroupArn")?.to_owned(),
                    weight: group.number("Weight", 0, 999)?.unwrap_or(1),
                })
            })
            .collect::<Result<_, AwsError>>()?
    };
    let unknown = forward
        .iter()
        .find(|to| !records.target_groups.contains_key(&to.target_group_arn));
    match unknown {
        Some(to) => Err(no_target_group(&to.target_group_arn)),
        None if forward.iter().all(|to| to.weight == 0) => Err(validation(
            "At least one target group of a forward action must have a weight above 0",
        )),
        None => Ok(forward),
    }
}

fn listener_value(arn: &str, listener: &Listener) -> Value {
    let groups: Vec<Value> = listener
        .forward
        .iter()
        .map(|to| json!({ "TargetGroupArn": to.target_group_arn, "Weight": to.weight }))
        .collect();
    let single = match listener.forward.as_slice() {
        [only] => Some(&only.target_group_arn),
        _ => None,
    };
    json!({
        "ListenerArn": arn,
        "LoadBalancerArn": listener.load_balancer_arn,
        "Port": listener.port,
        "Protocol": "HTTP",
        "DefaultActions": [{
            "Type": "forward",
            "TargetGroupArn": single,
            "ForwardConfig": { "TargetGroups": groups },
        }],
    })
}
