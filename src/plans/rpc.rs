//! The PlanService: generated types in and out.

use tonic::{Request, Response, Status};

use super::{NewPlan, Plan, sql};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    change::{self, Options, Seats},
    edit::etag,
    error::{Error, Result},
    ids::Key,
    proto::{self as pb, plan_service_server::PlanService},
    text,
};

/// The most seats that can be written down.
const MAX_SEATS: i64 = 100_000_000;

#[tonic::async_trait]
impl PlanService for Rpc {
    async fn list_plans(
        &self,
        request: Request<pb::ListPlansRequest>,
    ) -> Result<Response<pb::ListPlansResponse>, Status> {
        let (call, _) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(Key::SYSTEM)?).await?;
        let plans = sql::list(&self.0.pool).await?.into_iter().map(Into::into).collect();
        let revision = permit.revision().text();
        Ok(Response::new(pb::ListPlansResponse { plans, revision }))
    }

    async fn put_plan(
        &self,
        request: Request<pb::PutPlanRequest>,
    ) -> Result<Response<pb::PutPlanResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(Key::SYSTEM)?;
        let new = NewPlan::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                let plan = Some(super::put(change, new).await?.into());
                Ok(pb::PutPlanResponse { plan, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn set_tenant_plan(
        &self,
        request: Request<pb::SetTenantPlanRequest>,
    ) -> Result<Response<pb::SetTenantPlanResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let plan: Key = text::parse("plan", &request.plan)?;
        let input = (plan, seat_limit(request.seat_limit)?);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (plan, limit)| {
            Box::pin(async move {
                let seats = super::choose(change, &plan, limit).await?;
                let usage = Some(wire(&change.tenant().key, &seats));
                Ok(pb::SetTenantPlanResponse { usage, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_seat_usage(
        &self,
        request: Request<pb::GetSeatUsageRequest>,
    ) -> Result<Response<pb::GetSeatUsageResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let mut conn = self.0.pool.acquire().await.map_err(Error::from)?;
        let seats = Seats::count(&mut conn, permit.tenant(), self.0.clock.now()).await?;
        Ok(Response::new(pb::GetSeatUsageResponse {
            usage: Some(wire(permit.tenant_key(), &seats)),
            revision: permit.revision().text(),
        }))
    }
}

fn seat_limit(given: Option<i64>) -> Result<Option<i64>> {
    match given {
        Some(seats) if !(1..=MAX_SEATS).contains(&seats) => {
            let wanted = format!("from 1 to {MAX_SEATS}, or absent for as many as they like");
            Err(Error::invalid("seat_limit", wanted))
        }
        given => Ok(given),
    }
}

impl TryFrom<pb::PutPlanRequest> for NewPlan {
    type Error = Error;

    fn try_from(request: pb::PutPlanRequest) -> Result<Self> {
        Ok(Self {
            key: text::parse("key", &request.key)?,
            display_names: text::names("display_names", request.display_names)?,
            seat_limit: seat_limit(request.seat_limit)?,
            etag: request.etag,
        })
    }
}

impl From<Plan> for pb::Plan {
    fn from(plan: Plan) -> Self {
        Self {
            key: plan.key.to_string(),
            display_names: plan.display_names,
            seat_limit: plan.seat_limit,
            create_time: Some(pb::timestamp(plan.created_at)),
            update_time: Some(pb::timestamp(plan.updated_at)),
            etag: etag(plan.version),
        }
    }
}

fn wire(tenant: &Key, seats: &Seats) -> pb::SeatUsage {
    pb::SeatUsage {
        tenant: tenant.to_string(),
        plan: seats.plan.clone(),
        seat_limit: seats.limit,
        used: seats.used(),
        internal_members: seats.internal,
        external_members: seats.external,
        open_invitations: seats.invited,
        available: seats.free(),
        over_limit: seats.is_over(),
    }
}
