//! Holds what clients saw against the replayed events. One binary search for each decision.

use std::{collections::HashMap, fmt::Write};

use crate::{
    history::{Answer, At, History, Mutation, Outcome},
    reference::{Question, Replay, Switch},
};

/// Epochs by number, each with the last revision of those before that is part of it.
pub type Epochs = Vec<(u32, u64)>;

#[derive(Debug, Default)]
pub struct Verdict {
    pub calls: u64,
    pub decisions: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Answers from before what was acknowledged when they were asked.
    pub stale: u64,
    /// Of these, those that also decided otherwise than they had to.
    pub stale_decisions: u64,
    /// Decisions other than the replay's at their own revision.
    pub wrong: u64,
    /// Acknowledged changes that the log does not have, or that are not as they were acknowledged.
    pub lost: u64,
    /// Answers older than the revision they had to be as fresh as, or older than an earlier one of the
    /// same process.
    pub backwards: u64,
    /// Answers at revisions that a failover took away; nobody can replay them.
    pub unverifiable: u64,
    /// Acknowledged changes that a failover took away.
    pub lost_in_failover: u64,
    /// The shortest history of the first of each kind.
    pub shown: Vec<String>,
}

impl Verdict {
    pub fn clean(&self) -> bool {
        self.stale + self.wrong + self.lost + self.backwards == 0
    }
}

pub struct Checker<'a> {
    pub replay: &'a Replay,
    pub epochs: &'a Epochs,
    pub questions: &'a [Question],
    pub switches: &'a [Switch],
}

impl Checker<'_> {
    /// Whether a revision is part of the history that there is now.
    pub fn kept(&self, at: At) -> bool {
        let later = self.epochs.iter().filter(|(epoch, _)| *epoch > at.epoch);
        later.min().is_none_or(|(_, base)| at.number <= *base)
    }

    pub fn check(&self, history: &History) -> Verdict {
        let mut verdict = Verdict::default();
        self.mutations(history, &mut verdict);
        let mut acknowledged: Vec<&Mutation> = history
            .mutations
            .iter()
            .filter(|mutation| matches!(mutation.outcome, Outcome::Acknowledged(_)))
            .collect();
        acknowledged.sort_by_key(|mutation| mutation.ended);
        for answer in &history.answers {
            verdict.calls += 1;
            verdict.decisions += u64::from(answer.allowed.count());
            self.answer(answer, &acknowledged, &mut verdict);
        }
        self.order(history, &mut verdict);
        verdict
    }

    fn mutations(&self, history: &History, verdict: &mut Verdict) {
        for mutation in &history.mutations {
            let at = match &mutation.outcome {
                Outcome::Acknowledged(at) => *at,
                Outcome::Refused(_) => {
                    verdict.refused += 1;
                    continue;
                }
                Outcome::Unknown => {
                    verdict.unknown += 1;
                    continue;
                }
            };
            verdict.acknowledged += 1;
            if !self.kept(at) {
                verdict.lost_in_failover += 1;
                continue;
            }
            let there = at.number <= self.replay.last;
            if !there || self.replay.switches[mutation.switch as usize].at(at.number) != mutation.on
            {
                verdict.lost += 1;
                if verdict.lost == 1 {
                    let what =
                        if there { "is not so at its revision" } else { "is not in the log" };
                    verdict.shown.push(format!(
                        "LOST: an acknowledged change {what} (the log ends at {}):\n{}",
                        self.replay.last,
                        self.tell_mutation(mutation)
                    ));
                }
            }
        }
    }

    fn answer(&self, answer: &Answer, acknowledged: &[&Mutation], verdict: &mut Verdict) {
        let stale = answer.at < answer.floor;
        if answer.at < answer.wanted {
            verdict.backwards += 1;
            if verdict.backwards == 1 {
                verdict.shown.push(format!("BACKWARDS: {}", self.tell(answer, 0)));
            }
        }
        verdict.stale += u64::from(stale);
        if !self.kept(answer.at) || answer.at.number > self.replay.last {
            verdict.unverifiable += 1;
            return;
        }
        let floor = if self.kept(answer.floor) { answer.floor.number } else { 0 };
        let mut decided = None;
        for n in 0..answer.allowed.count() {
            let course = &self.replay.questions[(answer.question + n) as usize];
            let allowed = answer.allowed.get(n);
            if course.at(answer.at.number) != allowed {
                verdict.wrong += 1;
                if verdict.wrong == 1 {
                    let right = if allowed { "denied" } else { "allowed" };
                    let told = self.tell(answer, n);
                    verdict.shown.push(format!("WRONG: the replay has it {right}: {told}"));
                }
            }
            if stale && course.at(floor.min(self.replay.last)) != allowed {
                verdict.stale_decisions += 1;
                decided.get_or_insert(n);
            }
        }
        // One that decides otherwise shows more than one that is only old.
        if stale && (verdict.stale == 1 || (decided.is_some() && verdict.stale_decisions == 1)) {
            verdict.shown.push(self.stale(answer, decided.unwrap_or(0), acknowledged));
        }
    }

    /// The acknowledgement and the answer: nothing else is needed to see it.
    fn stale(&self, answer: &Answer, n: u32, acknowledged: &[&Mutation]) -> String {
        let course = &self.replay.questions[(answer.question + n) as usize];
        let turned: Vec<u64> =
            course.changes(answer.at.number, answer.floor.number).map(|(at, _)| at).collect();
        let before = acknowledged.partition_point(|mutation| mutation.ended <= answer.begun);
        let number = |mutation: &Mutation| match mutation.outcome {
            Outcome::Acknowledged(at) => at,
            _ => At::default(),
        };
        let missed = |mutation: &&&Mutation| number(mutation) > answer.at;
        let mut missing = acknowledged[..before].iter().filter(missed);
        let cause = missing
            .clone()
            .find(|mutation| turned.contains(&number(mutation).number))
            .or_else(|| missing.next_back());
        let cause = cause.map_or_else(
            || "  (acknowledged outside of this history)".to_owned(),
            |mutation| self.tell_mutation(mutation),
        );
        format!(
            "STALE: what was acknowledged before it was asked is not in the answer:\n{cause}\n{}",
            self.tell(answer, n)
        )
    }

    /// No process goes back, as one caller sees it who asks one question after the other.
    fn order(&self, history: &History, verdict: &mut Verdict) {
        let mut last: HashMap<(u16, u8, u16), &Answer> = HashMap::new();
        let mut answers: Vec<&Answer> = history.answers.iter().collect();
        answers.sort_by_key(|answer| (answer.client, answer.begun, answer.ended));
        for answer in answers {
            let by = (answer.client, answer.replica, answer.life);
            if let Some(earlier) = last.insert(by, answer)
                && earlier.ended <= answer.begun
                && answer.at < earlier.at
            {
                verdict.backwards += 1;
                if verdict.backwards == 1 {
                    verdict.shown.push(format!(
                        "BACKWARDS: one process, one caller:\n{}\n{}",
                        self.tell(earlier, 0),
                        self.tell(answer, 0)
                    ));
                }
            }
        }
    }

    fn tell_mutation(&self, mutation: &Mutation) -> String {
        let Mutation { client, switch, on, begun, ended, attempts, replica, outcome } = mutation;
        let switch = &self.switches[*switch as usize];
        let to = if *on { "on" } else { "off" };
        format!(
            "  {begun}–{ended} ms, writer {client}, {attempts} attempts, last at r{replica}: \
             {switch:?} {to}: {outcome:?}"
        )
    }

    fn tell(&self, answer: &Answer, n: u32) -> String {
        let Answer { floor, wanted, at, begun, ended, client, replica, life, .. } = answer;
        let question = &self.questions[(answer.question + n) as usize];
        let allowed = if answer.allowed.get(n) { "allowed" } else { "denied" };
        let mut told = format!(
            "  {begun}–{ended} ms, client {client}, r{replica} in life {life}: {question:?}: {allowed} \
             at {at:?}, acknowledged when asked: {floor:?}"
        );
        if *wanted != At::default() {
            let _ = write!(told, ", wanted: {wanted:?}");
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use rolecall::{
        decision::{Member, MemberKind, MemberStatus, Record, Role, Tenant, TenantStatus},
        ids::{Holder, SubjectId, TenantId},
    };
    use uuid::Uuid;

    use super::*;
    use crate::{
        history::Allowed,
        reference::{Change, Who},
    };

    const TENANT: TenantId = TenantId::from_uuid(Uuid::from_u128(7));

    fn id<T: From<Uuid>>(n: u128) -> T {
        Uuid::from_u128(n).into()
    }

    fn subject() -> SubjectId {
        SubjectId::Service(id(1))
    }

    /// A role given at revision 2 and taken at revision 3.
    fn replay(questions: &[Question], switches: &[Switch]) -> Replay {
        let assignment = Record::Assignment(rolecall::decision::Assignment {
            id: id(3),
            holder: Holder::Subject(subject()),
            role: id(2),
            workspace: None,
            path: String::new(),
            starts: None,
            ends: None,
        });
        let (key, status) = ("acme".parse().unwrap(), TenantStatus::Active);
        let tenant = Tenant { id: TENANT, key, status, default_role: None };
        let (kind, status) = (MemberKind::Service, MemberStatus::Active);
        let member = Member { subject: subject(), kind, status, epoch: 0 };
        let role = Role {
            id: id(2),
            key: "reader".parse().unwrap(),
            permissions: ["files.read".into()].into(),
            includes: vec![],
            reach: rolecall::decision::Reach::Everywhere,
            may_grant: vec![],
            exclusive_set: None,
            max_duration_seconds: None,
            locked: false,
        };
        let first = [Record::Tenant(tenant), Record::Member(member), Record::Role(role)];
        let changes = [
            first.into_iter().map(|record| (TENANT, None, Some(record))).collect(),
            vec![(TENANT, None, Some(assignment.clone()))],
            vec![(TENANT, Some(assignment), None)],
        ];
        let changes = changes.into_iter().zip(1..);
        let changes = changes.map(|(events, revision)| Change { revision, events });
        Replay::new(changes, questions, switches)
    }

    fn epoch(number: u64) -> At {
        At { epoch: 1, number }
    }

    fn answer(at: u64, floor: u64, allowed: bool) -> Answer {
        Answer {
            floor: epoch(floor),
            wanted: At::default(),
            at: epoch(at),
            begun: 10,
            ended: 20,
            client: 0,
            replica: 0,
            life: 1,
            question: 0,
            allowed: Allowed::One(allowed),
        }
    }

    fn mutation(at: u64, on: bool) -> Mutation {
        Mutation {
            client: 9,
            switch: 0,
            on,
            begun: 1,
            ended: 5,
            attempts: 1,
            replica: 0,
            outcome: Outcome::Acknowledged(epoch(at)),
        }
    }

    fn judge(answers: Vec<Answer>, mutations: Vec<Mutation>, epochs: &Epochs) -> Verdict {
        let (permission, resource) = ("files.read", "workspaces/w1");
        let who = Who::Subject(subject());
        let questions = [Question { tenant: TENANT, who, permission, resource }];
        let (role, scope) = ("reader", "");
        let switches = [Switch::Role { tenant: TENANT, subject: subject(), role, scope }];
        let replay = &replay(&questions, &switches);
        let (questions, switches) = (&questions[..], &switches[..]);
        let history = History { answers, mutations, ..History::default() };
        Checker { replay, epochs, questions, switches }.check(&history)
    }

    #[test]
    fn what_is_as_the_events_say_is_clean() {
        let answers = vec![answer(1, 1, false), answer(2, 1, true), answer(3, 2, false)];
        let verdict = judge(answers, vec![mutation(2, true), mutation(3, false)], &vec![]);
        assert!(verdict.clean() && verdict.shown.is_empty(), "{verdict:?}");
        assert_eq!((verdict.calls, verdict.decisions, verdict.acknowledged), (3, 3, 2));
    }

    #[test]
    fn a_stale_answer_is_found_and_shown_with_what_it_lacks() {
        let verdict = judge(vec![answer(2, 3, true)], vec![mutation(3, false)], &vec![]);
        assert_eq!((verdict.stale, verdict.stale_decisions, verdict.wrong), (1, 1, 0));
        let shown = &verdict.shown[0];
        assert!(shown.contains("writer 9") && shown.contains("number: 3"), "{shown}");
    }

    #[test]
    fn a_decision_that_the_events_do_not_have_is_found_in_a_batch_too() {
        let many = Answer { allowed: Allowed::many([false].into_iter()), ..answer(2, 2, true) };
        let verdict = judge(vec![answer(3, 3, true), many], vec![], &vec![]);
        assert_eq!((verdict.wrong, verdict.stale), (2, 0));
    }

    #[test]
    fn acknowledged_changes_that_are_not_there_are_lost() {
        assert_eq!(judge(vec![], vec![mutation(3, true)], &vec![]).lost, 1);
        assert_eq!(judge(vec![], vec![mutation(4, true)], &vec![]).lost, 1);
    }

    #[test]
    fn what_a_failover_took_away_is_known() {
        // The log of epoch 1 went beyond revision 2, where epoch 2 began.
        let epochs = vec![(1, 0), (2, 2)];
        let gone = judge(vec![answer(3, 1, false)], vec![mutation(3, false)], &epochs);
        assert_eq!((gone.lost_in_failover, gone.unverifiable, gone.lost), (1, 1, 0));
        let kept = judge(vec![answer(2, 1, true)], vec![mutation(2, true)], &epochs);
        assert_eq!((kept.lost_in_failover, kept.unverifiable), (0, 0));
    }

    #[test]
    fn going_back_is_found_with_a_token_and_without() {
        let wanted = Answer { wanted: epoch(2), ..answer(1, 1, false) };
        assert_eq!(judge(vec![wanted], vec![], &vec![]).backwards, 1);
        let later = Answer { begun: 30, ended: 40, ..answer(2, 1, true) };
        assert_eq!(judge(vec![later.clone(), answer(3, 1, false)], vec![], &vec![]).backwards, 1);
        let restarted = Answer { life: 2, ..later };
        assert!(judge(vec![restarted, answer(3, 1, false)], vec![], &vec![]).clean());
    }
}
