//! Kills parts of the product at moments of the story, as a power cut would, and starts them again.
//!
//! Owns the table of moments and parts. No moment is met by luck: something is kept waiting there
//! until its parts were killed, one after the other, and goes on while the last of them is down.

use super::holds::{Before, Faults, Latch};
use super::table::{Kill, Table};
use crate::children::{Part, until};
use crate::client::Client;
use crate::own_files;
use crate::up::{self, Parts, UpArgs};
use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for a moment.
const LIMIT: Duration = Duration::from_secs(180);
/// More looks at ECS than a story has.
const ALL_LOOKS: u32 = 100_000;

/// A part that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Victim {
    Server,
    Runner,
    Sandbox,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Webhook,
    Build,
    Push,
    Registration,
    Update,
    Verification,
    Rollback,
}

/// What keeps the story there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// Nothing has to: what was committed stays so.
    Nobody,
    /// The build waits for a file.
    Latch,
    /// The next call of this operation took effect, and its reply waits.
    Reply(&'static str),
    /// The deployment stands in this state, and no look at its cluster is answered: without one it
    /// cannot leave it.
    Looks {
        cluster: &'static str,
        state: &'static str,
    },
}

struct Kills {
    moment: Moment,
    /// The moment, in words.
    when: &'static str,
    keeper: Keeper,
    victims: &'static [Victim],
}

use Victim::{Runner, Sandbox, Server};

/// Who is killed when.
const KILLS: [Kills; 7] = [
    Kills {
        moment: Moment::Webhook,
        when: "after the webhook's commit",
        keeper: Keeper::Nobody,
        victims: &[Server, Runner],
    },
    Kills {
        moment: Moment::Build,
        when: "during the build",
        keeper: Keeper::Latch,
        victims: &[Server, Runner],
    },
    Kills {
        moment: Moment::Push,
        when: "after the push, before its result",
        keeper: Keeper::Reply("PutImage"),
        victims: &[Server, Runner],
    },
    Kills {
        moment: Moment::Registration,
        when: "after RegisterTaskDefinition",
        keeper: Keeper::Reply("RegisterTaskDefinition"),
        victims: &[Server, Runner],
    },
    Kills {
        moment: Moment::Update,
        when: "after UpdateService",
        keeper: Keeper::Reply("UpdateService"),
        victims: &[Server, Runner, Sandbox],
    },
    Kills {
        moment: Moment::Verification,
        when: "during verification",
        keeper: Keeper::Looks {
            cluster: "production",
            state: "verifying",
        },
        victims: &[Server, Runner, Sandbox],
    },
    Kills {
        moment: Moment::Rollback,
        when: "during a rollback",
        keeper: Keeper::Looks {
            cluster: "production",
            state: "rolling_back",
        },
        victims: &[Server, Runner, Sandbox],
    },
];

fn kills(moment: Moment) -> anyhow::Result<&'static Kills> {
    let found = KILLS.iter().find(|kills| kills.moment == moment);
    found.ok_or_else(|| anyhow::anyhow!("the table of kills lacks {moment:?}"))
}

/// The parts, and what it takes to start one again.
pub(crate) struct Crew {
    parts: Parts,
    up: UpArgs,
    data: PathBuf,
    /// Who may be killed.
    mortal: Vec<Victim>,
    faults: Faults,
    latch: Option<Latch>,
}

impl Crew {
    /// `latch` holds back the file that the first build wants, if it wants one.
    pub(crate) fn new(
        parts: Parts,
        up: UpArgs,
        data: PathBuf,
        mortal: Vec<Victim>,
        latch: Option<Latch>,
    ) -> Self {
        let faults = Faults::new(format!("http://{}", up.sandbox));
        Self {
            parts,
            up,
            data,
            mortal,
            faults,
            latch,
        }
    }

    fn victims(&self, kills: &Kills) -> Vec<Victim> {
        let mut victims = kills.victims.to_vec();
        victims.retain(|victim| self.mortal.contains(victim));
        victims
    }

    /// To be called before the story can come to a moment that is met by a call's reply.
    pub(crate) async fn await_moment(&self, moment: Moment) -> anyhow::Result<()> {
        let kills = kills(moment)?;
        match kills.keeper {
            Keeper::Reply(operation) if !self.victims(kills).is_empty() => {
                self.faults.keep(operation, Before::Reply, 1).await
            }
            _ => Ok(()),
        }
    }

    /// Waits for the moment, kills its victims (SIGKILL), and starts each again before the next is
    /// killed. `subject` is the run or deployment that the moment is one of.
    pub(crate) async fn strike(
        &mut self,
        moment: Moment,
        client: &Client,
        subject: &str,
        table: &mut Table,
    ) -> anyhow::Result<()> {
        let kills = kills(moment)?;
        let victims = self.victims(kills);
        let Some(last) = victims.last().copied() else {
            return Ok(());
        };
        let kept = self.meet(kills.keeper, client, subject).await?;
        for victim in victims {
            let part = self.part(victim);
            let pid = part.id();
            part.kill().await?;
            table.kill(Kill {
                moment: kills.when,
                part: victim,
                pid,
                subject: subject.to_owned(),
                kept: kept.clone(),
            });
            if victim == last {
                self.let_go(kills.keeper, victim).await?;
            }
            self.revive(victim).await?;
        }
        Ok(())
    }

    /// Waits until the story is kept at the moment; what keeps it there.
    async fn meet(&self, keeper: Keeper, client: &Client, subject: &str) -> anyhow::Result<Value> {
        match keeper {
            Keeper::Nobody => Ok(Value::Null),
            Keeper::Latch => match &self.latch {
                Some(latch) => {
                    latch.waits().await?;
                    Ok(json!({"file": latch.address()}))
                }
                None => bail!("nothing keeps the build: it wants no file"),
            },
            Keeper::Reply(operation) => self.faults.reply_waits(operation).await,
            Keeper::Looks { cluster, state } => {
                let path = format!("/deployments/{subject}");
                self.looks_wait(client, &path, cluster, state).await
            }
        }
    }

    /// Keeps every look at ECS and lets the story go on look by look, until the deployment stands in
    /// `state` while a look at its cluster waits.
    async fn looks_wait(
        &self,
        client: &Client,
        path: &str,
        cluster: &str,
        state: &str,
    ) -> anyhow::Result<Value> {
        const LOOK: &str = "DescribeServices";
        self.faults.keep(LOOK, Before::Effect, ALL_LOOKS).await?;
        until(&format!("{path} to be {state}"), LIMIT, async || {
            // In this order: the look waits before, and while, the state is read.
            let waiting = self.faults.waiting().await?;
            let found = client.get(path).await?;
            let now = found["deployment"]["state"]["state"].clone();
            match now.as_str().unwrap_or_default() {
                now if now == state => {
                    let look = waiting
                        .into_iter()
                        .find(|call| call["request"]["cluster"] == json!(cluster));
                    if look.is_some() {
                        return Ok(look);
                    }
                }
                "queued" | "rolling_out" | "verifying" | "rolling_back" => {}
                over => bail!("{path} ended {over} before it was seen {state}"),
            }
            self.faults.step().await?;
            Ok(None)
        })
        .await
    }

    /// Lets the story go on. What the sandbox kept ended with it when it was killed.
    async fn let_go(&self, keeper: Keeper, killed: Victim) -> anyhow::Result<()> {
        match keeper {
            Keeper::Nobody => {}
            Keeper::Latch => self.latch.iter().for_each(Latch::open),
            // What is kept for another moment stays so.
            Keeper::Reply(_) if killed != Sandbox => self.faults.step().await?,
            Keeper::Looks { .. } if killed != Sandbox => self.faults.let_go().await?,
            Keeper::Reply(_) | Keeper::Looks { .. } => {}
        }
        Ok(())
    }

    fn part(&mut self, victim: Victim) -> &mut Part {
        match victim {
            Server => &mut self.parts.server,
            Runner => &mut self.parts.runner,
            Sandbox => &mut self.parts.sandbox,
        }
    }

    /// Starts a part that was killed, and waits until it answers.
    async fn revive(&mut self, victim: Victim) -> anyhow::Result<()> {
        let token = own_files::secret(&self.data, "registration-token")?;
        match victim {
            Server => {
                self.parts.server =
                    up::server(&self.up, &self.data, &self.parts.admin_password, &token)?;
                up::server_answers(&self.up, &mut self.parts.server).await
            }
            // It opens no port; the server waits for it, and so does the story.
            Runner => {
                self.parts.runner = up::runner(&self.up, &self.data, &token)?;
                Ok(())
            }
            Sandbox => {
                self.parts.sandbox = up::sandbox(&self.up, &self.data)?;
                up::sandbox_answers(&self.up, &mut self.parts.sandbox).await
            }
        }
    }

    /// Fails when a part has ended by itself.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        [Sandbox, Server, Runner]
            .into_iter()
            .try_for_each(|part| self.part(part).alive())
    }

    /// Fails when the sandbox has ended.
    pub(crate) fn sandbox_alive(&mut self) -> anyhow::Result<()> {
        self.parts.sandbox.alive()
    }

    /// Ends all parts.
    pub(crate) async fn dismiss(&mut self) {
        up::stop(&mut self.parts).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_runner_die_at_every_moment_and_the_sandbox_once_ecs_is_at_work() {
        use Moment::{Build, Push, Registration, Rollback, Update, Verification, Webhook};
        for moment in [Webhook, Build, Push, Registration] {
            assert_eq!(kills(moment).unwrap().victims, [Server, Runner]);
        }
        for moment in [Update, Verification, Rollback] {
            assert_eq!(kills(moment).unwrap().victims, [Server, Runner, Sandbox]);
        }
        assert_eq!(KILLS.len(), 7);
    }
}
