"""What the tests talk to Rolecall with. Nothing here knows its API but by reflection: grpcio builds
its messages from the descriptors that the server hands out, grpcurl does so by itself. Mails arrive
at aiosmtpd, a real SMTP server."""

import email
import email.policy
import html
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import grpc
from aiosmtpd.controller import Controller
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

# Generous, because the machines that run this are slow and shared.
PATIENCE = 60


class Refused(Exception):
    """An error of the server, with its typed details."""

    def __init__(self, code, message, details):
        super().__init__(f"{code}: {message} {details}")
        self.code, self.message, self.details = code, message, details

    def detail(self, kind):
        """The detail of a kind, such as `ErrorInfo`; empty when there is none."""
        found = [d for d in self.details if d["@type"].endswith("google.rpc." + kind)]
        return found[0] if found else {}

    @property
    def reason(self):
        return self.detail("ErrorInfo").get("reason", "")


class Mailbox:
    """An SMTP server that keeps what it is given."""

    def __init__(self):
        self.messages = []
        self._arrived = threading.Condition()
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())
        self._controller.start()
        self.url = f"smtp://127.0.0.1:{self._controller.port}"

    async def handle_DATA(self, server, session, envelope):
        message = parse(envelope)
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()
        return "250 2.0.0 taken"

    def to(self, address):
        return [m for m in self.messages if address in m.recipients]

    def wait_for(self, address, count=1):
        """The newest mail to an address, once that many have arrived."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.to(address)) >= count, PATIENCE)
        have = [m.recipients for m in self.messages]
        assert arrived, f"no mail {count} to {address} in {PATIENCE} s; there are {have}"
        return self.to(address)[-1]

    def stop(self):
        self._controller.stop()


def parse(envelope):
    """The mail in an envelope, and to whom it goes."""
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    message.recipients = [address.lower() for address in envelope.rcpt_tos]
    return message


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def body(message, kind):
    """The text of a mail's part, `plain` or `html`."""
    part = message.get_body(preferencelist=(kind,))
    assert part is not None, f"the mail has no part text/{kind}: {message}"
    return part.get_content()


def link(message, page="invitations"):
    """The link of a mail to such a page and its token; the same in both parts."""
    texts = body(message, "plain"), html.unescape(body(message, "html"))
    pattern = rf"https?://\S+?/{page}/rc[a-z]_[\w-]+"
    links = {re.search(pattern, text).group() for text in texts}
    assert len(links) == 1, f"the parts of the mail differ in their link: {links}"
    url = links.pop()
    return url, url.rsplit("/", 1)[1]


class Server:
    """`rolecall dev` in a folder of its own."""

    def __init__(self, *arguments):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rolecall-e2e-"))
        # PostgreSQL runs as another user when this is root, and has to reach its data.
        self.folder.chmod(0o755)
        self.log = self.folder / "log"
        self.arguments = arguments
        self._start("--json")
        try:
            self.ready = json.loads(self._first_line())
        except BaseException:
            self.process.kill()
            raise
        self.grpc, self.admin = self.ready["grpc"], self.ready["admin"]
        self.api_key = self.ready["api_key"]

    def _start(self, *more):
        program = os.environ.get("ROLECALL", "target/debug/rolecall")
        command = [program, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                   "--data-dir", str(self.folder / "data"), *self.arguments, *more]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ROLECALL_")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment)

    def restart_with_welcome(self):
        """Starts it again over the same data, as a person does, and returns what it prints."""
        self._start()
        text = ""
        while "Ctrl-C" not in text:
            text += self._first_line().decode()
        return text

    def _first_line(self):
        lines = queue.Queue()
        read = threading.Thread(target=lambda: lines.put(self.process.stdout.readline()))
        read.daemon = True
        read.start()
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = b""
        assert line, f"`rolecall dev` did not become ready:\n{self.log.read_text()[-4000:]}"
        return line

    def kill(self):
        """Ends as by a crash: its PostgreSQL goes with it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def start_again(self):
        """Starts over the same data; on other ports."""
        self._start("--json")
        self.ready = json.loads(self._first_line())
        self.grpc, self.admin = self.ready["grpc"], self.ready["admin"]

    def sql(self, statement):
        """Runs a statement in its PostgreSQL, for what else only time brings; the first value it gives."""
        data = next(self.folder.rglob("postmaster.pid")).parent
        port = (data / "postmaster.pid").read_text().splitlines()[3]
        password = next(self.folder.rglob("password")).read_text().strip()
        root = pathlib.Path(__file__).parents[2]
        folder = subprocess.run([".ci/postgres-bin"], capture_output=True, text=True, check=True,
                                cwd=root).stdout.strip()
        ran = subprocess.run(
            [f"{folder}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
             "-p", port, "-U", "postgres", "-d", "rolecall", "-c", statement],
            env={**os.environ, "PGPASSWORD": password}, check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    def stop(self):
        """Stops as a person or Kubernetes would, and says how that ended."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "killed"
        self.process.stdout.close()
        return code, time.monotonic() - begun

    def forget(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Api:
    """Calls by name, with messages as dicts. `via` says which client makes the call."""

    def __init__(self, address):
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.reflection)

    def close(self):
        self.channel.close()

    def type(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, method, request=None, token=None, via="grpcio"):
        """Calls such as `TenantService/GetTenant`; raises `Refused`."""
        make = {"grpcio": self._grpcio, "grpcurl": self._grpcurl}[via]
        return make(f"rolecall.v1.{method}", request or {}, token)

    def stream(self, method, request=None, token=None):
        """Calls what answers with a stream, and reads it to its end."""
        method = f"rolecall.v1.{method}"
        taken, given = self._types(method)
        call = self.channel.unary_stream("/" + method, taken.SerializeToString, given.FromString)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            answers = call(json_format.ParseDict(request or {}, taken()), metadata=metadata,
                           timeout=PATIENCE)
            return [self._dict(answer) for answer in answers]
        except grpc.RpcError as error:
            raise self._refused(error) from None

    def _types(self, method):
        service, name = method.split("/")
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        get = message_factory.GetMessageClass
        return get(found.input_type), get(found.output_type)

    def _grpcio(self, method, request, token):
        taken, given = self._types(method)
        call = self.channel.unary_unary(
            "/" + method, taken.SerializeToString, given.FromString)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            answer = call(json_format.ParseDict(request, taken()), metadata=metadata,
                          timeout=PATIENCE)
        except grpc.RpcError as error:
            raise self._refused(error) from None
        return self._dict(answer)

    def _dict(self, message):
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self.pool,
            always_print_fields_with_no_presence=True)

    def _refused(self, error):
        trailers = dict(error.trailing_metadata() or ())
        status = self.type("google.rpc.Status")()
        status.ParseFromString(trailers.get("grpc-status-details-bin", b""))
        details = []
        for packed in status.details:
            detail = self.type(packed.type_url.rsplit("/", 1)[1])()
            packed.Unpack(detail)
            details.append({"@type": packed.type_url} | self._dict(detail))
        return Refused(error.code().name, error.details(), details)

    def _grpcurl(self, method, request, token):
        command = ["grpcurl", "-plaintext", "-format-error", "-d", "@"]
        if token:
            command += ["-H", f"authorization: Bearer {token}"]
        ran = subprocess.run(command + [self.address, method], input=json.dumps(request),
                             capture_output=True, text=True, timeout=PATIENCE)
        if ran.returncode:
            raise self._refused_by_grpcurl(ran)
        _, given = self._types(method)
        return self._dict(json_format.Parse(ran.stdout, given(), descriptor_pool=self.pool))

    @staticmethod
    def _refused_by_grpcurl(ran):
        start = ran.stderr.find("{")
        assert start >= 0, f"grpcurl failed ({ran.returncode}): {ran.stderr}"
        error = json.loads(ran.stderr[start:])
        code = next(c.name for c in grpc.StatusCode if c.value[0] == error["code"])
        return Refused(code, error.get("message", ""), error.get("details", []))
