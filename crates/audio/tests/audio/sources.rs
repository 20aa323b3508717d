//! Data sets: the spoken digits, folders, lists, the generator; and those that are wrong.

use std::path::Path;

use ophidian_audio::{
    config::Data,
    open::{self, Opened},
    source::{Labelled, tones},
};
use ophidian_core::Result;

use crate::{error, put, put_tone, says, table, tone, wav_bytes};

fn opened(text: &str) -> Result<(Data, Opened)> {
    let data = open::resolve(Data::read(table(text))?)?;
    let opened = open::open(&data)?;
    Ok((data, opened))
}

fn names(set: &Labelled) -> Vec<(String, u32)> {
    let name = |at: u32| set.source.name_of(at as usize);
    set.items
        .iter()
        .map(|(at, label)| (Path::new(&name(*at)).file_name().unwrap().to_str().unwrap().to_owned(), *label))
        .collect()
}

#[test]
fn spoken_digits_split_by_take_or_by_speaker() {
    let folder = tempfile::tempdir().unwrap();
    for (digit, speaker, take) in
        [(0, "anna", 0), (0, "anna", 7), (0, "bert", 4), (0, "bert", 5), (3, "anna", 11), (3, "bert", 1)]
    {
        put_tone(folder.path(), &format!("recordings/{digit}_{speaker}_{take}.wav"), 900, 0.3);
    }
    put(folder.path(), "recordings/notes.txt", b"not a recording");
    let path = folder.path().display();
    let (data, found) = opened(&format!("path = '{path}'")).unwrap();
    assert_eq!((data.format.name(), data.sample_rate, data.channels), ("fsdd", Some(8000), Some(1)));
    assert_eq!(data.class_names.len(), 10);
    let named = |pairs: &[(&str, u32)]| -> Vec<(String, u32)> {
        pairs.iter().map(|(name, label)| ((*name).to_owned(), *label)).collect()
    };
    assert_eq!(names(&found.eval), named(&[("0_anna_0.wav", 0), ("0_bert_4.wav", 0), ("3_bert_1.wav", 3)]));
    assert_eq!(names(&found.train), named(&[("0_anna_7.wav", 0), ("0_bert_5.wav", 0), ("3_anna_11.wav", 3)]));
    let (_, found) = opened(&format!("path = '{path}/recordings'\nspeaker = 'bert'")).unwrap();
    assert_eq!(names(&found.eval), named(&[("0_bert_4.wav", 0), ("0_bert_5.wav", 0), ("3_bert_1.wav", 3)]));
    assert_eq!(found.train.items.len(), 3);
    let stranger = error(opened(&format!("path = '{path}'\nspeaker = 'carl'")));
    says(&stranger, &["`data.speaker` is \"carl\"", "anna, bert"]);
    put_tone(folder.path(), "recordings/hum.wav", 900, 0.3);
    says(&error(opened(&format!("path = '{path}'"))), &["hum.wav", "has no label"]);
}

#[test]
fn a_list_is_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let list = put(folder.path(), "clips.csv", b"path,label\n");
    let text = format!("format = 'folder'\npath = '{}'", list.display());
    says(&error(opened(&text)), &["clips.csv", "is a file, expected a folder (`data.format`)"]);
}

#[test]
fn folders_are_classes_and_maybe_splits() {
    let folder = tempfile::tempdir().unwrap();
    for class in ["dog", "cat"] {
        for clip in 0..10 {
            put_tone(folder.path(), &format!("plain/{class}/sub/{clip}.WAV"), 900, 0.3);
            let split = if clip < 6 { "train" } else { "test" };
            put_tone(folder.path(), &format!("split/{split}/{class}/{clip}.wav"), 900, 0.3);
        }
    }
    put(folder.path(), "plain/.hidden/x.wav", b"not looked at");
    let at = |name: &str| format!("path = '{}'", folder.path().join(name).display());
    let (data, found) = opened(&format!("{}\nval_fraction = 0.2", at("plain"))).unwrap();
    assert_eq!(
        (data.format.name(), data.class_names.as_slice()),
        ("folder", &["cat".to_owned(), "dog".into()][..])
    );
    assert_eq!((found.train.items.len(), found.eval.items.len()), (16, 4));
    let (_, again) = opened(&format!("{}\nval_fraction = 0.2", at("plain"))).unwrap();
    assert_eq!(names(&again.eval), names(&found.eval), "the same clips every time");
    let (_, found) = opened(&format!("{}\nclass_names = ['dog', 'cat']", at("split"))).unwrap();
    assert_eq!((found.train.items.len(), found.eval.items.len()), (12, 8));
    assert_eq!(names(&found.train)[0], ("0.wav".to_owned(), 1), "labels are places in class_names");
    let (_, found) = opened(&format!("{}\nlimit_train = 5\nlimit_eval = 3", at("split"))).unwrap();
    assert_eq!((found.train.items.len(), found.eval.items.len()), (5, 3));
    let (_, found) =
        opened(&format!("{}\neval_path = '{}'", at("plain"), folder.path().join("split").display())).unwrap();
    assert_eq!((found.train.items.len(), found.eval.items.len()), (20, 8));

    let unknown = error(opened(&format!("{}\nclass_names = ['dog']", at("plain"))));
    says(&unknown, &[".WAV", "class \"cat\"", "expected one of `data.class_names`: dog"]);
    put_tone(folder.path(), "split/stray/cat/1.wav", 900, 0.3);
    says(&error(opened(&at("split"))), &["belongs to a split", "stray/cat/1.wav", "to none"]);
    put_tone(folder.path(), "plain/lone.wav", 900, 0.3);
    says(&error(opened(&at("plain"))), &["lone.wav", "has no label", "class/clip.wav"]);
    std::fs::create_dir(folder.path().join("nothing")).unwrap();
    says(&error(opened(&at("nothing"))), &["nothing", "holds no WAV files"]);
    says(&error(opened(&at("absent"))), &["absent", "does not exist", "`data.path`"]);
}

#[test]
fn lists_give_paths_labels_and_maybe_splits() {
    let folder = tempfile::tempdir().unwrap();
    for clip in ["a", "b", "c d", "e"] {
        put_tone(folder.path(), &format!("clips/{clip}.wav"), 900, 0.3);
    }
    let list = |name: &str, text: &str| {
        let path = put(folder.path(), name, text.as_bytes());
        opened(&format!("path = '{}'", path.display()))
    };
    let splits =
        "clips/a.wav,x,train\n\"clips/c d.wav\", y ,train\n\nclips/b.wav,x,test\nclips/e.wav,y,val\n";
    let (data, found) = list("plain.csv", splits).unwrap();
    assert_eq!(
        (data.format.name(), data.class_names.as_slice()),
        ("list", &["x".to_owned(), "y".into()][..])
    );
    assert_eq!(names(&found.train), [("a.wav".to_owned(), 0), ("c d.wav".to_owned(), 1)]);
    assert_eq!((names(&found.eval), found.set_aside), (vec![("e.wav".to_owned(), 1)], 1));
    let tabs = "Split\tlabel\tfilename\ntrain\tx\tclips/a.wav\ntest\ty\tclips/e.wav\n";
    let (_, found) = list("named.tsv", tabs).unwrap();
    assert_eq!((names(&found.train).len(), names(&found.eval)[0].clone()), (1, ("e.wav".to_owned(), 1)));

    for (text, parts) in [
        ("clips/a.wav,x\nclips/b.wav\n", &["bad.csv", "line 2", "`clips/b.wav` has no label"][..]),
        ("clips/a.wav,x\nclips/b.wav,\n", &["line 2", "has no label"]),
        ("clips/a.wav,x\nclips/z.wav,x\n", &["line 2", "clips/z.wav, which is not there"]),
        (
            "clips/a.wav,x,train\nclips/b.wav,x,later\n",
            &["line 2", "\"later\"", "\"train\", \"val\" or \"test\""],
        ),
        ("clips/a.wav,x,train\nclips/b.wav,x\n", &["gives a split", "none to", "b.wav"]),
        ("path,label\n", &["holds no WAV files"]),
        ("", &["holds no WAV files"]),
    ] {
        says(&error(list("bad.csv", text)), parts);
    }
    let path = put(folder.path(), "bytes.csv", &[b'a', 0xff, 0xfe, b',', b'x', b'\n']);
    says(&error(opened(&format!("path = '{}'", path.display()))), &["bytes.csv"]);
}

/// Everything that can be wrong with a clip is said before anything starts.
#[test]
fn wrong_clips_are_found_before_any_training() {
    let good = || {
        let folder = tempfile::tempdir().unwrap();
        for clip in 0..6 {
            put_tone(folder.path(), &format!("a/{clip}.wav"), 900, 0.3);
            put_tone(folder.path(), &format!("b/{clip}.wav"), 900, 0.4);
        }
        folder
    };
    let nan = {
        let mut bytes = wav_bytes((8000, 1, 32, true), &tone(900, 0.3));
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let whole = wav_bytes((8000, 1, 16, false), &tone(900, 0.3));
    let cases: [(Vec<u8>, &[&str]); 7] = [
        (vec![], &["is empty"]),
        (whole[..1000].to_vec(), &["is cut short"]),
        (wav_bytes((8000, 1, 16, false), &[]), &["holds no samples"]),
        (wav_bytes((8000, 1, 16, false), &tone(150, 0.3)), &["lasts 18.8 ms", "at least 25.0 ms"]),
        (nan, &["sample 899 is NaN"]),
        (
            wav_bytes((16_000, 1, 16, false), &tone(900, 0.3)),
            &["16000 samples a second", "has 8000", "data.sample_rate"],
        ),
        (wav_bytes((8000, 2, 16, false), &tone(1800, 0.3)), &["has 2 channels", "has 1", "data.channels"]),
    ];
    for (bytes, parts) in cases {
        let folder = good();
        put(folder.path(), "b/wrong.wav", &bytes);
        let text = format!("path = '{}'", folder.path().display());
        let said = error(opened(&text));
        says(&said, &["wrong.wav"]);
        says(&said, parts);
        // What can be brought to the same is, once it is said to what.
        let set = format!("{text}\nsample_rate = 8000\nchannels = 1");
        let mixed = parts.iter().any(|part| part.starts_with("data."));
        assert_eq!(opened(&set).is_ok(), mixed, "{parts:?}");
        assert!(opened(&format!("{set}\ncheck = false")).is_ok(), "not looked at: {parts:?}");
    }
    let folder = good();
    put(folder.path(), "b/three.wav", &wav_bytes((8000, 3, 16, false), &tone(2700, 0.3)));
    let said =
        error(opened(&format!("path = '{}'\nsample_rate = 8000\nchannels = 2", folder.path().display())));
    says(&said, &["three.wav", "has 3 channels, expected 2 or 1"]);
}

#[test]
fn configs_that_cannot_be_say_so() {
    for (text, parts) in [
        ("", &["missing key `data.path`", "tones"][..]),
        ("format = 'tonne'", &["did you mean \"tones\"?"]),
        ("format = 'tones'\npath = 'x'", &["reads no files"]),
        ("format = 'tones'\nspeaker = 'theo'", &["`data.speaker` is for format \"fsdd\""]),
        ("format = 'tones'\ntrain = 0", &["`data.train` is 0"]),
        ("format = 'tones'\nseconds = 0", &["`data.seconds` is 0"]),
        ("format = 'tones'\nseconds = 0.001", &["less than one column"]),
        (
            "format = 'tones'\nseconds = 36000\nfeatures = 'waveform'\nsample_rate = 768000",
            &["expected at most"],
        ),
        ("format = 'tones'\nsample_rate = 10", &["`data.sample_rate` is 10"]),
        ("format = 'tones'\nchannels = 0", &["`data.channels` is 0"]),
        ("format = 'tones'\nstd = 0", &["`data.std` is 0"]),
        ("format = 'tones'\nfbank.melss = 3", &["`data.fbank.melss`", "`data.fbank.mels`"]),
        ("format = 'tones'\nfbank.high = 5000", &["`high` 5000", "4000 Hz"]),
        ("format = 'tones'\naugment.noise = [10, 5]", &["`data.augment.noise`"]),
        ("format = 'tones'\naugment.gain = -1", &["`data.augment.gain` is -1"]),
        (
            "format = 'tones'\nfeatures = 'waveform'\naugment.frequency_masks = 2",
            &["`data.augment.frequency_masks`"],
        ),
        ("format = 'tones'\nclass_names = ['a', 'a']", &["\"a\" twice"]),
        ("format = 'tones'\nclass_names = ['a']", &["has its own names"]),
        ("path = 'x'\neval_path = 'y'\nspeaker = 'theo'", &["leave one out"]),
    ] {
        says(&error(opened(text)), parts);
    }
}

#[test]
fn tones_are_the_same_whenever_and_differ_by_seed_and_split() {
    let (data, found) = opened("format = 'tones'\ntrain = 24\neval = 8\nseconds = 0.5").unwrap();
    assert_eq!((data.sample_rate, found.train.items.len(), found.eval.items.len()), (Some(8000), 24, 8));
    assert_eq!(data.class_names, tones::classes());
    let wave = |set: &Labelled, at| set.source.wave(at).unwrap();
    let (_, other) = opened("format = 'tones'\ntrain = 24\neval = 8\nseconds = 0.5\nseed = 1").unwrap();
    for at in 0..8 {
        let clip = wave(&found.train, at);
        assert_eq!(clip, wave(&found.train, at));
        assert_ne!(clip, wave(&found.eval, at));
        assert_ne!(clip, wave(&other.train, at));
        assert_eq!(clip.channels.len(), 1);
        assert!(clip.channels[0].len() >= 4000);
        let loudest = clip.channels[0].iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!((0.001..=1.0).contains(&loudest), "clip {at}: {loudest}");
    }
    assert!(found.train.source.wave(24).is_err());
    assert_eq!(found.train.items[9], (9, 1));
}
