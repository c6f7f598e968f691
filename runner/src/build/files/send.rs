//! Sends the files of a folder: first what there is, and meanwhile the contents that are asked for.
//!
//! Owns the packets and the threads that read. Holds no content longer than it takes to send it. A file
//! that is not what was told of it ends the conversation: BuildKit would take it for what was told in every
//! later build.

use super::{
    Wanted,
    moment::{ContentDigest, Moments},
    walk::{self, READ_BYTES, Told},
};
use anyhow::{Context, bail};
use bollard::grpc::build::fsutil::types::{Packet, packet::PacketType};
use cap_std::fs::Dir;
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::Read,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Batches of packets between the disk and the engine.
const BATCHES_UNDER_WAY: usize = 8;
/// Files that are told of at once, and packets of contents that are sent at once.
const PACKETS_AT_ONCE: usize = 128;
const BYTES_AT_ONCE: usize = 512 << 10;

/// What is sent.
pub(crate) type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

/// What was told and may be asked for, by the number of its packet.
type Files = Arc<Mutex<HashMap<u32, File>>>;

struct File {
    path: String,
    content: ContentDigest,
}

/// Sends what is `wanted` of `folder`, and what `asked` asks for. Everything ends when either of the two
/// streams does.
pub(crate) fn send(
    folder: Dir,
    wanted: Wanted,
    moments: Moments,
    asked: Streaming<Packet>,
) -> anyhow::Result<Packets> {
    let (sender, receiver) = mpsc::channel(BATCHES_UNDER_WAY);
    let files = Files::default();
    let read_from = folder.try_clone().context("cannot open the context")?;
    let (numbers, wanted_numbers) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking({
        let (files, out) = (Arc::clone(&files), Out::new(sender.clone()));
        move || out.until_error(|out| tell(&folder, &wanted, &moments, &files, out))
    });
    tokio::task::spawn_blocking({
        let out = Out::new(sender.clone());
        move || out.until_error(|out| contents(&read_from, &files, wanted_numbers, out))
    });
    tokio::spawn(listen(asked, numbers, sender));
    let batches = stream::unfold(receiver, async |mut receiver| {
        receiver
            .recv()
            .await
            .map(|batch: Vec<Packet>| (batch, receiver))
    });
    Ok(batches
        .flat_map(|batch| stream::iter(batch.into_iter().map(Ok)))
        .boxed())
}

/// Hears what the engine wants until it has everything, or is gone.
async fn listen(
    mut asked: Streaming<Packet>,
    numbers: mpsc::UnboundedSender<u32>,
    sender: mpsc::Sender<Vec<Packet>>,
) {
    while let Ok(Some(packet)) = asked.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                // The reading thread has ended when it could not go on.
                let _ = numbers.send(packet.id);
            }
            PacketType::PacketFin => {
                let _ = sender.send(vec![of_type(PacketType::PacketFin)]).await;
                return;
            }
            // Told to whoever builds by the engine, too.
            PacketType::PacketErr => return,
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
}

fn tell(
    folder: &Dir,
    wanted: &Wanted,
    moments: &Moments,
    files: &Files,
    out: &mut Out,
) -> anyhow::Result<()> {
    let mut number = 0;
    walk::walk(folder, wanted, moments, |Told { stat, content }| {
        if let Some(content) = content {
            let path = stat.path.clone();
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            files.insert(number, File { path, content });
        }
        number += 1;
        out.send(Packet {
            stat: Some(stat),
            ..of_type(PacketType::PacketStat)
        })
    })?;
    out.send(of_type(PacketType::PacketStat))?;
    out.flush()
}

fn contents(
    folder: &Dir,
    files: &Files,
    mut numbers: mpsc::UnboundedReceiver<u32>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let number = match numbers.try_recv() {
            Ok(number) => number,
            Err(_) => {
                out.flush()?;
                match numbers.blocking_recv() {
                    Some(number) => number,
                    None => return Ok(()),
                }
            }
        };
        let file = {
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            files.remove(&number)
        };
        let Some(File { path, content }) = file else {
            bail!("BuildKit asks for file {number}, which it was not told of");
        };
        send_content(folder, number, &path, &content, &mut buffer, out)
            .with_context(|| format!("`{path}`"))?;
    }
}

fn send_content(
    folder: &Dir,
    id: u32,
    path: &str,
    content: &ContentDigest,
    buffer: &mut [u8],
    out: &mut Out,
) -> anyhow::Result<()> {
    let mut file = walk::open(folder, path).context("it vanished while it was read")?;
    let mut digest = Sha256::new();
    loop {
        let read = file.read(buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        out.send(Packet {
            id,
            data: buffer[..read].to_vec(),
            ..of_type(PacketType::PacketData)
        })?;
    }
    // Before the end is sent: a file without an end is not kept.
    if digest.finalize()[..] != content[..] {
        bail!("it was written to while it was read");
    }
    out.send(Packet {
        id,
        ..of_type(PacketType::PacketData)
    })
}

fn of_type(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Default::default()
    }
}

/// Gathers packets, so that a thread is not woken for each.
struct Out {
    sender: mpsc::Sender<Vec<Packet>>,
    batch: Vec<Packet>,
    bytes: usize,
}

impl Out {
    fn new(sender: mpsc::Sender<Vec<Packet>>) -> Self {
        Self {
            sender,
            batch: Vec::new(),
            bytes: 0,
        }
    }

    fn send(&mut self, packet: Packet) -> anyhow::Result<()> {
        self.bytes += packet.data.len();
        self.batch.push(packet);
        if self.batch.len() >= PACKETS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(batch)
            .context("the build has ended")
    }

    /// Does `work`; when it fails, the engine hears why and the build fails by it.
    fn until_error(mut self, work: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        if let Err(error) = work(&mut self) {
            let data = format!("{error:#}").into_bytes();
            self.batch.push(Packet {
                data,
                ..of_type(PacketType::PacketErr)
            });
            // Nobody listens any more when the build was stopped.
            let _ = self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;
    use std::fs;

    /// What is sent when `asked` is asked for, after `meanwhile` was done to the folder.
    fn sent(asked: &[u32], meanwhile: impl FnOnce(&std::path::Path)) -> Vec<Packet> {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("a"), "first").unwrap();
        fs::write(place.path().join("b"), "x".repeat(300_000)).unwrap();
        let folder = Dir::open_ambient_dir(place.path(), ambient_authority()).unwrap();
        let (files, moments) = (Files::default(), Moments::new("test"));
        let (sender, mut receiver) = mpsc::channel(1000);
        Out::new(sender.clone())
            .until_error(|out| tell(&folder, &Wanted::default(), &moments, &files, out));
        meanwhile(place.path());
        let (numbers, wanted_numbers) = mpsc::unbounded_channel();
        for number in asked {
            numbers.send(*number).unwrap();
        }
        drop(numbers);
        Out::new(sender).until_error(|out| contents(&folder, &files, wanted_numbers, out));
        let mut all = Vec::new();
        while let Ok(batch) = receiver.try_recv() {
            all.extend(batch);
        }
        all
    }

    fn kinds(packets: &[Packet]) -> Vec<PacketType> {
        packets.iter().map(Packet::r#type).collect()
    }

    #[test]
    fn what_is_asked_for_follows_what_was_told() {
        use PacketType::{PacketData, PacketStat};
        let packets = sent(&[1, 0], |_| {});
        let expected = [[PacketStat; 3].as_slice(), &[PacketData; 6]].concat();
        assert_eq!(kinds(&packets), expected);
        assert_eq!(packets[2].stat, None, "tells the end");
        let of = |id: u32| {
            let data = packets[3..].iter().filter(|packet| packet.id == id);
            data.map(|packet| packet.data.len()).collect::<Vec<_>>()
        };
        assert_eq!(
            (of(0), of(1)),
            (vec![5, 0], vec![131_072, 131_072, 37_856, 0])
        );
    }

    #[test]
    fn a_file_that_changes_or_vanishes_meanwhile_has_no_end() {
        type Change = fn(&std::path::Path);
        let changes: [(Change, &str); 3] = [
            (
                |place| fs::write(place.join("a"), "other").unwrap(),
                "`a`: it was written to",
            ),
            (
                |place| fs::write(place.join("a"), "firsts").unwrap(),
                "`a`: it was written to",
            ),
            (
                |place| fs::remove_file(place.join("a")).unwrap(),
                "`a`: it vanished",
            ),
        ];
        for (change, why) in changes {
            let packets = sent(&[0], change);
            let last = packets.last().unwrap();
            assert_eq!(last.r#type(), PacketType::PacketErr);
            assert!(
                String::from_utf8_lossy(&last.data).starts_with(why),
                "{last:?}"
            );
            let ends = packets[3..].iter().filter(|packet| {
                packet.r#type() == PacketType::PacketData && packet.data.is_empty()
            });
            assert_eq!(ends.count(), 0);
        }
    }

    #[test]
    fn only_what_was_told_can_be_asked_for_and_once() {
        for asked in [&[7][..], &[0, 0]] {
            let packets = sent(asked, |_| {});
            assert_eq!(packets.last().unwrap().r#type(), PacketType::PacketErr);
        }
    }
}
