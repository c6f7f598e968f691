//! What a project keeps from everybody.

use roadstead_web::view::{Frame, Role, SecretsPage, StoredSecret, Viewer};

use super::{ago, frame};

pub(crate) fn secrets() -> SecretsPage {
    let secret = |name: &str, branches: &[&str], version| StoredSecret {
        name: name.into(),
        branches: branches.iter().map(ToString::to_string).collect(),
        version,
        set_by: "ole".into(),
        set: ago(7_200),
    };
    SecretsPage {
        frame: Frame {
            viewer: Some(Viewer {
                name: "ole".into(),
                role: Role::Admin,
            }),
            ..frame()
        },
        project: "shop".into(),
        secrets: vec![
            secret("NPM_TOKEN", &[], 1),
            secret("SIGNING_KEY", &["main", "release/*"], 4),
            secret("staging/DATABASE_URL", &[], 2),
        ],
        environments: vec!["staging".into(), "production".into()],
        error: "A secret has at least 8 bytes: a shorter one could not be kept out of logs.".into(),
    }
}

pub(crate) fn secrets_none() -> SecretsPage {
    SecretsPage {
        secrets: vec![],
        environments: vec![],
        error: String::new(),
        ..secrets()
    }
}
