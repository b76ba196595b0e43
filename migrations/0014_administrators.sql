-- How many administrators a tenant has, as far as it matters: none, one, or several (2). For the
-- metric; whoever must be sure counts them under the tenant's lock.

create table administrator_counts (
    tenant_id uuid primary key constraint administrator_counts_tenant_fkey references tenants (id),
    count smallint not null
);
create index administrator_counts_few on administrator_counts (count) where count < 2;

grant select, insert, update on administrator_counts to rolecall_server;
