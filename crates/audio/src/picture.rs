//! Pictures of inputs for reports.

/// Most pixels of a side: longer inputs are shown in steps.
const MOST: usize = 512;

/// Fewest rows and columns: smaller inputs are shown with every cell several pixels wide and high.
const LEAST: usize = 96;

/// Rows of a waveform's picture.
const WAVE_ROWS: usize = 64;

/// From low to high: dark blue, violet, orange, pale yellow.
const COLOURS: [[f64; 3]; 5] = [
    [0.0, 0.0, 20.0],
    [80.0, 18.0, 123.0],
    [182.0, 54.0, 121.0],
    [251.0, 136.0, 97.0],
    [252.0, 253.0, 191.0],
];

/// The first channel of an input (channels, rows, columns): a spectrogram with low frequencies below, or a waveform, as
/// (height, width, RGB bytes row by row). None if the shape is no input's.
pub fn draw(input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
    let [channels, rows, columns] = *shape else { return None };
    let [channels, rows, columns] = [channels, rows, columns].map(|side| usize::try_from(side).unwrap_or(0));
    let expected = channels.checked_mul(rows)?.checked_mul(columns)?;
    if expected == 0 || input.len() != expected {
        return None;
    }
    let map = input.get(..rows * columns)?;
    let finite = || map.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let share = |value: f32| f64::from((value - low) / (high - low).max(1e-6)).clamp(0.0, 1.0);
    if rows == 1 { wave(map, share) } else { spectrogram(map, rows, columns, share) }
}

fn spectrogram(
    map: &[f32],
    rows: usize,
    columns: usize,
    share: impl Fn(f32) -> f64,
) -> Option<(u32, u32, Vec<u8>)> {
    let side = |cells: usize| if cells < LEAST { cells * LEAST.div_ceil(cells) } else { cells.min(MOST) };
    let (height, width) = (side(rows), side(columns));
    let mut pixels = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        let row = rows - 1 - y * rows / height;
        for x in 0..width {
            let value = map.get(row * columns + x * columns / width).copied().unwrap_or(0.0);
            pixels.extend(colour(share(value)));
        }
    }
    Some((u32::try_from(height).ok()?, u32::try_from(width).ok()?, pixels))
}

/// Each column is lit from the least to the greatest sample that falls into it.
fn wave(samples: &[f32], share: impl Fn(f32) -> f64) -> Option<(u32, u32, Vec<u8>)> {
    let width = samples.len().clamp(1, MOST / 2);
    let row = |value: f32| ((1.0 - share(value)) * (WAVE_ROWS - 1) as f64).round() as usize;
    let reach = |x: usize| {
        let (from, upto) = (x * samples.len() / width, ((x + 1) * samples.len()).div_ceil(width));
        let part = samples.get(from..upto).unwrap_or_default().iter().copied();
        let (low, high) =
            part.fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
        row(high)..=row(low)
    };
    let reaches: Vec<_> = (0..width).map(reach).collect();
    let pixel =
        |y: usize| reaches.iter().flat_map(move |reach| colour(if reach.contains(&y) { 0.8 } else { 0.0 }));
    let pixels = (0..WAVE_ROWS).flat_map(pixel).collect();
    Some((WAVE_ROWS as u32, u32::try_from(width).ok()?, pixels))
}

fn colour(share: f64) -> [u8; 3] {
    let at = share * (COLOURS.len() - 1) as f64;
    let first = (at as usize).min(COLOURS.len() - 2);
    let (a, b, part) = (COLOURS[first], COLOURS[first + 1], at - first as f64);
    std::array::from_fn(|channel| (a[channel] + (b[channel] - a[channel]) * part).round() as u8)
}
