//! The table and the plot of the README.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

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

const YARDSTICK: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb2);

/// Bars: microseconds of a server's CPU for a check. Calls of one check on the left, several checks in
/// a call on the right, each on a scale of its own; a single call at a time is about latency.
pub fn plot(path: &Path, rows: &[Row]) {
    let area = SVGBackend::new(path, (1_000, 400)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let (left, right) = area.split_horizontally(380);
    panel(&left, "CPU for a check, µs: one in a call", &rows[1..4]);
    panel(&right, "µs: many in a call", &rows[4..]);
    area.present().unwrap();
}

/// Those of one contestant.
type Turns = fn(&Row) -> &[Turn];

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, rows: &[Row]) {
    let contestants: [(_, _, Turns); 2] =
        [("empty RPC", YARDSTICK, |row| &row.yardstick), ("Rolecall", OURS, |row| &row.ours)];
    let height = |turns: &[Turn]| of(turns, |turn| turn.server);
    let heights = rows.iter().flat_map(|row| [height(&row.yardstick), height(&row.ours)]);
    let top = heights.fold(0.0, f64::max) * 1.3;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..top)
        .unwrap();
    // Labels stand at halves, in the middle of the bars.
    let name = |at: &f64| {
        let row = rows.get(*at as usize).filter(|_| (at.fract() - 0.5).abs() < 0.01);
        row.map(|row| row.load.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(2 * rows.len() + 1)
        .x_label_formatter(&name)
        .label_style(("sans-serif", 13))
        .draw()
        .unwrap();
    for (n, (label, colour, turns)) in contestants.into_iter().enumerate() {
        let at = |row: usize| row as f64 + 0.14 + 0.36 * n as f64;
        let bars = rows.iter().enumerate().map(|(row, of)| {
            Rectangle::new([(at(row), 0.0), (at(row) + 0.34, height(turns(of)))], colour.filled())
        });
        let key = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        chart.draw_series(bars).unwrap().label(label).legend(key);
        let numbers = rows.iter().enumerate().map(|(row, of)| {
            let height = height(turns(of));
            let place = (at(row) + 0.02, height + top * 0.045);
            Text::new(format!("{height:.2}"), place, ("sans-serif", 13))
        });
        chart.draw_series(numbers).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .draw()
        .unwrap();
}
