//! The demo tenant, made through the API like anybody else's.

use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    ids::InvitationId,
    proto::{
        self as pb, accept_invitation_request::Account,
        invitation_service_client::InvitationServiceClient, role_service_client::RoleServiceClient,
        tenant_service_client::TenantServiceClient,
        workspace_service_client::WorkspaceServiceClient,
    },
    server::Server,
};

pub const TENANT: &str = "demo";
pub const EMAIL: &str = "ada@demo.example";
pub const PASSWORD: &str = "correct horse battery staple";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Makes the tenant if it is not there, with an administrator, roles and two workspaces. A run that was
/// cut short is gone on with.
pub async fn load(server: &Server, api_key: &SecretString) -> Result<(), Error> {
    let bearer = format!("Bearer {}", api_key.expose_secret()).parse()?;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc))?;
    let channel = channel.connect().await?;
    let demo = Demo { channel, bearer };
    if let Some(invitation) = demo.create_tenant().await? {
        demo.accept(server, invitation).await?;
    }
    let roles = pb::InstallRoleTemplatesRequest {
        tenant: TENANT.to_owned(),
        sector: "business".to_owned(),
        set_default_role: true,
        ..Default::default()
    };
    RoleServiceClient::new(demo.channel.clone()).install_role_templates(demo.by(roles)).await?;
    for (key, display_name) in [("paris", "Paris"), ("lyon", "Lyon")] {
        let workspace = pb::CreateWorkspaceRequest {
            tenant: TENANT.to_owned(),
            key: key.to_owned(),
            display_name: display_name.to_owned(),
            ..Default::default()
        };
        let mut workspaces = WorkspaceServiceClient::new(demo.channel.clone());
        unless_there(workspaces.create_workspace(demo.by(workspace)).await)?;
    }
    Ok(())
}

struct Demo {
    channel: Channel,
    bearer: MetadataValue<Ascii>,
}

impl Demo {
    fn by<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    /// The administrator's invitation, when it has not been accepted yet.
    async fn create_tenant(&self) -> Result<Option<InvitationId>, Error> {
        let administrator = pb::TenantAdministrator {
            email: EMAIL.to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            language: "en".to_owned(),
        };
        let tenant = pb::CreateTenantRequest {
            key: TENANT.to_owned(),
            display_name: "Demo".to_owned(),
            administrator: Some(administrator),
            plan: "premium".to_owned(),
            ..Default::default()
        };
        let mut tenants = TenantServiceClient::new(self.channel.clone());
        if let Some(created) = unless_there(tenants.create_tenant(self.by(tenant)).await)? {
            return Ok(Some(created.into_inner().invitation_id.parse()?));
        }
        let pending = pb::ListInvitationsRequest {
            tenant: TENANT.to_owned(),
            status: pb::InvitationStatus::Pending.into(),
            ..Default::default()
        };
        let mut invitations = InvitationServiceClient::new(self.channel.clone());
        let listed = invitations.list_invitations(self.by(pending)).await?.into_inner().invitations;
        let ours = listed.into_iter().find(|invitation| invitation.email == EMAIL);
        Ok(ours.map(|invitation| invitation.id.parse()).transpose()?)
    }

    async fn accept(&self, server: &Server, invitation: InvitationId) -> Result<(), Error> {
        let facts = server.app.replica.facts();
        let tenant = facts.directory.tenants.get(TENANT).ok_or("the demo tenant is missing")?.id;
        // As in the mail: the link of the first generation.
        let token = server.app.keys.invitation_token(tenant, invitation, 1);
        let account = pb::NewAccount {
            password: PASSWORD.to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
        };
        let accept = pb::AcceptInvitationRequest {
            token: token.expose_secret().to_owned(),
            account: Some(Account::NewAccount(account)),
        };
        InvitationServiceClient::new(self.channel.clone()).accept_invitation(accept).await?;
        Ok(())
    }
}

fn unless_there<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::AlreadyExists => Ok(None),
        Err(status) => Err(status),
    }
}
