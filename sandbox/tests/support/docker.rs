//! Images and containers for tests: everything is made from one static busybox, nothing is pulled.

use std::collections::HashMap;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerSummary, ExecConfig};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    PushImageOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use futures_util::TryStreamExt;

/// Where Debian's package `busybox-static` puts it.
const BUSYBOX: &str = "/bin/busybox";

pub(crate) async fn engine() -> Docker {
    Docker::connect_with_defaults()
        .unwrap()
        .negotiate_version()
        .await
        .expect("these tests need a running Docker Engine")
}

/// Makes the image `name:tag` with busybox and a page that says `text`. It serves the page on port
/// 80 unless it is told to run something else.
pub(crate) async fn make_image(name: &str, tag: &str, text: &str, changes: &[&str]) {
    let mut archive = tar::Builder::new(Vec::new());
    let busybox = std::fs::read(BUSYBOX).expect("these tests need busybox-static");
    append(&mut archive, "bin/busybox", 0o755, &busybox);
    append(&mut archive, "www/index.html", 0o644, text.as_bytes());
    for program in ["sh", "httpd", "sleep", "echo", "true", "false"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, format!("bin/{program}"), "busybox")
            .unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let mut instructions = vec![
        r#"CMD ["/bin/httpd", "-f", "-p", "80", "-h", "/www"]"#,
        "ENV PATH=/bin",
    ];
    instructions.extend(changes);
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(name)
        .tag(tag)
        .changes(instructions.into_iter().map(str::to_owned).collect())
        .build();
    engine()
        .await
        .create_image(
            Some(options),
            Some(bollard::body_full(archive.into())),
            None,
        )
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .unwrap();
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

/// Gives an image a second name.
pub(crate) async fn tag_image(image: &str, name: &str, tag: &str) {
    let options = TagImageOptionsBuilder::default()
        .repo(name)
        .tag(tag)
        .build();
    engine()
        .await
        .tag_image(image, Some(options))
        .await
        .unwrap();
}

/// Pushes `name:tag`; the registry's refusal comes back as text.
pub(crate) async fn push(name: &str, tag: &str, password: &str) -> Result<(), String> {
    let credentials = DockerCredentials {
        username: Some("AWS".to_owned()),
        password: Some(password.to_owned()),
        ..DockerCredentials::default()
    };
    let options = PushImageOptionsBuilder::default().tag(tag).build();
    engine()
        .await
        .push_image(name, Some(options), Some(credentials))
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(|error| error.to_string())
}

/// Pulls an image with that password or with no credentials at all; the refusal comes back as text.
pub(crate) async fn pull(image: &str, password: Option<&str>) -> Result<(), String> {
    let credentials = password.map(|password| DockerCredentials {
        username: Some("AWS".to_owned()),
        password: Some(password.to_owned()),
        ..DockerCredentials::default()
    });
    let options = CreateImageOptionsBuilder::default()
        .from_image(image)
        .build();
    engine()
        .await
        .create_image(Some(options), None, credentials)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .map_err(|error| error.to_string())
}

/// Removes an image; one that is not there is as good.
pub(crate) async fn remove_image(image: &str) {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    let _ = engine()
        .await
        .remove_image(image, Some(options), None)
        .await;
}

/// Removes the images whose names begin so: one image, or all of a registry.
pub(crate) async fn remove_images_of(prefix: &str) {
    let images = engine()
        .await
        .list_images(None::<bollard::query_parameters::ListImagesOptions>)
        .await
        .unwrap();
    for image in images {
        let names = image.repo_tags.iter().chain(&image.repo_digests);
        for name in names.filter(|name| name.starts_with(prefix)) {
            remove_image(name).await;
        }
    }
}

/// All containers of a sandbox, running or not.
pub(crate) async fn containers(instance: &str) -> Vec<ContainerSummary> {
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&labelled(instance))
        .build();
    engine().await.list_containers(Some(options)).await.unwrap()
}

/// Runs a command in a container; whether it ended well, and what it said.
pub(crate) async fn exec(container: &str, line: &str) -> (bool, String) {
    let engine = engine().await;
    let command = ["/bin/busybox", "sh", "-c", line].map(str::to_owned);
    let wanted = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..ExecConfig::default()
    };
    let made = engine.create_exec(container, wanted).await.unwrap();
    let started = engine.start_exec(&made.id, None).await.unwrap();
    let mut said = String::new();
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Some(chunk) = output.try_next().await.unwrap() {
            said.push_str(&chunk.to_string());
        }
    }
    let ended = engine.inspect_exec(&made.id).await.unwrap();
    (ended.exit_code == Some(0), said)
}

/// The names of all networks of a sandbox.
pub(crate) async fn networks(instance: &str) -> Vec<String> {
    let options = ListNetworksOptionsBuilder::default()
        .filters(&labelled(instance))
        .build();
    let networks = engine().await.list_networks(Some(options)).await.unwrap();
    networks.into_iter().filter_map(|it| it.name).collect()
}

pub(crate) async fn remove_labelled(instance: &str) {
    let engine = engine().await;
    for container in containers(instance).await {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let _ = engine
            .remove_container(&container.id.unwrap(), Some(options))
            .await;
    }
    for network in networks(instance).await {
        let _ = engine.remove_network(&network).await;
    }
}

fn labelled(instance: &str) -> HashMap<String, Vec<String>> {
    let label = format!("roadstead.sandbox={instance}");
    HashMap::from([("label".to_owned(), vec![label])])
}
