"""Mail over TLS to aiosmtpd: STARTTLS, TLS from the start, log-in, and what `SendTestEmail` says when
one of them fails."""

import logging
import os
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import unittest
import warnings

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from clients import Api, Server, free_port

STEPS = ["RESOLVE", "CONNECT", "TLS", "AUTHENTICATE", "SENDER", "RECIPIENT", "QUEUED"]


class Taken:
    """Keeps what arrives."""

    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):
        self.mails.append((session.ssl is not None, session.authenticated, envelope.content))
        return "250 2.0.0 taken as 42"


def authenticate(server, session, envelope, mechanism, data):
    wanted = LoginPassword(b"postman", b"p@ss:w/rd")
    return AuthResult(success=data == wanted, handled=False)


def certificates(folder):
    """An authority of our own and a certificate of it for `localhost`."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca")
    openssl("req", *key[:5], "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "san").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-extfile", "san", "-out", "leaf.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return context


class Mail(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # That it requires a log-in without STARTTLS is meant: there it is TLS from the start.
        warnings.filterwarnings("ignore", module="aiosmtpd")
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="rolecall-tls-"))
        context = certificates(cls.folder)
        cls.taken = Taken()
        secure = {"hostname": "localhost", "auth_required": True, "authenticator": authenticate}
        cls.controllers = [
            Controller(cls.taken, port=free_port(), tls_context=context, require_starttls=True,
                       **secure),
            Controller(cls.taken, port=free_port(), ssl_context=context, auth_require_tls=False,
                       **secure),
        ]
        for controller in cls.controllers:
            controller.start()
        cls.starttls, cls.wrapped = (controller.port for controller in cls.controllers)

    @classmethod
    def tearDownClass(cls):
        for controller in cls.controllers:
            controller.stop()
        shutil.rmtree(cls.folder)

    def send(self, url, trusted=True):
        """What `SendTestEmail` answers on a server with this mail url."""
        before = os.environ.get("SSL_CERT_FILE")
        if trusted:
            os.environ["SSL_CERT_FILE"] = str(self.folder / "ca.pem")
        server = Server("--mail-url", url)
        try:
            api = Api(server.grpc)
            request = {"tenant": server.ready["tenant"], "to": "ada@demo.example"}
            answer = api.stream("MailService/SendTestEmail", request, server.api_key)
            api.close()
            return answer
        finally:
            server.forget()
            if before is None:
                os.environ.pop("SSL_CERT_FILE", None)
            else:
                os.environ["SSL_CERT_FILE"] = before

    def check(self, answer, steps, ok):
        got = [(s["step"].removeprefix("STEP_NAME_"), s["ok"]) for s in answer]
        wanted = [(name, True) for name in steps]
        if not ok:
            wanted[-1] = (steps[-1], False)
        self.assertEqual(got, wanted, answer)

    def test_starttls_and_log_in(self):
        answer = self.send(f"smtp://postman:p%40ss%3Aw%2Frd@localhost:{self.starttls}?tls=required")
        self.check(answer, STEPS, ok=True)
        self.assertIn("taken as 42", answer[-1]["server_reply"])
        encrypted, authenticated, content = self.taken.mails[-1]
        self.assertTrue(encrypted and authenticated)
        self.assertIn(b"Auto-Submitted: auto-generated", content)

    def test_tls_from_the_start_and_log_in(self):
        answer = self.send(f"smtps://postman:p%40ss%3Aw%2Frd@localhost:{self.wrapped}")
        self.check(answer, STEPS, ok=True)

    def test_a_wrong_password(self):
        answer = self.send(f"smtps://postman:wrong@localhost:{self.wrapped}")
        self.check(answer, STEPS[:4], ok=False)
        self.assertIn("535", answer[-1]["server_reply"])

    def test_a_certificate_that_nobody_vouches_for(self):
        for url in (f"smtp://localhost:{self.starttls}?tls=required",
                    f"smtps://localhost:{self.wrapped}"):
            answer = self.send(url, trusted=False)
            self.check(answer, STEPS[:3], ok=False)

    def test_a_server_that_wants_what_the_url_leaves_out(self):
        answer = self.send(f"smtp://localhost:{self.starttls}")
        self.check(answer, ["RESOLVE", "CONNECT", "SENDER"], ok=False)
        self.assertIn("STARTTLS", answer[-1]["server_reply"])


if __name__ == "__main__":
    unittest.main()
