//! How much memory the facts of tenants take, and which of them go when it is too much.

use std::collections::HashMap;

use crate::{
    decision::{Facts, TenantFacts},
    ids::TenantId,
};

/// Weighs what is loaded against a budget.
pub struct Memory {
    /// In bytes.
    budget: usize,
    taken: usize,
    pinned: usize,
    sizes: HashMap<TenantId, usize>,
}

impl Memory {
    /// Starts with what is loaded already: the installation.
    pub fn new(budget: usize, facts: &Facts) -> Self {
        let mut memory = Self { budget, taken: 0, pinned: 0, sizes: HashMap::new() };
        facts.loaded().for_each(|loaded| memory.weigh(facts, loaded.id));
        memory
    }

    /// The same budget for facts that were read anew.
    pub fn restart(&mut self, facts: &Facts) {
        *self = Self::new(self.budget, facts);
    }

    /// Notes what a tenant takes now.
    pub fn weigh(&mut self, facts: &Facts, tenant: TenantId) {
        let size = facts.tenant(tenant).map(|loaded| loaded.bytes());
        let before = match size {
            Some(size) => self.sizes.insert(tenant, size),
            None => self.sizes.remove(&tenant),
        };
        self.taken = self.taken + size.unwrap_or_default() - before.unwrap_or_default();
        let is_pinned = size.is_some_and(|size| self.is_pinned(size));
        let was_pinned = before.is_some_and(|size| self.is_pinned(size));
        self.pinned = self.pinned + usize::from(is_pinned) - usize::from(was_pinned);
        if is_pinned && !was_pinned {
            tracing::warn!(
                %tenant, bytes = size, budget = self.budget,
                "a tenant takes more than half of the memory for facts and stays loaded; raise \
                 ROLECALL_FACTS_MEMORY"
            );
        }
        self.report();
    }

    /// Forgets the tenants that nobody asked about for the longest time until the rest fits, but not the
    /// installation, nor what takes half the budget by itself: loading that again and again would be
    /// worse than what it takes.
    pub fn make_room(&mut self, facts: &mut Facts, newest: TenantId) {
        if self.taken <= self.budget {
            return;
        }
        // Some more than must be, so that the next tenant finds room.
        let goal = self.budget / 10 * 9;
        let goes = |loaded: &TenantFacts| {
            let size = self.sizes.get(&loaded.id).copied().unwrap_or_default();
            loaded.id != TenantId::SYSTEM && loaded.id != newest && !self.is_pinned(size)
        };
        let mut idle: Vec<(i64, TenantId)> = facts
            .loaded()
            .filter(|loaded| goes(loaded))
            .map(|loaded| (loaded.asked(), loaded.id))
            .collect();
        idle.sort_unstable();
        for (_, tenant) in idle {
            if self.taken <= goal {
                break;
            }
            facts.evict_tenant(tenant);
            self.taken -= self.sizes.remove(&tenant).unwrap_or_default();
            metrics::counter!("rolecall_tenants_evicted_total").increment(1);
        }
        self.report();
    }

    fn is_pinned(&self, size: usize) -> bool {
        size > self.budget / 2
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    fn report(&self) {
        metrics::gauge!("rolecall_facts_bytes").set(self.taken as f64);
        metrics::gauge!("rolecall_tenants_loaded").set(self.sizes.len() as f64);
        metrics::gauge!("rolecall_tenants_pinned").set(self.pinned as f64);
    }
}
