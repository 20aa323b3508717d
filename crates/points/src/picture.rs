//! A picture of a cloud: its points seen from a corner, near ones darker; of a sequence a small one for each frame, row by
//! row. And of what lies over its groups.

use ophidian_core::adapter::Laid;

/// Rows and columns of a picture, and of each of several.
const SIDE: usize = 128;
const SMALL: usize = 84;

/// Between two of several.
const LINE: [u8; 3] = [205; 3];

/// Half the side of a point, and of a group.
const DOT: i64 = 1;
const GROUP: i64 = 3;

/// An input's points as (right, down, towards the eye), frame by frame, and where they lie on paper.
struct View {
    points: Vec<Vec<[f64; 3]>>,
    middle: [f64; 2],
    scale: f64,
    /// Rows and columns of a frame, and frames in a row.
    side: usize,
    across: usize,
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
        let side = if frames > 1 { SMALL } else { SIDE };
        let scale = if extent > 0.0 { (side as f64 - 12.0) / extent } else { 0.0 };
        let middle = [0, 1].map(|axis| (low[axis] + high[axis]) / 2.0);
        let across = (frames as f64).sqrt().ceil() as usize;
        Some(View { points, middle, scale, side, across, rows })
    }

    /// Height and width of the picture.
    fn sizes(&self) -> [usize; 2] {
        [self.points.len().div_ceil(self.across) * self.side, self.across * self.side]
    }

    /// The cells of a picture without points, `line` between two frames and `empty` elsewhere.
    fn lined<T: Copy>(&self, empty: T, line: T) -> Vec<T> {
        let [height, width] = self.sizes();
        // Two wide, so that a smaller view does not lose it.
        let between = |place: usize| place >= self.side && place % self.side < 2;
        let cell = |at: usize| if between(at / width) || between(at % width) { line } else { empty };
        (0..height * width).map(cell).collect()
    }

    /// Paints a point of a frame on `cells` of the picture, as a square that reaches `reach` to each side.
    fn dot<T: Copy>(&self, cells: &mut [T], frame: usize, point: &[f64; 3], reach: i64, value: T) {
        let middle = self.side as f64 / 2.0;
        let [x, y] =
            [0, 1].map(|axis| (middle + (point[axis] - self.middle[axis]) * self.scale).round() as i64);
        let (top, left) = (frame / self.across * self.side, frame % self.across * self.side);
        for row in y - reach..=y + reach {
            for column in x - reach..=x + reach {
                let (Ok(row), Ok(column)) = (usize::try_from(row), usize::try_from(column)) else { continue };
                let cell = cells.get_mut((top + row) * self.across * self.side + left + column);
                if let (true, Some(cell)) = (row < self.side && column < self.side, cell) {
                    *cell = value;
                }
            }
        }
    }
}

/// What the pictures of inputs of `shape` show, if there are several frames.
pub fn reading(shape: &[i64]) -> Option<String> {
    let [frames @ 2..=i64::MAX, _, _, _] = *shape else { return None };
    Some(format!("{frames} time steps, from left to right and row by row, each seen from the same corner"))
}

/// Draws an input of `shape` = (groups, 1 + size, 3 + features) or (frames, groups, …): (height, width, RGB bytes).
pub fn picture(input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
    let view = View::new(input, shape)?;
    let [height, width] = view.sizes();
    let mut pixels = view.lined([255; 3], LINE);
    for (frame, points) in view.points.iter().enumerate() {
        let mut dots: Vec<&[f64; 3]> = points.iter().collect();
        dots.sort_by(|a, b| a[2].total_cmp(&b[2]));
        let (far, near) = (dots.first()?[2], dots.last()?[2]);
        for point in dots {
            let (from, to): ([f64; 3], [f64; 3]) = ([170.0, 195.0, 225.0], [25.0, 60.0, 135.0]);
            let share = if near > far { (point[2] - far) / (near - far) } else { 1.0 };
            let colour = std::array::from_fn(|at: usize| (from[at] + (to[at] - from[at]) * share) as u8);
            view.dot(&mut pixels, frame, point, DOT, colour);
        }
    }
    Some((u32::try_from(height).ok()?, u32::try_from(width).ok()?, pixels.into_flattened()))
}

/// One of `values` for each group of an input, at its centre in the picture; the largest lie on top.
pub fn groups(input: &[f32], shape: &[i64], values: &[f32]) -> Option<Laid> {
    let view = View::new(input, shape)?;
    let of_frame = |(frame, points): (usize, &'_ Vec<[f64; 3]>)| {
        points.iter().step_by(view.rows.max(1)).map(|centre| (frame, *centre)).collect::<Vec<_>>()
    };
    let centres: Vec<(usize, [f64; 3])> = view.points.iter().enumerate().flat_map(of_frame).collect();
    if centres.len() != values.len() {
        return None;
    }
    let mut dots: Vec<((usize, [f64; 3]), f32)> = centres.into_iter().zip(values.iter().copied()).collect();
    dots.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let [height, width] = view.sizes();
    let mut cells = view.lined(f32::NAN, f32::INFINITY);
    for ((frame, centre), value) in dots {
        view.dot(&mut cells, frame, &centre, GROUP, value);
    }
    Laid::new(height, width, cells)
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
