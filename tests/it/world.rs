//! A world per test: a fresh database of one PostgreSQL, a real server on ports of its own, real
//! clients, and the mailbox. Time moves only when a test moves it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rolecall::{
    db,
    dev::postgres::{Options, Postgres},
    faults::Faults,
    mail::Mail,
    proto::{self as pb, accept_invitation_request::Account},
    secret::Keys,
    server::{Server, Settings},
    service_accounts,
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::OnceCell;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

/// How often in a row as many mails may be unsent as before, until they count as left.
const PATIENCE: u32 = 500;

pub const PASSWORD: &str = "correct horse battery staple";

/// Removes what runs left behind that are over: nothing of theirs runs after their last test.
fn sweep() {
    let running = |process: u32| Path::new("/proc").join(process.to_string()).exists();
    if !running(std::process::id()) {
        return;
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.strip_prefix("rolecall-").unwrap_or_default().split('-');
        if parts.find_map(|part| part.parse().ok()).is_some_and(|process| !running(process)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// One PostgreSQL for the whole run, with a migrated template.
async fn postgres() -> &'static Postgres {
    static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();
    POSTGRES
        .get_or_init(|| async {
            sweep();
            let folder = std::env::temp_dir().join(format!("rolecall-test-{}", std::process::id()));
            let options = Options { data_dir: folder, bin_dir: None, port: 0, durable: false };
            let postgres = Postgres::start(options).await.unwrap();
            let mut conn = PgConnection::connect(&postgres.superuser_url()).await.unwrap();
            conn.execute("create database template_rolecall").await.unwrap();
            db::migrate(&postgres.url("template_rolecall").into()).await.unwrap();
            postgres
        })
        .await
}

/// A fresh, migrated database.
pub async fn database() -> SecretString {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let postgres = postgres().await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut conn = PgConnection::connect(&postgres.superuser_url()).await.unwrap();
    let create = format!("create database {name} template template_rolecall");
    conn.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
    postgres.url(&name).into()
}

pub struct World {
    pub server: Server,
    pub database: SecretString,
    pub operator: Api,
    /// For another server of the same installation.
    pub keys: SecretString,
    mails: PathBuf,
    read: HashSet<PathBuf>,
}

impl World {
    /// The database, as its owner.
    pub async fn owner(&self) -> PgConnection {
        PgConnection::connect(self.database.expose_secret()).await.unwrap()
    }

    pub async fn start() -> Self {
        let database = database().await;
        let mails = std::env::temp_dir().join(format!(
            "rolecall-mails-{}-{}",
            std::process::id(),
            database.expose_secret().rsplit('/').next().unwrap()
        ));
        std::fs::create_dir_all(&mails).unwrap();
        let keys = Keys::generate().unwrap();
        let mail_url = format!("file://{}", mails.display());
        let settings = settings(&database, Keys::parse(&keys).unwrap(), &mail_url);
        let server = Server::start(settings).await.unwrap();
        let (_, _, key) = service_accounts::create_operator(&server.app, "test").await.unwrap();
        let operator = Api::connect(&server, key.expose_secret()).await;
        Self { server, database, operator, keys, mails, read: HashSet::new() }
    }

    pub fn advance(&self, by: Duration) {
        self.server.app.clock.advance(by);
    }

    /// Waits for the next mail to this address, and reads it once.
    pub async fn mail_to(&mut self, address: &str) -> String {
        for _ in 0..400 {
            for entry in std::fs::read_dir(&self.mails).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let to = text.lines().find(|l| l.starts_with("To:")).unwrap_or_default();
                if to.contains(address)
                    && path.extension().is_some_and(|e| e == "eml")
                    && self.read.insert(path)
                {
                    return text;
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no mail to {address} in 10 s");
    }

    pub fn mails_to(&self, address: &str) -> usize {
        let entries = std::fs::read_dir(&self.mails).unwrap();
        let texts = entries.map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap_or_default());
        texts.filter(|t| t.lines().any(|l| l.starts_with("To:") && l.contains(address))).count()
    }

    /// How many mails to this address there are, sent or not.
    pub async fn queued(&self, address: &str) -> i64 {
        let count = sqlx::query_scalar("select count(*) from mails where recipient = $1");
        count.bind(address).fetch_one(&self.server.app.pool).await.unwrap()
    }

    pub async fn token_to(&mut self, address: &str) -> String {
        token_of(&self.mail_to(address).await)
    }

    pub async fn anonymous(&self) -> Api {
        Api::connect(&self.server, "").await
    }

    pub async fn with(&self, credential: &str) -> Api {
        Api::connect(&self.server, credential).await
    }

    /// An active tenant, and its administrator `admin@<key>.example`.
    pub async fn tenant(&mut self, key: &str) -> (Api, String) {
        let email = format!("admin@{key}.example");
        let administrator = pb::TenantAdministrator {
            email: email.clone(),
            first_name: "Ada".into(),
            last_name: "Admin".into(),
            ..Default::default()
        };
        let create = pb::CreateTenantRequest {
            key: key.into(),
            display_name: key.to_uppercase(),
            administrator: Some(administrator),
            plan: "premium".into(),
            ..Default::default()
        };
        self.operator.tenants().create_tenant(create).await.unwrap();
        let user = self.accept(&email).await;
        (self.sign_in(key, &email).await, user)
    }

    /// Accepts the invitation that was mailed to this address, with [`PASSWORD`].
    pub async fn accept(&mut self, email: &str) -> String {
        let token = self.token_to(email).await;
        let accepted = self.anonymous().await.invitations().accept_invitation(accept(&token)).await;
        accepted.unwrap().into_inner().user_id
    }

    pub async fn sign_in(&self, tenant: &str, email: &str) -> Api {
        let token = self.session(tenant, email).await;
        self.with(&token).await
    }

    pub async fn session(&self, tenant: &str, email: &str) -> String {
        let request = pb::SignInRequest {
            tenant: tenant.into(),
            email: email.into(),
            password: PASSWORD.into(),
        };
        let answer = self.anonymous().await.sessions().sign_in(request).await.unwrap();
        answer.into_inner().token
    }

    /// Invites and accepts; roles as (role, scope).
    pub async fn member(
        &mut self,
        by: &Api,
        tenant: &str,
        email: &str,
        roles: &[(&str, &str)],
    ) -> String {
        by.invitations().create_invitation(invite(tenant, email, roles)).await.unwrap();
        self.accept(email).await
    }

    pub async fn stop(self) {
        let pool = &self.server.app.pool;
        let (mut unsent, mut patience) = (i64::MAX, PATIENCE);
        // A mail lies in its folder a moment before its row says so, and some tests send thousands.
        while unsent > 0 && patience > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let left = sqlx::query_scalar::<_, i64>(
                "select count(*) from mails where status in ('queued', 'sending')",
            );
            let left = left.fetch_one(pool).await.unwrap();
            patience = if left < unsent { PATIENCE } else { patience - 1 };
            unsent = left;
        }
        self.server.stop().await;
        let _ = std::fs::remove_dir_all(&self.mails);
        assert_eq!(unsent, 0, "a test must not leave mail unsent");
    }
}

pub fn settings(database: &SecretString, keys: Keys, mail_url: &str) -> Settings {
    Settings {
        database: database.clone(),
        database_pool: 8,
        lease: Duration::from_secs(10),
        replica_name: "test".to_owned(),
        state_dir: None,
        quorum: false,
        faults: Faults::default(),
        facts_memory: 1 << 30,
        warm_tenants: Vec::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        keys,
        mail: Mail::parse(&mail_url.into(), "Rolecall <rolecall@localhost>").unwrap(),
        mail_templates: None,
        public_url: None,
        open_reflection: false,
        trusted_proxies: Vec::new(),
        tls: None,
        drain: Duration::ZERO,
    }
}

/// The link's token in a mail, whatever its transfer encoding.
pub fn token_of(mail: &str) -> String {
    link_of(mail, "rci_")
}

/// The token with this prefix in a mail.
pub fn link_of(mail: &str, prefix: &str) -> String {
    let text = mail.replace("=\r\n", "").replace("=\n", "");
    let at = text.find(prefix).expect("a link in the mail");
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

pub fn accept(token: &str) -> pb::AcceptInvitationRequest {
    let account = pb::NewAccount {
        password: PASSWORD.into(),
        first_name: "New".into(),
        last_name: "Person".into(),
    };
    let account = Some(Account::NewAccount(account));
    pb::AcceptInvitationRequest { token: token.into(), account }
}

pub fn invite(tenant: &str, email: &str, roles: &[(&str, &str)]) -> pb::CreateInvitationRequest {
    pb::CreateInvitationRequest {
        tenant: tenant.into(),
        email: email.into(),
        kind: pb::MemberKind::Internal.into(),
        roles: roles.iter().map(|(role, scope)| role_on(role, scope)).collect(),
        ..Default::default()
    }
}

pub fn role_on(role: &str, scope: &str) -> pb::AssignRole {
    pb::AssignRole { role: role.into(), scope: scope.into(), ..Default::default() }
}

pub fn check(
    tenant: &str,
    subject: &str,
    permission: &str,
    resource: &str,
) -> pb::CheckPermissionRequest {
    pb::CheckPermissionRequest {
        tenant: tenant.into(),
        subject: subject.into(),
        permission: permission.into(),
        resource: resource.into(),
        ..Default::default()
    }
}

/// The stable reason of an error.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The field that an `INVALID_ARGUMENT` names.
pub fn field(status: &Status) -> String {
    let bad = status.get_details_bad_request();
    bad.and_then(|b| b.field_violations.first().map(|v| v.field.clone())).unwrap_or_default()
}

/// A caller: a channel and a credential.
#[derive(Clone)]
pub struct Api {
    pub channel: Channel,
    pub auth: Auth,
}

#[derive(Clone)]
pub struct Auth {
    credential: Option<MetadataValue<Ascii>>,
    on_behalf_of: Option<MetadataValue<Ascii>>,
}

impl Auth {
    /// Nobody's, when it is empty.
    pub fn of(credential: &str) -> Self {
        let credential = (!credential.is_empty())
            .then(|| MetadataValue::from_str(&format!("Bearer {credential}")).unwrap());
        Self { credential, on_behalf_of: None }
    }
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(credential) = &self.credential {
            request.metadata_mut().insert("authorization", credential.clone());
        }
        if let Some(user) = &self.on_behalf_of {
            request.metadata_mut().insert("rolecall-on-behalf-of", user.clone());
        }
        Ok(request)
    }
}

pub type Authed = InterceptedService<Channel, Auth>;

macro_rules! clients {
    ($($name:ident: $module:ident::$client:ident),* $(,)?) => {$(
        pub fn $name(&self) -> pb::$module::$client<Authed> {
            pb::$module::$client::with_interceptor(self.channel.clone(), self.auth.clone())
        }
    )*};
}

impl Api {
    pub async fn connect(server: &Server, credential: &str) -> Self {
        Self::to(&format!("http://{}", server.grpc), credential).await
    }

    pub async fn to(address: &str, credential: &str) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned());
        let channel = endpoint.unwrap().connect().await.unwrap();
        Self { channel, auth: Auth::of(credential) }
    }

    /// The same caller at another server.
    pub async fn at(&self, server: &Server) -> Self {
        Self { auth: self.auth.clone(), ..Self::connect(server, "").await }
    }

    /// What it sends as `authorization`.
    pub fn bearer(&self) -> &str {
        self.auth.credential.as_ref().map_or("", |credential| credential.to_str().unwrap())
    }

    pub fn on_behalf_of(&self, user: &str) -> Self {
        let on_behalf_of = Some(user.parse().unwrap());
        Self { channel: self.channel.clone(), auth: Auth { on_behalf_of, ..self.auth.clone() } }
    }

    clients! {
        audit: audit_service_client::AuditServiceClient,
        groups: group_service_client::GroupServiceClient,
        imports: import_service_client::ImportServiceClient,
        invitations: invitation_service_client::InvitationServiceClient,
        mail: mail_service_client::MailServiceClient,
        memberships: membership_service_client::MembershipServiceClient,
        permissions: permission_service_client::PermissionServiceClient,
        plans: plan_service_client::PlanServiceClient,
        roles: role_service_client::RoleServiceClient,
        service_accounts: service_account_service_client::ServiceAccountServiceClient,
        sessions: session_service_client::SessionServiceClient,
        tenants: tenant_service_client::TenantServiceClient,
        users: user_service_client::UserServiceClient,
        workspaces: workspace_service_client::WorkspaceServiceClient,
    }
}
