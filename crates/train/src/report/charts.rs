//! Charts as SVG whose colours follow the page: light, dark or print.

use maud::{Markup, html};

use super::{Interval, study::Point};

/// Where numbers lie on paper.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Frame {
    fn across(&self, x: f64) -> f64 {
        self.left + self.width * (x - self.x.0) / (self.x.1 - self.x.0)
    }

    fn down(&self, y: f64) -> f64 {
        self.top + self.height * (self.y.1 - y) / (self.y.1 - self.y.0)
    }

    /// Lines and numbers of both axes.
    fn axes(
        &self,
        across: &[f64],
        down: &[f64],
        x: &dyn Fn(f64) -> String,
        y: &dyn Fn(f64) -> String,
    ) -> Markup {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        html! {
            @for value in down {
                line.grid x1=(px(self.left)) x2=(px(right)) y1=(px(self.down(*value))) y2=(px(self.down(*value))) {}
                text.end x=(px(self.left - 6.0)) y=(px(self.down(*value) + 4.0)) { (y(*value)) }
            }
            @for value in across {
                text.middle x=(px(self.across(*value))) y=(px(bottom + 16.0)) { (x(*value)) }
            }
            line.axis x1=(px(self.left)) x2=(px(right)) y1=(px(bottom)) y2=(px(bottom)) {}
        }
    }

    fn line(&self, points: &[(f64, f64)]) -> String {
        let point = |(x, y): &(f64, f64)| format!("{},{}", px(self.across(*x)), px(self.down(*y)));
        points.iter().map(point).collect::<Vec<_>>().join(" ")
    }
}

/// A difference with its interval, on a line that goes `reach` to either side of 0.
pub(super) fn interval(value: f64, interval: Option<Interval>, reach: f64) -> Markup {
    let frame = Frame { x: (-reach, reach), y: (0.0, 1.0), left: 4.0, top: 0.0, width: 152.0, height: 18.0 };
    let at = |value: f64| px(frame.across(value.clamp(-reach, reach)));
    let clear = interval.is_some_and(|interval| !interval.contains(0.0));
    let class = match (clear, value > 0.0) {
        (false, _) => "unclear",
        (true, true) => "better",
        (true, false) => "worse",
    };
    html! {
        svg.interval.(class) viewBox="0 0 160 18" role="img" aria-hidden="true" {
            line.zero x1=(at(0.0)) x2=(at(0.0)) y1="0" y2="18" {}
            @if let Some(interval) = interval {
                line.bar x1=(at(interval.low)) x2=(at(interval.high)) y1="9" y2="9" {}
            }
            circle cx=(at(value)) cy="9" r="4" {}
        }
    }
}

/// The curves of one arm over those of all.
pub(super) fn curves(own: &[&[Point]], all: &[&[Point]]) -> Markup {
    let values = || all.iter().flat_map(|curve| curve.iter());
    let end = values().map(|point| point.epoch).fold(1.0, f64::max);
    // A run that measures once has a point and no line.
    let start = values().map(|point| point.epoch).fold(end, f64::min).min(end - 1e-9);
    let start = if end - start < 1e-6 { end - 1.0 } else { start };
    let (low, high) = bounds(values().map(|point| 100.0 * point.accuracy));
    let ticks = ticks(low, high, 4);
    let frame = Frame { x: (start, end), y: (low, high), left: 40.0, top: 8.0, width: 250.0, height: 130.0 };
    let series = |curve: &[Point]| {
        frame.line(&curve.iter().map(|p| (p.epoch, 100.0 * p.accuracy)).collect::<Vec<_>>())
    };
    html! {
        svg.chart viewBox="0 0 312 166" role="img" aria-label="accuracy over epochs" {
            (frame.axes(&[start, end], &ticks, &|x| plain(x), &|y| format!("{}%", plain(y))))
            @for curve in all { polyline.others points=(series(curve)) {} }
            @for curve in own {
                polyline.own points=(series(curve)) {}
                @if let Some(last) = curve.last() {
                    circle.own cx=(px(frame.across(last.epoch))) cy=(px(frame.down(100.0 * last.accuracy))) r="3" {}
                }
            }
            text.middle x="165" y="163" { "epoch" }
        }
    }
}

/// One arm of a scatter chart.
pub(super) struct Dot {
    pub rank: usize,
    pub name: String,
    pub x: f64,
    /// From 0 to 1.
    pub accuracy: f64,
    pub deviation: f64,
    pub baseline: bool,
}

/// Accuracy against a cost; the dots bear their ranks.
pub(super) fn scatter(dots: &[Dot], what: &str, show: &dyn Fn(f64) -> String) -> Markup {
    let (left, right) = bounds(dots.iter().map(|dot| dot.x));
    let ends = |dot: &Dot| [dot.accuracy - dot.deviation, dot.accuracy + dot.deviation].map(|y| 100.0 * y);
    let (low, high) = bounds(dots.iter().flat_map(ends));
    let frame = Frame {
        x: (left.max(0.0), right),
        y: (low, high),
        left: 46.0,
        top: 10.0,
        width: 330.0,
        height: 210.0,
    };
    let (across, down) = (ticks(frame.x.0, right, 4), ticks(low, high, 5));
    html! {
        svg.chart viewBox="0 0 390 262" role="img" aria-label={ "accuracy against " (what) } {
            (frame.axes(&across, &down, show, &|y| format!("{}%", plain(y))))
            @for dot in dots {
                @let (x, spread) = (frame.across(dot.x), ends(dot).map(|y| frame.down(y)));
                line.spread x1=(px(x)) x2=(px(x)) y1=(px(spread[0])) y2=(px(spread[1])) {}
            }
            @for dot in dots {
                @let (x, y) = (frame.across(dot.x), frame.down(100.0 * dot.accuracy));
                circle.dot.baseline[dot.baseline] cx=(px(x)) cy=(px(y)) r="9" {
                    title { (dot.name) ": " (show(dot.x)) ", " (format!("{:.2}%", 100.0 * dot.accuracy)) }
                }
                text.on-dot x=(px(x)) y=(px(y + 4.0)) { (dot.rank) }
            }
            text.middle x="211" y="257" { (what) }
        }
    }
}

/// Lowest and highest with some room.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { 0.06 * (high - low) } else { high.abs().max(1.0) * 0.05 };
    (low - room, high + room)
}

/// About `count` round numbers from `low` to `high`.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    (0..=2 * count as i64).map(|i| (first + i) as f64 * step).take_while(|value| *value <= high).collect()
}

/// A number without needless digits.
fn plain(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A length on paper.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.0, 10.0, 4), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(88.3, 93.1, 5), [89.0, 90.0, 91.0, 92.0, 93.0]);
        for (low, high) in [(0.0, 1e-9), (-3.0, 7e9), (99.9, 100.1), (5.0, 5.000001)] {
            let found = ticks(low, high, 5);
            assert!((1..=11).contains(&found.len()), "{low} {high}: {found:?}");
            assert!(found.iter().all(|tick| (low..=high).contains(tick)), "{found:?}");
        }
    }

    #[test]
    fn charts_of_nothing_and_of_one_point_hold_no_nan() {
        let point = Point { epoch: 1.0, seconds: 1.0, loss: 1.0, accuracy: 0.5 };
        let one: &[Point] = &[point];
        let dot = Dot { rank: 1, name: "<a>".into(), x: 0.0, accuracy: 0.5, deviation: 0.0, baseline: true };
        let drawn = [
            curves(&[], &[]),
            curves(&[one], &[one]),
            scatter(&[], "speed", &plain),
            scatter(&[dot], "speed", &plain),
            interval(0.0, None, 0.01),
            interval(5.0, Some(Interval { low: -1.0, high: 9.0 }), 0.01),
        ];
        for svg in drawn {
            let svg = svg.into_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
            assert!(!svg.contains("<a>"), "{svg}");
        }
    }
}
