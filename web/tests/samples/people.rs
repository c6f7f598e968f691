//! One's own account, and everybody's.

use roadstead_web::view::{
    AccountPage, Frame, Permission, Role, Secret, Token, User, UsersPage, Viewer,
};

use super::{NOW, ago, frame};

fn token(id: &str, name: &str, owner: &str, role: Role) -> Token {
    Token {
        id: id.into(),
        name: name.into(),
        role,
        owner: owner.into(),
        created: ago(1_000_000),
        expires: None,
        last_used: (id != "3").then(|| ago(700)),
        revoked: None,
    }
}

pub(crate) fn account() -> AccountPage {
    AccountPage {
        frame: frame(),
        name: "maya".into(),
        role: Role::Deployer,
        sessions: 2,
        password_note: String::new(),
        password_error: "The current password is wrong.".into(),
        created: Some(Secret {
            name: "laptop".into(),
            secret: "rst_this-is-a-sample-not-a-secret".into(),
        }),
        tokens: vec![
            Token {
                expires: Some(NOW.plus_seconds(7_776_000)),
                ..token("1", "laptop", "maya", Role::Deployer)
            },
            token("2", "nightly report", "maya", Role::Viewer),
            Token {
                expires: Some(ago(86_400)),
                ..token("3", "old laptop", "maya", Role::Deployer)
            },
            Token {
                revoked: Some(ago(500_000)),
                ..token("5", "lost phone", "maya", Role::Viewer)
            },
        ],
        roles: vec![Role::Viewer, Role::Deployer],
        token_error: String::new(),
    }
}

pub(crate) fn account_new() -> AccountPage {
    AccountPage {
        password_note: "The server's configuration sets this password at each start.".into(),
        password_error: String::new(),
        created: None,
        tokens: vec![],
        token_error: "A token's name has 1 to 64 characters.".into(),
        ..account()
    }
}

pub(crate) fn users() -> UsersPage {
    let user = |name: &str, role, last_sign_in, disabled: Option<_>| User {
        name: name.into(),
        role,
        created: ago(9_000_000),
        last_sign_in,
        disabled,
        tokens: 1,
        emails: match name {
            "zoe" => vec![],
            _ => vec![format!("{name}@example.com")],
        },
        is_viewer: name == "ole",
        change_role: Permission::Allowed,
        disable: if disabled.is_some() {
            Permission::Absent
        } else {
            Permission::Allowed
        },
    };
    let last = || Permission::Denied("the last admin".into());
    UsersPage {
        frame: Frame {
            viewer: Some(Viewer {
                name: "ole".into(),
                role: Role::Admin,
            }),
            ..frame()
        },
        created: Some(Secret {
            name: "zoe".into(),
            secret: "rsp-this-is-a-sample-too".into(),
        }),
        users: vec![
            user("maya", Role::Deployer, Some(ago(3_000)), None),
            User {
                change_role: last(),
                disable: last(),
                ..user("ole", Role::Admin, Some(ago(60)), None)
            },
            user("sam", Role::Deployer, Some(ago(400_000)), Some(ago(90_000))),
            user("zoe", Role::Viewer, None, None),
        ],
        roles: Role::ALL.to_vec(),
        tokens: vec![
            token("1", "laptop", "maya", Role::Deployer),
            token("4", "terraform", "ole", Role::Admin),
        ],
        error: "There is a user `maya` already.".into(),
    }
}
