//! Questions that arrived together, decided together.

use std::array;

use super::{Admitted, Asked, Found, Named, admit};
use crate::{
    caller::Call,
    decision::{Decision, Facts, Time},
};

/// How many questions take each step together.
pub const BLOCK: usize = 16;

/// Decides questions of one caller in blocks.
pub struct Together<'a> {
    facts: &'a Facts,
    call: &'a Call,
    now: Time,
    /// The last tenant that was asked about: mostly it is that of the next question, too.
    admitted: Option<(&'a str, Admitted<'a>)>,
}

impl<'a> Together<'a> {
    #[must_use]
    pub fn new(facts: &'a Facts, call: &'a Call, now: Time) -> Self {
        Self { facts, call, now, admitted: None }
    }

    /// Tells the decisions in the order of the questions, of which there is no more than a block, and how
    /// many there are: the caller may not ask the next, or a tenant has to be read first.
    pub fn decide<'q>(
        &mut self,
        asked: &'q [Asked<'a>],
        mut tell: impl FnMut(usize, Decision),
    ) -> usize {
        let same = |n: usize| n > 0 && asked[n].tenant == asked[n - 1].tenant;
        for (n, asked) in asked.iter().enumerate() {
            let known = self.admitted.is_some_and(|(tenant, _)| tenant == asked.tenant);
            if !known
                && !same(n)
                && let Some(entry) = self.facts.directory.tenants.get(asked.tenant)
            {
                entry.approach();
            }
        }
        let admitted: [Option<Admitted<'a>>; BLOCK] =
            array::from_fn(|n| self.admit(asked.get(n)?.tenant));
        let admitted = || admitted.iter().map_while(|admitted| *admitted).zip(asked).enumerate();
        // Many in a row are often about the same subject.
        let again: [bool; BLOCK] = array::from_fn(|n| {
            n < asked.len() && same(n) && asked[n].subject == asked[n - 1].subject
        });
        for (_, (admitted, asked)) in admitted().filter(|(n, _)| !again[*n]) {
            if let Named::Id(subject) = asked.subject
                && let Some(entry) = admitted.entry
            {
                entry.approach_member(subject, asked.what.resource);
            }
        }
        let mut found: [Option<Found<'q>>; BLOCK] = [None; BLOCK];
        for (n, (admitted, asked)) in admitted() {
            if again[n] {
                found[n] = found[n - 1];
                continue;
            }
            let Ok(party) = admitted.find(&asked.subject) else { break };
            party.approach();
            found[n] = Some(party);
        }
        let mut decided = 0;
        for (found, asked) in found.iter().map_while(Option::as_ref).zip(asked) {
            tell(decided, found.decide(asked.what));
            decided += 1;
        }
        decided
    }

    /// Nothing: it may not ask about this tenant, or the tenant has to be read first.
    fn admit(&mut self, tenant: &'a str) -> Option<Admitted<'a>> {
        match self.admitted {
            Some((known, admitted)) if known == tenant => Some(admitted),
            _ => {
                let admitted = admit(self.facts, self.call, tenant, self.now).ok()?.ok()?;
                Some(self.admitted.insert((tenant, admitted)).1)
            }
        }
    }
}
