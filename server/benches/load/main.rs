//! What one server takes: webhooks that are acknowledged only once they are on the disk, and the logs
//! of many steps at once; each beside the floor of this machine, measured in the same run.
//!
//! Every part starts a server of its own in a process of its own, on a new database in a folder that
//! goes with it, and talks to it over TCP. Load comes from this process, on the same processors, so
//! that the figures are those of a server and its callers together.
//!
//! `cargo bench --package roadstead-server --bench load -- [webhooks] [logs] [--seconds N] [--rate N]`

mod child;
mod floors;
mod logs;
mod webhooks;

use std::time::Duration;

/// What is measured, and how long.
struct Arguments {
    webhooks: bool,
    logs: bool,
    seconds: u64,
    rate: u64,
}

impl Arguments {
    fn parse(given: &[String]) -> anyhow::Result<Self> {
        let mut arguments = Self {
            webhooks: false,
            logs: false,
            seconds: 60,
            rate: 5_000,
        };
        let mut given = given.iter().map(String::as_str);
        while let Some(word) = given.next() {
            let mut number = || -> anyhow::Result<u64> {
                let text = given.next().unwrap_or_default();
                text.parse()
                    .map_err(|_| anyhow::anyhow!("{word} takes a number, not `{text}`"))
            };
            match word {
                "webhooks" => arguments.webhooks = true,
                "logs" => arguments.logs = true,
                "--seconds" => arguments.seconds = number()?,
                "--rate" => arguments.rate = number()?,
                // cargo's own.
                "--bench" => {}
                other => {
                    anyhow::bail!("`{other}` is none of webhooks, logs, --seconds N, --rate N")
                }
            }
        }
        if !arguments.webhooks && !arguments.logs {
            (arguments.webhooks, arguments.logs) = (true, true);
        }
        Ok(arguments)
    }
}

fn main() -> anyhow::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let [word, folder] = &given[..]
        && word == child::SERVE
    {
        return runtime.block_on(child::be_the_server(folder.as_ref()));
    }
    let arguments = Arguments::parse(&given)?;
    if arguments.webhooks {
        let length = Duration::from_secs(arguments.seconds);
        runtime.block_on(webhooks::measure(arguments.rate, length))?;
    }
    if arguments.logs {
        runtime.block_on(logs::measure())?;
    }
    Ok(())
}
