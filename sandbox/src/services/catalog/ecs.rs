//! Amazon ECS.

use super::Operation;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new(
        "CreateCluster",
        "clusterName tags serviceConnectDefaults.namespace",
        "settings configuration",
    ),
    Operation::new("DescribeClusters", "clusters include", ""),
    Operation::new("ListClusters", "nextToken maxResults", ""),
    Operation::new("DeleteCluster", "cluster", ""),
    Operation::new(
        "ListContainerInstances",
        "cluster status nextToken maxResults",
        "",
    ),
    Operation::new(
        "DescribeContainerInstances",
        "cluster containerInstances include",
        "",
    ),
    Operation::new(
        "UpdateContainerInstancesState",
        "cluster containerInstances status",
        "",
    ),
    REGISTER_TASK_DEFINITION,
    Operation::new("DescribeTaskDefinition", "taskDefinition include", ""),
    Operation::new(
        "ListTaskDefinitions",
        "familyPrefix status sort nextToken maxResults",
        "",
    ),
    Operation::new(
        "ListTaskDefinitionFamilies",
        "familyPrefix status nextToken maxResults",
        "",
    ),
    Operation::new("DeregisterTaskDefinition", "taskDefinition", ""),
    Operation::new(
        "CreateService",
        "cluster serviceName taskDefinition desiredCount clientToken launchType \
         healthCheckGracePeriodSeconds schedulingStrategy deploymentController tags \
         enableECSManagedTags propagateTags availabilityZoneRebalancing \
         loadBalancers.targetGroupArn loadBalancers.containerName loadBalancers.containerPort \
         deploymentConfiguration.strategy deploymentConfiguration.minimumHealthyPercent \
         deploymentConfiguration.maximumPercent deploymentConfiguration.deploymentCircuitBreaker \
         deploymentConfiguration.alarms \
         serviceConnectConfiguration.enabled serviceConnectConfiguration.namespace \
         serviceConnectConfiguration.services.portName \
         serviceConnectConfiguration.services.discoveryName \
         serviceConnectConfiguration.services.clientAliases.port \
         serviceConnectConfiguration.services.clientAliases.dnsName \
         serviceRegistries.registryArn serviceRegistries.port serviceRegistries.containerName \
         serviceRegistries.containerPort",
        "role platformVersion networkConfiguration enableExecuteCommand",
    ),
    Operation::new(
        "UpdateService",
        "cluster service taskDefinition desiredCount forceNewDeployment \
         healthCheckGracePeriodSeconds deploymentController enableECSManagedTags propagateTags \
         availabilityZoneRebalancing loadBalancers.targetGroupArn \
         loadBalancers.containerName loadBalancers.containerPort \
         deploymentConfiguration.strategy deploymentConfiguration.minimumHealthyPercent \
         deploymentConfiguration.maximumPercent deploymentConfiguration.deploymentCircuitBreaker \
         deploymentConfiguration.alarms \
         serviceConnectConfiguration.enabled serviceConnectConfiguration.namespace \
         serviceConnectConfiguration.services.portName \
         serviceConnectConfiguration.services.discoveryName \
         serviceConnectConfiguration.services.clientAliases.port \
         serviceConnectConfiguration.services.clientAliases.dnsName \
         serviceRegistries.registryArn serviceRegistries.port serviceRegistries.containerName \
         serviceRegistries.containerPort",
        "platformVersion networkConfiguration enableExecuteCommand",
    ),
    Operation::new("DescribeServices", "cluster services include", ""),
    Operation::new(
        "ListServices",
        "cluster launchType schedulingStrategy nextToken maxResults",
        "",
    ),
    Operation::new("DeleteService", "cluster service force", ""),
    Operation::new(
        "RunTask",
        "cluster taskDefinition count group launchType startedBy tags clientToken \
         enableECSManagedTags propagateTags overrides.cpu overrides.memory overrides.containerOverrides.name \
         overrides.containerOverrides.command overrides.containerOverrides.environment \
         overrides.containerOverrides.cpu overrides.containerOverrides.memory \
         overrides.containerOverrides.memoryReservation",
        "overrides.taskRoleArn overrides.executionRoleArn networkConfiguration platformVersion \
         enableExecuteCommand referenceId",
    ),
    Operation::new("StopTask", "cluster task reason", ""),
    Operation::new("DescribeTasks", "cluster tasks include", ""),
    Operation::new(
        "ListTasks",
        "cluster containerInstance family serviceName startedBy desiredStatus launchType \
         nextToken maxResults",
        "",
    ),
    Operation::new(
        "ListServiceDeployments",
        "cluster service status createdAt nextToken maxResults",
        "",
    ),
    Operation::new("DescribeServiceDeployments", "serviceDeploymentArns", ""),
    Operation::new("DescribeServiceRevisions", "serviceRevisionArns", ""),
    Operation::new("StopServiceDeployment", "serviceDeploymentArn stopType", ""),
    // There is never anything to continue, because lifecycle hooks are refused.
    Operation::new(
        "ContinueServiceDeployment",
        "serviceDeploymentArn hookId action",
        "",
    ),
    Operation::new("TagResource", "resourceArn tags", ""),
    Operation::new("UntagResource", "resourceArn tagKeys", ""),
    Operation::new("ListTagsForResource", "resourceArn", ""),
];

/// A definition is kept as it came; what runs is what these lists say.
const REGISTER_TASK_DEFINITION: Operation = Operation {
    name: "RegisterTaskDefinition",
    honoured: "family cpu memory networkMode requiresCompatibilities tags \
        runtimePlatform.operatingSystemFamily runtimePlatform.cpuArchitecture \
        containerDefinitions.name containerDefinitions.image containerDefinitions.essential \
        containerDefinitions.versionConsistency containerDefinitions.cpu \
        containerDefinitions.memory \
        containerDefinitions.memoryReservation containerDefinitions.entryPoint \
        containerDefinitions.command containerDefinitions.environment \
        containerDefinitions.portMappings.containerPort \
        containerDefinitions.portMappings.protocol containerDefinitions.portMappings.name \
        containerDefinitions.dependsOn \
        containerDefinitions.startTimeout containerDefinitions.stopTimeout \
        containerDefinitions.interactive containerDefinitions.pseudoTerminal \
        containerDefinitions.user \
        containerDefinitions.workingDirectory containerDefinitions.readonlyRootFilesystem \
        containerDefinitions.dockerLabels containerDefinitions.healthCheck \
        containerDefinitions.logConfiguration.logDriver \
        containerDefinitions.logConfiguration.options",
    // No container gets credentials of a role, none is refused room on disk, ports are published on free
    // ones, and there is no proxy: docs/sandbox.md says so.
    ignored: "taskRoleArn executionRoleArn ephemeralStorage enableFaultInjection \
        containerDefinitions.portMappings.hostPort containerDefinitions.portMappings.appProtocol",
    refused: Some(
        "volumes placementConstraints proxyConfiguration inferenceAccelerators pidMode ipcMode \
        trustedExecutionConfiguration \
        containerDefinitions.mountPoints containerDefinitions.volumesFrom \
        containerDefinitions.secrets containerDefinitions.environmentFiles \
        containerDefinitions.links containerDefinitions.firelensConfiguration \
        containerDefinitions.resourceRequirements containerDefinitions.repositoryCredentials \
        containerDefinitions.privileged containerDefinitions.restartPolicy \
        containerDefinitions.ulimits containerDefinitions.linuxParameters \
        containerDefinitions.extraHosts containerDefinitions.hostname \
        containerDefinitions.dnsServers containerDefinitions.dnsSearchDomains \
        containerDefinitions.dockerSecurityOptions containerDefinitions.systemControls \
        containerDefinitions.credentialSpecs containerDefinitions.disableNetworking \
        containerDefinitions.portMappings.containerPortRange \
        containerDefinitions.logConfiguration.secretOptions",
    ),
};
