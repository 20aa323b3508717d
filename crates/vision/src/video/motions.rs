//! A built-in generator of labelled clips: a figure that moves in one of eight ways, before clutter and noise. Clip
//! `index` of a seed is always the same clip.
//!
//! Only the change from frame to frame tells the class. The figure leaves on one side and comes back on the other, it
//! turns through all angles and grows or shrinks through all sizes before it starts anew, so a frame of one class is as
//! likely in every other; the frame in the middle is even the same, pixel by pixel but for noise.

use std::f32::consts::TAU;

use ophidian_core::{Error, Result, rng};
use rand::RngExt;

use crate::{
    pixels::Pixels,
    shapes::{Canvas, Figure, Stream, Stroke, colour, contrasting},
    source::{Choose, Source, Visit, no_image},
};

/// What a figure does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// It goes to the left.
    Left,
    /// It goes to the right.
    Right,
    /// It goes up.
    Up,
    /// It goes down.
    Down,
    /// It turns clockwise.
    Clockwise,
    /// It turns the other way.
    Counterclockwise,
    /// It grows.
    Grow,
    /// It shrinks.
    Shrink,
}

impl Motion {
    /// All motions; a label is an index into this.
    pub const ALL: [Motion; 8] = [
        Motion::Left,
        Motion::Right,
        Motion::Up,
        Motion::Down,
        Motion::Clockwise,
        Motion::Counterclockwise,
        Motion::Grow,
        Motion::Shrink,
    ];

    /// The class name.
    pub fn name(self) -> &'static str {
        match self {
            Motion::Left => "left",
            Motion::Right => "right",
            Motion::Up => "up",
            Motion::Down => "down",
            Motion::Clockwise => "clockwise",
            Motion::Counterclockwise => "counterclockwise",
            Motion::Grow => "grow",
            Motion::Shrink => "shrink",
        }
    }
}

/// Figures that look different when they turn a little.
const FIGURES: [Figure; 6] =
    [Figure::Square, Figure::Triangle, Figure::Cross, Figure::Corner, Figure::Bars, Figure::Half];

/// Smallest and largest radius, as a share of the shorter side.
const RADII: (f32, f32) = (0.16, 0.34);

/// `len` generated clips.
#[derive(Debug, Clone)]
pub struct Motions {
    /// Number of clips.
    pub len: usize,
    /// Frames of a clip.
    pub frames: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Equal seeds, equal clips.
    pub seed: u64,
    /// Training or evaluation clips.
    pub stream: Stream,
}

/// The class names, in the order of their labels.
pub fn classes() -> Vec<String> {
    Motion::ALL.iter().map(|motion| motion.name().to_owned()).collect()
}

/// The label of clip `index`: classes take turns, so every set is balanced.
pub fn label(index: usize) -> u32 {
    (index % Motion::ALL.len()) as u32
}

impl Source for Motions {
    fn len(&self) -> usize {
        self.len
    }

    /// The frame in the middle.
    fn pixels(&self, index: usize) -> Result<Pixels> {
        self.frame(index, self.frames / 2)
    }

    fn clip(&self, index: usize, choose: &mut Choose<'_>, visit: &mut Visit<'_>) -> Result<()> {
        choose(self.frames)?.into_iter().try_for_each(|frame| visit(self.frame(index, frame)?))
    }

    fn name_of(&self, index: usize) -> String {
        let stream = if self.stream == Stream::Train { "train" } else { "eval" };
        format!("motions {stream} #{index}")
    }

    fn fixed_size(&self) -> Option<(usize, usize, usize)> {
        Some((self.height, self.width, self.channels))
    }
}

impl Motions {
    /// Frame `frame` of clip `index`.
    ///
    /// # Errors
    /// There is no such clip or frame.
    pub fn frame(&self, index: usize, frame: usize) -> Result<Pixels> {
        if index >= self.len {
            return Err(no_image(index, self.len));
        }
        if frame >= self.frames {
            return Err(Error::invalid(format!("there is no frame {frame}; a clip has {}", self.frames)));
        }
        let keys = [self.seed, self.stream as u64, index as u64, MOTIONS];
        let scene = Scene::random(self.height, self.width, self.channels, &mut rng::stream(&keys));
        let motion = Motion::ALL[label(index) as usize];
        let mut noise = rng::stream(&[rng::hash(&keys), frame as u64]);
        Ok(scene.draw(motion, frame as f32 - (self.frames / 2) as f32, &mut noise))
    }
}

/// Keeps the streams apart from those of the still figures.
const MOTIONS: u64 = 0x6d6f_7469_6f6e;

/// What is on view, whatever the figure does.
struct Scene {
    height: f32,
    width: f32,
    background: Canvas,
    figure: Figure,
    paint: [f32; 3],
    /// Where the figure is in the middle of the clip, how it is turned, and where between the two radii it is (0 to 1).
    x: f32,
    y: f32,
    angle: f32,
    size: f32,
    /// Change from frame to frame, as a share of what it takes to come round.
    pace: f32,
    noise: f32,
}

impl Scene {
    fn random(height: usize, width: usize, channels: usize, random: &mut rng::Rng) -> Scene {
        let mut background = Canvas::new(height, width, channels);
        let back = colour(random, channels);
        background.background(back, random);
        for _ in 0..random.random_range(0..=2) {
            let stroke = Stroke::random(height, width, height.min(width) as f32 * 0.02, random);
            let paint = colour(random, channels);
            background.paint(&|x, y| stroke.distance(x, y), paint, 0.6);
        }
        Scene {
            height: height as f32,
            width: width as f32,
            background,
            figure: FIGURES[random.random_range(0..FIGURES.len())],
            paint: contrasting(back, random, channels),
            x: random.random_range(0.0..width as f32),
            y: random.random_range(0.0..height as f32),
            angle: random.random_range(0.0..TAU),
            size: random.random_range(0.0..1.0),
            pace: random.random_range(0.06..0.11),
            noise: random.random_range(2.0..8.0),
        }
    }

    /// The scene `time` frames after the middle.
    fn draw(&self, motion: Motion, time: f32, random: &mut rng::Rng) -> Pixels {
        let (width, height) = (self.width, self.height);
        let gone = self.pace * time;
        // A square turned by a quarter looks as before, so turning is slower.
        let turned = 0.6 * gone * TAU;
        let (mut x, mut y, mut angle, mut size) = (self.x, self.y, self.angle, self.size);
        match motion {
            Motion::Left => x -= gone * width,
            Motion::Right => x += gone * width,
            Motion::Up => y -= gone * height,
            Motion::Down => y += gone * height,
            Motion::Clockwise => angle += turned,
            Motion::Counterclockwise => angle -= turned,
            Motion::Grow => size += gone,
            Motion::Shrink => size -= gone,
        }
        let radius = height.min(width) * RADII.0 * (RADII.1 / RADII.0).powf(size.rem_euclid(1.0));
        let (sin, cos) = angle.sin_cos();
        // The nearest of the figure's images on a plane that repeats itself.
        let wrapped = |distance: f32, side: f32| (distance + side / 2.0).rem_euclid(side) - side / 2.0;
        let mut canvas = self.background.clone();
        canvas.paint(
            &|px, py| {
                let (dx, dy) = (wrapped(px - x, width), wrapped(py - y, height));
                let at = ((cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius);
                self.figure.distance(at.0, at.1) * radius
            },
            self.paint,
            1.0,
        );
        canvas.noise(self.noise, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two motions run through the same pictures, one forward and one backward, and meet in the middle.
    #[test]
    fn opposite_motions_are_each_other_backwards() {
        let quiet = |seed| {
            let mut scene = Scene::random(20, 30, 1, &mut rng::stream(&[seed]));
            scene.noise = 0.0;
            scene
        };
        let draw = |scene: &Scene, motion, time| scene.draw(motion, time, &mut rng::stream(&[0]));
        for scene in (0..20).map(quiet) {
            for pair in Motion::ALL.chunks(2) {
                for time in [-3.0, -1.0, 2.0] {
                    assert_eq!(draw(&scene, pair[0], time), draw(&scene, pair[1], -time), "{pair:?}");
                }
            }
            let middle = draw(&scene, Motion::Left, 0.0);
            assert!(Motion::ALL.iter().all(|motion| draw(&scene, *motion, 0.0) == middle));
        }
    }
}
