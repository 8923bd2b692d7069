"""The upstream of these tests. Arguments: the mode and a directory. The first line of output is the port.

files: static files, and JSON for an API of crates. git: `git http-backend`. state: Terraform's state.
kubernetes: an API server without pods. websocket: a page, and a socket that echoes its handshake."""

import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys

mode, directory = sys.argv[1], sys.argv[2]


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=directory)

    def log_message(self, *arguments):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, body, kind="application/json", more=()):
        self.send_response(status)
        for name, value in [("Content-Type", kind), ("Content-Length", str(len(body))), *more]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def git(self):
        path, _, query = self.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": directory,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path.removeprefix("/git"),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": self.headers.get("X-Permgate-User", ""),
        }
        command = ["git", "http-backend"]
        told = subprocess.run(command, input=self.body(), env=environment, capture_output=True).stdout
        head, _, body = told.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in fields if name == "Status"), "200 OK")
        kind = next((value for name, value in fields if name == "Content-Type"), "text/plain")
        self.answer(int(status.split()[0]), body, kind)

    def state(self):
        place, body = os.path.join(directory, "state"), self.body()
        if self.command in ("LOCK", "UNLOCK"):
            self.answer(200, b"")
        elif self.command == "POST":
            with open(place, "wb") as file:
                file.write(body)
            self.answer(200, b"")
        elif os.path.exists(place):
            with open(place, "rb") as file:
                self.answer(200, file.read())
        else:
            self.answer(404, b"")

    def kubernetes(self):
        path = self.path.partition("?")[0]
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
        known = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]},
            "/api/v1/namespaces/default/pods": {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []},
        }
        self.answer(200 if path in known else 404, json.dumps(known.get(path, {})).encode())

    def websocket(self):
        if self.headers.get("Upgrade") != "websocket":
            self.answer(200, b"<title>page</title>", "text/html")
            return
        protocols = self.headers["Sec-WebSocket-Protocol"]
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, value in [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept),
                            ("Sec-WebSocket-Protocol", protocols.split(",")[0].strip())]:
            self.send_header(name, value)
        self.end_headers()
        said = f"{self.headers.get('X-Permgate-User')}: {protocols}".encode()
        self.wfile.write(bytes([0x81, len(said)]) + said)
        self.rfile.read(1)
        self.close_connection = True

    def publish(self):
        # https://doc.rust-lang.org/cargo/reference/registry-web-api.html#publish
        body = self.body()
        size = int.from_bytes(body[:4], "little")
        about, archive = json.loads(body[4 : 4 + size]), body[8 + size :]
        name, version = about["name"], about["vers"]
        with open(os.path.join(directory, "crates", f"{name}-{version}.crate"), "wb") as file:
            file.write(archive)
        entry = {"name": name, "vers": version, "deps": [], "features": {}, "yanked": False,
                 "cksum": hashlib.sha256(archive).hexdigest()}
        place = os.path.join(directory, "index", name[:2], name[2:4])
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, name), "w") as file:
            print(json.dumps(entry), file=file)
        self.answer(200, b'{"warnings": {"invalid_categories": [], "invalid_badges": [], "other": []}}')

    def every(self):
        if mode != "files":
            getattr(self, mode)()
        elif self.path.startswith("/api/v1/crates?"):
            crate = {"name": "gated", "max_version": "1.0.0", "description": "behind the gateway"}
            self.answer(200, json.dumps({"crates": [crate], "meta": {"total": 1}}).encode())
        elif self.path == "/api/v1/crates/new":
            self.publish()
        elif self.path.startswith("/api/v1/crates/"):
            self.body()
            self.answer(200, b'{"ok": true}')
        elif self.command == "HEAD":
            super().do_HEAD()
        else:
            super().do_GET()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_LOCK = do_UNLOCK = every


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
