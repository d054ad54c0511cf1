//! The plots, as SVG.

use std::path::Path;

use harness::{Result, Workload};
use plotters::prelude::*;

use crate::contenders::{ALL, Contender, Kind};
use crate::report::{count, duration};
use crate::results::Results;
use crate::schedule::{Cell, STEADY_THREADS};

const SIZE: (u32, u32) = (900, 520);
const COLOURS: [RGBColor; 13] = [
    RGBColor(200, 16, 46),
    RGBColor(245, 130, 48),
    RGBColor(240, 180, 0),
    RGBColor(0, 95, 135),
    RGBColor(70, 160, 200),
    RGBColor(120, 190, 225),
    RGBColor(165, 205, 230),
    RGBColor(60, 130, 60),
    RGBColor(145, 30, 180),
    RGBColor(0, 0, 0),
    RGBColor(128, 96, 0),
    RGBColor(128, 128, 128),
    RGBColor(230, 80, 170),
];

struct Line {
    contender: &'static Contender,
    points: Vec<(f64, f64)>,
}

struct Plot<'a> {
    file: &'a str,
    title: &'a str,
    x: &'a str,
    y: &'a str,
    /// The marks on the horizontal axis, which is drawn in equal steps.
    ticks: Vec<String>,
    value: fn(f64) -> String,
}

/// Draws all plots into a folder; their names and titles.
pub(crate) fn draw(results: &Results, folder: &Path) -> Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    let mut add = |plot: &Plot<'_>, lines: Vec<Line>| -> Result<()> {
        let lines: Vec<_> = lines.into_iter().filter(|line| line.points.len() > 1).collect();
        if !lines.is_empty() {
            plot.draw(&lines, folder)?;
            drawn.push((plot.file.to_owned(), plot.title.to_owned()));
        }
        Ok(())
    };
    let threads = &results.scale.threads;
    for (workload, file, title) in [
        (Workload::New, "throughput-new.svg", "New ids a second, a million held, safe from kills"),
        (Workload::Duplicate, "throughput-duplicates.svg", "Duplicates a second, a million held"),
    ] {
        let ticks = threads.iter().map(ToString::to_string).collect();
        let plot = Plot { file, title, x: "threads", y: "ids a second", ticks, value: rate };
        add(
            &plot,
            lines(threads, |name, n| Some(1e9 / results.ns(name, Cell::new(workload, *n))?)),
        )?;
    }
    let sizes = &results.scale.sizes;
    for (workload, file, title) in [
        (Workload::New, "growth-new.svg", "A new id as the store grows, one thread"),
        (
            Workload::Duplicate,
            "growth-duplicates.svg",
            "A duplicate as the store grows, one thread",
        ),
    ] {
        let ticks = sizes.iter().map(|size| count(*size)).collect();
        let plot = Plot { file, title, x: "ids held", y: "time an id", ticks, value: duration };
        add(&plot, lines(sizes, |name, ids| results.ns(name, Cell::new(workload, 1).ids(*ids))))?;
    }
    let steady = Cell::new(Workload::Steady, STEADY_THREADS);
    let quantiles = ["p50", "p99", "p99.9", "worst"];
    let plot = Plot {
        file: "latency.svg",
        title: "Waiting times under the steady load",
        x: "percentile",
        y: "time a call",
        ticks: quantiles.map(str::to_owned).to_vec(),
        value: duration,
    };
    let at = |name: &str, quantile: &&str| {
        let latency = results.latency(name, steady)?;
        Some(match *quantile {
            "p50" => latency.p50,
            "p99" => latency.p99,
            "p99.9" => latency.p999,
            _ => latency.max,
        })
    };
    add(&plot, lines(&quantiles, at))?;
    Ok(drawn)
}

fn rate(per_second: f64) -> String {
    if per_second >= 1e6 {
        format!("{}M", per_second / 1e6)
    } else if per_second >= 1e3 {
        format!("{}k", per_second / 1e3)
    } else {
        format!("{per_second}")
    }
}

fn contending() -> impl Iterator<Item = &'static Contender> {
    ALL.iter().filter(|contender| contender.contends())
}

fn lines<T>(xs: &[T], y: impl Fn(&str, &T) -> Option<f64>) -> Vec<Line> {
    contending()
        .map(|contender| {
            let points = xs.iter().enumerate();
            let points = points.filter_map(|(i, x)| Some((i as f64, y(contender.name, x)?)));
            Line { contender, points: points.collect() }
        })
        .collect()
}

impl Plot<'_> {
    fn draw(&self, lines: &[Line], folder: &Path) -> Result<()> {
        let path = folder.join(self.file);
        let root = SVGBackend::new(&path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let ys = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
        let range = ys().fold(f64::MAX, f64::min) * 0.7..ys().fold(0.0, f64::max) * 1.4;
        let last = self.ticks.len() as f64 - 1.0;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 22))
            .margin(12)
            .margin_right(240)
            .x_label_area_size(42)
            .y_label_area_size(78)
            .build_cartesian_2d(-0.05..last + 0.05, range.log_scale())?;
        let name = |x: &f64| {
            let near = x.round();
            let exact = (x - near).abs() < 0.01 && near >= 0.0;
            let tick = exact.then(|| self.ticks.get(near as usize)).flatten();
            tick.cloned().unwrap_or_default()
        };
        chart
            .configure_mesh()
            .x_labels(self.ticks.len() * 2)
            .x_label_formatter(&name)
            .y_label_formatter(&|y| (self.value)(*y))
            .x_desc(self.x)
            .y_desc(self.y)
            .max_light_lines(0)
            .draw()?;
        for (i, line) in lines.iter().enumerate() {
            let index = contending().position(|other| other.name == line.contender.name);
            let colour = COLOURS[index.unwrap_or(0) % COLOURS.len()];
            let own = matches!(line.contender.kind, Kind::Own | Kind::Async);
            let style = colour.stroke_width(if own { 4 } else { 2 });
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            let circles = line.points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
            chart.draw_series(circles)?;
            // The legend, beside the plot: inside it would cover lines.
            let y = 60 + 24 * i32::try_from(i)?;
            let x = i32::try_from(SIZE.0)? - 230;
            root.draw(&PathElement::new([(x, y), (x + 24, y)], style))?;
            let text = Text::new(line.contender.label, (x + 32, y - 7), ("sans-serif", 15));
            root.draw(&text)?;
        }
        root.present()?;
        Ok(())
    }
}
