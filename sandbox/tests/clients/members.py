"""The members that the sandbox's answers have, by service and structure.

`ALWAYS` are those that AWS's documentation shows in every such structure, besides those that the
model requires. `SOMETIMES` are there when there is something to say. No answer of the tests has others.

Usage: members.py FOLDER

Reads what the checks of answers (`answers.py`) left in the folder, and ends with 1 when a member that
is listed here was in no answer.
"""

import json
import pathlib
import sys

ALWAYS = {
    "cloudwatch DescribeAlarmsOutput": "CompositeAlarms MetricAlarms",
    "cloudwatch MetricAlarm": "AlarmName AlarmArn StateValue StateReason StateUpdatedTimestamp "
    "AlarmConfigurationUpdatedTimestamp ActionsEnabled EvaluationPeriods ComparisonOperator",
    "ecr AuthorizationData": "authorizationToken expiresAt proxyEndpoint",
    "ecr BatchDeleteImageResponse": "failures imageIds",
    "ecr BatchGetImageResponse": "failures images",
    "ecr CreateRepositoryResponse": "repository",
    "ecr DeleteLifecyclePolicyResponse": "lifecyclePolicyText registryId repositoryName",
    "ecr DeleteRepositoryResponse": "repository",
    "ecr DescribeImageScanFindingsResponse": "imageId imageScanStatus registryId repositoryName",
    "ecr DescribeImagesResponse": "imageDetails",
    "ecr GetAuthorizationTokenResponse": "authorizationData",
    "ecr GetLifecyclePolicyResponse": "lifecyclePolicyText registryId repositoryName",
    "ecr Image": "registryId repositoryName imageId imageManifest imageManifestMediaType",
    "ecr ImageDetail": "registryId repositoryName imageDigest imageSizeInBytes imagePushedAt "
    "imageManifestMediaType",
    "ecr ImageFailure": "imageId failureCode failureReason",
    "ecr ImageScanFinding": "name severity",
    "ecr ImageScanStatus": "status",
    "ecr ListImagesResponse": "imageIds",
    "ecr PutImageTagMutabilityResponse": "imageTagMutability registryId repositoryName",
    "ecr PutLifecyclePolicyResponse": "lifecyclePolicyText registryId repositoryName",
    "ecr Repository": "repositoryArn registryId repositoryName repositoryUri createdAt "
    "imageTagMutability",
    "ecr StartImageScanResponse": "imageId imageScanStatus registryId repositoryName",
    "ecs Cluster": "clusterArn clusterName status runningTasksCount pendingTasksCount "
    "activeServicesCount registeredContainerInstancesCount",
    "ecs Container": "containerArn taskArn name image lastStatus",
    "ecs ContainerDefinition": "name image essential environment mountPoints portMappings "
    "volumesFrom",
    "ecs ContainerImage": "containerName image",
    "ecs ContainerInstance": "containerInstanceArn ec2InstanceId status agentConnected "
    "remainingResources registeredResources runningTasksCount pendingTasksCount",
    "ecs CreateClusterResponse": "cluster",
    "ecs CreateServiceResponse": "service",
    "ecs DeleteClusterResponse": "cluster",
    "ecs DeleteServiceResponse": "service",
    "ecs Deployment": "id status taskDefinition desiredCount pendingCount runningCount "
    "failedTasks createdAt updatedAt launchType rolloutState rolloutStateReason",
    "ecs DeregisterTaskDefinitionResponse": "taskDefinition",
    "ecs DescribeClustersResponse": "clusters failures",
    "ecs DescribeContainerInstancesResponse": "containerInstances failures",
    "ecs DescribeServiceDeploymentsResponse": "failures serviceDeployments",
    "ecs DescribeServiceRevisionsResponse": "failures serviceRevisions",
    "ecs DescribeServicesResponse": "failures services",
    "ecs DescribeTaskDefinitionResponse": "taskDefinition",
    "ecs DescribeTasksResponse": "failures tasks",
    "ecs Failure": "arn reason",
    "ecs KeyValuePair": "name value",
    "ecs ListClustersResponse": "clusterArns",
    "ecs ListContainerInstancesResponse": "containerInstanceArns",
    "ecs ListServiceDeploymentsResponse": "serviceDeployments",
    "ecs ListServicesResponse": "serviceArns",
    "ecs ListTaskDefinitionFamiliesResponse": "families",
    "ecs ListTaskDefinitionsResponse": "taskDefinitionArns",
    "ecs ListTasksResponse": "taskArns",
    "ecs NetworkBinding": "bindIP containerPort hostPort protocol",
    "ecs RegisterTaskDefinitionResponse": "taskDefinition",
    "ecs Rollback": "reason serviceRevisionArn startedAt",
    "ecs RunTaskResponse": "failures tasks",
    "ecs Service": "serviceArn serviceName clusterArn status desiredCount runningCount "
    "pendingCount taskDefinition deploymentConfiguration deployments events createdAt "
    "schedulingStrategy deploymentController loadBalancers launchType",
    "ecs ServiceCurrentRevisionSummary": "arn pendingTaskCount requestedTaskCount "
    "runningTaskCount",
    "ecs ServiceDeployment": "serviceDeploymentArn serviceArn clusterArn createdAt updatedAt "
    "status targetServiceRevision deploymentConfiguration",
    "ecs ServiceDeploymentAlarms": "alarmNames status",
    "ecs ServiceDeploymentBrief": "serviceDeploymentArn serviceArn clusterArn createdAt status "
    "targetServiceRevisionArn",
    "ecs ServiceDeploymentCircuitBreaker": "failureCount status threshold",
    "ecs ServiceEvent": "id createdAt message",
    "ecs ServiceRevision": "serviceRevisionArn serviceArn clusterArn taskDefinition createdAt "
    "containerImages",
    "ecs ServiceRevisionSummary": "arn pendingTaskCount requestedTaskCount runningTaskCount",
    "ecs StopServiceDeploymentResponse": "serviceDeploymentArn",
    "ecs StopTaskResponse": "task",
    "ecs Tag": "key value",
    "ecs Task": "taskArn clusterArn taskDefinitionArn lastStatus desiredStatus containers "
    "createdAt group launchType cpu memory version attachments overrides",
    "ecs TaskDefinition": "taskDefinitionArn family revision status containerDefinitions volumes "
    "registeredAt",
    "ecs UpdateContainerInstancesStateResponse": "containerInstances failures",
    "ecs UpdateServiceResponse": "service",
    "elbv2 CreateListenerOutput": "Listeners",
    "elbv2 CreateLoadBalancerOutput": "LoadBalancers",
    "elbv2 CreateTargetGroupOutput": "TargetGroups",
    "elbv2 DescribeListenersOutput": "Listeners",
    "elbv2 DescribeLoadBalancersOutput": "LoadBalancers",
    "elbv2 DescribeTargetGroupsOutput": "TargetGroups",
    "elbv2 DescribeTargetHealthOutput": "TargetHealthDescriptions",
    "elbv2 Listener": "ListenerArn LoadBalancerArn Port Protocol DefaultActions",
    "elbv2 LoadBalancer": "LoadBalancerArn LoadBalancerName DNSName State Type Scheme CreatedTime "
    "AvailabilityZones",
    "elbv2 LoadBalancerState": "Code",
    "elbv2 ModifyListenerOutput": "Listeners",
    "elbv2 ModifyTargetGroupAttributesOutput": "Attributes",
    "elbv2 ModifyTargetGroupOutput": "TargetGroups",
    "elbv2 TargetGroup": "TargetGroupArn TargetGroupName Protocol Port TargetType HealthCheckPath "
    "HealthCheckProtocol HealthCheckPort HealthCheckEnabled HealthCheckIntervalSeconds "
    "HealthCheckTimeoutSeconds HealthyThresholdCount UnhealthyThresholdCount Matcher "
    "LoadBalancerArns",
    "elbv2 TargetGroupAttribute": "Key Value",
    "elbv2 TargetGroupTuple": "TargetGroupArn Weight",
    "elbv2 TargetHealth": "State",
    "elbv2 TargetHealthDescription": "Target TargetHealth",
    "logs DescribeLogGroupsResponse": "logGroups",
    "logs DescribeLogStreamsResponse": "logStreams",
    "logs FilterLogEventsResponse": "events",
    "logs FilteredLogEvent": "logStreamName timestamp message ingestionTime eventId",
    "logs GetLogEventsResponse": "events nextForwardToken nextBackwardToken",
    "logs LogGroup": "logGroupName creationTime arn",
    "logs LogStream": "logStreamName creationTime arn",
    "logs OutputLogEvent": "timestamp message ingestionTime",
    "servicediscovery CreateHttpNamespaceResponse": "OperationId",
    "servicediscovery CreatePrivateDnsNamespaceResponse": "OperationId",
    "servicediscovery CreateServiceResponse": "Service",
    "servicediscovery DeleteNamespaceResponse": "OperationId",
    "servicediscovery DiscoverInstancesResponse": "Instances InstancesRevision",
    "servicediscovery GetInstancesHealthStatusResponse": "Status",
    "servicediscovery GetNamespaceResponse": "Namespace",
    "servicediscovery GetOperationResponse": "Operation",
    "servicediscovery GetServiceResponse": "Service",
    "servicediscovery HttpInstanceSummary": "Attributes HealthStatus InstanceId NamespaceName "
    "ServiceName",
    "servicediscovery InstanceSummary": "Attributes Id",
    "servicediscovery ListInstancesResponse": "Instances",
    "servicediscovery ListNamespacesResponse": "Namespaces",
    "servicediscovery ListServicesResponse": "Services",
    "servicediscovery ListTagsForResourceResponse": "Tags",
    "servicediscovery Namespace": "Id Arn Name Type CreateDate",
    "servicediscovery NamespaceSummary": "Arn CreateDate Id Name Properties ResourceOwner "
    "ServiceCount Type",
    "servicediscovery Operation": "Id Type Status CreateDate UpdateDate Targets",
    "servicediscovery Service": "Id Arn Name Type CreateDate",
    "sts AssumeRoleResponse": "Credentials AssumedRoleUser PackedPolicySize",
    "sts AssumedRoleUser": "AssumedRoleId Arn",
    "sts Credentials": "AccessKeyId SecretAccessKey SessionToken Expiration",
    "sts GetCallerIdentityResponse": "UserId Account Arn",
}

SOMETIMES = {
    "cloudwatch DescribeAlarmsOutput": "NextToken",
    "cloudwatch MetricAlarm": "AlarmActions Dimensions InsufficientDataActions MetricName "
    "Namespace OKActions Period StateTransitionedTimestamp Statistic Threshold",
    "ecr DescribeImageScanFindingsResponse": "imageScanFindings",
    "ecr ImageDetail": "artifactMediaType imageScanFindingsSummary imageScanStatus imageStatus "
    "imageTags",
    "ecr ImageIdentifier": "imageDigest imageTag",
    "ecr ImageScanFindings": "findingSeverityCounts findings imageScanCompletedAt "
    "vulnerabilitySourceUpdatedAt",
    "ecr ImageScanFindingsSummary": "findingSeverityCounts imageScanCompletedAt "
    "vulnerabilitySourceUpdatedAt",
    "ecr ImageScanStatus": "description",
    "ecr ImageScanningConfiguration": "scanOnPush",
    "ecr ListImagesResponse": "nextToken",
    "ecr Repository": "encryptionConfiguration imageScanningConfiguration",
    "ecs Attribute": "value",
    "ecs Cluster": "capacityProviders defaultCapacityProviderStrategy settings statistics tags",
    "ecs Container": "exitCode healthStatus imageDigest networkBindings networkInterfaces reason "
    "runtimeId",
    "ecs ContainerDefinition": "command cpu dependsOn dockerLabels healthCheck interactive "
    "logConfiguration memory pseudoTerminal startTimeout stopTimeout versionConsistency",
    "ecs ContainerImage": "imageDigest",
    "ecs ContainerInstance": "attachments attributes registeredAt tags version versionInfo",
    "ecs ContainerOverride": "environment name",
    "ecs Deployment": "networkConfiguration platformVersion serviceConnectConfiguration",
    "ecs DeploymentCircuitBreaker": "resetOnHealthyTask thresholdConfiguration",
    "ecs DeploymentConfiguration": "alarms deploymentCircuitBreaker maximumPercent "
    "minimumHealthyPercent strategy",
    "ecs DescribeTaskDefinitionResponse": "tags",
    "ecs HealthCheck": "interval retries timeout",
    "ecs ListClustersResponse": "nextToken",
    "ecs ListContainerInstancesResponse": "nextToken",
    "ecs ListServiceDeploymentsResponse": "nextToken",
    "ecs ListServicesResponse": "nextToken",
    "ecs ListTagsForResourceResponse": "tags",
    "ecs ListTaskDefinitionFamiliesResponse": "nextToken",
    "ecs ListTaskDefinitionsResponse": "nextToken",
    "ecs ListTasksResponse": "nextToken",
    "ecs LoadBalancer": "containerName containerPort targetGroupArn",
    "ecs LogConfiguration": "options",
    "ecs NetworkConfiguration": "awsvpcConfiguration",
    "ecs PortMapping": "containerPort hostPort name",
    "ecs RegisterTaskDefinitionResponse": "tags",
    "ecs Resource": "doubleValue integerValue longValue name stringSetValue type",
    "ecs Service": "availabilityZoneRebalancing createdBy currentServiceDeployment "
    "currentServiceRevisions enableECSManagedTags enableExecuteCommand "
    "healthCheckGracePeriodSeconds networkConfiguration placementConstraints placementStrategy "
    "platformFamily platformVersion propagateTags serviceRegistries tags",
    "ecs ServiceConnectConfiguration": "namespace services",
    "ecs ServiceConnectService": "clientAliases discoveryName",
    "ecs ServiceDeployment": "alarms deploymentCircuitBreaker finishedAt rollback "
    "sourceServiceRevisions startedAt statusReason stoppedAt",
    "ecs ServiceDeploymentAlarms": "triggeredAlarmNames",
    "ecs ServiceDeploymentBrief": "finishedAt startedAt statusReason",
    "ecs ServiceRegistry": "containerName containerPort registryArn",
    "ecs ServiceRevision": "loadBalancers",
    "ecs Task": "attributes availabilityZone connectivity containerInstanceArn "
    "enableExecuteCommand executionStoppedAt healthStatus platformFamily platformVersion "
    "pullStartedAt pullStoppedAt startedAt startedBy stopCode stoppedAt stoppedReason stoppingAt "
    "tags",
    "ecs TaskDefinition": "compatibilities cpu deregisteredAt executionRoleArn memory networkMode "
    "placementConstraints registeredBy requiresAttributes requiresCompatibilities taskRoleArn",
    "ecs TaskOverride": "containerOverrides inferenceAcceleratorOverrides",
    "ecs VersionInfo": "agentVersion dockerVersion",
    "elbv2 Action": "ForwardConfig TargetGroupArn",
    "elbv2 AvailabilityZone": "SubnetId ZoneName",
    "elbv2 DescribeLoadBalancersOutput": "NextMarker",
    "elbv2 ForwardActionConfig": "TargetGroups",
    "elbv2 LoadBalancer": "CanonicalHostedZoneId IpAddressType",
    "elbv2 Matcher": "HttpCode",
    "elbv2 TargetDescription": "Port",
    "elbv2 TargetGroup": "IpAddressType ProtocolVersion VpcId",
    "elbv2 TargetHealth": "Description Reason",
    "elbv2 TargetHealthDescription": "HealthCheckPort",
    "logs LogGroup": "logGroupArn metricFilterCount storedBytes",
    "logs LogStream": "firstEventTimestamp lastEventTimestamp lastIngestionTime storedBytes",
    "servicediscovery DnsConfig": "NamespaceId RoutingPolicy",
    "servicediscovery DnsProperties": "HostedZoneId SOA",
    "servicediscovery GetInstancesHealthStatusResponse": "NextToken",
    "servicediscovery HealthCheckCustomConfig": "FailureThreshold",
    "servicediscovery HttpProperties": "HttpName",
    "servicediscovery ListInstancesResponse": "NextToken",
    "servicediscovery ListNamespacesResponse": "NextToken",
    "servicediscovery Namespace": "CreatorRequestId Properties ResourceOwner ServiceCount",
    "servicediscovery NamespaceProperties": "DnsProperties HttpProperties",
    "servicediscovery Operation": "OwnerAccount",
    "servicediscovery Service": "CreatedByAccount CreatorRequestId DnsConfig "
    "HealthCheckCustomConfig InstanceCount NamespaceId ResourceOwner",
    "servicediscovery ServiceSummary": "Arn CreateDate CreatedByAccount DnsConfig "
    "HealthCheckCustomConfig Id InstanceCount Name ResourceOwner Type",
}


def main():
    files = list(pathlib.Path(sys.argv[1]).glob("*.json"))
    if not files:
        print("no answer was checked: this is the last of all tests", file=sys.stderr)
        sys.exit(1)
    seen = {}
    for file in files:
        for name, members in json.loads(file.read_text(encoding="utf-8")).items():
            seen.setdefault(name, set()).update(members)
    wrong = []
    for name in sorted(ALWAYS.keys() | SOMETIMES.keys()):
        listed = set(ALWAYS.get(name, "").split()) | set(SOMETIMES.get(name, "").split())
        for member in sorted(listed - seen.get(name, set())):
            wrong.append(f"no answer had {member} of {name}")
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
