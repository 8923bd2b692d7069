#!/usr/bin/env python3
"""Create a permgate store and gateway.toml from the data that the peers are measured with.

usage: import_peer_data.py DATA OUT [PERMGATE]

DATA holds digests.tsv (digest, scope bits, user; hexadecimal), users.tsv (line n: bits of the services that
user n may read) and prefixes.tsv (prefix, service number). It writes to OUT:

  import.ndjson   users, one group of readers per service, tokens by digest
  gateway.toml    the 48 services, with placeholders that a run fills in: @PORT@, @ORIGIN@ and @RUN@, and
                  @TLS_LISTEN@ and @TLS_PAIR@ for an optional second address with TLS
  start.sh        fills in the placeholders and runs permgate
  data/           the store, imported with `PERMGATE token import --offline`

and prints the argument for `bench.py --extra`.
"""
import json, pathlib, shutil, subprocess, sys

START = """#!/bin/sh
# usage: start.sh PORT ORIGIN RUN [TLS_PORT CERT KEY]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$3"
listen= pair=
if [ $# -gt 3 ]; then
  listen=", 'https://127.0.0.1:$4'"
  pair="tls = {{ cert = '$5', key = '$6' }}"
fi
sed -e "s#@PORT@#$1#g" -e "s#@ORIGIN@#$2#g" -e "s#@RUN@#$3#g" -e "s#@TLS_LISTEN@#$listen#g" \\
  -e "s#@TLS_PAIR@#$pair#g" "$here/gateway.toml" > "$3/gateway.toml"
exec {permgate} run -c "$3/gateway.toml"
"""


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    data, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    default = pathlib.Path(__file__).resolve().parent.parent / "target/release/permgate"
    permgate = pathlib.Path(sys.argv[3]).resolve() if len(sys.argv) == 4 else default
    out.mkdir(parents=True, exist_ok=True)

    prefixes = {}
    for line in (data / "prefixes.tsv").read_text().splitlines():
        prefix, service = line.split("\t")
        prefixes.setdefault(int(service), []).append(prefix.rstrip("/"))
    users = [int(line, 16) for line in (data / "users.tsv").read_text().split()]

    write_config(out / "gateway.toml", prefixes, out / "data")
    write_import(out / "import.ndjson", data / "digests.tsv", users, sorted(prefixes))
    start = out / "start.sh"
    start.write_text(START.format(permgate=permgate))
    start.chmod(0o755)

    # `token import` reads the services from a complete configuration.
    whole = out / "import.toml"
    text = (out / "gateway.toml").read_text()
    filled = {"@PORT@": "0", "@ORIGIN@": "1", "@RUN@": str(out), "@TLS_LISTEN@": "", "@TLS_PAIR@": ""}
    for place, value in filled.items():
        text = text.replace(place, value)
    whole.write_text(text)
    shutil.rmtree(out / "data", ignore_errors=True)
    command = [permgate, "token", "import", "--offline", "--make-owners", "-c", whole, out / "import.ndjson"]
    subprocess.run(command, check=True, stdout=sys.stderr)

    # Only one process can open the store, so each run has one target.
    print(f"name=permgate;auth=1;cmd={start} @PORT@ @ORIGIN@ @RUN@ @TLS@ @CERT@ @KEY@")


def write_config(path, prefixes, store):
    lines = [
        "version = 1", "",
        "[server]", 'listen = ["http://127.0.0.1:@PORT@"@TLS_LISTEN@]', "@TLS_PAIR@", "workers = 1", "",
        "[admin]", 'listen = ["unix:@RUN@/admin.sock"]', "",
        "[store]", f"path = {json.dumps(str(store))}", "",
        "[log]", 'access = "off"', "",
        "[upstream.origin]", 'urls = ["http://127.0.0.1:@ORIGIN@"]',
    ]
    for service in sorted(prefixes):
        name = f"svc{service:02}"
        lines += [
            "", f"[service.{name}]", f'title = "{name}"', 'upstream = "origin"',
            f"paths = {json.dumps(prefixes[service])}", f'readers = ["{name}-readers"]',
        ]
    path.write_text("\n".join(lines) + "\n")


def write_import(path, digests, users, services):
    with open(path, "w") as out:
        for number in range(len(users)):
            out.write(json.dumps({"user": login(number), "kind": "service"}) + "\n")
        for service in services:
            members = [login(n) for n, bits in enumerate(users) if bits >> service & 1]
            # Lines have a maximum length, so a large group takes several.
            for at in range(0, max(1, len(members)), 1000):
                out.write(json.dumps({"group": f"svc{service:02}-readers", "members": members[at:at + 1000]}) + "\n")
        words = {}
        with open(digests) as rows:
            for number, row in enumerate(rows):
                digest, bits, user = row.split("\t")
                bits = int(bits, 16)
                if bits not in words:
                    words[bits] = json.dumps([f"svc{s:02}" for s in services if bits >> s & 1])
                out.write(f'{{"digest": "{digest}", "owner": "{login(int(user, 16))}", '
                          f'"name": "token {number}", "scope": {words[bits]}}}\n')


def login(number):
    return f"user{number:04}"


main()
