use ophidian_vision::{
    shapes::{self, Figure, Shapes, Stream},
    source::Source,
};
use tch::{Kind, Tensor};

fn set(len: usize, stream: Stream, seed: u64) -> Shapes {
    Shapes { len, height: 28, width: 28, channels: 1, seed, stream }
}

#[test]
fn the_same_index_is_the_same_image() {
    let (a, b) = (set(200, Stream::Train, 3), set(300, Stream::Train, 3));
    for index in 0..200 {
        assert_eq!(a.pixels(index).unwrap(), b.pixels(index).unwrap());
    }
    assert_ne!(a.pixels(0).unwrap(), set(200, Stream::Eval, 3).pixels(0).unwrap());
    assert_ne!(a.pixels(0).unwrap(), set(200, Stream::Train, 4).pixels(0).unwrap());
    assert_ne!(a.pixels(0).unwrap(), a.pixels(10).unwrap());
    assert!(a.pixels(200).is_err());
}

#[test]
fn classes_are_balanced_and_named() {
    let mut counts = [0; 10];
    (0..8190).for_each(|index| counts[shapes::label(index) as usize] += 1);
    assert_eq!(counts, [819; 10]);
    assert_eq!(shapes::classes().len(), Figure::ALL.len());
    assert_eq!(shapes::classes()[4], "star");
}

#[test]
fn any_size_and_colour_can_be_drawn() {
    for (height, width, channels) in [(1, 1, 1), (1, 40, 3), (28, 28, 3), (5, 3, 1), (64, 48, 3)] {
        let shapes = Shapes { len: 20, height, width, channels, seed: 0, stream: Stream::Train };
        for index in 0..20 {
            assert_eq!(shapes.pixels(index).unwrap().data.len(), height * width * channels);
        }
    }
}

/// Images (n, 784) between 0 and 1 and labels (n).
fn tensors(shapes: &Shapes) -> (Tensor, Tensor) {
    let pixels: Vec<u8> = (0..shapes.len).flat_map(|index| shapes.pixels(index).unwrap().data).collect();
    let labels: Vec<i64> = (0..shapes.len).map(|index| i64::from(shapes::label(index))).collect();
    let images = Tensor::from_slice(&pixels).view([shapes.len as i64, -1]).to_kind(Kind::Float) / 255.0;
    (images, Tensor::from_slice(&labels))
}

#[test]
fn a_linear_classifier_does_poorly() {
    let (x, y) = tensors(&set(4000, Stream::Train, 0));
    let (test_x, test_y) = tensors(&set(1000, Stream::Eval, 0));
    let mean = x.mean(Kind::Float);
    let std = x.std(false);
    println!("mean {:.4} std {:.4}", mean.double_value(&[]), std.double_value(&[]));
    assert!((mean.double_value(&[]) - shapes::MEAN_STD.0).abs() < 0.01, "{mean:?}");
    assert!((std.double_value(&[]) - shapes::MEAN_STD.1).abs() < 0.01, "{std:?}");
    let features = |x: &Tensor| Tensor::cat(&[x - &mean, x.ones_like().narrow(1, 0, 1)], 1);
    let a = features(&x);
    let targets = y.one_hot(10).to_kind(Kind::Float);
    // Ridge regression.
    let gram = a.tr().matmul(&a) + Tensor::eye(a.size()[1], (Kind::Float, tch::Device::Cpu)) * 10.0;
    let weights = Tensor::linalg_solve(&gram, &a.tr().matmul(&targets), true);
    let found = features(&test_x).matmul(&weights).argmax(1, false);
    let accuracy = found.eq_tensor(&test_y).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    println!("ridge regression on pixels: {:.1}%", 100.0 * accuracy);
    assert!(accuracy < 0.2, "{accuracy}");
}

#[test]
fn drawing_is_quick() {
    let shapes = set(2000, Stream::Train, 0);
    let start = std::time::Instant::now();
    (0..shapes.len).for_each(|index| drop(shapes.pixels(index).unwrap()));
    let rate = shapes.len as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} images a second");
    // Many thousands a second on an idle core; a tenth of that leaves room for a busy machine.
    assert!(rate > 500.0, "{rate}");
}

#[test]
fn figures_stand_out() {
    // Without noise in the way: the middle of many discs differs from the corner of their images.
    let shapes = set(400, Stream::Train, 0);
    let spread = |image: &[u8]| {
        let (low, high) = image.iter().fold((255, 0), |(low, high), v| (low.min(*v), high.max(*v)));
        i32::from(high) - i32::from(low)
    };
    let clear = (0..400).filter(|index| spread(&shapes.pixels(*index).unwrap().data) > 60).count();
    assert_eq!(clear, 400);
}
