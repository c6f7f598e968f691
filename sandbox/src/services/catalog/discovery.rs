//! AWS Cloud Map.

use super::Operation;

/// Without routing policy: a name leads to every task behind it, in an order that changes.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new(
        "CreateHttpNamespace",
        "Name CreatorRequestId Tags",
        "Description",
    ),
    Operation::new(
        "CreatePrivateDnsNamespace",
        "Name CreatorRequestId Tags",
        "Vpc Description Properties",
    ),
    Operation::new("GetNamespace", "Id", ""),
    Operation::new(
        "ListNamespaces",
        "Filters.Name Filters.Values Filters.Condition NextToken MaxResults",
        "",
    ),
    Operation::new("DeleteNamespace", "Id", ""),
    Operation::new("GetOperation", "OperationId", "OwnerAccount"),
    Operation::new(
        "CreateService",
        "Name NamespaceId CreatorRequestId DnsConfig.NamespaceId DnsConfig.DnsRecords.Type \
         HealthCheckCustomConfig Tags",
        "Description DnsConfig.RoutingPolicy DnsConfig.DnsRecords.TTL Type",
    ),
    Operation::new("GetService", "Id", ""),
    Operation::new(
        "ListServices",
        "Filters.Name Filters.Values Filters.Condition NextToken MaxResults",
        "",
    ),
    Operation::new("DeleteService", "Id", ""),
    Operation::new("ListInstances", "ServiceId NextToken MaxResults", ""),
    Operation::new(
        "GetInstancesHealthStatus",
        "ServiceId Instances MaxResults NextToken",
        "",
    ),
    Operation::new(
        "DiscoverInstances",
        "NamespaceName ServiceName MaxResults HealthStatus",
        "OwnerAccount",
    ),
    Operation::new("TagResource", "ResourceARN Tags", ""),
    Operation::new("UntagResource", "ResourceARN TagKeys", ""),
    Operation::new("ListTagsForResource", "ResourceARN", ""),
];
