//! Plots of reports, as SVG: lines, with a legend where there are several.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Report, counted};

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

const CPU: &str = "µs of the server's processor per delivery";

type Failure = DrawingAreaErrorKind<io::Error>;

/// A line, with what it is called.
#[derive(Clone)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// What stands at each point, where each is of interest by itself; else nothing.
    marks: Vec<String>,
}

impl Line {
    /// The points from left to right, each with its height at it.
    fn marked(name: String, points: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut points: Vec<(f64, f64)> = points.collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let marks = points.iter().map(|point| short(&point.1)).collect();
        Self { name, points, marks }
    }
}

/// How far an axis goes.
#[derive(Clone, Copy)]
enum Scale {
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
    x: (&'a str, Scale),
    y: (&'a str, Scale),
    lines: Vec<Line>,
}

/// Draws what these reports have figures for: `latency.svg`; of several numbers of subscribers `deliveries.svg` and
/// `cpu.svg`; of several latency budgets `budget.svg`.
pub(super) fn draw(dir: &Path, reports: &[Report]) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut plots = vec![("latency.svg", latency(reports))];
    if differ(reports, |report| report.subscribers) {
        let deliveries = |report: &Report| report.deliveries_per_sec;
        let y = ("deliveries/s", Scale::Logarithmic);
        plots.push(("deliveries.svg", against_subscribers(reports, "Deliveries", y, deliveries)));
        let cpu = |report: &Report| report.server.cpu_us_per_delivery;
        let y = (CPU, Scale::FromZero);
        plots.push(("cpu.svg", against_subscribers(reports, "Processor time of the server", y, cpu)));
    }
    if differ(reports, |report| report.latency_budget_ms.map(f64::to_bits)) {
        plots.push(("budget.svg", against_latency(reports)));
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

/// Whether there are several values of something.
fn differ<V: PartialEq>(reports: &[Report], value: impl Fn(&Report) -> V) -> bool {
    reports.windows(2).any(|two| value(&two[0]) != value(&two[1]))
}

/// The reports with the same value of something, for each there is, as they come.
fn groups<V: PartialEq>(reports: &[Report], value: impl Fn(&Report) -> V) -> Vec<Vec<&Report>> {
    let mut groups: Vec<Vec<&Report>> = Vec::new();
    for report in reports {
        match groups.iter_mut().find(|group| value(group[0]) == value(report)) {
            Some(group) => group.push(report),
            None => groups.push(vec![report]),
        }
    }
    groups
}

fn title(what: &str, reports: &[Report]) -> String {
    format!("{what}: {}", reports.first().map(subtitle).unwrap_or_default())
}

fn latency(reports: &[Report]) -> Plot<'static> {
    let line = |report: &Report| Line {
        name: report.variant(),
        points: report.latency_cdf.iter().flatten().map(|(ms, share)| (*ms, share * 100.0)).collect(),
        marks: Vec::new(),
    };
    Plot {
        title: title("From publish to read", reports),
        x: ("latency, ms", Scale::Logarithmic),
        y: ("deliveries that took no longer, %", Scale::To(100.0)),
        lines: reports.iter().map(line).collect(),
    }
}

fn against_subscribers(
    reports: &[Report],
    what: &str,
    y: (&'static str, Scale),
    figure: impl Fn(&Report) -> Option<f64>,
) -> Plot<'static> {
    let line = |group: Vec<&Report>| {
        let name = group[0].latency_budget_ms.map(|ms| format!("budget {ms} ms")).unwrap_or_default();
        Line::marked(
            name,
            group.iter().filter_map(|report| Some((report.subscribers as f64, figure(report)?))),
        )
    };
    Plot {
        title: title(what, reports),
        x: ("subscribers", Scale::Logarithmic),
        y,
        lines: groups(reports, |report| report.latency_budget_ms).into_iter().map(line).collect(),
    }
}

/// What a latency budget costs and saves.
fn against_latency(reports: &[Report]) -> Plot<'static> {
    let budget = |report: &Report| report.latency_budget_ms.unwrap_or_default();
    let line = |mut group: Vec<&Report>| {
        group.sort_by(|one, other| budget(one).total_cmp(&budget(other)));
        let p50 = |report: &&Report| Some(report.latency_ms?.p50);
        // What there is without any budget, or with the smallest, is not added.
        let before = group.iter().find_map(p50).unwrap_or_default();
        let points = group.iter().filter_map(|report| {
            let added = (p50(report)? - before).max(0.0);
            Some(((added, report.server.cpu_us_per_delivery?), format!("{} ms", budget(report))))
        });
        let (points, marks) = points.unzip();
        Line { name: counted(group[0].subscribers, "subscriber"), points, marks }
    };
    Plot {
        title: title("What a latency budget saves", reports),
        x: ("latency that it adds, p50, ms", Scale::FromZero),
        y: (CPU, Scale::FromZero),
        lines: groups(reports, |report| report.subscribers).into_iter().map(line).collect(),
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
            let mut chart = ChartBuilder::on(&root);
            chart.caption(&self.title, (FONT, 19).into_font().color(&INK));
            chart.margin(16).margin_right(28).x_label_area_size(46).y_label_area_size(72);
            match self.x.1.ticks(self.points().map(|point| point.0)) {
                (x, None) => self.draw_over(chart, x)?,
                (x, Some(ticks)) => self.draw_over(chart, x.log_scale().with_key_points(ticks))?,
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn draw_over<'a, 'b: 'a, X>(
        &self,
        mut chart: ChartBuilder<'a, 'b, SVGBackend<'b>>,
        x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    ) -> Result<(), Failure>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        match self.y.1.ticks(self.points().map(|point| point.1)) {
            (y, None) => self.draw(chart.build_cartesian_2d(x, y)?),
            (y, Some(ticks)) => {
                let y = y.log_scale().with_key_points(ticks);
                self.draw(chart.build_cartesian_2d(x, y)?)
            }
        }
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
            .x_desc(self.x.0)
            .y_desc(self.y.0)
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
            if !line.marks.is_empty() {
                let marks = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
                chart.draw_series(marks)?;
                let style = (FONT, 13).into_font().color(&INK);
                let style = style.pos(Pos::new(HPos::Left, VPos::Bottom));
                let texts = line.points.iter().zip(&line.marks).map(|(point, mark)| {
                    EmptyElement::at(*point) + Text::new(mark.clone(), (7, -3), style.clone())
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

impl Scale {
    /// From where to where it goes, and of a logarithmic one where its ticks are.
    fn ticks(self, values: impl Iterator<Item = f64>) -> (Range<f64>, Option<Vec<f64>>) {
        match self {
            Self::To(top) => (0.0..top, None),
            Self::FromZero => {
                let highest = values.fold(0.0, f64::max);
                (0.0..if highest > 0.0 { highest * 1.12 } else { 1.0 }, None)
            }
            Self::Logarithmic => {
                let (range, ticks) = logarithmic(values);
                (range, Some(ticks))
            }
        }
    }
}

/// A range that has these values in it, with some room, and ticks at 1, 2 and 5 of each power of ten, or where those
/// would be many, at the powers alone.
fn logarithmic(values: impl Iterator<Item = f64>) -> (Range<f64>, Vec<f64>) {
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
    (range, ticks)
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
            let scales = [Scale::To(1.0), Scale::FromZero, Scale::Logarithmic];
            for (x, y) in scales.iter().flat_map(|x| scales.iter().map(move |y| (*x, *y))) {
                let lines = vec![Line::marked("<a & b>".to_owned(), points.iter().copied()); 2];
                let plot = Plot { title: "a < b".to_owned(), x: ("x", x), y: ("y", y), lines };
                let svg = plot.to_svg().unwrap();
                assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
                assert!(svg.contains("a &lt; b") && svg.contains("&lt;a &amp; b&gt;"), "{svg}");
            }
        }
    }
}
