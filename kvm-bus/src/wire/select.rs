// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which blade is to be coupled: the payload of [`Kind::Select`](super::Kind::Select), to all, and what a control slave answers.

use serde::{Deserialize, Serialize};

use super::Addr;

/// To all. The RMM's epoch is the frame's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// Counts the RMM's choices in its epoch; what is not newer than what was seen is void.
    pub coupling: u32,
    /// Who is to be coupled; nobody in the end where nobody is to.
    pub target: Option<Addr>,
}

/// From the control slave of the blade that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// Of what it answers.
    pub coupling: u32,
    /// Whether its multiplexor couples the blade.
    pub refused: Option<Refusal>,
}

/// Why a blade is not coupled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Another RMM has it.
    Taken {
        /// Which.
        by: Addr,
    },
    /// It has no session with this RMM.
    NoSession,
}
