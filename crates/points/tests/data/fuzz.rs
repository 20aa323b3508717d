//! Arbitrary and damaged bytes: an answer or an error, and never much more memory than there are bytes.

use ophidian_points::formats::{Shape, parse};
use proptest::prelude::*;

use crate::common::{TETRAHEDRON, gz, recording};

const NAMES: [&str; 7] = ["a.off", "a.ply", "a.xyz", "a.npy", "a.txt", "a.txt.gz", "a.ply.gz"];

/// Whole files of every format.
fn whole() -> Vec<(&'static str, Vec<u8>)> {
    let header = |format: &str| {
        format!(
            "ply\nformat {format} 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n\
             element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        )
    };
    let mut binary = header("binary_little_endian").into_bytes();
    for x in [0.0f32, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0] {
        binary.extend(x.to_le_bytes());
    }
    binary.push(3);
    binary.extend([0i32, 1, 2].iter().flat_map(|corner| corner.to_le_bytes()));
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
    npy.extend((head.len() as u16).to_le_bytes());
    npy.extend(head.as_bytes());
    npy.extend([1.0f32; 6].iter().flat_map(|x| x.to_le_bytes()));
    vec![
        ("a.off", TETRAHEDRON.as_bytes().to_vec()),
        ("a.ply", (header("ascii") + "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n").into_bytes()),
        ("a.ply", binary),
        ("a.xyz", b"1 2 3 4\n5 6 7 8\n".to_vec()),
        ("a.npy", npy),
        ("a.txt", recording(2, 2).into_bytes()),
        ("a.txt.gz", gz(recording(2, 2).as_bytes())),
    ]
}

/// What a reader lets through is what the rest counts on.
fn sound(shape: &Shape, bytes: usize) {
    let clouds = match shape {
        Shape::Mesh(mesh) => {
            assert!(mesh.size().0 <= bytes && mesh.size().1 <= bytes);
            return;
        }
        Shape::Cloud(cloud) => std::slice::from_ref(cloud),
        Shape::Frames(frames) => frames,
    };
    assert!(!clouds.is_empty());
    for cloud in clouds {
        assert!(!cloud.is_empty());
        assert_eq!(cloud.values.len(), cloud.len() * cloud.columns.len());
        assert!(cloud.xyz.iter().flatten().chain(&cloud.values).all(|x| x.is_finite()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes(name in prop::sample::select(&NAMES[..]), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(shape) = parse(name, &bytes) {
            sound(&shape, 1 << 20);
        }
    }

    #[test]
    fn damaged_files(
        (name, bytes) in prop::sample::select(whole()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut bytes = bytes;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(shape) = parse(name, &bytes) {
            sound(&shape, 1 << 20);
        }
    }

    /// Numbers of a header that are swapped for others: nothing is allocated for what is not there.
    #[test]
    fn counts_that_lie(
        (name, bytes) in prop::sample::select(whole()),
        which in 0usize..12,
        count in prop::sample::select(vec!["0", "1", "4294967295", "1000000000000", "18446744073709551615", "-1"]),
    ) {
        let mut seen = 0;
        let mut out = Vec::new();
        let mut rest = &bytes[..];
        while let Some((first, more)) = rest.split_first() {
            if first.is_ascii_digit() {
                let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                out.extend(if seen == which { count.as_bytes() } else { &rest[..len] });
                seen += 1;
                rest = &rest[len..];
            } else {
                out.push(*first);
                rest = more;
            }
        }
        if let Ok(shape) = parse(name, &out) {
            sound(&shape, 1 << 20);
        }
    }
}
