//! Readers of files, whole and wrong.

use ophidian_core::rng;
use ophidian_points::{
    cloud::{Cloud, Mesh},
    formats::{Shape, parse, read},
};

use crate::common::{TETRAHEDRON, error, gz, put, recording, says};

fn mesh(name: &str, bytes: &[u8]) -> Mesh {
    match parse(name, bytes).unwrap() {
        Shape::Mesh(mesh) => mesh,
        other => panic!("{other:?}"),
    }
}

fn cloud(name: &str, bytes: &[u8]) -> Cloud {
    match parse(name, bytes).unwrap() {
        Shape::Cloud(cloud) => cloud,
        other => panic!("{other:?}"),
    }
}

fn fails(name: &str, text: impl AsRef<[u8]>, parts: &[&str]) {
    says(&error(parse(name, text.as_ref())), parts);
}

#[test]
fn off_in_every_way_it_is_written() {
    let plain = mesh("a.off", TETRAHEDRON.as_bytes());
    assert_eq!(plain.size(), (4, 4));
    // Glued to the word (ModelNet), comments, blank lines, DOS line ends, colours, a suffix of another case.
    for text in [
        TETRAHEDRON.replace("OFF\n", "OFF"),
        TETRAHEDRON.replace("OFF\n", "OFF # a mesh\n\n# counts\n"),
        TETRAHEDRON.replace('\n', "\r\n"),
        TETRAHEDRON.replace("3 1 2 3", "3 1 2 3 255 0 0"),
        TETRAHEDRON.replace("0 0 0\n1", "0 0 0 1 1 1\n1").replace("OFF", "COFF"),
    ] {
        assert_eq!(mesh("A.OFF", text.as_bytes()), plain, "{text}");
    }
    assert_eq!(mesh("a.off.gz", &gz(TETRAHEDRON.as_bytes())), plain);
    // A square is two triangles.
    assert_eq!(mesh("a.off", b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n").size(), (4, 2));
}

#[test]
fn off_that_is_wrong_says_where() {
    let vertices = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n";
    fails("a.off", "", &["is empty"]);
    fails("a.off", "\n\n", &["nothing but comments"]);
    fails("a.off", "PLY\n", &["line 1", "`PLY`", "`OFF`"]);
    fails("a.off", "OFF\n", &["ends behind `OFF`"]);
    fails("a.off", "OFF\nx 1 0\n", &["line 2", "vertices is `x`"]);
    fails(
        "a.off",
        "OFF\n1000000000000 1 0\n0 0 0\n",
        &["line 2 promises 1000000000000 vertices", "28 bytes"],
    );
    fails("a.off", "OFF\n3 99999999999999999999 0\n", &["faces", "whole number"]);
    fails("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", &["has no faces"]);
    fails("a.off", &vertices[..22], &["ends behind 2 of 3 vertices"]);
    fails("a.off", vertices, &["ends behind 0 of 1 faces"]);
    fails("a.off", format!("{vertices}3 0 1 3\n"), &["line 6, face 0", "vertex 3, expected 0 to 2"]);
    fails("a.off", format!("{vertices}3 0 1\n"), &["line 6, face 0", "a corner is ``"]);
    fails("a.off", format!("{vertices}3 0 1 -2\n"), &["line 6", "`-2`"]);
    fails("a.off", format!("{vertices}2 0 1\n"), &["has no faces"]);
    fails("a.off", format!("{vertices}3 0 1 1\n"), &["have an area of 0"]);
    for bad in ["nan", "inf", "1e39", "x"] {
        let text = format!("{}3 0 1 2\n", vertices.replace("1 0 0", &format!("1 {bad} 0")));
        fails("a.off", text, &["line 4, vertex 1", &format!("y is `{bad}`")]);
    }
    fails("a.off", b"OFF\n3 1 0\n\xff\n", &["line 3 is no text"]);
}

const HEADER: &str = "ply\nformat FORMAT 1.0\ncomment made up\nobj_info none\nelement vertex 4\nproperty float x\n\
                      property double y\nproperty float z\nproperty uchar red\nelement face 2\n\
                      property list uchar int vertex_indices\nelement edge 1\nproperty short a\nend_header\n";

/// The same mesh in both byte orders.
fn binary(big: bool) -> Vec<u8> {
    let name = if big { "binary_big_endian" } else { "binary_little_endian" };
    let mut bytes = HEADER.replace("FORMAT", name).into_bytes();
    let put = |bytes: &mut Vec<u8>, le: &[u8]| {
        let mut value = le.to_vec();
        if big {
            value.reverse();
        }
        bytes.extend(value);
    };
    for (i, [x, y, z]) in
        [[0.0f32, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.5, 0.0], [0.0, 1.5, 0.0]].iter().enumerate()
    {
        put(&mut bytes, &x.to_le_bytes());
        put(&mut bytes, &f64::from(*y).to_le_bytes());
        put(&mut bytes, &z.to_le_bytes());
        bytes.push(10 * i as u8);
    }
    for face in [[0i32, 1, 2], [0, 2, 3]] {
        bytes.push(3);
        face.iter().for_each(|corner| put(&mut bytes, &corner.to_le_bytes()));
    }
    put(&mut bytes, &7i16.to_le_bytes());
    bytes
}

fn ascii() -> String {
    HEADER.replace("FORMAT", "ascii") + "0 0 0 0\n1 0 0 10\n1 1.5 0 20\n0 1.5 0 30\n3 0 1 2\n3 0 2 3\n7\n"
}

#[test]
fn ply_as_text_and_in_both_byte_orders_is_the_same() {
    let text = mesh("a.ply", ascii().as_bytes());
    assert_eq!(text.size(), (4, 2));
    assert_eq!(mesh("a.ply", &binary(false)), text);
    assert_eq!(mesh("a.ply", &binary(true)), text);
    assert_eq!(mesh("a.ply", ascii().replace('\n', "\r\n").as_bytes()), text);
}

#[test]
fn ply_without_faces_is_a_cloud_with_columns() {
    let text = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float nx\nproperty float x\nproperty float y\n\
                property float z\nproperty int label\nelement face 0\nproperty list uchar int vertex_index\nend_header\n\
                9 1 2 3 -4\n8 4 5 6 16777217\n";
    let cloud = cloud("a.ply", text.as_bytes());
    assert_eq!(cloud.xyz, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    assert_eq!(cloud.columns, ["nx", "label"]);
    assert_eq!(cloud.values, [9.0, -4.0, 8.0, 16777216.0]);
    let picked = cloud.clone().with_columns(&["label".into()]).unwrap();
    assert_eq!(picked.values, [-4.0, 16777216.0]);
    says(&error(cloud.with_columns(&["red".into()])), &["no column `red`", "nx, label"]);
}

#[test]
fn ply_that_is_wrong_says_where() {
    let text = ascii();
    fails("a.ply", "", &["is empty"]);
    fails("a.ply", "OFF\n", &["line 1 is `OFF`"]);
    fails("a.ply", &text[..60], &["ends within its header"]);
    fails("a.ply", text.replace("ascii", "morse"), &["line 2", "no format `morse`"]);
    fails("a.ply", text.replace("format ascii 1.0\n", ""), &["names no `format`"]);
    fails("a.ply", text.replace("float x", "real x"), &["line 6", "expected a property"]);
    fails("a.ply", text.replace("list uchar", "list text"), &["line 11", "no type `text`"]);
    fails("a.ply", text.replace("vertex 4", "vertex -4"), &["line 5", "whole number"]);
    fails(
        "a.ply",
        text.replace("vertex 4", "vertex 1000000000000"),
        &["promises 1000000000000 of element `vertex`"],
    );
    fails(
        "a.ply",
        text.replace("face 2", "face 1000000000000"),
        &["promises 1000000000000 of element `face`"],
    );
    fails("a.ply", text.replace("float x", "float u"), &["no number `x`"]);
    fails("a.ply", text.replace("vertex_indices", "corners"), &["no list `vertex_indices`"]);
    fails("a.ply", text.replace("3 0 2 3", "3 0 2 4"), &["line 20, face 1", "vertex 4, expected 0 to 3"]);
    fails("a.ply", text.replace("3 0 2 3", "200 0 2 3"), &["promises 200 entries, but 3 can follow"]);
    fails("a.ply", text.replace("1 1.5 0 20", "1 nan 0 20"), &["line 17, vertex 2", "`nan`"]);
    fails("a.ply", text.replace("1 1.5 0 20", "1 1.5"), &["line 17, vertex 2", "`z` is missing"]);
    fails("a.ply", text.replace("3 0 1 2\n3 0 2 3\n7\n", ""), &["promises 2 of element `face`"]);
    for big in [false, true] {
        let whole = binary(big);
        for cut in [1, 3, 10, 40, 70] {
            let message = error(parse("a.ply", &whole[..whole.len() - cut]));
            assert!(message.contains("promises") || message.contains("ends here"), "{message}");
        }
        let body = whole.len() - 2 * 13 - 2 - 4 * 17;
        let mut nan = whole.clone();
        nan[body..body + 4].fill(0xff);
        fails("a.ply", nan, &["vertex 0 of 4", "`x` is NaN"]);
        let mut corner = whole.clone();
        let at = body + 4 * 17 + 1;
        corner[at..at + 4].copy_from_slice(&[9, 0, 0, 0]);
        assert!(error(parse("a.ply", &corner)).contains("expected 0 to 3"));
    }
}

#[test]
fn text_of_points_parted_by_anything() {
    for text in
        ["1 2 3\n4 5 6\n", "2\n1,2,3\n4,5,6", "x;y;z\n1; 2; 3\n\n# end\n4;5;6\n", "1\t2\t3\r\n4\t5\t6\r\n"]
    {
        assert_eq!(cloud("a.xyz", text.as_bytes()).xyz, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "{text}");
    }
    let more = cloud("a.txt", b"1 2 3 0.5 7\n4 5 6 0.25 8\n");
    assert_eq!((more.columns, more.values), (vec!["4".into(), "5".into()], vec![0.5, 7.0, 0.25, 8.0]));
    fails("a.xyz", "\n# nothing\n", &["holds no points"]);
    fails("a.xyz", "1 2\n", &["line 1 has 2 columns"]);
    fails("a.xyz", "1 2 3\n1 2 3 4\n", &["line 2 has 4 columns, expected 3"]);
    fails("a.xyz", "1 2 3\n1 inf 3\n", &["line 2", "y is `inf`"]);
    fails("a.csv", "1,2,3,nan\n", &["line 1", "column 4 is `nan`"]);
    fails("a.stl", "solid", &["ends in no format", ".off"]);
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn npy_of_every_float() {
    let numbers = [1.0f64, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0, 8.0];
    let header = |descr: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 4), }}\n");
    for (descr, data) in [
        ("<f4", numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect::<Vec<u8>>()),
        (">f4", numbers.iter().flat_map(|x| (*x as f32).to_be_bytes()).collect()),
        ("<f8", numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        (">f8", numbers.iter().flat_map(|x| x.to_be_bytes()).collect()),
    ] {
        let found = cloud("a.npy", &npy(&header(descr), &data));
        assert_eq!(found.xyz, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "{descr}");
        assert_eq!((found.columns, found.values), (vec!["4".into()], vec![9.0, 8.0]));
    }
    let data: Vec<u8> = numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
    let header = header("<f4");
    fails("a.npy", "NUMPY", &["does not start"]);
    fails("a.npy", &npy(&header, &data)[..20], &["ends within its header"]);
    fails("a.npy", npy(&header, &data[..20]), &["promises 2 points of 4 numbers of 4 bytes, but 20 bytes"]);
    for (from, to, words) in [
        ("(2, 4)", "(1000000000000, 4)", "promises 1000000000000 points"),
        ("(2, 4)", "(0, 4)", "no points"),
        ("(2, 4)", "(4, 2)", "shape (4, 2)"),
        ("(2, 4)", "(99999999999999999999, 4)", "shape"),
        ("<f4", "<i4", "<i4"),
        ("False", "True", "column by column"),
        ("'shape'", "'size'", "no `shape`"),
    ] {
        fails("a.npy", npy(&header.replace(from, to), &data), &[words]);
    }
    let mut nan = data.clone();
    nan[16..20].fill(0xff);
    fails("a.npy", npy(&header, &nan), &["point 1", "not finite"]);
}

#[test]
fn radar_recordings_are_parted_into_frames() {
    let text = recording(3, 2);
    for bytes in [text.clone().into_bytes(), gz(text.as_bytes())] {
        let name = if bytes[0] == 0x1f { "a.txt.gz" } else { "a.txt" };
        let Shape::Frames(frames) = parse(name, &bytes).unwrap() else { panic!() };
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].xyz, [[2.0, 0.0, 0.0], [2.0, 1.0, 0.0]]);
        assert_eq!(frames[2].columns, ["range", "velocity", "doppler_bin", "bearing", "intensity"]);
        assert_eq!(frames[2].row(1), [1.5, 0.25, 8.0, -73.3, 21.0]);
    }
    // The line of dashes behind the last record may be missing, the record may not.
    let open = text.trim_end().trim_end_matches('-');
    assert!(parse("a.txt", open.as_bytes()).is_ok());
    let cut = text.rfind("intensity").unwrap();
    fails("a.txt", &text[..cut], &["starts in line 66", "no `intensity`", "cut off"]);
    fails("a.txt", text.replace("z: 0.0", "z: nan"), &["line 7", "z is `nan`"]);
    fails("a.txt", text.replace("x: 1.0", "x: "), &["line 31", "x is ``"]);
    fails("a.txt", text.replace("point_id: 1", "point_id: -1"), &["line 17", "`-1`"]);
    fails("a.txt", text.replace("y: 0.0\n", ""), &["line 1", "no `y`"]);
    fails("a.txt", format!("{text}what\n"), &["`what`", "expected `key: value`"]);
    fails("a.txt", "header:\n---\n", &["no `point_id`"]);
}

#[test]
fn packed_files_stay_within_bounds() {
    // 64 MB of zeros in 64 kB.
    let bomb = gz(&vec![b'0'; 1 << 26]);
    fails("a.txt.gz", &bomb, &["cannot be unpacked", "more than", "bytes of gzip"]);
    let whole = gz(recording(50, 5).as_bytes());
    fails("a.txt.gz", &whole[..whole.len() / 2], &["cannot be unpacked"]);
    let mut damaged = whole.clone();
    let middle = damaged.len() - 6;
    damaged[middle] ^= 0xff;
    fails("a.txt.gz", &damaged, &["cannot be unpacked"]);
    fails("a.txt.gz", "1 2 3\n", &["cannot be unpacked"]);
    fails("a.xyz.gz", gz(b""), &["is empty"]);
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(dir.path(), "chair.off", b"OFF\n1 1 0\nnan 0 0\n");
    says(&error(read(&path)), &["chair.off", "line 3", "`nan`"]);
    says(&error(read(&dir.path().join("none.off"))), &["none.off"]);
    says(&error(read(dir.path())), &["not a regular file"]);
}

#[test]
fn points_are_drawn_by_area() {
    // Two squares side by side, one of them 100 times as large, and one of no area.
    let square =
        |x: f32, side: f32| [[x, 0.0, 0.0], [x + side, 0.0, 0.0], [x + side, side, 0.0], [x, side, 0.0]];
    let vertices = [square(0.0, 1.0), square(100.0, 10.0), square(500.0, 0.0)].concat();
    let triangles = vec![[8, 9, 10], [0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [8, 10, 11]];
    let mesh = Mesh::new(vertices, triangles).unwrap();
    let count = 20_000;
    let cloud = mesh.draw(count, &mut rng::stream(&[1]));
    assert_eq!(cloud.len(), count);
    let small = cloud.xyz.iter().filter(|point| point[0] <= 1.0).count() as f64;
    // Binomial around count / 101 with a deviation of 14.
    assert!((small - count as f64 / 101.0).abs() < 70.0, "{small}");
    assert!(cloud.xyz.iter().all(|point| point[0] < 200.0));
    // Even over a square: the mean of its points is its middle.
    let large: Vec<_> = cloud.xyz.iter().filter(|point| point[0] >= 100.0).collect();
    for (axis, middle) in [(0, 105.0), (1, 5.0)] {
        let mean = large.iter().map(|point| f64::from(point[axis])).sum::<f64>() / large.len() as f64;
        assert!((mean - middle).abs() < 0.15, "{mean}");
    }
    assert_eq!(mesh.draw(9, &mut rng::stream(&[1])), mesh.draw(9, &mut rng::stream(&[1])));
}
