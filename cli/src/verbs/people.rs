//! Users and API tokens: what admins do to users, and everybody to their own tokens.

use super::{client, list, show, text};
use crate::client::ServerArgs;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::io::Read;

/// What somebody may do.
#[derive(ValueEnum, Clone, Copy)]
pub(crate) enum Role {
    /// Looks.
    Viewer,
    /// Runs, promotes, rolls back, approves, holds.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum UserVerb {
    /// Adds a user, with a password that is made and printed once.
    Add {
        /// The name.
        name: String,
        /// What they may do.
        #[arg(long, value_enum, default_value = "viewer")]
        role: Role,
        /// An e-mail address that they commit with; may be given several times.
        #[arg(long = "email")]
        emails: Vec<String>,
        /// Read the password from standard input instead.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Everybody who may sign in, or might.
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lets a user in no more: signs them out and revokes their API tokens.
    Disable {
        /// The name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lets a disabled user in again.
    Enable {
        /// The name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Changes what a user may do.
    Role {
        /// The name.
        name: String,
        /// What they may do.
        #[arg(value_enum)]
        role: Role,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Changes the e-mail addresses that a user commits with, to these; none forgets all. A gate with
    /// `not_author` compares them with git's.
    Emails {
        /// The name.
        name: String,
        /// The addresses.
        emails: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Gives a user another password, made and printed once, and signs them out.
    ResetPassword {
        /// The name.
        name: String,
        /// Read the password from standard input instead.
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Makes a token in your name and prints it, this once.
    Create {
        /// What you call it.
        name: String,
        /// What it may do, at most what you may.
        #[arg(long, value_enum, default_value = "viewer")]
        role: Role,
        /// For how many days it is accepted; 0 is for ever.
        #[arg(long, default_value_t = 90)]
        days: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Your tokens.
    List {
        /// Everybody's; for admins.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// A token is not accepted any more.
    Revoke {
        /// Its id, from the list.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn users(verb: UserVerb) -> anyhow::Result<()> {
    match verb {
        UserVerb::Add {
            name,
            role,
            emails,
            password_stdin,
            server,
        } => {
            let body = json!({
                "name": name, "role": role.word(), "emails": emails,
                "password": password(password_stdin)?,
            });
            let added = client(&server)?.post("/users", &body).await?;
            show(&server, &added, |value| {
                println!("{}", user_line(value));
                told_once(value);
            })
        }
        UserVerb::List { server } => {
            let found = client(&server)?.get("/users").await?;
            show(&server, &found, |value| list(value, "users", user_line))
        }
        UserVerb::Disable { name, server } => act(&server, &name, "disable", &json!({})).await,
        UserVerb::Enable { name, server } => act(&server, &name, "enable", &json!({})).await,
        UserVerb::Role { name, role, server } => {
            act(&server, &name, "role", &json!({"role": role.word()})).await
        }
        UserVerb::Emails {
            name,
            emails,
            server,
        } => act(&server, &name, "emails", &json!({"emails": emails})).await,
        UserVerb::ResetPassword {
            name,
            password_stdin,
            server,
        } => {
            let body = json!({"password": password(password_stdin)?});
            act(&server, &name, "password", &body).await
        }
    }
}

async fn act(server: &ServerArgs, name: &str, verb: &str, body: &Value) -> anyhow::Result<()> {
    let path = format!("/users/{}/{verb}", roadstead_web::urls::encode(name));
    let done = client(server)?.post(&path, body).await?;
    show(server, &done, |value| {
        println!("{}", user_line(value));
        told_once(value);
    })
}

/// The first line of standard input, when it was asked for: arguments are seen by everybody on the
/// machine.
fn password(from_stdin: bool) -> anyhow::Result<Option<String>> {
    if !from_stdin {
        return Ok(None);
    }
    let mut given = String::new();
    std::io::stdin().read_to_string(&mut given)?;
    Ok(Some(given.lines().next().unwrap_or_default().to_owned()))
}

fn told_once(user: &Value) {
    if let Some(password) = user["password"].as_str() {
        println!("password {password} (shown this once)");
    }
}

fn user_line(user: &Value) -> String {
    let state = match user["disabled_at"].as_str() {
        Some(since) => format!("disabled since {since}"),
        None => match user["last_sign_in_at"].as_str() {
            Some(at) => format!("signed in at {at}"),
            None => "never signed in".to_owned(),
        },
    };
    let emails: Vec<_> = user["emails"].as_array().into_iter().flatten().collect();
    let emails: Vec<_> = emails.into_iter().map(text).collect();
    let known = if emails.is_empty() {
        "no e-mail address".to_owned()
    } else {
        emails.join(" ")
    };
    format!(
        "{:<24} {:<9} {state}, {known}",
        text(&user["name"]),
        text(&user["role"])
    )
}

pub(super) async fn tokens(verb: TokenVerb) -> anyhow::Result<()> {
    match verb {
        TokenVerb::Create {
            name,
            role,
            days,
            server,
        } => {
            let days = (days > 0).then_some(days);
            let body = json!({"name": name, "role": role.word(), "days": days});
            let made = client(&server)?.post("/tokens", &body).await?;
            show(&server, &made, |value| {
                println!("{}", text(&value["token"]));
            })
        }
        TokenVerb::List { all, server } => {
            let path = if all { "/tokens?all=true" } else { "/tokens" };
            let found = client(&server)?.get(path).await?;
            show(&server, &found, |value| list(value, "tokens", token_line))
        }
        TokenVerb::Revoke { id, server } => {
            let path = format!("/tokens/{}/revoke", roadstead_web::urls::encode(&id));
            let done = client(&server)?.post(&path, &json!({})).await?;
            show(&server, &done, |value| {
                println!("{} {}: revoked", text(&value["id"]), text(&value["name"]));
            })
        }
    }
}

fn token_line(token: &Value) -> String {
    let state = if let Some(at) = token["revoked_at"].as_str() {
        format!("revoked at {at}")
    } else if let Some(at) = token["last_used_at"].as_str() {
        format!("used at {at}")
    } else {
        "never used".to_owned()
    };
    let end = token["expires_at"].as_str().unwrap_or("never");
    format!(
        "{:<13} {:<9} {:<16} {:<16} ends {end}, {state}",
        text(&token["id"]),
        text(&token["role"]),
        text(&token["owner"]),
        text(&token["name"])
    )
}
