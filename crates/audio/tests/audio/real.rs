//! The spoken digits as published.

use ophidian_audio::Audio;
use ophidian_core::adapter::Adapter;

use crate::{shared, table};

#[test]
fn spoken_digits_have_their_splits() {
    let Some(path) = shared("data/audio/fsdd") else { return };
    let open = |more: &str| {
        let data = Audio.resolve_data(table(&format!("path = '{}'\n{more}", path.display()))).unwrap();
        assert_eq!(data["sample_rate"].as_integer(), Some(8000));
        Audio.open(&data).unwrap()
    };
    let splits = open("fbank.mels = 40");
    assert_eq!((splits.train.len(), splits.eval.len()), (2700, 300));
    assert_eq!(splits.train.input_shape(), [1, 40, 100]);
    let sample = splits.eval.sample(299, None).unwrap();
    assert_eq!(sample.label, 9);
    assert!(sample.input.iter().all(|value| value.is_finite()));
    let splits = open("speaker = 'theo'");
    assert_eq!((splits.train.len(), splits.eval.len()), (2500, 500));
    assert!((0..500).all(|clip| splits.eval.name_of(clip).contains("_theo_")));
}

/// Numbers of torchaudio for three recordings.
#[test]
fn torchaudio_has_the_same_filter_banks_of_recordings() {
    let Some(path) = shared("data/audio/fsdd/recordings") else { return };
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/fsdd.json")).unwrap();
    for clip in file["clips"].as_array().unwrap() {
        let frames = clip["frames"].as_u64().unwrap() as usize;
        let text = format!(
            "format = 'fsdd'\npath = 'none'\nsample_rate = 8000\nchannels = 1\nmean = 0\nstd = 1\nfbank.mels = 16\n\
             seconds = {:.2}",
            frames as f64 / 100.0
        );
        let data = Audio.resolve_data(table(&text)).unwrap();
        let name = path.join(format!("{}.wav", clip["name"].as_str().unwrap()));
        let found = Audio.open_inputs(&data, &[&name]).unwrap().sample(0, None).unwrap().input;
        let wanted = clip["bands"].as_array().unwrap();
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            let wanted = wanted.as_f64().unwrap();
            assert!((f64::from(*found) - wanted).abs() < 1e-3, "{}: {found} for {wanted}", name.display());
        }
    }
}
