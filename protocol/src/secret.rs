//! Secrets of steps and image builds, as a leased attempt gets them.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A secret that a step gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSecret {
    /// Which, as in [`Secrets`].
    pub secret: String,
    /// The name of its file.
    pub file: String,
    /// The variable of the step's shell that holds it, too.
    pub variable: Option<String>,
}

/// The secrets that the steps of an attempt name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Values, by the secret's name.
    pub values: BTreeMap<String, String>,
    /// Why others are not there, by their name.
    pub withheld: BTreeMap<String, String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secrets")
            .field("values", &self.values.keys())
            .field("withheld", &self.withheld)
            .finish()
    }
}

/// A secret that instructions of a Dockerfile may mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSecret {
    /// Which, as in [`Secrets`].
    pub secret: String,
    /// What the Dockerfile calls it: `RUN --mount=type=secret,id=…`.
    pub id: String,
}
