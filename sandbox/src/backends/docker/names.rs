//! The second network of a sandbox: names that lead to a container only while its task is well.
//!
//! Docker Engine gives a container its names when it connects it, once and for all, so a name comes
//! and goes with a new connection. On the main network that would move the published ports. Here
//! nothing is published, and a container comes back with the address that it had: connections that are
//! open go on.
//!
//! Invariants: the network exists from the first task on that needs it until no task is left, and all
//! containers of the sandbox are on it while it exists, because whoever asks for a name must be. Must
//! not know: what health is.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Network, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use tokio::sync::Mutex;

use super::definition::{LABEL_INSTANCE, LABEL_NETWORK};
use super::engine::{error_text, is_not_found, label_filter, status};
use super::network::{OWN_SUBNETS, is_out_of_addresses, own_subnet};

/// The value of [`LABEL_NETWORK`] on this network.
pub(super) const NAMES: &str = "names";

/// Whether there is such a network.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Nobody has looked.
    Unknown,
    None,
    /// By its id.
    One(String),
}

pub(super) struct Names {
    docker: Docker,
    instance: String,
    /// Whoever makes, finds or removes the network holds it.
    known: Mutex<Known>,
}

impl Names {
    pub(super) fn new(docker: Docker, instance: String) -> Self {
        Self {
            docker,
            instance,
            known: Mutex::new(Known::Unknown),
        }
    }

    /// Connects a container, without names, when the network exists. With `needed` it is made if it
    /// does not. The error is for people.
    pub(super) async fn join(&self, container: &str, needed: bool) -> Result<(), String> {
        let mut known = self.known.lock().await;
        if *known == Known::Unknown {
            *known = match self
                .labelled()
                .await
                .map_err(|error| text(&error))?
                .into_iter()
                .next()
            {
                Some(id) => Known::One(id),
                None => Known::None,
            };
            // An earlier life may have ended before all were connected.
            if let Known::One(id) = &*known {
                self.connect_all(id).await.map_err(|error| text(&error))?;
            }
        }
        if *known == Known::None && needed {
            let id = self.create().await?;
            *known = Known::One(id.clone());
            self.connect_all(&id).await.map_err(|error| text(&error))?;
        }
        match &*known {
            Known::One(id) => {
                self.connect(id, container, EndpointSettings::default())
                    .await
            }
            _ => Ok(()),
        }
        .map_err(|error| text(&error))
    }

    /// Lets `names`, or nothing, lead to a container that has joined. One that is gone or has never
    /// joined has no names anyway.
    pub(super) async fn lead(&self, container: &str, names: &[String]) -> Result<(), Error> {
        let Known::One(id) = self.known.lock().await.clone() else {
            return Ok(());
        };
        let inspected = match self.docker.inspect_container(container, None).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            other => other?,
        };
        let endpoints = inspected.network_settings.and_then(|it| it.networks);
        let mut endpoints = endpoints.unwrap_or_default().into_values();
        let Some(now) = endpoints.find(|one| one.network_id.as_ref() == Some(&id)) else {
            return Ok(());
        };
        // The engine adds the container's id to its names.
        let has: Vec<String> = now.aliases.unwrap_or_default();
        let short = container_id_start(inspected.id.as_deref());
        let own = has.iter().filter(|one| **one != short);
        if own.clone().count() == names.len() && own.clone().all(|one| names.contains(one)) {
            return Ok(());
        }
        let leave = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: None,
        };
        self.docker.disconnect_network(&id, leave).await?;
        let wanted = EndpointSettings {
            aliases: Some(names.to_vec()),
            mac_address: now.mac_address.filter(|address| !address.is_empty()),
            ipam_config: now
                .ip_address
                .filter(|address| !address.is_empty())
                .map(|address| EndpointIpamConfig {
                    ipv4_address: Some(address),
                    ..EndpointIpamConfig::default()
                }),
            ..EndpointSettings::default()
        };
        let any_address = EndpointSettings {
            aliases: wanted.aliases.clone(),
            ..EndpointSettings::default()
        };
        match self.connect(&id, container, wanted).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Another container was given the address in between.
                tracing::info!(%error, container, "comes back with another address");
                self.connect(&id, container, any_address).await
            }
        }
    }

    /// Removes the network when `idle` says that no task is left, and any other of its kind.
    pub(super) async fn remove_spare(&self, idle: impl FnOnce() -> bool) -> Result<(), Error> {
        let mut known = self.known.lock().await;
        let idle = idle();
        for id in self.labelled().await? {
            let in_use = *known == Known::One(id.clone()) || *known == Known::Unknown;
            if in_use && !idle {
                continue;
            }
            match self.docker.remove_network(&id).await {
                // Somebody connected a container of their own, or a task of another time is ending.
                Err(error) if status(&error) == Some(403) => continue,
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
            if *known == Known::One(id) {
                *known = Known::None;
            }
        }
        Ok(())
    }

    async fn connect(
        &self,
        network: &str,
        container: &str,
        endpoint: EndpointSettings,
    ) -> Result<(), Error> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(endpoint),
        };
        match self.docker.connect_network(network, request).await {
            // It is there already.
            Err(error) if status(&error) == Some(403) && is_there(&error) => Ok(()),
            other => other,
        }
    }

    /// Connects every container of the sandbox. One that ends meanwhile is left out.
    async fn connect_all(&self, network: &str) -> Result<(), Error> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&label_filter(&self.instance, None))
            .build();
        for container in self.docker.list_containers(Some(options)).await? {
            let Some(id) = container.id else { continue };
            let connected = self
                .connect(network, &id, EndpointSettings::default())
                .await;
            if let Err(error) = connected {
                tracing::debug!(%error, id, "is not connected to the network of names");
            }
        }
        Ok(())
    }

    async fn labelled(&self) -> Result<Vec<String>, Error> {
        let options = ListNetworksOptionsBuilder::default()
            .filters(&label_filter(&self.instance, None))
            .build();
        let networks = self.docker.list_networks(Some(options)).await?;
        Ok(networks
            .into_iter()
            .filter(is_of_names)
            .filter_map(|network| network.id)
            .collect())
    }

    async fn create(&self) -> Result<String, String> {
        let short = self.instance.get(..12).unwrap_or(&self.instance);
        let name = format!("roadstead-names-{short}-{:08x}", rand::random::<u32>());
        let labels = [
            (LABEL_INSTANCE, self.instance.as_str()),
            (LABEL_NETWORK, NAMES),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut refused = String::new();
        for _ in 0..OWN_SUBNETS {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                // The way out is the main network's.
                internal: Some(true),
                labels: Some(HashMap::from(labels.clone())),
                // The engine lets addresses be chosen only where the range was.
                ipam: Some(own_subnet()),
                ..NetworkCreateRequest::default()
            };
            match self.docker.create_network(request).await {
                Ok(made) => return Ok(made.id),
                Err(error) if is_out_of_addresses(&error) => refused = error_text(&error),
                Err(error) => return Err(text(&error)),
            }
        }
        Err(format!("cannot make a network for names: {refused}"))
    }
}

/// Whether a network is one for names.
pub(super) fn is_of_names(network: &Network) -> bool {
    let labels = network.labels.as_ref();
    labels
        .and_then(|labels| labels.get(LABEL_NETWORK))
        .map(String::as_str)
        == Some(NAMES)
}

fn is_there(error: &Error) -> bool {
    error_text(error).contains("already exists in network")
}

fn container_id_start(id: Option<&str>) -> String {
    id.unwrap_or_default().chars().take(12).collect()
}

fn text(error: &Error) -> String {
    format!(
        "cannot connect to the network of names: {}",
        error_text(error)
    )
}
