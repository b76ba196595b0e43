"""`rolecall serve` as deploy/ runs it: secrets from files, one login for `migrate` and another for
`serve`, TLS, probes on the admin port, and a clean stop."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import grpc
from clients import PATIENCE, free_port
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = os.environ.get("ROLECALL", str(ROOT / "target/debug/rolecall"))
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("ROLECALL_", "PG"))}


def run(*command, check=True, **environment):
    ran = subprocess.run(
        [str(c) for c in command], env=CLEAN | environment, cwd=ROOT, capture_output=True,
        text=True, timeout=PATIENCE)
    if check and ran.returncode:
        raise AssertionError(f"{command} failed ({ran.returncode}):\n{ran.stdout}\n{ran.stderr}")
    return ran


class Postgres:
    """A PostgreSQL with the logins that deploy/postgres-roles makes."""

    def __init__(self, folder):
        programs = pathlib.Path(run(".ci/postgres-bin").stdout.strip())
        self.path = f"{programs}:{CLEAN['PATH']}"
        self.folder, self.port = folder / "postgres", free_port()
        self.folder.mkdir()
        other = {}
        if os.geteuid() == 0:
            other = {"user": "postgres" if has_user("postgres") else "nobody"}
            shutil.chown(self.folder, other["user"])
        subprocess.run(
            [programs / "initdb", "-D", self.folder / "data", "-U", "postgres", "-N",
             "--auth-local=trust", "--auth-host=scram-sha-256"],
            cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **other)
        self.process = subprocess.Popen(
            [programs / "postgres", "-D", self.folder / "data", "-F", "-p", str(self.port),
             "-k", self.folder, "-c", "listen_addresses=127.0.0.1"],
            cwd=self.folder, stderr=subprocess.DEVNULL, **other)
        self.psql("postgres", "select 1", patience=PATIENCE)

    def psql(self, database, sql, patience=0.0, **environment):
        """As the superuser, or as whoever `PGUSER` names, through the socket."""
        until = time.monotonic() + patience
        while True:
            ran = run(
                "psql", "-X", "-A", "-t", "-c", sql, database, check=False, PATH=self.path,
                **{"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "postgres"}
                | environment)
            if ran.returncode == 0 or time.monotonic() > until:
                return ran
            time.sleep(0.2)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)


def has_user(name):
    return subprocess.run(["id", name], capture_output=True).returncode == 0


def certificate(folder):
    """A private CA and a certificate of it for this machine."""
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca",
        "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
        "-keyout", folder / "tls.key", "-out", folder / "tls.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    run("openssl", "x509", "-req", "-in", folder / "tls.csr", "-CA", folder / "ca.crt", "-CAkey",
        folder / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", folder / "names",
        "-out", folder / "tls.crt")


class Production(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rolecall-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        self.postgres = Postgres(self.folder)
        self.addCleanup(self.postgres.stop)
        self.secrets = self.folder / "secrets"
        run("deploy/new-secrets", self.secrets, f"127.0.0.1:{self.postgres.port}")
        run("deploy/postgres-roles", SECRETS=str(self.secrets), PATH=self.postgres.path,
            PGHOST=str(self.postgres.folder), PGPORT=str(self.postgres.port))
        self.owner = {"ROLECALL_DATABASE_URL_FILE": str(self.secrets / "migrate_database_url")}
        self.login = {"ROLECALL_DATABASE_URL_FILE": str(self.secrets / "database_url")}
        port, admin = free_port(), free_port()
        self.address, self.admin = f"localhost:{port}", f"127.0.0.1:{admin}"
        self.settings = self.login | {
            "ROLECALL_LISTEN": f"127.0.0.1:{port}",
            "ROLECALL_ADMIN_LISTEN": self.admin,
            "ROLECALL_SECRET_KEY_FILE": str(self.secrets / "secret_key"),
            "ROLECALL_MAIL_URL": "smtp://127.0.0.1:9",
            "ROLECALL_MAIL_FROM": "Rolecall <rolecall@acme.example>",
            "ROLECALL_PUBLIC_URL": "https://rolecall.acme.example",
            "ROLECALL_LOG_FORMAT": "json",
        }

    def serve(self, **environment):
        self.log = open(self.folder / "log", "w+")
        self.addCleanup(self.log.close)
        process = subprocess.Popen(
            [PROGRAM, "serve"], env=CLEAN | self.settings | environment, stderr=self.log, cwd="/")
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        until = time.monotonic() + PATIENCE
        while run(PROGRAM, "healthcheck", check=False, ROLECALL_ADMIN_LISTEN=self.admin).returncode:
            ended = process.poll() is not None or time.monotonic() > until
            self.assertFalse(ended, (self.folder / "log").read_text())
            time.sleep(0.2)
        return process

    def test_it_serves_as_deployed_and_refuses_what_is_unsafe(self):
        early = run(PROGRAM, "serve", check=False, **self.settings)
        self.assertNotEqual(early.returncode, 0)
        self.assertIn("rolecall migrate", early.stderr, "it says what has to come first")
        for _ in range(2):
            run(PROGRAM, "migrate", **self.owner)
        denied = self.postgres.psql("rolecall", "set role rolecall_server; delete from events",
                                    PGUSER="rolecall")
        self.assertIn("permission denied", denied.stderr)
        half = run(PROGRAM, "serve", check=False,
                   **self.settings | {"ROLECALL_TLS_CERT_FILE": "/nowhere"})
        self.assertIn("tls-key-file", half.stderr, "TLS is set whole or not at all")
        plain = run(PROGRAM, "serve", check=False,
                    **self.settings | {"ROLECALL_PUBLIC_URL": "http://rolecall.acme.example"})
        self.assertIn("https://", plain.stderr, "links do not travel in plain text")
        created = run(PROGRAM, "keys", "create", **self.login).stdout
        key = re.search(r"rck_[\w-]+", created).group()

        certificate(self.folder)
        process = self.serve(ROLECALL_TLS_CERT_FILE=str(self.folder / "tls.crt"),
                             ROLECALL_TLS_KEY_FILE=str(self.folder / "tls.key"))
        with grpc.insecure_channel(self.admin) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10)
        self.assertEqual(health.status, health_pb2.HealthCheckResponse.SERVING)
        self.grpcurl_reads_the_api_with_a_credential_only(key)

        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertLess(time.monotonic() - begun, 30, "it drains, and does not hang")
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        self.assertTrue(lines, "every line of the log is JSON")
        log = json.dumps(lines)
        for secret in self.secrets.iterdir():
            self.assertNotIn(secret.read_text(), log, secret.name)
        self.assertNotIn(key, log)

    def grpcurl_reads_the_api_with_a_credential_only(self, key):
        grpcurl = "grpcurl", "-cacert", self.folder / "ca.crt"
        closed = run(*grpcurl, self.address, "list", check=False)
        self.assertNotEqual(closed.returncode, 0, "reflection is not for everybody here")
        credential = "-H", f"authorization: Bearer {key}"
        listed = run(*grpcurl, *credential, self.address, "list").stdout
        self.assertIn("rolecall.v1.PermissionService", listed)
        answer = run(*grpcurl, *credential, self.address, "rolecall.v1.TenantService/ListTenants")
        self.assertIn('"key": "system"', answer.stdout)
        plaintext = run("grpcurl", "-plaintext", *credential, self.address, "list", check=False)
        self.assertNotEqual(plaintext.returncode, 0, "TLS is not optional")
