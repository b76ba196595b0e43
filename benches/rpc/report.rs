//! The table and the plot of the README.

use std::path::Path;

use plotters::prelude::*;

/// One turn of one contestant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turn {
    /// Microseconds of the server's CPU for a check.
    pub server: f64,
    /// Microseconds of the generator's.
    pub generator: f64,
    pub per_second: f64,
    /// The share of its core that the server used.
    pub busy: f64,
    /// Microseconds from request to answer.
    pub p50: f64,
    pub p99: f64,
}

/// All turns of a load: the yardstick's and ours, in rounds.
pub struct Row {
    pub load: String,
    pub yardstick: Vec<Turn>,
    pub ours: Vec<Turn>,
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn of(turns: &[Turn], what: fn(&Turn) -> f64) -> f64 {
    median(turns.iter().map(what))
}

impl Row {
    /// Yardstick / ours in each round, from the least to the most.
    fn ratios(&self) -> Vec<f64> {
        let rounds = self.yardstick.iter().zip(&self.ours);
        let mut ratios: Vec<f64> = rounds.map(|(y, o)| y.server / o.server).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

pub fn table(rows: &[Row]) {
    println!(
        "| load | empty RPC, µs | Rolecall, µs | empty / Rolecall (spread) | checks/s and core | \
         cores busy | generator, µs |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    for row in rows {
        let ratios = row.ratios();
        println!(
            "| {} | {:.3} | {:.3} | {:.2} ({:.2}–{:.2}) | {:.0} k | {:.0} / {:.0} % | {:.3} |",
            row.load,
            of(&row.yardstick, |t| t.server),
            of(&row.ours, |t| t.server),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
            1e3 / of(&row.ours, |t| t.server),
            100.0 * of(&row.yardstick, |t| t.busy),
            100.0 * of(&row.ours, |t| t.busy),
            of(&row.ours, |t| t.generator),
        );
    }
    println!();
}

/// Bars: microseconds of a server's CPU for a check; lower is better.
pub fn plot(path: &Path, rows: &[Row]) {
    const SIZE: (u32, u32) = (860, 420);
    const YARDSTICK: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
    const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb2);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let top = rows
        .iter()
        .flat_map(|row| [of(&row.yardstick, |t| t.server), of(&row.ours, |t| t.server)])
        .fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("CPU of the server for one check, µs (lower is better)", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..top * 1.15)
        .unwrap();
    let name = |at: &f64| {
        let row = rows.get(*at as usize).filter(|_| (at.fract() - 0.5).abs() < 0.01);
        row.map(|row| row.load.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * rows.len() + 1)
        .x_label_formatter(&name)
        .y_desc("µs")
        .label_style(("sans-serif", 11))
        .draw()
        .unwrap();
    let bars = |ours: bool| {
        let (from, colour) = if ours { (0.5, OURS) } else { (0.15, YARDSTICK) };
        let (label, turns): (_, fn(&Row) -> &[Turn]) = match ours {
            true => ("Rolecall", |row| &row.ours),
            false => ("empty RPC", |row| &row.yardstick),
        };
        let heights = rows.iter().map(move |row| of(turns(row), |t| t.server));
        (label, colour, from, heights)
    };
    for ours in [false, true] {
        let (label, colour, from, heights) = bars(ours);
        let bars = heights.clone().enumerate().map(|(n, height)| {
            let left = n as f64 + from;
            Rectangle::new([(left, 0.0), (left + 0.35, height)], colour.filled())
        });
        let key = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        chart.draw_series(bars).unwrap().label(label).legend(key);
        let numbers = heights.enumerate().map(|(n, height)| {
            let at = (n as f64 + from + 0.02, height + top * 0.05);
            Text::new(format!("{height:.2}"), at, ("sans-serif", 11))
        });
        chart.draw_series(numbers).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 12))
        .draw()
        .unwrap();
    area.present().unwrap();
}
