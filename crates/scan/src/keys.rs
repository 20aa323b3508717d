//! Keys of integer cells along space-filling curves: sorting by the key walks the curve.

/// Bits per axis that a 64-bit key of `D` axes holds: 32 of two, 21 of three.
pub const fn key_bits<const D: usize>() -> u32 {
    match D {
        0 => 0,
        1 | 2 => 32,
        _ => 64 / D as u32,
    }
}

/// Place of a cell on the Hilbert curve through the cube of 2^`bits` cells a side; axis 0 is the most significant.
///
/// The curve is Skilling's ("Programming the Hilbert curve", AIP Conf. Proc. 707, 2004), the one that PointMamba, PCM
/// and Voxel Mamba use. Bits of a coordinate above the lowest `bits` are ignored, and `bits` above
/// [`key_bits`] counts as that.
pub fn hilbert_key<const D: usize>(cell: [u32; D], bits: u32) -> u64 {
    let bits = bits.min(key_bits::<D>());
    let (Some(top), true) = (bits.checked_sub(1), D > 0) else { return 0 };
    let mut x = cell;
    // Undo the excess work: from the top bit down, an axis whose bit is set inverts the lower bits of axis 0, and one
    // whose bit is not set exchanges its lower bits with those of axis 0. Without branches, which would not be
    // predictable.
    for bit in (1..=top).rev() {
        let low = (1u32 << bit) - 1;
        for axis in 0..D {
            let set = ((x[axis] >> bit) & 1).wrapping_neg();
            let exchanged = (x[0] ^ x[axis]) & low & !set;
            x[0] ^= (low & set) | exchanged;
            x[axis] ^= exchanged;
        }
    }
    // The bits of all axes, interleaved, are now a Gray code of the place.
    let mut key = morton_key(x, bits);
    for shift in [32, 16, 8, 4, 2, 1] {
        key ^= key >> shift;
    }
    key
}

/// Place of a cell in Z-order (Morton order) in the cube of 2^`bits` cells a side: the bits of all axes interleaved, axis
/// 0 the most significant of each group.
///
/// For three axes it is the key of OCNN's octrees. Bits as in [`hilbert_key`].
pub fn morton_key<const D: usize>(cell: [u32; D], bits: u32) -> u64 {
    let bits = bits.min(key_bits::<D>());
    let mut key = 0;
    for bit in (0..bits).rev() {
        for axis in cell {
            key = key << 1 | u64::from(axis >> bit & 1);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::{hilbert_key, key_bits, morton_key};

    /// Skilling's `AxestoTranspose`, step by step as the paper prints it.
    fn skilling(cell: &[u32], bits: u32) -> u64 {
        let mut x = cell.to_vec();
        let n = x.len();
        if bits == 0 {
            return 0;
        }
        let m = 1u32 << (bits - 1);
        let mut q = m;
        while q > 1 {
            let p = q - 1;
            for i in 0..n {
                if x[i] & q != 0 {
                    x[0] ^= p;
                } else {
                    let t = (x[0] ^ x[i]) & p;
                    x[0] ^= t;
                    x[i] ^= t;
                }
            }
            q >>= 1;
        }
        for i in 1..n {
            x[i] ^= x[i - 1];
        }
        let mut t = 0;
        let mut q = m;
        while q > 1 {
            if x[n - 1] & q != 0 {
                t ^= q - 1;
            }
            q >>= 1;
        }
        for x in &mut x {
            *x ^= t;
        }
        // The transposed form: the highest bits of all axes, then the next ones.
        let bit = |b: u32| x.iter().map(move |x| u64::from((x >> b) & 1));
        (0..bits).rev().flat_map(bit).fold(0, |key, bit| (key << 1) | bit)
    }

    fn random_cells<const D: usize>(count: usize, bits: u32) -> impl Iterator<Item = [u32; D]> {
        let mut state = 7u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32 >> (32 - bits.max(1)) & ((1u64 << bits) - 1) as u32
        };
        (0..count).map(move |_| std::array::from_fn(|_| next()))
    }

    #[test]
    fn hilbert_is_the_one_of_the_paper() {
        for bits in 0..=32 {
            for cell in random_cells::<2>(200, bits) {
                assert_eq!(hilbert_key(cell, bits), skilling(&cell, bits), "{cell:?} in {bits} bits");
            }
        }
        for bits in 0..=21 {
            for cell in random_cells::<3>(200, bits) {
                assert_eq!(hilbert_key(cell, bits), skilling(&cell, bits), "{cell:?} in {bits} bits");
            }
        }
    }

    /// Every place once, and neighbours on the curve are neighbours in space.
    #[test]
    fn hilbert_is_a_walk() {
        let mut cells: Vec<[u32; 3]> = (0..512u32).map(|i| [i / 64, i / 8 % 8, i % 8]).collect();
        cells.sort_by_key(|&cell| hilbert_key(cell, 3));
        assert!(cells.iter().enumerate().all(|(i, &cell)| hilbert_key(cell, 3) == i as u64));
        for pair in cells.windows(2) {
            let far: u32 = pair[0].iter().zip(pair[1]).map(|(a, b)| a.abs_diff(b)).sum();
            assert_eq!(far, 1, "{pair:?}");
        }
    }

    #[test]
    fn morton_interleaves() {
        assert_eq!(morton_key([0b1u32, 0, 0], 1), 0b100);
        assert_eq!(morton_key([u32::MAX; 2], 99), u64::MAX);
        assert_eq!(key_bits::<3>(), 21);
        for cell in random_cells::<3>(500, 21) {
            let mut expected = 0;
            for bit in 0..21 {
                for (axis, x) in cell.iter().enumerate() {
                    expected |= u64::from((x >> bit) & 1) << (3 * bit + 2 - axis as u32);
                }
            }
            assert_eq!(morton_key(cell, 21), expected);
        }
    }
}
