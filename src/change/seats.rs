//! Seats: what of a tenant counts against the limit of its plan, and that no change takes more than
//! there are. Active members, of whichever kind, and invitations that can still be accepted take one
//! each; service accounts, suspended and former members none.

use sqlx::PgConnection;

use super::Change;
use crate::{
    decision::{InvitationStatus, MemberKind, MemberStatus, Record, Time},
    error::{Error, Result},
    ids::TenantId,
};

/// The seats of a tenant and who takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// The key of the plan; empty for the installation, which has none.
    pub plan: String,
    /// None: as many as they like.
    pub limit: Option<i64>,
    pub internal: i64,
    pub external: i64,
    pub invited: i64,
}

impl Seats {
    #[must_use]
    pub fn used(&self) -> i64 {
        self.internal + self.external + self.invited
    }

    /// How many are left; none left, or none at all, is zero.
    #[must_use]
    pub fn free(&self) -> Option<i64> {
        self.limit.map(|limit| (limit - self.used()).max(0))
    }

    /// More than the plan has, after a smaller plan was chosen: nobody loses anything.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.used() > limit)
    }

    /// Counts them as the connection sees them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count(conn: &mut PgConnection, tenant: TenantId, now: Time) -> Result<Self> {
        let seats = sqlx::query_as!(
            Self,
            r#"select p.key plan, coalesce(t.seat_limit, p.seat_limit) "limit",
                      -- Who is active (migrations/0003).
                      coalesce((select count from member_counts c
                                where c.tenant_id = $1 and c.standing = 1), 0) "internal!",
                      coalesce((select count from member_counts c
                                where c.tenant_id = $1 and c.standing = 3), 0) "external!",
                      (select count(*) from invitations i where i.tenant_id = $1
                       and i.status = 'pending' and i.expires_at > $2) "invited!"
               from plans p left join tenant_plans t on t.tenant_id = $1
               where p.key = coalesce(t.plan, 'free')"#,
            tenant as TenantId,
            now
        )
        .fetch_one(conn)
        .await?;
        Ok(match tenant {
            TenantId::SYSTEM => Self { plan: String::new(), limit: None, ..seats },
            _ => seats,
        })
    }
}

/// How many seats a step takes; less than none where it frees some.
pub(super) fn taken(before: Option<&Record>, after: Option<&Record>, now: Time) -> i64 {
    i64::from(takes_one(after, now)) - i64::from(takes_one(before, now))
}

fn takes_one(record: Option<&Record>, now: Time) -> bool {
    match record {
        Some(Record::Member(member)) => {
            member.status == MemberStatus::Active && member.kind != MemberKind::Service
        }
        Some(Record::Invitation(invitation)) => {
            invitation.status == InvitationStatus::Pending && invitation.expires > now
        }
        _ => false,
    }
}

impl Change {
    /// Refuses a change that takes seats which the plan does not have. One that takes no more than it
    /// frees passes, also where a smaller plan was chosen since. `granted` are those that earlier parts
    /// of the change have taken.
    pub(super) async fn check_seats(&mut self, granted: i64) -> Result<()> {
        let (tenant, now) = (self.tenant.id, self.now);
        if self.seats_taken <= 0 || tenant == TenantId::SYSTEM {
            return Ok(());
        }
        let seats = Seats::count(self.conn(), tenant, now).await?;
        let Some(limit) = seats.limit.filter(|_| seats.is_over()) else { return Ok(()) };
        // What is counted includes what this change would take.
        let wanted = self.seats_taken - granted;
        let (used, plan) = (seats.used() - wanted, &seats.plan);
        let message = format!(
            "plan `{plan}` has {limit} seats, of which {used} are taken, and this needs {wanted} \
             more; remove or suspend members, cancel open invitations, or ask for a larger plan"
        );
        let refusal = Error::precondition("SEATS_EXHAUSTED", &self.tenant.key, message);
        Err(refusal
            .with("plan", plan)
            .with("seat_limit", limit)
            .with("seats_used", used)
            .with("seats_wanted", wanted))
    }
}
