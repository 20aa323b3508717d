//! Loss and accuracy over a run, from its metrics.jsonl.

use std::path::Path;

use plotters::{
    prelude::{
        ChartBuilder, Circle, EmptyElement, IntoFont, LineSeries, PathElement, SeriesLabelPosition, Text,
    },
    style::{Color, RGBColor, ShapeStyle},
};
use serde_json::Value;

use super::canvas::{Area, BLUE, Drawn, FONT, GREEN, INK, ORANGE, PALE, draw};
use crate::{Error, Result};

/// One line of a chart.
struct Series {
    name: &'static str,
    color: RGBColor,
    /// (epoch, value)
    points: Vec<(f64, f64)>,
    /// Marks each point; for lines of a few points.
    dots: bool,
}

/// Draws what `metrics` holds to `path`; nothing if it holds nothing yet.
///
/// # Errors
/// The metrics cannot be read or the picture cannot be written.
pub fn curves(metrics: &Path, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(metrics).map_err(|error| Error::file(metrics, error))?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &str, key: &str| points(&lines, kind, key);
    // A run too short for lines between epochs still has its means.
    let training = Some(of("step", "loss")).filter(|points| points.len() > 1);
    let training = training.unwrap_or_else(|| of("epoch", "loss"));
    let loss = [
        Series { name: "training", color: BLUE, points: training, dots: false },
        Series { name: "eval", color: ORANGE, points: of("eval", "loss"), dots: true },
        Series { name: "eval, averaged weights", color: GREEN, points: of("ema", "loss"), dots: true },
    ];
    let percent = |kind| of(kind, "accuracy").into_iter().map(|(x, y)| (x, 100.0 * y)).collect();
    let accuracy = [
        Series { name: "eval", color: ORANGE, points: percent("eval"), dots: true },
        Series { name: "eval, averaged weights", color: GREEN, points: percent("ema"), dots: true },
    ];
    if loss.iter().all(|series| series.points.is_empty()) {
        return Ok(());
    }
    draw(path, 1200, 460, |area| {
        let (left, right) = area.split_horizontally(600);
        chart(&left, "Loss", "cross-entropy", &loss, false)?;
        chart(&right, "Accuracy", "per cent", &accuracy, true)
    })
}

/// (epoch as a fraction, value) of every line of `kind`.
fn points(lines: &[Value], kind: &str, key: &str) -> Vec<(f64, f64)> {
    // Steps of an epoch, from any line that ends one.
    let ends = lines.iter().filter(|line| line["kind"] == "epoch");
    let per_epoch =
        ends.filter_map(|line| Some(line["step"].as_f64()? / line["epoch"].as_f64()?)).fold(0.0, f64::max);
    let of_kind = lines.iter().filter(|line| line["kind"] == kind);
    of_kind
        .filter_map(|line| {
            let x =
                if per_epoch > 0.0 { line["step"].as_f64()? / per_epoch } else { line["epoch"].as_f64()? };
            Some((x, line[key].as_f64()?))
        })
        .collect()
}

fn chart(area: &Area, title: &str, unit: &str, all: &[Series], percent: bool) -> Drawn {
    let points = || all.iter().flat_map(|series| series.points.iter().copied());
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), (_, y)| (low.min(y), high.max(y)));
    let end = points().fold(1.0, |end: f64, (x, _)| end.max(x));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    let room = ((high - low) * 0.08).max(if percent { 1.0 } else { 0.02 });
    let floor = (low - room).max(0.0);
    // Above the best accuracy stands its number.
    let ceiling = if percent { high + 2.0 * room } else { high + room };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 24).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..end * 1.02, floor..ceiling)?;
    let digits = match ceiling - floor {
        8.0.. => 0,
        0.8.. => 1,
        0.08.. => 2,
        _ => 3,
    };
    chart
        .configure_mesh()
        .light_line_style(PALE.mix(0.0))
        .bold_line_style(PALE)
        .axis_style(INK)
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .x_labels(if end <= 10.0 { end.ceil() as usize + 1 } else { 8 })
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .x_desc("epoch")
        .y_desc(unit)
        .draw()?;
    for series in all.iter().filter(|series| !series.points.is_empty()) {
        let color = series.color;
        let line = ShapeStyle::from(color).stroke_width(2);
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), line))?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], line));
        if (series.dots && series.points.len() <= 60) || series.points.len() <= 2 {
            chart.draw_series(series.points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        }
    }
    if percent {
        mark_best(&mut chart, all)?;
    }
    if all.iter().filter(|series| !series.points.is_empty()).count() > 1 {
        chart
            .configure_series_labels()
            .position(if percent { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight })
            .background_style(RGBColor(255, 255, 255).mix(0.85))
            .border_style(PALE)
            .label_font((FONT, 16).into_font().color(&INK))
            .draw()?;
    }
    Ok(())
}

type Chart<'a, 'b> = plotters::prelude::ChartContext<
    'a,
    plotters::prelude::BitMapBackend<'b>,
    plotters::prelude::Cartesian2d<
        plotters::coord::types::RangedCoordf64,
        plotters::coord::types::RangedCoordf64,
    >,
>;

/// Writes the highest value above its point.
fn mark_best(chart: &mut Chart, all: &[Series]) -> Drawn {
    // The last line decides: the averaged weights where there are any.
    let Some(series) = all.iter().rfind(|series| !series.points.is_empty()) else { return Ok(()) };
    let best =
        series.points.iter().copied().reduce(|best, point| if point.1 > best.1 { point } else { best });
    let Some(best) = best else { return Ok(()) };
    // Above the point, within the frame.
    let place = (if best.0 < 0.85 * chart.x_range().end { -24 } else { -56 }, -26);
    let label = Text::new(format!("{:.2}%", best.1), place, (FONT, 16).into_font().color(&INK));
    let mark = EmptyElement::at(best) + Circle::new((0, 0), 5, INK.stroke_width(1)) + label;
    chart.draw_series(std::iter::once(mark))?;
    Ok(())
}
