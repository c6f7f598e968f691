"""Makes one call of ECS for each line of standard input, by boto3.

A line is {"operation": "UpdateService", "input": {…}}; what comes back is the parsed answer, or
{"error": <code>, "message": <text>}.
"""

import json
import sys

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

ecs = boto3.client(
    "ecs",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id="sandbox",
    aws_secret_access_key="sandbox",
    config=Config(retries={"max_attempts": 0}),
)

for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = getattr(ecs, xform_name(asked["operation"]))(**asked["input"])
    except ClientError as refusal:
        error = refusal.response["Error"]
        answer = {"error": error["Code"], "message": error["Message"]}
    print(json.dumps(answer, default=str), flush=True)
