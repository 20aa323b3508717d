//! `ophidian scan`, as a user runs it.

mod features;
mod roundtrip;
mod timing;

use std::path::Path;
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn scan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).arg("scan").args(arguments).output().unwrap()
}

/// What a run that must succeed says.
fn said(arguments: &[&str]) -> String {
    let output = scan(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a run that must end with `code` complains of.
fn complaint(code: i32, arguments: &[&str]) -> String {
    let output = scan(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty());
    errors
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn list_names_every_pattern() {
    let list = said(&["list"]);
    for name in [
        "row",
        "column",
        "serpentine",
        "random(seed=0)",
        "file(path, strict=true)",
        "bidirectional",
        "cross",
        "reverse",
        "transpose",
        "window(height, width=height, reset=false, frames=1)",
        "atrous(step, ",
        "shift(down, right=down, frames=0)",
        "direction(k)",
        "class_token(at)",
        "blanks(kind)",
    ] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} is not in\n{list}");
    }
    let cross = list.lines().find(|line| line.starts_with("cross ")).unwrap();
    assert!(
        cross.contains("set") && cross.contains("grid") && cross.contains("4x") && cross.contains("VMamba")
    );
}

#[test]
fn what_is_drawn_for_every_sample_is_shown_with_seed_0() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(&folder, "p.json");
    for command in [
        vec!["show", "random(seed=sample)", "--shape", "2x3"],
        vec!["stats", "random(seed = sample)", "--shape", "2x3"],
        vec!["export", "random(seed=sample)", "--shape", "2x3", "--output", &output],
    ] {
        let run = scan(&command);
        let errors = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(0), "{errors}");
        assert!(errors.contains("anew for every sample; this is the draw with seed 0"), "{errors}");
        let mut plain = command.clone();
        plain[1] = "random(seed=0)";
        assert_eq!(run.stdout, scan(&plain).stdout);
    }
}

#[test]
fn numbered_names_are_spelled_out() {
    let list = said(&["list", "localmamba"]);
    assert!(list.contains("localmamba/w2, w7 …") && list.contains("localmamba/w2_flip, w7_flip …"), "{list}");
    assert!(list.contains("localmamba/windowN") && list.contains("row | window(N)"), "{list}");
    for list in [list, said(&["list", "localmamba", "--json"])] {
        assert!(!list.contains('#'), "{list}");
    }
    let error = complaint(2, &["show", "localmamba/wx", "--shape", "4x4"]);
    assert!(error.contains("did you mean `localmamba/w2`?") && !error.contains('#'), "{error}");
}

#[test]
fn points_and_graphs_are_summed_up_and_pipes_are_refused() {
    let folder = tempfile::Builder::new().prefix("orders").tempdir().unwrap();
    let points = path(&folder, "p.npy");
    let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    let start = [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes()].concat();
    std::fs::write(&points, [start, header.into_bytes(), vec![0; 24]].concat()).unwrap();
    let error = complaint(1, &["show", "hilbert", "--points", &points]);
    assert!(
        error.contains("p.npy: has 1 point at the place of an earlier one (the first: points 0 and 1"),
        "{error}"
    );
    assert!(error.contains("`--allow equal`"), "{error}");
    let run = scan(&["show", "hilbert", "--points", &points, "--allow", "equal,loops"]);
    let errors = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(0), "{errors}");
    assert!(errors.contains("p.npy: 2 points, 1 at the place of an earlier one"), "{errors}");
    for wrong in ["-3", "-3x4"] {
        assert!(complaint(2, &["show", "row", "--shape", wrong]).contains("expected a length such as 49"));
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", path(&folder, "z.json")).unwrap();
        let zero = path(&folder, "z.json");
        assert!(complaint(1, &["show", &zero, "--shape", "4"]).contains("z.json: is not a regular file"));
    }
    let nowhere = path(&folder, "no/x.json");
    let error = complaint(1, &["export", "row", "--shape", "4", "--output", &nowhere]);
    assert!(error.contains("there is no folder") && !error.contains(".tmp"), "{error}");
}

/// A graph of `edges` (sources, then targets), and one tensor more.
fn write_graph(path: &str, edges: &[i64], more: Option<(&str, &[i64])>) {
    let shape = [2, edges.len() / 2];
    let mut all = vec![("edge_index", Dtype::I64, &shape[..], integers(edges))];
    let length = [more.map_or(0, |(_, numbers)| numbers.len())];
    all.extend(more.map(|(name, numbers)| (name, Dtype::I64, &length[..], integers(numbers))));
    tensors(path, &all);
}

#[test]
fn odd_graphs_are_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let graph = path(&folder, "g.safetensors");
    // Node 3 has no edge, edges 2 and 3 go from a node to itself.
    write_graph(&graph, &[0, 1, 1, 2, 1, 0, 1, 2], Some(("num_nodes", &[4])));
    let export = path(&folder, "o.json");
    let command = ["export", "degree", "--graph", &graph, "--output", &export];
    let error = complaint(1, &[&command[..], &["--allow", "isolated"]].concat());
    let expected =
        "g.safetensors: has 2 edges from a node to itself (the first: edge 2, of node 1); `--allow loops`";
    assert!(error.contains(expected), "{error}");
    assert!(!Path::new(&export).exists());
    let error = complaint(1, &[&command[..], &["--allow", "loops"]].concat());
    assert!(error.contains("has 1 node without edges (the first: node 3); `--allow isolated`"), "{error}");
    assert_eq!(scan(&[&command[..], &["--allow", "loops,isolated"]].concat()).status.code(), Some(0));
    let error = complaint(2, &[&command[..], &["--allow", "anything"]].concat());
    assert!(error.contains("isolated") && error.contains("single"), "{error}");
}

#[test]
fn nodes_without_edges_are_refused_unless_allowed_or_named_by_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let graph = path(&folder, "g.safetensors");
    // Of nodes 0, 1 and 3: the edges leave out node 2.
    let edges = [0, 1, 1, 3, 1, 0, 3, 1];
    let command = ["show", "degree", "--graph", &graph];
    for more in [None, Some(("num_nodes", &[4][..]))] {
        write_graph(&graph, &edges, more);
        let error = complaint(1, &command);
        assert!(
            error.contains("has 1 node without edges (the first: node 2); `--allow isolated`"),
            "{error}"
        );
        assert_eq!(scan(&[&command[..], &["--allow", "isolated"]].concat()).status.code(), Some(0));
    }
    write_graph(&graph, &edges, Some(("batch", &[0, 0, 0, 0])));
    let noted = scan(&command);
    assert_eq!(noted.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&noted.stderr).contains("1 node without edges"));
    complaint(1, &[&command[..], &["--allow", "none"]].concat());
}

#[test]
fn show_draws_in_the_terminal() {
    let shown = said(&["show", "serpentine|bidirectional", "--shape", "2x3"]);
    let expected = "\
serpentine | bidirectional over a 2x3 grid

order.0  6 steps: every token once
  ○───┐    0 1 2
  ●───┘    5 4 3

order.1  6 steps: every token once
  ●───┐    5 4 3
  ○───┘    0 1 2
";
    assert_eq!(shown, expected);
}

#[test]
fn show_writes_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, png) = (path(&folder, "cross.svg"), path(&folder, "cross.PNG"));
    let told = said(&["show", "cross", "--shape", "7x9", "--output", &svg]);
    assert!(told.contains("order.3  63 steps: every token once"), "{told}");
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(
        text.starts_with("<svg") && text.contains(">cross</text>") && text.contains("7x9 grid, 63 tokens")
    );

    let volume = path(&folder, "volume.svg");
    for view in ["slices", "isometric"] {
        said(&["show", "hilbert", "--shape", "2x4x4", "--output", &volume, "--view", view]);
        let text = std::fs::read_to_string(&volume).unwrap();
        assert!(
            text.contains("a 2x4x4 grid, 32 tokens")
                && text.contains("stroke=\"#d5dae2\"") == (view == "isometric")
        );
    }

    said(&["show", "cross", "--shape", "7x9", "--output", &png]);
    let image = resvg::tiny_skia::Pixmap::decode_png(&std::fs::read(&png).unwrap()).unwrap();
    assert!(image.width() > 800 && image.height() > 600);
    let colour = |p: &resvg::tiny_skia::PremultipliedColorU8| (p.red(), p.green(), p.blue());
    let colours: std::collections::HashSet<_> = image.pixels().iter().map(colour).collect();
    assert!(colours.len() > 100, "the picture holds {} colours", colours.len());
    // The title is there: dark pixels above the panels.
    let title = &image.pixels()[..image.width() as usize * 84];
    assert!(title.iter().map(colour).any(|(r, g, b)| r < 100 && g < 100 && b < 100));
}

#[test]
fn export_writes_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.json");
    said(&["export", "row | bidirectional", "--shape", "2x2", "--output", &file]);
    let found: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(found, json!({"tokens": 4, "order.0": [0, 1, 2, 3], "order.1": [3, 2, 1, 0]}));
}

#[test]
fn export_writes_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.safetensors");
    said(&["export", "window(2, reset=true)", "--shape", "1x3", "--output", &file]);
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.names().len(), 2);
    for (name, expected) in [("order.0", vec![0i64, 1, -1, -1, 2, -1, -1, -1]), ("resets.0", vec![4])] {
        let tensor = tensors.tensor(name).unwrap();
        let entry = |chunk: &[u8]| i64::from_le_bytes(chunk.try_into().unwrap());
        let found: Vec<i64> = tensor.data().chunks_exact(8).map(entry).collect();
        assert_eq!((tensor.dtype(), tensor.shape(), found), (Dtype::I64, &[expected.len()][..], expected));
    }
}

#[test]
fn export_writes_npy() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.npy");
    said(&["export", "column | bidirectional", "--shape", "2x3", "--output", &file]);
    let bytes = std::fs::read(&file).unwrap();
    let entries = [0i64, 3, 1, 4, 2, 5, 5, 2, 4, 1, 3, 0];
    let header = String::from_utf8_lossy(&bytes);
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && header.contains("'shape': (2, 6)"));
    assert!(bytes.ends_with(&entries.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>()));

    let other = path(&folder, "p.npy");
    let shorter = complaint(2, &["export", "[row, window(2)]", "--shape", "3x3", "--output", &other]);
    assert!(
        shorter.contains("order.0 has 9 steps and order.1 has 16; write .json or .safetensors"),
        "{shorter}"
    );
    let resets = complaint(2, &["export", "window(2, reset=true)", "--shape", "3x3", "--output", &other]);
    assert!(
        resets.contains("p.npy") && resets.contains("starts afresh; write .json or .safetensors"),
        "{resets}"
    );
    assert_eq!(files(folder.path()), 1);
}

#[test]
fn an_index_file_is_a_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let direct = path(&folder, "direct.json");
    said(&["export", "cross", "--shape", "3x4", "--output", &direct]);
    for name in ["o.json", "o.npy", "o.safetensors"] {
        let (file, again) = (path(&folder, name), path(&folder, "again.json"));
        said(&["export", "cross", "--shape", "3x4", "--output", &file]);
        said(&["export", &file, "--shape", "3x4", "--output", &again]);
        assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&direct).unwrap());
        assert!(said(&["show", &format!("file('{file}') | reverse"), "--shape", "3x4"]).contains("order.3"));
    }
    let mine = path(&folder, "mine.json");
    std::fs::write(&mine, "[0, 1, 99]").unwrap();
    let wrong = complaint(1, &["show", &mine, "--shape", "3"]);
    assert!(wrong.contains("mine.json: order.0[2] is 99, but 3 tokens are numbered 0 to 2"), "{wrong}");
    let missing = complaint(1, &["show", &path(&folder, "none.json"), "--shape", "3"]);
    assert!(missing.contains("none.json") && missing.contains("No such file"), "{missing}");
}

#[test]
fn wrong_usage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.txt");
    let unknown = "there is no pattern named `crss`\n  crss\n  ^^^^\ndid you mean `cross` or `vmamba/cross`?";
    let sequence = "`cross` needs a grid of rows and columns, but the tokens are a sequence of 63";
    for (arguments, expected) in [
        (vec!["show", "crss", "--shape", "7x9"], unknown),
        (vec!["show", "row | window(0)", "--shape", "7x9"], "  row | window(0)\n               ^"),
        (vec!["show", "row", "--shape", "7y9"], "shape `7y9`: expected a length such as 49"),
        (vec!["show", "row", "--shape", "0x9"], "shape `0x9`: every size must be at least 1"),
        (vec!["show", "row", "--shape", "7x9x2x2"], "shape `7x9x2x2`"),
        (
            vec!["show", "vmamba/cross2d", "--shape", "63"],
            "`vmamba/cross2d` needs rows x columns (such as 7x9), but",
        ),
        (
            vec!["show", "vmamba/cros2d", "--shape", "7x9"],
            "did you mean `vmamba/cross2d`? published: vmamba/cross2d, ",
        ),
        (vec!["show", "grootv/block", "--shape", "49"], "`grootv/treescan` is over a grid"),
        (vec!["show", "grootv/block | reverse", "--shape", "7x9"], "`mixer = \"grootv\"` of a model has it"),
        (vec!["show", "row", "--shape", "9", "--points", "p.npy"], "--points"),
        (vec!["stats", "--shape", "9"], "<PATTERNS>"),
        (vec!["roundtrip", "row"], "--input"),
        (vec!["show", "row", "--shape", "99999999x99999999"], "too large"),
        (vec!["show", "cross", "--shape", "63"], sequence),
        (vec!["show", "row", "--shape", "3x3", "--output", &file], "o.txt: a picture ends in .svg or .png"),
        (
            vec!["export", "row", "--shape", "3x3", "--output", &file],
            "o.txt: an index file ends in .json, .npy or .safetensors",
        ),
        (vec!["show", "row"], "--shape"),
        (vec!["shw"], "show"),
    ] {
        let complaint = complaint(2, &arguments);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "missing/o.json");
    let told = complaint(1, &["export", "row", "--shape", "3x3", "--output", &file]);
    assert!(told.contains("missing/o.json"), "{told}");
    assert_eq!(files(folder.path()), 0);
}

/// A safetensors file of these tensors.
fn tensors(path: &str, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    use safetensors::tensor::TensorView;
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn integers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The float32 values of a tensor, and its shape.
fn read(path: &str, name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    let values = tensor.data().chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()));
    (values.collect(), tensor.shape().to_vec())
}

#[test]
fn list_tells_of_published_scans() {
    let list = said(&["list"]);
    let line = list.lines().find(|line| line.starts_with("zigma/zigzag8 ")).unwrap();
    assert!(
        ["grid", "8 per layer", "ZigMa, arXiv 2403.13802"].iter().all(|what| line.contains(what)),
        "{line}"
    );
    let one = said(&["list", "vmamba/cross2d"]);
    assert!(one.contains("  is          cross\n") && one.contains("MzeroMiko/VMamba @ 2ed52ead"), "{one}");
    assert!(!one.contains("zigma/") && !one.contains("serpentine"), "{one}");
    // By a name of a family, and by an alias.
    for (name, listed) in
        [("localmamba/w7_flip", "localmamba/wN_flip"), ("graphmamba/hybrid", "graphmamba/permute")]
    {
        assert!(said(&["list", name]).contains(listed), "{name}");
    }
    assert!(said(&["list", "no such scan"]).contains("nothing listed holds"));

    let all: Value = serde_json::from_str(&said(&["list", "--json"])).unwrap();
    let scans = all["published"].as_array().unwrap();
    assert!(scans.len() > 90 && all["patterns"].as_array().unwrap().len() > 30);
    let vivim = scans.iter().find(|scan| scan["name"] == "vivim/tri").unwrap();
    assert_eq!(vivim["geometry"], json!(["grid", "volume"]));
    assert_eq!((&vivim["merge"], &vivim["parameters"]), (&json!("mean"), &json!("own")));
    assert_eq!(vivim["composition"], "[row | bidirectional, temporal]");
}

#[test]
fn published_names_are_patterns() {
    let folder = tempfile::tempdir().unwrap();
    let (named, composed) = (path(&folder, "named.json"), path(&folder, "composed.json"));
    for (name, composition, shape) in [
        ("VMamba/cross2d", "cross", "3x4"),
        ("vivim/tri_perm", "[row | bidirectional, temporal]", "2x3x4"),
        ("localmamba/w2_flip", "window(2) | reverse", "3x5"),
        ("zigma/hilbert8(compat=\"released\") | direction(0)", "gilbert | inverse", "4x4"),
        ("aum/specgrid(major=time, class_token=end)", "column | class_token(end)", "2x3"),
    ] {
        said(&["export", name, "--shape", shape, "--output", &named]);
        said(&["export", composition, "--shape", shape, "--output", &composed]);
        assert_eq!(std::fs::read(&named).unwrap(), std::fs::read(&composed).unwrap(), "{name}");
    }
}

#[test]
fn points_and_graphs_are_geometries() {
    let folder = tempfile::tempdir().unwrap();
    let (points, graph, output) =
        (path(&folder, "p.safetensors"), path(&folder, "g.safetensors"), path(&folder, "o.json"));
    let xyz = [0.9, 0.9, 0.9, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0];
    tensors(&points, &[("pos", Dtype::F32, &[3, 3], floats(&xyz))]);
    said(&["export", "pointmamba/hilbert", "--points", &points, "--output", &output]);
    let order: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(order, json!({"tokens": 3, "order.0": [1, 2, 0]}));

    tensors(&graph, &[("edge_index", Dtype::I64, &[2, 4], integers(&[0, 1, 1, 2, 1, 0, 2, 1]))]);
    said(&["export", "graphmamba/degree_order", "--graph", &graph, "--output", &output]);
    let order: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(order, json!({"tokens": 3, "order.0": [0, 2, 1]}));

    let shown = said(&["show", "graphmamba/degree_order", "--graph", &graph]);
    assert!(
        shown.contains("graphmamba/degree_order over a graph of 3 nodes") && shown.contains("along an edge")
    );
    let svg = path(&folder, "p.svg");
    said(&["show", "pcm/serialize", "--points", &points, "--output", &svg]);
    assert!(std::fs::read_to_string(&svg).unwrap().contains("3 points, 9 directions"));

    let wrong = complaint(2, &["export", "cross", "--points", &points, "--output", &output]);
    assert!(wrong.contains("but the tokens are 3 points"), "{wrong}");
    tensors(&points, &[("pos", Dtype::F32, &[1, 3], floats(&[0.0, f32::NAN, 0.0]))]);
    let wrong = complaint(1, &["export", "row", "--points", &points, "--output", &output]);
    assert!(wrong.contains("p.safetensors") && wrong.contains("finite"), "{wrong}");
}

#[test]
fn faults_of_an_index_file_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mine = path(&folder, "mine.json");
    std::fs::write(&mine, "[0, 2, 2, 0]").unwrap();
    std::fs::write(&mine, "[0, 1, 1, 9, -5, 4]").unwrap();
    let refused = complaint(1, &["show", &mine, "--shape", "2x3"]);
    let told = "; 2 entries lie outside; of the others 1 token is repeated (first 1, at steps 1 and 2), 3 tokens are missing (first 2)";
    assert!(refused.contains(told), "{refused}");
    std::fs::write(&mine, "[0, 2, 2, 0]").unwrap();
    let told = "order.0 does not visit every token once: 2 tokens are repeated (first 0, at steps 0 and 3), 2 tokens are missing (first 1)";
    let allowed = format!("file(\"{mine}\", strict=false)");
    let shown = scan(&["show", &allowed, "--shape", "4"]);
    assert!(shown.status.success() && String::from_utf8(shown.stderr).unwrap().contains(told));
    assert!(!said(&["show", "row | window(3)", "--shape", "4"]).contains("does not visit"));
    let input = path(&folder, "x.safetensors");
    tensors(&input, &[("x", Dtype::F32, &[1, 1, 4], floats(&[1.0; 4]))]);
    for arguments in [
        vec!["show", &mine, "--shape", "4"],
        vec!["stats", &mine, "--shape", "4"],
        vec!["export", &mine, "--shape", "4", "--output", "never.json"],
        vec!["roundtrip", &mine, "--input", &input],
    ] {
        let refused = complaint(1, &arguments);
        assert!(
            refused.contains("mine.json") && refused.contains(told) && refused.contains(&allowed),
            "{refused}"
        );
    }
}

/// What a published scan has beside its orders is told where it is drawn and where it is explained.
#[test]
fn published_scans_tell_what_goes_with_them() {
    let run = scan(&["show", "changemamba/spatiotemporal", "--shape", "2x3x4"]);
    let told = String::from_utf8(run.stderr).unwrap();
    assert!(told.contains("`mixer = \"changemamba\"` of a model has the whole"), "{told}");
    assert!(told.contains("ophidian scan list changemamba/spatiotemporal"), "{told}");
    let list = said(&["list", "vmamba/cross2d"]);
    for part in ["[model]", "merge = \"sum\"", "conv = \"grid\"", "out_norm = \"layer\""] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let quiet = scan(&["show", "cross", "--shape", "3x4"]);
    assert!(quiet.stderr.is_empty());
}

/// The samples of points are said once.
#[test]
fn samples_that_are_said_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (points, output) = (path(&folder, "p.safetensors"), path(&folder, "o.json"));
    let batch = ("batch", Dtype::I64, &[2][..], integers(&[0, 1]));
    let both = [
        ("pos", Dtype::F32, &[2, 1, 3][..], floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("coors", Dtype::I64, &[2, 4][..], integers(&[0, 1, 2, 3, 0, 1, 2, 4])),
    ];
    for (tensor, says) in both.into_iter().zip(["first axis", "first number"]) {
        tensors(&points, &[tensor, batch.clone()]);
        let told =
            complaint(1, &["export", "xyz", "--points", &points, "--allow", "single", "--output", &output]);
        assert!(
            told.contains(&format!("tensor batch is I64 of shape [2] beside points whose {says}")),
            "{told}"
        );
    }
}

#[test]
fn stats_tell_orders_apart() {
    let table = said(&["stats", "row", "serpentine | bidirectional", "--shape", "3x4"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "over a 3x4 grid");
    let row: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(row, ["row", "1", "2.412", "4.000", "1.393", "3.162", "81.8%", "-", "-", "0", "0", "0", "0"]);
    assert!(lines[4].contains("100.0%") && lines[4].contains("0.0%  "), "{table}");

    let all = said(&["stats", "--all", "--shape", "2x4x4", "--json"]);
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| lines.iter().find(|line| line["pattern"] == name).unwrap();
    assert_eq!(of("vivim/tri")["directions"], 3);
    assert_eq!(of("pointmamba/hilbert3d")["adjacent"], 1.0);
    assert_eq!(of("mamband/whtl_ndim1")["resets"], 31);
    assert!(lines.iter().all(|line| line["pattern"] != "vmamba/cross2d"));
}
