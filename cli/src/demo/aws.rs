//! What a team would have set up in AWS beforehand: clusters, load balancers, a first task definition
//! and services. Spoken over the plain wire protocols, so that the demo leans on no client of ours.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One endpoint for every service.
pub(crate) struct Aws {
    http: reqwest::Client,
    endpoint: String,
}

impl Aws {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            http: reqwest::Client::new(),
            endpoint,
        }
    }

    /// An ECS operation.
    pub(crate) async fn ecs(&self, operation: &str, body: Value) -> anyhow::Result<Value> {
        self.json(
            &format!("AmazonEC2ContainerServiceV20141113.{operation}"),
            body,
        )
        .await
    }

    /// An ECR operation.
    pub(crate) async fn ecr(&self, operation: &str, body: Value) -> anyhow::Result<Value> {
        self.json(
            &format!("AmazonEC2ContainerRegistry_V20150921.{operation}"),
            body,
        )
        .await
    }

    async fn json(&self, target: &str, body: Value) -> anyhow::Result<Value> {
        let answer = self
            .http
            .post(&self.endpoint)
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", credential("ecs"))
            .body(body.to_string())
            .send()
            .await
            .with_context(|| format!("no answer to {target}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{target}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// An ELBv2 operation; the answer is XML.
    pub(crate) async fn elb(
        &self,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let mut form: BTreeMap<&str, &str> = parameters.iter().copied().collect();
        form.insert("Action", action);
        form.insert("Version", "2015-12-01");
        let answer = self
            .http
            .post(&self.endpoint)
            .header("authorization", credential("elasticloadbalancing"))
            .form(&form)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{action}: {status}: {text}");
        }
        Ok(text)
    }

    /// A cluster with one service of two tasks behind a load balancer on `port`.
    pub(crate) async fn environment(
        &self,
        name: &str,
        port: u16,
        image: &str,
    ) -> anyhow::Result<()> {
        self.ecs("CreateCluster", json!({"clusterName": name}))
            .await?;
        let group = self
            .elb(
                "CreateTargetGroup",
                &[
                    ("Name", name),
                    ("Protocol", "HTTP"),
                    ("Port", "8080"),
                    ("VpcId", "vpc-1"),
                    ("TargetType", "instance"),
                    ("HealthCheckPath", "/"),
                    ("HealthCheckIntervalSeconds", "10"),
                    ("HealthCheckTimeoutSeconds", "5"),
                    ("HealthyThresholdCount", "2"),
                    ("UnhealthyThresholdCount", "2"),
                ],
            )
            .await?;
        let group = element(&group, "TargetGroupArn")?;
        let balancer = self
            .elb(
                "CreateLoadBalancer",
                &[("Name", name), ("Subnets.member.1", "subnet-1")],
            )
            .await?;
        let balancer = element(&balancer, "LoadBalancerArn")?;
        self.elb(
            "CreateListener",
            &[
                ("LoadBalancerArn", &balancer),
                ("Protocol", "HTTP"),
                ("Port", &port.to_string()),
                ("DefaultActions.member.1.Type", "forward"),
                ("DefaultActions.member.1.TargetGroupArn", &group),
            ],
        )
        .await?;
        let definition = json!({
            "family": format!("{name}-shop"),
            "containerDefinitions": [{
                "name": "app", "image": image, "essential": true, "memory": 64,
                "portMappings": [{"containerPort": 8080, "hostPort": 0}],
                "stopTimeout": 2,
                "logConfiguration": {"logDriver": "awslogs", "options": {
                    "awslogs-group": format!("/{name}/shop"), "awslogs-region": "eu-west-1",
                    "awslogs-stream-prefix": "app"}},
            }],
        });
        let definition = self.ecs("RegisterTaskDefinition", definition).await?;
        let arn = definition["taskDefinition"]["taskDefinitionArn"].clone();
        self.ecs(
            "CreateService",
            json!({
                "cluster": name, "serviceName": "shop", "taskDefinition": arn, "desiredCount": 2,
                "launchType": "EC2",
                "loadBalancers": [
                    {"targetGroupArn": group, "containerName": "app", "containerPort": 8080}],
                "deploymentConfiguration": {
                    "minimumHealthyPercent": 100, "maximumPercent": 200,
                    "deploymentCircuitBreaker": {"enable": true, "rollback": true}},
            }),
        )
        .await?;
        Ok(())
    }

    /// User and password for the registry.
    pub(crate) async fn registry_login(&self) -> anyhow::Result<(String, String)> {
        use base64::Engine;
        let answer = self.ecr("GetAuthorizationToken", json!({})).await?;
        let token = answer["authorizationData"][0]["authorizationToken"]
            .as_str()
            .unwrap_or_default();
        let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(token)?)?;
        let (user, password) = text
            .split_once(':')
            .context("the token is no user and password")?;
        Ok((user.to_owned(), password.to_owned()))
    }
}

/// The sandbox takes any signature, but wants to see one, as AWS does.
fn credential(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=sandbox/20260101/eu-west-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    )
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> anyhow::Result<String> {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .with_context(|| format!("no {name} in {xml}"))?;
    let (text, _) = rest
        .split_once('<')
        .with_context(|| format!("{name} does not end"))?;
    Ok(text.to_owned())
}
