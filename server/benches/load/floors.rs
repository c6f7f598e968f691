//! What this machine can do at most: the disk alone, and the HTTP library alone.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a floor is measured.
const WINDOW: Duration = Duration::from_secs(3);

/// Appends of `bytes`, each with `fdatasync`: how many a second.
pub(crate) fn syncs(folder: &Path, bytes: usize) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("floor"))?;
    let content = vec![7_u8; bytes];
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < WINDOW {
        file.write_all(&content)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// A file copied and synced once: megabytes a second.
pub(crate) fn copy(folder: &Path, megabytes: usize) -> anyhow::Result<f64> {
    let (from, to) = (folder.join("floor-from"), folder.join("floor-to"));
    let mut file = File::create(&from)?;
    for number in 0..megabytes {
        file.write_all(&vec![(number % 251) as u8; 1_000_000])?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let (mut source, mut target) = (File::open(&from)?, File::create(&to)?);
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        target.write_all(&chunk[..read])?;
    }
    target.sync_data()?;
    let taken = begun.elapsed().as_secs_f64();
    std::fs::remove_file(from)?;
    std::fs::remove_file(to)?;
    Ok(megabytes as f64 / taken)
}

/// Serves a handler that reads the body and answers 200, and does nothing else.
pub(crate) async fn bare_handler() -> anyhow::Result<(String, actix_web::dev::ServerHandle)> {
    use actix_web::{App, HttpResponse, HttpServer, web};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = format!("http://{}", listener.local_addr()?);
    let server = HttpServer::new(|| {
        let read = web::post()
            .to(|body: web::Bytes| async move { HttpResponse::Ok().body(body.len().to_string()) });
        App::new()
            .app_data(web::PayloadConfig::new(5 << 20))
            .default_service(read)
    })
    .workers(2)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok((address, handle))
}
