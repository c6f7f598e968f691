//! Where a project's forge is told how runs went, and with which token.
//!
//! What can be known from the repository's address need not be said. The token is read for each use, from a file
//! that is its owner's alone or from a variable of the server, so a new one needs no restart where it is a
//! file; it is in no other setting, no row, no log and no `Debug`.

use super::Project;
use crate::forge::Forge;
use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use url::Url;
use zeroize::Zeroizing;

/// A longer file is no token.
const LONGEST_TOKEN: u64 = 4_096;

/// What a forge is told of a project's runs, and how it is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Statuses {
    /// Which forge it is; none is known from the repository's address.
    pub forge: Option<Forge>,
    /// Address of its API; none is known from the repository's address.
    pub api: Option<String>,
    /// What the repository is called there, `owner/name`; none is the path of its address.
    pub repository: Option<String>,
    /// The file of the token, which only its owner may read.
    pub token_file: Option<PathBuf>,
    /// The variable of the server that holds the token.
    pub token_variable: Option<String>,
}

/// A forge that is told, and where its token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldForge {
    /// Which kind.
    pub forge: Forge,
    /// Address of its API, without a slash at the end.
    pub api: Url,
    /// The repository there, by the names between slashes.
    pub repository: Vec<String>,
    token: TokenIn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TokenIn {
    File(PathBuf),
    Variable(String),
}

/// A token. It shows itself to nobody.
pub struct Token(Zeroizing<String>);

impl Token {
    /// What the forge wants to see.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }
}

impl ToldForge {
    /// The token as it is now.
    ///
    /// # Errors
    /// What is wrong with its file or variable, and what to do; never a part of it.
    pub fn token(&self) -> Result<Token, String> {
        let (text, place) = match &self.token {
            TokenIn::File(file) => {
                let place = format!("the token's file {}", file.display());
                let text = read(file).map_err(|why| format!("{place}: {why}"))?;
                (text, place)
            }
            TokenIn::Variable(name) => {
                let place = format!("the token's variable {name}");
                let text = std::env::var(name).map_err(|_| format!("{place} is not set"))?;
                (Zeroizing::new(text), place)
            }
        };
        let token = text.trim();
        let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !plain {
            return Err(format!(
                "{place} holds no token: one line of plain characters"
            ));
        }
        Ok(Token(Zeroizing::new(token.to_owned())))
    }

    /// `owner/name`.
    #[must_use]
    pub fn repository_path(&self) -> String {
        self.repository.join("/")
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?;
    if mode.permissions().mode() & 0o077 != 0 {
        return Err("others than its owner may read it: `chmod 600` it".into());
    }
    let mut text = Zeroizing::new(String::new());
    let reading = file.take(LONGEST_TOKEN + 1).read_to_string(&mut text);
    reading.map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_TOKEN {
        return Err("it is too long for a token".into());
    }
    Ok(text)
}

impl Project {
    /// The forge that is told of this project's runs; `None` when there is no `statuses`.
    ///
    /// # Errors
    /// What has to be said because it cannot be known from the repository's address.
    pub fn told_forge(&self) -> Result<Option<ToldForge>, String> {
        let Some(statuses) = &self.statuses else {
            return Ok(None);
        };
        let address = Url::parse(&self.repository).ok();
        let address = address.filter(|url| url.has_host() && url.scheme().starts_with("http"));
        let forge = match statuses
            .forge
            .or_else(|| known_host(address.as_ref()?.host_str()?))
        {
            None => {
                return Err(
                    "which forge this is cannot be known from `repository`: set `forge`".into(),
                );
            }
            Some(Forge::Git) => {
                return Err(
                    "plain git shows no statuses: name a forge, or leave `statuses` out".into(),
                );
            }
            Some(forge) => forge,
        };
        let api = match &statuses.api {
            Some(api) => api_of(api)?,
            None => address
                .as_ref()
                .and_then(|address| known_api(forge, address))
                .ok_or("where the forge's API is cannot be known from `repository`: set `api`")?,
        };
        let path = match (&statuses.repository, &address) {
            (Some(path), _) => path.as_str(),
            (None, Some(address)) => address.path(),
            (None, None) => {
                return Err("what the repository is called at the forge cannot be known from its address: set `repository`".into());
            }
        };
        let token = match (&statuses.token_file, &statuses.token_variable) {
            (Some(file), None) => TokenIn::File(file.clone()),
            (None, Some(name)) => TokenIn::Variable(name.clone()),
            (None, None) | (Some(_), Some(_)) => {
                return Err("set one of `token_file` and `token_variable`".into());
            }
        };
        Ok(Some(ToldForge {
            forge,
            api,
            repository: repository_of(forge, path)?,
            token,
        }))
    }
}

/// Forges that serve everybody under one name.
fn known_host(host: &str) -> Option<Forge> {
    match host {
        "github.com" => Some(Forge::Github),
        "gitlab.com" => Some(Forge::Gitlab),
        "codeberg.org" => Some(Forge::Gitea),
        "bitbucket.org" => Some(Forge::Bitbucket),
        other => other.ends_with(".ghe.com").then_some(Forge::Github),
    }
}

/// Where a forge has its API, as seen from a repository's address.
fn known_api(forge: Forge, address: &Url) -> Option<Url> {
    let host = address.host_str()?;
    let mut own = address.clone();
    own.set_username("").ok()?;
    own.set_password(None).ok()?;
    own.set_query(None);
    own.set_fragment(None);
    let path = match forge {
        Forge::Github if host == "github.com" => return Url::parse("https://api.github.com").ok(),
        Forge::Github if host.ends_with(".ghe.com") => {
            return Url::parse(&format!("https://api.{host}")).ok();
        }
        Forge::Github => "/api/v3",
        Forge::Gitlab => "/api/v4",
        Forge::Gitea => "/api/v1",
        Forge::Bitbucket if host == "bitbucket.org" => {
            return Url::parse("https://api.bitbucket.org/2.0").ok();
        }
        Forge::Bitbucket | Forge::Git => return None,
    };
    own.set_path(path);
    Some(own)
}

fn api_of(given: &str) -> Result<Url, String> {
    let wrong = || format!("`api` is no address: `https://host/path`, not `{given}`");
    let url = Url::parse(given.trim_end_matches('/')).map_err(|_| wrong())?;
    let plain = url.has_host()
        && matches!(url.scheme(), "http" | "https")
        && url.query().is_none()
        && url.fragment().is_none();
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`api` holds a user or a password: the token has a setting of its own".into());
    }
    if !plain {
        return Err(wrong());
    }
    let here = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    if url.scheme() == "http" && !here {
        return Err(format!(
            "`api` has to begin with `https://`: {given} would be sent the token in the clear"
        ));
    }
    Ok(url)
}

fn repository_of(forge: Forge, path: &str) -> Result<Vec<String>, String> {
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let names: Vec<String> = path.split('/').map(str::to_owned).collect();
    let plain = |name: &String| {
        let mut characters = name.chars();
        !matches!(name.as_str(), "" | "." | "..")
            && characters.all(|c| c.is_alphanumeric() || "-_.~+".contains(c))
    };
    let enough = match forge {
        Forge::Gitlab => names.len() >= 2,
        Forge::Github | Forge::Gitea | Forge::Bitbucket | Forge::Git => names.len() == 2,
    };
    if enough && names.iter().all(plain) {
        return Ok(names);
    }
    Err(format!(
        "`{path}` is no repository of {}: set `repository`, as `owner/name`",
        forge.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(repository: &str, statuses: Statuses) -> Result<(Forge, String, String), String> {
        let project = Project {
            name: "shop".into(),
            repository: repository.into(),
            webhook_secret: "a webhook's key of the tests".into(),
            username: None,
            password: None,
            statuses: Some(statuses),
        };
        let told = project.told_forge()?.unwrap();
        Ok((told.forge, told.api.to_string(), told.repository_path()))
    }

    fn with_token() -> Statuses {
        Statuses {
            token_variable: Some("TOKEN".into()),
            ..Statuses::default()
        }
    }

    #[test]
    fn what_the_address_tells_need_not_be_said() {
        for (repository, forge, api, path) in [
            (
                "https://github.com/team/shop.git",
                Forge::Github,
                "https://api.github.com/",
                "team/shop",
            ),
            (
                "https://acme.ghe.com/team/shop",
                Forge::Github,
                "https://api.acme.ghe.com/",
                "team/shop",
            ),
            (
                "https://gitlab.com/team/sub/shop.git",
                Forge::Gitlab,
                "https://gitlab.com/api/v4",
                "team/sub/shop",
            ),
            (
                "https://codeberg.org/team/shop/",
                Forge::Gitea,
                "https://codeberg.org/api/v1",
                "team/shop",
            ),
            (
                "https://ada@bitbucket.org/team/shop.git",
                Forge::Bitbucket,
                "https://api.bitbucket.org/2.0",
                "team/shop",
            ),
        ] {
            let expected = (forge, api.to_owned(), path.to_owned());
            assert_eq!(told(repository, with_token()), Ok(expected), "{repository}");
        }
        for (forge, api) in [
            (Forge::Github, "https://forge.example:8443/api/v3"),
            (Forge::Gitlab, "https://forge.example:8443/api/v4"),
            (Forge::Gitea, "https://forge.example:8443/api/v1"),
        ] {
            let own = Statuses {
                forge: Some(forge),
                ..with_token()
            };
            let told = told("https://ada:secret@forge.example:8443/team/shop.git", own).unwrap();
            assert_eq!(told, (forge, api.to_owned(), "team/shop".to_owned()));
        }
    }

    #[test]
    fn what_is_said_wins_and_serves_a_path_too() {
        let said = Statuses {
            forge: Some(Forge::Gitea),
            api: Some("http://127.0.0.1:3000/forge/api/v1/".into()),
            repository: Some("team/shop".into()),
            ..with_token()
        };
        let expected = (
            Forge::Gitea,
            "http://127.0.0.1:3000/forge/api/v1".to_owned(),
            "team/shop".to_owned(),
        );
        assert_eq!(told("/srv/git/shop.git", said), Ok(expected));
    }

    #[test]
    fn what_cannot_be_known_has_to_be_said() {
        let of = |forge| Statuses {
            forge: Some(forge),
            ..with_token()
        };
        let with_api = |api: &str| Statuses {
            api: Some(api.into()),
            ..of(Forge::Gitea)
        };
        for (repository, statuses, wanted) in [
            (
                "https://forge.example/team/shop",
                with_token(),
                "set `forge`",
            ),
            ("/srv/git/shop.git", of(Forge::Gitea), "set `api`"),
            (
                "https://forge.example/team/shop",
                of(Forge::Bitbucket),
                "set `api`",
            ),
            (
                "/srv/git/shop.git",
                with_api("https://forge.example/api/v1"),
                "set `repository`",
            ),
            (
                "https://forge.example/team/shop",
                with_api("http://forge.example/api/v1"),
                "in the clear",
            ),
            (
                "https://forge.example/git/team/shop",
                of(Forge::Gitea),
                "set `repository`",
            ),
            (
                "https://forge.example/shop",
                of(Forge::Gitlab),
                "set `repository`",
            ),
            (
                "https://forge.example/team/..",
                of(Forge::Gitlab),
                "set `repository`",
            ),
            (
                "https://forge.example/team/shop",
                of(Forge::Git),
                "shows no statuses",
            ),
            (
                "https://forge.example/team/shop",
                with_api("forge.example"),
                "`https://host/path`",
            ),
            (
                "https://forge.example/team/shop",
                with_api("https://ada:x@forge.example"),
                "setting of its own",
            ),
            (
                "https://github.com/team/shop",
                Statuses::default(),
                "one of `token_file`",
            ),
        ] {
            let error = told(repository, statuses).unwrap_err();
            assert!(error.contains(wanted), "{repository}: {error}");
        }
    }

    #[test]
    fn a_token_is_one_line_of_a_file_that_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut project = ToldForge {
            forge: Forge::Github,
            api: Url::parse("https://api.github.com").unwrap(),
            repository: vec!["team".into(), "shop".into()],
            token: TokenIn::File(file.clone()),
        };
        assert!(project.token().unwrap_err().contains("No such file"));
        for (text, mode, wanted) in [
            ("ghp_1\n", 0o600, Ok("ghp_1")),
            ("ghp_1\n", 0o640, Err("chmod 600")),
            ("\n", 0o600, Err("holds no token")),
            ("ghp 1", 0o600, Err("holds no token")),
        ] {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            match (project.token(), wanted) {
                (Ok(token), Ok(wanted)) => assert_eq!(token.reveal(), wanted),
                (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{error}"),
                (other, _) => panic!("{text:?} {mode:o}: {other:?}"),
            }
        }
        assert_eq!(
            format!("{:?}", Token(Zeroizing::new("ghp_1".into()))),
            "a token"
        );
        project.token = TokenIn::Variable("ROADSTEAD_TEST_THAT_IS_NOT_SET".into());
        assert!(project.token().unwrap_err().contains("is not set"));
    }
}
