//! Points and graphs from files, those of others included.

use std::path::{Path, PathBuf};

use ophidian_scan::{Error, Graph, Points};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

mod golden;

use golden::files;

/// A tensor: name, type, shape, bytes.
type Tensor = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn reals(name: &'static str, shape: &[usize], values: &[f32]) -> Tensor {
    (name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn whole(name: &'static str, shape: &[usize], values: &[i64]) -> Tensor {
    (name, Dtype::I64, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn tensors(&self, tensors: &[Tensor]) -> PathBuf {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        self.bytes("data.safetensors", &safetensors::serialize(views, None).unwrap())
    }

    fn points(&self, tensors: &[Tensor]) -> Result<Points, String> {
        said(Points::read(&self.tensors(tensors)))
    }

    fn graph(&self, tensors: &[Tensor]) -> Result<Graph, String> {
        said(Graph::read(&self.tensors(tensors)))
    }
}

/// The message without the path, which it starts with.
fn said<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| {
        assert!(matches!(error, Error::File { .. }) && !error.is_usage(), "{error:?}");
        error.to_string().split_once(": ").unwrap().1.to_string()
    })
}

#[test]
fn points_by_any_name() {
    let folder = Folder::new();
    let six = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let expected = Points::new(vec![[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]).unwrap();
    for name in ["pos", "xyz", "points", "center"] {
        assert_eq!(folder.points(&[reals(name, &[2, 3], &six)]), Ok(expected.clone()));
    }
    let doubles: Vec<u8> = six.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    assert_eq!(folder.points(&[("pos", Dtype::F64, vec![2, 3], doubles)]), Ok(expected.clone()));
    let two = Points::packed(expected.xyz().to_vec(), vec![0, 1, 2]).unwrap();
    assert_eq!(folder.points(&[reals("xyz", &[2, 1, 3], &six)]), Ok(two.clone()));
    assert_eq!(folder.points(&[reals("xyz", &[2, 3], &six), whole("batch", &[2], &[3, 7])]), Ok(two));
    // A tensor of the right name and another shape is something else, and a real one comes before a whole one.
    let other = reals("pos", &[1, 2, 3, 1], &six);
    let cells = whole("grid", &[1, 3], &[1, 1, 1]);
    assert_eq!(folder.points(&[other, reals("center", &[2, 3], &six), cells.clone()]), Ok(expected));
    assert!(folder.points(&[cells]).unwrap().are_voxels());
}

#[test]
fn voxels_by_any_name() {
    let folder = Folder::new();
    let voxels = |cells: &[[i64; 3]], starts: &[usize]| Ok(Points::voxels(cells, starts.to_vec()).unwrap());
    let six = [0, 1, 2, 3, 4, 5];
    for name in ["grid", "coords"] {
        assert_eq!(folder.points(&[whole(name, &[2, 3], &six)]), voxels(&[[0, 1, 2], [3, 4, 5]], &[0, 2]));
        let batched = whole(name, &[2, 4], &[0, 1, 2, 3, 1, 4, 5, 6]);
        assert_eq!(folder.points(&[batched]), voxels(&[[1, 2, 3], [4, 5, 6]], &[0, 1, 2]));
    }
    assert_eq!(folder.points(&[whole("coors", &[2, 3], &six)]), voxels(&[[2, 1, 0], [5, 4, 3]], &[0, 2]));
    let batched = whole("coors", &[2, 4], &[0, 1, 2, 3, 0, 4, 5, 6]);
    assert_eq!(folder.points(&[batched]), voxels(&[[3, 2, 1], [6, 5, 4]], &[0, 2]));
    let small: Vec<u8> = [7i32, 8, 9].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(folder.points(&[("coords", Dtype::I32, vec![1, 3], small)]), voxels(&[[7, 8, 9]], &[0, 1]));
}

#[test]
fn bad_points_are_told() {
    let folder = Folder::new();
    let error = |tensors: &[Tensor]| folder.points(tensors).unwrap_err();
    let message = error(&[reals("features", &[1, 2], &[0.0; 2])]);
    assert!(message.starts_with("holds no points: it has features; expected pos, xyz"), "{message}");
    let message = error(&[reals("pos", &[2, 2], &[0.0; 4]), whole("grid", &[2], &[1, 2])]);
    assert!(message.contains("pos is F32 of shape [2, 2]; grid is I64 of shape [2]; expected"), "{message}");
    assert_eq!(error(&[reals("pos", &[0, 3], &[])]), "there is no point");
    assert_eq!(error(&[reals("pos", &[1 << 40, 0, 3], &[])]), "there is no point");
    let message = error(&[reals("pos", &[2, 3], &[0.0, 0.0, 0.0, 1.0, f32::INFINITY, 0.0])]);
    assert_eq!(message, "point 1 is [1.0, inf, 0.0], expected finite coordinates");
    let four = reals("pos", &[4, 3], &[0.0; 12]);
    let message = error(&[four.clone(), whole("batch", &[3], &[0, 0, 1])]);
    assert_eq!(message, "tensor batch is I64 of shape [3], expected int64 or int32 (4)");
    let message = error(&[four, whole("batch", &[4], &[0, 1, 0, 1])]);
    assert!(message.starts_with("point 2 belongs to sample 0, but the one before to sample 1"), "{message}");
    let message = error(&[whole("coors", &[1, 4], &[0, 1, 2, -3])]);
    assert!(message.starts_with("tensor coors: voxel 0 is at x -3, y 2, z 1"), "{message}");
    let cut = std::fs::read(folder.tensors(&[reals("pos", &[1, 3], &[0.0; 3])])).unwrap();
    let message = said(Points::read(&folder.bytes("cut.safetensors", &cut[..cut.len() - 1]))).unwrap_err();
    assert!(message.starts_with("is not a whole safetensors file"), "{message}");
    assert!(matches!(Points::read(Path::new("points.ply")), Err(Error::Format { .. })));
    assert!(matches!(Points::read(Path::new("no such file.npy")), Err(Error::Io { .. })));
}

fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

#[test]
fn points_of_npy() {
    let folder = Folder::new();
    let read = |bytes: &[u8]| said(Points::read(&folder.bytes("points.npy", bytes)));
    let data: Vec<u8> = (0..6).flat_map(|x| (x as f32).to_le_bytes()).collect();
    let expected = vec![[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]];
    assert_eq!(read(&npy("<f4", "False", "(2, 3)", &data)), Ok(Points::new(expected.clone()).unwrap()));
    let two = Points::packed(expected, vec![0, 1, 2]).unwrap();
    assert_eq!(read(&npy("<f4", "False", "(2, 1, 3)", &data)), Ok(two));
    for (descr, order, shape, culprit) in [
        ("<f4", "True", "(2, 3)", "in Fortran order"),
        ("<i8", "False", "(2, 3)", "holds `<i8` of shape [2, 3]"),
        ("<f4", "False", "(3, 2)", "expected float32 (`<f4`) or float64 (`<f8`) of shape (N, 3)"),
        ("<f8", "False", "(2, 3)", "does not fit its 24 bytes"),
        ("<f4", "False", "(99999999999999999999, 3)", "its shape is (99999999999999999999, 3)"),
        ("<f4", "False", "(9999999999999999, 9999999999, 3)", "does not fit"),
        ("<f4", "False", "(9999999999999999, 0, 3)", "does not fit"),
    ] {
        let message = read(&npy(descr, order, shape, &data)).unwrap_err();
        assert!(message.contains(culprit), "{message}");
    }
    assert_eq!(read(&npy("<f4", "False", "(9999999999999999, 0, 3)", &[])).unwrap_err(), "there is no point");
    assert_eq!(read(b"\x93NUMPY").unwrap_err(), "is not a npy file, or ends within its header");
}

#[test]
fn graphs_from_files() {
    let folder = Folder::new();
    let edges = || whole("edge_index", &[2, 3], &[0, 1, 3, 1, 0, 2]);
    let expected = |nodes: usize| Ok(Graph::new(nodes, vec![[0, 1], [1, 0], [3, 2]]).unwrap());
    assert_eq!(folder.graph(&[edges()]), expected(4));
    assert_eq!(folder.graph(&[edges(), whole("num_nodes", &[], &[6])]), expected(6));
    assert_eq!(folder.graph(&[edges(), whole("num_nodes", &[1], &[6])]), expected(6));
    assert_eq!(folder.graph(&[edges(), reals("x", &[5, 2], &[0.0; 10])]), expected(5));
    let two = Graph::packed(vec![[0, 1], [1, 0], [3, 2]], vec![0, 2, 5]).unwrap();
    let batch = || whole("batch", &[5], &[0, 0, 1, 1, 1]);
    assert_eq!(folder.graph(&[edges(), batch(), reals("x", &[5, 2], &[0.0; 10])]), Ok(two));
    let none = whole("edge_index", &[2, 0], &[]);
    assert_eq!(
        folder.graph(&[none.clone(), whole("num_nodes", &[], &[2])]),
        Ok(Graph::new(2, vec![]).unwrap())
    );

    let error = |tensors: &[Tensor]| folder.graph(tensors).unwrap_err();
    assert_eq!(error(&[none]), "the graph has no node");
    assert!(error(&[batch()]).starts_with("holds no tensor edge_index"));
    let message = error(&[whole("edge_index", &[3, 2], &[0; 6])]);
    assert_eq!(message, "tensor edge_index is I64 of shape [3, 2], expected int64 or int32 (2, E)");
    let message = error(&[reals("edge_index", &[2, 1], &[0.0; 2])]);
    assert!(message.contains("edge_index is F32"), "{message}");
    let message = error(&[edges(), batch(), whole("num_nodes", &[], &[6])]);
    assert_eq!(message, "batch says that there are 5 nodes, num_nodes says 6");
    let message = error(&[edges(), whole("num_nodes", &[], &[3])]);
    assert_eq!(message, "edge 2 is [3, 2], but 3 nodes are numbered 0 to 2");
    assert_eq!(error(&[edges(), whole("num_nodes", &[], &[-3])]), "num_nodes is -3, expected at least 1");
    assert!(error(&[edges(), whole("num_nodes", &[], &[i64::MAX])]).contains("too large"));
    let message = error(&[whole("edge_index", &[2, 1], &[0, -1])]);
    assert!(message.starts_with("edge_index names node -1 in edge 0"), "{message}");
    assert!(error(&[whole("edge_index", &[2, 1], &[0, i64::MAX])]).contains("edge 0"));
    let message = error(&[edges(), whole("batch", &[4], &[0, 0, 0, 1])]);
    assert_eq!(message, "edge 2 is [3, 2], from one graph to another");
    assert!(error(&[edges(), whole("batch", &[4], &[1, 0, 0, 0])]).starts_with("node 1 belongs to sample 0"));
    assert!(matches!(Graph::read(Path::new("graph.npy")), Err(Error::Format { .. })));
}

/// The authors' files are input as they are.
#[test]
fn goldens_are_input() {
    for path in
        files("pointmamba_serialize").into_iter().chain(files("pcm_")).chain(files("voxelmamba_hilbert3d"))
    {
        assert!(Points::read(&path).is_ok(), "{}", path.display());
    }
    for path in files("graphmamba_") {
        assert!(Graph::read(&path).is_ok(), "{}", path.display());
    }
}

proptest! {
    /// A file whose end is missing is refused, and one with a wrong byte is read or refused.
    #[test]
    fn damaged_files_are_refused(
        at in 0..400usize, byte in any::<u8>(), cut in prop::option::of(0..300usize),
    ) {
        let folder = Folder::new();
        let tensors = [
            reals("pos", &[4, 3], &[0.5; 12]),
            whole("edge_index", &[2, 3], &[0, 1, 3, 1, 0, 2]),
            whole("batch", &[4], &[0, 0, 1, 1]),
        ];
        let files = [
            ("damaged.safetensors", std::fs::read(folder.tensors(&tensors)).unwrap()),
            ("damaged.npy", npy("<f4", "False", "(4, 3)", &[0; 48])),
        ];
        for (name, mut bytes) in files {
            let read = |bytes: &[u8]| {
                let path = folder.bytes(name, bytes);
                (Points::read(&path).is_ok(), Graph::read(&path).is_ok())
            };
            prop_assert_eq!(read(&bytes), (true, name.ends_with(".safetensors")));
            if let Some(cut) = cut {
                bytes.truncate(cut.min(bytes.len() - 1));
                prop_assert_eq!(read(&bytes), (false, false), "{}: {} bytes are left", name, bytes.len());
            }
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            read(&bytes);
        }
    }
}
