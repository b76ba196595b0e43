//! The rule of DESIGN.md written as plainly as it reads there, and random worlds on which `decide` must
//! agree with it.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rolecall::{
    decision::{self as d, Facts, Permission, Record, Resource, Subject, TenantFacts, Transition},
    ids::{Holder, SubjectId, TenantId},
};
use uuid::Uuid;

/// Small numbers name everything, so that random worlds have collisions.
#[derive(Debug, Clone)]
pub struct World {
    pub tenant_active: bool,
    pub roles: Vec<Role>,
    /// By member: active, disabled, groups.
    pub members: Vec<(bool, bool, Vec<u8>)>,
    /// Rights on the installation; the same people.
    pub operators: Vec<Option<bool>>,
    pub assignments: Vec<Assignment>,
}

#[derive(Debug, Clone)]
pub struct Role {
    pub permissions: Vec<&'static str>,
    pub includes: Vec<u8>,
    pub reach: u8,
}

#[derive(Debug, Clone)]
pub struct Assignment {
    pub on_system: bool,
    /// Below 4: a member; else a group.
    pub holder: u8,
    pub role: u8,
    /// An index into `PLACES`.
    pub place: usize,
    pub starts: Option<i64>,
    pub ends: Option<i64>,
}

const PATTERNS: [&str; 7] =
    ["a.read", "a.write", "a.*", "b.read", "b.c.read", "*", "iam.members.read"];
pub const PERMISSIONS: [&str; 6] =
    ["a.read", "a.write", "b.read", "b.c.read", "a-b.read", "iam.members.read"];
pub const PLACES: [&str; 8] = [
    "",
    "workspaces/w1",
    "workspaces/w2",
    "workspaces/w1/f/1",
    "workspaces/w1/f/1/g/2",
    "workspaces/w1/f/12",
    "f/1",
    "f/1/g/2",
];
const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(1));

pub fn naive(world: &World, member: u8, permission: &str, place: &str, now: i64) -> bool {
    let iam = permission.starts_with("iam.");
    let (active, disabled, _) = &world.members[usize::from(member)];
    if *disabled {
        return false;
    }
    let operator = world.operators[usize::from(member)] == Some(true);
    world.assignments.iter().any(|a| {
        let held = if a.on_system { operator } else { *active };
        let open = world.tenant_active || (a.on_system && iam);
        held && open
            && holds(world, a, member)
            && inside(a, now)
            && matches(world, a.role, permission, 0)
            && reaches(world, a, member, place, now)
    })
}

fn holds(world: &World, a: &Assignment, member: u8) -> bool {
    if a.holder < 4 {
        a.holder == member
    } else {
        !a.on_system && world.members[usize::from(member)].2.contains(&(a.holder - 4))
    }
}

fn inside(a: &Assignment, now: i64) -> bool {
    a.starts.is_none_or(|starts| starts <= now) && a.ends.is_none_or(|ends| now < ends)
}

fn matches(world: &World, role: u8, permission: &str, depth: usize) -> bool {
    let role = &world.roles[usize::from(role)];
    let own = role.permissions.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => permission.starts_with(prefix),
        None => *pattern == permission,
    });
    own || (depth < 8 && role.includes.iter().any(|id| matches(world, *id, permission, depth + 1)))
}

fn reaches(world: &World, a: &Assignment, member: u8, place: &str, now: i64) -> bool {
    let scope = PLACES[a.place];
    let reach = world.roles[usize::from(a.role)].reach;
    if a.on_system {
        return scope.is_empty() && reach == 2;
    }
    if scope == place {
        return true;
    }
    if !scope.is_empty() {
        return place.starts_with(&format!("{scope}/"));
    }
    match reach {
        2 => true,
        1 => place.strip_prefix("workspaces/").is_some_and(|rest| {
            let workspace = rest.split('/').next().unwrap();
            world.assignments.iter().any(|b| {
                !b.on_system
                    && holds(world, b, member)
                    && inside(b, now)
                    && PLACES[b.place] == format!("workspaces/{workspace}")
            })
        }),
        _ => false,
    }
}

fn id<T: From<Uuid>>(kind: u128, n: usize) -> T {
    T::from(Uuid::from_u128((kind << 32) + n as u128 + 10))
}

fn time(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(at)
}

fn facts(world: &World, follow: bool) -> Facts {
    let mut facts = Facts::default();
    let mut put = |tenant: TenantId, record: Record| {
        facts.apply(&Transition { tenant, before: None, after: Some(record) });
    };
    for (tenant, key) in [(TenantId::SYSTEM, "system"), (TENANT, "acme")] {
        let active = world.tenant_active || tenant == TenantId::SYSTEM;
        let status = if active { d::TenantStatus::Active } else { d::TenantStatus::Suspended };
        let key = key.parse().unwrap();
        put(tenant, Record::Tenant(d::Tenant { id: tenant, key, status, default_role: None }));
    }
    for (n, (_, disabled, _)) in world.members.iter().enumerate() {
        let account = d::Account { user: id(1, n), disabled: *disabled, epoch: 0 };
        put(TenantId::SYSTEM, Record::Account(account));
    }
    for tenant in [TenantId::SYSTEM, TENANT] {
        let records = records(world, tenant);
        facts.insert_tenant(if follow {
            followed(&records, tenant)
        } else {
            loaded(&records, tenant)
        });
    }
    facts
}

/// The rows of a tenant, in an order in which they could have come about.
fn records(world: &World, tenant: TenantId) -> Vec<Record> {
    let mut records = Vec::new();
    let mut put = |record: Record| records.push(record);
    for (n, role) in world.roles.iter().enumerate() {
        put(Record::Role(d::Role {
            id: id(2, n),
            key: format!("r{n}").parse().unwrap(),
            permissions: role.permissions.iter().map(|p| (*p).into()).collect(),
            includes: role.includes.iter().map(|i| id(2, usize::from(*i))).collect(),
            reach: [d::Reach::Here, d::Reach::Joined, d::Reach::Everywhere]
                [usize::from(role.reach)],
            may_grant: vec![],
            exclusive_set: None,
            max_duration_seconds: None,
            locked: false,
        }));
    }
    for (n, key) in ["w1", "w2"].iter().enumerate() {
        put(Record::Workspace(d::Workspace { id: id(3, n), key: key.parse().unwrap() }));
    }
    for n in 0..2 {
        let key = format!("g{n}").parse().unwrap();
        put(Record::Group(d::Group { id: id(4, n), key }));
    }
    for (n, (active, _, groups)) in world.members.iter().enumerate() {
        let active = if tenant == TENANT { Some(*active) } else { world.operators[n] };
        let Some(active) = active else { continue };
        let status = if active { d::MemberStatus::Active } else { d::MemberStatus::Suspended };
        let subject = SubjectId::User(id(1, n));
        let kind = d::MemberKind::Internal;
        put(Record::Member(d::Member { subject, kind, status, epoch: 0 }));
        for group in groups.iter().filter(|_| tenant == TENANT) {
            let group = id(4, usize::from(*group));
            put(Record::GroupMember(d::GroupMember { group, user: id(1, n) }));
        }
    }
    for (n, a) in world.assignments.iter().enumerate() {
        let member = a.holder < 4;
        if a.on_system != (tenant == TenantId::SYSTEM) || (a.on_system && !member) {
            continue;
        }
        let holder = if member {
            Holder::Subject(SubjectId::User(id(1, usize::from(a.holder))))
        } else {
            Holder::Group(id(4, usize::from(a.holder - 4)))
        };
        let scope = Resource::parse(PLACES[a.place]).unwrap();
        let workspace = scope.workspace.map(|key| id(3, usize::from(key == "w2")));
        put(Record::Assignment(d::Assignment {
            id: id(5, n),
            holder,
            role: id(2, usize::from(a.role)),
            workspace,
            path: scope.path.to_owned(),
            starts: a.starts.map(time),
            ends: a.ends.map(time),
        }));
    }
    records
}

/// Facts that followed the events of their records.
fn followed(records: &[Record], tenant: TenantId) -> TenantFacts {
    let mut facts = TenantFacts::new(tenant);
    records.iter().for_each(|record| facts.apply(None, Some(record)));
    facts
}

/// Facts that were loaded from rows, in another order.
fn loaded(records: &[Record], tenant: TenantId) -> TenantFacts {
    let mut bulk = d::Bulk::new(TenantFacts::new(tenant));
    bulk.roles(records.iter().filter_map(|record| match record {
        Record::Role(role) => Some(role.clone()),
        _ => None,
    }));
    for record in records.iter().rev() {
        match record {
            Record::Workspace(workspace) => bulk.workspace(workspace.clone()),
            Record::Group(group) => bulk.group(group),
            Record::Member(member) => bulk.member(*member),
            Record::GroupMember(joined) => bulk.joined(joined.user, joined.group),
            Record::Assignment(a) => bulk.assignment(&d::AssignmentRow {
                holder: a.holder,
                role: a.role,
                workspace: a.workspace,
                path: &a.path,
                starts: a.starts,
                ends: a.ends,
            }),
            _ => {}
        }
    }
    bulk.finish()
}

/// Everything that facts hold of the members, in a form that can be compared.
fn held(facts: &TenantFacts) -> Vec<(d::Member, Vec<d::Holding>)> {
    let subject = |subject| {
        let mut holdings: Vec<_> = facts.holdings_of(subject).collect();
        holdings.sort();
        (facts.member(subject).unwrap(), holdings)
    };
    facts.subjects().map(subject).collect()
}

fn ask(facts: &Facts, member: u8, permission: &str, place: &str, now: i64) -> d::Decision {
    let question = d::Question {
        tenant: "acme",
        subject: Subject::User(id(1, usize::from(member))),
        permission: Permission::parse(permission).unwrap(),
        resource: Resource::parse(place).unwrap(),
        now: time(now),
    };
    let decision = d::decide(facts, &question).unwrap();
    let explained = d::explain(facts, &question).unwrap();
    assert_eq!(explained.decision, decision);
    let saviours = explained.considered.iter().filter(|c| c.flaw.is_none()).count();
    assert!(!decision.allowed() || saviours > 0, "what allows must be among what was considered");
    decision
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let date = proptest::option::weighted(0.3, 0i64..6);
    (proptest::bool::weighted(0.25), 0u8..6, 0u8..4, 0..PLACES.len(), date.clone(), date).prop_map(
        |(on_system, holder, role, place, starts, ends)| {
            let place = if on_system { place % 2 * 6 } else { place };
            Assignment { on_system, holder, role, place, starts, ends }
        },
    )
}

pub fn world() -> impl Strategy<Value = World> {
    let role = (proptest::collection::vec(0..PATTERNS.len(), 0..3), 0u8..3);
    let member = (
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.1),
        proptest::collection::vec(0u8..2, 0..2),
    );
    (
        proptest::bool::weighted(0.9),
        proptest::collection::vec((role, proptest::collection::vec(0u8..4, 0..2)), 4),
        proptest::collection::vec(member, 4),
        proptest::collection::vec(
            proptest::option::weighted(0.4, proptest::bool::weighted(0.8)),
            4,
        ),
        proptest::collection::vec(assignment(), 0..12),
    )
        .prop_map(|(tenant_active, roles, members, operators, assignments)| World {
            tenant_active,
            roles: roles
                .into_iter()
                .map(|((patterns, reach), includes)| Role {
                    permissions: patterns.into_iter().map(|p| PATTERNS[p]).collect(),
                    includes,
                    reach,
                })
                .collect(),
            members,
            operators,
            assignments,
        })
}

/// So many worlds; more in a long run, with `PROPTEST_CASES`.
#[expect(clippy::disallowed_methods, reason = "it steers the test, not the program")]
pub fn cases(few: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(few), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn decide_answers_as_the_naive_reference(
        world in world(), now in 0i64..6, follow in any::<bool>()
    ) {
        let facts = facts(&world, follow);
        for member in 0..4 {
            for permission in PERMISSIONS {
                for place in PLACES {
                    let expected = naive(&world, member, permission, place, now);
                    let told = ask(&facts, member, permission, place, now);
                    prop_assert_eq!(
                        told.allowed(), expected,
                        "member {} {} on {:?} at {}: {:?}", member, permission, place, now, told
                    );
                }
            }
        }
    }

    #[test]
    fn one_more_assignment_never_removes_access(
        world in world(), more in assignment(), now in 0i64..6
    ) {
        let before = facts(&world, false);
        let mut richer = world.clone();
        richer.assignments.push(more);
        let after = facts(&richer, true);
        for member in 0..4 {
            for permission in PERMISSIONS {
                for place in PLACES {
                    if ask(&before, member, permission, place, now).allowed() {
                        prop_assert!(ask(&after, member, permission, place, now).allowed());
                    }
                }
            }
        }
    }

    #[test]
    fn lists_answer_as_the_naive_reference(world in world(), now in 0i64..6, limit in 1usize..4) {
        let facts = facts(&world, false);
        for place in PLACES {
            let resource = Resource::parse(place).unwrap();
            let there = d::There { tenant: "acme", resource, now: time(now) };
            for word in PERMISSIONS {
                let permission = Permission::parse(word).unwrap();
                let mut listed = Vec::new();
                let mut after = None;
                loop {
                    let page = d::subjects(&facts, &there, permission, after, limit).unwrap();
                    listed.extend(page.found.iter().map(|access| access.subject));
                    for access in &page.found {
                        prop_assert!(
                            access.direct || access.installation || !access.groups.is_empty()
                        );
                    }
                    after = page.next;
                    if after.is_none() { break }
                }
                let may = (0u8..4).filter(|member| naive(&world, *member, word, place, now));
                let may: Vec<_> = may.map(|m| SubjectId::User(id(1, usize::from(m)))).collect();
                prop_assert_eq!(listed, may, "who may {} on {:?}", word, place);
            }
            for member in 0..4u8 {
                let subject = Subject::User(id(1, usize::from(member)));
                let set = d::effective_permissions(&facts, &there, subject).unwrap();
                let set = set.unwrap_or_default();
                for word in PERMISSIONS {
                    prop_assert_eq!(
                        set.matches(Permission::parse(word).unwrap()),
                        naive(&world, member, word, place, now),
                        "member {} {} on {:?}", member, word, place
                    );
                }
            }
        }
    }

    #[test]
    fn scopes_are_where_the_naive_reference_allows(world in world(), now in 0i64..6) {
        let facts = facts(&world, true);
        for member in 0..4u8 {
            for word in PERMISSIONS {
                let subject = Subject::User(id(1, usize::from(member)));
                let permission = Permission::parse(word).unwrap();
                let scopes = d::scopes(&facts, "acme", subject, permission, time(now)).unwrap();
                let scopes = scopes.unwrap_or_default();
                for place in PLACES {
                    let within = scopes.iter().any(|scope| {
                        scope.text == place || scope.below && d::path_covers(&scope.text, place)
                    });
                    prop_assert_eq!(
                        within, naive(&world, member, word, place, now),
                        "member {} {} on {:?}: {:?}", member, word, place, &scopes
                    );
                }
            }
        }
    }

    #[test]
    fn facts_that_followed_events_equal_facts_that_were_loaded(
        world in world(), gone in proptest::collection::btree_set(0usize..40, 0..12)
    ) {
        let all = records(&world, TENANT);
        let mut facts = followed(&all, TENANT);
        prop_assert_eq!(held(&facts), held(&loaded(&all, TENANT)));
        let goes = |n: &usize, record: &Record| {
            gone.contains(n) && matches!(record, Record::Assignment(_) | Record::GroupMember(_))
        };
        let mut left = Vec::new();
        for (n, record) in all.iter().enumerate() {
            if goes(&n, record) {
                facts.apply(Some(record), None);
            } else {
                left.push(record.clone());
            }
        }
        prop_assert_eq!(held(&facts), held(&loaded(&left, TENANT)));
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn a_tree_of_many_members_keeps_everybody(
        joins in proptest::collection::vec((0u32..2_000, 0usize..30), 300..700),
        leaves in proptest::collection::vec(0u32..2_000, 0..800)
    ) {
        let mut facts = TenantFacts::new(TENANT);
        let mut expected = std::collections::BTreeMap::new();
        for (n, count) in joins {
            let subject = SubjectId::User(id(1, n as usize));
            let (kind, status) = (d::MemberKind::Internal, d::MemberStatus::Active);
            facts.apply(None, Some(&Record::Member(d::Member { subject, kind, status, epoch: 0 })));
            let held: &mut Vec<d::Assignment> = expected.entry(subject).or_default();
            for _ in 0..count {
                let n = held.len();
                let assignment = d::Assignment {
                    id: id(5, n),
                    holder: Holder::Subject(subject),
                    role: id(2, n % 7),
                    workspace: (!n.is_multiple_of(3)).then(|| id(3, n)),
                    path: if n.is_multiple_of(5) { format!("f/{n}") } else { String::new() },
                    starts: None,
                    ends: n.is_multiple_of(4).then(|| time(1)),
                };
                facts.apply(None, Some(&Record::Assignment(assignment.clone())));
                held.push(assignment);
            }
        }
        for n in leaves {
            let subject = SubjectId::User(id(1, n as usize));
            let (kind, status) = (d::MemberKind::Internal, d::MemberStatus::Active);
            facts.apply(Some(&Record::Member(d::Member { subject, kind, status, epoch: 0 })), None);
            expected.remove(&subject);
        }
        prop_assert!(facts.subjects().eq(expected.keys().copied()));
        for (subject, held) in &expected {
            let mut found: Vec<_> = facts.holdings_of(*subject).map(|h| (h.role, h.path)).collect();
            let mut wanted: Vec<_> =
                held.iter().map(|a| (a.role, a.path.as_str().into())).collect();
            found.sort();
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
