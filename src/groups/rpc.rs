//! The GroupService: generated types in and out.

use std::collections::HashMap;

use tonic::{Request, Response, Status};

use super::{Described, Group, GroupEdit, Joined, RolesEdit, sql};
use crate::{
    access::permit,
    app::Rpc,
    assignments::{self, NewAssignment, Shown},
    caller::Call,
    change::{self, Options},
    edit::{Mask, etag},
    error::{Error, Result},
    ids::{Key, UserId},
    page::Page,
    proto::{self as pb, group_service_server::GroupService},
    text,
};

#[tonic::async_trait]
impl GroupService for Rpc {
    async fn create_group(
        &self,
        request: Request<pb::CreateGroupRequest>,
    ) -> Result<Response<pb::CreateGroupResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let key: Key = request.key.parse().map_err(|error| Error::invalid("key", error))?;
        let new = (key, text::required("display_name", &request.display_name)?);
        let answer = change::run(&self.0, &call, claim, options, new, |change, (key, name)| {
            Box::pin(async move {
                let group = Some(super::create(change, key, name).await?.try_into()?);
                Ok(pb::CreateGroupResponse { group, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_group(
        &self,
        request: Request<pb::GetGroupRequest>,
    ) -> Result<Response<pb::GetGroupResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let group = sql::get(&self.0.pool, &permit, &request.group).await?;
        let ids = [group.id.uuid()];
        let mut carried = assignments::shown_of_groups(&self.0.pool, &permit, &ids).await?;
        Ok(Response::new(pb::GetGroupResponse {
            group: Some(describe(group, &mut carried)?),
            revision: permit.revision().text(),
        }))
    }

    async fn list_groups(
        &self,
        request: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let binding = ("groups", &request.tenant);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::list(&self.0.pool, &permit, after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.key.to_string())?;
        let ids: Vec<_> = rows.iter().map(|group| group.id.uuid()).collect();
        let mut carried = assignments::shown_of_groups(&self.0.pool, &permit, &ids).await?;
        let groups = rows.into_iter().map(|group| describe(group, &mut carried));
        Ok(Response::new(pb::ListGroupsResponse {
            groups: groups.collect::<Result<_>>()?,
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_group(
        &self,
        request: Request<pb::UpdateGroupRequest>,
    ) -> Result<Response<pb::UpdateGroupResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let edit = GroupEdit::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let group = Some(super::update(change, edit).await?.try_into()?);
                Ok(pb::UpdateGroupResponse { group, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn delete_group(
        &self,
        request: Request<pb::DeleteGroupRequest>,
    ) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, request, |change, request| {
            Box::pin(async move {
                super::delete(change, &request.group, &request.etag).await?;
                Ok(pb::DeleteGroupResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn add_group_members(
        &self,
        request: Request<pb::AddGroupMembersRequest>,
    ) -> Result<Response<pb::AddGroupMembersResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let input = (request.group, user_ids(&request.user_ids)?);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (key, users)| {
            Box::pin(async move {
                let group = super::add_members(change, &key, &users).await?;
                let group = Some(group.try_into()?);
                Ok(pb::AddGroupMembersResponse { group, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn remove_group_members(
        &self,
        request: Request<pb::RemoveGroupMembersRequest>,
    ) -> Result<Response<pb::RemoveGroupMembersResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let input = (request.group, user_ids(&request.user_ids)?);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (key, users)| {
            Box::pin(async move {
                let group = super::remove_members(change, &key, &users).await?;
                let group = Some(group.try_into()?);
                Ok(pb::RemoveGroupMembersResponse { group, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_group_members(
        &self,
        request: Request<pb::ListGroupMembersRequest>,
    ) -> Result<Response<pb::ListGroupMembersResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let group = sql::get(&self.0.pool, &permit, &request.group).await?;
        let binding = ("group members", &request.tenant, &request.group);
        let page =
            Page::<UserId>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let limit = page.limit();
        let mut rows =
            sql::list_members(&self.0.pool, &permit, group.id, page.after, limit).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.user)?;
        Ok(Response::new(pb::ListGroupMembersResponse {
            members: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_group_roles(
        &self,
        request: Request<pb::UpdateGroupRolesRequest>,
    ) -> Result<Response<pb::UpdateGroupRolesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let tenant = request.tenant.clone();
        let edit = RolesEdit::try_from(request)?;
        let scopes = assignments::claimed_scopes(&self.0, &tenant, &edit.add, &edit.remove).await?;
        let claim = call.claim_each(&tenant, "iam.roles.assign", scopes)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let group = Some(super::update_roles(change, edit).await?.try_into()?);
                Ok(pb::UpdateGroupRolesResponse { group, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }
}

/// The most people that one request moves.
const MAX_USERS: usize = 500;

fn user_ids(listed: &[String]) -> Result<Vec<UserId>> {
    if !(1..=MAX_USERS).contains(&listed.len()) {
        return Err(Error::invalid("user_ids", format!("1 to {MAX_USERS}; make several calls")));
    }
    let read = |(at, id): (usize, &String)| {
        id.parse().map_err(|error| Error::invalid(format!("user_ids[{at}]"), error))
    };
    listed.iter().enumerate().map(read).collect()
}

impl TryFrom<pb::UpdateGroupRequest> for GroupEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateGroupRequest) -> Result<Self> {
        let mask = Mask::read(request.update_mask, &["display_name"])?;
        let display_name = mask.pick("display_name", request.display_name);
        Ok(Self {
            key: request.group,
            display_name: display_name.map(|t| text::required("display_name", &t)).transpose()?,
            etag: request.etag,
        })
    }
}

impl TryFrom<pb::UpdateGroupRolesRequest> for RolesEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateGroupRolesRequest) -> Result<Self> {
        Ok(Self {
            key: request.group,
            add: NewAssignment::read("add", request.add)?,
            remove: assignments::read_ids("remove", &request.remove)?,
            etag: request.etag,
        })
    }
}

fn describe(group: Group, carried: &mut HashMap<uuid::Uuid, Vec<Shown>>) -> Result<pb::Group> {
    let roles = carried.remove(&group.id.uuid()).unwrap_or_default();
    Described { group, roles }.try_into()
}

impl TryFrom<Described> for pb::Group {
    type Error = Error;

    fn try_from(Described { group, roles }: Described) -> Result<Self> {
        Ok(Self {
            key: group.key.to_string(),
            display_name: group.display_name,
            roles: roles.into_iter().map(Into::into).collect(),
            member_count: i32::try_from(group.member_count).map_err(Error::internal)?,
            create_time: Some(pb::timestamp(group.created_at)),
            update_time: Some(pb::timestamp(group.updated_at)),
            etag: etag(group.version),
        })
    }
}

impl From<Joined> for pb::GroupMember {
    fn from(joined: Joined) -> Self {
        Self {
            user_id: joined.user.to_string(),
            email: joined.email,
            first_name: joined.first_name,
            last_name: joined.last_name,
        }
    }
}
