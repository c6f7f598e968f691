//! The main network of a sandbox, which all its containers share.
//!
//! Invariants: it is known by its label and its id, never by its name, because Docker Engine may
//! still carry out what a killed sandbox asked for after the next one has looked; no network with a
//! container in it is removed; only what carries this sandbox's label is. Must not know: what tasks
//! are there.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use tokio::sync::Mutex;

use super::definition::LABEL_INSTANCE;
use super::engine::{error_text, is_not_found, label_filter, status};
use super::names::is_of_names;

/// How often the engine is asked for a subnet of our choice when it has none of its own left.
pub(super) const OWN_SUBNETS: u32 = 16;

/// The network of one sandbox.
pub(super) struct Network {
    docker: Docker,
    instance: String,
    /// The id of the network in use. Whoever makes, chooses or removes networks holds it.
    known: Mutex<Option<String>>,
}

/// A network that carries the sandbox's label.
struct Labelled {
    id: String,
    name: String,
    /// Containers that were made for it, running or not.
    containers: usize,
}

impl Network {
    pub(super) fn new(docker: Docker, instance: String) -> Self {
        Self {
            docker,
            instance,
            known: Mutex::new(None),
        }
    }

    /// The network's id: of the one in use, of one that an earlier life made, or of a new one. The
    /// error is for people.
    pub(super) async fn id(&self) -> Result<String, String> {
        let mut known = self.known.lock().await;
        let text = |error: Error| format!("cannot ask for networks: {}", error_text(&error));
        if let Some(id) = &*known {
            match self.docker.inspect_network(id, None).await {
                Ok(_) => return Ok(id.clone()),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(text(error)),
            }
        }
        let found = self.labelled().await.map_err(text)?;
        // The containers of an earlier life must meet those that are still to come.
        let fullest = found.into_iter().max_by_key(|it| it.containers);
        let id = match fullest {
            Some(found) => found.id,
            None => self.create().await?,
        };
        *known = Some(id.clone());
        Ok(id)
    }

    /// Removes networks that no container was made for; the one in use only when `idle` says that
    /// nobody is about to make one.
    pub(super) async fn remove_spare(&self, idle: impl FnOnce() -> bool) -> Result<(), Error> {
        let mut known = self.known.lock().await;
        let kept = if idle() { None } else { known.clone() };
        for spare in self.labelled().await? {
            if spare.containers > 0 || kept.as_ref() == Some(&spare.id) {
                continue;
            }
            match self.docker.remove_network(&spare.id).await {
                Err(error) if is_not_found(&error) => {}
                // Somebody connected a container of their own. Once that is gone, it can be removed.
                Err(error) if status(&error) == Some(403) => {
                    tracing::debug!(network = spare.name, %error, "is in use by others");
                    continue;
                }
                Err(error) => return Err(error),
                Ok(()) => tracing::info!(network = spare.name, "removed: nothing needs it"),
            }
            if known.as_ref() == Some(&spare.id) {
                *known = None;
            }
        }
        Ok(())
    }

    async fn labelled(&self) -> Result<Vec<Labelled>, Error> {
        let filter = label_filter(&self.instance, None);
        let options = ListNetworksOptionsBuilder::default()
            .filters(&filter)
            .build();
        let networks = self.docker.list_networks(Some(options)).await?;
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let containers = self.docker.list_containers(Some(options)).await?;
        // Not the networks' own lists: those leave out containers that do not run at the moment.
        let modes: Vec<String> = containers
            .into_iter()
            .filter_map(|container| container.host_config?.network_mode)
            .collect();
        let networks = networks.into_iter().filter(|one| !is_of_names(one));
        let labelled = networks.filter_map(|network| {
            let (id, name) = (network.id?, network.name?);
            let containers = modes.iter().filter(|mode| **mode == id || **mode == name);
            Some(Labelled {
                containers: containers.count(),
                id,
                name,
            })
        });
        Ok(labelled.collect())
    }

    async fn create(&self) -> Result<String, String> {
        // No two share a name, also not the one that a killed sandbox asked for: the engine takes
        // several of one name, and then refuses to tell them apart.
        let short = self.instance.get(..12).unwrap_or(&self.instance);
        let name = format!("roadstead-sandbox-{short}-{:08x}", rand::random::<u32>());
        let request = |ipam| NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(
                LABEL_INSTANCE.to_owned(),
                self.instance.clone(),
            )])),
            options: Some(HashMap::from([(
                "com.docker.network.bridge.host_binding_ipv4".to_owned(),
                "127.0.0.1".to_owned(),
            )])),
            ipam,
            ..NetworkCreateRequest::default()
        };
        let mut refused = match self.docker.create_network(request(None)).await {
            Ok(made) => return Ok(made.id),
            Err(error) => error,
        };
        if !is_out_of_addresses(&refused) {
            return Err(format!("cannot make a network: {}", error_text(&refused)));
        }
        // The engine's own pools hold about thirty networks. Beyond that, one from a range that no
        // network of the world may use (RFC 2544).
        for _ in 0..OWN_SUBNETS {
            let ipam = Some(own_subnet());
            refused = match self.docker.create_network(request(ipam)).await {
                Ok(made) => return Ok(made.id),
                Err(error) if is_out_of_addresses(&error) => error,
                Err(error) => return Err(format!("cannot make a network: {}", error_text(&error))),
            };
        }
        let networks = self.docker.list_networks(None).await;
        let networks = networks.map_or(0, |networks| networks.len());
        Err(out_of_addresses(networks, &error_text(&refused)))
    }
}

/// A subnet that no network of the world may use (RFC 2544), drawn anew each time.
pub(super) fn own_subnet() -> Ipam {
    let [high, middle] = rand::random::<[u8; 2]>();
    let subnet = format!("198.{}.{}.0/22", 18 + (high & 1), middle & 0xfc);
    Ipam {
        config: Some(vec![IpamConfig {
            subnet: Some(subnet),
            ..IpamConfig::default()
        }]),
        ..Ipam::default()
    }
}

pub(super) fn is_out_of_addresses(error: &Error) -> bool {
    let text = error_text(error).to_lowercase();
    ["address pool", "overlap"]
        .iter()
        .any(|words| text.contains(words))
}

/// What a person can do about an engine that has `networks` networks and `said` that it cannot make
/// one more.
fn out_of_addresses(networks: usize, said: &str) -> String {
    format!(
        "cannot make a network: Docker Engine has {networks} networks and no addresses left for \
         another one; remove those that nothing uses (`docker network prune`), or give the engine \
         more `default-address-pools` ({said})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_addresses_is_told_from_other_trouble_and_says_what_to_do() {
        let said = |message: &str| Error::DockerResponseServerError {
            status_code: 500,
            message: message.to_owned(),
        };
        let none_left = "could not find an available, non-overlapping IPv4 address pool among the \
                         defaults to assign to the network";
        assert!(is_out_of_addresses(&said(none_left)));
        assert!(is_out_of_addresses(&said(
            "Pool overlaps with other one on this address space"
        )));
        assert!(!is_out_of_addresses(&said("plugin \"bridge\" not found")));
        let text = out_of_addresses(34, none_left);
        assert!(text.contains("has 34 networks"), "{text}");
        assert!(text.contains("docker network prune"), "{text}");
        assert!(text.contains(none_left), "{text}");
    }
}
