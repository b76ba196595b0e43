//! Callers: those who ask, and those who change and ask again until they know what became of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rolecall::proto as pb;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    dice::Dice,
    history::{Allowed, Answer, At, History, Known, Mutation, Outcome},
    reference::Switch,
    replica::Replica,
    setup::{Place, Setting},
    world::{Api, check, role_on},
};

/// What all clients share.
pub struct Stage {
    pub replicas: Vec<Arc<Replica>>,
    pub setting: Setting,
    pub known: Known,
    pub stop: AtomicBool,
    pub credential: String,
    pub seed: u64,
    /// How long a client waits for one attempt.
    pub patience: Duration,
    /// How many questions of a thousand calls are batches.
    pub batches: usize,
    /// How long a writer rests after each change.
    pub rest: Duration,
}

impl Stage {
    fn apis(&self) -> Vec<Api> {
        self.replicas.iter().map(|replica| replica.api(&self.credential)).collect()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

pub async fn in_time<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(patience, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the client waited long enough")),
    }
}

/// Whoever waits longer for an answer asks nobody else meanwhile.
const ASKING: Duration = Duration::from_millis(200);

/// Asks until the end.
pub async fn asker(stage: Arc<Stage>, client: u16) -> History {
    let mut history = History::default();
    let mut dice = Dice::new(stage.seed, 1_000 + u64::from(client));
    let apis = stage.apis();
    let mut token: Option<(String, At)> = None;
    while !stage.stopped() {
        let replica = dice.below(apis.len());
        let fresh = token.clone().filter(|_| dice.below(4) == 0);
        let mut answer = Answer {
            floor: stage.known.newest(),
            wanted: fresh.as_ref().map(|(_, at)| *at).unwrap_or_default(),
            at: At::default(),
            begun: stage.known.now(),
            ended: 0,
            client,
            replica: u8::try_from(replica).unwrap(),
            life: u16::try_from(stage.replicas[replica].lives.load(Ordering::Relaxed)).unwrap(),
            question: 0,
            allowed: Allowed::One(false),
        };
        let fresh = fresh.map(|(text, _)| text);
        let asked = if dice.below(1_000) < stage.batches {
            let place = &stage.setting.places[dice.below(stage.setting.places.len())];
            answer.question = u32::try_from(place.questions.start).unwrap();
            batch(&stage, &apis[replica], place, fresh).await
        } else {
            let question = dice.below(stage.setting.questions.len());
            answer.question = u32::try_from(question).unwrap();
            one(&stage, &apis[replica], question, fresh).await
        };
        answer.ended = stage.known.now();
        // A process that began meanwhile may have answered.
        let life = stage.replicas[replica].lives.load(Ordering::Relaxed);
        match asked {
            Ok((allowed, revision)) => {
                answer.at = At::parse(&revision);
                answer.allowed = allowed;
                token = Some((revision, answer.at)).max_by_key_at(token);
                if u32::from(answer.life) == life {
                    history.answers.push(answer);
                }
            }
            Err(status) => {
                *history.failures.entry(format!("check {:?}", status.code())).or_default() += 1;
                if lost(&status) {
                    token = None;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    history
}

trait Newer {
    fn max_by_key_at(self, other: Self) -> Self;
}

impl Newer for Option<(String, At)> {
    /// The one with the later revision.
    fn max_by_key_at(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|(_, at)| *at)
    }
}

/// Whether a failover took the revision of a token away.
fn lost(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

async fn one(
    stage: &Stage,
    api: &Api,
    question: usize,
    fresh: Option<String>,
) -> Result<(Allowed, String), Status> {
    let asked = &stage.setting.questions[question];
    let (tenant, subject) = (&stage.setting.place(question).key, &stage.setting.subjects[question]);
    let request = pb::CheckPermissionRequest {
        consistency: consistency(fresh),
        ..check(tenant, subject, asked.permission, asked.resource)
    };
    let answer =
        in_time(stage.patience.min(ASKING), api.permissions().check_permission(request)).await?;
    Ok((Allowed::One(answer.allowed), answer.revision))
}

async fn batch(
    stage: &Stage,
    api: &Api,
    place: &Place,
    fresh: Option<String>,
) -> Result<(Allowed, String), Status> {
    let items = place.questions.clone().map(|n| pb::CheckPermissionItem {
        subject: stage.setting.subjects[n].clone(),
        permission: stage.setting.questions[n].permission.into(),
        resource: stage.setting.questions[n].resource.into(),
    });
    let request = pb::BatchCheckPermissionsRequest {
        tenant: place.key.clone(),
        items: items.collect(),
        consistency: consistency(fresh),
    };
    let answer =
        in_time(stage.patience.min(ASKING), api.permissions().batch_check_permissions(request))
            .await?;
    assert!(answer.results.iter().all(|result| result.error.is_none()));
    Ok((Allowed::many(answer.results.iter().map(|result| result.allowed)), answer.revision))
}

fn consistency(fresh: Option<String>) -> Option<pb::Consistency> {
    fresh.map(|revision| pb::Consistency {
        requirement: Some(pb::consistency::Requirement::AtLeastAsFresh(revision)),
    })
}

/// What a writer knows of its switches.
struct Writer {
    stage: Arc<Stage>,
    client: u16,
    apis: Vec<Api>,
    dice: Dice,
    /// The switches of its own, and how they stand; nothing when it does not know.
    switches: Vec<(usize, Option<bool>)>,
    assignments: HashMap<usize, String>,
    history: History,
}

/// Changes what is its own until the end: of each tenant every `of`-th switch.
pub async fn writer(
    stage: Arc<Stage>,
    client: u16,
    place: usize,
    part: usize,
    of: usize,
) -> History {
    let switches = stage.setting.places[place].switches.clone().skip(part).step_by(of);
    let initially = |n: &usize| {
        let off =
            matches!(stage.setting.switches[*n], Switch::Role { .. } | Switch::InGroup { .. });
        (*n, Some(!off))
    };
    let mut writer = Writer {
        apis: stage.apis(),
        client,
        dice: Dice::new(stage.seed, 2_000 + u64::from(client)),
        switches: switches.map(|n| initially(&n)).collect(),
        assignments: HashMap::new(),
        history: History::default(),
        stage: stage.clone(),
    };
    while !stage.stopped() && !writer.switches.is_empty() {
        let chosen = writer.dice.below(writer.switches.len());
        writer.turn(chosen).await;
        tokio::time::sleep(stage.rest).await;
    }
    writer.history
}

impl Writer {
    /// Switches one over, or where it stands already, and sometimes says so twice.
    async fn turn(&mut self, chosen: usize) {
        let (switch, stands) = self.switches[chosen];
        let once = matches!(
            self.stage.setting.switches[switch],
            Switch::Key { .. } | Switch::Session { .. }
        );
        let repeatable = matches!(
            self.stage.setting.switches[switch],
            Switch::Role { .. } | Switch::InGroup { .. }
        );
        let again = repeatable && stands == Some(true) && self.dice.below(10) == 0;
        let on = !once && stands.is_none_or(|on| !on || again);
        // Of those that go off for good, only a few at a time.
        if once && self.dice.below(20) > 0 {
            return;
        }
        let request =
            Uuid::from_u128(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
        let request =
            uuid::Builder::from_random_bytes(request.into_bytes()).into_uuid().to_string();
        let outcome = self.until_known(switch, on, &request).await;
        self.switches[chosen].1 = matches!(outcome, Outcome::Acknowledged(_)).then_some(on);
        if matches!(outcome, Outcome::Acknowledged(_)) && self.dice.below(10) == 0 {
            self.until_known(switch, on, &request).await;
        }
        if once && self.switches[chosen].1.is_some() {
            self.switches.swap_remove(chosen);
        }
    }

    /// Asks for a change until its outcome is known, always with the same request id.
    async fn until_known(&mut self, switch: usize, on: bool, request: &str) -> Outcome {
        const LONG: Duration = Duration::from_secs(90);
        let (begun, patience) = (self.stage.known.now(), Instant::now() + LONG);
        let (mut attempts, mut outcome, mut replica) = (0, Outcome::Unknown, 0);
        while Instant::now() < patience {
            attempts += 1;
            replica = self.dice.below(self.apis.len());
            let api = self.apis[replica].clone();
            match self.attempt(&api, switch, on, request).await {
                Ok(revision) => {
                    let at = At::parse(&revision);
                    self.stage.known.acknowledged(at);
                    outcome = Outcome::Acknowledged(at);
                    break;
                }
                Err(status) => {
                    let code = format!("change {:?}", status.code());
                    *self.history.failures.entry(code).or_default() += 1;
                    if !again(&status) {
                        outcome = Outcome::Refused(status.message().to_owned());
                        break;
                    }
                    tokio::time::sleep(self.dice.millis(20, 120)).await;
                }
            }
        }
        self.history.mutations.push(Mutation {
            client: self.client,
            switch: u32::try_from(switch).unwrap(),
            on,
            begun,
            ended: self.stage.known.now(),
            attempts,
            replica: u8::try_from(replica).unwrap(),
            outcome: outcome.clone(),
        });
        outcome
    }

    async fn attempt(
        &mut self,
        api: &Api,
        n: usize,
        on: bool,
        request: &str,
    ) -> Result<String, Status> {
        let stage = self.stage.clone();
        let patience = stage.patience;
        let switch = &stage.setting.switches[n];
        let place = stage.setting.places.iter().find(|place| place.id == switch.tenant()).unwrap();
        let (tenant, request_id) = (place.key.clone(), request.to_owned());
        match switch {
            Switch::Role { subject, role, scope, .. } => {
                let change = pb::UpdateMemberRolesRequest {
                    tenant,
                    subject: subject.to_string(),
                    request_id,
                    ..Default::default()
                };
                self.roles(api, n, change, on.then(|| role_on(role, scope))).await
            }
            Switch::Active { user, .. } if on => {
                let user_id = user.to_string();
                let change = pb::ReactivateMembershipRequest {
                    tenant,
                    user_id,
                    request_id,
                    ..Default::default()
                };
                let changed =
                    in_time(patience, api.memberships().reactivate_membership(change)).await?;
                Ok(changed.revision)
            }
            Switch::Active { user, .. } => {
                let user_id = user.to_string();
                let change = pb::SuspendMembershipRequest {
                    tenant,
                    user_id,
                    request_id,
                    ..Default::default()
                };
                let changed =
                    in_time(patience, api.memberships().suspend_membership(change)).await?;
                Ok(changed.revision)
            }
            Switch::InGroup { user, .. } => {
                join(patience, api, tenant, user.to_string(), request_id, on).await
            }
            Switch::Key { key, .. } => {
                let api_key_id = key.to_string();
                let change = pb::RevokeApiKeyRequest {
                    tenant,
                    api_key_id,
                    request_id,
                    ..Default::default()
                };
                let changed =
                    in_time(patience, api.service_accounts().revoke_api_key(change)).await?;
                Ok(changed.revision)
            }
            Switch::Session { session, .. } => {
                let session_id = session.to_string();
                let change = pb::RevokeSessionRequest {
                    tenant,
                    session_id,
                    request_id,
                    ..Default::default()
                };
                let changed = in_time(patience, api.sessions().revoke_session(change)).await?;
                Ok(changed.revision)
            }
        }
    }

    /// Gives the role, or takes it back by the id it came with.
    async fn roles(
        &mut self,
        api: &Api,
        n: usize,
        mut change: pb::UpdateMemberRolesRequest,
        given: Option<pb::AssignRole>,
    ) -> Result<String, Status> {
        match (&given, self.assignments.get(&n)) {
            (Some(given), _) => change.add.push(given.clone()),
            (None, Some(id)) => change.remove.push(id.clone()),
            (None, None) => return Err(Status::failed_precondition("its id is not known")),
        }
        let changed =
            in_time(self.stage.patience, api.memberships().update_member_roles(change)).await?;
        if let Some(given) = given {
            let mut own = changed.roles.into_iter().filter(|held| held.group.is_empty());
            if let Some(held) = own.find(|r| r.role == given.role && r.scope == given.scope) {
                self.assignments.insert(n, held.id);
            }
        }
        Ok(changed.revision)
    }
}

async fn join(
    patience: Duration,
    api: &Api,
    tenant: String,
    user: String,
    request_id: String,
    on: bool,
) -> Result<String, Status> {
    let (group, user_ids) = ("team".to_owned(), vec![user]);
    if on {
        let change = pb::AddGroupMembersRequest {
            tenant,
            group,
            user_ids,
            request_id,
            ..Default::default()
        };
        return Ok(in_time(patience, api.groups().add_group_members(change)).await?.revision);
    }
    let change =
        pb::RemoveGroupMembersRequest { tenant, group, user_ids, request_id, ..Default::default() };
    Ok(in_time(patience, api.groups().remove_group_members(change)).await?.revision)
}

/// Whether the same request may find out more.
fn again(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
