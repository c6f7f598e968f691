//! The style sheets, scripts and pictures, embedded in the binary.
//!
//! Pages name an asset below a fingerprint of all assets, so a browser may keep it for ever
//! and a new version of the server is a new address. Modules import each other by relative
//! paths, which stay below the same fingerprint.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Files;

/// The colours of logs above the first sixteen are computed, not written by hand.
const COLOURS: &str = "colours.css";

/// An embedded file, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The file's bytes.
    pub bytes: Cow<'static, [u8]>,
    /// For the `Content-Type` header.
    pub content_type: &'static str,
    /// For the `ETag` header, quotes included.
    pub etag: String,
    /// Whether the address named the current fingerprint, so that the reply may be cached for
    /// ever (`public, max-age=31536000, immutable`); otherwise `no-cache`.
    pub immutable: bool,
}

/// The file behind the tail of an asset's address: `<fingerprint>/app.css` or `app.css`.
/// A stale fingerprint still answers, but is not [`Asset::immutable`].
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    let (fingerprint_given, name) = match path.split_once('/') {
        Some((fingerprint, name)) => (Some(fingerprint), name),
        None => (None, path),
    };
    let bytes = load(name)?;
    Some(Asset {
        content_type: content_type(name)?,
        etag: format!("\"{}\"", hash([bytes.as_ref()])),
        immutable: fingerprint_given == Some(fingerprint()),
        bytes,
    })
}

/// The names of all assets, sorted.
#[must_use]
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = Files::iter().map(Cow::into_owned).collect();
    names.push(COLOURS.to_owned());
    names.sort();
    names
}

/// The address of an asset, as pages name it.
#[must_use]
pub fn url(name: &str) -> String {
    format!("/assets/{}/{name}", fingerprint())
}

fn load(name: &str) -> Option<Cow<'static, [u8]>> {
    if name == COLOURS {
        return Some(Cow::Owned(crate::ansi::style_sheet().into_bytes()));
    }
    Files::get(name).map(|file| file.data)
}

fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// One hash over the names and contents of all assets; the same in every process of one build.
fn fingerprint() -> &'static str {
    static FINGERPRINT: OnceLock<String> = OnceLock::new();
    FINGERPRINT.get_or_init(|| {
        let parts: Vec<Vec<u8>> = names()
            .iter()
            .flat_map(|name| {
                [
                    name.clone().into_bytes(),
                    load(name).unwrap_or_default().into_owned(),
                ]
            })
            .collect();
        hash(parts.iter().map(Vec::as_slice))
    })
}

/// 64-bit FNV-1a in hexadecimal, with each part's length mixed in. It tells versions of our own
/// files apart; nothing depends on it being hard to forge.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for part in parts {
        eat(part);
        eat(&part.len().to_le_bytes());
    }
    let mut text = String::new();
    let _ = write!(text, "{state:016x}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_answers_below_its_fingerprint() {
        for name in names() {
            let address = url(&name);
            let tail = address.strip_prefix("/assets/").unwrap();
            let found = asset(tail).unwrap();
            assert!(found.immutable, "{name}");
            assert!(!found.bytes.is_empty(), "{name}");
            let plain = asset(&name).unwrap();
            assert!(!plain.immutable, "{name}");
            assert_eq!(plain.etag, found.etag);
            assert!(
                !asset(&format!("0000000000000000/{name}"))
                    .unwrap()
                    .immutable
            );
        }
    }

    #[test]
    fn nothing_else_answers() {
        for path in [
            "",
            "app",
            "../Cargo.toml",
            "x/../../Cargo.toml",
            "x/y/app.css",
            "/app.css/",
        ] {
            assert_eq!(asset(path), None, "{path}");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a_with_lengths() {
        assert_eq!(hash([]), "cbf29ce484222325");
        assert_ne!(
            hash([b"ab".as_slice(), b"c"]),
            hash([b"a".as_slice(), b"bc"])
        );
    }
}
