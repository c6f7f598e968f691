//! Elastic Load Balancing v2, CloudWatch Logs, CloudWatch, STS.

use super::Operation;

pub(super) const ELBV2: &[Operation] = &[
    Operation::new(
        "CreateLoadBalancer",
        "Name Scheme Type",
        "Subnets SubnetMappings SecurityGroups Tags IpAddressType",
    ),
    Operation::new(
        "DescribeLoadBalancers",
        "LoadBalancerArns Names Marker PageSize",
        "",
    ),
    Operation::new("DeleteLoadBalancer", "LoadBalancerArn", ""),
    Operation::new(
        "CreateListener",
        "LoadBalancerArn Protocol Port DefaultActions.Type DefaultActions.TargetGroupArn \
         DefaultActions.ForwardConfig.TargetGroups",
        "DefaultActions.Order Tags",
    ),
    Operation::new(
        "ModifyListener",
        "ListenerArn Protocol Port DefaultActions.Type DefaultActions.TargetGroupArn \
         DefaultActions.ForwardConfig.TargetGroups",
        "DefaultActions.Order",
    ),
    Operation::new(
        "DescribeListeners",
        "LoadBalancerArn ListenerArns Marker PageSize",
        "",
    ),
    Operation::new("DeleteListener", "ListenerArn", ""),
    Operation::new(
        "CreateTargetGroup",
        "Name Protocol Port HealthCheckProtocol HealthCheckPort HealthCheckEnabled \
         HealthCheckPath HealthCheckIntervalSeconds HealthCheckTimeoutSeconds \
         HealthyThresholdCount UnhealthyThresholdCount Matcher.HttpCode TargetType",
        "VpcId Tags IpAddressType",
    ),
    Operation::new(
        "ModifyTargetGroup",
        "TargetGroupArn HealthCheckProtocol HealthCheckPort HealthCheckEnabled HealthCheckPath \
         HealthCheckIntervalSeconds HealthCheckTimeoutSeconds HealthyThresholdCount \
         UnhealthyThresholdCount Matcher.HttpCode",
        "",
    ),
    Operation::new(
        "DescribeTargetGroups",
        "LoadBalancerArn TargetGroupArns Names Marker PageSize",
        "",
    ),
    Operation::new("DeleteTargetGroup", "TargetGroupArn", ""),
    Operation::new("DescribeTargetGroupAttributes", "TargetGroupArn", ""),
    Operation::new(
        "ModifyTargetGroupAttributes",
        "TargetGroupArn Attributes",
        "",
    ),
    Operation::new(
        "DescribeTargetHealth",
        "TargetGroupArn Targets.Id Targets.Port",
        "Targets.AvailabilityZone",
    ),
];

pub(super) const LOGS: &[Operation] = &[
    Operation::new(
        "DescribeLogGroups",
        "logGroupNamePrefix nextToken limit",
        "",
    ),
    Operation::new(
        "DescribeLogStreams",
        "logGroupName logGroupIdentifier logStreamNamePrefix orderBy descending nextToken limit",
        "",
    ),
    Operation::new(
        "GetLogEvents",
        "logGroupName logGroupIdentifier logStreamName startTime endTime nextToken limit \
         startFromHead",
        "unmask",
    ),
    Operation::new(
        "FilterLogEvents",
        "logGroupName logGroupIdentifier logStreamNames logStreamNamePrefix startTime endTime \
         filterPattern nextToken limit",
        "interleaved unmask",
    ),
];

/// No metric is ever looked at, so what an alarm would compute is shown and nothing else; how far
/// back it looks bounds the bake of deployments.
pub(super) const CLOUDWATCH: &[Operation] = &[
    Operation::new(
        "PutMetricAlarm",
        "AlarmName Period EvaluationPeriods",
        "AlarmDescription ActionsEnabled OKActions AlarmActions InsufficientDataActions \
         MetricName Namespace Statistic ExtendedStatistic Dimensions Unit DatapointsToAlarm \
         Threshold ComparisonOperator TreatMissingData EvaluateLowSampleCountPercentile Metrics \
         ThresholdMetricId Tags",
    ),
    Operation::new(
        "DescribeAlarms",
        "AlarmNames AlarmNamePrefix AlarmTypes StateValue ActionPrefix MaxRecords NextToken",
        "",
    ),
    Operation::new(
        "SetAlarmState",
        "AlarmName StateValue StateReason StateReasonData",
        "",
    ),
    Operation::new("DeleteAlarms", "AlarmNames", ""),
];

pub(super) const STS: &[Operation] = &[
    Operation::new("GetCallerIdentity", "", ""),
    Operation::new(
        "AssumeRole",
        "RoleArn RoleSessionName DurationSeconds",
        "Tags TransitiveTagKeys ExternalId SourceIdentity",
    ),
];
