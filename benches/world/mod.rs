//! The same world for every bench, made from a seed: many small tenants and a few huge ones, people
//! in several tenants, workspaces, the roles that ship for a business, groups, deep folders, dates.
//! Everything is a function of (seed, tenant, member), so that nothing has to be kept.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    dead_code,
    reason = "a bench stops at what it did not expect; no bench uses everything of the world"
)]

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use rolecall::{
    decision::{
        Assignment, AssignmentRow, Bulk, Decision, Facts, Group, GroupMember, Member, MemberKind,
        MemberStatus, Permission, Question, Record, Resource, Role, Subject, Tenant, TenantFacts,
        TenantStatus, Transition, Workspace, decide, scope_text,
    },
    ids::{Holder, Key, RoleId, SubjectId, TenantId, UserId},
    roles::templates,
};
use uuid::Uuid;

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    pub tenants: usize,
    pub users: usize,
    pub assignments: usize,
    /// Members of one more tenant, with one assignment each; none: no such tenant.
    pub tenant_of: usize,
    pub seed: u64,
}

pub struct World {
    pub shape: Shape,
    /// Users by tenant, the largest tenant first.
    members: Vec<Vec<u32>>,
    /// Members before each tenant, and in all.
    before: Vec<usize>,
    /// Assignments of a member, on average.
    mean: usize,
    kinds: Kinds,
}

/// The shipped roles, and the permissions that a question may be about.
struct Kinds {
    shipped: Vec<&'static templates::Template>,
    /// By shipped role: the permissions it has.
    holds: Vec<Vec<String>>,
    catalogue: Vec<String>,
}

/// A tenant without its people.
pub struct Frame {
    pub n: usize,
    pub tenant: Tenant,
    pub roles: Vec<Role>,
    pub workspaces: Vec<Workspace>,
    pub groups: Vec<(Group, Vec<Assignment>)>,
    /// Members are in groups, workspaces have folders, more than one assignment each.
    rich: bool,
}

/// A member with all that is theirs in one tenant.
pub struct Person {
    pub member: Member,
    pub group: Option<GroupMember>,
    pub assignments: Vec<Assignment>,
}

/// A question in words, as it comes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    pub tenant: String,
    pub subject: String,
    pub permission: String,
    pub resource: String,
    /// Where in the world its subject is.
    pub place: (usize, usize),
}

/// Mixed numbers that follow from where they are asked for.
struct Mix(u64);

impl Mix {
    fn at(seed: u64, what: What, tenant: usize, n: usize) -> Self {
        let mut mix = Self(seed ^ (what as u64) << 56);
        mix.0 = mix.next() ^ tenant as u64;
        mix.0 = mix.next() ^ n as u64;
        mix
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[derive(Clone, Copy)]
enum What {
    Tenant = 1,
    Role,
    Workspace,
    Group,
    User,
    Member,
    Assignment,
    Question,
}

/// What the world takes for now; every date in it is days away from this.
#[expect(clippy::disallowed_methods, reason = "a bench has no app to ask for the time")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// When the first thing was made: 2025-01-01.
const BEGINNING: u64 = 1_735_689_600_000;

/// A UUIDv7, as the server makes them: in the order of `n`, the rest random.
fn id<T: From<Uuid>>(seed: u64, what: What, tenant: usize, n: usize) -> T {
    let mut mix = Mix::at(seed, what, tenant, n);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&mix.next().to_be_bytes());
    random[8..].copy_from_slice(&mix.next().to_be_bytes()[..2]);
    let millis = BEGINNING + 1_000 * tenant as u64 + n as u64;
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into()
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

impl Kinds {
    fn new() -> Self {
        let sector = templates::sector("business").unwrap();
        let catalogue: Vec<String> = sector
            .modules
            .iter()
            .flat_map(|(module, actions)| actions.keys().map(move |a| format!("{module}.{a}")))
            .collect();
        let shipped: Vec<_> = templates::builtin(false).iter().chain(sector.roles.iter()).collect();
        let holds = shipped
            .iter()
            .map(|role| {
                let matched = |word: &&String| {
                    role.permissions.iter().any(|pattern| match pattern.strip_suffix('*') {
                        Some(start) => word.starts_with(start),
                        None => *word == pattern,
                    })
                };
                catalogue.iter().filter(matched).cloned().collect()
            })
            .collect();
        Self { shipped, holds, catalogue }
    }

    fn index(&self, key: &str) -> usize {
        self.shipped.iter().position(|role| role.key == key).unwrap()
    }
}

impl World {
    pub fn new(shape: Shape) -> Self {
        let mut members = vec![Vec::new(); shape.tenants];
        // Zipf: the n-th tenant has 1/n of the members of the first.
        let mut sizes = Vec::with_capacity(shape.tenants);
        let mut total = 0.0;
        for n in 1..=shape.tenants {
            total += 1.0 / n as f64;
            sizes.push(total);
        }
        for user in 0..shape.users {
            let mut mix = Mix::at(shape.seed, What::User, user, 1);
            // One in ten works for several.
            let homes = if mix.percent(10) { 2 + mix.below(4) } else { 1 };
            for _ in 0..homes {
                let point = mix.below(1 << 52) as f64 / (1_u64 << 52) as f64 * total;
                let n = sizes.partition_point(|size| *size < point).min(shape.tenants - 1);
                if members[n].last() != Some(&(user as u32)) {
                    members[n].push(user as u32);
                }
            }
        }
        // Nobody is alone: a tenant that the lot forgot gets its first people.
        for (n, members) in members.iter_mut().enumerate() {
            if members.is_empty() {
                members.push((n % shape.users) as u32);
            }
        }
        let mut before = vec![0];
        for members in &members {
            before.push(before.last().unwrap() + members.len());
        }
        let mean = (shape.assignments as f64 / *before.last().unwrap() as f64).round().max(1.0);
        Self { shape, members, before, mean: mean as usize, kinds: Kinds::new() }
    }

    /// Tenants, with the one of many members when there is one.
    pub fn tenants(&self) -> usize {
        self.shape.tenants + usize::from(self.shape.tenant_of > 0)
    }

    pub fn members(&self, tenant: usize) -> usize {
        self.members.get(tenant).map_or(self.shape.tenant_of, Vec::len)
    }

    pub fn user(&self, n: usize) -> UserId {
        id(self.shape.seed, What::User, n, 0)
    }

    pub fn frame(&self, n: usize) -> Frame {
        let seed = self.shape.seed;
        let rich = n < self.shape.tenants;
        let people = self.members(n);
        let mut mix = Mix::at(seed, What::Tenant, n, 1);
        let roles = self.roles(n, if rich && mix.percent(20) { 1 + mix.below(3) } else { 0 });
        let default_role = roles.iter().find(|role| role.key.as_str() == "employee");
        let tenant = Tenant {
            id: id(seed, What::Tenant, n, 0),
            key: key(&if rich { format!("tenant-{n}") } else { "millions".to_owned() }),
            status: TenantStatus::Active,
            default_role: default_role.map(|role| role.id),
        };
        let count = 5 + mix.below(46) + people / 1_000;
        let workspaces = (0..count)
            .map(|w| Workspace {
                id: id(seed, What::Workspace, n, w),
                key: key(&format!("workspace-{w}")),
            })
            .collect();
        let mut frame = Frame { n, tenant, roles, workspaces, groups: Vec::new(), rich };
        for g in 0..if rich { (people / 20).clamp(1, 200) } else { 0 } {
            let group = Group { id: id(seed, What::Group, n, g), key: key(&format!("group-{g}")) };
            let holder = Holder::Group(group.id);
            // Behind the numbers that members count theirs with.
            let first = people * 2 * self.mean + g * 4;
            let many = 1 + mix.below(3);
            let held = self.assignments(&frame, holder, &mut mix, first, many);
            frame.groups.push((group, held));
        }
        frame
    }

    fn roles(&self, n: usize, custom: usize) -> Vec<Role> {
        let seed = self.shape.seed;
        let ids: HashMap<&str, RoleId> = (self.kinds.shipped.iter().enumerate())
            .map(|(r, template)| (template.key.as_str(), id(seed, What::Role, n, r)))
            .collect();
        let known = |keys: &[String]| keys.iter().map(|key| ids[key.as_str()]).collect();
        let mut roles: Vec<Role> = (self.kinds.shipped.iter())
            .map(|template| Role {
                id: ids[template.key.as_str()],
                key: key(&template.key),
                permissions: template.permissions.iter().map(Into::into).collect(),
                includes: known(&template.includes),
                reach: template.reach,
                may_grant: known(&template.may_grant),
                exclusive_set: template.exclusive_set.as_deref().map(key),
                max_duration_seconds: template.max_duration_days.map(|d| i64::from(d) * 86_400),
                locked: template.locked,
            })
            .collect();
        for c in 0..custom {
            let mut mix = Mix::at(seed, What::Role, n, 1_000 + c);
            let mut role = roles[self.kinds.index("employee")].clone();
            role.includes = vec![role.id];
            role.id = id(seed, What::Role, n, 100 + c);
            role.key = key(&format!("custom-{c}"));
            let picked = (0..4).map(|_| mix.pick(&self.kinds.catalogue).into()).collect::<Vec<_>>();
            let own = format!("projects{c}.*").into();
            role.permissions = picked.into_iter().chain([own]).collect();
            roles.push(role);
        }
        roles
    }

    pub fn person(&self, frame: &Frame, m: usize) -> Person {
        let seed = self.shape.seed;
        let mut mix = Mix::at(seed, What::Member, frame.n, m);
        let user = self.members.get(frame.n).map_or(m % self.shape.users, |u| u[m] as usize);
        let user = self.user(user);
        let subject = SubjectId::User(user);
        let member = Member {
            subject,
            kind: if mix.percent(5) { MemberKind::External } else { MemberKind::Internal },
            status: if mix.percent(1) { MemberStatus::Suspended } else { MemberStatus::Active },
            epoch: 0,
        };
        let in_group = !frame.groups.is_empty() && mix.percent(50);
        let group = in_group.then(|| GroupMember { group: mix.pick(&frame.groups).0.id, user });
        let many = if frame.rich { 1 + mix.below(2 * self.mean - 1) } else { 1 };
        // The first member of a tenant administers it.
        let holder = Holder::Subject(subject);
        let first = m * 2 * self.mean;
        let mut assignments = self.assignments(frame, holder, &mut mix, first, many);
        if m == 0 {
            let administrator = self.kinds.index("administrator");
            assignments[0] = Assignment {
                role: frame.roles[administrator].id,
                workspace: None,
                path: String::new(),
                starts: None,
                ends: None,
                ..assignments[0].clone()
            };
        }
        Person { member, group, assignments }
    }

    /// The first is the employee's on the tenant; the rest hold on workspaces and in folders.
    fn assignments(
        &self,
        frame: &Frame,
        holder: Holder,
        mix: &mut Mix,
        first: usize,
        many: usize,
    ) -> Vec<Assignment> {
        const USUAL: [&str; 6] =
            ["employee", "secretary", "accountant", "it_support", "network_admin", "hr_manager"];
        let mut held: Vec<Assignment> = Vec::with_capacity(many);
        let custom = &frame.roles[self.kinds.shipped.len()..];
        for n in 0..many {
            let first_of_all = held.is_empty();
            let role = match () {
                () if first_of_all => frame.roles[self.kinds.index("employee")].id,
                () if !custom.is_empty() && mix.percent(15) => mix.pick(custom).id,
                () => frame.roles[self.kinds.index(USUAL[mix.below(USUAL.len())])].id,
            };
            let deep = frame.rich && mix.percent(5);
            let (starts, ends) =
                if frame.rich && mix.percent(5) { dates(mix) } else { (None, None) };
            let assignment = Assignment {
                id: id(self.shape.seed, What::Assignment, frame.n, first + n),
                holder,
                role,
                workspace: (!first_of_all).then(|| mix.pick(&frame.workspaces).id),
                path: if deep { folder(mix) } else { String::new() },
                starts,
                ends,
            };
            let same = |a: &Assignment| {
                (a.role, a.workspace, &a.path)
                    == (assignment.role, assignment.workspace, &assignment.path)
            };
            if !held.iter().any(same) {
                held.push(assignment);
            }
        }
        held
    }

    /// The facts of one tenant, as the replica loads them.
    pub fn facts(&self, frame: &Frame, people: impl Iterator<Item = usize>) -> TenantFacts {
        let mut bulk = Bulk::new(TenantFacts::new(frame.tenant.id));
        bulk.roles(frame.roles.iter().cloned());
        frame.workspaces.iter().for_each(|workspace| bulk.workspace(workspace.clone()));
        for (group, held) in &frame.groups {
            bulk.group(group);
            held.iter().for_each(|held| bulk.assignment(&row(held)));
        }
        for m in people {
            let person = self.person(frame, m);
            bulk.member(person.member);
            person.group.iter().for_each(|joined| bulk.joined(joined.user, joined.group));
            person.assignments.iter().for_each(|held| bulk.assignment(&row(held)));
        }
        bulk.finish()
    }

    /// Distinct questions, about people as often as they are members somewhere.
    pub fn questions(&self, many: usize) -> Vec<Asked> {
        let mut seen = std::collections::HashSet::with_capacity(many);
        let mut by_tenant: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.shape.tenants];
        for n in 0..many {
            let mut mix = Mix::at(self.shape.seed, What::Question, many, n);
            let at = mix.below(*self.before.last().unwrap());
            let tenant = self.before.partition_point(|before| *before <= at) - 1;
            by_tenant[tenant].push((n, at - self.before[tenant]));
        }
        let mut asked = Vec::with_capacity(many);
        for (tenant, members) in by_tenant.into_iter().enumerate().filter(|(_, m)| !m.is_empty()) {
            let frame = self.frame(tenant);
            for (n, member) in members {
                let mut mix = Mix::at(self.shape.seed, What::Question, many + 1, n);
                let question = loop {
                    let question = self.question(&frame, member, &mut mix);
                    if seen.insert(question.clone()) {
                        break question;
                    }
                };
                asked.push((n, question));
            }
        }
        asked.sort_by_key(|(n, _)| *n);
        asked.into_iter().map(|(_, question)| question).collect()
    }

    /// Distinct questions about one tenant; about one of its members, when one is named.
    pub fn questions_in(&self, tenant: usize, member: Option<usize>, many: usize) -> Vec<Asked> {
        let frame = self.frame(tenant);
        let mut mix = Mix::at(self.shape.seed, What::Question, tenant, usize::MAX);
        let mut seen = std::collections::HashSet::new();
        let mut asked = Vec::new();
        while asked.len() < many {
            let member = member.unwrap_or_else(|| mix.below(self.members(tenant)));
            let question = self.question(&frame, member, &mut mix);
            if seen.insert(question.clone()) {
                asked.push(question);
            }
        }
        asked
    }

    /// Half of the questions are about something that the subject holds, a quarter about what
    /// everybody may, a quarter about anything anywhere.
    fn question(&self, frame: &Frame, m: usize, mix: &mut Mix) -> Asked {
        let person = self.person(frame, m);
        let workspace = |mix: &mut Mix| Some(mix.pick(&frame.workspaces).id);
        let deeper = |mix: &mut Mix| if mix.percent(30) { folder(mix) } else { String::new() };
        let (permission, workspace, path) = match mix.below(4) {
            0 | 1 => {
                let held = mix.pick(&person.assignments);
                let role = frame.roles.iter().position(|role| role.id == held.role).unwrap();
                let holds = self.kinds.holds.get(role).filter(|holds| !holds.is_empty());
                let permission = holds.map_or("messaging.use", |holds| mix.pick(holds).as_str());
                let path = if held.path.is_empty() { deeper(mix) } else { held.path.clone() };
                (permission, held.workspace, path)
            }
            2 => ("messaging.use", workspace(mix), deeper(mix)),
            _ => (mix.pick(&self.kinds.catalogue).as_str(), workspace(mix), deeper(mix)),
        };
        let workspace = workspace.and_then(|id| frame.workspaces.iter().find(|w| w.id == id));
        Asked {
            tenant: frame.tenant.key.as_str().to_owned(),
            subject: person.member.subject.to_string(),
            permission: permission.to_owned(),
            resource: scope_text(workspace.map(|w| w.key.as_str()), &path),
            place: (frame.n, m),
        }
    }

    /// What the answer should be, from this one person's facts.
    pub fn expected(&self, asked: &Asked) -> bool {
        let frame = self.frame(asked.place.0);
        let mut facts = Facts::default();
        learn(&mut facts, &frame.tenant);
        facts.insert_tenant(TenantFacts::new(TenantId::SYSTEM));
        facts.insert_tenant(self.facts(&frame, std::iter::once(asked.place.1)));
        answer(&facts, asked, now()).allowed()
    }
}

/// Puts a tenant into the directory.
pub fn learn(facts: &mut Facts, tenant: &Tenant) {
    let after = Some(Record::Tenant(tenant.clone()));
    facts.directory.apply(&Transition { tenant: tenant.id, before: None, after });
}

/// Decides from strings, as a handler does.
pub fn answer(facts: &Facts, asked: &Asked, now: DateTime<Utc>) -> Decision {
    let subject = match asked.subject.parse().unwrap() {
        SubjectId::User(user) => Subject::User(user),
        SubjectId::Service(service) => Subject::Service(service),
    };
    let question = Question {
        tenant: &asked.tenant,
        subject,
        permission: Permission::parse(&asked.permission).unwrap(),
        resource: Resource::parse(&asked.resource).unwrap(),
        now,
    };
    decide(facts, &question).unwrap()
}

fn row(held: &Assignment) -> AssignmentRow<'_> {
    AssignmentRow {
        holder: held.holder,
        role: held.role,
        workspace: held.workspace,
        path: &held.path,
        starts: held.starts,
        ends: held.ends,
    }
}

fn folder(mix: &mut Mix) -> String {
    let folder = 1 + mix.below(1_000);
    match mix.below(2) {
        0 => format!("folders/{folder}"),
        _ => format!("folders/{folder}/files/{}", 1 + mix.below(20)),
    }
}

/// Over, not begun, or in force until some day.
fn dates(mix: &mut Mix) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let beginning = DateTime::from_timestamp_millis(BEGINNING as i64).unwrap();
    let day = |days| Some(beginning + TimeDelta::days(days));
    match mix.below(5) {
        0 => (day(1), day(90 + mix.below(90) as i64)),
        1 => (day(10_000), None),
        _ => (day(1), day(10_000 + mix.below(1_000) as i64)),
    }
}
