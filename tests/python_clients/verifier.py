"""Runs the verifier of docs/forwarding.md with PyJWT; only address and algorithm are replaced.

`verifier.py PAGE KEYS_URL ALGORITHM` reads lines of JSON, each `[method, path, assertion]`, and prints for each
the login, or the name of the exception.
"""

import base64
import hashlib
import json
import sys
from types import SimpleNamespace

import jwt

page, keys_url, algorithm = sys.argv[1:]
blocks = open(page, encoding="utf-8").read().split("```python\n")[1:]
[shown] = [block.split("```")[0] for block in blocks if "PyJWKClient" in block]
name = "https://gateway.example.com/.permgate/jwks.json"
assert name in shown
verifier = {"base64": base64, "hashlib": hashlib, "jwt": jwt}
exec(shown.replace(name, keys_url).replace("EdDSA", algorithm), verifier)

for line in sys.stdin:
    method, path, assertion = json.loads(line)
    request = SimpleNamespace(
        method=method, path_as_received=path, headers={"X-Permgate-Assertion": assertion}
    )
    try:
        print(verifier["caller"](request)["login"])
    except Exception as error:
        print(type(error).__name__)
