//! What can go wrong with rows, as callers need to tell it apart.

use roadstead_pipelines::action::Refusal;
use roadstead_pipelines::fact::IllegalTransition;

/// Why the store did not do what it was asked. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something else is there already, or was changed meanwhile.
    #[error("{what}")]
    Conflict {
        /// What, in words.
        what: String,
    },
    /// There is no such row.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for, `run shop.12`.
        what: String,
    },
    /// A decision said no; the reason is for the person who asked.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A fact that does not fit the state it met.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A row holds what this version cannot read: the database was changed by hand or by a newer
    /// version.
    #[error("row {row} holds a value that cannot be read: {value}")]
    Data {
        /// Table and key.
        row: String,
        /// What is wrong with which value.
        value: String,
    },
    /// The database does not answer, or cannot write; trying again later may do.
    #[error("the database is not available: {reason}")]
    Unavailable {
        /// What it said.
        reason: String,
    },
    /// The work itself broke off; nothing that it wrote is stored.
    #[error("a defect: the work panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The database refused a statement: a defect, or a schema that does not fit.
    #[error("the database refused a statement: {0}")]
    Db(#[source] diesel::result::Error),
}

impl StoreError {
    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub(super) fn conflict(what: impl Into<String>) -> Self {
        Self::Conflict { what: what.into() }
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
        }
    }

    /// PostgreSQL chose this transaction as the one to give way: the same again will do.
    pub(super) fn gave_way(&self) -> bool {
        use diesel::result::{DatabaseErrorKind, Error};
        match self {
            Self::Db(Error::DatabaseError(kind, information)) => {
                matches!(kind, DatabaseErrorKind::SerializationFailure)
                    || information.message().contains("deadlock detected")
            }
            _ => false,
        }
    }
}

impl From<diesel::result::Error> for StoreError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind, Error};
        match error {
            Error::NotFound => Self::not_found("such row"),
            Error::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                Self::conflict(information.message().to_owned())
            }
            Error::DatabaseError(
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
                information,
            ) => Self::unavailable(information.message().to_owned()),
            Error::BrokenTransactionManager => Self::unavailable("a transaction broke off"),
            other => Self::Db(other),
        }
    }
}
