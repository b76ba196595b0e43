//! Questions that are asked together wait for memory together.
//!
//! The way to an answer leads from the tenant to a leaf of its members, to the member and to what it
//! holds: each is in no cache when there are many tenants, and where it lies is known only once the one
//! before it has arrived. So many questions take each of these steps one after the other, and only then
//! the next: what one of them touched is on its way while the others are looked at.

use super::{Party, Resource, TenantEntry};
use crate::ids::SubjectId;

/// Reads something for no other reason than to have it near.
#[inline]
pub(super) fn touch<T>(near: T) {
    std::hint::black_box(near);
}

impl TenantEntry {
    /// The first step: the facts of the tenant.
    #[inline]
    pub fn approach(&self) {
        if let Some(tenant) = self.facts() {
            touch((tenant.asked(), tenant.id));
        }
    }

    /// The second: the leaf with the subject, and the place of the workspace.
    #[inline]
    pub fn approach_member(&self, subject: SubjectId, resource: Resource<'_>) {
        if let Some(tenant) = self.facts() {
            tenant.approach(subject, resource.workspace);
        }
    }
}

impl Party<'_> {
    /// The third, once it is found: what it holds.
    #[inline]
    pub fn approach(&self) {
        if let Some(held) = self.held() {
            held.approach();
        }
    }
}
