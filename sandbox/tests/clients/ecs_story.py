"""Rollouts told by boto3 alone, against whatever answers at --endpoint.

Usage: ecs_story.py --endpoint URL --backend simulated|docker [--image NAME] STORY

Every story makes its own cluster and ends with exit status 0 only if all of it held.
"""

import argparse
import sys
import time
import uuid

import boto3
from botocore.config import Config

PATIENCE = 180.0


class Story:
    """A cluster with one service, and what can be asked about it."""

    def __init__(self, endpoint, backend, image):
        self.backend = backend
        self.image = image
        self.endpoint = endpoint
        self.ecs = self.client("ecs")
        self.cluster = "c" + uuid.uuid4().hex[:10]
        self.family = "f" + uuid.uuid4().hex[:10]
        self.ecs.create_cluster(clusterName=self.cluster)

    def client(self, service, credentials=None, **config):
        keys = credentials or {"AccessKeyId": "sandbox", "SecretAccessKey": "sandbox"}
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"max_attempts": 0}, **config),
        )

    def define(self, kind):
        """Registers a definition of that kind of task and returns its ARN."""
        container = {
            "name": "app",
            "image": self.image,
            "essential": True,
            "stopTimeout": 2,
            "healthCheck": {
                "command": ["CMD-SHELL", "true"],
                "interval": 5,
                "timeout": 5,
                "retries": 3,
            },
        }
        serve = "trap 'exit 0' TERM; echo serving; while :; do sleep 1 & wait; done"
        labels = {
            "good": {},
            # What exits at once is never found healthy.
            "crash": {
                "simulate.exit": "3@0s",
                "simulate.health": "healthy@100000s",
            },
            "missing": {"simulate.pull": "fail"},
            "unhealthy": {"simulate.health": "unhealthy@2s"},
            "undecided": {"simulate.health": "healthy@100000s"},
        }[kind]
        if self.backend == "simulated":
            container["dockerLabels"] = labels
        else:
            container["command"] = ["sh", "-c", serve]
            if kind == "crash":
                container["command"] = ["sh", "-c", "echo boom; exit 3"]
            elif kind == "missing":
                container["image"] = "127.0.0.1:9/no-such-image:1"
            elif kind == "unhealthy":
                container["healthCheck"]["command"] = ["CMD-SHELL", "exit 1"]
                container["healthCheck"]["retries"] = 1
            elif kind == "undecided":
                container["healthCheck"].update(
                    command=["CMD-SHELL", "exit 1"], interval=300, retries=10
                )
        answer = self.ecs.register_task_definition(
            family=self.family,
            containerDefinitions=[container],
            cpu="64",
            memory="64",
        )
        return answer["taskDefinition"]["taskDefinitionArn"]

    def create(self, definition, count=2, rollback=True, alarms=None, **members):
        configuration = {
            "minimumHealthyPercent": 100,
            "maximumPercent": 200,
            "deploymentCircuitBreaker": {"enable": True, "rollback": rollback},
        }
        if alarms:
            configuration["alarms"] = alarms
        answer = self.ecs.create_service(
            cluster=self.cluster,
            serviceName="web",
            taskDefinition=definition,
            desiredCount=count,
            **members,
            deploymentConfiguration=configuration,
        )
        return primary(answer["service"])["id"]

    def update(self, definition):
        answer = self.ecs.update_service(
            cluster=self.cluster, service="web", taskDefinition=definition
        )
        return primary(answer["service"])["id"]

    def service(self):
        answer = self.ecs.describe_services(cluster=self.cluster, services=["web"])
        assert not answer["failures"], answer["failures"]
        return answer["services"][0]

    def records(self):
        briefs = self.ecs.list_service_deployments(
            cluster=self.cluster, service="web"
        )["serviceDeployments"]
        arns = [brief["serviceDeploymentArn"] for brief in briefs]
        return self.ecs.describe_service_deployments(serviceDeploymentArns=arns)[
            "serviceDeployments"
        ]

    def until(self, what, test):
        """Polls until test() is true; the deadline only bounds a failure."""
        deadline = time.monotonic() + PATIENCE
        while True:
            value = test()
            if value:
                return value
            if time.monotonic() > deadline:
                service = self.service()
                print("events:", *[e["message"] for e in service["events"]], sep="\n  ")
                print("deployments:", service["deployments"])
                raise AssertionError("gave up waiting for " + what)
            time.sleep(0.1)

    def until_completed(self, deployment):
        def completed():
            now = primary(self.service())
            return now["id"] == deployment and now["rolloutState"] == "COMPLETED"

        self.until("deployment %s to complete" % deployment, completed)

    def until_record(self, *statuses):
        return self.until(
            "a service deployment %s" % "/".join(statuses),
            lambda: next(
                (r for r in self.records()[:1] if r["status"] in statuses), None
            ),
        )

    def tasks(self, status):
        arns = self.ecs.list_tasks(
            cluster=self.cluster, serviceName="web", desiredStatus=status
        )["taskArns"]
        if not arns:
            return []
        return self.ecs.describe_tasks(cluster=self.cluster, tasks=arns)["tasks"]

    def events(self):
        return "\n".join(event["message"] for event in self.service()["events"])

    def clean_up(self):
        self.ecs.delete_service(cluster=self.cluster, service="web", force=True)
        self.until("the service to end", lambda: self.service()["status"] == "INACTIVE")
        self.ecs.delete_cluster(cluster=self.cluster)


def primary(service):
    (only,) = [d for d in service["deployments"] if d["status"] == "PRIMARY"]
    return only


def good_rollout(story):
    first, second = story.define("good"), story.define("good")
    old = story.create(first)
    story.until_completed(old)
    record = story.until_record("SUCCESSFUL")
    revision = record["targetServiceRevision"]["arn"]
    described = story.ecs.describe_service_revisions(serviceRevisionArns=[revision])
    assert described["serviceRevisions"][0]["taskDefinition"] == first
    new = story.update(second)
    assert new != old
    story.until_completed(new)
    service = story.service()
    assert service["taskDefinition"] == second
    assert service["runningCount"] == 2 and len(service["deployments"]) == 1
    assert {t["taskDefinitionArn"] for t in story.tasks("RUNNING")} == {second}
    assert all(t["startedBy"] == new for t in story.tasks("RUNNING"))
    stopped = story.tasks("STOPPED")
    assert len(stopped) == 2
    assert all(t["stopCode"] == "ServiceSchedulerInitiated" for t in stopped)
    assert "(deployment %s) deployment completed." % new in story.events()
    assert "has reached a steady state." in story.events()
    story.ecs.get_waiter("services_stable").wait(cluster=story.cluster, services=["web"])
    assert story.update(second) == new, "the same definition starts no deployment"


def rolled_back(story, kind, check):
    first = story.define("good")
    old = story.create(first)
    story.until_completed(old)
    failed = story.update(story.define(kind))
    assert failed != old
    record = story.until_record("ROLLBACK_SUCCESSFUL")
    assert record["rollback"]["serviceRevisionArn"]
    assert record["deploymentCircuitBreaker"]["status"] == "TRIGGERED"
    service = story.service()
    assert service["taskDefinition"] == first, service["taskDefinition"]
    assert primary(service)["id"] == old, "a rollback returns under the old id"
    assert service["runningCount"] == 2
    assert "(deployment %s) deployment failed: tasks failed to start." % failed in story.events()
    assert "rolling back to deployment %s." % old in story.events()
    mine = [t for t in story.tasks("STOPPED") if t["startedBy"] == failed]
    assert len(mine) >= 3, mine
    assert any(check(task) for task in mine), mine


def crash(story):
    rolled_back(
        story,
        "crash",
        lambda task: task["stopCode"] == "EssentialContainerExited"
        and task["stoppedReason"] == "Essential container in task exited"
        and task["containers"][0]["exitCode"] == 3,
    )


def missing_image(story):
    rolled_back(
        story,
        "missing",
        lambda task: task["stopCode"] == "TaskFailedToStart"
        and task["stoppedReason"].startswith("CannotPullContainerError: ")
        and "exitCode" not in task["containers"][0],
    )


def unhealthy(story):
    rolled_back(
        story,
        "unhealthy",
        lambda task: task["stoppedReason"] == "Task failed container health checks",
    )


def stop_with_rollback(story):
    first = story.define("good")
    old = story.create(first)
    story.until_completed(old)
    story.update(story.define("undecided"))
    record = story.until_record("IN_PROGRESS")
    assert story.service()["currentServiceDeployment"] == record["serviceDeploymentArn"]
    story.ecs.stop_service_deployment(
        serviceDeploymentArn=record["serviceDeploymentArn"], stopType="ROLLBACK"
    )
    record = story.until_record("ROLLBACK_SUCCESSFUL")
    service = story.service()
    assert service["taskDefinition"] == first
    assert primary(service)["id"] == old
    try:
        story.ecs.stop_service_deployment(
            serviceDeploymentArn=record["serviceDeploymentArn"]
        )
    except story.ecs.exceptions.ConflictException:
        pass
    else:
        raise AssertionError("an ended service deployment was stopped")


def supersede(story):
    old = story.create(story.define("good"))
    story.until_completed(old)
    middle = story.update(story.define("undecided"))
    last_definition = story.define("good")
    new = story.update(last_definition)
    assert len({old, middle, new}) == 3
    story.until_completed(new)
    service = story.service()
    assert service["taskDefinition"] == last_definition
    assert [d["id"] for d in service["deployments"]] == [new]
    statuses = [record["status"] for record in story.records()]
    assert statuses == ["SUCCESSFUL", "STOPPED", "SUCCESSFUL"], statuses


def first_fails(story):
    deployment = story.create(story.define("crash"))
    record = story.until_record("STOPPED")
    assert "rollback" not in record
    service = story.service()
    now = primary(service)
    assert now["id"] == deployment and now["rolloutState"] == "FAILED"
    assert now["rolloutStateReason"].startswith("ECS deployment circuit breaker:")
    assert now["failedTasks"] >= 3
    story.until("its tasks to end", lambda: not story.tasks("RUNNING"))


def run_task(story):
    definition = story.define("crash")
    (task,) = story.ecs.run_task(
        cluster=story.cluster,
        taskDefinition=definition,
        startedBy="story",
        overrides={
            "containerOverrides": [
                {"name": "app", "environment": [{"name": "A", "value": "1"}]}
            ]
        },
    )["tasks"]
    arn = task["taskArn"]

    def stopped():
        (now,) = story.ecs.describe_tasks(cluster=story.cluster, tasks=[arn])["tasks"]
        return now if now["lastStatus"] == "STOPPED" else None

    ended = story.until("the task to end", stopped)
    assert ended["containers"][0]["exitCode"] == 3, ended
    assert ended["stopCode"] == "EssentialContainerExited"
    listed = story.ecs.list_tasks(
        cluster=story.cluster, startedBy="story", desiredStatus="STOPPED"
    )["taskArns"]
    assert listed == [arn]
    # `clean_up` expects a service.
    story.create(story.define("good"), count=0)


def refusals(story):
    ecs = story.ecs
    errors = ecs.exceptions
    definition = story.define("good")
    described = ecs.describe_task_definition(taskDefinition=definition)
    assert described["taskDefinition"]["revision"] == 1
    story.create(definition, count=0)

    def refused(kind, call, **members):
        try:
            call(**members)
        except kind as error:
            return str(error)
        raise AssertionError("%s accepted %s" % (call, members))

    refused(
        errors.ClusterNotFoundException,
        ecs.describe_services,
        cluster="absent",
        services=["web"],
    )
    refused(
        errors.ServiceNotFoundException,
        ecs.update_service,
        cluster=story.cluster,
        service="absent",
    )
    text = refused(
        errors.UnsupportedFeatureException,
        ecs.update_service,
        cluster=story.cluster,
        service="web",
        deploymentConfiguration={"strategy": "BLUE_GREEN"},
    )
    assert "strategy" in text, text
    refused(
        errors.ClientException,
        ecs.update_service,
        cluster=story.cluster,
        service="web",
        taskDefinition="absent:1",
    )
    ecs.deregister_task_definition(taskDefinition=definition)
    other = ecs.list_task_definitions(familyPrefix=story.family, status="INACTIVE")
    assert other["taskDefinitionArns"] == [definition]
    missing = ecs.describe_services(cluster=story.cluster, services=["absent"])
    assert missing["failures"][0]["reason"] == "MISSING"
    ecs.tag_resource(resourceArn=definition, tags=[{"key": "a", "value": "b"}])
    tags = ecs.list_tags_for_resource(resourceArn=definition)["tags"]
    assert tags == [{"key": "a", "value": "b"}]


STORIES = {
    "good-rollout": good_rollout,
    "crash": crash,
    "missing-image": missing_image,
    "unhealthy": unhealthy,
    "stop-with-rollback": stop_with_rollback,
    "supersede": supersede,
    "first-fails": first_fails,
    "run-task": run_task,
    "refusals": refusals,
}


def main(stories):
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--backend", choices=["simulated", "docker"], required=True)
    parser.add_argument("--image", default="pretended:1")
    parser.add_argument("story", choices=sorted(stories))
    arguments = parser.parse_args()
    story = Story(arguments.endpoint, arguments.backend, arguments.image)
    stories[arguments.story](story)
    story.clean_up()
    print("held:", arguments.story)


if __name__ == "__main__":
    sys.exit(main(STORIES))
