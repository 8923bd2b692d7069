#!/usr/bin/env python3
"""Record a profile of permgate for an optimised build; deploy/pgo runs this.

usage: profile.py --permgate PATH --output PROFDATA
       profile.py --check

PATH is a permgate that was built with counters (-Cprofile-generate). It gets a typical load, and work that is
rare but must be fast; its counters are merged into PROFDATA. `--check` only checks that the requirements are
installed.

Needs h2load, openssl, and llvm-profdata of LLVM 19 or later (rustup component add llvm-tools, or a
distribution's llvm).
"""
import argparse, hashlib, http.client, json, os, pathlib, re, shutil, signal, socket, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

from instructions import ANSWER, UNKNOWN, Bench, Origin, connect, free, take

OLDEST_LLVM = 19
TOKENS, WRITERS = 100_000, 8
ALLOWED = "/svc07/1k"
MEGABYTE = ANSWER.replace(b"Content-Length: 1024", b"Content-Length: 1048576")[:-1024] + b"x" * (1 << 20)
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n" + 4 * (b"100\r\n" + b"x" * 256 + b"\r\n") + b"0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\n" + CHUNKS
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--permgate", type=pathlib.Path, help="built with counters")
    p.add_argument("--output", type=pathlib.Path, help="where the profile is written")
    p.add_argument("--check", action="store_true", help="only tell whether what is needed is there")
    given = p.parse_args()
    if not given.check and not (given.permgate and given.output):
        p.error("--permgate and --output are required")
    llvm_profdata = find_llvm_profdata()
    for tool in ("h2load", "openssl"):
        if not shutil.which(tool):
            sys.exit(f"profile.py: {tool} is not installed")
    if given.check:
        return
    with tempfile.TemporaryDirectory() as directory, Upstream() as upstream:
        directory = pathlib.Path(directory)
        os.environ["LLVM_PROFILE_FILE"] = str(directory / "%p-%m.profraw")
        gateway = Gateway(given.permgate.resolve(), directory, upstream.port)
        gateway.serve("off", everyday)
        gateway.serve("access.log", logged)
        counts = list(directory.glob("*.profraw"))
        if not counts:
            sys.exit(f"profile.py: {given.permgate} has counted nothing: was it built with -Cprofile-generate?")
        subprocess.run([llvm_profdata, "merge", "--sparse", "-o", given.output, *counts], check=True)
    print(f"{given.output}: {given.output.stat().st_size >> 10} KiB")


def find_llvm_profdata():
    """The compiler's llvm-profdata, else one that is new enough to read the compiler's counters."""
    libraries = subprocess.run(["rustc", "--print", "target-libdir"], capture_output=True, text=True, check=True)
    bundled = pathlib.Path(libraries.stdout.strip()).parent / "bin/llvm-profdata"
    if bundled.exists():
        return bundled
    for name in [*(f"llvm-profdata-{version}" for version in range(40, OLDEST_LLVM - 1, -1)), "llvm-profdata"]:
        if (path := shutil.which(name)) and llvm_version(path) >= OLDEST_LLVM:
            return path
    sys.exit(f"profile.py: there is no llvm-profdata of LLVM {OLDEST_LLVM} or later: "
             "run `rustup component add llvm-tools`, or install a distribution's llvm")


def llvm_version(llvm_profdata):
    """The major version; 0 if it is not printed."""
    said = subprocess.run([llvm_profdata, "merge", "--version"], capture_output=True, text=True)
    version = re.search(r"LLVM version (\d+)", said.stdout)
    return int(version[1]) if version else 0


def everyday(gateway):
    gateway.load(ALLOWED, requests=40_000)
    gateway.load("/svc00/public/1k", requests=5_000)
    gateway.load(ALLOWED, requests=15_000, known=False)
    gateway.load("/svc09/1k", requests=3_000)
    gateway.load("/svc07/chunked", requests=5_000)
    gateway.load(ALLOWED, "--data", str(gateway.body), requests=5_000)
    gateway.load("/svc07/1m", "-c", "8", requests=400)
    gateway.load(ALLOWED, "--h1", secure=True, requests=15_000)
    gateway.load(ALLOWED, "-m", "32", "-c", "16", secure=True, requests=40_000)
    gateway.load(ALLOWED, "-m", "8", "--data", str(gateway.body), secure=True, requests=3_000)
    for _ in range(20):
        gateway.load(ALLOWED, "--h1", "-c", "50", secure=True, requests=50)
    gateway.send_chunks(2_000)
    gateway.switch_protocols(5_000)
    gateway.write(250)


def logged(gateway):
    gateway.load(ALLOWED, requests=10_000)


class Upstream(Origin):
    """Answers by the last segment of the path."""

    def answer(self, peer):
        reader = peer.makefile("rb")
        while line := reader.readline():
            path, fields = line.split()[1], {}
            while (field := reader.readline()) != b"\r\n":
                name, value = field.split(b":", 1)
                fields[name.lower()] = value.strip()
            reader.read(int(fields.get(b"content-length", 0)))
            if fields.get(b"transfer-encoding"):
                while size := int(reader.readline(), 16):
                    reader.read(size + 2)
                reader.readline()
            if fields.get(b"upgrade"):
                peer.sendall(SWITCHED)
                while part := peer.recv(65536):
                    peer.sendall(part)
                peer.shutdown(socket.SHUT_RDWR)
                return
            kinds = {b"1m": MEGABYTE, b"chunked": CHUNKED}
            peer.sendall(kinds.get(path.rsplit(b"/", 1)[1], ANSWER))


class Gateway(Bench):
    def __init__(self, permgate, directory, origin):
        certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
                       "-keyout", directory / "tls.key", "-out", directory / "tls.crt"]
        subprocess.run(certificate, check=True, stderr=subprocess.DEVNULL)
        self.secure = free()
        super().__init__(permgate, directory, origin)
        self.body = directory / "body"
        self.body.write_bytes(b"x" * 4096)
        lines = [{"digest": hashlib.sha256(b"%d" % number).hexdigest(), "owner": f"user{number % 1000}",
                  "name": f"token {number}", "scope": ["svc07", "svc08"]} for number in range(TOKENS)]
        accounts = directory / "accounts.ndjson"
        accounts.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.offline(directory / "gateway.toml", "token", "import", "--make-owners", accounts)

    def config(self, port, access):
        path = super().config(port, access)
        listen = f'listen = ["http://127.0.0.1:{port}", "https://127.0.0.1:{self.secure}"]'
        pair = 'tls = { cert = "tls.crt", key = "tls.key" }\n[tokens]\nmax_per_user = 1000000'
        text = path.read_text().replace(f'listen = ["127.0.0.1:{port}"]', listen)
        path.write_text(text.replace("workers = 1", f"workers = 1\n{pair}"))
        return path

    def serve(self, access, work):
        self.port = free()
        process = subprocess.Popen([self.permgate, "run", "-c", self.config(self.port, access)],
                                   cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connect(self.port, process).close()
            work(self)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def load(self, path, *options, requests, known=True, secure=False):
        """Runs h2load. Later options override earlier ones of the same name."""
        url = f"https://127.0.0.1:{self.secure}{path}" if secure else f"http://127.0.0.1:{self.port}{path}"
        token = self.token if known else UNKNOWN
        command = ["h2load", "-c", "32", "-n", str(requests), *([] if secure else ["--h1"]), *options,
                   "-H", f"authorization: Bearer {token}", url]
        done = subprocess.run(command, capture_output=True, text=True)
        if f"{requests} done" not in done.stdout:
            sys.exit(f"{' '.join(command[:-3])}: {done.stdout}{done.stderr}")

    def head(self, method):
        return f"{method} {ALLOWED} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n".encode()

    def send_chunks(self, requests):
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            for _ in range(requests):
                client.sendall(self.head("POST") + CHUNKS)
                take(client, b"200")

    def switch_protocols(self, messages):
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(self.head("GET") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            client.recv(65536)
            for _ in range(messages):
                client.sendall(b"x" * 125)
                client.recv(65536)

    def write(self, tokens):
        """Creates and revokes tokens, with several writers at once."""
        with ThreadPoolExecutor(WRITERS) as pool:
            # Taking the results raises the threads' errors.
            list(pool.map(self.write_one_by_one, range(WRITERS), [tokens] * WRITERS))

    def write_one_by_one(self, writer, tokens):
        client = http.client.HTTPConnection("localhost")
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.connect(str(self.directory / "admin.sock"))
        for number in range(tokens):
            body = json.dumps({"name": f"{writer} {number}", "scope": [{"service": "svc07"}]})
            client.request("POST", "/v1/users/alice/tokens", body, {"Content-Type": "application/json"})
            made = client.getresponse()
            told = json.load(made)
            if made.status != 201:
                sys.exit(f"a token was not made: {told}")
            client.request("DELETE", f"/v1/tokens/{told['id']}")
            revoked = client.getresponse()
            told = json.load(revoked)
            if revoked.status != 200:
                sys.exit(f"a token was not revoked: {told}")


main()
