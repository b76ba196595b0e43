//! The gate. It authenticates every call, and turns what an operation derived from its request into the
//! only values that let anything be read ([`Permit`]) or changed ([`Claim`], which opens a `Change`).
//!
//! It decides from facts and keys alone and knows no feature.

mod credential;

use chrono::{DateTime, Utc};

use credential::malformed;
pub use credential::{
    AUTHORIZATION, ON_BEHALF_OF, Presented, authenticate, authenticate_by_any, recognise,
    recognise_again, renew,
};

use crate::{
    app::App,
    caller::{Call, Caller},
    decision::{
        Credential, Facts, Permission, Reason, Refusal, Resource, TenantNotLoaded, standing,
    },
    error::{Error, Result},
    ids::{Key, Revision, TenantId, UserId},
    proto::{Place, Rule},
    text,
};

/// One permission on one scope of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    pub tenant: &'a str,
    pub permission: &'static str,
    /// As [`Resource::parse`] reads it; empty: the tenant.
    pub scope: &'a str,
    /// Other permissions that would do, for the message alone.
    pub or: &'a [&'static str],
}

/// What an operation asks for, derived from its request and bound to the rule of its RPC.
#[derive(Debug, Clone)]
pub struct Claim {
    tenant: String,
    warrant: Warrant,
}

#[derive(Debug, Clone)]
pub enum Warrant {
    /// The caller needs the permission on each of these scopes of a tenant.
    Demands {
        tenant: String,
        permission: &'static str,
        scopes: Vec<String>,
        /// Others that were tried before, any of which would have done.
        or: Vec<&'static str>,
    },
    /// The caller touches only what is its own, in a tenant where it is active.
    Oneself,
    /// The caller touches only its own account, which belongs to no tenant.
    Account,
    /// A one-time token, which the operation verifies.
    Link,
    /// Whoever runs commands beside the database.
    Installation,
}

impl Claim {
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    #[must_use]
    pub fn warrant(&self) -> &Warrant {
        &self.warrant
    }

    /// The same claim, to change another tenant by it: what it demands and of whom stays as it is. For
    /// what concerns a person in all of their tenants.
    #[must_use]
    pub fn in_tenant(&self, tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), warrant: self.warrant.clone() }
    }

    /// A command's claim on a tenant.
    ///
    /// # Errors
    /// For anybody but [`Caller::Installation`].
    pub fn installation(call: &Call, tenant: &str) -> Result<Self> {
        match call.caller {
            Caller::Installation => {
                Ok(Self { tenant: tenant.to_owned(), warrant: Warrant::Installation })
            }
            _ => Err(Error::internal("only a command may claim the installation")),
        }
    }
}

impl Call {
    /// Claims the one permission of the RPC's rule, on the tenant or on the installation.
    ///
    /// # Errors
    /// `INTERNAL` when the rule has another form.
    pub fn claim(&self, tenant: &str) -> Result<Claim> {
        match self.permissions() {
            [permission] => self.claim_each(tenant, permission, [""]),
            _ => Err(Error::internal(format!("{} has no single permission", self.path))),
        }
    }

    /// Claims one of the rule's permissions on several scopes of the tenant.
    ///
    /// # Errors
    /// `INTERNAL` when the rule does not list the permission; `INVALID_ARGUMENT` for a bad scope.
    pub fn claim_each<S: AsRef<str>>(
        &self,
        tenant: &str,
        permission: &'static str,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Claim> {
        if !self.permissions().contains(&permission) {
            return Err(Error::internal(format!("{} does not list {permission}", self.path)));
        }
        let mut scopes: Vec<String> = scopes.into_iter().map(|s| s.as_ref().to_owned()).collect();
        if scopes.is_empty() {
            // Nothing asked for is not everything allowed.
            scopes.push(String::new());
        }
        let held_on = self.held_on(tenant).to_owned();
        let warrant = Warrant::Demands { tenant: held_on, permission, scopes, or: Vec::new() };
        Ok(Claim { tenant: tenant.to_owned(), warrant })
    }

    /// What [`Call::claim`] claims, for who asks too often to make a claim each time.
    ///
    /// # Errors
    /// `INTERNAL` when the rule has another form.
    pub fn demand<'a>(&self, tenant: &'a str) -> Result<Demand<'a>> {
        match self.permissions() {
            [permission] => {
                Ok(Demand { tenant: self.held_on(tenant), permission, scope: "", or: &[] })
            }
            _ => Err(Error::internal(format!("{} has no single permission", self.path))),
        }
    }

    /// The tenant in which the rule's permission is held.
    fn held_on<'a>(&self, tenant: &'a str) -> &'a str {
        match self.rule {
            Rule::Permission { on: Place::Installation, .. }
            | Rule::Oneself { on: Place::Installation, .. } => Key::SYSTEM,
            _ => tenant,
        }
    }

    /// Claims what is the caller's own, or the rule's permission over somebody else.
    ///
    /// # Errors
    /// `INTERNAL` when the rule is not `oneself`.
    pub fn claim_person(&self, tenant: &str, person: UserId) -> Result<Claim> {
        let Rule::Oneself { or_any_of, .. } = self.rule else {
            return Err(Error::internal(format!("{} is not about oneself", self.path)));
        };
        if self.person() == Some(person) {
            return self.claim_oneself(tenant);
        }
        match or_any_of {
            [permission] => self.claim_each(tenant, permission, [""]),
            _ => Err(Error::Denied {
                reason: "NOT_YOURS",
                message: "only the person concerned may do this; call with their session"
                    .to_owned(),
            }),
        }
    }

    /// Claims what is the caller's own in a tenant where it is active.
    ///
    /// # Errors
    /// `INTERNAL` when the rule is neither `oneself` nor `authenticated`.
    pub fn claim_oneself(&self, tenant: &str) -> Result<Claim> {
        match self.rule {
            Rule::Oneself { .. } | Rule::Authenticated => {
                Ok(Claim { tenant: tenant.to_owned(), warrant: Warrant::Oneself })
            }
            _ => Err(Error::internal(format!("{} is not about oneself", self.path))),
        }
    }

    /// Claims the caller's own account. Accounts are written in the installation's chain.
    ///
    /// # Errors
    /// `INTERNAL` when the rule is neither `oneself` nor `authenticated`.
    pub fn claim_account(&self) -> Result<Claim> {
        match self.rule {
            Rule::Oneself { .. } | Rule::Authenticated => {
                Ok(Claim { tenant: Key::SYSTEM.to_owned(), warrant: Warrant::Account })
            }
            _ => Err(Error::internal(format!("{} is not about oneself", self.path))),
        }
    }

    /// Claims what a one-time token allows; the operation verifies the token.
    ///
    /// # Errors
    /// `INTERNAL` when the RPC is not public.
    pub fn claim_link(&self, tenant: &str) -> Result<Claim> {
        match self.rule {
            Rule::Public => Ok(Claim { tenant: tenant.to_owned(), warrant: Warrant::Link }),
            _ => Err(Error::internal(format!("{} is not public", self.path))),
        }
    }

    fn permissions(&self) -> &'static [&'static str] {
        match self.rule {
            Rule::Permission { any_of, .. } | Rule::Oneself { or_any_of: any_of, .. } => any_of,
            Rule::Public | Rule::Authenticated => &[],
        }
    }

    /// The person whose session calls.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a service that acts for nobody.
    pub fn require_person(&self) -> Result<UserId> {
        self.person().ok_or_else(|| Error::Denied {
            reason: "NOT_A_PERSON",
            message: "only a person can do this; call with their session".to_owned(),
        })
    }
}

/// Proof that the caller may read in a tenant. Reads take it, and nothing else makes one.
#[derive(Debug, Clone)]
pub struct Permit {
    tenant: TenantId,
    key: Key,
    revision: Revision,
}

impl Permit {
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    #[must_use]
    pub fn tenant_key(&self) -> &Key {
        &self.key
    }

    /// The revision that the permission was decided at: reads that follow see at least this.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

/// Lets a read pass, or says why not.
///
/// # Errors
/// `PERMISSION_DENIED`, also for a tenant that does not exist: the two cannot be told apart.
pub async fn permit(app: &App, call: &Call, claim: &Claim) -> Result<Permit> {
    let now = app.clock.now();
    app.replica
        .ask(|facts| {
            Ok(match authorise(facts, call, claim, now)? {
                Ok(()) => match facts.directory.tenants.get(claim.tenant()) {
                    Some(entry) => Ok(Permit {
                        tenant: entry.id,
                        key: facts.directory.tenant_keys[&entry.id].clone(),
                        revision: facts.revision,
                    }),
                    None => Err(Error::not_found("tenant", claim.tenant())),
                },
                Err(error) => Err(error),
            })
        })
        .await?
}

/// Claims whichever of the rule's permissions the caller holds on the tenant, for operations that find
/// out under the lock which of them it takes, and then require it.
///
/// # Errors
/// `INTERNAL` when the rule lists none.
pub async fn claim_any(app: &App, call: &Call, tenant: &str) -> Result<Claim> {
    let claims = call.permissions().iter().map(|word| call.claim_each(tenant, word, [""]));
    claim_first(app, call, claims.collect::<Result<_>>()?).await
}

/// The first of these claims that the caller holds, for operations on what may be reached in several
/// ways; where it holds none, the last, by which it is refused.
///
/// # Errors
/// What the gate answers beside a refusal.
pub async fn claim_first(app: &App, call: &Call, claims: Vec<Claim>) -> Result<Claim> {
    let mut last = Err(Error::internal(format!("{} has no claim", call.path)));
    let mut tried: Vec<&'static str> = Vec::new();
    for mut claim in claims {
        match permit(app, call, &claim).await {
            Err(Error::Denied { .. }) => {
                if let Warrant::Demands { permission, or, .. } = &mut claim.warrant {
                    or.extend(tried.iter().filter(|word| *word != permission));
                    if !tried.contains(permission) {
                        tried.push(permission);
                    }
                }
                last = Ok(claim);
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(claim),
        }
    }
    last
}

/// The one rule behind reads and changes: the claim, decided over these facts.
///
/// # Errors
/// When the facts of a tenant are not loaded; the inner error is the refusal.
pub fn authorise(
    facts: &Facts,
    call: &Call,
    claim: &Claim,
    now: DateTime<Utc>,
) -> Result<Result<()>, TenantNotLoaded> {
    match (&claim.warrant, &call.caller) {
        (Warrant::Link, _) | (Warrant::Installation, Caller::Installation) => Ok(Ok(())),
        (Warrant::Demands { tenant, permission, scopes, or }, caller) => {
            for scope in scopes {
                let demand = Demand { tenant, permission, scope, or };
                if let Err(refusal) = authorise_demand(facts, caller, demand, now)? {
                    return Ok(Err(refusal));
                }
            }
            Ok(Ok(()))
        }
        (Warrant::Oneself | Warrant::Account, Caller::Authenticated(authority)) => {
            let home = facts.directory.tenant_keys.get(&authority.home()).map_or("", Key::as_str);
            let tenant = match &claim.warrant {
                Warrant::Account => home,
                _ => claim.tenant.as_str(),
            };
            let flaw = standing(facts, tenant, authority.subject(), now)?;
            let acts = authority.on_behalf_of.is_none();
            // A session that a service opened speaks for the person in its own tenant, not beyond.
            let by_service =
                matches!(&authority.credential, Credential::Session(claims) if claims.by_service);
            let beyond = by_service && matches!(claim.warrant, Warrant::Account);
            Ok(match flaw {
                None if beyond => Err(Error::Denied {
                    reason: "SESSION_BY_SERVICE",
                    message: "this session was opened by a service and holds in its tenant only; \
                              sign in"
                        .to_owned(),
                }),
                None if acts => Ok(()),
                None => Err(Error::Denied {
                    reason: "NOT_YOURS",
                    message: "only the person concerned may do this; call with their session"
                        .to_owned(),
                }),
                // An unknown one is refused as one that is not theirs.
                Some(_) => text::parse::<Key>("tenant", &claim.tenant).and_then(|tenant| {
                    let message = format!(
                        "you are not an active member of tenant `{tenant}`; ask an administrator there"
                    );
                    Err(Error::Denied { reason: "NOT_A_MEMBER", message })
                }),
            })
        }
        _ => Ok(Err(malformed())),
    }
}

/// [`authorise`] for one demand.
///
/// # Errors
/// When the facts of a tenant are not loaded; the inner error is the refusal.
pub fn authorise_demand(
    facts: &Facts,
    caller: &Caller,
    demand: Demand<'_>,
    now: DateTime<Utc>,
) -> Result<Result<()>, TenantNotLoaded> {
    let Caller::Authenticated(authority) = caller else { return Ok(Err(malformed())) };
    let permission = match Permission::parse(demand.permission) {
        Ok(permission) => permission,
        Err(error) => return Ok(Err(Error::internal(error))),
    };
    let resource = match Resource::parse(demand.scope) {
        Ok(resource) => resource,
        Err(error) => return Ok(Err(Error::invalid("scope", error))),
    };
    let may = |resource| authority.may(facts, demand.tenant, permission, resource, now);
    let allowed = match may(resource)? {
        // It reveals nothing that a key has another form, or to whoever may do it in every tenant that
        // there is no such one.
        Err(Refusal::Caller(Reason::TenantUnknown)) => {
            if let Err(error) = demand.tenant.parse::<Key>() {
                return Ok(Err(Error::invalid("tenant", error)));
            }
            let system = authority.may(facts, Key::SYSTEM, permission, Resource::TENANT, now)?;
            if system.is_ok() {
                return Ok(Err(Error::not_found("tenant", demand.tenant)));
            }
            Err(Refusal::Caller(Reason::TenantUnknown))
        }
        // Whoever may do it everywhere is told by the operation that there is no such workspace; to
        // everybody else it looks like one that is not theirs.
        Err(Refusal::Caller(Reason::WorkspaceUnknown)) => may(Resource::TENANT)?,
        allowed => allowed,
    };
    Ok(allowed.map_err(|refusal| denied(demand, refusal)))
}

pub(crate) fn denied(demand: Demand<'_>, refusal: Refusal) -> Error {
    let Demand { tenant, permission, scope, or } = demand;
    let place = match (tenant, scope) {
        (Key::SYSTEM, _) => "the installation".to_owned(),
        (tenant, "") => format!("tenant `{tenant}`"),
        (tenant, scope) => format!("`{scope}` of tenant `{tenant}`"),
    };
    let (reason, message) = match refusal {
        Refusal::Caller(Reason::Narrowed) => (
            "KEY_NARROWED",
            format!("the api key is narrowed and leaves out `{permission}`; use another key"),
        ),
        Refusal::Caller(_) => (
            "PERMISSION_MISSING",
            format!(
                "you do not hold `{}` on {place}; ask an administrator for a role",
                [or, &[permission]].concat().join("` or `")
            ),
        ),
        Refusal::OnBehalfOf(_) => (
            "PERMISSION_MISSING_ON_BEHALF_OF",
            format!(
                "the person you act for does not hold `{permission}` on {place}; ask an \
                 administrator for a role for them"
            ),
        ),
        Refusal::ActAs => (
            "ACT_AS_REFUSED",
            format!(
                "you may not act for this person on {place}; it takes `iam.act_as`, and never \
                 reaches somebody with rights on the installation"
            ),
        ),
    };
    Error::Denied { reason, message }
}
