//! The network of a step, which no other step shares.
//!
//! Owns how networks are made and removed, and what is said when Docker Engine has no room for
//! another one. It is the step's own so that sidecars of steps that run side by side never meet.

use crate::engine::{Engine, absent_is_fine, words};
use anyhow::{Context, bail};
use bollard::{
    errors::Error as DockerError,
    models::{Ipam, IpamConfig, NetworkCreateRequest},
};

/// How often the engine is asked for a subnet of our choice when it has none of its own left.
const OWN_SUBNETS: u32 = 16;

impl Engine {
    /// Makes the network `name` for a step of `attempt`.
    ///
    /// # Errors
    /// When the engine fails or has no addresses left, and then what can be done about it.
    pub(crate) async fn create_network(&self, name: &str, attempt: &str) -> anyhow::Result<()> {
        let request = |ipam| NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(self.labels(attempt)),
            ipam,
            ..Default::default()
        };
        let Err(mut refused) = self.docker().create_network(request(None)).await else {
            return Ok(());
        };
        // The engine's own pools hold about thirty networks. Beyond that, small ones from a range
        // that no network of the world may use (RFC 2544).
        for _ in 0..OWN_SUBNETS {
            if !is_out_of_addresses(&refused) {
                return Err(refused).context("cannot make the step's network");
            }
            let [high, middle, low] = rand::random::<[u8; 3]>();
            let subnet = format!("198.{}.{middle}.{}/28", 18 + (high & 1), low & 0xf0);
            let ipam = Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet),
                    ..Default::default()
                }]),
                ..Default::default()
            };
            refused = match self.docker().create_network(request(Some(ipam))).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
        }
        let networks = self.docker().list_networks(None).await;
        let networks = networks.map_or(0, |networks| networks.len());
        bail!(out_of_addresses(networks, &words(&refused)?))
    }

    /// Removes a network, by name or id; one that is not there is as good.
    pub(crate) async fn remove_network(&self, name: &str) -> anyhow::Result<()> {
        absent_is_fine(self.docker().remove_network(name).await)
            .with_context(|| format!("cannot remove network {name}"))
    }
}

fn is_out_of_addresses(error: &DockerError) -> bool {
    let text = error.to_string().to_lowercase();
    ["address pool", "overlap"]
        .iter()
        .any(|words| text.contains(words))
}

/// What a person can do about an engine that has `networks` networks and `said` that it cannot make
/// one more.
fn out_of_addresses(networks: usize, said: &str) -> String {
    format!(
        "cannot make the step's network: Docker Engine has {networks} networks and no addresses left \
         for another one; remove those that nothing uses (`docker network prune`), give the engine \
         more `default-address-pools`, or the runner fewer slots ({said})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_addresses_is_told_from_other_trouble_and_says_what_to_do() {
        let said = |message: &str| DockerError::DockerResponseServerError {
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
