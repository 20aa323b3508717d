use std::{fmt::Write, path::Path};

use image::{GrayImage, ImageFormat};
use ophidian_core::{Error, Result, adapter::Adapter, data::Dataset, rng};
use ophidian_vision::{
    Vision,
    config::Data,
    inspect,
    source::{Found, Source},
    video::{Video, clips},
};
use proptest::prelude::*;

use crate::{
    animations::{apng, gif, webp},
    common::{error, gz, peak, picture, put, says, shared, tar, zip},
};

fn resolve(text: &str) -> toml::Table {
    Vision.resolve_data(text.parse().unwrap()).unwrap()
}

fn refuses(text: &str, parts: &[&str]) {
    let error = Vision.resolve_data(text.parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    says(&error.to_string(), parts);
}

fn grey(value: u8) -> Vec<u8> {
    picture(ImageFormat::Png, 6, 4, [value; 3])
}

/// A clip whose frame i is of grey `from + i`.
fn clip(folder: &Path, path: &str, from: u8, frames: u8) {
    for i in 0..frames {
        put(folder, &format!("{path}/frame_{}.png", i + 1), &grey(from + i));
    }
}

/// The first value of each frame of clip `index`.
fn greys(source: &dyn Source, index: usize) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    source.clip(index, &mut |len| Ok((0..len).collect()), &mut |frame| {
        found.push(frame.data[0]);
        Ok(())
    })?;
    Ok(found)
}

fn open(folder: &Path) -> Result<Found> {
    clips::open(folder, &Video::default(), &[])
}

/// Fourteen frames, so that names do not sort as text.
#[test]
fn folders_of_frames_are_clips_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    clip(folder.path(), "right/b", 100, 3);
    clip(folder.path(), "left/clip_10", 50, 14);
    clip(folder.path(), "left/clip_9", 10, 14);
    put(folder.path(), "left/clip_9/notes.txt", b"no frame");
    let found = open(folder.path()).unwrap();
    assert_eq!(found.classes, ["left", "right"]);
    let all = found.train.unwrap();
    assert_eq!(all.items, [(0, 0), (1, 0), (2, 1)]);
    assert_eq!(greys(&*all.source, 0).unwrap(), (10..24).collect::<Vec<u8>>());
    assert_eq!(greys(&*all.source, 1).unwrap(), (50..64).collect::<Vec<u8>>());
    says(&all.source.name_of(1), &["left/clip_10"]);
    assert_eq!(all.source.pixels(2).unwrap().data[0], 101, "the middle");
}

#[test]
fn splits_are_told_by_folders() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["set/train/a/1", "set/train/b/1", "set/val/a/2", "set/test/b/3"] {
        clip(folder.path(), path, 0, 2);
    }
    let found = open(folder.path()).unwrap();
    assert_eq!((found.train.unwrap().items.len(), found.eval.unwrap().items.len()), (2, 1));
    assert_eq!(found.set_aside, 1);
}

#[test]
fn archives_hold_clips_too() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<(String, Vec<u8>)> =
        (1..=11).map(|i| (format!("./left/c/{i}.png"), grey(i as u8))).collect();
    let entries: Vec<(&str, &[u8])> = frames.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let train = tar(&entries);
    put(folder.path(), "x-train.tar.gz", &gz(&train));
    put(folder.path(), "zipped/y.zip", &zip(&entries, true));
    let zipped = open(&folder.path().join("zipped")).unwrap().train.unwrap();
    assert_eq!(greys(&*zipped.source, 0).unwrap(), (1..=11).collect::<Vec<u8>>());
    put(
        folder.path(),
        "x-test.tar",
        &tar(&[("left/c/1.png", &grey(90)), ("right/d.gif", &gif(&[1, 2, 3], 5, 5))]),
    );
    let found = open(folder.path()).unwrap();
    let (train, eval) = (found.train.unwrap(), found.eval.unwrap());
    assert_eq!((train.items.len(), eval.items.len()), (1, 2));
    let of = |items: &[(u32, u32)]| {
        items.iter().map(|(at, _)| greys(&*train.source, *at as usize).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of(&train.items), [(1..=11).collect::<Vec<u8>>()]);
    assert_eq!(of(&eval.items), [vec![90], vec![1, 2, 3]]);
    says(&train.source.name_of(train.items[0].0 as usize), &["x-train.tar.gz/", "left/c"]);
}

/// An archive in the place of a clip is that clip, whatever folder it has its frames in.
#[test]
fn an_archive_may_be_one_clip() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, three) = (grey(1), grey(2), grey(3));
    put(folder.path(), "a/clip0.tar", &tar(&[("10.png", &two), ("9.png", &one)]));
    put(folder.path(), "b/clip0.zip", &zip(&[("frames/1.png", &two), ("frames/2.png", &three)], true));
    let found = open(folder.path()).unwrap();
    assert_eq!(found.classes, ["a", "b"]);
    let all = found.train.unwrap();
    assert_eq!(all.items, [(0, 0), (1, 1)]);
    assert_eq!([0, 1].map(|at| greys(&*all.source, at).unwrap()), [vec![1, 2], vec![2, 3]]);
    put(folder.path(), "a/clip1.tar", &tar(&[("notes.txt", b"no frame")]));
    says(&error(open(folder.path())), &["a/clip1.tar", "without frames"]);
}

#[test]
fn an_empty_folder_of_a_clip_is_named() {
    let folder = tempfile::tempdir().unwrap();
    clip(folder.path(), "a/clip0", 0, 2);
    std::fs::create_dir_all(folder.path().join("a/clip1")).unwrap();
    says(&error(open(folder.path())), &["a/clip1", "without a file in the place of a clip"]);
}

#[test]
fn animations_are_clips() {
    let folder = tempfile::tempdir().unwrap();
    let greys_in = [10, 200, 30, 40];
    put(folder.path(), "a/one.gif", &gif(&greys_in, 7, 5));
    put(folder.path(), "b/two.webp", &webp(&greys_in, 7, 5));
    put(folder.path(), "c/three.apng", &apng(&greys_in, 7, 5));
    let all = open(folder.path()).unwrap().train.unwrap();
    assert_eq!(all.items, [(0, 0), (1, 1), (2, 2)]);
    for index in 0..3 {
        assert_eq!(greys(&*all.source, index).unwrap(), greys_in, "{}", all.source.name_of(index));
        let frame = all.source.pixels(index).unwrap();
        assert_eq!((frame.height, frame.width), (5, 7));
    }
    // Still GIFs are frames like any others.
    for i in 0..3 {
        put(folder.path(), &format!("d/clip/{i}.gif"), &gif(&[i * 40], 7, 5));
    }
    let all = open(folder.path()).unwrap().train.unwrap();
    assert_eq!(greys(&*all.source, 3).unwrap(), [0, 40, 80]);
    // A still one beside animations is told.
    put(folder.path(), "a/p.gif", &gif(&[1], 7, 5));
    let all = open(folder.path()).unwrap().train.unwrap();
    says(&error(greys(&*all.source, 1)), &["a/p.gif", "holds 1 picture(s), expected an animation"]);
}

#[test]
fn samples_are_channels_of_frames() {
    let folder = tempfile::tempdir().unwrap();
    (0..3u8).for_each(|i| clip(folder.path(), &format!("a/{i}"), 100 * i, 16));
    let data = resolve(&format!(
        "format = 'video'\npath = '{}'\nimage_size = [2, 3]\nmean = [0.0]\nstd = [1.0]\nvideo.frames = 4",
        folder.path().display()
    ));
    assert_eq!(data["video"]["stride"].as_integer(), Some(0));
    assert_eq!(Vision.resolve_data(data.clone()).unwrap(), data);
    let sets = Vision.open(&data).unwrap();
    assert_eq!((sets.train.len(), sets.eval.len()), (2, 1));
    assert_eq!(sets.train.input_shape(), [3, 4, 2, 3]);
    let sample = sets.train.sample(0, None).unwrap();
    let first: f32 = sample.input[0] * 255.0;
    let base = 100.0 * (first / 100.0).floor();
    for (i, value) in sample.input.iter().enumerate() {
        let want = base + [2.0, 6.0, 10.0, 14.0][i / 6 % 4];
        assert!((value * 255.0 - want).abs() < 0.01, "{i}: {value}");
    }
    // In training, another frame of each segment.
    let random = |seed| sets.train.sample(0, Some(&mut rng::stream(&[seed]))).unwrap();
    assert_eq!(random(1), random(1));
    assert_ne!(random(1), random(2));
    for seed in 0..20 {
        for (i, values) in random(seed).input.chunks(6).enumerate() {
            let frame = (values[0] * 255.0 - base).round() as usize;
            assert_eq!(frame / 4, i % 4, "frame {frame} in segment {i}");
        }
    }
    let (height, width, rgb) = Vision.picture(&data, &sample.input, &[3, 4, 2, 3]).unwrap();
    assert_eq!((height, width, rgb.len()), (4, 6, 72));
    assert_eq!(i32::from(rgb[9]) - i32::from(rgb[0]), 4, "the second frame stands beside the first");
    assert_eq!(i32::from(rgb[36]) - i32::from(rgb[0]), 8, "the third below it");
    // 7 frames of 3: the last two places stay white.
    let clip = vec![0.0; 3 * 7 * 4];
    let (height, width, rgb) = Vision.picture(&data, &clip, &[3, 7, 2, 2]).unwrap();
    assert_eq!((height, width), (6, 6));
    assert_eq!(rgb.chunks_exact(3).filter(|rgb| *rgb == [255; 3]).count(), 2 * 4);
}

/// A clip of equal frames stays one, whatever is done to it at random.
#[test]
fn all_frames_of_a_clip_are_changed_alike() {
    let folder = tempfile::tempdir().unwrap();
    let image =
        image::RgbImage::from_fn(20, 20, |x, y| image::Rgb([x as u8 * 12, y as u8 * 12, (x * y) as u8]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    for (clip, frame) in (0..4).flat_map(|clip| (0..6).map(move |frame| (clip, frame))) {
        put(folder.path(), &format!("a/{clip}/{frame}.png"), bytes.get_ref());
    }
    let data = resolve(&format!(
        "format = 'video'\npath = '{}'\nimage_size = 16\nvideo.frames = 5\n[augment]\nflip = 0.5\ncrop_padding = 3\n\
         resized_crop = 0.4\nrand_ops = 2\nerase = 0.7",
        folder.path().display()
    ));
    let train = Vision.open(&data).unwrap().train;
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let sample = train.sample(0, Some(&mut rng::stream(&[seed]))).unwrap();
        for channel in sample.input.chunks(5 * 256) {
            assert!(channel.chunks(256).all(|frame| frame == &channel[..256]), "seed {seed}");
        }
        seen.insert(sample.input.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }
    assert!(seen.len() > 25);
}

#[test]
fn lists_tell_clips_and_classes() {
    let folder = tempfile::tempdir().unwrap();
    (0..4u8).for_each(|i| clip(folder.path(), &format!("clips/{i}"), 10 * i, 2));
    put(folder.path(), "clips 2/x y.gif", &gif(&[7, 8], 3, 3));
    let path = folder.path().display().to_string();
    let with = |train: &str, eval: &str, names: &str| {
        put(folder.path(), "train.csv", train.as_bytes());
        put(folder.path(), "eval.csv", eval.as_bytes());
        Vision.resolve_data(
            format!("format = 'video'\npath = '{path}'\n{names}\nvideo.train_list = '{path}/train.csv'\nvideo.eval_list = '{path}/eval.csv'")
                .parse()
                .unwrap(),
        )
    };
    let data =
        with("clip,class\n# some\nclips/3,jump\n\n ./clips/1/ , run\n", "clips 2/x y.gif;jump", "").unwrap();
    assert_eq!(data["class_names"].as_array().unwrap().len(), 2);
    let sets = Vision.open(&data).unwrap();
    let labels =
        |set: &dyn Dataset| (0..set.len()).map(|i| set.sample(i, None).unwrap().label).collect::<Vec<_>>();
    assert_eq!((labels(&*sets.train), labels(&*sets.eval)), (vec![0, 1], vec![0]));
    says(&sets.train.name_of(0), &["clips/3"]);
    // Numbers, as most lists have them: class 1 of three has no clip.
    let data = with("clips/0 2\nclips/1 0", "clips/2\t0", "").unwrap();
    assert_eq!(data["class_names"].as_array().unwrap().len(), 3);
    assert_eq!(labels(&*Vision.open(&data).unwrap().train), [2, 0]);
    let data = with("clips/0 1\nclips/1 0", "clips/2 b", "class_names = ['a', 'b']").unwrap();
    let sets = Vision.open(&data).unwrap();
    assert_eq!((labels(&*sets.train), labels(&*sets.eval)), (vec![1, 0], vec![1]));

    for (train, eval, parts) in [
        ("", "clips/0 1", &["train.csv", "lists no clips"][..]),
        ("clips/0", "clips/0 1", &["train.csv", "line 1", "no class"]),
        ("clips/0 1\nclips/77 1", "clips/1 1", &["line 2", "`clips/77` is none of the 5 clips"]),
        ("clips/0 1\nclips/0 1", "clips/1 1", &["line 2", "already on line 1"]),
        ("clips/0,", "clips/1 1", &["line 1", "lacks"]),
    ] {
        says(&error(with(train, eval, "")), parts);
    }
    let data = with("clips/0 run", "clips/1 rum", "class_names = ['run']").unwrap();
    says(&error(Vision.open(&data)), &["eval.csv", "line 1", "`rum`", "did you mean `run`?"]);
    std::fs::remove_file(folder.path().join("train.csv")).unwrap();
    says(&error(Vision.open(&data)), &["train.csv"]);
}

#[test]
fn clips_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    says(&error(open(folder.path())), &["holds no clips", "CLASS/CLIP/FRAME"]);
    says(&error(open(&folder.path().join("none"))), &["does not exist"]);
    put(folder.path(), "film.mp4", b"film");
    says(&error(open(&folder.path().join("film.mp4"))), &["film.mp4", "no archive"]);
    put(folder.path(), "1.png", &grey(0));
    says(&error(open(folder.path())), &["holds frames itself"]);
    std::fs::remove_file(folder.path().join("1.png")).unwrap();
    put(folder.path(), "a/1.png", &grey(0));
    says(&error(open(folder.path())), &["`a` lies in no class folder", "CLASS/CLIP"]);
    std::fs::remove_file(folder.path().join("a/1.png")).unwrap();

    clip(folder.path(), "a/sizes", 0, 3);
    put(folder.path(), "a/sizes/frame_2.png", &picture(ImageFormat::Png, 4, 6, [0; 3]));
    clip(folder.path(), "a/torn", 0, 3);
    put(folder.path(), "a/torn/frame_3.png", &grey(0)[..30]);
    put(folder.path(), "a/torn.gif", &gif(&[1, 2, 3], 9, 9));
    put(folder.path(), "b/huge/1.png", &huge());
    let bytes = gif(&[1, 2, 3], 9, 9);
    put(folder.path(), "c/half.gif", &bytes[..bytes.len() - 12]);
    let all = open(folder.path()).unwrap().train.unwrap();
    let says_of = |index: usize, parts: &[&str]| says(&error(greys(&*all.source, index)), parts);
    assert_eq!(all.items.len(), 5);
    says_of(0, &["frame_2.png", "6x4", "frame_1.png", "4x6"]);
    says_of(1, &["torn/frame_3.png"]);
    assert_eq!(greys(&*all.source, 2).unwrap(), [1, 2, 3]);
    let (result, memory) = peak(|| greys(&*all.source, 3));
    says(&error(result), &["b/huge/1.png", "limit"]);
    assert!(memory < 1 << 20, "{memory}");
    says_of(4, &["c/half.gif"]);
    assert!(all.source.clip(9, &mut |_| Ok(vec![]), &mut |_| Ok(())).is_err());
    says(&error(all.source.clip(0, &mut |_| Ok(vec![3]), &mut |_| Ok(()))), &["a/sizes", "no frame 3 of 3"]);

    // A sound data set, but one clip of two frames.
    let folder = tempfile::tempdir().unwrap();
    (0..3u8).for_each(|i| clip(folder.path(), &format!("a/{i}"), 0, 2));
    let config = |short: &str| {
        resolve(&format!("format = 'video'\npath = '{}'\nvideo.short = '{short}'", folder.path().display()))
    };
    assert!(Vision.open(&config("repeat")).unwrap().train.sample(0, None).is_ok());
    let strict = Vision.open(&config("error")).unwrap().train;
    says(&error(strict.sample(0, None)), &["a/", "2 frame(s), expected at least 8", "`data.video.short`"]);
}

/// The header of a PNG of 60000 x 60000 pixels, its checksum made right.
fn huge() -> Vec<u8> {
    let mut png = picture(ImageFormat::Png, 1, 1, [0; 3]);
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    png
}

#[test]
fn wrong_keys_and_values_are_named() {
    refuses("format = 'shapes'\nvideo.frames = 8", &["`data.video`", "\"shapes\"", "\"motions\""]);
    refuses("format = 'motions'\nvideo.frame = 8", &["`data.video.frame`", "`data.video.frames`"]);
    refuses("format = 'motions'\nvideo.frames = 0", &["`data.video.frames` is 0", "1 to 1024"]);
    refuses("format = 'motions'\nvideo.stride = 5000", &["`data.video.stride` is 5000"]);
    refuses("format = 'motions'\nvideo.short = 'loop'", &["`data.video.short`", "\"repeat\""]);
    refuses("format = 'motions'\npath = 'x'", &["`data.path`", "\"motions\" reads no files"]);
    refuses("format = 'motions'\nvideo.train_list = 'x'", &["`data.video.train_list`", "reads no files"]);
    refuses("format = 'motions'\nclass_names = ['a']", &["`data.class_names`", "counterclockwise"]);
    refuses("format = 'video'", &["missing key `data.path`"]);
    refuses("format = 'video'\npath = 'x'\nvideo.eval_list = 'y'", &["`data.video.eval_list`"]);
    refuses("format = 'video'\npath = 'x'\neval_path = 'z'\nvideo.train_list = 'y'", &["`data.eval_path`"]);
    let large = "format = 'motions'\nimage_size = 4096\nvideo.frames = 64";
    refuses(large, &["`data.video.frames` is 64", "4096x4096", "at most"]);
}

#[test]
fn clips_are_inspected() {
    let folder = tempfile::tempdir().unwrap();
    (0..4u8).for_each(|i| clip(folder.path(), &format!("a/{i}"), 0, 3));
    (0..4u8).for_each(|i| clip(folder.path(), &format!("b/{i}"), 0, 5));
    put(folder.path(), "b/0/frame_5.png", b"no image");
    let data = || -> Data {
        Data::read(format!("format = 'video'\npath = '{}'", folder.path().display()).parse().unwrap())
            .unwrap()
    };
    let report = inspect::inspect(data(), false, &|_, _| {}).unwrap();
    assert_eq!(report.splits[0].examples + report.splits[1].examples, 8);
    let sizes = &report.splits[0].sizes;
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert_eq!(sizes[0], ("3 frames of 4x6x3".to_owned(), 3));
    let found = |check| -> usize {
        let report = inspect::inspect(data(), check, &|_, _| {}).unwrap();
        report.splits.iter().map(|split| split.problems.len()).sum()
    };
    assert_eq!((found(false), found(true)), (0, 1));
}

#[test]
fn clips_are_predicted_without_labels() {
    let folder = tempfile::tempdir().unwrap();
    clip(folder.path(), "some/deep/clip", 0, 3);
    clip(folder.path(), "other", 0, 3);
    let film = put(folder.path(), "film.gif", &gif(&[1, 2], 4, 4));
    let data = resolve("format = 'motions'\nvideo.frames = 4");
    let inputs =
        Vision.open_inputs(&data, &[&film, &folder.path().join("some"), &folder.path().join("other")]);
    let inputs = inputs.unwrap();
    assert_eq!(inputs.len(), 3);
    for (index, name) in ["film.gif", "some/deep/clip", "other"].iter().enumerate() {
        says(&inputs.name_of(index), &[name]);
        assert_eq!(inputs.sample(index, None).unwrap().input.len(), 4 * 32 * 32);
    }
    assert!(Vision.open_inputs(&data, &[&folder.path().join("none")]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever became of an animation's bytes: an answer or an error, and no more memory than its pixels take.
    #[test]
    fn broken_animations_are_errors(kind in 0usize..3, cut in 0usize..400, flips in prop::collection::vec((0usize..400, any::<u8>()), 0..4)) {
        let mut bytes = [gif(&[9, 8, 7], 8, 8), webp(&[9, 8, 7], 8, 8), apng(&[9, 8, 7], 8, 8)][kind].clone();
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut).max(1));
        let folder = tempfile::tempdir().unwrap();
        let file = put(folder.path(), ["x.gif", "x.webp", "x.apng"][kind], &bytes);
        let (_, memory) = peak(|| clips::inputs(&[&file]).and_then(|found| greys(&found, 0)));
        prop_assert!(memory < 600 << 20, "{memory}");
    }
}

/// Digits filmed by an event camera: events in, frames out, and the frames are a data set.
#[test]
fn filmed_digits_are_read() {
    let Some(films) = shared("data/video/nmnist-small") else { return };
    const FRAMES: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let split = |name: &str, count: usize| {
        let mut list = String::new();
        let lines = std::fs::read_to_string(films.join(format!("{name}.txt"))).unwrap();
        for line in lines.lines().filter(|line| !line.starts_with('#')).take(count) {
            let (film, class) = line.split_once('\t').unwrap();
            let events = std::fs::read(films.join(format!("{film}.bs2"))).unwrap();
            let time = |event: &[u8]| {
                u32::from(event[2] & 0x7f) << 16 | u32::from(event[3]) << 8 | u32::from(event[4])
            };
            let end = events.chunks_exact(5).map(time).max().unwrap() + 1;
            let mut frames = vec![GrayImage::new(34, 34); FRAMES];
            for event in events.chunks_exact(5) {
                let frame = time(event) as usize * FRAMES / end as usize;
                let pixel = frames[frame].get_pixel_mut(u32::from(event[0]), u32::from(event[1]));
                pixel[0] = pixel[0].saturating_add(if event[2] >> 7 == 1 { 80 } else { 40 });
            }
            for (i, frame) in frames.iter().enumerate() {
                let mut bytes = std::io::Cursor::new(Vec::new());
                frame.write_to(&mut bytes, ImageFormat::Png).unwrap();
                put(folder.path(), &format!("{name}/{film}/{i}.png"), bytes.get_ref());
            }
            writeln!(list, "{name}/{film},{class}").unwrap();
        }
        put(folder.path(), &format!("{name}.csv"), list.as_bytes())
    };
    let (train, eval) = (split("train", 40), split("test", 10));
    let data = resolve(&format!(
        "format = 'video'\npath = '{}'\nimage_size = 34\nchannels = 1\nmean = [0.0]\nstd = [1.0]\nvideo.frames = {FRAMES}\n\
         video.train_list = '{}'\nvideo.eval_list = '{}'",
        folder.path().display(),
        train.display(),
        eval.display()
    ));
    let sets = Vision.open(&data).unwrap();
    assert_eq!((sets.train.len(), sets.eval.len()), (40, 10));
    assert_eq!(sets.train.input_shape(), [1, FRAMES as i64, 34, 34]);
    assert_eq!(sets.train.sample(0, None).unwrap().label, 5);
    let sample = sets.eval.sample(3, None).unwrap();
    // Something is seen in each frame, and it moves.
    let frames: Vec<&[f32]> = sample.input.chunks(34 * 34).collect();
    assert!(frames.iter().all(|frame| frame.iter().filter(|value| **value > 0.1).count() > 20));
    assert!(frames.windows(2).all(|pair| pair[0] != pair[1]));
}
