"""What every client finds before it knows the API: health, reflection in both versions, errors that
explain themselves, and metrics on the admin port."""

import unittest
import urllib.request

import grpc
from clients import Api, Refused, Server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

SERVICES = {
    f"rolecall.v1.{name}Service"
    for name in ("Audit", "Group", "Import", "Invitation", "Mail", "Membership", "Permission", "Plan", "Role",
                 "ServiceAccount", "Session", "Tenant", "User", "Workspace")
}


class Surface(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.forget)
        cls.api = Api(cls.server.grpc)
        cls.addClassCleanup(cls.api.close)

    def listed(self, version):
        """The services that reflection lists; the messages of both versions are the same."""
        ask = self.api.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString)
        question = reflection_pb2.ServerReflectionRequest(list_services="*")
        answer = next(iter(ask(iter([question]), timeout=10)))
        return {service.name for service in answer.list_services_response.service}

    def test_reflection_lists_every_service_in_both_versions(self):
        for version in ("v1", "v1alpha"):
            with self.subTest(version):
                listed = self.listed(version)
                self.assertEqual({s for s in listed if s.startswith("rolecall.")}, SERVICES)
                self.assertIn("grpc.health.v1.Health", listed)

    def test_reflection_keeps_who_may_call(self):
        found = self.api.pool.FindServiceByName("rolecall.v1.PermissionService")
        options = found.FindMethodByName("CheckPermission").GetOptions()
        self.assertIn("iam.permissions.check", str(options) + repr(options.SerializeToString()))

    def test_health_answers_on_both_ports(self):
        for address in (self.server.grpc, self.server.admin):
            with self.subTest(address), grpc.insecure_channel(address) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=10)
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_metrics_answer_on_the_admin_port(self):
        self.api.call("TenantService/ListTenants", token=self.server.api_key)
        with urllib.request.urlopen(f"http://{self.server.admin}/metrics", timeout=10) as page:
            text = page.read().decode()
        self.assertEqual(page.status, 200)
        self.assertIn("rolecall.v1.TenantService", text)

    def test_errors_name_field_reason_and_remedy(self):
        for via in ("grpcio", "grpcurl"):
            with self.subTest(via), self.assertRaises(Refused) as caught:
                self.api.call(
                    "TenantService/CreateTenant", {"key": "No Spaces", "display_name": "x"},
                    token=self.server.api_key, via=via)
            refusal = caught.exception
            self.assertEqual((refusal.code, refusal.reason), ("INVALID_ARGUMENT", "INVALID_FIELD"))
            violations = refusal.detail("BadRequest")
            violations = violations.get("field_violations") or violations["fieldViolations"]
            self.assertEqual(violations[0]["field"], "key", refusal)
            self.assertTrue(violations[0]["description"], refusal)

    def test_without_a_credential_nothing_but_the_public_is_answered(self):
        with self.assertRaises(Refused) as caught:
            self.api.call("TenantService/ListTenants")
        self.assertEqual(
            (caught.exception.code, caught.exception.reason),
            ("UNAUTHENTICATED", "CREDENTIAL_MISSING"))
        with self.assertRaises(Refused) as caught:
            self.api.call("TenantService/ListTenants", token="rck_" + "A" * 43, via="grpcurl")
        self.assertEqual(caught.exception.code, "UNAUTHENTICATED")

    def test_an_unknown_tenant_looks_like_one_that_is_not_yours(self):
        key = self.server.api_key
        self.assertTrue(self.api.call("TenantService/GetTenant", {"tenant": "demo"}, token=key))
        with self.assertRaises(Refused) as caught:
            self.api.call("TenantService/GetTenant", {"tenant": "nowhere"}, token=key)
        self.assertIn(caught.exception.code, ("NOT_FOUND", "PERMISSION_DENIED"))
