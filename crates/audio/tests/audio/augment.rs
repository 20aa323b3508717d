//! Random changes of training clips.

use ophidian_audio::augment::Augment;
use ophidian_core::rng;
use tch::{Kind, Tensor};

#[test]
fn masks_are_bands_and_stretches_of_at_most_their_width() {
    let augment =
        Augment { time_masks: 1, time_mask: 5, frequency_masks: 1, frequency_mask: 3, ..Augment::default() };
    let (rows, columns) = (8, 20);
    let (mut bands, mut stretches) = ([0; 4], [0; 6]);
    for seed in 0..4000 {
        let mut input = vec![1.0f32; 2 * rows * columns];
        augment.mask(&mut input, [rows, columns], 0.0, &mut rng::stream(&[seed]));
        let (first, second) = input.split_at(rows * columns);
        assert_eq!(first, second, "all channels alike");
        let zero = |cells: Vec<&f32>| cells.iter().all(|cell| **cell == 0.0);
        let masked_rows: Vec<usize> = (0..rows)
            .filter(|row| zero(first[row * columns..(row + 1) * columns].iter().collect()))
            .collect();
        let masked_columns: Vec<usize> = (0..columns)
            .filter(|column| zero(first.iter().skip(*column).step_by(columns).collect()))
            .collect();
        for masked in [&masked_rows, &masked_columns] {
            assert!(masked.windows(2).all(|pair| pair[1] == pair[0] + 1), "in one piece: {masked:?}");
        }
        let zeros = first.iter().filter(|cell| **cell == 0.0).count();
        let (r, c) = (masked_rows.len(), masked_columns.len());
        assert_eq!(zeros, r * columns + c * rows - r * c, "and nothing else");
        bands[r] += 1;
        stretches[c] += 1;
    }
    // Widths from 0 to the most, each as often.
    assert!(bands.iter().all(|count| (850..1150).contains(count)), "{bands:?}");
    assert!(stretches.iter().all(|count| (550..790).contains(count)), "{stretches:?}");
    // Masks that are wider than an input are as wide.
    let wide =
        Augment { time_masks: 3, time_mask: 10_000, frequency_masks: 3, frequency_mask: 10_000, ..augment };
    wide.mask(&mut [1.0; 6], [2, 3], 0.0, &mut rng::stream(&[1]));
    wide.mask(&mut [], [0, 0], 0.0, &mut rng::stream(&[1]));
}

#[test]
fn gain_and_noise_are_within_their_decibels() {
    let clip: Vec<f32> = (0..8000).map(|i| (i as f32 * 0.3).sin() * 0.1).collect();
    let power = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64;
    let (mut least, mut most) = (f64::MAX, f64::MIN);
    for seed in 0..300 {
        let mut channels = vec![clip.clone(); 2];
        let louder = Augment { gain: 6.0, ..Augment::default() };
        louder.apply(&mut channels, &mut rng::stream(&[seed]));
        let decibels = 10.0 * (power(&channels[0]) / power(&clip)).log10();
        assert!(decibels.abs() <= 6.001, "{decibels}");
        (least, most) = (least.min(decibels), most.max(decibels));
        let noisy = Augment { noise: Some([10.0, 20.0]), ..Augment::default() };
        let mut channels = vec![clip.clone(); 2];
        noisy.apply(&mut channels, &mut rng::stream(&[seed]));
        let noise: Vec<f32> = channels[0].iter().zip(&clip).map(|(a, b)| a - b).collect();
        let below = 10.0 * (power(&clip) / power(&noise)).log10();
        assert!((9.7..20.3).contains(&below), "{below}");
        assert_ne!(channels[0], channels[1], "each channel has noise of its own");
        let mut same = vec![clip.clone()];
        Augment::default().apply(&mut same, &mut rng::stream(&[seed]));
        assert_eq!(same[0], clip, "off by default");
    }
    assert!(least < -5.5 && most > 5.5, "{least} to {most}");
}

#[test]
fn mixup_blends_inputs_and_targets_alike() {
    let augment = Augment { mixup: 0.4, ..Augment::default() };
    let batch = 6;
    // Each clip is its own class, so that targets say what was blended.
    let target = Tensor::eye(batch, (Kind::Float, tch::Device::Cpu));
    let input = target.reshape([batch, 1, 2, 3]) * 5.0;
    let (mixed, soft) =
        augment.mix(input.shallow_clone(), target.shallow_clone(), &mut rng::stream(&[3])).unwrap();
    let wanted = soft.matmul(&(input.reshape([batch, 6]))).reshape([batch, 1, 2, 3]);
    assert!((mixed - wanted).abs().max().double_value(&[]) < 1e-6);
    assert!((soft.sum_dim_intlist(1, false, Kind::Float) - 1.0).abs().max().double_value(&[]) < 1e-6);
    assert!((&soft - &target).abs().max().double_value(&[]) > 1e-3);
    let (same, _) = Augment::default()
        .mix(input.shallow_clone(), target.shallow_clone(), &mut rng::stream(&[3]))
        .unwrap();
    assert_eq!(same, input);
    assert!(augment.mix(input, target.narrow(0, 0, 2), &mut rng::stream(&[3])).is_err());
}
