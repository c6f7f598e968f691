//! The forges that this server knows: whose webhooks it takes, and which it tells how runs went. What they
//! send is read in `http/webhooks`, how they are told is in `adapters/forges`. Pure.

use serde::Deserialize;

/// The kinds of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Gitea and Forgejo.
    #[serde(alias = "forgejo")]
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
    /// A `post-receive` hook with curl, and the gap filler: nobody who could be told.
    Git,
}

impl Forge {
    /// All that have an address for webhooks.
    pub const ALL: [Self; 5] = [
        Self::Github,
        Self::Gitlab,
        Self::Gitea,
        Self::Bitbucket,
        Self::Git,
    ];

    /// From its word; `None` for others.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|forge| forge.word() == word)
    }

    /// The word in the address of its webhooks, in the configuration and in rows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::Git => "git",
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Github => "GitHub",
            Self::Gitlab => "GitLab",
            Self::Gitea => "Gitea or Forgejo",
            Self::Bitbucket => "Bitbucket",
            Self::Git => "git",
        }
    }

    /// Whether it keeps statuses of one commit apart by branch; the others show the one that was told last.
    #[must_use]
    pub fn keeps_refs_apart(self) -> bool {
        match self {
            Self::Gitlab => true,
            Self::Github | Self::Gitea | Self::Bitbucket | Self::Git => false,
        }
    }
}
