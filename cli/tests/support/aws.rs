//! What a team has in AWS before it begins: two clusters with a service behind a load balancer each.
//! Spoken over the wire protocols to the sandbox.

use crate::waiting::until;
use serde_json::{Value, json};

/// The clusters, which are called as the environments are.
pub(crate) const CLUSTERS: [&str; 2] = ["staging", "production"];

/// The one endpoint of every service.
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

    async fn ecs(&self, operation: &str, body: Value) -> Result<Value, String> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let request = self
            .http
            .post(&self.endpoint)
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let text = signed(request, "ecs").await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    async fn elb(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut form = vec![("Action", action), ("Version", "2015-12-01")];
        form.extend(parameters);
        let request = self.http.post(&self.endpoint).form(&form);
        signed(request, "elasticloadbalancing").await.unwrap()
    }

    /// A cluster whose service runs one task of `image`, behind a load balancer on `port`.
    pub(crate) async fn furnish(&self, cluster: &str, port: u16, image: &str) {
        self.ecs("CreateCluster", json!({"clusterName": cluster}))
            .await
            .unwrap();
        let group = self
            .elb(
                "CreateTargetGroup",
                &[
                    ("Name", cluster),
                    ("Protocol", "HTTP"),
                    ("Port", "8080"),
                    ("VpcId", "vpc-1"),
                    ("TargetType", "instance"),
                    ("HealthCheckPath", "/"),
                    ("HealthCheckIntervalSeconds", "10"),
                    ("HealthyThresholdCount", "2"),
                ],
            )
            .await;
        let group = element(&group, "TargetGroupArn");
        let balancer = self
            .elb(
                "CreateLoadBalancer",
                &[("Name", cluster), ("Subnets.member.1", "subnet-1")],
            )
            .await;
        let balancer = element(&balancer, "LoadBalancerArn");
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
        .await;
        let container = json!({
            "name": "app", "image": image, "essential": true, "memory": 64, "stopTimeout": 2,
            "portMappings": [{"containerPort": 8080, "hostPort": 0}],
        });
        let definition = json!({"family": cluster, "containerDefinitions": [container]});
        let registered = self.ecs("RegisterTaskDefinition", definition).await;
        let registered = registered.unwrap();
        let target = json!(
            {"targetGroupArn": group, "containerName": "app", "containerPort": 8080});
        let service = json!({
            "cluster": cluster, "serviceName": "shop", "desiredCount": 1, "launchType": "EC2",
            "taskDefinition": registered["taskDefinition"]["taskDefinitionArn"],
            "loadBalancers": [target],
        });
        self.ecs("CreateService", service).await.unwrap();
    }

    /// Takes the services down and waits for the end of their tasks, which would outlive the sandbox.
    ///
    /// # Errors
    /// When a story broke off so early that there is nothing to take down, or so badly that nobody
    /// answers.
    pub(crate) async fn clear(&self) -> Result<(), String> {
        for cluster in CLUSTERS {
            let body = json!({"cluster": cluster, "service": "shop", "force": true});
            self.ecs("DeleteService", body).await?;
        }
        until("the end of every task", async || {
            // What cannot be asked has nothing that could be waited for.
            match self.tasks_left().await.unwrap_or(0) {
                0 => Ok(()),
                left => Err(format!("{left} tasks")),
            }
        })
        .await;
        Ok(())
    }

    async fn tasks_left(&self) -> Result<usize, String> {
        let mut left = 0;
        for cluster in CLUSTERS {
            for desired in ["RUNNING", "STOPPED"] {
                let body = json!({"cluster": cluster, "desiredStatus": desired});
                let tasks = self.ecs("ListTasks", body).await?["taskArns"].clone();
                if tasks == json!([]) {
                    continue;
                }
                let body = json!({"cluster": cluster, "tasks": tasks});
                let found = self.ecs("DescribeTasks", body).await?;
                let tasks = found["tasks"].as_array().into_iter().flatten();
                left += tasks
                    .filter(|task| task["lastStatus"] != json!("STOPPED"))
                    .count();
            }
        }
        Ok(left)
    }
}

/// Sends with a signature: the sandbox takes any, but wants to see one, as AWS does.
async fn signed(request: reqwest::RequestBuilder, service: &str) -> Result<String, String> {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=sandbox/20260101/eu-west-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    );
    let request = request.header("authorization", authorization);
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}
