//! Amazon ECR.

use super::Operation;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("GetAuthorizationToken", "", "registryIds"),
    Operation::new(
        "CreateRepository",
        "repositoryName imageTagMutability imageTagMutabilityExclusionFilters registryId",
        "tags imageScanningConfiguration encryptionConfiguration",
    ),
    Operation::new(
        "DescribeRepositories",
        "repositoryNames nextToken maxResults registryId",
        "",
    ),
    Operation::new("DeleteRepository", "repositoryName force registryId", ""),
    Operation::new(
        "PutImageTagMutability",
        "repositoryName imageTagMutability imageTagMutabilityExclusionFilters registryId",
        "",
    ),
    Operation::new(
        "DescribeImages",
        "repositoryName imageIds nextToken maxResults filter.tagStatus registryId",
        "",
    ),
    Operation::new(
        "ListImages",
        "repositoryName nextToken maxResults filter.tagStatus registryId",
        "",
    ),
    Operation::new(
        "BatchGetImage",
        "repositoryName imageIds registryId",
        "acceptedMediaTypes",
    ),
    Operation::new("StartImageScan", "repositoryName imageId registryId", ""),
    Operation::new(
        "DescribeImageScanFindings",
        "repositoryName imageId nextToken maxResults registryId",
        "",
    ),
    // A policy is kept and shown; no image expires by it.
    Operation::new(
        "PutLifecyclePolicy",
        "repositoryName registryId",
        "lifecyclePolicyText",
    ),
    Operation::new("GetLifecyclePolicy", "repositoryName registryId", ""),
    Operation::new("DeleteLifecyclePolicy", "repositoryName registryId", ""),
    Operation::new("BatchDeleteImage", "repositoryName imageIds registryId", ""),
];
