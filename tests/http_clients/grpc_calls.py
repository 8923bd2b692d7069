"""A gRPC service behind the gateway, and its clients. They exchange bytes without a schema.

`grpc_calls.py serve` prints its port. `grpc_calls.py call TARGET CERTIFICATE TOKEN METHOD` prints the
results of the calls; METHOD `/api/Endless` prints a line for each message until the stream ends.
"""

import sys
import time
from concurrent import futures

import grpc


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/api/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/api/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/api/Echo": grpc.stream_stream_rpc_method_handler(self.echo),
            "/api/Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "/api/Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "/api/Endless": grpc.unary_stream_rpc_method_handler(self.endless),
        }.get(details.method)

    def unary(self, request, context):
        told = dict(context.invocation_metadata())
        assert "authorization" not in told
        context.set_trailing_metadata((("x-user", told["x-permgate-user"]),))
        return request + b"!"

    def count(self, request, context):
        for number in range(int(request)):
            yield str(number).encode() * 1000

    def echo(self, requests, context):
        for request in requests:
            yield request

    def slow(self, request, context):
        time.sleep(5)
        return b""

    def fails(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ö")

    def endless(self, request, context):
        while context.is_active():
            yield b"tick"
            time.sleep(0.05)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Service(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def outcome(call):
    try:
        return call()
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


def call(target, certificate, token, method):
    credentials = grpc.ssl_channel_credentials(open(certificate, "rb").read())
    metadata = [("authorization", "Bearer " + token)] if token else []
    with grpc.secure_channel(target, credentials) as channel:
        if method == "/api/Endless":

            def ticks():
                for message in channel.unary_stream(method)(b"", metadata=metadata, timeout=60):
                    print(message.decode(), flush=True)

            return print(outcome(ticks))
        if method != "all":
            return print(outcome(lambda: channel.unary_unary(method)(b"", metadata=metadata, timeout=10)))

        def unary():
            answer, ended = channel.unary_unary("/api/Unary").with_call(b"hi", metadata=metadata, timeout=10)
            return answer.decode(), dict(ended.trailing_metadata()).get("x-user")

        def count():
            return len(list(channel.unary_stream("/api/Count")(b"100", metadata=metadata, timeout=10)))

        def echo():
            asked = (str(number).encode() for number in range(50))
            calls = channel.stream_stream("/api/Echo")(asked, metadata=metadata, timeout=10)
            return b",".join(calls).decode() == ",".join(map(str, range(50)))

        def turns():
            # Each message is sent only after the response to the previous one.
            answers, turn = iter(()), []

            def asked():
                yield b"0"
                for number in range(1, 5):
                    while len(turn) < number:
                        time.sleep(0.01)
                    yield str(number).encode()

            for answer in channel.stream_stream("/api/Echo")(asked(), metadata=metadata, timeout=10):
                turn.append(answer)
            return len(turn)

        def late():
            return channel.unary_unary("/api/Slow")(b"", metadata=metadata, timeout=0.3)

        def fails():
            return channel.unary_unary("/api/Fails")(b"", metadata=metadata, timeout=10)

        for what in (unary, count, echo, turns, late, fails):
            print(what.__name__, outcome(what), flush=True)


serve() if sys.argv[1] == "serve" else call(*sys.argv[2:])
