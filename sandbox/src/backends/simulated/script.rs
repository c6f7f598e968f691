//! What happens to a pretended container, as its image's tag and its labels say.
//!
//! Labels go over the tag, the tag over the defaults. Whatever is left to chance is drawn when a
//! task begins, so a script is certain from then on. Must not know: time, other containers.

use std::time::Duration;

use crate::backends::{ContainerSpec, Dependency, PortBinding};

/// Images of this name carry a script in their tag, whatever stands before it.
const SCRIPTED: &str = "simulated";

/// Flapping faster than this would be an endless loop without time passing.
const FASTEST_FLAP: Duration = Duration::from_secs(1);

/// What checks find out about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub healthy: bool,
    /// How long it takes until there is a verdict.
    pub after: Duration,
    /// Afterwards it turns into the opposite whenever so much time has passed.
    pub flaps: Option<Duration>,
}

impl Verdict {
    /// A good one.
    pub(super) fn healthy(after: Duration) -> Self {
        Self {
            healthy: true,
            after,
            flaps: None,
        }
    }

    /// The verdict so long after the checks began; None when there is none yet.
    pub(super) fn at(&self, elapsed: Duration) -> Option<bool> {
        let since = elapsed.checked_sub(self.after)?;
        let turns = self
            .flaps
            .map_or(0, |flaps| since.as_millis() / flaps.as_millis().max(1));
        Some(self.healthy == turns.is_multiple_of(2))
    }

    /// How long after the checks began the verdict changes next.
    pub(super) fn next(&self, elapsed: Duration) -> Option<Duration> {
        let Some(since) = elapsed.checked_sub(self.after) else {
            return Some(self.after);
        };
        let flaps = self.flaps?;
        let turns = since.as_millis() / flaps.as_millis().max(1) + 1;
        Some(self.after + flaps.saturating_mul(u32::try_from(turns).ok()?))
    }
}

/// How a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub code: i64,
    pub oom: bool,
    /// After its start.
    pub after: Duration,
}

/// What happens to one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub name: String,
    pub essential: bool,
    /// The definition has a health check for it.
    pub checked: bool,
    pub ports: Vec<PortBinding>,
    pub depends_on: Vec<Dependency>,
    /// How long others wait for it, from its start.
    pub start_timeout: Option<Duration>,
    /// How long the pull takes, or that it fails.
    pub pull: Result<Duration, ()>,
    /// How long the start takes, or that it fails.
    pub start: Result<Duration, ()>,
    pub exit: Option<Exit>,
    /// By its own check.
    pub health: Verdict,
    /// By a load balancer's.
    pub target: Verdict,
    /// How long it takes to stop.
    pub stop: Duration,
}

/// Random bits, as often as they are asked for.
pub(super) type Draw<'a> = &'a mut dyn FnMut() -> u128;

impl Script {
    /// The container's script; `Err` says what cannot be read.
    pub(super) fn of(container: &ContainerSpec, draw: Draw<'_>) -> Result<Self, String> {
        let mut script = Self {
            name: container.name.clone(),
            essential: container.essential,
            checked: container.health_check.is_some(),
            ports: container
                .ports
                .iter()
                .map(|port| PortBinding {
                    container_port: port.container_port,
                    host_port: port.container_port,
                    protocol: port.protocol.clone(),
                })
                .collect(),
            depends_on: container.depends_on.clone(),
            start_timeout: container.start_timeout,
            pull: Ok(Duration::ZERO),
            start: Ok(Duration::ZERO),
            exit: None,
            health: Verdict::healthy(Duration::ZERO),
            target: Verdict::healthy(Duration::from_secs(1)),
            stop: Duration::ZERO,
        };
        if let Some(tag) = scripted_tag(&container.image) {
            for word in tag.split('_') {
                script
                    .take_word(word, draw)
                    .ok_or_else(|| format!("cannot read `{word}` in image {}", container.image))?;
            }
        }
        for (label, value) in &container.docker_labels {
            if let Some(name) = label.strip_prefix("simulate.") {
                script
                    .take_label(name, value, draw)
                    .ok_or_else(|| format!("cannot read label {label}={value}"))?;
            }
        }
        Ok(script)
    }

    /// One word of a tag: `healthy-5s`, `exit-1-5s`, or `30p-exit-1-5s` for three tasks in ten.
    fn take_word(&mut self, word: &str, draw: Draw<'_>) -> Option<()> {
        if let Some((percent, rest)) = word.split_once("p-")
            && let Ok(percent) = percent.parse::<u128>()
        {
            // The rest is read in any case, so that a mistake shows in every task.
            let mut other = self.clone();
            other.take_word(rest, draw)?;
            if draw() % 100 < percent {
                *self = other;
            }
            return Some(());
        }
        let (name, rest) = word.split_once('-').unwrap_or((word, ""));
        match name {
            "latest" if rest.is_empty() => {}
            "missing" if rest.is_empty() => self.pull = Err(()),
            "broken" if rest.is_empty() => self.start = Err(()),
            "pull" => self.pull = Ok(read_time(rest, draw)?),
            "start" => self.start = Ok(read_time(rest, draw)?),
            "stop" => self.stop = read_time(rest, draw)?,
            "exit" => {
                let (code, after) = rest.split_once('-')?;
                self.exit = Some(read_exit(code, after, draw)?);
            }
            "oom" => self.exit = Some(read_exit("oom", rest, draw)?),
            "healthy" | "unhealthy" => {
                let verdict = read_verdict(name, rest, draw)?;
                (self.health, self.target) = (verdict, verdict);
            }
            "flapping" => self.flap(read_time(rest, draw)?)?,
            _ => return None,
        }
        Some(())
    }

    fn take_label(&mut self, name: &str, value: &str, draw: Draw<'_>) -> Option<()> {
        let or_fail = |draw| match value {
            "fail" => Some(Err(())),
            time => read_time(time, draw).map(Ok),
        };
        match name {
            "pull" => self.pull = or_fail(draw)?,
            "start" => self.start = or_fail(draw)?,
            "stop" => self.stop = read_time(value, draw)?,
            "exit" => {
                let (code, after) = value.split_once('@')?;
                self.exit = Some(read_exit(code, after, draw)?);
            }
            "health" | "target" => {
                let (word, after) = value.split_once('@')?;
                let verdict = read_verdict(word, after, draw)?;
                match name {
                    "health" => self.health = verdict,
                    _ => self.target = verdict,
                }
            }
            "flap" => self.flap(read_time(value, draw)?)?,
            _ => return None,
        }
        Some(())
    }

    fn flap(&mut self, period: Duration) -> Option<()> {
        if period < FASTEST_FLAP {
            return None;
        }
        self.health.flaps = Some(period);
        self.target.flaps = Some(period);
        Some(())
    }
}

/// The tag of an image that carries a script; a digest may follow it.
fn scripted_tag(image: &str) -> Option<&str> {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    let (name, tag) = name.split_once(':')?;
    (name == SCRIPTED).then_some(tag)
}

fn read_exit(code: &str, after: &str, draw: Draw<'_>) -> Option<Exit> {
    let after = read_time(after, draw)?;
    let (code, oom) = match code {
        "oom" => (137, true),
        code => (code.parse().ok()?, false),
    };
    Some(Exit { code, oom, after })
}

fn read_verdict(word: &str, after: &str, draw: Draw<'_>) -> Option<Verdict> {
    let healthy = match word {
        "healthy" => true,
        "unhealthy" => false,
        _ => return None,
    };
    Some(Verdict {
        healthy,
        ..Verdict::healthy(read_time(after, draw)?)
    })
}

/// `5s`, `1.5m`, `2h`; `5s..20s` is drawn from, to the millisecond.
fn read_time(text: &str, draw: Draw<'_>) -> Option<Duration> {
    let Some((least, most)) = text.split_once("..") else {
        return read_one_time(text);
    };
    let (least, most) = (read_one_time(least)?, read_one_time(most)?);
    let span = most.checked_sub(least)?.as_millis();
    let extra = u64::try_from(draw() % (span + 1)).ok()?;
    Some(least + Duration::from_millis(extra))
}

fn read_one_time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    // To the millisecond, as time is told here.
    Some(Duration::from_millis(u64::try_from(time.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Exit, Script, Verdict};
    use crate::backends::ContainerSpec;

    fn container(image: &str, labels: &[(&str, &str)]) -> ContainerSpec {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ContainerSpec {
            name: "app".to_owned(),
            image: image.to_owned(),
            is_consistent: false,
            essential: true,
            entry_point: None,
            command: None,
            environment: [].into_iter().collect(),
            ports: Vec::new(),
            health_check: None,
            depends_on: Vec::new(),
            user: None,
            working_directory: None,
            readonly_root_filesystem: false,
            interactive: false,
            pseudo_terminal: false,
            memory_mib: None,
            cpu_shares: None,
            docker_labels: labels.collect(),
            start_timeout: None,
            stop_timeout: Duration::from_secs(30),
            awslogs: None,
            network_names: Vec::new(),
            names_when_healthy: Vec::new(),
        }
    }

    fn read(image: &str, labels: &[(&str, &str)], chance: u128) -> Result<Script, String> {
        Script::of(&container(image, labels), &mut || chance)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_tag_is_a_script_and_labels_go_over_it() {
        let image = "127.0.0.1:4570/team/simulated:pull-30s_healthy-5s_exit-3-2m_stop-1.5s";
        let script = read(image, &[("simulate.pull", "fail"), ("other", "x")], 0).unwrap();
        assert_eq!(script.pull, Err(()));
        assert_eq!(script.health, Verdict::healthy(seconds(5)));
        assert_eq!(script.target, Verdict::healthy(seconds(5)));
        let exit = Exit {
            code: 3,
            oom: false,
            after: seconds(120),
        };
        assert_eq!(script.exit, Some(exit));
        assert_eq!(script.stop, Duration::from_millis(1500));
    }

    #[test]
    fn a_digest_behind_the_tag_leaves_the_script() {
        let image = format!("a/simulated:exit-3-2m@sha256:{}", "0".repeat(64));
        let exit = read(&image, &[], 0).unwrap().exit;
        assert_eq!(exit.map(|exit| exit.code), Some(3));
    }

    #[test]
    fn other_images_are_no_scripts() {
        for image in [
            "shop:missing",
            "simulated",
            "simulated:latest",
            "a/b@sha256:0",
        ] {
            let script = read(image, &[], 0).unwrap();
            assert_eq!(
                (script.pull, script.exit),
                (Ok(seconds(0)), None),
                "{image}"
            );
        }
    }

    #[test]
    fn chance_decides_once_per_task() {
        let image = "simulated:30p-missing_start-10s..20s";
        let unlucky = read(image, &[], 29).unwrap();
        assert_eq!(unlucky.pull, Err(()));
        assert_eq!(unlucky.start, Ok(seconds(10) + Duration::from_millis(29)));
        assert_eq!(read(image, &[], 30).unwrap().pull, Ok(seconds(0)));
        assert_eq!(read(image, &[], 10_000).unwrap().start, Ok(seconds(20)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (image, label, named) in [
            ("simulated:healthy", None, "`healthy`"),
            ("simulated:99p-nonsense", None, "`99p-nonsense`"),
            ("simulated:flapping-0s", None, "`flapping-0s`"),
            ("simulated:exit-1-5s_", None, "``"),
            ("a", Some(("simulate.exit", "1")), "simulate.exit=1"),
            ("a", Some(("simulate.helth", "5s")), "simulate.helth=5s"),
            ("a", Some(("simulate.pull", "20s..5s")), "20s..5s"),
        ] {
            let labels: Vec<(&str, &str)> = label.into_iter().collect();
            let error = read(image, &labels, 99).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_flapping_verdict_turns_at_every_period() {
        let script = read("simulated:healthy-5s_flapping-10s", &[], 0).unwrap();
        let (mut turns, mut elapsed) = (Vec::new(), seconds(0));
        for _ in 0..4 {
            turns.push((elapsed.as_secs(), script.health.at(elapsed)));
            elapsed = script.health.next(elapsed).unwrap();
        }
        let expected = [
            (0, None),
            (5, Some(true)),
            (15, Some(false)),
            (25, Some(true)),
        ];
        assert_eq!(turns, expected);
    }
}
