//! Spectrograms.

use super::Parameters::{Own, Shared};
use super::{Choice, Published, Shape, class_token, scan};
use crate::Merge;

/// Frequencies x times.
const SPECTROGRAM: &[Shape] = &[Shape::Grid];

const MAJOR: Choice =
    Choice::Word { name: "major", words: &["frequency", "time"], means: &["row", "column"] };

pub(super) static TABLE: &[Published] = &[
    scan("aum/specgrid", SPECTROGRAM, "1", "{major} | class_token({class_token})")
        .also(&["aum/spectrogram"])
        .choices(&[MAJOR, class_token(&["middle", "head", "end", "both", "double", "none"])])
        .merged(Merge::Alone, Own)
        .noted(
            "frequencies x times; the layout alone, -1 for each class token; the mixer walks it both ways",
        ),
    scan("aum/bidirectional", SPECTROGRAM, "2", "{major} | class_token({class_token}) | bidirectional")
        .choices(&[MAJOR, class_token(&["middle", "head", "end", "both", "double", "none"])])
        .merged(Merge::Sum, Own)
        .noted("aum/specgrid, walked both ways"),
    scan("ssamba/frequency", SPECTROGRAM, "2", "row | class_token(head) | bidirectional")
        .also(&["ssamba/specgrid"])
        .merged(Merge::Sum, Own)
        .noted("frequencies x times, frequency by frequency; -1 for the class token, always first"),
    scan("ssam/time", SPECTROGRAM, "1", "column")
        .also(&["ssam/specgrid"])
        .merged(Merge::Alone, Shared)
        .noted("frequencies x times, time by time (the frequencies of one time, then the next), one causal direction"),
];
