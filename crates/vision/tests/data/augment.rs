use ophidian_core::rng;
use ophidian_vision::{
    augment::{Augment, Op, mix},
    pixels::Pixels,
};
use proptest::prelude::*;
use tch::{Kind, Tensor};

use crate::common::{error, says};

fn image(height: usize, width: usize, channels: usize) -> Pixels {
    let data = (0..height * width * channels).map(|at| (at * 37 % 251) as u8).collect();
    Pixels { height, width, channels, data }
}

fn everything() -> Augment {
    Augment {
        flip: 0.5,
        crop_padding: 3,
        resized_crop: 0.2,
        rand_ops: 3,
        rand_magnitude: 9.0,
        erase: 0.5,
        ..Augment::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_keys_give_equal_pixels(height in 1..20usize, width in 1..20usize, colour: bool, key: u64) {
        let augment = everything();
        let image = image(height, width, if colour { 3 } else { 1 });
        let run = || {
            let mut rng = rng::stream(&[key]);
            let rect = augment.random_rect(image.bounds(), &mut rng).unwrap();
            prop_assert!(rect.top + rect.height <= height && rect.left + rect.width <= width);
            let out = augment.apply(image.crop_resize(rect, height, width), &mut rng);
            prop_assert_eq!(out.data.len(), image.data.len());
            let mut input: Vec<f32> = out.data.iter().map(|v| f32::from(*v) + 1.0).collect();
            augment.erase(&mut input, height, width, &mut rng);
            Ok(input)
        };
        prop_assert_eq!(run()?, run()?);
    }

    #[test]
    fn every_operation_takes_every_image(op in 0..Op::ALL.len(), height in 1..9usize, width in 1..9usize, colour: bool, strength in -1.0..1.0f64) {
        let image = image(height, width, if colour { 3 } else { 1 });
        let size = image.data.len();
        prop_assert_eq!(Op::ALL[op].apply(image, strength).data.len(), size);
    }
}

#[test]
fn different_keys_differ() {
    let augment = everything();
    let outputs: std::collections::BTreeSet<Vec<u8>> =
        (0..50).map(|key| augment.apply(image(12, 12, 3), &mut rng::stream(&[key])).data).collect();
    assert!(outputs.len() > 45, "{}", outputs.len());
}

#[test]
fn nothing_on_changes_nothing_and_draws_nothing() {
    use rand::Rng;
    let augment = Augment::default();
    let (mut used, mut fresh) = (rng::stream(&[1]), rng::stream(&[1]));
    assert_eq!(augment.apply(image(5, 5, 3), &mut used), image(5, 5, 3));
    assert!(augment.random_rect(image(5, 5, 3).bounds(), &mut used).is_none());
    assert_eq!(used.next_u64(), fresh.next_u64());
}

#[test]
fn operations_do_what_they_say() {
    let row = |data: &[u8]| Pixels { height: 1, width: data.len(), channels: 1, data: data.to_vec() };
    let ramp = row(&[0, 50, 100, 150, 200]);
    for op in Op::ALL {
        if !matches!(op, Op::Equalize | Op::AutoContrast) {
            assert_eq!(op.apply(ramp.clone(), 0.0), ramp, "{op:?} at strength 0");
        }
    }
    assert_eq!(Op::TranslateX.apply(ramp.clone(), 1.0 / (0.45 * 5.0)).data, [50, 100, 150, 200, 200]);
    assert_eq!(Op::Brightness.apply(ramp.clone(), -1.0).data, [0, 5, 10, 15, 20]);
    assert_eq!(Op::Contrast.apply(ramp.clone(), -1.0).data, [90, 95, 100, 105, 110]);
    assert_eq!(Op::Posterize.apply(row(&[255, 17]), 1.0).data, [240, 16]);
    assert_eq!(Op::Solarize.apply(row(&[10, 200]), 0.5).data, [10, 55]);
    assert_eq!(Op::AutoContrast.apply(row(&[50, 100, 150]), 0.3).data, [0, 127, 255]);
    let levels =
        Op::Equalize.apply(Pixels { height: 64, width: 64, ..row(&[7, 8, 9, 10].repeat(1024)) }, 0.0);
    let mut found: Vec<u8> = levels.data[..4].to_vec();
    found.dedup();
    assert_eq!(found.len(), 4);
    assert!(levels.data[3] > 250 && levels.data[0] < 5, "{:?}", &levels.data[..4]);
    let turned = Op::Rotate.apply(image(9, 9, 1), 1.0);
    assert_eq!(turned.data[4 * 9 + 4], image(9, 9, 1).data[4 * 9 + 4]);
    let colourless =
        Op::Colour.apply(Pixels { height: 1, width: 1, channels: 3, data: vec![200, 100, 0] }, -1.0);
    assert!(colourless.data[0] - colourless.data[2] < 30, "{colourless:?}");
}

#[test]
fn flips_are_as_often_as_asked() {
    let augment = Augment { flip: 0.3, ..Augment::default() };
    let mirrored = |key: u64| augment.apply(image(1, 4, 3), &mut rng::stream(&[key])) != image(1, 4, 3);
    let count = (0..2000).filter(|key| mirrored(*key)).count();
    assert!((500..700).contains(&count), "{count}");
    let always = Augment { flip: 1.0, ..Augment::default() };
    let out = always.apply(
        Pixels { height: 1, width: 2, channels: 3, data: vec![1, 2, 3, 4, 5, 6] },
        &mut rng::stream(&[]),
    );
    assert_eq!(out.data, [4, 5, 6, 1, 2, 3]);
}

#[test]
fn erasing_stays_within_its_share() {
    let augment = Augment { erase: 1.0, ..Augment::default() };
    let mut hit = 0;
    for key in 0..200 {
        let mut input = vec![1.0f32; 3 * 16 * 16];
        augment.erase(&mut input, 16, 16, &mut rng::stream(&[key]));
        let zeros = input.iter().filter(|value| **value == 0.0).count();
        assert_eq!(zeros % 3, 0);
        assert!(zeros <= 3 * 16 * 16 * 2 / 5, "{zeros}");
        hit += usize::from(zeros > 0);
    }
    assert!(hit > 190, "{hit}");
}

fn batch() -> (Tensor, Tensor) {
    let values = Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([8, 1, 1, 1]);
    (values.expand([8, 3, 10, 10], false).contiguous(), Tensor::eye(8, (Kind::Float, tch::Device::Cpu)))
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.eq_tensor(b).all().int64_value(&[]) == 1
}

#[test]
fn mixing_keeps_the_batch_consistent() {
    for augment in [
        Augment { mixup: 0.8, ..Augment::default() },
        Augment { cutmix: 1.0, ..Augment::default() },
        Augment { mixup: 0.4, cutmix: 1.0, ..Augment::default() },
    ] {
        let mut changed = 0;
        for key in 0..30 {
            let run = || {
                let (input, target) = batch();
                mix::mix(&augment, input, target, &mut rng::stream(&[key])).unwrap()
            };
            let (input, target) = run();
            let again = run();
            assert!(equal(&input, &again.0) && equal(&target, &again.1));
            // Image k is all k, target k is one-hot at k: the mean value of a mixed image is its target's mean index.
            let value = input.mean_dim(&[1i64, 2, 3][..], false, Kind::Float);
            let index = target.matmul(&Tensor::arange(8, (Kind::Float, tch::Device::Cpu)));
            assert!((value - index).abs().max().double_value(&[]) < 1e-4);
            let sums = target.sum_dim_intlist(1, false, Kind::Float);
            assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-6);
            changed += usize::from(!equal(&input, &batch().0));
        }
        assert!(changed > 20, "{changed}");
    }
}

#[test]
fn mixing_is_off_by_default_and_checks_shapes() {
    let (input, target) = batch();
    let (same, _) = mix::mix(&Augment::default(), input, target, &mut rng::stream(&[])).unwrap();
    assert!(equal(&same, &batch().0));
    let never = Augment { mixup: 1.0, mix_probability: 0.0, ..Augment::default() };
    let (input, target) = batch();
    assert!(equal(&mix::mix(&never, input, target, &mut rng::stream(&[])).unwrap().0, &batch().0));
    let on = Augment { mixup: 1.0, ..Augment::default() };
    let flat = mix::mix(
        &on,
        Tensor::zeros([2, 3], (Kind::Float, tch::Device::Cpu)),
        batch().1,
        &mut rng::stream(&[]),
    );
    says(&error(flat), &["(batch, channels, height, width)", "[2, 3]"]);
}
