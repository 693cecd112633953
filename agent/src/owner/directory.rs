//! Directory (placeholder until the room is merged).
use super::identity::Identity;
use std::sync::Arc;
/// What is known of a cgroup.
#[derive(Clone, Debug)]
pub enum Known {
    /// Not looked up yet.
    Pending,
    /// No identity.
    Host,
    /// This one.
    Of(Arc<Identity>),
}
