//! Target groups, their health checks and the health of their targets.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{checked_name, new_id, page, validation};
use crate::app::App;
use crate::proxy::{BalancerRecords, HealthCheckSettings, Matcher, TargetGroup, TargetView};
use crate::services::AwsError;
use crate::targets::TargetState;
use crate::wire::query::Params;

const DRAINING_ATTRIBUTE: &str = "deregistration_delay.timeout_seconds";

pub(super) fn no_target_group(arn: &str) -> AwsError {
    AwsError::client(
        "TargetGroupNotFound",
        format!("One or more target groups not found: {arn}"),
    )
}

fn target_group<'a>(
    records: &'a mut BalancerRecords,
    arn: &str,
) -> Result<&'a mut TargetGroup, AwsError> {
    let group = records.target_groups.get_mut(arn);
    group.ok_or_else(|| no_target_group(arn))
}

pub(super) async fn create_target_group(app: &App, params: &Params) -> Result<Value, AwsError> {
    let name = checked_name(params)?;
    if let Some(protocol) = params.get("Protocol").filter(|it| *it != "HTTP") {
        return Err(AwsError::unsupported_member(&format!(
            "Protocol={protocol}"
        )));
    }
    // AWS's default.
    let target_type = params.get("TargetType").unwrap_or("instance");
    match target_type {
        "instance" | "ip" => {}
        "lambda" | "alb" => {
            return Err(AwsError::unsupported_member(&format!(
                "TargetType={target_type}"
            )));
        }
        _ => {
            return Err(validation(format!(
                "The target type '{target_type}' is not valid"
            )));
        }
    }
    let mut group = TargetGroup {
        port: params
            .number("Port", 1, 65_535)?
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(80),
        vpc_id: params.get("VpcId").map(str::to_owned),
        target_type: target_type.to_owned(),
        health_check: HealthCheckSettings::default(),
        deregistration_delay_seconds: 300,
        name,
    };
    update_health_check(&mut group.health_check, params)?;
    let arn = app.config.arn(
        "elasticloadbalancing",
        &format!("targetgroup/{}/{}", group.name, new_id(app)),
    );
    let arn = app
        .balancer
        .change(|records| {
            // Like AWS: the same settings again are the same group, others are a conflict.
            let existing = records
                .target_groups
                .iter()
                .find(|(_, it)| it.name == group.name);
            match existing {
                Some((arn, it)) if it.health_check == group.health_check && it.port == group.port => {
                    Ok(arn.clone())
                }
                Some(_) => Err(AwsError::client(
                    "DuplicateTargetGroupName",
                    format!(
                        "A target group with the same name '{}' exists, but with different settings",
                        group.name
                    ),
                )),
                None => {
                    records.target_groups.insert(arn.clone(), group);
                    Ok(arn)
                }
            }
        })
        .await?;
    describe_one_target_group(app, &arn)
}

pub(super) async fn modify_target_group(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("TargetGroupArn")?;
    app.balancer
        .change(|records| {
            update_health_check(&mut target_group(records, arn)?.health_check, params)
        })
        .await?;
    describe_one_target_group(app, arn)
}

fn update_health_check(
    settings: &mut HealthCheckSettings,
    params: &Params,
) -> Result<(), AwsError> {
    for (name, only) in [
        ("HealthCheckProtocol", "HTTP"),
        ("HealthCheckPort", "traffic-port"),
        ("HealthCheckEnabled", "true"),
    ] {
        if let Some(value) = params.get(name).filter(|value| *value != only) {
            return Err(AwsError::unsupported_member(&format!("{name}={value}")));
        }
    }
    if let Some(path) = params.get("HealthCheckPath") {
        if !path.starts_with('/')
            || path.len() > 1024
            || !path.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(validation(format!(
                "Health check path '{path}' must start with '/' and be a valid path of at most 1024 characters"
            )));
        }
        path.clone_into(&mut settings.path);
    }
    for (name, most, target) in [
        (
            "HealthCheckIntervalSeconds",
            300,
            &mut settings.interval_seconds,
        ),
        (
            "HealthCheckTimeoutSeconds",
            120,
            &mut settings.timeout_seconds,
        ),
        ("HealthyThresholdCount", 10, &mut settings.healthy_threshold),
        (
            "UnhealthyThresholdCount",
            10,
            &mut settings.unhealthy_threshold,
        ),
    ] {
        if let Some(number) = params.number(name, least(name), most)? {
            *target = number;
        }
    }
    if settings.timeout_seconds >= settings.interval_seconds {
        return Err(validation(format!(
            "Health check interval must be greater than the timeout; got interval {} and timeout {}",
            settings.interval_seconds, settings.timeout_seconds
        )));
    }
    if let Some(codes) = params.get("Matcher.HttpCode") {
        settings.matcher = Matcher::parse(codes).ok_or_else(|| {
            validation(format!(
                "Matcher '{codes}' must name status codes from 200 to 499, such as '200,302' or '200-299'"
            ))
        })?;
    }
    Ok(())
}

/// AWS's least value of a health check's number.
fn least(name: &str) -> u32 {
    match name {
        "HealthCheckIntervalSeconds" => 5,
        _ => 2,
    }
}

pub(super) fn describe_target_groups(app: &App, params: &Params) -> Result<Value, AwsError> {
    let records = app.balancer.records();
    let names = params.list("Names");
    let arns = params.list("TargetGroupArns");
    let load_balancer = params.get("LoadBalancerArn");
    for name in &names {
        if !records.target_groups.values().any(|it| it.name == *name) {
            return Err(no_target_group(name));
        }
    }
    if let Some(arn) = arns
        .iter()
        .find(|arn| !records.target_groups.contains_key(**arn))
    {
        return Err(no_target_group(arn));
    }
    let groups = records.target_groups.iter().filter(|(arn, group)| {
        (names.is_empty() || names.contains(&group.name.as_str()))
            && (arns.is_empty() || arns.contains(&arn.as_str()))
            && load_balancer.is_none_or(|it| load_balancers_of(&records, arn).contains(&it))
    });
    let groups: Vec<Value> = groups
        .map(|(arn, group)| target_group_value(&records, arn, group))
        .collect();
    page(params, "TargetGroups", groups)
}

fn describe_one_target_group(app: &App, arn: &str) -> Result<Value, AwsError> {
    let records = app.balancer.records();
    let group = records.target_groups.get(arn);
    let group = group.ok_or_else(|| no_target_group(arn))?;
    Ok(json!({ "TargetGroups": [target_group_value(&records, arn, group)] }))
}

fn load_balancers_of<'a>(records: &'a BalancerRecords, group_arn: &str) -> Vec<&'a str> {
    let mut arns: Vec<&str> = records
        .listeners
        .values()
        .filter(|it| it.forward.iter().any(|to| to.target_group_arn == group_arn))
        .map(|it| it.load_balancer_arn.as_str())
        .collect();
    arns.sort_unstable();
    arns.dedup();
    arns
}

fn target_group_value(records: &BalancerRecords, arn: &str, group: &TargetGroup) -> Value {
    let check = &group.health_check;
    json!({
        "TargetGroupArn": arn,
        "TargetGroupName": group.name,
        "Protocol": "HTTP",
        "ProtocolVersion": "HTTP1",
        "Port": group.port,
        "VpcId": group.vpc_id,
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckEnabled": true,
        "HealthCheckIntervalSeconds": check.interval_seconds,
        "HealthCheckTimeoutSeconds": check.timeout_seconds,
        "HealthyThresholdCount": check.healthy_threshold,
        "UnhealthyThresholdCount": check.unhealthy_threshold,
        "HealthCheckPath": check.path,
        "Matcher": { "HttpCode": check.matcher.as_str() },
        "LoadBalancerArns": load_balancers_of(records, arn),
        "TargetType": group.target_type,
        "IpAddressType": "ipv4",
    })
}

pub(super) async fn delete_target_group(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("TargetGroupArn")?;
    app.balancer
        .change(|records| {
            if !load_balancers_of(records, arn).is_empty() {
                return Err(AwsError::client(
                    "ResourceInUse",
                    format!("Target group '{arn}' is currently in use by a listener or a rule"),
                ));
            }
            records.target_groups.shift_remove(arn);
            Ok(json!({}))
        })
        .await
}

pub(super) fn describe_attributes(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("TargetGroupArn")?;
    let records = app.balancer.records();
    let group = records.target_groups.get(arn);
    Ok(attributes_value(group.ok_or_else(|| no_target_group(arn))?))
}

pub(super) async fn modify_attributes(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("TargetGroupArn")?;
    app.balancer
        .change(|records| {
            let group = target_group(records, arn)?;
            for attribute in params.structures("Attributes") {
                let key = attribute.required("Key")?;
                if key != DRAINING_ATTRIBUTE {
                    return Err(AwsError::unsupported_member(key));
                }
                if let Some(seconds) = attribute.number("Value", 0, 3600)? {
                    group.deregistration_delay_seconds = seconds;
                }
            }
            Ok(attributes_value(group))
        })
        .await
}

fn attributes_value(group: &TargetGroup) -> Value {
    let seconds = group.deregistration_delay_seconds.to_string();
    json!({ "Attributes": [{ "Key": DRAINING_ATTRIBUTE, "Value": seconds }] })
}

pub(super) fn describe_target_health(app: &App, params: &Params) -> Result<Value, AwsError> {
    let arn = params.required("TargetGroupArn")?;
    let targets = app.balancer.targets(arn);
    let targets = targets.ok_or_else(|| no_target_group(arn))?;
    let of_instances = target_type(app, arn).as_deref() == Some("instance");
    let asked = params.structures("Targets");
    let wanted: Vec<(&str, Option<u16>)> = asked
        .iter()
        .map(|target| {
            let id = target.required("Id")?;
            if of_instances && !id.starts_with("i-") {
                return Err(validation(format!(
                    "The target id '{id}' is not an instance id"
                )));
            }
            if !of_instances && id.parse::<IpAddr>().is_err() {
                return Err(validation(format!(
                    "The target id '{id}' is not an IP address"
                )));
            }
            let port = target.number("Port", 1, 65_535)?;
            Ok((id, port.and_then(|port| u16::try_from(port).ok())))
        })
        .collect::<Result<_, AwsError>>()?;
    let targets: Vec<(String, TargetView)> = targets
        .into_iter()
        .map(|target| {
            let instance = of_instances.then(|| instance_below(app, &target.task_id));
            let id = instance.flatten();
            (
                id.unwrap_or_else(|| target.address.ip().to_string()),
                target,
            )
        })
        .collect();
    let is_meant = |(id, port): &(&str, Option<u16>), (own, target): &(String, TargetView)| {
        *id == own && port.is_none_or(|it| it == target.address.port())
    };
    let mut descriptions: Vec<Value> = targets
        .iter()
        .filter(|target| wanted.is_empty() || wanted.iter().any(|one| is_meant(one, target)))
        .map(|(id, target)| {
            let state = state_name(&target.health.state);
            let (reason, description) = target.health.reason.clone().unzip();
            target_value(
                id,
                Some(target.address.port()),
                &json!({ "State": state, "Reason": reason, "Description": description }),
            )
        })
        .collect();
    let unknown = wanted
        .iter()
        .filter(|one| !targets.iter().any(|target| is_meant(one, target)));
    descriptions.extend(unknown.map(|(id, port)| {
        target_value(
            id,
            *port,
            &json!({
                "State": "unused",
                "Reason": "Target.NotRegistered",
                "Description": "Target is not registered to the target group",
            }),
        )
    }));
    Ok(json!({ "TargetHealthDescriptions": descriptions }))
}

fn target_type(app: &App, arn: &str) -> Option<String> {
    let records = app.balancer.records();
    Some(records.target_groups.get(arn)?.target_type.clone())
}

/// EC2's id of the instance that a task is on; None with Fargate, and when the instance is lost.
fn instance_below(app: &App, task_id: &str) -> Option<String> {
    app.store.read(|state| {
        let found = state.all_tasks().find(|found| found.task.id == task_id)?;
        let placed = found.task.placed.as_ref()?;
        let mut instances = state.instances(found.cluster);
        let instance = instances.find(|instance| instance.id == placed.instance)?;
        Some(instance.ec2_id.clone())
    })
}

fn target_value(id: &str, port: Option<u16>, health: &Value) -> Value {
    json!({
        "Target": { "Id": id, "Port": port },
        "HealthCheckPort": port.map(|port| port.to_string()),
        "TargetHealth": health,
    })
}

fn state_name(state: &TargetState) -> &'static str {
    match state {
        TargetState::Initial => "initial",
        TargetState::Healthy => "healthy",
        TargetState::Unhealthy { .. } => "unhealthy",
        TargetState::Draining => "draining",
        TargetState::Unused => "unused",
    }
}
