//! A file to send when the user has none: content that looks random, and is the same every time.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Writes `size` bytes to `path`. Blocks.
pub(crate) fn file(path: &Path, size: u64) -> io::Result<()> {
    let mut output = BufWriter::with_capacity(256 * 1024, File::create_new(path)?);
    let mut state = 0_u64;
    let mut left = size;
    while left > 0 {
        let word = next(&mut state).to_le_bytes();
        let length = left.min(8);
        output.write_all(&word[..usize::try_from(length).expect("at most 8")])?;
        left -= length;
    }
    output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}

/// SplitMix64: incompressible, and a few instructions.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_always_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, size| {
            let path = folder.path().join(name);
            file(&path, size).unwrap();
            std::fs::read(path).unwrap()
        };
        let long = read("long", 1003);
        assert_eq!(long.len(), 1003);
        assert_eq!(long[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes(), "the reference value for seed 0");
        assert_eq!(read("short", 11), long[..11]);
        assert!(read("empty", 0).is_empty());
        assert!(file(&folder.path().join("long"), 1).is_err(), "nothing is overwritten");
    }
}
