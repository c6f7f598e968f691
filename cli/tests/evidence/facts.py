"""Reads by boto3, and prints as JSON, what AWS shows of the things that it is asked for.

Standard input: {"endpoint": URL, "clusters": [...], "repository": NAME, "definitions": [ARN...],
"tasks": {CLUSTER: [ARN...]}}
"""

import base64
import json
import sys

import boto3
from botocore.config import Config


def main():
    asked = json.load(sys.stdin)

    def client(service):
        return boto3.client(
            service,
            endpoint_url=asked["endpoint"],
            region_name="us-east-1",
            aws_access_key_id="sandbox",
            aws_secret_access_key="sandbox",
            config=Config(retries={"max_attempts": 3}),
        )

    ecs, ecr = client("ecs"), client("ecr")
    facts = {"services": {}, "service_deployments": {}, "tasks": {}, "definitions": {}}
    for cluster in asked["clusters"]:
        described = ecs.describe_services(cluster=cluster, services=["shop"])
        service = described["services"][0]
        facts["services"][cluster] = {
            "arn": service["serviceArn"],
            "definition": service["taskDefinition"],
            "primary": [d["id"] for d in service["deployments"] if d["status"] == "PRIMARY"],
        }
        listed = ecs.list_service_deployments(cluster=cluster, service="shop")
        facts["service_deployments"][cluster] = [
            d["serviceDeploymentArn"] for d in listed["serviceDeployments"]
        ]
    for cluster, arns in asked["tasks"].items():
        for start in range(0, len(arns), 100):
            described = ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])
            for task in described["tasks"]:
                container = task["containers"][0]
                facts["tasks"][task["taskArn"]] = {
                    "definition": task["taskDefinitionArn"],
                    "status": task["lastStatus"],
                    "container": container.get("runtimeId"),
                    "image_digest": container.get("imageDigest"),
                }
    for arn in asked["definitions"]:
        described = ecs.describe_task_definition(taskDefinition=arn)
        container = described["taskDefinition"]["containerDefinitions"][0]
        facts["definitions"][arn] = container["image"]
    images = ecr.describe_images(repositoryName=asked["repository"])["imageDetails"]
    facts["images"] = {image["imageDigest"]: image.get("imageTags", []) for image in images}
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    facts["login"] = base64.b64decode(token).decode().split(":", 1)
    json.dump(facts, sys.stdout)


main()
