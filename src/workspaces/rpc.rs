//! The WorkspaceService: generated types in and out.

use tonic::{Request, Response, Status};

use super::{Deleted, Loss, NewWorkspace, Workspace, WorkspaceEdit, sql};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    change::{self, Options},
    decision::scope_text,
    edit::{Mask, etag},
    error::{Error, Result},
    ids::Key,
    page::Page,
    proto::{self as pb, workspace_service_server::WorkspaceService},
    text,
};

#[tonic::async_trait]
impl WorkspaceService for Rpc {
    async fn create_workspace(
        &self,
        request: Request<pb::CreateWorkspaceRequest>,
    ) -> Result<Response<pb::CreateWorkspaceResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let new = NewWorkspace::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                let workspace = super::create(change, new).await?;
                let workspace = Some(workspace.into());
                Ok(pb::CreateWorkspaceResponse { workspace, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_workspace(
        &self,
        request: Request<pb::GetWorkspaceRequest>,
    ) -> Result<Response<pb::GetWorkspaceResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let scope = scope(&request.workspace)?;
        let claim = call.claim_each(&request.tenant, "iam.workspaces.read", [scope])?;
        let permit = permit(&self.0, &call, &claim).await?;
        let workspace = sql::get(&self.0.pool, &permit, &request.workspace).await?;
        Ok(Response::new(pb::GetWorkspaceResponse {
            workspace: Some(workspace.into()),
            revision: permit.revision().text(),
        }))
    }

    async fn list_workspaces(
        &self,
        request: Request<pb::ListWorkspacesRequest>,
    ) -> Result<Response<pb::ListWorkspacesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let binding = ("workspaces", &request.tenant);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::list(&self.0.pool, &permit, after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.key.to_string())?;
        Ok(Response::new(pb::ListWorkspacesResponse {
            workspaces: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_workspace(
        &self,
        request: Request<pb::UpdateWorkspaceRequest>,
    ) -> Result<Response<pb::UpdateWorkspaceResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let scope = scope(&request.workspace)?;
        let claim = call.claim_each(&request.tenant, "iam.workspaces.update", [scope])?;
        let edit = WorkspaceEdit::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let workspace = super::update(change, edit).await?;
                let workspace = Some(workspace.into());
                Ok(pb::UpdateWorkspaceResponse { workspace, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn delete_workspace(
        &self,
        request: Request<pb::DeleteWorkspaceRequest>,
    ) -> Result<Response<pb::DeleteWorkspaceResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let scope = scope(&request.workspace)?;
        let claim = call.claim_each(&request.tenant, "iam.workspaces.delete", [scope])?;
        let answer = change::run(&self.0, &call, claim, options, request, |change, request| {
            Box::pin(async move {
                let deleted = super::delete(change, &request.workspace, &request.etag).await?;
                let Deleted { losses, cancelled_invitations } = deleted;
                let count = |count: usize| i32::try_from(count).map_err(Error::internal);
                Ok(pb::DeleteWorkspaceResponse {
                    ended_assignment_count: count(losses.len())?,
                    losses: losses.into_iter().take(MAX_LOSSES).map(Into::into).collect(),
                    cancelled_invitation_count: count(cancelled_invitations)?,
                    ..Default::default()
                })
            })
        });
        Ok(Response::new(answer.await?))
    }
}

/// The most losses that an answer lists.
const MAX_LOSSES: usize = 1_000;

impl From<Loss> for pb::WorkspaceLoss {
    fn from(loss: Loss) -> Self {
        Self {
            holder: loss.holder.to_string(),
            role: loss.role,
            scope: loss.scope,
            end_time: loss.ends.map(pb::timestamp),
        }
    }
}

/// Where a workspace is, by its key.
fn scope(workspace: &str) -> Result<String> {
    let key: Key = text::parse("workspace", workspace)?;
    Ok(scope_text(Some(key.as_str()), ""))
}

impl TryFrom<pb::CreateWorkspaceRequest> for NewWorkspace {
    type Error = Error;

    fn try_from(request: pb::CreateWorkspaceRequest) -> Result<Self> {
        text::metadata("metadata", &request.metadata)?;
        Ok(Self {
            key: request.key.parse().map_err(|error| Error::invalid("key", error))?,
            display_name: text::required("display_name", &request.display_name)?,
            external_id: text::line("external_id", &request.external_id, text::MAX_TEXT)?,
            metadata: request.metadata,
        })
    }
}

impl TryFrom<pb::UpdateWorkspaceRequest> for WorkspaceEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateWorkspaceRequest) -> Result<Self> {
        let mask = Mask::read(request.update_mask, &["display_name", "external_id", "metadata"])?;
        text::metadata("metadata", &request.metadata)?;
        let display_name = mask.pick("display_name", request.display_name);
        let external_id = mask.pick("external_id", request.external_id);
        Ok(Self {
            key: request.workspace,
            display_name: display_name.map(|t| text::required("display_name", &t)).transpose()?,
            external_id: external_id
                .map(|t| text::line("external_id", &t, text::MAX_TEXT))
                .transpose()?,
            metadata: mask.pick("metadata", request.metadata),
            etag: request.etag,
        })
    }
}

impl From<Workspace> for pb::Workspace {
    fn from(workspace: Workspace) -> Self {
        Self {
            key: workspace.key.to_string(),
            display_name: workspace.display_name,
            external_id: workspace.external_id,
            metadata: workspace.metadata,
            create_time: Some(pb::timestamp(workspace.created_at)),
            update_time: Some(pb::timestamp(workspace.updated_at)),
            etag: etag(workspace.version),
        }
    }
}
