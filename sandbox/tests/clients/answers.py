"""Holds every answer in a call log against the API models that ship with botocore.

Usage: answers.py calls.jsonl FOLDER

An answer must have no member that the model does not have, values of the model's types, no value
outside an enumeration, the members that AWS's documentation promises, and none that `members.py`
does not list. A refusal must be one that the model or the documentation of common errors knows. Ends
with 1 when one does not hold. The members that were seen go into a file of their own in the folder,
for `members.py` to find out what never was.
"""

import json
import os
import sys
import uuid
import xml.etree.ElementTree as ElementTree

import botocore.session
from members import ALWAYS, SOMETIMES

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
        # By service and structure.
        self.seen = {}

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
        name = f"{path.split()[0]} {shape.name}"
        given = {member for member, item in value.items() if item is not None}
        self.seen.setdefault(name, set()).update(given)
        promised = set(shape.required_members) | set(ALWAYS.get(name, "").split())
        listed = promised | set(SOMETIMES.get(name, "").split())
        if shape.name == "Task" and value.get("lastStatus") == "STOPPED":
            promised |= set(STOPPED.split())
        for member in sorted(promised - given):
            self.say(path, f"{shape.name} has no {member}")
        for member in sorted(given - listed):
            self.say(path, f"members.py does not list {member} of {name}")

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
    seen = {name: sorted(members) for name, members in check.seen.items()}
    folder = sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{uuid.uuid4()}.json"), "w", encoding="utf-8") as file:
        json.dump(seen, file)
    sys.exit(1 if check.wrong else 0)


main()
