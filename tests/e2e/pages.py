"""From the mail in the mailbox to the tenant's own page, in a real browser: in both languages, for a new
and an existing person, and every page on which it does not go on."""

import html
import http.server
import pathlib

import threading
import unittest
import urllib.request

from browser import Browser
from clients import Api, Mailbox, Server, body, link

PASSWORD = "five quiet green umbrellas"


class Product(http.server.BaseHTTPRequestHandler):
    """The tenant's own page, where people go after they joined."""

    referrers = []

    def do_GET(self):
        if self.path == "/start":
            self.referrers.append(self.headers.get("referer"))
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>Acme product</title><p>Sign in to Acme")

    def log_message(self, *_):
        pass


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.product = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Product)
        threading.Thread(target=cls.product.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.product.shutdown)
        cls.home = f"http://127.0.0.1:{cls.product.server_port}/start"
        cls.mailbox = Mailbox()
        cls.addClassCleanup(cls.mailbox.stop)
        cls.server = Server("--mail-url", cls.mailbox.url)
        cls.addClassCleanup(cls.server.forget)
        cls.api = Api(cls.server.grpc)
        cls.addClassCleanup(cls.api.close)
        cls.browser = Browser("fr-FR,fr")
        cls.addClassCleanup(cls.browser.close)
        cls.count = 0
        cls.operator = cls.server.api_key
        cls.call("TenantService/CreateTenant",
                 {"key": "acme", "display_name": "Acme & Sons", "plan": "premium",
                  "administrator": {"email": "olga@acme.example", "first_name": "Olga",
                                    "last_name": "Owner"}}, cls.operator)
        url, token = link(cls.mailbox.wait_for("olga@acme.example"))
        cls.call("InvitationService/AcceptInvitation",
                 {"token": token, "new_account": {"password": PASSWORD}})
        cls.olga = cls.sign_in("olga@acme.example")
        cls.call("MailService/UpdateMailSettings",
                 {"tenant": "acme", "home_url": cls.home, "sender_name": "Acme & Sons",
                  "reply_to": "people@acme.example"}, cls.olga)
        cls.call("RoleService/InstallRoleTemplates", {"tenant": "acme", "sector": "business"},
                 cls.olga)
        cls.call("WorkspaceService/CreateWorkspace",
                 {"tenant": "acme", "key": "paris", "display_name": "Paris"}, cls.olga)

    @classmethod
    def call(cls, *arguments, **options):
        return cls.api.call(*arguments, **options)

    @classmethod
    def sign_in(cls, address):
        return cls.call("SessionService/SignIn",
                        {"email": address, "password": PASSWORD, "tenant": "acme"})["token"]

    def invite(self, address=None, **more):
        """Invites somebody; the link of the mail, and the invitation."""
        Pages.count += 1
        address = address or f"person{self.count}@company.example"
        made = self.call(
            "InvitationService/CreateInvitation",
            {"tenant": "acme", "email": address,
             "roles": [{"role": "employee"}, {"role": "accountant", "scope": "workspaces/paris"}],
             "profile": {"first_name": "Maria", "last_name": "Smith"}, **more}, self.olga)
        mail = self.mailbox.wait_for(address)
        return link(mail)[0], made["invitation"]["id"], mail

    def state(self, invitation):
        found = self.call("InvitationService/GetInvitation",
                          {"tenant": "acme", "invitation_id": invitation}, self.olga)
        return found["invitation"]["status"].removeprefix("INVITATION_STATUS_")

    def shows(self, name, title, *words, language="en"):
        """The page has this title, and says so; and it is as a page should be."""
        browser = self.browser
        self.assertEqual((browser.title, browser.language), (title, language), browser.text)
        for word in words:
            self.assertIn(word, browser.text)
        browser.picture(name)
        self.assertEqual(browser.complaints(), [], "the browser complains")

    def time_passes(self, invitation):
        """Lets an invitation expire, which takes an hour at least."""
        uuid = invitation.removeprefix("inv_")
        self.server.sql("update invitations set expires_at = created_at"
                        f" where id = '{uuid}'")

    def test_a_new_person_goes_from_the_mail_to_the_product_by_keyboard(self):
        url, _, mail = self.invite("nina@company.example", message="See you on Monday.\nBring cake.")
        self.assertIn("Acme & Sons", str(mail["From"]))
        self.assertEqual(str(mail["Reply-To"]), "people@acme.example")
        browser = self.browser
        browser.open(url)
        self.shows("new", "Join Acme & Sons", "Olga Owner invites you", "Employee", "Accountant",
                   "in Paris", "Bring cake.", "nina@company.example")
        self.assertEqual(browser.field("First name").get_attribute("value"), "Maria")
        browser.tab_to("First name").clear()
        browser.type("First name", "Nina")
        browser.tab_to("Last name")
        browser.tab_to("Choose a password").send_keys("password1")
        browser.press_enter()
        self.shows("guessed", "Join Acme & Sons", "guessed first")
        self.assertEqual(browser.field("First name").get_attribute("value"), "Nina")
        browser.type("Choose a password", PASSWORD)
        browser.press_enter()
        self.shows("welcome", "Welcome to Acme & Sons", "You have joined Acme & Sons")
        browser.press("Go on to Acme & Sons")
        self.assertEqual(browser.title, "Acme product")
        self.assertEqual(Product.referrers[-1], None, "the product learns no link")
        nina = self.sign_in("nina@company.example")
        mine = self.call("MembershipService/GetMembership", {"tenant": "acme"}, nina)["membership"]
        self.assertEqual(mine["profile"]["first_name"], "Nina")
        browser.open(url)
        self.shows("accepted", "You have joined already")

    def test_an_existing_person_joins_in_french_with_the_password_they_have(self):
        self.invite("ines@company.example")
        url, token = link(self.mailbox.to("ines@company.example")[-1])
        self.call("InvitationService/AcceptInvitation",
                  {"token": token, "new_account": {"password": PASSWORD}})
        self.call("TenantService/CreateTenant",
                  {"key": "brasserie", "display_name": "Brasserie du Port", "language": "fr",
                   "plan": "premium", "administrator": {"email": "ines@company.example"}},
                  self.operator)
        mail = self.mailbox.wait_for("ines@company.example", 2)
        self.assertIn("Vous êtes invité", str(mail["Subject"]))
        browser = self.browser
        browser.open(link(mail)[0])
        self.shows("existing", "Rejoindre Brasserie du Port", "Administrateur",
                   "ines@company.example", language="fr")
        browser.type("Votre mot de passe", "not hers at all")
        browser.press("Rejoindre Brasserie du Port")
        self.shows("wrong", "Rejoindre Brasserie du Port", "pas le mot de passe", language="fr")
        browser.type("Votre mot de passe", PASSWORD)
        browser.press("Rejoindre Brasserie du Port")
        self.shows("bienvenue", "Bienvenue chez Brasserie du Port", language="fr")
        signed = self.call("SessionService/SignIn",
                           {"email": "ines@company.example", "password": PASSWORD,
                            "tenant": "brasserie"})
        self.assertTrue(signed["token"].startswith("rcs_"))

    def joined(self, address):
        """Somebody who is a member with the usual password."""
        _, token = link(self.invite(address)[2])
        self.call("InvitationService/AcceptInvitation",
                  {"token": token, "new_account": {"password": PASSWORD}})

    def test_a_forgotten_password_is_chosen_anew_once(self):
        address = "pia@company.example"
        self.joined(address)
        self.call("UserService/RequestPasswordReset", {"email": address})
        url, _ = link(self.mailbox.wait_for(address, 2), "password-resets")
        browser = self.browser
        browser.open(url)
        self.shows("reset", "Choose a new password", "signed out everywhere")
        browser.type("Choose a password", "password1")
        browser.press_enter()
        self.shows("reset-guessed", "Choose a new password", "guessed first")
        browser.type("Choose a password", "six loud purple trombones")
        browser.press_enter()
        self.shows("reset-done", "Your password is new", "signed out everywhere")
        self.call("SessionService/SignIn", {"email": address, "tenant": "acme",
                                            "password": "six loud purple trombones"})
        browser.open(url)
        self.shows("reset-over", "Ce lien ne fonctionne plus", language="fr")

    def test_a_new_address_counts_when_it_is_confirmed(self):
        self.joined("quinn@company.example")
        quinn = self.sign_in("quinn@company.example")
        self.call("UserService/RequestEmailChange",
                  {"new_email": "q@company.example", "password": PASSWORD}, quinn)
        url, _ = link(self.mailbox.wait_for("q@company.example"), "email-changes")
        browser = self.browser
        browser.open(url)
        self.shows("address", "Confirm your new address", "quinn@company.example",
                   "q@company.example")
        browser.press("Confirm the address")
        self.shows("address-done", "Your address is confirmed")
        self.sign_in("q@company.example")

    def test_somebody_declines_by_two_clicks_and_never_by_one(self):
        url, invitation, _ = self.invite()
        browser = self.browser
        browser.open(url)
        browser.press("Decline the invitation")
        self.shows("decline", "Decline the invitation to Acme & Sons", "Olga Owner will see")
        browser.press("Back to the invitation")
        self.assertEqual(self.state(invitation), "PENDING")
        browser.press("Decline the invitation")
        browser.press("Decline")
        self.shows("declined", "You declined", "If it was a mistake")
        self.assertEqual(self.state(invitation), "DECLINED")

    def test_an_expired_link_leads_to_a_new_one(self):
        url, invitation, mail = self.invite()
        address = str(mail["To"].addresses[0].addr_spec)
        self.time_passes(invitation)
        browser = self.browser
        browser.open(url)
        self.shows("expired", "This invitation has expired", "It is not lost")
        asked = len(self.mailbox.to("olga@acme.example"))
        browser.press("Ask for a new link")
        self.shows("asked", "You have asked for a new link", address)
        told = self.mailbox.wait_for("olga@acme.example", asked + 1)
        self.assertIn(address, body(told, "plain"))
        self.assertIn(self.home, html.unescape(body(told, "html")))
        self.call("InvitationService/ResendInvitation",
                  {"tenant": "acme", "invitation_id": invitation}, self.olga)
        browser.open(url)
        self.shows("replaced", "There is a newer link", address)
        browser.open(link(self.mailbox.wait_for(address, 2))[0])
        self.assertEqual(browser.title, "Join Acme & Sons")
        browser.press("I would rather use another address")
        self.shows("request", "Ask for a new invitation to Acme & Sons", address)
        for _ in range(2):
            browser.press("Ask for a new link")
            browser.driver.back()
        browser.press("Ask for a new link")
        self.shows("asked-often", "You have asked before")

    def test_links_that_lead_nowhere_say_so_in_the_language_of_the_browser(self):
        browser = self.browser
        browser.open(f"{self.server.ready['http']}/invitations/rci_cut")
        self.shows("unknown", "Ce lien ne fonctionne pas", "en entier", language="fr")

    def test_cancelled_and_closed_are_said(self):
        url, invitation, _ = self.invite()
        browser = self.browser
        self.call("TenantService/SuspendTenant", {"tenant": "acme"}, self.operator)
        try:
            browser.open(url)
            self.shows("suspended", "Acme & Sons is closed for now", "stays as it is")
        finally:
            self.call("TenantService/ReactivateTenant", {"tenant": "acme"}, self.operator)
        browser.press("Try again")
        self.assertEqual(browser.title, "Join Acme & Sons")
        self.call("InvitationService/CancelInvitation",
                  {"tenant": "acme", "invitation_id": invitation}, self.olga)
        browser.open(url)
        self.shows("cancelled", "This invitation was cancelled", "Olga Owner has taken")

    def test_mail_scanners_use_nothing_up_and_other_pages_cannot_send_the_form(self):
        url, invitation, _ = self.invite()
        for page in (url, f"{url}/decline", f"{url}/request", f"{url}/welcome"):
            for method in ("HEAD", "GET", "GET"):
                with urllib.request.urlopen(urllib.request.Request(page, method=method)) as answer:
                    self.assertEqual(answer.status, 200)
        self.assertEqual(self.state(invitation), "PENDING")
        elsewhere = pathlib.Path(self.browser.folder) / "elsewhere.html"
        elsewhere.write_text(f'<form method="post" action="{url}/decline"><button>Win</button></form>')
        self.browser.open(elsewhere.as_uri())
        self.browser.press("Win")
        self.assertEqual(self.browser.title, "Ce formulaire vient d'une autre page")
        self.assertEqual(self.state(invitation), "PENDING")


if __name__ == "__main__":
    unittest.main()
