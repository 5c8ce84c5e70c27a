//! Plots of reports, as SVG: lines over a logarithmic axis, with a legend where there are several.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::Report;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (840, 480);
const FONT: &str = "system-ui, sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Told apart also by who sees few colours (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
];

type Failure = DrawingAreaErrorKind<io::Error>;

/// A line, with what it is called.
#[derive(Clone)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The vertical axis.
#[derive(Clone, Copy)]
enum Vertical {
    /// From 0 to this.
    To(f64),
    /// From 0 to what the lines need.
    FromZero,
    /// Around the lines.
    Logarithmic,
}

/// What is drawn, and what its axes say.
struct Plot<'a> {
    title: String,
    x: &'a str,
    y: &'a str,
    /// Whether each point is of interest by itself.
    has_marks: bool,
    vertical: Vertical,
    lines: Vec<Line>,
}

/// Draws what these reports have figures for: `latency.svg`, and of several numbers of subscribers `deliveries.svg` and
/// `cpu.svg`.
pub(super) fn draw(dir: &Path, reports: &[Report]) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut plots = vec![("latency.svg", latency(reports))];
    if reports.len() > 1 {
        plots.push((
            "deliveries.svg",
            sweep(reports, "Deliveries", "deliveries/s", Vertical::Logarithmic, |report| {
                report.deliveries_per_sec
            }),
        ));
        plots.push((
            "cpu.svg",
            sweep(reports, "Processor time of the server", "µs per delivery", Vertical::FromZero, |report| {
                report.server.cpu_us_per_delivery
            }),
        ));
    }
    for (name, plot) in plots {
        if plot.lines.iter().all(|line| line.points.is_empty()) {
            continue;
        }
        let path = dir.join(name);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let svg = plot.to_svg().map_err(|error| failed(&error))?;
        fs::write(&path, svg).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// What all of them have in common.
fn subtitle(report: &Report) -> String {
    let rate = report.rate.map(|rate| format!(", {} events/s", short(&rate))).unwrap_or_default();
    let version = report.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{}{version}, {}{rate}", report.peer, report.scenario)
}

fn latency(reports: &[Report]) -> Plot<'static> {
    let line = |report: &Report| Line {
        name: format!("{} subscribers", report.subscribers),
        points: report.latency_cdf.iter().flatten().map(|(ms, share)| (*ms, share * 100.0)).collect(),
    };
    Plot {
        title: format!("From publish to read: {}", reports.first().map(subtitle).unwrap_or_default()),
        x: "latency, ms",
        y: "deliveries that took no longer, %",
        has_marks: false,
        vertical: Vertical::To(100.0),
        lines: reports.iter().map(line).collect(),
    }
}

fn sweep(
    reports: &[Report],
    what: &str,
    y: &'static str,
    vertical: Vertical,
    figure: impl Fn(&Report) -> Option<f64>,
) -> Plot<'static> {
    let points = reports.iter().filter_map(|report| Some((report.subscribers as f64, figure(report)?)));
    let mut points: Vec<(f64, f64)> = points.collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    Plot {
        title: format!("{what}: {}", reports.first().map(subtitle).unwrap_or_default()),
        x: "subscribers",
        y,
        has_marks: true,
        vertical,
        lines: vec![Line { name: String::new(), points }],
    }
}

impl Plot<'_> {
    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    fn to_svg(&self) -> Result<String, Failure> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let x = logarithmic(self.points().map(|point| point.0));
            let x = x.range.log_scale().with_key_points(x.ticks);
            let mut chart = ChartBuilder::on(&root);
            chart.caption(&self.title, (FONT, 19).into_font().color(&INK));
            chart.margin(16).margin_right(28).x_label_area_size(46).y_label_area_size(72);
            let highest = self.points().map(|point| point.1).fold(0.0, f64::max);
            match self.vertical {
                Vertical::To(top) => self.draw(chart.build_cartesian_2d(x, 0.0..top)?)?,
                Vertical::FromZero => {
                    let top = if highest > 0.0 { highest * 1.12 } else { 1.0 };
                    self.draw(chart.build_cartesian_2d(x, 0.0..top)?)?;
                }
                Vertical::Logarithmic => {
                    let y = logarithmic(self.points().map(|point| point.1));
                    let y = y.range.log_scale().with_key_points(y.ticks);
                    self.draw(chart.build_cartesian_2d(x, y)?)?;
                }
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn draw<'a, 'b: 'a, X, Y>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    ) -> Result<(), Failure>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .y_labels(6)
            .label_style((FONT, 14).into_font().color(&INK))
            .axis_desc_style((FONT, 15).into_font().color(&INK))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let stroke = colour.stroke_width(2);
            let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke))?;
            if self.lines.len() > 1 {
                drawn
                    .label(line.name.as_str())
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
            }
            if self.has_marks {
                let marks = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
                chart.draw_series(marks)?;
                let style = (FONT, 13).into_font().color(&INK);
                let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
                let texts = line.points.iter().map(|(x, y)| {
                    let text = Text::new(short(y), (0, -8), style.clone());
                    EmptyElement::at((*x, *y)) + text
                });
                chart.draw_series(texts)?;
            }
        }
        if self.lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .background_style(WHITE.mix(0.85))
                .border_style(GRID)
                .label_font((FONT, 14).into_font().color(&INK))
                .draw()?;
        }
        Ok(())
    }
}

/// A logarithmic axis.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

/// One that has these values on it, with some room; at 1, 2 and 5 of each power of ten are its ticks, or where those
/// would be many, at the powers alone.
fn logarithmic(values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
    let room = (high / low).powf(0.05).max(1.5);
    let range = low / room..high * room;
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let steps: &[f64] = if powers.clone().count() > 5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10.0_f64.powi(power)));
    let ticks = ticks.filter(|tick| range.contains(tick)).collect();
    Axis { range, ticks }
}

/// A number with as many digits as are needed.
fn plain(number: f64) -> String {
    let digits = match number.abs() {
        n if n >= 10.0 || n.fract() == 0.0 => 0,
        n if n >= 1.0 => 1,
        n if n >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{number:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// The same with `k` and `M` for thousands and millions.
fn short(number: &f64) -> String {
    match number.abs() {
        n if n >= 1e6 => format!("{}M", plain(number / 1e6)),
        n if n >= 1e4 => format!("{}k", plain(number / 1e3)),
        _ => plain(*number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (0.5, "0.5"),
            (0.25, "0.25"),
            (4.25, "4.2"),
            (1000.0, "1000"),
            (20_000.0, "20k"),
            (2_500_000.0, "2.5M"),
        ] {
            assert_eq!(short(&number), expected);
        }
    }

    #[test]
    fn whatever_the_points_are_it_can_be_drawn() {
        for points in [vec![], vec![(1.0, 0.0)], vec![(0.0, 5.0)], vec![(10.0, 1e7), (1e6, 1e-3)]] {
            for vertical in [Vertical::To(1.0), Vertical::FromZero, Vertical::Logarithmic] {
                let lines = vec![Line { name: "<a & b>".to_owned(), points: points.clone() }; 2];
                let title = "a < b".to_owned();
                let plot = Plot { title, x: "x", y: "y", has_marks: true, vertical, lines };
                let svg = plot.to_svg().unwrap();
                assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
                assert!(svg.contains("a &lt; b") && svg.contains("&lt;a &amp; b&gt;"), "{svg}");
            }
        }
    }
}
