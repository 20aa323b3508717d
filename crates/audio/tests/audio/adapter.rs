//! The adapter as the trainer uses it: tables in, tensors, models and pictures out.

use std::path::Path;

use ophidian_audio::{Audio, cards, config::Data};
use ophidian_core::{
    adapter::{Adapter, Splits},
    rng,
};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{error, put, put_tone, says, table, tone, wav_bytes};

fn open(text: &str) -> (toml::Table, Splits) {
    let data = Audio.resolve_data(table(text)).unwrap();
    let splits = Audio.open(&data).unwrap();
    (data, splits)
}

#[test]
fn tables_resolve_to_themselves_and_every_key_is_explained() {
    let data = Audio.resolve_data(table("format = 'tones'\ntrain = 8\neval = 8")).unwrap();
    assert_eq!(Audio.resolve_data(data.clone()).unwrap(), data);
    let keys: Vec<String> = Audio.data_keys().into_iter().map(|key| key.key).collect();
    for key in data.keys().filter(|key| !["fbank", "augment"].contains(&key.as_str())) {
        assert!(keys.contains(key), "{key}");
    }
    assert!(keys.contains(&"fbank.mels".to_owned()) && keys.contains(&"augment.time_masks".to_owned()));
    assert!(Audio.model_keys().iter().any(|key| key.key == "base"));
    for card in cards::all().unwrap() {
        assert!(!card.what.is_empty() && !card.licence.is_empty() && card.splits.contains_key("train"));
        assert_eq!(card.classes.len(), if card.name == "fsdd" { 10 } else { 8 });
    }
}

#[test]
fn a_model_reads_filter_banks_and_waveforms() {
    for (text, shape, model) in [
        ("fbank.mels = 16\nfbank.frame_shift = 20", [1, 16, 25], "patch_size = [16, 1]"),
        (
            "fbank.mels = 16\nchannels = 2\nfbank.frame_shift = 20",
            [2, 16, 25],
            "patch_size = [4, 5]\nscan = 'cross'",
        ),
        ("features = 'waveform'", [1, 1, 4000], "patch_size = [1, 80]"),
        ("features = 'waveform'", [1, 1, 4000], "patch_size = [1, 160]\nstride = [1, 80]\npool = 'mean'"),
    ] {
        let (data, splits) = open(&format!("format = 'tones'\ntrain = 8\neval = 8\nseconds = 0.5\n{text}"));
        assert_eq!(splits.train.input_shape(), shape);
        assert_eq!(splits.train.classes().len(), 8);
        let model =
            Audio.resolve_model(table(&format!("{model}\nd_model = 8\ndepth = 1\nd_state = 2"))).unwrap();
        Audio.check(&data, &model).unwrap();
        let vs = VarStore::new(Device::Cpu);
        let built = Audio.model(&model, &shape, 8, vs.root()).unwrap();
        let sample = splits.train.sample(3, Some(&mut rng::stream(&[1]))).unwrap();
        assert_eq!((sample.label, sample.input.len() as i64), (3, shape.iter().product()));
        assert!(sample.input.iter().all(|value| value.is_finite() && value.abs() < 30.0));
        let batch = Tensor::from_slice(&sample.input).reshape([1, shape[0], shape[1], shape[2]]);
        let logits = built.forward(&batch, true).unwrap();
        assert_eq!(logits.size(), [1, 8]);
        logits.sum(Kind::Float).backward();
        let (height, width, pixels) = Audio.picture(&data, &sample.input, &shape).unwrap();
        assert_eq!(pixels.len() as u32, height * width * 3);
        assert!(pixels.iter().any(|byte| *byte != pixels[0]), "not all of one colour");
    }
    // A map over it has its low frequencies below too.
    let laid = Audio.lay_out(&[], &[1, 64, 96], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]).unwrap();
    assert_eq!((laid.rows, laid.columns, laid.values), (3, 2, vec![5.0, 6.0, 3.0, 4.0, 1.0, 2.0]));
    assert_eq!(Audio.lay_out(&[], &[1, 64, 96], &[1.0; 5], &[3, 2]), None);
}

#[test]
fn patches_that_do_not_fit_say_so_before_any_data_is_read() {
    let data = Audio.resolve_data(table("format = 'tones'\nfbank.mels = 20")).unwrap();
    let check = |model: &str| Audio.check(&data, &Audio.resolve_model(table(model)).unwrap());
    for (model, what) in [
        (
            "patch_size = [16, 5]\nstride = [16, 5]",
            "patches of 16 rows every 16 do not divide an input of 20",
        ),
        (
            "patch_size = [20, 7]\nstride = [20, 7]",
            "patches of 7 columns every 7 do not divide an input of 100",
        ),
        ("patch_size = 32", "a patch of 32 rows is larger than an input of 20"),
    ] {
        says(&error(check(model)), &[what, "rows are `data.fbank.mels`", "`data.seconds`"]);
    }
    check("patch_size = [20, 5]").unwrap();
    says(&error(Audio.resolve_model(table("patch_sizes = 3"))), &["did you mean `model.patch_size`?"]);
    says(&error(Audio.resolve_model(table("base = 'aum_bass_fobi'"))), &["did you mean `aum_base_fobi`?"]);
    assert_eq!(
        Audio.resolve_model(table("base = 'aum_tiny_bibi'\ndepth = 2")).unwrap()["d_model"].as_integer(),
        Some(192)
    );
}

/// The same clip in stereo, at another rate, with other bits, gives nearly the same features.
#[test]
fn rates_channels_and_bits_come_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |rate: f64, len: usize| -> Vec<f64> {
        (0..len).map(|i| 0.4 * (2.0 * std::f64::consts::PI * 700.0 * i as f64 / rate).sin()).collect()
    };
    let (low, high) = (at(8000.0, 4000), at(44_100.0, 22_050));
    let stereo: Vec<f64> = high.iter().flat_map(|x| [x * 1.5, x * 0.5]).collect();
    put(folder.path(), "a/low.wav", &wav_bytes((8000, 1, 16, false), &low));
    put(folder.path(), "a/high.wav", &wav_bytes((44_100, 1, 24, false), &high));
    put(folder.path(), "a/wide.wav", &wav_bytes((44_100, 2, 32, true), &stereo));
    let text = "format = 'folder'\npath = 'none'\nclass_names = ['a']\nsample_rate = 8000\nchannels = 1\nseconds = 0.4\n\
                fbank.mels = 12";
    let data = Audio.resolve_data(table(text)).unwrap();
    let inputs = Audio.open_inputs(&data, &[folder.path()]).unwrap();
    assert_eq!(inputs.len(), 3);
    let values: Vec<Vec<f32>> = (0..3).map(|i| inputs.sample(i, None).unwrap().input).collect();
    let band = |clip: &[f32]| -> (usize, f32) {
        // The loudest filter in the middle of the clip.
        (0..12).map(|mel| (mel, clip[mel * 40 + 20])).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    };
    for other in &values[1..] {
        assert_eq!(band(&values[0]).0, band(other).0);
        assert!(
            (band(&values[0]).1 - band(other).1).abs() < 0.02,
            "{:?} {:?}",
            band(&values[0]),
            band(other)
        );
    }
    assert!(inputs.name_of(0).ends_with("high.wav"));
}

#[test]
fn long_clips_are_cut_and_short_ones_padded() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = tone(8000, 0.5);
    long.extend(tone(8000, 1.5));
    put(folder.path(), "a/long.wav", &wav_bytes((8000, 1, 16, false), &long));
    put_tone(folder.path(), "a/short.wav", 1000, 0.5);
    let text = |more: &str| {
        format!(
            "format = 'folder'\npath = 'none'\nclass_names = ['a']\nsample_rate = 8000\nchannels = 1\nseconds = 0.5\n\
             features = 'waveform'\nmean = 0.25\nstd = 0.5\n{more}"
        )
    };
    let inputs = |more: &str| {
        let data = Audio.resolve_data(table(&text(more))).unwrap();
        Audio
            .open_inputs(&data, &[&folder.path().join("a/long.wav"), &folder.path().join("a/short.wav")])
            .unwrap()
    };
    let set = inputs("");
    let first = set.sample(0, None).unwrap().input;
    assert!((f64::from(first[10]) - (0.5 * 5f64.sin() - 0.25) / 0.5).abs() < 1e-3, "from the beginning");
    let cuts: Vec<Vec<f32>> =
        (0..4).map(|seed| set.sample(0, Some(&mut rng::stream(&[seed]))).unwrap().input).collect();
    assert!(cuts.windows(2).all(|pair| pair[0] != pair[1]), "anywhere in training");
    assert_eq!(cuts[2], set.sample(0, Some(&mut rng::stream(&[2]))).unwrap().input, "by the stream alone");
    let short = set.sample(1, None).unwrap().input;
    assert!(
        short[1000..].iter().all(|value| *value == 0.0) && short[..1000].iter().any(|value| *value != 0.0)
    );
    let zero = inputs("pad = 'zero'").sample(1, None).unwrap().input;
    assert!(zero[1000..].iter().all(|value| *value == -0.5));
    // A short clip begins late in training, by at most so much, and is whole.
    let late = inputs("augment.shift = 0.05");
    let mut starts: Vec<usize> = (0..50)
        .map(|seed| {
            let input = late.sample(1, Some(&mut rng::stream(&[seed]))).unwrap().input;
            let start = input.iter().position(|value| *value != 0.0).unwrap();
            assert_eq!(input[start..start + 1000], short[..1000]);
            start
        })
        .collect();
    starts.sort_unstable();
    assert!(starts[49] <= 400 && starts[49] > 300 && starts[0] < 100, "{starts:?}");
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = Audio.resolve_data(table("format = 'tones'")).unwrap();
    let inputs = |path: &Path| Audio.open_inputs(&data, &[path]);
    says(&error(inputs(&put(folder.path(), "a.mp3", b"x"))), &["a.mp3", "no WAV file by its name"]);
    std::fs::create_dir(folder.path().join("none")).unwrap();
    says(&error(inputs(&folder.path().join("none"))), &["holds no WAV files"]);
    let set = inputs(&folder.path().join("absent.wav")).unwrap();
    says(&error(set.sample(0, None)), &["absent.wav", "does not exist"]);
    let short = inputs(&put_tone(folder.path(), "short.wav", 100, 0.3)).unwrap();
    says(&error(short.sample(0, None)), &["short.wav", "100 samples", "shorter than a frame of 200"]);
}

#[test]
fn inspection_counts_and_measures() {
    let folder = tempfile::tempdir().unwrap();
    for clip in 0..4 {
        put_tone(folder.path(), &format!("train/x/{clip}.wav"), 2000, 0.3);
        put_tone(folder.path(), &format!("test/x/{clip}.wav"), 4000, 0.3);
    }
    put(folder.path(), "train/x/bad.wav", b"RIFF");
    let text = format!(
        "path = '{}'\nsample_rate = 8000\nchannels = 1\nfeatures = 'waveform'",
        folder.path().display()
    );
    let report = Audio.inspect(table(&text), true, &|_, _| {}).unwrap();
    assert_eq!((report.format.as_str(), report.unit), ("folder", "clips"));
    let train = &report.splits[0];
    assert_eq!((train.examples, train.read, train.per_class.as_slice()), (5, 5, &[5][..]));
    assert_eq!(train.sizes, [("8000 Hz, 1, 16 bits".to_owned(), 4)]);
    says(&train.notes[0], &["0.25 to 0.25 seconds"]);
    says(&train.problems[0], &["bad.wav"]);
    // Half a sine.
    assert!(report.mean[0].abs() < 2e-3 && (report.std[0] - 0.5 / 2f64.sqrt()).abs() < 2e-3, "{report:?}");
    let tones = Audio.inspect(table("format = 'tones'\ntrain = 64\neval = 8"), false, &|_, _| {}).unwrap();
    let (mean, std) = ophidian_audio::open::TONES;
    assert!((tones.mean[0] - mean).abs() < 0.5 && (tones.std[0] - std).abs() < 0.4, "{tones:?}");
    assert!(Data::read(table("format = 'tones'")).is_ok());
}
