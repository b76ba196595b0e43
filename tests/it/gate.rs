//! The gate, for every RPC that the descriptor knows: a new one fails here until it is guarded.

use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, MethodDescriptor,
    ReflectMessage, Value,
};
use rolecall::proto::{self as pb, DESCRIPTOR, RULES, Rule};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    imports::preview,
    world::{Api, PASSWORD, World, invite, reason},
};

/// What requests are filled with.
struct Filling {
    tenant: String,
    user: String,
    invitation: String,
    service_account: String,
    api_key: String,
    session: String,
    assignment: String,
    import: String,
}

impl Filling {
    fn unknown(tenant: &str) -> Self {
        let id = |prefix: &str| format!("{prefix}{}", "0".repeat(32));
        Self {
            tenant: tenant.to_owned(),
            user: id("usr_"),
            invitation: id("inv_"),
            service_account: id("svc_"),
            api_key: id("key_"),
            session: id("ses_"),
            assignment: id("asg_"),
            import: id("imp_"),
        }
    }
}

fn methods() -> Vec<(String, MethodDescriptor, Rule)> {
    let pool = DescriptorPool::decode(DESCRIPTOR).unwrap();
    let methods = pool.services().flat_map(|s| s.methods().collect::<Vec<_>>());
    methods
        .map(|m| {
            let path = format!("/{}/{}", m.parent_service().full_name(), m.name());
            let rule = RULES.iter().find(|(p, _)| *p == path);
            let (_, rule) = rule.unwrap_or_else(|| panic!("{path} has no access rule"));
            (path, m, *rule)
        })
        .collect()
}

/// A request whose every field has a plausible value.
fn fill(descriptor: &MessageDescriptor, with: &Filling) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if field.name() == "display_names" || field.name() == "descriptions" {
            let names = [(MapKey::String("en".to_owned()), Value::String("Name".to_owned()))];
            message.set_field(&field, Value::Map(names.into()));
        }
        if field.containing_oneof().is_some() || field.is_map() {
            continue;
        }
        let text = |text: &str| Some(Value::String(text.to_owned()));
        let value = match (field.name(), field.kind()) {
            // Nothing is written, so that each call finds what the one before found.
            ("validate_only", _) => Some(Value::Bool(true)),
            ("request_id" | "etag" | "page_token" | "reason", _) => None,
            ("after_revision" | "verbs", _) => None,
            ("tenant", _) => text(&with.tenant),
            ("user_id" | "subject" | "user_ids" | "administrator_user_id", Kind::String) => {
                text(&with.user)
            }
            ("invitation_id", _) => text(&with.invitation),
            ("import_id", _) => text(&with.import),
            ("service_account_id" | "service_account", Kind::String) => text(&with.service_account),
            ("api_key_id" | "key_id", _) => text(&with.api_key),
            ("session_id", _) => text(&with.session),
            ("remove", Kind::String) => text(&with.assignment),
            ("email" | "to" | "reply_to", Kind::String) => text("someone@else.example"),
            ("password" | "current_password" | "new_password", _) => text(PASSWORD),
            ("module", _) => text("files"),
            ("permission" | "permissions", Kind::String) => text("files.read"),
            (
                "source_address" | "resource" | "scope" | "home_url" | "invitation_page"
                | "external_id" | "key_prefix" | "query",
                _,
            ) => None,
            ("language", _) => text("en"),
            ("phone", _) => text("+33612345678"),
            ("role" | "default_role", Kind::String) => text("member"),
            ("workspace", Kind::String) => text("paris"),
            ("sector", _) => text("business"),
            ("includes" | "may_grant" | "exclusive_set" | "allowed_email_domains", _) => None,
            ("group" | "key", _) => text("sales"),
            ("plan", Kind::String) => text("premium"),
            ("kind", Kind::Enum(_)) => Some(Value::EnumNumber(1)),
            (_, Kind::Message(m)) if m.full_name() == "rolecall.v1.AssignRole" => {
                Some(Value::Message(fill(&m, with)))
            }
            (_, Kind::Message(m)) if m.full_name().starts_with("rolecall.v1.") => {
                Some(Value::Message(fill(&m, with)))
            }
            (_, Kind::String) => text("Some text"),
            _ => None,
        };
        if let Some(value) = value {
            let value = if field.is_list() { Value::List(vec![value]) } else { value };
            message.set_field(&field, value);
        }
    }
    message
}

/// Sends and receives messages as they are on the wire.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut;
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        use bytes::Buf;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn call(api: &Api, path: &str, message: &DynamicMessage) -> Result<Bytes, Status> {
    use prost::Message;
    let service =
        tonic::service::interceptor::InterceptedService::new(api.channel.clone(), api.auth.clone());
    let mut grpc = Grpc::new(service);
    grpc.ready().await.map_err(|e| Status::unknown(e.to_string()))?;
    let path = path.parse().unwrap();
    let request = Request::new(Bytes::from(message.encode_to_vec()));
    // The first message says enough about a stream, which may have no last one.
    let mut answer = grpc.server_streaming(request, path, Raw).await?.into_inner();
    answer.message().await.map(Option::unwrap_or_default)
}

/// A service account without any role, and its key.
async fn nobody(by: &Api, tenant: &str) -> (String, String, String) {
    let create = pb::CreateServiceAccountRequest {
        tenant: tenant.into(),
        key: "nobody".into(),
        display_name: "Nobody".into(),
        ..Default::default()
    };
    let account = by.service_accounts().create_service_account(create).await.unwrap();
    let account = account.into_inner().service_account.unwrap().id;
    let create = pb::CreateApiKeyRequest {
        tenant: tenant.into(),
        service_account_id: account.clone(),
        display_name: "test".into(),
        ..Default::default()
    };
    let key = by.service_accounts().create_api_key(create).await.unwrap().into_inner();
    (account, key.api_key.unwrap().id, key.secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_guarded_rpc_refuses_a_missing_malformed_unknown_or_revoked_credential() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let (_, key, secret) = nobody(&admin, "acme").await;
    let revoke =
        pb::RevokeApiKeyRequest { tenant: "acme".into(), api_key_id: key, ..Default::default() };
    admin.service_accounts().revoke_api_key(revoke).await.unwrap();

    let forged = format!("rcs_{}", "A".repeat(131));
    let cases = [
        ("", "CREDENTIAL_MISSING"),
        ("hello", "CREDENTIAL_MALFORMED"),
        ("rck_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "CREDENTIAL_UNKNOWN"),
        (forged.as_str(), "CREDENTIAL_UNKNOWN"),
        (secret.as_str(), "KEY_REVOKED"),
    ];
    let filling = Filling::unknown("acme");
    for (credential, expected) in cases {
        let api = world.with(credential).await;
        for (path, method, rule) in methods() {
            if rule == Rule::Public {
                continue;
            }
            let refused = call(&api, &path, &fill(&method.input(), &filling)).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{path} with {credential:?}");
            assert_eq!(reason(&refused), expected, "{path} with {credential:?}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_that_takes_a_permission_refuses_a_caller_without_it() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (_, _, secret) = nobody(&admin, "acme").await;
    let api = world.with(&secret).await;
    let filling = Filling { user, ..Filling::unknown("acme") };
    let mut asked = 0;
    for (path, method, rule) in methods() {
        let (Rule::Permission { .. } | Rule::Oneself { .. }) = rule else { continue };
        asked += 1;
        let refused = call(&api, &path, &fill(&method.input(), &filling)).await;
        let refused = refused.err().unwrap_or_else(|| panic!("{path} let a nobody pass"));
        assert_eq!(refused.code(), Code::PermissionDenied, "{path}: {}", refused.message());
    }
    assert!(asked > 50, "only {asked} methods");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_names_and_ids_tell_nothing() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, victim) = world.tenant("beta").await;
    let (account, key, _) = nobody(&beta, "beta").await;
    let invited = beta.invitations().create_invitation(invite("beta", "x@y.example", &[])).await;
    let invitation = invited.unwrap().into_inner().invitation.unwrap().id;
    world.mail_to("x@y.example").await;
    let list = pb::ListSessionsRequest { tenant: "beta".into(), ..Default::default() };
    let sessions = beta.sessions().list_sessions(list).await.unwrap().into_inner().sessions;
    let session = sessions.first().expect("the administrator's own").id.clone();
    let get = pb::GetMembershipRequest { tenant: "beta".into(), user_id: victim.clone() };
    let member = beta.memberships().get_membership(get).await.unwrap().into_inner().membership;
    let assignment = member.unwrap().roles.first().expect("the administrator's role").id.clone();
    let file = preview(&beta, "beta", b"email\nz@y.example").await.unwrap();
    let import = file.import.expect("a plan").id;
    let foreign = |tenant: &str| Filling {
        tenant: tenant.into(),
        user: victim.clone(),
        invitation: invitation.clone(),
        service_account: account.clone(),
        api_key: key.clone(),
        session: session.clone(),
        assignment: assignment.clone(),
        import: import.clone(),
    };
    // In the other's tenant, and in one's own with the other's ids: as if they did not exist.
    for tenant in ["beta", "acme"] {
        let nowhere = if tenant == "beta" { "nowhere" } else { tenant };
        for (path, method, rule) in methods() {
            let names_tenant = method.input().get_field_by_name("tenant").is_some();
            if rule == Rule::Public || !names_tenant {
                continue;
            }
            let real = call(&acme, &path, &fill(&method.input(), &foreign(tenant))).await;
            let fake = call(&acme, &path, &fill(&method.input(), &Filling::unknown(nowhere))).await;
            match (real, fake) {
                (Err(real), Err(fake)) => {
                    let blind = |s: &Status| {
                        let mut text = s.message().to_owned();
                        let ids =
                            [&victim, &invitation, &account, &key, &session, &assignment, &import];
                        for word in ids {
                            text = text.replace(word.as_str(), "<id>");
                        }
                        for prefix in ["usr_", "inv_", "svc_", "key_", "ses_", "asg_", "imp_"] {
                            text = text.replace(&format!("{prefix}{}", "0".repeat(32)), "<id>");
                        }
                        (s.code(), reason(s), text.replace("nowhere", "beta"))
                    };
                    assert_eq!(blind(&real), blind(&fake), "{path} on {tenant}");
                }
                (Ok(real), Ok(fake)) => {
                    assert_eq!(tenant, "acme", "{path} let a stranger into beta");
                    // Lists and the like of one's own tenant; they name nobody of the other.
                    let text = String::from_utf8_lossy(&real);
                    assert!(!text.contains(&victim) && !text.contains("beta"), "{path}: {text}");
                    drop(fake);
                }
                (real, fake) => panic!("{path} on {tenant} differs: {real:?} / {fake:?}"),
            }
        }
    }
    world.stop().await;
}

/// The message once for every text in it, with that one replaced; and the names of the fields.
fn replaced(message: &DynamicMessage, text: &str, with: &Filling) -> Vec<(String, DynamicMessage)> {
    let mut all = Vec::new();
    for field in message.descriptor().fields().filter(|field| !field.is_map()) {
        let parts = match field.kind() {
            Kind::String => vec![(String::new(), Value::String(text.to_owned()))],
            Kind::Message(inner) if inner.full_name().starts_with("rolecall.v1.") => {
                let inner = replaced(&fill(&inner, with), text, with);
                inner.into_iter().map(|(name, part)| (name, Value::Message(part))).collect()
            }
            _ => continue,
        };
        for (name, part) in parts {
            let mut one = message.clone();
            one.set_field(&field, if field.is_list() { Value::List(vec![part]) } else { part });
            all.push((format!("{} {name}", field.name()), one));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_is_a_fault_of_ours_or_repeated_at_length() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let filling = Filling { user, ..Filling::unknown("acme") };
    let mut asked = 0;
    for text in ["a\u{0}".to_owned(), "x".repeat(50_000), "語".repeat(20_000)] {
        for (path, method, _) in methods() {
            let api = if method.input().get_field_by_name("tenant").is_some() {
                &admin
            } else {
                &world.operator
            };
            for (field, message) in replaced(&fill(&method.input(), &filling), &text, &filling) {
                asked += 1;
                let Err(refused) = call(api, &path, &message).await else { continue };
                let shown = text.chars().next();
                assert_ne!(refused.code(), Code::Internal, "{path} {field}: {shown:?}");
                let length = refused.message().len() + refused.details().len();
                assert!(length < 4_000, "{path} {field}: answers {length} bytes");
            }
        }
    }
    assert!(asked > 500, "only {asked} texts");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_needs_a_credential_where_it_is_not_open() {
    let world = World::start().await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let pool = DescriptorPool::decode(DESCRIPTOR).unwrap();
    let empty =
        DynamicMessage::new(pool.get_message_by_name("rolecall.v1.GetTenantRequest").unwrap());
    let refused = call(&world.anonymous().await, path, &empty).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_would_do_and_a_tenant_that_is_none_is_called_so() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let bob = world.sign_in("acme", "bob@acme.example").await;
    let remove =
        pb::RemoveMembershipRequest { tenant: "acme".into(), user_id: user, ..Default::default() };
    let refused = bob.memberships().remove_membership(remove).await.unwrap_err();
    let wanted = "`iam.members.remove.internal` or `iam.members.remove.external` on tenant `acme`";
    assert!(refused.message().contains(wanted), "{refused:?}");
    for (by, tenant, code) in [
        (&world.operator, "nowhere", Code::NotFound),
        (&world.operator, "ACME", Code::InvalidArgument),
        (&admin, "", Code::InvalidArgument),
        (&admin, "nowhere", Code::PermissionDenied),
    ] {
        let list = pb::ListMembershipsRequest { tenant: tenant.into(), ..Default::default() };
        let refused = by.memberships().list_memberships(list).await.unwrap_err();
        assert_eq!(refused.code(), code, "{tenant}: {refused:?}");
    }
    world.stop().await;
}
