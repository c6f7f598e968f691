//! Secrets on their way from the server into a step's container.
//!
//! Owns the values of one attempt, in memory alone, and the words that its shell reads them by. They
//! reach the container through its standard input, before the step's own script, and are written there
//! into files in memory ([`FOLDER`], a tmpfs of the container's): so they are in no argument, in nothing
//! that Docker Engine tells of a container, and on no disk. Knows nothing of logs.

use crate::{
    client::{AttemptClient, retry},
    secret::Secret,
};
use anyhow::Context;
use roadstead_masking::Masker;
use roadstead_protocol::{ImageSecret, Step, StepAction, StepSecret};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use zeroize::Zeroizing;

/// Where a step finds its secrets.
pub(crate) const FOLDER: &str = "/run/secrets";
/// How [`FOLDER`] is mounted: everybody may make a file, and the step's user does.
pub(crate) const MOUNT: &str = "rw,noexec,nosuid,nodev,size=8m,mode=1777";
/// How long they are asked for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the container's shell does before it becomes the step's script, which is its first argument. It
/// needs nothing but a shell of POSIX whose `printf` is built in: a program's arguments would be seen.
/// Names begin with `_roadstead` to leave the step's own variables alone.
pub(crate) const READER: &str = r#"case $(command -v printf) in
printf) ;;
*) echo "secrets need a /bin/sh whose printf is built in" >&2; exit 125 ;;
esac
_roadstead_umask=$(umask)
umask 277
while IFS= read -r _roadstead_file && [ -n "$_roadstead_file" ]; do
  IFS= read -r _roadstead_variable
  IFS= read -r _roadstead_lines
  IFS= read -r _roadstead_value
  while [ "$_roadstead_lines" -gt 1 ]; do
    IFS= read -r _roadstead_line
    _roadstead_value="$_roadstead_value
$_roadstead_line"
    _roadstead_lines=$((_roadstead_lines - 1))
  done
  [ -e "/run/secrets/$_roadstead_file" ] || printf %s "$_roadstead_value" > "/run/secrets/$_roadstead_file"
  [ -z "$_roadstead_variable" ] || export "$_roadstead_variable=$_roadstead_value"
done
umask "$_roadstead_umask"
exec < /dev/null
exec /bin/sh -eu -c "$1""#;

/// The secrets of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    values: BTreeMap<String, Secret>,
    withheld: BTreeMap<String, String>,
}

/// What [`READER`] reads; wiped when it is dropped.
pub(crate) struct Handover(Zeroizing<Vec<u8>>);

impl Handover {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Secrets {
    /// Those that `steps` name, from the server; nobody is asked when they name none.
    ///
    /// # Errors
    /// When the attempt is lost, or the server does not tell them for five minutes.
    pub(crate) async fn fetch(client: &AttemptClient, steps: &[Step]) -> anyhow::Result<Self> {
        if named_by(steps).next().is_none() {
            return Ok(Self::default());
        }
        let told = retry(PATIENCE, || client.secrets())
            .await
            .context("cannot get the secrets of the steps from the server")?;
        let values = told.values.into_iter();
        Ok(Self {
            values: values
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            withheld: told.withheld,
        })
    }

    /// None of those that `steps` name.
    pub(crate) fn withhold_all(steps: &[Step], why: &str) -> Self {
        let withheld = named_by(steps).map(|secret| (secret.to_owned(), why.to_owned()));
        Self {
            values: BTreeMap::new(),
            withheld: withheld.collect(),
        }
    }

    /// All values, for keeping them out of logs.
    pub(crate) fn values(&self) -> impl Iterator<Item = &str> {
        self.values.values().map(Secret::expose)
    }

    /// `text` without any of the values, as a log would show it.
    pub(crate) fn mask(&self, text: &str) -> String {
        let mut masker = Masker::default();
        if let Err(error) = masker.hide(self.values()) {
            return format!("why is not shown: {error}");
        }
        let mut shown = masker.push(text.as_bytes());
        shown.extend(masker.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// What instructions of image `image` may mount, by the id that its Dockerfile knows them by.
    ///
    /// # Errors
    /// Why it does not get one of them, for a person.
    pub(crate) fn of_image(
        &self,
        image: &str,
        named: &[ImageSecret],
    ) -> Result<BTreeMap<String, Secret>, String> {
        let whose = format!("image `{image}`");
        let named = named.iter();
        named
            .map(|ImageSecret { secret, id }| Ok((id.clone(), self.value(&whose, secret)?.clone())))
            .collect()
    }

    fn value(&self, whose: &str, secret: &str) -> Result<&Secret, String> {
        self.values.get(secret).ok_or_else(|| {
            let why = self.withheld.get(secret).map(String::as_str);
            let why = why.unwrap_or("the server did not tell it");
            format!("{whose} does not get secret `{secret}`: {why}")
        })
    }

    /// What a step's shell is to read; `None` when it names no secret.
    ///
    /// # Errors
    /// Why it does not get one of them, for a person.
    pub(crate) fn of_step(&self, named: &[StepSecret]) -> Result<Option<Handover>, String> {
        if named.is_empty() {
            return Ok(None);
        }
        let mut text = Zeroizing::new(String::new());
        let mut room = 1;
        for named in named {
            let value = self.value("the step", &named.secret)?;
            room += value.expose().len() + named.file.len() + 64;
            room += named.variable.as_ref().map_or(0, String::len);
        }
        // All at once: what grows leaves copies behind.
        text.reserve_exact(room);
        for StepSecret {
            secret,
            file,
            variable,
        } in named
        {
            let value = self.values.get(secret).map_or("", Secret::expose);
            let variable = variable.as_deref().unwrap_or_default();
            let lines = value.split('\n').count();
            // Writing into a String does not fail.
            let _ = writeln!(text, "{file}\n{variable}\n{lines}\n{value}");
        }
        text.push('\n');
        let bytes = std::mem::take(&mut *text).into_bytes();
        Ok(Some(Handover(Zeroizing::new(bytes))))
    }
}

/// The names of all that `steps` and the images that they build name.
fn named_by(steps: &[Step]) -> impl Iterator<Item = &str> {
    steps.iter().flat_map(|step| {
        let (of_run, images) = match &step.action {
            StepAction::Run { secrets, .. } => (secrets.as_slice(), &[][..]),
            StepAction::Build { images } => (&[][..], images.as_slice()),
        };
        let of_run = of_run.iter().map(|named| named.secret.as_str());
        let of_images = images.iter().flat_map(|image| &image.secrets);
        of_run.chain(of_images.map(|named| named.secret.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    fn named(secret: &str, variable: Option<&str>) -> StepSecret {
        StepSecret {
            secret: secret.into(),
            file: secret.replace('/', "."),
            variable: variable.map(str::to_owned),
        }
    }

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let values = values
            .iter()
            .map(|(name, value)| (name.to_string(), Secret::new(*value)));
        Secrets {
            values: values.collect(),
            withheld: [("OTHER".to_owned(), "it is for branches".to_owned())].into(),
        }
    }

    /// What a shell of this machine makes of them, with a folder of the test's in the place of the mount.
    fn read_by(shell: &[&str], handover: &Handover, script: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let reader = READER.replace(FOLDER, &folder.path().display().to_string());
        let script = script.replace(FOLDER, &folder.path().display().to_string());
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-eu", "-c", &reader, "sh", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(handover.bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{shell:?}");
        (folder, String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn every_shell_writes_them_as_they_are() {
        let odd = "  two\\n\\\\ $HOME `x` 'quoted' \"twice\"\r\n\n\tlast: %s äöü  \n\n";
        let all = secrets(&[("ONE", "just-one-line"), ("staging/ODD", odd)]);
        let steps = [
            named("ONE", None),
            named("staging/ODD", Some("ODD")),
            named("ONE", Some("AGAIN")),
        ];
        let handover = all.of_step(&steps).unwrap().unwrap();
        let script = "cat; printf '%s|%s|' \"$ODD\" \"$AGAIN\"; umask; cat /run/secrets/ONE";
        for shell in [&["/bin/sh"][..], &["/bin/bash"], &["/bin/busybox", "sh"]] {
            let (folder, said) = read_by(shell, &handover, script);
            let file = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert_eq!(
                (file("ONE").as_str(), file("staging.ODD").as_str()),
                ("just-one-line", odd)
            );
            let (values, rest) = said.rsplit_once('|').unwrap();
            assert_eq!(values, format!("{odd}|just-one-line"), "{shell:?}");
            assert!(
                rest.starts_with('0') && rest.ends_with("2\njust-one-line"),
                "{rest}"
            );
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("ONE"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o400);
        }
    }

    #[test]
    fn a_masked_text_keeps_the_rest() {
        let all = secrets(&[("ONE", "just-one-line")]);
        assert_eq!(all.mask("a just-one-line, just-one"), "a ***, just-one");
        assert_eq!(Secrets::default().mask("a text"), "a text");
    }

    #[test]
    fn an_image_gets_what_it_names_by_id() {
        let all = secrets(&[("staging/ONE", "just-one-line"), ("TWO", "two-lines")]);
        let named = |secret: &str| ImageSecret {
            secret: secret.into(),
            id: secret.replace('/', "."),
        };
        let given = all.of_image("web", &[named("staging/ONE")]).unwrap();
        let given: Vec<_> = given
            .iter()
            .map(|(id, value)| (id.as_str(), value.expose()))
            .collect();
        assert_eq!(given, [("staging.ONE", "just-one-line")]);
        let why = all.of_image("web", &[named("OTHER")]).unwrap_err();
        assert_eq!(
            why,
            "image `web` does not get secret `OTHER`: it is for branches"
        );
    }

    #[test]
    fn a_step_without_one_of_its_secrets_is_told_why() {
        let all = secrets(&[("ONE", "just-one-line")]);
        assert!(all.of_step(&[]).unwrap().is_none());
        let why = |name| {
            all.of_step(&[named("ONE", None), named(name, None)])
                .err()
                .unwrap()
        };
        assert_eq!(
            why("OTHER"),
            "the step does not get secret `OTHER`: it is for branches"
        );
        assert!(why("MISSING").contains("`MISSING`"));
        assert!(!format!("{all:?}").contains("just"));

        let step = Step {
            name: "test".into(),
            needs: vec![],
            timeout_seconds: 1,
            retry: 0,
            artifacts_from: vec![],
            action: StepAction::Run {
                image: "busybox".into(),
                run: "make".into(),
                env: BTreeMap::new(),
                sidecars: BTreeMap::new(),
                limits: roadstead_protocol::StepLimits::default(),
                files: roadstead_protocol::StepFiles::default(),
                secrets: vec![named("ONE", None)],
            },
        };
        let none = Secrets::withhold_all(&[step], "a run on this machine has none");
        let why = none.of_step(&[named("ONE", None)]).err().unwrap();
        assert!(
            why.ends_with("`ONE`: a run on this machine has none"),
            "{why}"
        );
    }
}
