//! Whether parts can listen where they are to: asked before any is started, because whoever listens
//! there already would answer in its place.

use anyhow::bail;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

/// Where a part is to listen.
pub(crate) struct Wanted {
    /// The part, in words.
    pub(crate) part: &'static str,
    /// Its address and port.
    pub(crate) address: SocketAddr,
    /// The option that chooses another.
    pub(crate) option: &'static str,
}

/// Makes sure that every part can listen.
///
/// # Errors
/// When one cannot; it is named, with its port and what to do.
pub(crate) fn free(wanted: &[Wanted]) -> anyhow::Result<()> {
    for (nth, one) in wanted.iter().enumerate() {
        let Wanted {
            part,
            address,
            option,
        } = one;
        if let Some(other) = wanted[..nth].iter().find(|w| w.address == *address) {
            bail!(
                "{} and {part} cannot both listen on {address}: choose another with {option}",
                other.part
            );
        }
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
                "port {} of {} is taken, and {part} is to listen there. Perhaps another `roadstead \
                 up` or `roadstead demo` runs: end what listens (`ss -ltnp` names it), or choose \
                 another with {option}",
                address.port(),
                address.ip()
            ),
            Err(error) => bail!("{part} cannot listen on {address}: {error}"),
        }
    }
    Ok(())
}
