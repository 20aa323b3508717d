use ophidian_vision::{
    shapes::{MEAN_STD, Stream},
    source::Source,
    video::motions::{self, Motion, Motions},
};
use tch::{Kind, Tensor};

fn set(len: usize, stream: Stream, seed: u64) -> Motions {
    Motions { len, frames: 8, height: 24, width: 24, channels: 1, seed, stream }
}

#[test]
fn the_same_index_is_the_same_clip() {
    let (a, b) = (set(40, Stream::Train, 3), set(50, Stream::Train, 3));
    for (index, frame) in (0..40).flat_map(|index| (0..8).map(move |frame| (index, frame))) {
        assert_eq!(a.frame(index, frame).unwrap(), b.frame(index, frame).unwrap());
    }
    let first = |set: &Motions| set.frame(0, 0).unwrap();
    assert_ne!(first(&a), first(&set(40, Stream::Eval, 3)));
    assert_ne!(first(&a), first(&set(40, Stream::Train, 4)));
    assert_ne!(first(&a), a.frame(0, 1).unwrap());
    assert!(a.frame(40, 0).is_err() && a.frame(0, 8).is_err());
    let mut seen = Vec::new();
    a.clip(5, &mut |len| Ok(vec![0, len - 1]), &mut |frame| {
        seen.push(frame);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [a.frame(5, 0).unwrap(), a.frame(5, 7).unwrap()]);
}

#[test]
fn classes_are_balanced_and_any_size_can_be_drawn() {
    let mut counts = [0; 8];
    (0..800).for_each(|index| counts[motions::label(index) as usize] += 1);
    assert_eq!(counts, [100; 8]);
    assert_eq!(motions::classes().len(), Motion::ALL.len());
    for (height, width, channels) in [(1, 1, 1), (1, 40, 3), (5, 3, 1), (40, 24, 3)] {
        let motions = Motions { len: 16, frames: 3, height, width, channels, seed: 0, stream: Stream::Train };
        for index in 0..16 {
            assert_eq!(motions.frame(index, 2).unwrap().data.len(), height * width * channels);
        }
    }
}

/// Frames `frame` of clips (n, pixels) between 0 and 1, and labels (n).
fn tensors(set: &Motions, frame: usize) -> (Tensor, Tensor) {
    let pixels: Vec<u8> = (0..set.len).flat_map(|index| set.frame(index, frame).unwrap().data).collect();
    let labels: Vec<i64> = (0..set.len).map(|index| i64::from(motions::label(index))).collect();
    let images = Tensor::from_slice(&pixels).view([set.len as i64, -1]).to_kind(Kind::Float) / 255.0;
    (images, Tensor::from_slice(&labels))
}

/// Pixels and their squares of the first frame, where the figure has moved furthest.
#[test]
fn no_single_frame_tells_the_class() {
    let (x, y) = tensors(&set(6000, Stream::Train, 0), 0);
    let (test_x, test_y) = tensors(&set(2000, Stream::Eval, 0), 0);
    let (mean, std) = (x.mean(Kind::Float), x.std(false));
    println!("mean {:.4} std {:.4}", mean.double_value(&[]), std.double_value(&[]));
    assert!((mean.double_value(&[]) - MEAN_STD.0).abs() < 0.01, "{mean:?}");
    assert!((std.double_value(&[]) - MEAN_STD.1).abs() < 0.015, "{std:?}");
    let features = |x: &Tensor| {
        let x = x - &mean;
        Tensor::cat(&[&x, &x.square(), &x.ones_like().narrow(1, 0, 1)], 1)
    };
    let a = features(&x);
    let gram = a.tr().matmul(&a) + Tensor::eye(a.size()[1], (Kind::Float, tch::Device::Cpu)) * 10.0;
    let weights = Tensor::linalg_solve(&gram, &a.tr().matmul(&y.one_hot(8).to_kind(Kind::Float)), true);
    let found = features(&test_x).matmul(&weights).argmax(1, false);
    let accuracy = found.eq_tensor(&test_y).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    println!("ridge regression on one frame: {:.1}%", 100.0 * accuracy);
    assert!(accuracy < 0.16, "{accuracy}");
}

#[test]
fn figures_move() {
    let set = set(64, Stream::Train, 1);
    for index in 0..64 {
        let first = set.frame(index, 0).unwrap();
        // The most of all frames: a square turned by a quarter looks as before.
        let change = |frame: usize| {
            let other = set.frame(index, frame).unwrap();
            first.data.iter().zip(&other.data).filter(|(a, b)| a.abs_diff(**b) > 30).count()
        };
        let most = (1..8).map(change).max().unwrap();
        assert!(most > 4, "{index}: {most} pixels change");
    }
}
