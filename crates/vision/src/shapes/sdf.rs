//! The figures, each as a distance from its outline (negative inside) in a frame where it reaches about 1 from the
//! origin. Distances are exact near the outline for most figures and close enough for one pixel of smoothing for all.

/// A figure of the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// A filled circle.
    Disc,
    /// A circle with a large round hole.
    Ring,
    /// A filled square.
    Square,
    /// An equilateral triangle.
    Triangle,
    /// A star of five points.
    Star,
    /// A plus sign.
    Cross,
    /// A moon.
    Crescent,
    /// Two bars that meet in a right angle.
    Corner,
    /// Two parallel bars.
    Bars,
    /// Half a disc.
    Half,
}

impl Figure {
    /// All figures; a label is an index into this.
    pub const ALL: [Figure; 10] = [
        Figure::Disc,
        Figure::Ring,
        Figure::Square,
        Figure::Triangle,
        Figure::Star,
        Figure::Cross,
        Figure::Crescent,
        Figure::Corner,
        Figure::Bars,
        Figure::Half,
    ];

    /// The class name.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Disc => "disc",
            Figure::Ring => "ring",
            Figure::Square => "square",
            Figure::Triangle => "triangle",
            Figure::Star => "star",
            Figure::Cross => "cross",
            Figure::Crescent => "crescent",
            Figure::Corner => "corner",
            Figure::Bars => "bars",
            Figure::Half => "half",
        }
    }

    /// Distance of (`x`, `y`) from the outline, negative inside.
    pub fn distance(self, x: f32, y: f32) -> f32 {
        match self {
            Figure::Disc => x.hypot(y) - 0.85,
            Figure::Ring => (x.hypot(y) - 0.72).abs() - 0.2,
            Figure::Square => bar(x, y, 0.75, 0.75),
            Figure::Triangle => {
                // Inside of three lines at 0.5 from the centre.
                let (s, c) = (0.866_025_4, 0.5);
                y.max(x * s - y * c).max(-x * s - y * c) - 0.5
            }
            Figure::Star => star(x, y),
            Figure::Cross => bar(x, y, 0.95, 0.28).min(bar(x, y, 0.28, 0.95)),
            Figure::Crescent => (x.hypot(y) - 0.95).max(0.75 - (x - 0.45).hypot(y)),
            Figure::Corner => bar(x, y - 0.55, 0.8, 0.25).min(bar(x - 0.55, y, 0.25, 0.8)),
            Figure::Bars => bar(x, y.abs() - 0.5, 0.85, 0.22),
            Figure::Half => (x.hypot(y - 0.35) - 0.95).max(y - 0.35),
        }
    }
}

/// An upright rectangle of half sizes `a` and `b`.
fn bar(x: f32, y: f32, a: f32, b: f32) -> f32 {
    let (dx, dy) = (x.abs() - a, y.abs() - b);
    dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0)
}

/// Ten edges between points at radius 1 and notches at 0.42, folded into one.
fn star(x: f32, y: f32) -> f32 {
    const STEP: f32 = std::f32::consts::TAU / 5.0;
    const NOTCH: f32 = 0.42;
    let angle = y.atan2(x).rem_euclid(STEP);
    let angle = angle.min(STEP - angle);
    let radius = x.hypot(y);
    let (px, py) = (radius * angle.cos(), radius * angle.sin());
    // The edge from (1, 0) to the notch at half a step.
    let (nx, ny) = (NOTCH * (STEP / 2.0).cos(), NOTCH * (STEP / 2.0).sin());
    let (ex, ey) = (nx - 1.0, ny);
    let length = ex.hypot(ey);
    ((px - 1.0) * ey - py * ex) / length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_an_inside_and_end_within_their_frame() {
        for figure in Figure::ALL {
            let grid =
                || (-150..=150).flat_map(|y| (-150..=150).map(move |x| (x as f32 / 100.0, y as f32 / 100.0)));
            let inside = grid().filter(|(x, y)| figure.distance(*x, *y) < 0.0).count() as f32 / 1e4;
            assert!((0.5..2.5).contains(&inside), "{figure:?} covers {inside}");
            let outside =
                grid().filter(|(x, y)| x.hypot(*y) > 1.35).all(|(x, y)| figure.distance(x, y) > 0.0);
            assert!(outside, "{figure:?} leaves its frame");
        }
    }
}
