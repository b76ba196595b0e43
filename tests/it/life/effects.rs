//! What each verb does to the model, or why it is refused.

use rolecall::proto as pb;

use super::{
    model::{
        Account, DATED, INVITED, Invitation, Model, Outcome, RETAINED, SIGNED_IN, Session, State,
        Status, Time,
    },
    verbs::{Kind, Place, Role, TENANTS, Verb, Who},
};

impl Model {
    /// What the verb itself does; what must hold for the tenant afterwards is [`Model::act`]'s.
    pub(super) fn apply(&mut self, verb: Verb) -> Outcome {
        match verb {
            Verb::Invite { .. }
            | Verb::Resend { .. }
            | Verb::Cancel { .. }
            | Verb::Accept { .. }
            | Verb::Decline { .. } => self.apply_to_invitation(verb),
            Verb::Suspend { .. }
            | Verb::Reactivate { .. }
            | Verb::Remove { .. }
            | Verb::Leave { .. }
            | Verb::Purge { .. }
            | Verb::SetKind { .. } => self.apply_to_member(verb),
            Verb::Give { .. }
            | Verb::Take { .. }
            | Verb::JoinGroup { .. }
            | Verb::LeaveGroup { .. }
            | Verb::GiveGroup { .. }
            | Verb::TakeGroup { .. }
            | Verb::MakeBoss { .. }
            | Verb::EditBoss { .. }
            | Verb::DeleteBoss { .. } => self.apply_to_roles(verb),
            Verb::SignIn { .. } | Verb::OpenSession { .. } | Verb::EndSessions { .. } => {
                self.apply_to_sessions(verb)
            }
            Verb::DeleteAccount { who } => {
                for at in 0..TENANTS {
                    if self.tenants[at].is_known(who) {
                        self.erase(at, who);
                    }
                }
                Ok(())
            }
            Verb::Disable { who } => {
                self.accounts[who] = Some(Account { disabled: true });
                let own = self.sessions.iter_mut().filter(|session| session.who == who);
                own.for_each(|session| session.ended = true);
                Ok(())
            }
            Verb::Enable { who } => {
                self.accounts[who] = Some(Account { disabled: false });
                Ok(())
            }
            Verb::Wait { .. } => unreachable!("time passes by itself"),
            _ => self.apply_to_tenant(verb),
        }
    }

    fn apply_to_invitation(&mut self, verb: Verb) -> Outcome {
        let now = self.now;
        match verb {
            Verb::Invite { at, by, who, kind, role, there } => {
                if let Some(by) = by {
                    let session = &self.sessions[self.newest_session(at, by).unwrap()];
                    self.session_flaw(session).map_or(Ok(()), Err)?;
                    self.check_inviter(at, by, None)?;
                }
                let gift = by.map_or(Ok(()), |by| self.check_inviter(at, by, role));
                let role = role.map(|role| (role, self.place(at, there)));
                let tenant = &mut self.tenants[at];
                tenant.require_kept()?;
                role.map_or(Ok(()), |(role, place)| tenant.check_role(role, place))?;
                gift?;
                tenant.check_stranger(who, now)?;
                let role = role.map(|(role, place)| (role, place.flatten()));
                let (state, expires) = (State::Pending, now + INVITED);
                let generation = 1;
                let void = false;
                let new = Invitation { who, kind, role, void, by, state, generation, expires };
                tenant.invitations.push(new);
            }
            Verb::Resend { at, who, nth } => {
                let n = self.invitation(at, who, nth).unwrap();
                let tenant = &mut self.tenants[at];
                let state = tenant.invitations[n].state;
                if matches!(state, State::Accepted | State::Cancelled) {
                    return Err("INVITATION_NOT_PENDING");
                }
                tenant.require_kept()?;
                if tenant.invitations[n].void {
                    return Err("INVITATION_VOID");
                }
                match state {
                    // Somebody may have invited them anew since.
                    State::Declined | State::Expired => tenant.check_stranger(who, now)?,
                    _ => tenant.check_no_member(who)?,
                }
                let invitation = &mut tenant.invitations[n];
                invitation.state = State::Pending;
                invitation.by = None;
                invitation.generation += 1;
                invitation.expires = now + INVITED;
            }
            Verb::Cancel { at, who, nth } => {
                let n = self.invitation(at, who, nth).unwrap();
                let state = &mut self.tenants[at].invitations[n].state;
                if *state == State::Accepted {
                    return Err("INVITATION_NOT_PENDING");
                }
                *state = State::Cancelled;
            }
            Verb::Decline { at, who, nth, old } => {
                let n = self.invitation(at, who, nth).unwrap();
                let invitation = &mut self.tenants[at].invitations[n];
                match (invitation.check_link(old, now), invitation.state) {
                    (Ok(()), State::Accepted) => return Err("INVITATION_ACCEPTED"),
                    (Err("INVITATION_DECLINED"), _) => {}
                    (link, _) => link?,
                }
                invitation.state = State::Declined;
            }
            Verb::Accept { at, who, nth, old } => {
                let n = self.invitation(at, who, nth).unwrap();
                self.accept(at, who, n, old)?;
            }
            _ => unreachable!("{verb:?} is about no invitation"),
        }
        Ok(())
    }

    fn accept(&mut self, at: Place, who: Who, n: usize, old: bool) -> Outcome {
        let now = self.now;
        let invitation = self.tenants[at].invitations[n].clone();
        invitation.check_link(old, now)?;
        let disabled = self.is_disabled(who);
        if invitation.state == State::Accepted {
            let joined = !disabled && self.tenants[at].present(who).is_ok();
            return if joined { Ok(()) } else { Err("INVITATION_ACCEPTED") };
        }
        if matches!(
            self.tenants[at].status,
            pb::TenantStatus::Suspended | pb::TenantStatus::Deleted
        ) {
            return Err("TENANT_SUSPENDED");
        }
        let promised = invitation.role;
        let waits = self.tenants[at].status == pb::TenantStatus::Pending;
        if let Some(by) = invitation.by.filter(|_| !waits) {
            let role = promised.map(|(role, _)| role);
            self.check_inviter(at, by, role).map_err(|_| "INVITER_LOST_RIGHT")?;
        }
        if disabled {
            return Err("ACCOUNT_DISABLED");
        }
        self.accounts[who].get_or_insert_default();
        let tenant = &mut self.tenants[at];
        let member = tenant.add(who, invitation.kind)?;
        member.held.extend(promised.map(|role| (role, None)));
        tenant.invitations[n].state = State::Accepted;
        let administers = promised
            .is_some_and(|(role, place)| place.is_none() && tenant.gives(role, "iam.administer"));
        if waits && administers && invitation.kind == Kind::Internal {
            tenant.status = pb::TenantStatus::Active;
            tenant.opened = true;
        }
        Ok(())
    }

    fn apply_to_member(&mut self, verb: Verb) -> Outcome {
        let now = self.now;
        match verb {
            Verb::Suspend { at, who, purgeable } => {
                let member = self.tenants[at].present_mut(who)?;
                let begun = member.purge_at.filter(|_| member.status == Status::Suspended);
                member.status = Status::Suspended;
                member.purge_at = purgeable.then(|| begun.unwrap_or(now + RETAINED));
                self.outdate_sessions(at, who);
            }
            Verb::Reactivate { at, who } => {
                let member = self.tenants[at].present_mut(who)?;
                (member.status, member.purge_at) = (Status::Active, None);
            }
            Verb::Remove { at, who } => {
                self.tenants[at].present(who)?;
                self.end(at, who);
            }
            Verb::Leave { at, who } => {
                let session = &self.sessions[self.newest_session(at, who).unwrap()];
                self.session_flaw(session).map_or(Ok(()), Err)?;
                self.end(at, who);
            }
            Verb::Purge { at, who, preview } => {
                let member = self.tenants[at].members.get(&who);
                let member = member.filter(|m| m.status != Status::Purged).ok_or("NOT_FOUND")?;
                if member.purge_at.is_none_or(|from| from > now) {
                    return Err("NOT_PURGEABLE");
                }
                if !preview {
                    self.erase(at, who);
                }
            }
            Verb::SetKind { at, who, kind } => self.tenants[at].present_mut(who)?.kind = kind,
            _ => unreachable!("{verb:?} is about no member"),
        }
        Ok(())
    }

    /// Ends a membership with its roles, groups and sessions.
    fn end(&mut self, at: Place, who: Who) {
        let purge_at = Some(self.now + RETAINED);
        let member = self.tenants[at].members.get_mut(&who).unwrap();
        member.held.clear();
        (member.status, member.in_group, member.purge_at) = (Status::Removed, false, purge_at);
        self.outdate_sessions(at, who);
    }

    fn outdate_sessions(&mut self, at: Place, who: Who) {
        let there = |s: &&mut Session| s.at == at && s.who == who;
        self.sessions.iter_mut().filter(there).for_each(|session| session.outdated = true);
    }

    /// What a tenant knows of somebody; the account too, where nobody else knows them.
    fn erase(&mut self, at: Place, who: Who) {
        self.end(at, who);
        let now = self.now;
        let tenant = &mut self.tenants[at];
        tenant.members.get_mut(&who).unwrap().status = Status::Purged;
        let over = |i: &&mut Invitation| i.who == who && !i.is_open(now);
        tenant.invitations.iter_mut().filter(over).for_each(|i| i.state = State::Gone);
        if self.tenants.iter().any(|tenant| tenant.is_known(who)) {
            return;
        }
        self.accounts[who] = None;
        self.tenants.iter_mut().for_each(|tenant| drop(tenant.members.remove(&who)));
        let own = self.sessions.iter_mut().filter(|session| session.who == who);
        own.for_each(|session| session.orphan = true);
    }

    fn apply_to_roles(&mut self, verb: Verb) -> Outcome {
        let now = self.now;
        match verb {
            Verb::Give { at, who, role, there, dated } => {
                let place = self.place(at, there);
                let tenant = &mut self.tenants[at];
                tenant.present(who)?;
                tenant.check_role(role, place)?;
                let ends: Option<Time> = dated.then_some(now + DATED);
                tenant.present_mut(who)?.held.insert((role, place.flatten()), ends);
            }
            Verb::Take { at, who, role, there } => {
                let place = self.place(at, there).flatten();
                self.tenants[at].present_mut(who)?.held.remove(&(role, place));
            }
            Verb::JoinGroup { at, who } => self.tenants[at].present_mut(who)?.in_group = true,
            Verb::LeaveGroup { at, who } => {
                if let Ok(member) = self.tenants[at].present_mut(who) {
                    member.in_group = false;
                }
            }
            Verb::GiveGroup { at, role } => {
                self.tenants[at].check_role(role, None)?;
                self.tenants[at].group.insert(role);
            }
            Verb::TakeGroup { at, role } => {
                self.tenants[at].group.remove(&role);
            }
            Verb::MakeBoss { at } => match self.tenants[at].boss {
                Some(_) => return Err("ALREADY_EXISTS"),
                None => self.tenants[at].boss = Some(true),
            },
            Verb::EditBoss { at, administers } => {
                *self.tenants[at].boss.as_mut().ok_or("NOT_FOUND")? = administers;
            }
            Verb::DeleteBoss { at } => self.delete_boss(at)?,
            _ => unreachable!("{verb:?} is about no role"),
        }
        Ok(())
    }

    fn delete_boss(&mut self, at: Place) -> Outcome {
        let (now, tenant) = (self.now, &mut self.tenants[at]);
        tenant.boss.ok_or("NOT_FOUND")?;
        let is_boss = |role: &Role| *role == Role::Boss;
        let held = tenant.members.values().any(|m| m.held.keys().any(|(role, _)| is_boss(role)));
        let promised = |i: &Invitation| i.role.is_some_and(|(role, _)| is_boss(&role));
        let open = tenant.invitations.iter().any(|i| promised(i) && i.is_open(now));
        if held || open || tenant.group.contains(&Role::Boss) {
            return Err("ROLE_IN_USE");
        }
        tenant.boss = None;
        // What is over forgets it.
        let over = tenant.invitations.iter_mut().filter(|i| promised(i));
        over.for_each(|invitation| invitation.void = true);
        Ok(())
    }

    fn apply_to_sessions(&mut self, verb: Verb) -> Outcome {
        let (at, who, own) = match verb {
            Verb::SignIn { at, who } => (at, who, true),
            Verb::OpenSession { at, who } => (at, who, false),
            Verb::EndSessions { at, who } => {
                self.tenants[at].present(who)?;
                let live = |s: &&mut Session| s.at == at && s.who == who && !s.outdated;
                self.sessions.iter_mut().filter(live).for_each(|session| session.ended = true);
                return Ok(());
            }
            _ => unreachable!("{verb:?} is about no session"),
        };
        let tenant = &self.tenants[at];
        let refusal = match tenant.present(who).map(|member| member.status) {
            Err(unknown) => Some(unknown),
            Ok(_) if tenant.status != pb::TenantStatus::Active => Some("TENANT_NOT_ACTIVE"),
            Ok(Status::Suspended) => Some("MEMBERSHIP_SUSPENDED"),
            Ok(_) => self.is_disabled(who).then_some("ACCOUNT_DISABLED"),
        };
        match refusal {
            // Whoever signs in is not told why it fails.
            Some(_) if own => return Err("SIGN_IN_FAILED"),
            Some(reason) => return Err(reason),
            None => {}
        }
        let expires = self.now + SIGNED_IN;
        self.sessions.push(Session {
            at,
            who,
            own,
            expires,
            ended: false,
            outdated: false,
            orphan: false,
        });
        Ok(())
    }

    fn apply_to_tenant(&mut self, verb: Verb) -> Outcome {
        match verb {
            Verb::MakeWorkspace { at } => self.tenants[at].workspaces.push(true),
            Verb::DeleteWorkspace { at } => {
                let tenant = &mut self.tenants[at];
                let newest = tenant.workspaces.last_mut().filter(|there| **there);
                *newest.ok_or("NOT_FOUND")? = false;
                let gone = tenant.workspace();
                for member in tenant.members.values_mut() {
                    member.held.retain(|(_, place), _| place.is_none() || *place != gone);
                }
                let within = |i: &&mut Invitation| {
                    i.role.is_some_and(|(_, place)| place.is_some() && place == gone)
                };
                for invitation in tenant.invitations.iter_mut().filter(within) {
                    invitation.void = true;
                    if invitation.is_open(self.now) {
                        invitation.state = State::Cancelled;
                    }
                }
            }
            Verb::SetSeats { at, limit } => self.tenants[at].seats = limit,
            Verb::SuspendTenant { at } => {
                self.tenants[at].require_kept()?;
                self.tenants[at].status = pb::TenantStatus::Suspended;
            }
            Verb::ReactivateTenant { at } => {
                let tenant = &mut self.tenants[at];
                tenant.require_kept()?;
                if tenant.status == pb::TenantStatus::Suspended {
                    tenant.status = match tenant.opened {
                        true => pb::TenantStatus::Active,
                        false => pb::TenantStatus::Pending,
                    };
                }
            }
            Verb::DeleteTenant { at } => {
                let tenant = &mut self.tenants[at];
                tenant.before.get_or_insert(tenant.status);
                tenant.status = pb::TenantStatus::Deleted;
            }
            Verb::RestoreTenant { at } => {
                let tenant = &mut self.tenants[at];
                tenant.status = tenant.before.take().unwrap_or(tenant.status);
            }
            Verb::Appoint { at, who } => self.appoint(at, who)?,
            _ => unreachable!("{verb:?} is about no tenant"),
        }
        Ok(())
    }

    fn appoint(&mut self, at: Place, who: Who) -> Outcome {
        self.tenants[at].require_kept()?;
        if self.tenants[at].status == pb::TenantStatus::Pending {
            return Err("TENANT_NOT_ACTIVE");
        }
        if self.administrators(at) > 0 {
            return Err("HAS_ADMINISTRATOR");
        }
        if self.is_disabled(who) {
            return Err("ACCOUNT_DISABLED");
        }
        let tenant = &mut self.tenants[at];
        if tenant.present(who).is_err() {
            tenant.add(who, Kind::Internal)?;
        }
        let member = tenant.present_mut(who)?;
        (member.status, member.kind, member.purge_at) = (Status::Active, Kind::Internal, None);
        member.held.insert((Role::Administrator, None), None);
        tenant.opened = true;
        Ok(())
    }
}

impl super::model::Tenant {
    fn require_kept(&self) -> Outcome {
        match self.status {
            pb::TenantStatus::Deleted => Err("TENANT_DELETED"),
            _ => Ok(()),
        }
    }
}
