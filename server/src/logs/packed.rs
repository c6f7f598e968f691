//! Sealed logs, compressed: the seekable format of Zstandard, in frames of their own, so that any `zstd -d`
//! reads all of it, and a part costs few of them.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use zeekstd::{DecodeOptions, Decoder, EncodeOptions, FrameSizePolicy, SeekTable};

/// Raw bytes of one frame: what a page that shows some lines has to decompress.
const FRAME_BYTES: u32 = 256 << 10;
/// Zstandard's own default: on logs about five to one, at more than 200 MB/s.
const LEVEL: i32 = 3;

/// Compresses all of `from`.
pub(super) fn pack(mut from: impl Read, to: impl Write) -> io::Result<()> {
    let options = EncodeOptions::new()
        .compression_level(LEVEL)
        .checksum_flag(true)
        .frame_size_policy(FrameSizePolicy::Uncompressed(FRAME_BYTES));
    let mut encoder = options.into_encoder(to).map_err(|error| zstd(&error))?;
    io::copy(&mut from, &mut encoder)?;
    encoder.finish().map(drop).map_err(|error| zstd(&error))
}

/// Reads what [`pack`] made.
pub(super) fn unpack(from: File) -> io::Result<Decoder<'static, File>> {
    Decoder::new(from).map_err(|error| zstd(&error))
}

pub(super) fn zstd(error: &zeekstd::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// One frame, by where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// In the log.
    pub(super) raw: u64,
    /// In the compressed form.
    pub(super) packed: u64,
}

/// Where a compressed log's frames end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frames(pub(super) Vec<Frame>);

/// Some consecutive frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Where they are in the compressed form.
    pub(super) packed: Range<u64>,
    /// Where they are in the log.
    pub(super) raw: Range<u64>,
    table: Vec<(u64, u64)>,
}

impl Frames {
    /// Of a compressed log.
    pub(super) fn of(table: &SeekTable) -> io::Result<Self> {
        let frames = (0..table.num_frames()).map(|frame| {
            let raw = table.frame_end_decomp(frame);
            let packed = table.frame_end_comp(frame);
            Ok(Frame {
                raw: raw.map_err(|error| zstd(&error))?,
                packed: packed.map_err(|error| zstd(&error))?,
            })
        });
        frames.collect::<io::Result<_>>().map(Self)
    }

    /// The frames that hold these bytes of the log; `None` when it has none of them.
    pub(super) fn part(&self, raw: Range<u64>) -> Option<Part> {
        let first = self.0.partition_point(|frame| frame.raw <= raw.start);
        let last = self.0.partition_point(|frame| frame.raw < raw.end);
        let frames = self.0.get(first..(last + 1).min(self.0.len()))?;
        let mut before = match first.checked_sub(1) {
            Some(before) => self.0.get(before).copied()?,
            None => Frame { raw: 0, packed: 0 },
        };
        let (begin, end) = (before, frames.last().copied()?);
        let mut table = vec![];
        for frame in frames {
            table.push((frame.packed - before.packed, frame.raw - before.raw));
            before = *frame;
        }
        Some(Part {
            packed: begin.packed..end.packed,
            raw: begin.raw..end.raw,
            table,
        })
    }
}

impl Part {
    /// The log's bytes of these frames.
    pub(super) fn unpack(&self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidData, "no frame is so large");
        let mut table = SeekTable::new();
        for (packed, raw) in &self.table {
            let packed = u32::try_from(*packed).map_err(too_large)?;
            let raw = u32::try_from(*raw).map_err(too_large)?;
            table.log_frame(packed, raw).map_err(|error| zstd(&error))?;
        }
        let mut decoder = DecodeOptions::new(NoMore(Cursor::new(packed)))
            .seek_table(table)
            .into_decoder()
            .map_err(|error| zstd(&error))?;
        let mut raw = vec![];
        decoder.read_to_end(&mut raw)?;
        if raw.len() as u64 != self.raw.end - self.raw.start {
            let message = "a compressed log is not as long as it was";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(raw)
    }
}

/// Bytes whose end is an error: the decoder would ask for more of them for ever.
struct NoMore<R>(R);

impl<R: Read> Read for NoMore<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.0.read(to)? {
            0 if !to.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

impl<R: Seek> Seek for NoMore<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_from_the_frames_that_hold_them() {
        let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
        let text = text.as_bytes();
        let mut file = tempfile::tempfile().unwrap();
        pack(text, &mut file).unwrap();
        file.rewind().unwrap();
        let decoder = unpack(file.try_clone().unwrap()).unwrap();
        let frames = Frames::of(decoder.seek_table()).unwrap();
        let mut packed = vec![];
        file.rewind().unwrap();
        file.read_to_end(&mut packed).unwrap();
        let (frame, all) = (u64::from(FRAME_BYTES), text.len() as u64);
        assert!(frames.0.len() > 5, "{frames:?}");
        for raw in [
            0..1,
            0..all,
            frame - 1..frame + 1,
            frame..frame + 1,
            frame..2 * frame,
            all - 1..all,
            3 * frame + 7..5 * frame,
        ] {
            let part = frames.part(raw.clone()).unwrap();
            assert!(
                part.raw.start <= raw.start && part.raw.end >= raw.end,
                "{raw:?}: {part:?}"
            );
            assert!(part.raw.start + frame > raw.start && part.raw.end < raw.end + frame);
            let sent = &packed[part.packed.start as usize..part.packed.end as usize];
            let found = part.unpack(sent).unwrap();
            let expected = &text[part.raw.start as usize..part.raw.end as usize];
            assert!(found == expected, "{raw:?}");
            if sent.len() > 100 {
                let mut broken = sent.to_vec();
                broken[90] ^= 1;
                assert!(part.unpack(&broken).is_err());
                part.unpack(&sent[..sent.len() - 9]).unwrap_err();
            }
        }
        assert_eq!(frames.part(all..all + 1), None);
    }
}
