//! Writes every sample page to a directory, with the assets beside them, to be looked at in a
//! browser: `cargo run -p roadstead-web --example gallery -- DIRECTORY`.

#[path = "../tests/samples/mod.rs"]
mod samples;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use roadstead_web::assets;

fn main() -> Result<(), Box<dyn Error>> {
    let directory: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("usage: gallery DIRECTORY")?
        .into();
    fs::create_dir_all(directory.join("assets"))?;
    for name in assets::names() {
        let asset = assets::asset(&name).ok_or("a listed asset is missing")?;
        fs::write(directory.join("assets").join(&name), &asset.bytes)?;
    }
    for (name, html) in samples::pages() {
        // Pages name assets from the server's root; here they lie beside the page.
        let mut page = html;
        for asset in assets::names() {
            page = page.replace(&assets::url(&asset), &format!("assets/{asset}"));
        }
        fs::write(directory.join(format!("{name}.html")), page)?;
    }
    Ok(())
}
