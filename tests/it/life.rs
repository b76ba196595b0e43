//! The life of members: random sequences of everything that can happen to them, done by a real server
//! and by a plain model, which must agree on every refusal and on everything that is shown.

mod effects;
mod model;
mod shown;
mod stage;
mod verbs;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tokio::{runtime::Handle, task::block_in_place};

use self::{
    model::{Model, Outcome},
    stage::Stage,
    verbs::{Kind, Verb, life},
};
use crate::{decision::reference::cases, world::World};

/// After so many verbs everything that is shown is compared.
const LOOK: usize = 4;

/// How often each verb was done, or refused for a reason.
type Seen = BTreeMap<String, usize>;

/// One tenant has an administrator, a member and a guest; the other one waits for its first
/// administrator.
const BEGINNING: [Verb; 5] = [
    Verb::Accept { at: 0, who: 0, nth: 0, old: false },
    Verb::Invite { at: 0, by: None, who: 1, kind: Kind::Internal, role: None, there: false },
    Verb::Accept { at: 0, who: 1, nth: 0, old: false },
    Verb::Invite { at: 0, by: None, who: 2, kind: Kind::External, role: None, there: false },
    Verb::Accept { at: 0, who: 2, nth: 0, old: false },
];

/// Does the verbs in two fresh tenants; where model and server differ, says how.
async fn live(world: &World, n: u32, verbs: &[Verb], seen: &RefCell<Seen>) -> Result<(), String> {
    let (mut stage, mut model) = (Stage::build(world, n).await, Model::new());
    let verbs = BEGINNING.iter().chain(verbs).copied();
    for (n, verb) in verbs.enumerate() {
        if !model.can_be_asked(verb) {
            continue;
        }
        let done = stage.act(&model, verb).await;
        let expected: Outcome = model.act(verb);
        if done.as_ref().map_err(String::as_str) != expected.as_ref().map_err(|reason| *reason) {
            let step = format!("at step {n}, {verb:?}");
            return Err(format!("{step}: the server says {done:?}, the model {expected:?}"));
        }
        let what = done.err().unwrap_or_else(|| "OK".to_owned());
        *seen.borrow_mut().entry(format!("{} {what}", verb.name())).or_default() += 1;
        // Looking costs as much as doing.
        if n.is_multiple_of(LOOK) {
            compare(&stage, &model)
                .await
                .map_err(|seen| format!("by step {n}, {verb:?}: {seen}"))?;
        }
    }
    compare(&stage, &model).await.map_err(|seen| format!("in the end: {seen}"))
}

async fn compare(stage: &Stage<'_>, model: &Model) -> Result<(), String> {
    let (shown, expected) = (stage.shown(model).await, model.shown());
    if shown == expected { Ok(()) } else { Err(shown.differences(&expected).join("\n")) }
}

/// What differed once.
const FOUND: [&[Verb]; 3] = [
    // A link that was used lets nobody in who was removed since.
    &[Verb::Remove { at: 0, who: 1 }, Verb::Accept { at: 0, who: 1, nth: 0, old: false }],
    // An account that is disabled leaves a suspended tenant without an administrator, too …
    &[
        Verb::SuspendTenant { at: 0 },
        Verb::Disable { who: 0 },
        Verb::Suspend { at: 0, who: 0, purgeable: false },
    ],
    // … and one that is enabled gives it one.
    &[
        Verb::Disable { who: 0 },
        Verb::SuspendTenant { at: 0 },
        Verb::Enable { who: 0 },
        Verb::Suspend { at: 0, who: 0, purgeable: false },
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn what_differed_from_the_model_once_does_so_no_more() {
    let world = World::start().await;
    for (n, verbs) in (0..).zip(FOUND) {
        live(&world, n, verbs, &RefCell::default()).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_members_the_server_does_as_a_plain_model() {
    let world = World::start().await;
    let (next, seen) = (Cell::new(0), RefCell::new(Seen::new()));
    let mut config = Config { failure_persistence: None, max_shrink_iters: 500, ..cases(16) };
    // The same every time, unless `PROPTEST_RNG_SEED` says otherwise.
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(4);
    }
    let lives = TestRunner::new(config).run(&life(), |verbs| {
        next.set(next.get() + 1);
        let life = live(&world, next.get(), &verbs, &seen);
        block_in_place(|| Handle::current().block_on(life)).map_err(TestCaseError::fail)
    });
    for (what, times) in seen.borrow().iter() {
        println!("{times:6} {what}");
    }
    lives.unwrap();
    world.stop().await;
}
