"""Whether a file is a valid OpenAPI document: openapi.py FILE. Prints its version."""

import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

with open(sys.argv[1]) as file:
    document = json.load(file)
OpenAPIV31SpecValidator(document).validate()
print(json.dumps(document["openapi"]))
