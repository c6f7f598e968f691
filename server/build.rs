//! The migrations are embedded: changing one has to compile the server again.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
