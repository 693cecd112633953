//! What a cgroup is (placeholder until the room is merged).
/// Whom connections belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(pub Vec<(&'static str, String)>);
impl Identity {
    /// Attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }
}
