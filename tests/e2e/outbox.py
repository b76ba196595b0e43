"""Invitations through a mail server that misbehaves, while the program is killed again and again: none is
lost, none is two mails, and the link of every copy works.

`ROLECALL_INVITATIONS=10000 ROLECALL_KILLS=100 tests/e2e/run outbox.py` is the long run."""

import asyncio
import collections
import logging
import os
import random
import threading
import time
import unittest
import uuid

import grpc
from aiosmtpd.controller import Controller
from clients import Api, Refused, Server, free_port, link, parse

INVITATIONS = int(os.environ.get("ROLECALL_INVITATIONS", "150"))
KILLS = int(os.environ.get("ROLECALL_KILLS", "5"))
# Of how many people the links are tried: hashing a password takes its time.
TRIED = 25
PASSWORD = "nine tall paper lanterns"


class Misbehaving:
    """Takes some, is busy for some, drops the connection when it has the letter, or before, is slow, and
    knows nobody called `nobody`."""

    def __init__(self):
        self.random = random.Random(5)
        self.copies = collections.defaultdict(list)
        self.dropped = collections.Counter()
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port())
        self.controller.start()
        self.url = f"smtp://127.0.0.1:{self.controller.port}"
        self.moody = True

    def chance(self, share):
        return self.moody and self.random.random() < share

    async def handle_MAIL(self, server, session, envelope, address, options):
        if self.chance(0.05):
            return "421 4.3.2 too busy, closing"
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such person here"
        if self.chance(0.1):
            return "451 4.7.1 greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        if self.chance(0.05):
            return "451 4.3.0 disk full"
        if self.chance(0.1):
            await asyncio.sleep(self.random.random() / 2)
        drops = self.chance(0.1)
        if not (drops and self.chance(0.5)):
            message = parse(envelope)
            self.copies[message.recipients[0]].append(message)
            if drops:
                self.dropped[message.recipients[0]] += 1
        if drops:
            server.transport.abort()
        return "250 2.0.0 taken"


class Outbox(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        cls.smtp = Misbehaving()
        cls.addClassCleanup(cls.smtp.controller.stop)
        cls.server = Server("--mail-url", cls.smtp.url, "--log", "error")
        cls.addClassCleanup(cls.server.forget)
        cls.up = threading.Event()
        cls.up.set()
        cls.acknowledged = {}

    def api(self):
        api = Api(self.server.grpc)
        self.addCleanup(api.close)
        return api

    def invite_everybody(self):
        """Invites until each is acknowledged, whatever happens to the program meanwhile."""
        api = None
        for n in range(INVITATIONS):
            address = f"person{n}@kill.example"
            request = {"tenant": "kill", "email": address, "request_id": str(uuid.uuid4())}
            while address not in self.acknowledged:
                self.up.wait()
                try:
                    api = api or self.api()
                    made = api.call("InvitationService/CreateInvitation", request,
                                    self.server.api_key)
                    self.acknowledged[address] = made["invitation"]["id"]
                except (Refused, grpc.RpcError, KeyError):
                    api = None
                    time.sleep(0.05)

    def kill(self):
        self.up.clear()
        self.server.kill()
        self.started = time.time()
        self.server.start_again()
        self.up.set()

    def hurry(self):
        """What waits for its next try, or for the end of a dead worker's claim, is due now."""
        self.server.sql("update mails set due_at = created_at where status = 'queued'")
        self.server.sql("update mails set claimed_at = claimed_at - interval '75 s'"
                        f" where status = 'sending' and claimed_at < to_timestamp({self.started})")

    def waiting(self):
        return int(self.server.sql("select count(*) from mails where status in"
                                   " ('queued', 'sending')"))

    def test_nothing_is_lost_and_no_letter_is_two(self):
        self.api().call("TenantService/CreateTenant",
                        {"key": "kill", "display_name": "Kill", "plan": "premium",
                         "administrator": {"email": "admin@kill.example"}}, self.server.api_key)
        inviting = threading.Thread(target=self.invite_everybody)
        inviting.start()
        begun = time.monotonic()
        kills = 0
        while kills < KILLS or inviting.is_alive():
            time.sleep(0.3 + random.random())
            if kills < KILLS:
                self.kill()
                kills += 1
        inviting.join()
        self.assertEqual(len(self.acknowledged), INVITATIONS)
        self.smtp.moody = False
        patience = time.monotonic() + 60 + INVITATIONS / 20
        while self.waiting() and time.monotonic() < patience:
            self.hurry()
            time.sleep(1)
        self.assertEqual(self.waiting(), 0)
        copies = self.smtp.copies
        lost = [address for address in self.acknowledged if address not in copies]
        self.assertEqual(lost, [], "acknowledged and not sent")
        repeated, excuses = 0, kills * 8 + sum(self.smtp.dropped.values())
        for address in self.acknowledged:
            ids = {copy["Message-ID"] for copy in copies[address]}
            # The token: the server is at another port after each kill.
            tokens = {link(copy)[1] for copy in copies[address]}
            self.assertEqual((len(ids), len(tokens)), (1, 1), f"{address} got different mails")
            repeated += len(copies[address]) - 1
        self.assertLessEqual(repeated, excuses, "more copies than interrupted sendings")
        self.links_work()
        print(f"{INVITATIONS} invitations, {kills} kills: 0 lost, 0 different, {repeated} copies more "
              f"({sum(self.smtp.dropped.values())} after a dropped connection), "
              f"{time.monotonic() - begun:.0f} s")

    def links_work(self):
        """The first copy's link lets its person in, the last copy's is used up then."""
        api = self.api()
        most = sorted(self.acknowledged, key=lambda a: -len(self.smtp.copies[a]))[:TRIED]
        for address in most:
            first, last = self.smtp.copies[address][0], self.smtp.copies[address][-1]
            account = {"new_account": {"password": PASSWORD}}
            joined = api.call("InvitationService/AcceptInvitation",
                              {"token": link(first)[1], **account})
            self.assertEqual(joined["tenant"], "kill")
            with self.assertRaises(Refused) as caught:
                api.call("InvitationService/AcceptInvitation",
                         {"token": link(last)[1], **account})
            self.assertEqual(caught.exception.reason, "INVITATION_ACCEPTED")

    def test_what_the_server_refuses_is_given_up_with_its_words(self):
        api = self.api()
        made = api.call("TenantService/CreateTenant",
                        {"key": "nowhere", "display_name": "Nowhere",
                         "administrator": {"email": "nobody@kill.example"}}, self.server.api_key)
        get = {"tenant": "nowhere", "invitation_id": made["invitation_id"]}
        found = {}
        for _ in range(200):
            found = api.call("InvitationService/GetInvitation", get, self.server.api_key)
            found = found["invitation"]
            if found["delivery"] == "DELIVERY_FAILED":
                break
            # Only what is about the letter is final; the server is moody before it, too.
            self.smtp.moody = False
            time.sleep(0.3)
        self.assertEqual(found["delivery"], "DELIVERY_FAILED", found)
        self.assertIn("no such person here", found["delivery_error"])


if __name__ == "__main__":
    unittest.main()
