//! Text that stays long when it is compressed.

/// So many signs of ASCII, of which three quarters are left when they are compressed; never the same for two seeds.
pub(crate) fn noise(seed: u64, length: usize) -> String {
    let mut number = seed + 1;
    let mut sign = || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        char::from(b' ' + (number >> 32) as u8 % 64)
    };
    (0..length).map(|_| sign()).collect()
}
