"""What a load balancer does, told by boto3 alone, with requests to real tasks.

Usage: ecs_balancers.py --endpoint URL --backend docker --image NAME STORY
"""

import socket
import sys
import threading
import time
import urllib.request
import uuid

from ecs_story import main, primary


class Traffic(threading.Thread):
    """Asks one address over and over and keeps every answer."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url = url
        self.answers = []
        self.enough = threading.Event()

    def run(self):
        while not self.enough.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=60) as answer:
                    self.answers.append(answer.read().decode().strip())
            except OSError as error:
                self.answers.append(repr(error))
            time.sleep(0.02)

    def end(self):
        self.enough.set()
        self.join()
        return self.answers


def load_balancer(story):
    """Only for tasks that really answer: the image serves `hello` on port 80."""
    name = "lb" + uuid.uuid4().hex[:10]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    elb = story.client("elbv2")
    (group,) = elb.create_target_group(
        Name=name,
        Protocol="HTTP",
        Port=80,
        TargetType="instance",
        VpcId="vpc-1",
        HealthCheckPath="/",
        HealthCheckIntervalSeconds=30,
        HealthCheckTimeoutSeconds=20,
        HealthyThresholdCount=2,
        UnhealthyThresholdCount=5,
    )["TargetGroups"]
    group = group["TargetGroupArn"]
    elb.modify_target_group_attributes(
        TargetGroupArn=group,
        Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "20"}],
    )
    (balancer,) = elb.create_load_balancer(
        Name=name, Subnets=["subnet-1", "subnet-2"]
    )["LoadBalancers"]
    elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=port,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )

    def define(command):
        return story.ecs.register_task_definition(
            family=story.family,
            containerDefinitions=[
                {
                    "name": "app",
                    "image": story.image,
                    "memory": 64,
                    "stopTimeout": 2,
                    "command": ["sh", "-c", command],
                    "portMappings": [{"containerPort": 80}],
                }
            ],
        )["taskDefinition"]["taskDefinitionArn"]

    def targets():
        health = elb.describe_target_health(TargetGroupArn=group)
        return sorted(
            one["TargetHealth"]["State"] for one in health["TargetHealthDescriptions"]
        )

    serve = "exec httpd -f -p 80 -h "
    first = define(serve + "/www")
    old = story.create(
        first,
        loadBalancers=[
            {"targetGroupArn": group, "containerName": "app", "containerPort": 80}
        ],
    )
    story.until_completed(old)
    assert targets() == ["healthy", "healthy"], targets()
    traffic = Traffic("http://127.0.0.1:%d/" % port)
    traffic.start()
    new = story.update(define(serve + "/www"))
    story.until_completed(new)
    good = story.service()["taskDefinition"]
    failed = story.update(define(serve + "/bin"))
    story.until_record("ROLLBACK_SUCCESSFUL")
    assert primary(story.service())["id"] == new
    assert story.service()["taskDefinition"] == good
    mine = [t for t in story.tasks("STOPPED") if t["startedBy"] == failed]
    reason = "Task failed ELB health checks in (target-group %s)" % group
    assert any(t["stoppedReason"] == reason for t in mine), mine
    answers = traffic.end()
    odd = [answer for answer in answers if answer != "hello"]
    assert len(answers) > 10 and not odd, odd[:5]
    assert "registered 2 targets in (target-group %s)" % group in story.events()
    assert "has begun draining connections on" in story.events()


def weights(story):
    """Two services behind one listener, which shares requests by weight. Only for real tasks."""
    name = "w" + uuid.uuid4().hex[:10]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    elb = story.client("elbv2")
    groups = {}
    for colour in ("blue", "green"):
        (group,) = elb.create_target_group(
            Name=name + colour,
            Protocol="HTTP",
            Port=80,
            TargetType="instance",
            VpcId="vpc-1",
            HealthCheckPath="/",
            HealthCheckIntervalSeconds=30,
            HealthCheckTimeoutSeconds=20,
            HealthyThresholdCount=2,
        )["TargetGroups"]
        groups[colour] = group["TargetGroupArn"]

    def forward(blue, green):
        weighted = [
            {"TargetGroupArn": groups["blue"], "Weight": blue},
            {"TargetGroupArn": groups["green"], "Weight": green},
        ]
        return [{"Type": "forward", "ForwardConfig": {"TargetGroups": weighted}}]

    (balancer,) = elb.create_load_balancer(
        Name=name, Subnets=["subnet-1", "subnet-2"]
    )["LoadBalancers"]
    (listener,) = elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=port,
        DefaultActions=forward(3, 1),
    )["Listeners"]
    for colour, group in groups.items():
        serve = "echo %s > /www/index.html; exec httpd -f -p 80 -h /www" % colour
        definition = story.ecs.register_task_definition(
            family=story.family + colour,
            containerDefinitions=[
                {
                    "name": "app",
                    "image": story.image,
                    "memory": 64,
                    "stopTimeout": 2,
                    "command": ["sh", "-c", serve],
                    "portMappings": [{"containerPort": 80}],
                }
            ],
        )["taskDefinition"]["taskDefinitionArn"]
        story.ecs.create_service(
            cluster=story.cluster,
            serviceName="web" if colour == "blue" else colour,
            taskDefinition=definition,
            desiredCount=2,
            loadBalancers=[
                {"targetGroupArn": group, "containerName": "app", "containerPort": 80}
            ],
        )

    def healthy():
        return all(
            [
                one["TargetHealth"]["State"]
                for one in elb.describe_target_health(TargetGroupArn=group)[
                    "TargetHealthDescriptions"
                ]
            ]
            == ["healthy", "healthy"]
            for group in groups.values()
        )

    story.until("the targets to become healthy", healthy)

    def shares(requests):
        counts = {"blue": 0, "green": 0}
        for _ in range(requests):
            url = "http://127.0.0.1:%d/" % port
            with urllib.request.urlopen(url, timeout=20) as answer:
                counts[answer.read().decode().strip()] += 1
        return counts["blue"], counts["green"]

    def shift(blue, green):
        elb.modify_listener(
            ListenerArn=listener["ListenerArn"], DefaultActions=forward(blue, green)
        )
        (now,) = elb.describe_listeners(ListenerArns=[listener["ListenerArn"]])[
            "Listeners"
        ]
        shown = now["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        assert [one["Weight"] for one in shown] == [blue, green], shown
        return shares(40)

    assert shares(40) == (30, 10)
    assert shift(1, 1) == (20, 20)
    assert shift(0, 5) == (0, 40)
    assert shift(999, 0) == (40, 0)
    # The other one goes with the story.
    story.ecs.delete_service(cluster=story.cluster, service="green", force=True)

    def gone():
        asked = story.ecs.describe_services(cluster=story.cluster, services=["green"])
        return asked["services"][0]["status"] == "INACTIVE"

    story.until("the service green to end", gone)


STORIES = {
    "load-balancer": load_balancer,
    "weights": weights,
}

if __name__ == "__main__":
    sys.exit(main(STORIES))
