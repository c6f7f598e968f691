"""Service registries of Cloud Map, told by boto3 alone.

Usage: ecs_discovery.py --endpoint URL --backend simulated STORY
"""

import sys
import uuid

from ecs_resources import refused
from ecs_story import main, primary


def cloud_map(story):
    # DiscoverInstances would go to `data-` and the endpoint's host.
    client = story.client("servicediscovery", inject_host_prefix=False)
    name = "n" + uuid.uuid4().hex[:10]

    def done(answer):
        operation = client.get_operation(OperationId=answer["OperationId"])["Operation"]
        assert operation["Status"] == "SUCCESS", operation
        return operation["Targets"]["NAMESPACE"]

    tags = [{"Key": "team", "Value": "shop"}]
    namespace = done(
        client.create_private_dns_namespace(
            Name=name, Vpc="vpc-1", CreatorRequestId="once", Tags=tags
        )
    )
    again = client.create_private_dns_namespace(
        Name=name, Vpc="vpc-1", CreatorRequestId="once"
    )
    assert done(again) == namespace, "the same request made two namespaces"
    refused(
        client.exceptions.NamespaceAlreadyExists,
        client.create_http_namespace,
        Name=name,
    )
    http = done(client.create_http_namespace(Name=name + "-http"))
    shown = client.get_namespace(Id=namespace)["Namespace"]
    assert shown["Type"] == "DNS_PRIVATE" and shown["Name"] == name, shown
    assert client.list_tags_for_resource(ResourceARN=shown["Arn"])["Tags"] == tags
    pages = client.get_paginator("list_namespaces").paginate(
        PaginationConfig={"PageSize": 1}
    )
    found = [one["Id"] for page in pages for one in page["Namespaces"]]
    assert found == [namespace, http], found
    private = client.list_namespaces(Filters=[{"Name": "TYPE", "Values": ["DNS_PRIVATE"]}])
    assert [one["Id"] for one in private["Namespaces"]] == [namespace]

    registry = client.create_service(
        Name="web",
        DnsConfig={"NamespaceId": namespace, "DnsRecords": [{"Type": "A", "TTL": 10}]},
        HealthCheckCustomConfig={"FailureThreshold": 1},
    )["Service"]
    refused(
        client.exceptions.ServiceAlreadyExists,
        client.create_service,
        Name="web",
        NamespaceId=namespace,
    )
    refused(
        client.exceptions.NamespaceNotFound,
        client.create_service,
        Name="web",
        NamespaceId="ns-absent",
    )
    client.create_service(Name="web", NamespaceId=http)
    within = client.list_services(Filters=[{"Name": "NAMESPACE_ID", "Values": [namespace]}])
    assert [one["Id"] for one in within["Services"]] == [registry["Id"]]
    registered(story, client, name, registry)
    deployment = primary(
        story.ecs.update_service(
            cluster=story.cluster, service="web", serviceRegistries=[]
        )["service"]
    )["id"]
    story.until_completed(deployment)
    assert not client.list_instances(ServiceId=registry["Id"])["Instances"]

    refused(client.exceptions.ResourceInUse, client.delete_namespace, Id=namespace)
    client.delete_service(Id=registry["Id"])
    refused(client.exceptions.ServiceNotFound, client.get_service, Id=registry["Id"])
    assert done(client.delete_namespace(Id=namespace)) == namespace
    refused(client.exceptions.NamespaceNotFound, client.get_namespace, Id=namespace)


def registered(story, client, namespace, registry):
    """A service of two tasks with that registry, from the refusals to its instances."""
    definition = story.ecs.register_task_definition(
        family=story.family,
        containerDefinitions=[
            {
                "name": "app",
                "image": "simulated:healthy-30s",
                "memory": 64,
                "portMappings": [{"containerPort": 80}],
                "healthCheck": {"command": ["CMD", "true"]},
            }
        ],
    )["taskDefinition"]["taskDefinitionArn"]
    text = refused(
        story.ecs.exceptions.InvalidParameterException,
        story.create,
        definition=definition,
        serviceRegistries=[{"registryArn": registry["Arn"]}],
    )
    assert "When specifying 'host' or 'bridge' for networkMode" in text, text
    where = {
        "registryArn": registry["Arn"],
        "containerName": "app",
        "containerPort": 80,
    }
    deployment = story.create(definition, serviceRegistries=[where])
    assert story.service()["serviceRegistries"] == [where]

    def discovered(health):
        answer = client.discover_instances(
            NamespaceName=namespace, ServiceName="web", HealthStatus=health
        )
        return {one["InstanceId"]: one for one in answer["Instances"]}

    # Half a minute passes between the two, in the sandbox's own time.
    story.until("instances that are not well", lambda: discovered("UNHEALTHY"))
    story.until_completed(deployment)
    found = discovered("HEALTHY")
    running = {task["taskArn"].split("/")[-1] for task in story.tasks("RUNNING")}
    assert set(found) == running and len(running) == 2, (found, running)
    attributes = list(found.values())[0]["Attributes"]
    assert attributes["ECS_SERVICE_NAME"] == "web", attributes
    assert attributes["ECS_CLUSTER_NAME"] == story.cluster
    listed = client.list_instances(ServiceId=registry["Id"])["Instances"]
    assert {one["Id"] for one in listed} == running
    status = client.get_instances_health_status(ServiceId=registry["Id"])["Status"]
    assert status == {one: "HEALTHY" for one in running}, status
    pages = client.get_paginator("list_instances").paginate(
        ServiceId=registry["Id"], PaginationConfig={"PageSize": 1}
    )
    assert {one["Id"] for page in pages for one in page["Instances"]} == running
    first = client.get_instances_health_status(ServiceId=registry["Id"], MaxResults=1)
    second = client.get_instances_health_status(
        ServiceId=registry["Id"], MaxResults=1, NextToken=first["NextToken"]
    )
    assert "NextToken" not in second, second
    assert {**first["Status"], **second["Status"]} == status, (first, second)
    assert len(first["Status"]) == 1
    assert client.get_service(Id=registry["Id"])["Service"]["InstanceCount"] == 2
    refused(client.exceptions.ResourceInUse, client.delete_service, Id=registry["Id"])
    refused(
        client.exceptions.ServiceNotFound,
        client.discover_instances,
        NamespaceName=namespace,
        ServiceName="absent",
    )


STORIES = {"cloud-map": cloud_map}

if __name__ == "__main__":
    sys.exit(main(STORIES))
