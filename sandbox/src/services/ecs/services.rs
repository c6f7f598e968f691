//! Services: create, update, describe, list, delete. What follows is the scheduler's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::input::{Input, invalid};
use super::{
    cluster_name, configuration, definitions, identifier, launch, names, registries, show, sizes,
    tags, well_named,
};
use crate::app::App;
use crate::scheduler::{
    self, Configuration, Ids, Moment, Revision, Service, ServiceStatus, TargetPlan,
};
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::{State, TaskDefinition};

/// Members of which a change starts a deployment, besides `taskDefinition`.
const DEPLOYED: [&str; 5] = [
    "networkConfiguration",
    "platformVersion",
    "loadBalancers",
    names::MEMBER,
    registries::MEMBER,
];

/// Members that are kept and shown, and start no deployment.
const SHOWN: [&str; 4] = [
    "enableECSManagedTags",
    "propagateTags",
    "enableExecuteCommand",
    "availabilityZoneRebalancing",
];

/// Refuses values of members that have others at AWS.
fn check_values(app: &App, input: &Input<'_>) -> Result<(), AwsError> {
    tags::check_propagation(input, true)?;
    match input.text("availabilityZoneRebalancing")? {
        None | Some("DISABLED") => {}
        // Tasks stay where they were placed.
        Some("ENABLED") if app.config.lenient => {}
        Some("ENABLED") => {
            return Err(AwsError::unsupported_member(
                "availabilityZoneRebalancing ENABLED",
            ));
        }
        Some(other) => {
            return Err(invalid(format!(
                "The value {other} of availabilityZoneRebalancing is not valid."
            )));
        }
    }
    if input
        .text("schedulingStrategy")?
        .is_some_and(|one| one != "REPLICA")
    {
        return Err(AwsError::unsupported_member("schedulingStrategy DAEMON"));
    }
    if let Some(controller) = input.object("deploymentController")?
        && controller.text("type")?.is_some_and(|one| one != "ECS")
    {
        return Err(AwsError::unsupported_member(
            "deploymentController other than ECS",
        ));
    }
    Ok(())
}

fn not_found() -> AwsError {
    AwsError::client("ServiceNotFoundException", "Service not found.")
}

/// What the request shows again, under AWS's names for it.
fn shown_members(input: &Input<'_>) -> Map<String, Value> {
    let mut members = input.copy(&SHOWN);
    members.extend(input.copy(&["launchType"]));
    if let Some(role) = input.0.get("role") {
        members.insert("roleArn".to_owned(), role.clone());
    }
    members
}

/// Refuses a group whose targets are of a type that tasks of the definition's network mode are not.
fn check_target_type(
    app: &App,
    group: &str,
    definition: &Map<String, Value>,
) -> Result<(), AwsError> {
    let records = app.balancer.records();
    // With simulated tasks, groups are there that nobody made.
    let Some(kind) = records.target_groups.get(group).map(|it| &it.target_type) else {
        return Ok(());
    };
    let mode = Input(definition).text("networkMode")?.unwrap_or("bridge");
    if (kind == "ip") == (mode == "awsvpc") {
        return Ok(());
    }
    Err(invalid(format!(
        "The provided target group {group} has target type {kind}, which is incompatible with the \
         {mode} network mode specified in the task definition."
    )))
}

/// The targets that `loadBalancers` names.
fn targets(
    app: &App,
    settings: &Map<String, Value>,
    definition: &TaskDefinition,
) -> Result<Vec<TargetPlan>, AwsError> {
    let containers = launch::containers(&definition.raw, &Value::Null)?;
    Input(settings)
        .list("loadBalancers")?
        .iter()
        .map(|balancer| {
            let balancer = Input::new(balancer)?;
            let group = balancer.required("targetGroupArn")?;
            if app.targets.deregistration_delay(group).is_none() {
                return Err(invalid(format!(
                    "The target group {group} does not exist: create it first."
                )));
            }
            check_target_type(app, group, &definition.raw)?;
            let name = balancer.required("containerName")?;
            let port = balancer
                .number("containerPort")?
                .and_then(|port| u16::try_from(port).ok())
                .ok_or_else(|| invalid("loadBalancers.containerPort must be a port."))?;
            let container = containers
                .iter()
                .find(|container| container.name == name)
                .ok_or_else(|| {
                    invalid(format!(
                        "The container {name} does not exist in the task definition."
                    ))
                })?;
            if !container.ports.iter().any(|one| one.container_port == port) {
                return Err(invalid(format!(
                    "The container {name} did not have a container port {port} defined."
                )));
            }
            Ok(TargetPlan {
                group: group.to_owned(),
                container: name.to_owned(),
                port,
            })
        })
        .collect()
}

fn revision(
    app: &App,
    state: &State,
    cluster: &str,
    definition: &TaskDefinition,
    settings: Map<String, Value>,
    launch_type: Option<&str>,
    moment: &mut Moment<'_>,
) -> Result<Revision, AwsError> {
    // Refuses names that lead nowhere.
    let namespace = names::usual_namespace(state, cluster);
    names::read(&settings, &definition.raw, namespace)?;
    registries::read(state, &settings, &definition.raw)?;
    let network = settings.get("networkConfiguration");
    Ok(Revision {
        need: sizes::launch(&definition.raw, &Value::Null, launch_type, network)?,
        id: moment.ids.digits(),
        created_at: moment.now,
        definition_arn: definition.arn.clone(),
        containers: launch::plans(&definition.raw)?,
        digests: BTreeMap::new(),
        targets: targets(app, &settings, definition)?,
        settings,
    })
}

pub(super) async fn create(app: &App, input: &Input<'_>) -> JsonResult {
    check_values(app, input)?;
    let name = input.required("serviceName")?.to_owned();
    if !well_named(&name, 255) {
        return Err(invalid(
            "Service names can contain up to 255 letters, digits, hyphens and underscores.",
        ));
    }
    let wanted = input.required("taskDefinition")?;
    let token = input.text("clientToken")?;
    let desired = input
        .number("desiredCount")?
        .ok_or_else(|| invalid("desiredCount is required for the REPLICA scheduling strategy."))?;
    let configuration = configuration::read(input, Configuration::default())?.unwrap_or_default();
    let tags = input.tags("tags")?;
    let grace = input.number("healthCheckGracePeriodSeconds")?.unwrap_or(0);
    let mut settings = shown_members(input);
    settings.entry("launchType").or_insert_with(|| json!("EC2"));
    let mut deployed = input.copy(&DEPLOYED);
    if input.text("launchType")? == Some("FARGATE") {
        deployed
            .entry("platformVersion")
            .or_insert_with(|| json!("LATEST"));
        settings.insert("platformFamily".to_owned(), json!("Linux"));
    }
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let mut random = || app.clock.draw();
            let mut moment = Moment {
                now,
                timings: app.timings(),
                ids: Ids(&mut random),
            };
            let cluster = cluster_name(state, input)?;
            let key = State::service_key(&cluster, &name);
            let known = state.services.get(&key);
            match known.map(|service| service.status) {
                None | Some(ServiceStatus::Inactive) => {}
                Some(ServiceStatus::Active) => {
                    // The same call again, because its answer was lost.
                    if let Some(known) = known
                        .filter(|known| token.is_some() && known.client_token.as_deref() == token)
                    {
                        let body = json!({"service": show::service(app, state, known, true)});
                        return Ok(Reply::read(body));
                    }
                    return Err(invalid("Creation of service was not idempotent."));
                }
                Some(ServiceStatus::Draining) => {
                    return Err(invalid("Unable to Start a service that is still Draining."));
                }
            }
            let definition = definitions::find_active(state, wanted)?;
            let launch_type = input.text("launchType")?;
            let revision = revision(
                app,
                state,
                &cluster,
                definition,
                deployed,
                launch_type,
                &mut moment,
            )?;
            let mut service = Service {
                name: name.clone(),
                cluster: cluster.clone(),
                client_token: token.map(str::to_owned),
                status: ServiceStatus::Active,
                created_at: now,
                desired,
                configuration,
                alarms_seen: Vec::new(),
                grace: Duration::from_secs(u64::from(grace)),
                settings,
                deployments: Vec::new(),
                last_completed: None,
                service_deployments: Vec::new(),
                revisions: Vec::new(),
                tasks: Vec::new(),
                events: Vec::new(),
                steady_since: None,
            };
            scheduler::begin(&mut service, revision, &mut moment);
            let body = json!({"service": show::service(app, state, &service, true)});
            state
                .tags
                .insert(show::service_arn(app, &cluster, &name), tags);
            state.services.insert(key, service);
            Ok(Reply::changed(body))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

pub(super) async fn update(app: &App, input: &Input<'_>) -> JsonResult {
    check_values(app, input)?;
    let wanted = input.required("service")?;
    let desired = input.number("desiredCount")?;
    let grace = input.number("healthCheckGracePeriodSeconds")?;
    let forced = input.flag("forceNewDeployment")?.unwrap_or(false);
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let mut random = || app.clock.draw();
            let mut moment = Moment {
                now,
                timings: app.timings(),
                ids: Ids(&mut random),
            };
            let cluster = cluster_name(state, input)?;
            let key = State::service_key(&cluster, identifier(wanted, &cluster)?);
            let present = state.services.get(&key).ok_or_else(not_found)?;
            if present.status != ServiceStatus::Active {
                return Err(AwsError::client(
                    "ServiceNotActiveException",
                    "Service was not ACTIVE.",
                ));
            }
            let configuration = configuration::read(input, present.configuration.clone())?;
            let fresh = next_revision(app, state, present, input, forced, &mut moment)?;
            let service = state.services.get_mut(&key).ok_or_else(not_found)?;
            let before = service.clone();
            if let Some(configuration) = configuration {
                scheduler::reconfigure(service, configuration);
            }
            service.desired = desired.unwrap_or(service.desired);
            if let Some(grace) = grace {
                service.grace = Duration::from_secs(u64::from(grace));
            }
            service.settings.extend(shown_members(input));
            if let Some(revision) = fresh {
                scheduler::begin(service, revision, &mut moment);
            }
            let changed = *service != before;
            let service = state.services.get(&key).ok_or_else(not_found)?;
            Ok(Reply {
                body: json!({"service": show::service(app, state, service, true)}),
                changed,
            })
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// The revision that the request asks for, when it differs from the PRIMARY's or is forced.
fn next_revision(
    app: &App,
    state: &State,
    service: &Service,
    input: &Input<'_>,
    forced: bool,
    moment: &mut Moment<'_>,
) -> Result<Option<Revision>, AwsError> {
    let primary = service
        .primary()
        .ok_or_else(|| AwsError::server("The service has no PRIMARY deployment."))?;
    let arn = match input
        .text("taskDefinition")?
        .filter(|name| !name.is_empty())
    {
        Some(name) => definitions::find_active(state, name)?.arn.clone(),
        None => primary.revision.definition_arn.clone(),
    };
    let mut settings = primary.revision.settings.clone();
    settings.extend(input.copy(&DEPLOYED));
    let same = arn == primary.revision.definition_arn && settings == primary.revision.settings;
    if same && !forced {
        return Ok(None);
    }
    let definition = definitions::find_active(state, &arn)?;
    let launch_type = service.settings.get("launchType").and_then(Value::as_str);
    revision(
        app,
        state,
        &service.cluster,
        definition,
        settings,
        launch_type,
        moment,
    )
    .map(Some)
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let names = input.texts("services")?;
    if names.is_empty() || names.len() > 10 {
        return Err(invalid("Name 1 to 10 services."));
    }
    let with_tags = input.includes("TAGS")?;
    app.store.read(|state| {
        let cluster = cluster_name(state, input)?;
        let (mut services, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            let name = identifier(name, &cluster)?;
            match state.services.get(&State::service_key(&cluster, name)) {
                Some(service) => services.push(show::service(app, state, service, with_tags)),
                None => failures.push(json!({
                    "arn": show::service_arn(app, &cluster, name),
                    "reason": "MISSING",
                })),
            }
        }
        Ok(Reply::read(
            json!({"services": services, "failures": failures}),
        ))
    })
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let launch_type = input.text("launchType")?;
    // There are no others.
    let replica = input
        .text("schedulingStrategy")?
        .is_none_or(|one| one == "REPLICA");
    let arns = app.store.read(|state| -> Result<Vec<String>, AwsError> {
        let cluster = cluster_name(state, input)?;
        Ok(state
            .services
            .values()
            .filter(|service| {
                replica
                    && service.cluster == cluster
                    && show::is_listed(service)
                    && launch_type.is_none_or(|wanted| {
                        service
                            .settings
                            .get("launchType")
                            .and_then(Value::as_str)
                            .unwrap_or("EC2")
                            == wanted
                    })
            })
            .map(|service| show::service_arn(app, &service.cluster, &service.name))
            .collect())
    })?;
    let (page, next) = input.page(arns, 10)?;
    Ok(Reply::read(json!({"serviceArns": page, "nextToken": next})))
}

pub(super) async fn delete(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = input.required("service")?;
    let forced = input.flag("force")?.unwrap_or(false);
    let reply = app
        .store
        .change(|state| {
            let cluster = cluster_name(state, input)?;
            let key = State::service_key(&cluster, identifier(wanted, &cluster)?);
            let service = state
                .services
                .get_mut(&key)
                .filter(|service| service.status != ServiceStatus::Inactive)
                .ok_or_else(not_found)?;
            if service.desired > 0 && !forced {
                return Err(invalid(
                    "The service cannot be stopped while it is scaled above 0.",
                ));
            }
            let changed = service.status == ServiceStatus::Active;
            service.status = ServiceStatus::Draining;
            service.desired = 0;
            let service = state.services.get(&key).ok_or_else(not_found)?;
            Ok(Reply {
                body: json!({"service": show::service(app, state, service, true)}),
                changed,
            })
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}
