//! The tables `catalogue_modules` and `catalogue_permissions`, and what they are compared with.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgPool, types::Json};

use super::{Entry, Listed, Module, Words};
use crate::{access::Permit, change::Change, error::Result, ids::TenantId};

pub async fn find(change: &mut Change, module: &str) -> Result<Option<Module>> {
    let owner =
        sqlx::query_scalar!("select owner from catalogue_modules where module = $1", module)
            .fetch_optional(change.conn())
            .await?;
    let Some(owner) = owner else { return Ok(None) };
    let rows = sqlx::query!(
        r#"select permission, descriptions "descriptions: Json<BTreeMap<String, String>>", deprecated
           from catalogue_permissions where module = $1"#,
        module
    )
    .fetch_all(change.conn())
    .await?;
    let entries = rows.into_iter().map(|row| {
        let entry = Entry { descriptions: row.descriptions.0, deprecated: row.deprecated };
        (row.permission, entry)
    });
    Ok(Some(Module { owner, entries: entries.collect() }))
}

pub async fn count_modules(change: &mut Change) -> Result<i64> {
    let count = sqlx::query_scalar!(r#"select count(*) "count!" from catalogue_modules"#)
        .fetch_one(change.conn())
        .await?;
    Ok(count)
}

/// Which of these permissions roles of any tenant name, and how many do.
pub async fn count_uses(change: &mut Change, words: &[&String]) -> Result<BTreeMap<String, i64>> {
    if words.is_empty() {
        return Ok(BTreeMap::new());
    }
    let words: Vec<String> = words.iter().map(|word| (*word).clone()).collect();
    let rows = sqlx::query!(
        r#"select word "word!", count(*) "count!" from roles, unnest(permissions) word
           where permissions && $1 and word = any($1) group by word"#,
        &words
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.word, row.count)).collect())
}

/// Writes the module as it is from now on; one without permissions is given up.
pub async fn replace(change: &mut Change, name: &str, module: &Module) -> Result<()> {
    let now = change.now();
    sqlx::query!("delete from catalogue_permissions where module = $1", name)
        .execute(change.conn())
        .await?;
    if module.entries.is_empty() {
        sqlx::query!("delete from catalogue_modules where module = $1", name)
            .execute(change.conn())
            .await?;
        return Ok(());
    }
    sqlx::query!(
        "insert into catalogue_modules (module, owner, created_at, updated_at)
         values ($1, $2, $3, $3)
         on conflict (module) do update set owner = $2, updated_at = $3",
        name,
        module.owner,
        now
    )
    .execute(change.conn())
    .await?;
    let words: Vec<String> = module.entries.keys().cloned().collect();
    let descriptions = module.entries.values().map(|entry| {
        serde_json::to_value(&entry.descriptions).map_err(crate::error::Error::internal)
    });
    let descriptions = descriptions.collect::<Result<Vec<_>>>()?;
    let deprecated: Vec<bool> = module.entries.values().map(|entry| entry.deprecated).collect();
    sqlx::query!(
        "insert into catalogue_permissions (permission, module, descriptions, deprecated)
         select permission, $2, descriptions, deprecated
         from unnest($1::text[], $3::jsonb[], $4::boolean[]) new (permission, descriptions, deprecated)",
        &words,
        name,
        &descriptions,
        &deprecated
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// What is registered. Reading it takes a permit of any tenant: it is the same for all.
pub async fn list(
    pool: &PgPool,
    _permit: &Permit,
    module: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Listed>> {
    let rows = sqlx::query!(
        r#"select p.permission, p.module, m.owner, p.deprecated,
                  p.descriptions "descriptions: Json<BTreeMap<String, String>>"
           from catalogue_permissions p join catalogue_modules m using (module)
           where p.permission > $1 and ($2::text is null or p.module = $2)
           order by p.permission limit $3"#,
        after,
        module,
        limit
    )
    .fetch_all(pool)
    .await?;
    let listed = rows.into_iter().map(|row| Listed {
        permission: row.permission,
        module: row.module,
        owner: row.owner,
        entry: Entry { descriptions: row.descriptions.0, deprecated: row.deprecated },
    });
    Ok(listed.collect())
}

/// Those of the modules that are registered.
pub async fn registered(pool: &PgPool, modules: &[&String]) -> Result<BTreeSet<String>> {
    let modules: Vec<String> = modules.iter().map(|module| (*module).clone()).collect();
    let found = sqlx::query_scalar!(
        "select module from catalogue_modules where module = any($1)",
        &modules
    )
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().collect())
}

/// What the tenant of the change lets its roles name.
pub async fn words_of_tenant(change: &mut Change) -> Result<Words> {
    let tenant = change.tenant().id;
    let words = sqlx::query_scalar!(
        r#"select permission_words "words: Words" from tenants where id = $1"#,
        tenant as TenantId
    )
    .fetch_one(change.conn())
    .await?;
    Ok(words)
}

/// The permissions of these modules that are registered and not deprecated.
pub async fn live_words(
    change: &mut Change,
    modules: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Vec<String>>> {
    let modules: Vec<String> = modules.iter().map(|module| (*module).to_owned()).collect();
    let rows = sqlx::query!(
        r#"select module, array_agg(permission order by permission) "permissions!"
           from catalogue_permissions where module = any($1) and not deprecated group by module"#,
        &modules
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.module, row.permissions)).collect())
}

pub async fn module_names(change: &mut Change) -> Result<Vec<String>> {
    let names = sqlx::query_scalar!("select module from catalogue_modules order by module")
        .fetch_all(change.conn())
        .await?;
    Ok(names)
}
