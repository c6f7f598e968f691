"""What ECS needs besides rollouts, told by boto3 alone: instances, roles, alarms, names.

Usage: ecs_resources.py --endpoint URL --backend simulated|docker [--image NAME] STORY
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timezone
from xml.etree import ElementTree

from ecs_story import Story, main, primary


def own(story, method, path, body=None):
    """One of the sandbox's own addresses."""
    request = urllib.request.Request(
        story.endpoint + "/_sandbox/" + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def refused(kind, call, **members):
    """The text of the refusal that the call has to meet."""
    try:
        call(**members)
    except kind as error:
        return str(error)
    raise AssertionError("%s accepted %s" % (call, members))


def provide(story, *sizes):
    """Gives the cluster these instances instead of its own: (zone, cpu, memory)."""
    kinds = [{"zone": z, "cpu": c, "memory": m} for z, c, m in sizes]
    return own(
        story, "PUT", "instances", {"cluster": story.cluster, "instances": kinds}
    )


def instances(story):
    arns = story.ecs.list_container_instances(cluster=story.cluster)[
        "containerInstanceArns"
    ]
    if not arns:
        return []
    described = story.ecs.describe_container_instances(
        cluster=story.cluster, containerInstances=arns
    )
    assert not described["failures"]
    return described["containerInstances"]


def remaining(instance):
    return {r["name"]: r.get("integerValue") for r in instance["remainingResources"]}


def placement(story):
    usual = instances(story)
    zones = {
        a["value"]
        for i in usual
        for a in i["attributes"]
        if a["name"] == "ecs.availability-zone"
    }
    assert zones == {"us-east-1a", "us-east-1b"}, zones
    provide(story, ("us-east-1a", 1024, 128), ("us-east-1b", 1024, 128))
    (cluster,) = story.ecs.describe_clusters(clusters=[story.cluster])["clusters"]
    assert cluster["registeredContainerInstancesCount"] == 2

    # Definitions take 64 CPU units and 64 MiB: four of them fill both instances.
    definition = story.define("good")
    old = story.create(definition, count=4)
    story.until_completed(old)
    tasks = story.tasks("RUNNING")
    places = sorted(t["containerInstanceArn"] for t in tasks)
    assert len(set(places)) == 2 and places.count(places[0]) == 2, places
    assert sorted(t["availabilityZone"] for t in tasks) == (
        ["us-east-1a"] * 2 + ["us-east-1b"] * 2
    )
    assert [remaining(i)["MEMORY"] for i in instances(story)] == [0, 0]
    listed = story.ecs.list_tasks(cluster=story.cluster, containerInstance=places[0])
    assert len(listed["taskArns"]) == 2

    answer = story.ecs.run_task(cluster=story.cluster, taskDefinition=definition)
    assert answer["tasks"] == []
    assert {f["reason"] for f in answer["failures"]} == {"RESOURCE:MEMORY"}, answer
    assert {f["arn"] for f in answer["failures"]} == set(places)

    # A rollout has no room, and says so, until there is an instance more.
    new = story.update(story.define("good"))
    told = (
        "(service web) was unable to place a task because no container instance met all "
        "of its requirements. The closest matching (container-instance "
    )
    story.until("the refusal to be told", lambda: told in story.events())
    assert "has insufficient memory available." in story.events()
    own(
        story,
        "POST",
        "instances",
        {
            "cluster": story.cluster,
            "instances": [{"zone": "us-east-1b", "cpu": 512, "memory": 512}],
        },
    )
    story.until_completed(new)

    provide(story)
    text = refused(
        story.ecs.exceptions.InvalidParameterException,
        story.ecs.run_task,
        cluster=story.cluster,
        taskDefinition=definition,
    )
    assert "No Container Instances were found in your cluster." in text
    missing = story.ecs.describe_container_instances(
        cluster=story.cluster, containerInstances=["0" * 32]
    )
    assert missing["failures"][0]["reason"] == "MISSING"


def draining(story):
    provide(story, ("us-east-1a", 2048, 2048), ("us-east-1b", 2048, 2048))
    deployment = story.create(story.define("good"), count=2)
    story.until_completed(deployment)
    first, second = instances(story)
    answer = story.ecs.update_container_instances_state(
        cluster=story.cluster,
        containerInstances=[first["containerInstanceArn"]],
        status="DRAINING",
    )
    assert answer["containerInstances"][0]["status"] == "DRAINING"
    listed = story.ecs.list_container_instances(
        cluster=story.cluster, status="DRAINING"
    )
    assert listed["containerInstanceArns"] == [first["containerInstanceArn"]]

    def moved():
        tasks = story.tasks("RUNNING")
        places = {task["containerInstanceArn"] for task in tasks}
        return len(tasks) == 2 and places == {second["containerInstanceArn"]}

    story.until("the tasks to move", moved)
    assert primary(story.service())["id"] == deployment, "no new deployment"


def lost_instance(story):
    provide(story, ("us-east-1a", 2048, 2048), ("us-east-1b", 2048, 2048))
    deployment = story.create(story.define("good"), count=2)
    story.until_completed(deployment)
    first, second = instances(story)
    own(story, "DELETE", "instances/" + first["ec2InstanceId"])
    reason = "Host EC2 (instance %s) terminated." % first["ec2InstanceId"]
    story.until(
        "the lost task to be told",
        lambda: any(
            t["stoppedReason"] == reason and t["stopCode"] == "TerminationNotice"
            for t in story.tasks("STOPPED")
        ),
    )

    def replaced():
        tasks = story.tasks("RUNNING")
        return (
            len(tasks) == 2
            and all(t["lastStatus"] == "RUNNING" for t in tasks)
            and {t["containerInstanceArn"] for t in tasks}
            == {second["containerInstanceArn"]}
        )

    story.until("its task to be replaced elsewhere", replaced)
    assert primary(story.service())["failedTasks"] == 0
    try:
        own(story, "DELETE", "instances/" + first["ec2InstanceId"])
    except urllib.error.HTTPError as error:
        assert error.code == 400, error
    else:
        raise AssertionError("an instance was lost twice")


def fargate(story):
    container = {"name": "app", "image": story.image}
    if story.backend == "docker":
        container["command"] = ["sh", "-c", "sleep 600"]

    def register(cpu, memory, mode="awsvpc"):
        return story.ecs.register_task_definition(
            family=story.family,
            containerDefinitions=[container],
            requiresCompatibilities=["FARGATE"],
            networkMode=mode,
            cpu=cpu,
            memory=memory,
        )["taskDefinition"]

    wrong = story.ecs.exceptions.ClientException
    text = refused(wrong, register, cpu="256", memory="4096")
    assert "No Fargate configuration exists for given values: 256 CPU, 4096" in text
    text = refused(wrong, register, cpu="256", memory="512", mode="bridge")
    assert "Fargate only supports network mode" in text
    definition = register("256", "512")
    assert definition["compatibilities"] == ["EC2", "FARGATE"]
    provide(story)
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
    invalid = story.ecs.exceptions.InvalidParameterException
    text = refused(
        invalid, story.create, definition=definition["taskDefinitionArn"],
        launchType="FARGATE",
    )
    assert "Network Configuration must be provided" in text
    deployment = story.create(
        definition["taskDefinitionArn"],
        count=1,
        launchType="FARGATE",
        networkConfiguration=network,
    )
    story.until_completed(deployment)
    (task,) = story.tasks("RUNNING")
    assert task["launchType"] == "FARGATE" and task["platformVersion"] == "1.4.0"
    assert "containerInstanceArn" not in task
    assert task["cpu"] == "256" and task["memory"] == "512"
    assert story.service()["platformVersion"] == "LATEST"


def roles(story):
    """Keys of a role may do what its lists say, and are told in AWS's words what they may not."""
    name = "r" + uuid.uuid4().hex[:10]
    arn = "arn:aws:iam::000000000000:role/" + name
    sts = story.client("sts")
    assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"

    def assume(**members):
        return sts.assume_role(RoleArn=arn, RoleSessionName="story", **members)

    text = refused(sts.exceptions.ClientError, assume)
    assert "(AccessDenied)" in text and "not authorized to perform: sts:AssumeRole" in text
    own(
        story,
        "POST",
        "roles",
        {
            "name": name,
            "allow": ["ecs:*", "elasticloadbalancing:Describe*"],
            "deny": ["ecs:Delete*"],
        },
    )
    answer = assume(DurationSeconds=900)
    user = "arn:aws:sts::000000000000:assumed-role/%s/story" % name
    assert answer["AssumedRoleUser"]["Arn"] == user
    keys = answer["Credentials"]
    left = (keys["Expiration"] - datetime.now(timezone.utc)).total_seconds()
    assert 600 < left < 960, left
    assert story.client("sts", keys).get_caller_identity()["Arn"] == user

    ecs = story.client("ecs", keys)
    ecs.describe_clusters(clusters=[story.cluster])
    story.client("elbv2", keys).describe_target_groups()
    text = refused(
        ecs.exceptions.AccessDeniedException, ecs.delete_cluster, cluster=story.cluster
    )
    assert (
        "User: %s is not authorized to perform: ecs:DeleteCluster on resource: * with an "
        "explicit deny in an identity-based policy" % user
    ) in text, text
    ecr = story.client("ecr", keys)
    text = refused(ecr.exceptions.ClientError, ecr.get_authorization_token)
    assert "(AccessDeniedException)" in text, text
    assert (
        "is not authorized to perform: ecr:GetAuthorizationToken on resource: * because no "
        "identity-based policy allows the ecr:GetAuthorizationToken action"
    ) in text, text
    elb = story.client("elbv2", keys)
    text = refused(
        elb.exceptions.ClientError, elb.create_load_balancer, Name="x", Subnets=["s-1"]
    )
    assert "(AccessDenied)" in text, text
    cloudwatch = story.client("cloudwatch", keys)
    text = refused(cloudwatch.exceptions.ClientError, cloudwatch.describe_alarms)
    assert "cloudwatch:DescribeAlarms" in text, text

    wrong = story.client("ecs", dict(keys, SessionToken="wrong"))
    text = refused(wrong.exceptions.ClientError, wrong.list_clusters)
    assert "(UnrecognizedClientException)" in text, text
    own(story, "DELETE", "roles/" + name)
    refused(ecs.exceptions.AccessDeniedException, ecs.list_clusters)
    # `clean_up` expects a service.
    story.create(story.define("good"), count=0)


def put_alarm(client, name):
    client.put_metric_alarm(
        AlarmName=name,
        MetricName="5xx",
        Namespace="AWS/ApplicationELB",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=2,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Dimensions=[{"Name": "LoadBalancer", "Value": "app/web/1"}],
    )


def cloudwatch(story):
    client = story.client("cloudwatch")
    names = [p + uuid.uuid4().hex[:10] for p in ("a", "b", "b")]
    for name in names:
        put_alarm(client, name)

    def states(**filters):
        found = client.describe_alarms(**filters)["MetricAlarms"]
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}

    assert states(AlarmNames=names[:1]) == {names[0]: "INSUFFICIENT_DATA"}
    client.set_alarm_state(AlarmName=names[0], StateValue="ALARM", StateReason="story")
    (alarm,) = client.describe_alarms(AlarmNames=names[:1])["MetricAlarms"]
    assert alarm["StateReason"] == "story" and alarm["StateValue"] == "ALARM"
    assert alarm["Threshold"] == 1.0 and alarm["Period"] == 60
    assert alarm["AlarmArn"].endswith(":alarm:" + names[0])
    age = datetime.now(timezone.utc) - alarm["StateUpdatedTimestamp"]
    assert abs(age.total_seconds()) < 600, age
    assert set(states(AlarmNamePrefix="b")) == set(names[1:])
    assert set(states(StateValue="ALARM")) == {names[0]}
    pages = client.get_paginator("describe_alarms").paginate(
        PaginationConfig={"PageSize": 2}
    )
    assert sum(len(page["MetricAlarms"]) for page in pages) == 3
    text = refused(
        client.exceptions.ClientError, client.describe_alarms, MaxRecords=101
    )
    assert "(ValidationError)" in text and "MaxRecords" in text, text
    text = refused(
        client.exceptions.ResourceNotFound,
        client.set_alarm_state,
        AlarmName="absent",
        StateValue="OK",
        StateReason="story",
    )
    assert "absent" in text
    query(story, names[0])
    as_json(story, names[0])
    client.delete_alarms(AlarmNames=names)
    assert states() == {}
    refused(client.exceptions.ResourceNotFound, client.delete_alarms, AlarmNames=names)
    story.create(story.define("good"), count=0)


def query(story, name):
    """The same in the protocol of older clients."""

    def ask(**parameters):
        form = urllib.parse.urlencode({"Version": "2010-08-01", **parameters})
        with urllib.request.urlopen(story.endpoint, form.encode(), 60) as answer:
            return ElementTree.fromstring(answer.read())

    ask(
        Action="SetAlarmState",
        AlarmName=name,
        StateValue="OK",
        StateReason="by form",
    )
    answer = ask(Action="DescribeAlarms", **{"AlarmNames.member.1": name})
    space = "{http://monitoring.amazonaws.com/doc/2010-08-01/}"
    (alarm,) = answer.iter(space + "MetricAlarms")
    (reason,) = alarm.iter(space + "StateReason")
    assert reason.text == "by form"
    (updated,) = alarm.iter(space + "StateUpdatedTimestamp")
    datetime.fromisoformat(updated.text.replace("Z", "+00:00"))


def as_json(story, name):
    request = urllib.request.Request(
        story.endpoint,
        json.dumps({"AlarmNames": [name]}).encode(),
        {"X-Amz-Target": "GraniteServiceVersion20100801.DescribeAlarms"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (alarm,) = json.loads(answer.read())["MetricAlarms"]
    assert alarm["StateReason"] == "by form"


def deployment_alarms(story):
    client = story.client("cloudwatch")
    name = "errors-" + uuid.uuid4().hex[:10]
    put_alarm(client, name)
    first = story.define("good")
    old = story.create(
        first,
        alarms={"alarmNames": [name], "enable": True, "rollback": True},
    )
    story.until_completed(old)
    (record,) = story.records()
    assert record["alarms"]["status"] == "MONITORING_COMPLETE", record["alarms"]
    shown = story.service()["deploymentConfiguration"]["alarms"]
    assert shown == {"alarmNames": [name], "enable": True, "rollback": True}

    failed = story.update(story.define("undecided"))
    record = story.until_record("IN_PROGRESS")
    assert record["alarms"]["status"] == "MONITORING"

    # The alarm must not have been on when the rollout began: wait until it is under way.
    def started():
        return any(t["startedBy"] == failed for t in story.tasks("RUNNING"))

    story.until("the rollout to begin", started)
    client.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="story")
    record = story.until_record("ROLLBACK_SUCCESSFUL")
    assert record["alarms"]["status"] == "TRIGGERED"
    assert record["alarms"]["triggeredAlarmNames"] == [name]
    assert record["deploymentCircuitBreaker"]["status"] != "TRIGGERED"
    assert primary(story.service())["id"] == old
    assert story.service()["taskDefinition"] == first
    told = "(deployment %s) deployment failed: alarm detected." % failed
    assert told in story.events()


STORIES = {
    "roles": roles,
    "cloudwatch": cloudwatch,
    "deployment-alarms": deployment_alarms,
    "placement": placement,
    "draining": draining,
    "lost-instance": lost_instance,
    "fargate": fargate,
}

if __name__ == "__main__":
    sys.exit(main(STORIES))
