"""What the sandbox takes of AWS's API, as a page of documentation.

Reads the sandbox's lists (JSON of `roadstead_sandbox::catalog`) from standard input, holds them
against the API models that ship with botocore, and prints the page. Ends with 1 when a list names
what the model does not have, or leaves out what it has to decide about.
"""

import json
import sys

import botocore
import botocore.session
from members import ALWAYS, SOMETIMES

TITLES = {
    "ecs": "Amazon ECS",
    "ecr": "Amazon ECR",
    "elbv2": "Elastic Load Balancing v2",
    "logs": "CloudWatch Logs",
    "cloudwatch": "CloudWatch",
    "sts": "STS",
    "servicediscovery": "AWS Cloud Map",
}

HEAD = """# What the sandbox takes of AWS's API

Made by a test from the sandbox's own lists (`sandbox/src/services/catalog`) and the API models of
botocore {version}: `cargo test --package roadstead-sandbox --test api_table` says when it is no
longer true, and with `UPDATE_DOCS=1` writes it anew.

A member is **honoured**: it has the effect that it has at AWS. Or it is **ignored**: taken, where AWS
shows it shown again, and without effect here. Anything else is **refused** with
`UnsupportedFeatureException` and its name, as is a value of an honoured member that the sandbox cannot
honour ([which](sandbox.md#what-it-refuses)). Members that say nothing (null, false, zero, empty) pass.
`roadstead sandbox --lenient` ignores refused members, and names them in its log.

`a.b` is a member of the structure `a` or of each structure in the list `a`; a name without such a
continuation stands for all there is inside.

What answers have is told by structure, as the API models name them: members that are always there, those that are
there when there is something to say, and those that no answer of the tests had (`sandbox/tests/clients/members.py`).
Tests hold every answer against these lists, and the last of them finds listed members that no answer had. A task
definition shows whatever was registered. An answer that is not listed has no members.
"""


def structure(shape):
    """The structure that a shape is, or that a list is of; None for anything else."""
    while shape.type_name == "list":
        shape = shape.member
    return shape if shape.type_name == "structure" else None


def exists(shape, path):
    for part in path.split("."):
        shape = structure(shape) if shape is not None else None
        if shape is None or part not in shape.members:
            return False
        shape = shape.members[part]
    return True


def unlisted(shape, listed, prefix="", within=()):
    """The highest members of a structure that no list decides about."""
    found = []
    for name, member in shape.members.items():
        path = prefix + name
        if path in listed:
            continue
        inner = structure(member)
        if any(other.startswith(path + ".") for other in listed) and inner is not None:
            found += unlisted(inner, listed, path + ".", within + (shape.name,))
        else:
            found.append(path)
    return found


def answered(service, model, wrong):
    """The table of what answers have."""
    lines = ["\n| in answers | always | when there is something to say | in no test |", "|---|---|---|---|"]
    own = {name for name in ALWAYS.keys() | SOMETIMES.keys() if name.split()[0] == service}
    for name in sorted(own):
        shape = model.shape_for(name.split()[1])
        sometimes = SOMETIMES.get(name, "").split()
        always = ALWAYS.get(name, "").split()
        always += [member for member in shape.required_members if member not in always]
        for member in always + sometimes:
            if member not in shape.members:
                wrong.append(f"{name}: the model has no member {member}")
        others = [one for one in shape.members if one not in always and one not in sometimes]
        columns = " | ".join(cell(members) for members in (always, sometimes, others))
        lines.append(f"| `{shape.name}` | {columns} |")
    return lines


def cell(paths):
    return ", ".join(f"`{path}`" for path in paths) or "–"


def main():
    catalog = json.load(sys.stdin)
    session = botocore.session.Session()
    wrong = []
    page = [HEAD.format(version=botocore.__version__)]
    for service, title in TITLES.items():
        model = session.get_service_model(service)
        listed = catalog[service]
        page.append(f"\n## {title}\n\nAPI version {model.api_version}.\n")
        page.append("| operation | honoured | ignored | refused |")
        page.append("|---|---|---|---|")
        for operation in model.operation_names:
            entry = listed.get(operation)
            if entry is None:
                continue
            members = entry["members"]
            shape = model.operation_model(operation).input_shape
            for path in members:
                if shape is None or not exists(shape, path):
                    wrong.append(f"{service} {operation}: the model has no member {path}")
            by = {"honoured": [], "ignored": [], "refused": []}
            for path, treatment in members.items():
                by[treatment].append(path)
            rest = unlisted(shape, members) if shape is not None else []
            if entry["open"]:
                wrong += [f"{service} {operation}: {path} is in no list" for path in rest]
            by["refused"] += rest
            columns = " | ".join(cell(by[one]) for one in ("honoured", "ignored", "refused"))
            page.append(f"| `{operation}` | {columns} |")
        for operation in listed:
            if operation not in model.operation_names:
                wrong.append(f"{service}: the model has no operation {operation}")
        others = [f"`{one}`" for one in model.operation_names if one not in listed]
        page.append(f"\nRefused, all of them: {', '.join(others) or 'none'}.")
        page += answered(service, model, wrong)
    print("\n".join(page))
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
