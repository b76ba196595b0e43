"""The main job, from an empty installation to an invited person whose permission another service
checks. The chapters build on each other and run in the order of their names."""

import unittest
import uuid

from clients import Api, Mailbox, Refused, Server, body, link

OWNER, HR, MARIA = "olga.owner@acme.example", "hr@acme.example", "maria.smith@company.com"
PASSWORDS = {
    OWNER: "correct-horse-olga-41",
    HR: "battery-staple-hana-42",
    MARIA: "purple-giraffe-maria-43",
}


class Story(unittest.TestCase):
    maxDiff = None
    broken = False

    @classmethod
    def setUpClass(cls):
        cls.mailbox = Mailbox()
        cls.addClassCleanup(cls.mailbox.stop)
        cls.server = Server("--mail-url", cls.mailbox.url)
        cls.addClassCleanup(cls.server.forget)
        cls.api = Api(cls.server.grpc)
        cls.addClassCleanup(cls.api.close)
        cls.operator = cls.server.api_key
        # What must never be seen in a log.
        cls.secrets = [cls.operator, *PASSWORDS.values()]

    def setUp(self):
        if Story.broken:
            self.skipTest("an earlier chapter failed")
        Story.broken = True

    def tell(self):
        """The chapter ended well; the next one may rely on it."""
        Story.broken = False

    def call(self, *arguments, **options):
        return self.api.call(*arguments, **options)

    def refused(self, code, reason, *arguments, **options):
        with self.assertRaises(Refused) as caught:
            self.call(*arguments, **options)
        refusal = caught.exception
        self.assertEqual((refusal.code, refusal.reason), (code, reason), str(refusal))
        self.assertEqual(refusal.detail("ErrorInfo").get("domain"), "rolecall")
        return refusal

    def join(self, address, via="grpcio", **names):
        """Opens the mail that arrived, accepts, and signs in; the session token and the user."""
        url, token = link(self.mailbox.wait_for(address))
        self.assertTrue(url.startswith(self.server.ready["http"]), url)
        account = {"password": PASSWORDS[address], **names}
        accepted = self.call(
            "InvitationService/AcceptInvitation", {"token": token, "new_account": account}, via=via)
        self.assertEqual(accepted["tenant"], "acme")
        self.assertEqual(accepted["membership"]["status"], "MEMBERSHIP_STATUS_ACTIVE")
        self.secrets.append(token)
        return self.sign_in(address), accepted["user_id"]

    def sign_in(self, address, via="grpcio"):
        signed_in = self.call(
            "SessionService/SignIn",
            {"email": address, "password": PASSWORDS[address], "tenant": "acme"}, via=via)
        self.assertTrue(signed_in["token"].startswith("rcs_"), "a session token starts with rcs_")
        self.secrets.append(signed_in["token"])
        return signed_in["token"]

    def check(self, permission, resource="", subject=None):
        """What the messenger, which may only check, is told about Maria."""
        answer = self.call(
            "PermissionService/CheckPermission",
            {"tenant": "acme", "subject": subject or Story.maria_id, "permission": permission,
             "resource": resource}, token=Story.checker)
        self.assertTrue(answer["revision"], "an answer names its revision")
        return answer["allowed"], answer["reason"]

    def test_01_an_operator_creates_a_tenant_that_waits_for_its_administrator(self):
        created = self.call(
            "TenantService/CreateTenant",
            {"key": "acme", "display_name": "Acme", "plan": "premium", "reason": "signed the contract",
             "administrator": {"email": OWNER, "first_name": "Olga", "last_name": "Owner"}},
            token=self.operator, via="grpcurl")
        self.assertEqual(created["tenant"]["status"], "TENANT_STATUS_PENDING")
        self.assertTrue(created["invitation_id"].startswith("inv_"), created)
        self.refused(
            "ALREADY_EXISTS", "ALREADY_EXISTS", "TenantService/CreateTenant",
            {"key": "acme", "display_name": "Another", "administrator": {"email": OWNER}},
            token=self.operator)
        self.tell()

    def test_02_the_administrator_accepts_and_signs_in(self):
        mail = self.mailbox.wait_for(OWNER)
        self.assertEqual(mail["Auto-Submitted"], "auto-generated")
        self.assertTrue(mail["Message-ID"] and mail["Date"] and mail["Subject"], mail.items())
        Story.olga, Story.olga_id = self.join(OWNER, via="grpcurl")
        tenant = self.call("TenantService/GetTenant", {"tenant": "acme"}, token=self.olga)["tenant"]
        self.assertEqual(tenant["status"], "TENANT_STATUS_ACTIVE")
        self.assertEqual(tenant["administrator_count"], 1)
        self.assertIn("SINGLE_ADMINISTRATOR", tenant["warnings"])
        self.tell()

    def test_03_a_link_works_once(self):
        _, token = link(self.mailbox.wait_for(OWNER))
        accept = "InvitationService/AcceptInvitation"
        for account in {}, {"new_account": {"password": "another-password-44"}}:
            self.refused("FAILED_PRECONDITION", "INVITATION_ACCEPTED", accept,
                         {"token": token} | account)
        # Whoever accepted and lost the answer may ask again, now with an account.
        again = self.call(
            accept, {"token": token, "existing_account": {"password": PASSWORDS[OWNER]}},
            via="grpcurl")
        self.assertEqual(again["user_id"], self.olga_id)
        for forged in token[:-3] + "AAA", token[:-1], "rci_", "":
            with self.subTest(forged), self.assertRaises(Refused) as caught:
                self.call(accept, {"token": forged, "new_account": {"password": "a-password-45"}})
            self.assertIn(caught.exception.code, ("NOT_FOUND", "INVALID_ARGUMENT"))
        self.tell()

    def test_04_she_installs_the_business_roles_and_creates_workspaces(self):
        installed = self.call(
            "RoleService/InstallRoleTemplates",
            {"tenant": "acme", "sector": "business", "set_default_role": True}, token=self.olga)
        keys = {role["key"] for role in installed["roles"]}
        self.assertEqual(keys, {
            "director", "hr_manager", "network_admin", "it_support", "accountant", "secretary",
            "employee", "visitor"})
        for key, via in ("paris", "grpcurl"), ("lyon", "grpcio"):
            made = self.call(
                "WorkspaceService/CreateWorkspace",
                {"tenant": "acme", "key": key, "display_name": key.title()},
                token=self.olga, via=via)
            self.assertEqual(made["workspace"]["key"], key)
        self.tell()

    def test_05_an_hr_manager_is_invited_and_joins(self):
        invited = self.call(
            "InvitationService/CreateInvitation",
            {"tenant": "acme", "email": HR, "roles": [{"role": "hr_manager"}],
             "profile": {"first_name": "Hana", "last_name": "Ruiz", "department": "People"},
             "message": "Welcome, Hana & <friends>!", "language": "fr"}, token=self.olga)
        self.assertEqual(invited["invitation"]["status"], "INVITATION_STATUS_PENDING")
        mail = self.mailbox.wait_for(HR)
        self.assertIn("Hana & <friends>!", body(mail, "plain"))
        self.assertIn("Hana &amp; &lt;friends&gt;!", body(mail, "html"))
        Story.hana, Story.hana_id = self.join(HR)
        self.tell()

    def test_06_she_gives_what_she_may_give_or_nothing(self):
        refusal = self.refused(
            "PERMISSION_DENIED", "ROLE_NOT_GRANTABLE", "InvitationService/CreateInvitation",
            {"tenant": "acme", "email": MARIA,
             "roles": [{"role": "employee"}, {"role": "director"}]},
            token=self.hana)
        self.assertIn("director", refusal.message)
        refusal = self.refused(
            "PERMISSION_DENIED", "ROLE_NOT_GRANTABLE", "InvitationService/CreateInvitation",
            {"tenant": "acme", "email": MARIA, "roles": [{"role": "director"}]},
            token=self.hana, via="grpcurl")
        listed = self.call("InvitationService/ListInvitations", {"tenant": "acme"}, token=self.hana)
        self.assertNotIn(MARIA, [i["email"] for i in listed["invitations"]])
        # Alone, the role she may give is hers to give, although she does not hold it.
        self.call(
            "InvitationService/CreateInvitation",
            {"tenant": "acme", "email": MARIA, "roles": [{"role": "employee"}],
             "validate_only": True}, token=self.hana)
        listed = self.call("InvitationService/ListInvitations", {"tenant": "acme"}, token=self.hana)
        self.assertNotIn(MARIA, [i["email"] for i in listed["invitations"]])
        self.tell()

    def test_07_the_administrator_invites_maria_once_however_often_asked(self):
        request = {
            "tenant": "acme", "email": "Maria.Smith@Company.com", "request_id": str(uuid.uuid4()),
            "profile": {"first_name": "Maria", "last_name": "Smith", "job_title": "Accountant"},
            "roles": [{"role": "employee"}, {"role": "accountant", "scope": "workspaces/paris"}]}
        first = self.call("InvitationService/CreateInvitation", request, token=self.olga)
        again = self.call(
            "InvitationService/CreateInvitation", request, token=self.olga, via="grpcurl")
        self.assertEqual(first["invitation"]["id"], again["invitation"]["id"])
        self.refused(
            "ALREADY_EXISTS", "ALREADY_EXISTS", "InvitationService/CreateInvitation",
            request | {"email": "somebody.else@company.com"}, token=self.olga)
        members = self.call(
            "MembershipService/ListMemberships",
            {"tenant": "acme", "status": "MEMBERSHIP_STATUS_PENDING"}, token=self.hana)
        self.assertEqual([m["email"].lower() for m in members["memberships"]], [MARIA])
        self.assertEqual(members["total_count"], "1")
        self.tell()

    def test_08_maria_accepts_with_a_password_and_signs_in(self):
        Story.maria, Story.maria_id = self.join(MARIA)
        self.assertEqual(len(self.mailbox.to(MARIA)), 1, "one mail, none from what was refused")
        self.assertEqual(self.mailbox.to("somebody.else@company.com"), [])
        mine = self.call("UserService/ListMyTenants", token=self.maria)["tenants"]
        self.assertEqual([t["tenant"] for t in mine], ["acme"])
        held = {(role["role"], role["scope"]) for role in mine[0]["roles"]}
        self.assertEqual(held, {("employee", ""), ("accountant", "workspaces/paris")})
        self.refused(
            "UNAUTHENTICATED", "SIGN_IN_FAILED", "SessionService/SignIn",
            {"email": MARIA, "password": "not-her-password", "tenant": "acme"})
        self.tell()

    def test_09_a_service_gets_a_key_that_may_only_check(self):
        self.call(
            "RoleService/CreateRole",
            {"tenant": "acme", "key": "checker", "display_names": {"en": "Checker"},
             "permissions": ["iam.permissions.check"]}, token=self.olga, via="grpcurl")
        service = self.call(
            "ServiceAccountService/CreateServiceAccount",
            {"tenant": "acme", "key": "messenger", "display_name": "Messenger"},
            token=self.olga)["service_account"]
        self.call(
            "MembershipService/UpdateMemberRoles",
            {"tenant": "acme", "subject": service["id"], "add": [{"role": "checker"}]},
            token=self.olga)
        made = self.call(
            "ServiceAccountService/CreateApiKey",
            {"tenant": "acme", "service_account_id": service["id"], "display_name": "production",
             "permissions": ["iam.permissions.check"]}, token=self.olga)
        Story.checker = made["secret"]
        self.secrets.append(made["secret"])
        self.assertTrue(made["secret"].startswith("rck_"))
        self.refused(
            "PERMISSION_DENIED", "PERMISSION_MISSING", "MembershipService/ListMemberships",
            {"tenant": "acme"}, token=self.checker)
        self.tell()

    def test_10_it_is_told_what_maria_may_do_and_why(self):
        allowed, denied = (True, "REASON_ALLOWED"), (False, "REASON_NO_ROLE")
        self.assertEqual(self.check("messaging.use"), allowed)
        self.assertEqual(self.check("messaging.use", "workspaces/lyon"), allowed)
        self.assertEqual(self.check("billing.read", "workspaces/paris"), allowed)
        self.assertEqual(self.check("billing.read", "workspaces/paris/folders/42"), allowed)
        self.assertEqual(self.check("billing.read", "workspaces/lyon"), denied)
        self.assertEqual(self.check("billing.read"), denied)
        self.assertEqual(
            self.check("billing.read", "workspaces/paris-2"), (False, "REASON_WORKSPACE_UNKNOWN"))
        self.assertEqual(self.check("billing.read", "workspaces/paris", self.maria), allowed)
        self.assertEqual(self.check("messaging.use", subject=MARIA), allowed)
        self.refused(
            "INVALID_ARGUMENT", "INVALID_FIELD", "PermissionService/CheckPermission",
            {"tenant": "acme", "subject": self.maria_id, "permission": "messaging"},
            token=self.checker, via="grpcurl")
        why = self.call(
            "PermissionService/ExplainPermission",
            {"tenant": "acme", "subject": self.maria_id, "permission": "billing.read",
             "resource": "workspaces/paris/folders/42"}, token=self.olga)
        self.assertEqual(
            (why["grounds"]["role"], why["grounds"]["matched_permission"], why["grounds"]["scope"]),
            ("accountant", "billing.*", "workspaces/paris"))
        why = self.call(
            "PermissionService/ExplainPermission",
            {"tenant": "acme", "subject": self.maria_id, "permission": "billing.read",
             "resource": "workspaces/lyon"}, token=self.olga, via="grpcurl")
        remedy = next(r for r in why["remedies"] if r["kind"] == "REMEDY_KIND_ASSIGN_ROLE")
        self.assertIn("accountant", remedy["roles"])
        self.assertIn(self.olga_id, remedy["user_ids"])
        self.tell()

    def test_11_suspension_is_obeyed_by_the_very_next_check(self):
        mine = {"tenant": "acme"}
        self.call("MembershipService/GetMembership", mine, token=self.maria)
        request = {"tenant": "acme", "user_id": self.maria_id, "reason": "laptop left in a train"}
        # Maria is an accountant too, which HR may neither be nor give.
        self.refused("PERMISSION_DENIED", "MEMBER_OUTRANKS_CALLER",
                     "MembershipService/SuspendMembership", request, token=self.hana)
        self.assertEqual(self.check("messaging.use"), (True, "REASON_ALLOWED"))
        self.call("MembershipService/SuspendMembership", request, token=self.olga)
        suspended = (False, "REASON_MEMBERSHIP_SUSPENDED")
        self.assertEqual(self.check("messaging.use"), suspended)
        self.assertEqual(self.check("billing.read", "workspaces/paris"), suspended)
        self.assertFalse(self.check("messaging.use", subject=self.maria)[0])
        with self.assertRaises(Refused) as caught:
            self.call("MembershipService/GetMembership", mine, token=self.maria)
        self.assertEqual(caught.exception.code, "UNAUTHENTICATED")
        self.refused(
            "UNAUTHENTICATED", "SIGN_IN_FAILED", "SessionService/SignIn",
            {"email": MARIA, "password": PASSWORDS[MARIA], "tenant": "acme"})
        self.tell()

    def test_12_reactivation_too_and_ended_sessions_stay_ended(self):
        self.call(
            "MembershipService/ReactivateMembership",
            {"tenant": "acme", "user_id": self.maria_id}, token=self.olga, via="grpcurl")
        self.assertEqual(self.check("messaging.use"), (True, "REASON_ALLOWED"))
        self.assertEqual(
            self.check("billing.read", "workspaces/paris"), (True, "REASON_ALLOWED"))
        self.refused(
            "UNAUTHENTICATED", "SESSION_ENDED", "MembershipService/GetMembership",
            {"tenant": "acme"}, token=self.maria)
        Story.maria = self.sign_in(MARIA, via="grpcurl")
        self.call("MembershipService/GetMembership", {"tenant": "acme"}, token=self.maria)
        self.tell()

    def test_13_the_last_administrator_stays(self):
        self.refused(
            "FAILED_PRECONDITION", "LAST_ADMINISTRATOR", "MembershipService/LeaveTenant",
            {"tenant": "acme"}, token=self.olga)
        self.tell()

    def events(self):
        events, page = [], ""
        while True:
            answer = self.call(
                "AuditService/ListAuditEvents",
                {"tenant": "acme", "oldest_first": True, "page_size": 7, "page_token": page},
                token=self.olga)
            events += answer["events"]
            page = answer["next_page_token"]
            if not page:
                return events

    def test_14_the_audit_log_tells_each_step_and_nobody_altered_it(self):
        events = self.events()
        operator, olga, hana, maria = (
            events[0]["actor"], self.olga_id, self.hana_id, self.maria_id)
        self.assertTrue(operator.startswith("svc_"), events[0])

        def accepted(person, roles):
            """What accepting leaves: an account that nobody had before, and what was promised."""
            return [
                ("user.created", "anonymous", person),
                ("member.added", person, person),
                *[("role.assigned", person, person)] * roles,
                ("invitation.accepted", person, "inv_"),
            ]

        business = ("director", "hr_manager", "network_admin", "it_support", "accountant",
                    "secretary", "employee", "visitor")
        expected = [
            ("tenant.created", operator, "acme"),
            ("role.created", operator, "administrator"),
            ("role.created", operator, "member"),
            ("tenant.plan_changed", operator, "acme"),
            ("invitation.created", operator, "inv_"),
            *accepted(olga, 1),
            ("tenant.activated", olga, "acme"),
            *[("role.created", olga, role) for role in business],
            ("tenant.updated", olga, "acme"),
            ("workspace.created", olga, "paris"),
            ("workspace.created", olga, "lyon"),
            ("invitation.created", olga, "inv_"),
            *accepted(hana, 1),
            ("invitation.created", olga, "inv_"),
            *accepted(maria, 2),
            ("role.created", olga, "checker"),
            ("service_account.created", olga, "svc_"),
            ("role.assigned", olga, "svc_"),
            ("api_key.created", olga, "key_"),
            ("member.suspended", olga, maria),
            ("member.reactivated", olga, maria),
        ]
        told = [(e["verb"], e["actor"], e["target"]) for e in events]
        made = ("inv_", "svc_", "key_")
        self.assertEqual(
            [(v, a, t[:4] if t.startswith(made) else t) for v, a, t in told], expected)
        self.assertEqual(len({e["id"] for e in events}), len(events), "pages repeat nothing")
        self.assertEqual(events[0]["reason"], "signed the contract")
        self.assertTrue(events[0]["after"] and not events[0].get("before"), events[0])
        suspended = next(e for e in events if e["verb"] == "member.suspended")
        self.assertEqual(suspended["before"]["status"], "active")
        self.assertEqual(suspended["after"]["status"], "suspended")
        self.assertEqual(suspended["reason"], "laptop left in a train")
        self.assertTrue(suspended["time"] and suspended["source"] == "127.0.0.1", suspended)
        verified = self.call("AuditService/VerifyAuditLog", {"tenant": "acme"}, token=self.olga)
        self.assertTrue(verified["ok"], verified)
        self.assertEqual(int(verified["checked_count"]), len(events))
        self.assertEqual(verified["head_hash"], events[-1]["hash"])
        system = self.call(
            "AuditService/VerifyAuditLog", {"tenant": "system"}, token=self.operator, via="grpcurl")
        self.assertTrue(system["ok"], system)
        self.tell()

    def test_15_a_test_mail_reports_the_steps_of_the_server(self):
        steps = self.api.stream(
            "MailService/SendTestEmail", {"tenant": "acme", "to": "it@acme.example"},
            token=self.olga)
        self.assertTrue(all(step["ok"] for step in steps), steps)
        self.assertEqual(steps[0]["step"], "STEP_NAME_RESOLVE")
        self.assertEqual(steps[-1]["step"], "STEP_NAME_QUEUED")
        self.assertIn("taken", steps[-1]["server_reply"])
        self.mailbox.wait_for("it@acme.example")
        self.tell()

    def test_16_it_stops_cleanly_and_logged_no_secret(self):
        code, seconds = self.server.stop()
        log = self.server.log.read_text()
        self.assertEqual(code, 0, f"after {seconds:.1f} s:\n{log[-4000:]}")
        pid_files = list(self.server.folder.rglob("postmaster.pid"))
        self.assertEqual(pid_files, [], "PostgreSQL was stopped too")
        self.assertTrue(log, "the log goes to stderr")
        for secret in self.secrets:
            self.assertNotIn(secret, log)
        self.assertNotIn(MARIA, log, "no address in a log")
        self.tell()
