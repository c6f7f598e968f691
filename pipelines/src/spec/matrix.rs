//! What a step is that is one of several by the values of a matrix.

use crate::id::StepName;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// One combination of a matrix's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Combination {
    /// The step as the file names it.
    pub of: StepName,
    /// A value for each of the matrix's names.
    pub values: IndexMap<String, String>,
}
