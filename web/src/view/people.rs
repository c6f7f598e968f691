//! The viewer's own account, and for admins everybody else's.

use askama::Template;

use super::frame::{Frame, Permission, Time};
use super::state::Role;
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/settings/account`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "account.html")]
pub struct AccountPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The viewer's name.
    pub name: String,
    /// What the viewer may do.
    pub role: Role,
    /// How many devices the viewer is signed in on.
    pub sessions: u64,
    /// What to know before changing the password. May be empty.
    pub password_note: String,
    /// What was wrong with the password that was sent. May be empty.
    pub password_error: String,
    /// A token that was just made; its secret is shown this once.
    pub created: Option<Secret>,
    /// The viewer's own, newest first.
    pub tokens: Vec<Token>,
    /// The roles that the viewer may give to a token, weakest first.
    pub roles: Vec<Role>,
    /// What was wrong with the token that was asked for. May be empty.
    pub token_error: String,
}

/// `/settings/users`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "users.html")]
pub struct UsersPage {
    /// The layout around the page.
    pub frame: Frame,
    /// A password that was just made, with its user's name; it is shown this once.
    pub created: Option<Secret>,
    /// By name.
    pub users: Vec<User>,
    /// Every role, weakest first.
    pub roles: Vec<Role>,
    /// Everybody's API tokens that can still be used, newest first.
    pub tokens: Vec<Token>,
    /// What was wrong with the form that was sent. May be empty.
    pub error: String,
}

/// Somebody who may sign in, or might.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when there is this user.
    pub created: Time,
    /// When they last signed in.
    pub last_sign_in: Option<Time>,
    /// Since when they may not sign in.
    pub disabled: Option<Time>,
    /// How many API tokens of theirs can be used.
    pub tokens: u64,
    /// The addresses that they commit with.
    pub emails: Vec<String>,
    /// Whether this is whoever looks at the page.
    pub is_viewer: bool,
    /// Whether their role may be changed.
    pub change_role: Permission,
    /// Whether they may be disabled; absent when they are.
    pub disable: Permission,
}

/// A secret right after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The token's or the user's name.
    pub name: String,
    /// The secret.
    pub secret: String,
}

/// An API token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id in addresses.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose it is.
    pub owner: String,
    /// When it was made.
    pub created: Time,
    /// When it ends, if ever.
    pub expires: Option<Time>,
    /// When it was last used.
    pub last_used: Option<Time>,
    /// When it was revoked.
    pub revoked: Option<Time>,
}
