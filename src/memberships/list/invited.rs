//! Those of the list who are invited and have not joined.

use super::{
    Filter, Order, StatusFilter,
    sql::{Query, Sort, Wanted, push_person},
};

const COLUMNS: &str = "i.id user_id, i.email, i.kind, 'active' status, 0 epoch, i.first_name, \
     i.last_name, i.department, i.job_title, i.phone, i.location, '' external_id, \
     '{}'::jsonb metadata, null::timestamptz last_sign_in_at, null::timestamptz last_active_at, \
     null::timestamptz purge_at, i.version, i.created_at, i.updated_at, true invited";

pub(super) fn push_count(query: &mut Query, wanted: &Wanted<'_>) {
    query.push("select count(*) from invitations i where ");
    push_matching(query, wanted);
}

pub(super) fn push_page(query: &mut Query, wanted: &Wanted<'_>) {
    let sort = sort(wanted.filter.order);
    query.push(format!("select {COLUMNS}, {}, i.id from invitations i where ", sort.columns()));
    push_matching(query, wanted);
    sort.push_after(query, wanted);
    query.push(sort.order(wanted)).push(" limit ").push_bind(wanted.limit);
}

fn sort(order: Order) -> Sort {
    let (major, kind) = match order {
        Order::Name => ("i.last_folded", "text"),
        Order::Email => ("i.email_canonical", "text"),
        Order::LastSignIn => ("'-infinity'::timestamptz", "timestamptz"),
        Order::Created => ("i.created_at", "timestamptz"),
    };
    let minor = (order == Order::Name).then(|| "i.first_folded".to_owned());
    Sort { major: major.to_owned(), kind, minor, id: "i.id" }
}

fn push_matching(query: &mut Query, wanted: &Wanted<'_>) {
    let Wanted { tenant, filter, .. } = wanted;
    let Filter { role, workspace, now, .. } = filter;
    query.push("i.tenant_id = ").push_bind(tenant.uuid());
    query.push(" and i.status = 'pending' and i.expires_at > ").push_bind(*now);
    if let Some(StatusFilter::Member(_)) = filter.status {
        query.push(" and false");
    }
    push_person(query, "i", filter);
    for (key, place, column) in
        [(role, "roles", "h.role_id"), (workspace, "workspaces", "h.workspace_id")]
    {
        let Some(key) = key else { continue };
        query.push(format!(
            " and exists (select from invitation_roles h
               join {place} t on t.tenant_id = h.tenant_id and t.id = {column}
               left join workspaces w on w.tenant_id = h.tenant_id and w.id = h.workspace_id
               where h.tenant_id = i.tenant_id and h.invitation_id = i.id and w.deleted_at is null
                 and (h.ends_at is null or h.ends_at > "
        ));
        query.push_bind(*now).push(") and t.key = ").push_bind(key.clone()).push(")");
    }
}
