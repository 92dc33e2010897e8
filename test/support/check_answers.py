"""Holds answers against an OpenAPI 3.1 document. Input: {document, answers: [{pointer, value}]} as JSON; `pointer` leads to
a schema of the document. Output: a JSON array with what is wrong with each answer, null where nothing is."""

import json
import sys

from jsonschema import Draft202012Validator

given = json.load(sys.stdin)
document = given["document"]
for schema in document["components"]["schemas"].values():
    Draft202012Validator.check_schema(schema)


def problem(answer):
    # References inside a schema begin at the document's root.
    validator = Draft202012Validator({**document, "$ref": answer["pointer"]})
    return next((f"{error.json_path}: {error.message}" for error in validator.iter_errors(answer["value"])), None)


print(json.dumps([problem(answer) for answer in given["answers"]]))
