//! What asks the cluster: the state of objects and of the kernels below them. Objects come by kubectl; a kernel's state comes from the
//! agent's own binary, started in the agent's pod by `kubectl exec`.
//!
//! Every command reads first, then joins what was read into one value (a pure function), then writes that value as a table or as it is.

pub mod agent;
pub mod arguments;
pub mod cluster;
pub mod command;
pub mod comparison;
pub mod cure;
pub mod explain;
pub mod kernel;
pub mod moves;
pub mod picture;
pub mod screen;
pub mod table;

/// How a command ended that has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything was there: exit code 0.
    Complete,
    /// Something could not be asked, and the answer says what: exit code 2.
    Partial,
}

impl Outcome {
    /// Partial where something is missing.
    pub const fn of(is_complete: bool) -> Self {
        if is_complete {
            Self::Complete
        } else {
            Self::Partial
        }
    }

    /// The exit code; 1 is an error.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Partial => 2,
        }
    }
}
