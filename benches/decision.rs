//! What a decision costs in process: time, allocations and memory over a thousand, a hundred thousand
//! and ten million assignments, and what it costs to apply a change in a tenant of a million members.
//!
//! `make bench-decision` needs memory for ten million assignments; with `-- --most 100000` it
//! stops at so many, and the tenant of a million members is as much smaller.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a bench says what it saw, or stops"
)]

mod world;

use std::{
    alloc::System,
    hint::black_box,
    time::{Duration, Instant},
};

use clap::Parser;
use rolecall::{
    clock::Moment,
    decision::{
        Assignment, Facts, GroupMember, Permission, Pool, Question, Record, Resource, Role,
        Subject, TenantFacts, There, Time, Transition, decide, subjects,
    },
    ids::{Holder, SubjectId, TenantId},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use world::{Asked, Shape, World, answer, learn, now};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOT: usize = 1_000;
const RANDOM: usize = 200_000;
/// Of each measurement in each round.
const TURN: Duration = Duration::from_millis(200);
/// The decisions of which allocations are counted.
const COUNTED: usize = 10_000;

#[derive(Parser)]
struct Args {
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// The most assignments.
    #[arg(long, default_value_t = 10_000_000)]
    most: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let args = Args::parse();
    println!(
        "| assignments | hot, strings | random, strings | hot, parsed | random, parsed | \
         allocations a decision | bytes an assignment, allocated | resident |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for assignments in [1_000, 100_000, 10_000_000] {
        if assignments <= args.most {
            decisions(&args, assignments);
        }
    }
    println!();
    changes(&args, args.most / 10);
    println!("\nThe lease adds {:.0} ns to each check.", lease());
}

/// What it takes to compare the time with the end of a lease.
fn lease() -> f64 {
    const TIMES: u32 = 1_000_000;
    let end = Moment::now().after(Duration::from_secs(3_600));
    let mut rounds: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            let held = (0..TIMES).filter(|_| Moment::now() < black_box(end)).count();
            assert_eq!(held, TIMES as usize);
            begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn allocated(region: &Region<'_, System>) -> isize {
    let change = region.change();
    change.bytes_allocated as isize - change.bytes_deallocated as isize
}

fn decisions(args: &Args, assignments: usize) {
    let shape = Shape {
        tenants: (assignments / 1_000).max(1),
        users: assignments / 10,
        assignments,
        tenant_of: 0,
        seed: args.seed,
    };
    let world = World::new(shape);
    let (region, before) = (Region::new(ALLOCATOR), resident());
    let mut facts = Facts::default();
    facts.insert_tenant(TenantFacts::new(TenantId::SYSTEM));
    let (mut held, mut pool) = (0, Pool::default());
    for n in 0..world.tenants() {
        let frame = world.frame(n);
        learn(&mut facts, &frame.tenant);
        let mut tenant = world.facts(&frame, 0..world.members(n));
        tenant.share(&mut pool);
        facts.insert_tenant(tenant);
        held += frame.groups.iter().map(|(_, held)| held.len()).sum::<usize>();
        held +=
            (0..world.members(n)).map(|m| world.person(&frame, m).assignments.len()).sum::<usize>();
    }
    let bytes = allocated(&region) as f64 / held as f64;
    let resident = resident().saturating_sub(before) as f64 / held as f64;

    let (hot, random) = (world.questions(HOT), world.questions(RANDOM.min(assignments * 10)));
    let now = now();
    for asked in hot.iter().step_by(10) {
        assert_eq!(answer(&facts, asked, now).allowed(), world.expected(asked), "{asked:?}");
    }
    let (hot_texts, random_texts) = (Texts::of(&hot), Texts::of(&random));
    let (hot, random): (Vec<_>, Vec<_>) = (hot_texts.all().collect(), random_texts.all().collect());
    let parsed_hot: Vec<_> = hot.iter().map(|words| words.question(now)).collect();
    let parsed_random: Vec<_> = random.iter().map(|words| words.question(now)).collect();
    let region = Region::new(ALLOCATOR);
    for words in random.iter().take(COUNTED) {
        black_box(decide(&facts, &words.question(now)).unwrap());
    }
    let allocations = region.change().allocations as f64 / random.len().min(COUNTED) as f64;

    let mut nanos = [(); 4].map(|()| Vec::new());
    for _ in 0..args.rounds {
        let strings = |words: &Words<'_>| decide(&facts, &words.question(now)).unwrap().allowed();
        let questions = |question: &Question<'_>| decide(&facts, question).unwrap().allowed();
        nanos[0].push(time(&hot, strings));
        nanos[1].push(time(&random, strings));
        nanos[2].push(time(&parsed_hot, questions));
        nanos[3].push(time(&parsed_random, questions));
    }
    let [hot, random, hot_parsed, random_parsed] = nanos.map(median);
    println!(
        "| {held} | {hot:.0} ns | {random:.0} ns | {hot_parsed:.0} ns | {random_parsed:.0} ns | \
         {allocations} | {bytes:.1} | {resident:.1} |"
    );
}

/// Questions one after the other, as they lie in what a connection received.
struct Texts {
    text: String,
    cuts: Vec<[usize; 5]>,
}

impl Texts {
    fn of(questions: &[Asked]) -> Self {
        let (mut text, mut cuts) = (String::new(), Vec::new());
        for Asked { tenant, subject, permission, resource, .. } in questions {
            let mut cut = [text.len(); 5];
            for (n, field) in [tenant, subject, permission, resource].into_iter().enumerate() {
                text.push_str(field);
                cut[n + 1] = text.len();
            }
            cuts.push(cut);
        }
        Self { text, cuts }
    }

    fn all(&self) -> impl Iterator<Item = Words<'_>> {
        self.cuts.iter().map(|[a, b, c, d, e]| Words {
            tenant: &self.text[*a..*b],
            subject: &self.text[*b..*c],
            permission: &self.text[*c..*d],
            resource: &self.text[*d..*e],
        })
    }
}

struct Words<'a> {
    tenant: &'a str,
    subject: &'a str,
    permission: &'a str,
    resource: &'a str,
}

impl<'a> Words<'a> {
    fn question(&self, now: Time) -> Question<'a> {
        Question {
            tenant: self.tenant,
            subject: match self.subject.parse().unwrap() {
                SubjectId::User(user) => Subject::User(user),
                SubjectId::Service(service) => Subject::Service(service),
            },
            permission: Permission::parse(self.permission).unwrap(),
            resource: Resource::parse(self.resource).unwrap(),
            now,
        }
    }
}

/// Nanoseconds for one, over whole passes.
fn time<T>(questions: &[T], mut ask: impl FnMut(&T) -> bool) -> f64 {
    let (start, mut asked) = (Instant::now(), 0);
    while start.elapsed() < TURN {
        for question in questions {
            black_box(ask(black_box(question)));
        }
        asked += questions.len();
    }
    start.elapsed().as_nanos() as f64 / asked as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Applies changes to one tenant as the feed does: to a copy of the facts, while others still read
/// the old ones.
fn changes(args: &Args, members: usize) {
    // Everybody in one tenant, with groups: of the usual shape, and as large.
    let shape =
        Shape { tenants: 1, users: members, assignments: members, tenant_of: 0, seed: args.seed };
    let world = World::new(shape);
    let frame = world.frame(0);
    let mut facts = Facts::default();
    learn(&mut facts, &frame.tenant);
    facts.insert_tenant(TenantFacts::new(TenantId::SYSTEM));
    facts.insert_tenant(world.facts(&frame, 0..world.members(0)));
    let step = |before, after| Transition { tenant: frame.tenant.id, before, after };

    let rare = frame.roles.iter().find(|role| role.key.as_str() == "director").unwrap();
    pages(&facts, frame.tenant.key.as_str(), &rare.permissions[0]);
    println!(
        "| change in a tenant of {members} | median | most | allocated, bytes |\n|---|--:|--:|--:|"
    );
    let someone = |n: usize| world.person(&frame, n * 7_919 % world.members(0));
    let given: Vec<_> = (0..100)
        .map(|n| {
            let Holder::Subject(subject) = someone(n).assignments[0].holder else { unreachable!() };
            let fresh = Assignment {
                id: uuid::Uuid::from_u128(n as u128).into(),
                holder: Holder::Subject(subject),
                workspace: Some(frame.workspaces[n % frame.workspaces.len()].id),
                ..someone(n).assignments[0].clone()
            };
            step(None, Some(Record::Assignment(fresh)))
        })
        .collect();
    apply("give an assignment", &mut facts, &given);
    let taken: Vec<_> = given.into_iter().map(|given| step(given.after, None)).collect();
    apply("take an assignment", &mut facts, &taken);

    let employee = frame.roles.iter().find(|role| role.key.as_str() == "employee").unwrap();
    let edit = |n: usize| Role {
        permissions: ["messaging.use".into(), format!("module{n}.*").into()].into(),
        ..employee.clone()
    };
    let edits: Vec<_> = (0..100)
        .map(|n| step(Some(Record::Role(edit(n))), Some(Record::Role(edit(n + 1)))))
        .collect();
    apply("edit the role that everybody has", &mut facts, &edits);

    let Some((group, held)) = frame.groups.first() else { return };
    let joined: Vec<_> = (0..members.min(2_000))
        .map(|m| world.person(&frame, m))
        .filter(|person| person.group.is_none())
        .take(100)
        .map(|person| {
            let user = person.member.subject.user().unwrap();
            step(None, Some(Record::GroupMember(GroupMember { group: group.id, user })))
        })
        .collect();
    apply("add a person to a group", &mut facts, &joined);
    let dated: Vec<_> = held
        .iter()
        .cycle()
        .take(100)
        .map(|held| {
            step(Some(Record::Assignment(held.clone())), Some(Record::Assignment(held.clone())))
        })
        .collect();
    apply("replace an assignment of a group", &mut facts, &dated);
}

/// The first page of who may do something: what everybody may, and what hardly anybody may.
fn pages(facts: &Facts, tenant: &str, rare: &str) {
    println!("| first page of 100 who may | median | found |\n|---|--:|--:|");
    for word in ["messaging.use", rare, "iam.administer"] {
        let Ok(permission) = Permission::parse(word) else { continue };
        let there = There { tenant, resource: Resource::TENANT, now: now() };
        let (mut micros, mut found) = (Vec::new(), 0);
        for _ in 0..5 {
            let start = Instant::now();
            found = subjects(facts, &there, permission, None, 100).unwrap().found.len();
            micros.push(start.elapsed().as_nanos() as f64 / 1e3);
        }
        println!("| `{word}` | {:.0} µs | {found} |", median(micros));
    }
    println!();
}

fn apply(what: &str, facts: &mut Facts, steps: &[Transition]) {
    let (mut micros, mut bytes) = (Vec::new(), Vec::new());
    for step in steps {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        let mut next = Facts::clone(facts);
        next.apply(step);
        micros.push(start.elapsed().as_nanos() as f64 / 1e3);
        bytes.push(region.change().bytes_allocated as f64);
        // Only now, as a reader might hold the old ones for as long.
        *facts = next;
    }
    let most = micros.iter().copied().fold(0.0, f64::max);
    println!("| {what} | {:.1} µs | {most:.1} µs | {:.0} |", median(micros), median(bytes));
}
