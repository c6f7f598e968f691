//! The page for people.

use crate::support::http;
use crate::support::simulation::Simulation;
use hyper::{Method, StatusCode};
use serde_json::json;

#[tokio::test]
async fn the_page_shows_what_there_is_and_takes_no_markup_from_callers() {
    let sandbox = Simulation::start(1).await;
    let page = async || {
        let url = format!("{}/_sandbox", sandbox.endpoint);
        let answer = http(Method::GET, &url, &[], "").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/html"), "{kind}");
        answer.text()
    };
    assert!(page().await.contains("No cluster yet"));
    sandbox
        .ecs("CreateCluster", json!({"clusterName": "default"}))
        .await;
    assert!(page().await.contains("No service."));
    sandbox.create("web", "simulated:healthy-5s", 1).await;
    sandbox.advance("until settled").await;
    sandbox
        .update("web", "simulated:healthy-30s_exit-7-2s")
        .await;
    sandbox.register("job", "simulated:latest").await;
    let ran = sandbox
        .ecs("RunTask", json!({"taskDefinition": "job"}))
        .await;
    let job = ran["tasks"][0]["taskArn"].as_str().unwrap();
    let reason = "<script>alert(1)</script> & done";
    sandbox
        .ecs("StopTask", json!({"task": job, "reason": reason}))
        .await;
    sandbox.advance("4s").await;
    let refused = sandbox
        .ask("DescribeServices", json!({"services": []}))
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);

    let html = page().await;
    let service = sandbox.service("web").await;
    let deployments = service["deployments"].as_array().unwrap();
    assert_eq!(deployments.len(), 2);
    let mut expected = vec![
        "<h2>Cluster default</h2>".to_owned(),
        "<h3>Service web</h3>".to_owned(),
        "ACTIVE, 1 tasks wanted.".to_owned(),
        "<td>PRIMARY<td".to_owned(),
        "IN_PROGRESS<td>web:2".to_owned(),
        "COMPLETED<td>web:1".to_owned(),
        "app (exit 7)".to_owned(),
        "Essential container in task exited".to_owned(),
        "(service web) has reached a steady state.".to_owned(),
        "Tasks outside services".to_owned(),
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; done".to_owned(),
        "<td>ecs UpdateService<td>200".to_owned(),
        "<td>ecs DescribeServices<td>400 InvalidParameterException".to_owned(),
        job.rsplit('/').next().unwrap().to_owned(),
    ];
    for deployment in deployments {
        expected.push(deployment["id"].as_str().unwrap().to_owned());
    }
    for task in sandbox.tasks("web").await {
        let arn = task["taskArn"].as_str().unwrap();
        expected.push(arn.rsplit('/').next().unwrap().to_owned());
    }
    for part in expected {
        assert!(html.contains(&part), "no {part} in {html}");
    }
    assert!(!html.contains("<script>"), "{html}");
    sandbox.end().await;
}
