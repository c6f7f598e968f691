//! How fast a log is masked: 100 secrets in all their forms, and logs of several kinds.
//!
//! `cargo bench --package roadstead-masking`; prints a table and checks nothing.

use roadstead_masking::{Masker, Patterns};
use std::time::{Duration, Instant};

const MEBIBYTE: usize = 1 << 20;
const SECRETS: u64 = 100;
/// Bytes that are pushed at once, as a runner reads them.
const PIECE: usize = 32 << 10;
/// How long each log is masked.
const TIME: Duration = Duration::from_secs(5);

/// Numbers that look like chance and are the same each time (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        let letter = |chance: u64| char::from(alphabet[(chance % alphabet.len() as u64) as usize]);
        (0..length).map(|_| letter(self.next())).collect()
    }
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const WORDS: &str = "   Compiling serde v1.0.228\ntest logs::tests::a_log_arrives_whole ... ok\n\
     warning: unused variable: `x` --> src/main.rs:12:9\n2026-11-27T01:02:03Z INFO request done \
     status=200 path=/api/v1/projects bytes=5120 took=3.2ms\nnpm notice 1.2kB package.json\n";

fn main() {
    let mut chance = Chance(7);
    let secrets: Vec<String> = (0..SECRETS)
        .map(|number| match number % 4 {
            0 => format!("ghp_{}", chance.text(BASE64, 36)),
            1 => format!("postgres://app:{}@db/shop", chance.text(BASE64, 24)),
            2 => chance.text(b"0123456789abcdef", 64),
            _ => chance.text(BASE64, 40),
        })
        .collect();
    let begun = Instant::now();
    let patterns = Patterns::of(&secrets)
        .expect("they are not too much")
        .expect("there are secrets");
    println!(
        "{SECRETS} secrets, longest form {} bytes, made ready in {:.1} ms",
        patterns.longest(),
        begun.elapsed().as_secs_f64() * 1000.0
    );
    let logs = [
        ("a build's words", WORDS.repeat(MEBIBYTE / WORDS.len())),
        ("base64", chance.text(BASE64, MEBIBYTE)),
        ("hexadecimal", chance.text(b"0123456789abcdef", MEBIBYTE)),
        (
            "words with a secret in every line",
            secrets
                .iter()
                .cycle()
                .take(8000)
                .map(|secret| format!("the token is {secret}, and much more is said around it\n"))
                .collect(),
        ),
    ];
    println!("| log | MB/s |\n|---|---|");
    for (name, log) in &logs {
        let mut masker = Masker::default();
        masker.hide(&secrets).expect("they are not too much");
        let (mut bytes, mut shown) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            for piece in log.as_bytes().chunks(PIECE) {
                shown += std::hint::black_box(masker.push(piece)).len();
            }
            bytes += log.len();
        }
        let rate = bytes as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("| {name} | {rate:.0} |");
        assert!(shown <= bytes, "what is masked is not longer than it was");
    }
}
