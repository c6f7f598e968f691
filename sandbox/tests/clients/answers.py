"""Holds every answer in a call log against the API models that ship with botocore.

Usage: answers.py calls.jsonl

An answer must have no member that the model does not have, values of the model's types, no value
outside an enumeration, and the members that AWS's documentation promises. A refusal must be one
that the model or the documentation of common errors knows. Ends with 1 when one does not hold.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree

import botocore.session

# Members that AWS's documentation shows in every such structure, besides those that the model
# requires. By the shape's name, after the service's where several have one of that name.
PROMISED = {
    "Cluster": "clusterArn clusterName status runningTasksCount pendingTasksCount "
    "activeServicesCount registeredContainerInstancesCount",
    "Service": "serviceArn serviceName clusterArn status desiredCount runningCount pendingCount "
    "taskDefinition deploymentConfiguration deployments events createdAt schedulingStrategy "
    "deploymentController loadBalancers launchType",
    "Deployment": "id status taskDefinition desiredCount pendingCount runningCount failedTasks "
    "createdAt updatedAt launchType rolloutState rolloutStateReason",
    "ServiceEvent": "id createdAt message",
    "Task": "taskArn clusterArn taskDefinitionArn lastStatus desiredStatus containers createdAt "
    "group launchType cpu memory version attachments overrides",
    "Container": "containerArn taskArn name image lastStatus",
    "ServiceDeployment": "serviceDeploymentArn serviceArn clusterArn createdAt updatedAt status "
    "targetServiceRevision deploymentConfiguration",
    "ServiceDeploymentBrief": "serviceDeploymentArn serviceArn clusterArn createdAt status "
    "targetServiceRevisionArn",
    "TaskDefinition": "taskDefinitionArn family revision status containerDefinitions volumes "
    "registeredAt",
    "ContainerDefinition": "name image essential environment mountPoints portMappings volumesFrom",
    "ContainerInstance": "containerInstanceArn ec2InstanceId status agentConnected "
    "remainingResources registeredResources runningTasksCount pendingTasksCount",
    "ServiceRevision": "serviceRevisionArn serviceArn clusterArn taskDefinition createdAt "
    "containerImages",
    "ContainerImage": "containerName image",
    "Failure": "arn reason",
    "Tag": "key value",
    "TargetGroup": "TargetGroupArn TargetGroupName Protocol Port TargetType HealthCheckPath "
    "HealthCheckProtocol HealthCheckPort HealthCheckEnabled HealthCheckIntervalSeconds "
    "HealthCheckTimeoutSeconds HealthyThresholdCount UnhealthyThresholdCount Matcher "
    "LoadBalancerArns",
    "TargetHealthDescription": "Target TargetHealth",
    "TargetHealth": "State",
    "elbv2 LoadBalancer": "LoadBalancerArn LoadBalancerName DNSName State Type Scheme "
    "CreatedTime AvailabilityZones",
    "LoadBalancerState": "Code",
    "Listener": "ListenerArn LoadBalancerArn Port Protocol DefaultActions",
    "Repository": "repositoryArn registryId repositoryName repositoryUri createdAt "
    "imageTagMutability",
    "ImageDetail": "registryId repositoryName imageDigest imageSizeInBytes imagePushedAt "
    "imageManifestMediaType",
    "Image": "registryId repositoryName imageId imageManifest imageManifestMediaType",
    "ImageFailure": "imageId failureCode failureReason",
    "AuthorizationData": "authorizationToken expiresAt proxyEndpoint",
    "ImageScanStatus": "status",
    "ImageScanFinding": "name severity",
    "LogGroup": "logGroupName creationTime arn",
    "LogStream": "logStreamName creationTime arn",
    "OutputLogEvent": "timestamp message ingestionTime",
    "FilteredLogEvent": "logStreamName timestamp message ingestionTime eventId",
    "GetLogEventsResponse": "events nextForwardToken nextBackwardToken",
    "MetricAlarm": "AlarmName AlarmArn StateValue StateReason StateUpdatedTimestamp "
    "AlarmConfigurationUpdatedTimestamp ActionsEnabled EvaluationPeriods ComparisonOperator",
    "Credentials": "AccessKeyId SecretAccessKey SessionToken Expiration",
    "AssumeRoleResponse": "Credentials AssumedRoleUser",
    "AssumedRoleUser": "AssumedRoleId Arn",
    "GetCallerIdentityResponse": "UserId Account Arn",
    "servicediscovery Service": "Id Arn Name Type CreateDate",
    "servicediscovery Namespace": "Id Arn Name Type CreateDate",
    "servicediscovery Operation": "Id Type Status CreateDate UpdateDate Targets",
}

# What a task has to say once it has stopped.
STOPPED = "stopCode stoppedReason stoppedAt stoppingAt executionStoppedAt"

# The errors that every service has, as the JSON protocols and as the Query protocol call them.
# `UnsupportedFeatureException` is the sandbox's own: what it cannot reproduce.
COMMON_JSON = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "SerializationException",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "UnsupportedFeatureException",
    "ValidationException",
}
COMMON_QUERY = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAction",
    "InvalidClientTokenId",
    "Throttling",
    "UnsupportedFeatureException",
    "ValidationError",
}

TYPES = {
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
    "list": list,
    "map": dict,
    "structure": dict,
}


class Check:
    def __init__(self):
        self.wrong = []
        self.answers = 0

    def say(self, path, text):
        self.wrong.append(f"{path}: {text}")

    def value(self, path, shape, value):
        kind = shape.type_name
        expected = TYPES.get(kind)
        if expected and (
            not isinstance(value, expected) or (kind == "integer" and isinstance(value, bool))
        ):
            self.say(path, f"{value!r} is no {kind}")
            return
        if kind == "string" and getattr(shape, "enum", None) and value not in shape.enum:
            self.say(path, f"{value!r} is not in {shape.enum}")
        elif kind == "list":
            for number, item in enumerate(value):
                self.value(f"{path}[{number}]", shape.member, item)
        elif kind == "map":
            for key, item in value.items():
                self.value(f"{path}[{key}]", shape.value, item)
        elif kind == "structure":
            for name, item in value.items():
                member = shape.members.get(name)
                if member is None:
                    self.say(path, f"the model of {shape.name} has no member {name}")
                elif item is not None:
                    self.value(f"{path}.{name}", member, item)
            self.promises(path, shape, value)

    def promises(self, path, shape, value):
        own = f"{path.split()[0]} {shape.name}"
        of_all = "" if path.startswith("servicediscovery") else PROMISED.get(shape.name, "")
        promised = list(shape.required_members) + PROMISED.get(own, of_all).split()
        if shape.name == "Task" and value.get("lastStatus") == "STOPPED":
            promised += STOPPED.split()
        for name in promised:
            if value.get(name) is None:
                self.say(path, f"{shape.name} has no {name}")

    def xml(self, path, shape, element):
        """An element of the Query protocol as the value that `value` checks."""
        kind = shape.type_name
        if kind == "structure":
            value = {}
            for child in element:
                name = child.tag.split("}")[-1]
                member = shape.members.get(name)
                if member is None:
                    self.say(path, f"the model of {shape.name} has no member {name}")
                else:
                    value[name] = self.xml(f"{path}.{name}", member, child)
            return value
        if kind == "list":
            return [self.xml(path, shape.member, child) for child in element]
        text = element.text or ""
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "boolean":
            return text == "true"
        # Times stay text; that they can be read is the client's to find out.
        return 0 if kind == "timestamp" else text

    def call(self, model, call):
        path = f"{call['service']} {call['operation']}"
        operation = model.operation_model(call["operation"])
        if call["error"] is not None:
            known = {shape.name for shape in model.error_shapes}
            # CloudWatch is spoken in both.
            if "query" in model.metadata.get("protocols", [model.metadata["protocol"]]):
                known |= COMMON_QUERY
            if model.service_name not in ("elbv2", "sts"):
                known |= COMMON_JSON
            known |= {shape.metadata.get("error", {}).get("code") for shape in model.error_shapes}
            if call["error"] not in known and call["fault"] is None:
                self.say(path, f"no error is called {call['error']}")
            return
        if "answer" not in call:
            return
        self.answers += 1
        answer, shape = call["answer"], operation.output_shape
        if isinstance(answer, str):
            root = ElementTree.fromstring(answer)
            wrapper = next((child for child in root if child.tag.endswith("Result")), None)
            if shape is None:
                return
            answer = {} if wrapper is None else self.xml(path, shape, wrapper)
        if shape is None:
            if answer:
                self.say(path, f"the model has no answer, this is {answer}")
        else:
            self.value(path, shape, answer)


def main():
    session = botocore.session.Session()
    models = {}
    check = Check()
    with open(sys.argv[1], encoding="utf-8") as log:
        # A restart begins a new line, whatever stood before.
        for line in filter(str.strip, log):
            call = json.loads(line)
            service = call["service"]
            if call["operation"] == "PutImage":
                # The registry's own note of a push.
                continue
            if service not in models:
                models[service] = session.get_service_model(service)
            check.call(models[service], call)
    if not check.answers:
        print("no answer was recorded", file=sys.stderr)
        sys.exit(1)
    for line in sorted(set(check.wrong)):
        print(line, file=sys.stderr)
    sys.exit(1 if check.wrong else 0)


main()
