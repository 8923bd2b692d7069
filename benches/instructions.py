#!/usr/bin/env python3
"""Count a worker's user-space instructions per request, and fail if they exceed the record by 3 %.

usage: instructions.py [--profile release|dist|pgo] [--permgate PATH] [--record] [ROW...]

Needs valgrind. permgate (target/PROFILE/permgate, or PATH) runs under callgrind between 32 keep-alive clients
and an origin that answers 1 KiB. The difference between a long and a short run is the cost of the requests.
Only the worker's own thread is counted, so the result varies by less than 1 % on any machine.
`instructions.json` beside this file has the last record of each profile. `--record` replaces this profile's
record, for a change that is worth its cost or that saves some.

  release     `cargo build --release`, the usual build
  dist        `cargo build --profile dist`
  pgo         `deploy/pgo`: dist with a recorded profile, the shipped build

  permitted   a token that is granted for the service
  imported    a token that was imported by digest: its text is one block of BLAKE3, not two
  public      a public rule, and a cookie in place of the token: the same proxying without a decision about
              a user
  refused     an unknown token, 401
  logged      as permitted, with the access log on
"""
import argparse, json, pathlib, re, signal, socket, subprocess, sys, tempfile, threading, time

HERE = pathlib.Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
PROFILES = ["release", "dist", "pgo"]
ROWS = ["permitted", "imported", "public", "refused", "logged"]
CLIENTS, SHORT, LONG = 32, 20, 120
MOST = 1.03
SERVICES = 48
IMPORTED = "pg_f09a3a5ae023edbfef219407b13c226ab681fd0a"
UNKNOWN = "pgt_" + "0" * 12 + "_" + "0" * 49
DIGEST = "8fddc84a7a2ec2ef97f9e469457e68953af0807e2edb769f56d23520e0433691"

ANSWER = (b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
          b"Content-Type: application/octet-stream\r\nCache-Control: max-age=60\r\n"
          b"Content-Length: 1024\r\n\r\n" + b"x" * 1024)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--profile", choices=PROFILES, default="release", help="how permgate was built")
    p.add_argument("--permgate", type=pathlib.Path, help="target/PROFILE/permgate unless given")
    p.add_argument("--record", action="store_true")
    p.add_argument("rows", nargs="*", choices=[[], *ROWS])
    given = p.parse_args()
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record = records.setdefault(given.profile, {})
    permgate = (given.permgate or HERE.parent / "target" / given.profile / "permgate").resolve()
    if not permgate.exists():
        sys.exit(f"instructions.py: there is no {permgate}: build it first, see --help")
    worse = []
    with tempfile.TemporaryDirectory() as directory, Origin() as origin:
        bench = Bench(permgate, pathlib.Path(directory), origin.port)
        for row in given.rows or ROWS:
            count, before = bench.count(row), record.get(row)
            told = f"{count / before:.3f} of the {before} on record" if before else "none on record"
            print(f"{given.profile}, {row}: {count} instructions a request, {told}", flush=True)
            if before and count / before > MOST:
                worse.append(row)
            if given.record:
                record[row] = count
    if given.record:
        RECORD.write_text(json.dumps(records, indent=2) + "\n")
    elif worse:
        sys.exit(f"{', '.join(worse)}: more than {MOST:.2f} of what is on record in {RECORD.name}")


class Origin:
    """Answers each request with the same bytes, on one thread per connection."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer):
        have = b""
        while part := peer.recv(65536):
            have += part
            while b"\r\n\r\n" in have:
                have = have.split(b"\r\n\r\n", 1)[1]
                peer.sendall(ANSWER)


class Bench:
    def __init__(self, permgate, directory, origin):
        self.permgate, self.directory, self.origin = permgate, directory, origin
        config = self.config(free(), "off")
        self.offline(config, "user", "create", "alice", "--kind", "service")
        self.offline(config, "group", "create", "readers")
        self.offline(config, "group", "add", "readers", "alice")
        self.token = self.offline(config, "token", "create", "--user", "alice", "--name", "bench", "--scope", "svc07")
        lines = directory / "imported.ndjson"
        lines.write_text(json.dumps({"digest": DIGEST, "owner": "alice", "name": "imported", "scope": ["svc07"]}))
        self.offline(config, "token", "import", lines)

    def config(self, port, access):
        """Writes the configuration; every row has the same rules."""
        text = f"""version = 1
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
[admin]
listen = ["unix:admin.sock"]
[store]
path = "store"
ballast = "64k"
[log]
access = "{access}"
[upstream.origin]
urls = ["http://127.0.0.1:{self.origin}"]
[[public]]
service = "svc00"
prefix = "/svc00/public"
"""
        for name in (f"svc{number:02}" for number in range(SERVICES)):
            text += f'[service.{name}]\nupstream = "origin"\npaths = ["/{name}"]\nreaders = ["readers"]\n'
        path = self.directory / "gateway.toml"
        path.write_text(text)
        return path

    def offline(self, config, *words):
        command = [self.permgate, *words, "--offline", "-c", config]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stderr}")
        return done.stdout.strip()

    def count(self, row):
        others = {"public": None, "refused": UNKNOWN, "imported": IMPORTED}
        token = others.get(row, self.token)
        path = "/svc00/public/1k" if row == "public" else "/svc07/1k"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n"
        head += "Accept-Encoding: identity\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else f"Cookie: session={self.token}\r\n"
        access = "access.log" if row == "logged" else "off"
        status = b"401" if row == "refused" else b"200"
        costs = [self.run((head + "\r\n").encode(), status, access, rounds) for rounds in (SHORT, LONG)]
        return round((costs[1] - costs[0]) / ((LONG - SHORT) * CLIENTS))

    def run(self, request, status, access, rounds):
        port = free()
        config = self.config(port, access)
        out = self.directory / "callgrind.out"
        for old in self.directory.glob("callgrind.out*"):
            old.unlink()
        command = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--separate-threads=yes", f"--callgrind-out-file={out}",
                   self.permgate, "run", "-c", config]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            clients = [connect(port, process) for _ in range(CLIENTS)]
            for _ in range(rounds):
                for client in clients:
                    client.sendall(request)
                for client in clients:
                    take(client, status)
            for client in clients:
                client.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        # The worker is the thread with the highest count.
        return max(total(path) for path in self.directory.glob("callgrind.out-*"))


def total(path):
    """The instructions of the worker's thread; 0 for another thread."""
    text = path.read_text()
    if "permgate::net::serve::" not in text:
        return 0
    return int(re.search(r"^(?:totals|summary): (\d+)", text, re.M)[1])


def connect(port, process):
    late = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < late:
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except OSError:
            time.sleep(0.05)
    sys.exit("permgate does not listen")


def take(client, status):
    have = b""
    while b"\r\n\r\n" not in have:
        have += client.recv(65536)
    head, body = have.split(b"\r\n\r\n", 1)
    if head.split(b" ", 2)[1] != status:
        sys.exit(f"an answer that was not expected: {head}")
    left = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) - len(body)
    while left > 0:
        left -= len(client.recv(left))


def free():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
