//! A picture of a cloud: its points seen from a corner, near ones darker; of a sequence all frames in one, from orange to
//! blue. And of what lies over its groups.

use ophidian_core::adapter::Laid;

/// Rows and columns of a picture.
const SIDE: usize = 128;

/// Half the side of a point, and of a group.
const DOT: i64 = 1;
const GROUP: i64 = 3;

/// An input's points as (right, down, towards the eye), frame by frame, and where they lie on paper.
struct View {
    points: Vec<Vec<[f64; 3]>>,
    middle: [f64; 2],
    scale: f64,
    /// Points of a group, its centre included.
    rows: usize,
}

impl View {
    /// Of an input of `shape` = (groups, 1 + size, 3 + features) or (frames, groups, …).
    fn new(input: &[f32], shape: &[i64]) -> Option<View> {
        let sizes: Vec<usize> =
            shape.iter().map(|side| usize::try_from(*side).ok()).collect::<Option<_>>()?;
        let (frames, groups, rows, width) = match sizes[..] {
            [groups, rows, width] => (1, groups, rows, width),
            [frames, groups, rows, width] => (frames, groups, rows, width),
            _ => return None,
        };
        let cloud = groups * rows * width;
        if width < 3 || cloud == 0 || input.len() != frames * cloud {
            return None;
        }
        let points: Vec<Vec<[f64; 3]>> =
            input.chunks_exact(cloud).map(|cloud| places(cloud, rows, width)).collect();
        // One scale for all frames.
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for [x, y, _] in points.iter().flatten() {
            low = [low[0].min(*x), low[1].min(*y)];
            high = [high[0].max(*x), high[1].max(*y)];
        }
        let extent = (high[0] - low[0]).max(high[1] - low[1]);
        let scale = if extent > 0.0 { (SIDE as f64 - 12.0) / extent } else { 0.0 };
        let middle = [0, 1].map(|axis| (low[axis] + high[axis]) / 2.0);
        Some(View { points, middle, scale, rows })
    }

    /// (column, row) of a point.
    fn at(&self, point: &[f64; 3]) -> [i64; 2] {
        [0, 1].map(|axis| (SIDE as f64 / 2.0 + (point[axis] - self.middle[axis]) * self.scale).round() as i64)
    }
}

/// Draws an input of `shape` = (groups, 1 + size, 3 + features) or (frames, groups, …): (height, width, RGB bytes).
pub fn picture(input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
    let view = View::new(input, shape)?;
    let frames = view.points.len();
    let mut pixels = vec![[255u8; 3]; SIDE * SIDE];
    for (frame, points) in view.points.iter().enumerate() {
        let mut dots: Vec<&[f64; 3]> = points.iter().collect();
        dots.sort_by(|a, b| a[2].total_cmp(&b[2]));
        let (far, near) = (dots.first()?[2], dots.last()?[2]);
        for point in dots {
            let (from, to, share) = if frames > 1 {
                ([250.0, 160.0, 60.0], [20.0, 50.0, 150.0], frame as f64 / (frames - 1) as f64)
            } else {
                (
                    [170.0, 195.0, 225.0],
                    [25.0, 60.0, 135.0],
                    if near > far { (point[2] - far) / (near - far) } else { 1.0 },
                )
            };
            let colour = std::array::from_fn(|at: usize| (from[at] + (to[at] - from[at]) * share) as u8);
            dot(&mut pixels, view.at(point), DOT, colour);
        }
    }
    Some((u32::try_from(SIDE).ok()?, u32::try_from(SIDE).ok()?, pixels.into_flattened()))
}

/// One of `values` for each group of an input, at its centre in the picture; the largest lie on top.
pub fn groups(input: &[f32], shape: &[i64], values: &[f32]) -> Option<Laid> {
    let view = View::new(input, shape)?;
    let centres: Vec<&[f64; 3]> = view.points.iter().flatten().step_by(view.rows.max(1)).collect();
    if centres.len() != values.len() {
        return None;
    }
    let mut dots: Vec<(&[f64; 3], f32)> = centres.into_iter().zip(values.iter().copied()).collect();
    dots.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let mut cells = vec![f32::NAN; SIDE * SIDE];
    for (centre, value) in dots {
        dot(&mut cells, view.at(centre), GROUP, value);
    }
    Laid::new(SIDE, SIDE, cells)
}

fn dot<T: Copy>(cells: &mut [T], [x, y]: [i64; 2], reach: i64, value: T) {
    for row in y - reach..=y + reach {
        for column in x - reach..=x + reach {
            let (Ok(row), Ok(column)) = (usize::try_from(row), usize::try_from(column)) else { continue };
            if let (true, Some(cell)) = (column < SIDE, cells.get_mut(row * SIDE + column)) {
                *cell = value;
            }
        }
    }
}

/// The points of a cloud as (right, down, towards the eye), seen from a corner.
fn places(cloud: &[f32], rows: usize, width: usize) -> Vec<[f64; 3]> {
    let mut places = Vec::new();
    for group in cloud.chunks_exact(rows * width) {
        // Row 0 is the centre as it is, the others are relative to it.
        let mut centre = [0.0; 3];
        for (at, row) in group.chunks_exact(width).enumerate() {
            let place: [f64; 3] =
                std::array::from_fn(|axis| centre[axis] + row.get(axis).copied().map_or(0.0, f64::from));
            if at == 0 {
                centre = place;
            }
            let [px, py, pz] = place;
            places.push([
                0.87 * px - 0.5 * py,
                0.25 * px + 0.43 * py - 0.87 * pz,
                0.43 * px + 0.75 * py + 0.5 * pz,
            ]);
        }
    }
    places
}
