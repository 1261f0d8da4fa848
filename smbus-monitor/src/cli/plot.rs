// SPDX-License-Identifier: MIT OR Apache-2.0
//! A history as a picture of characters: two by four dots in each (Unicode braille patterns, U+2800).

use std::fmt::Write;

use crate::metric::{Unit, shown};
use crate::report::HistoryReport;

use super::age;

/// Characters across and down.
const WIDTH: usize = 72;
const HEIGHT: usize = 12;
/// Dots of a character, by column and row from the top.
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// The least and the most that are shown, with some room.
fn bounds(history: &HistoryReport) -> Option<(f64, f64)> {
    let least = history.points.iter().map(|point| point.min).fold(f64::INFINITY, f64::min);
    let most = history.points.iter().map(|point| point.max).fold(f64::NEG_INFINITY, f64::max);
    if !(least.is_finite() && most.is_finite()) {
        return None;
    }
    let room = ((most - least) * 0.05).max(least.abs().max(1.0) * 0.005);
    let whole =
        matches!(history.unit, Unit::Bytes | Unit::BytesPerSecond | Unit::Rpm | Unit::Percent);
    let low = if whole { (least - room).max(0.0) } else { least - room };
    Some((low, most + room))
}

/// The picture of the last so many seconds.
pub fn plot(history: &HistoryReport, seconds: f64) -> String {
    let (place, metric, unit) = (&history.place, &history.metric, history.unit);
    let Some((low, high)) = bounds(history) else {
        return format!("{place} {metric}: no values in this time\n");
    };
    let mut cells = vec![[0_u8; WIDTH]; HEIGHT];
    let (columns, rows) = (WIDTH * 2, HEIGHT * 4);
    for point in &history.points {
        let across = (1.0 - point.ago_s / seconds.max(1.0)).clamp(0.0, 1.0);
        let column = ((across * (columns - 1) as f64).round() as usize).min(columns - 1);
        let row = |value: f64| {
            let down = (high - value) / (high - low) * (rows - 1) as f64;
            (down.round().max(0.0) as usize).min(rows - 1)
        };
        for row in row(point.max)..=row(point.min) {
            cells[row / 4][column / 2] |= DOTS[column % 2][row % 4];
        }
    }
    let mut out = format!("{place} {metric}\n");
    for (at, line) in cells.iter().enumerate() {
        let label = match at {
            0 => shown(high, unit),
            _ if at == HEIGHT - 1 => shown(low, unit),
            _ if at == HEIGHT / 2 => shown((high + low) / 2.0, unit),
            _ => String::new(),
        };
        let dots: String = line
            .iter()
            .map(|dots| char::from_u32(0x2800 + u32::from(*dots)).unwrap_or(' '))
            .collect();
        let _ = writeln!(out, "{label:>12} ┤{}", dots.trim_end_matches('\u{2800}'));
    }
    let _ = writeln!(out, "{:>12} └{}", "", "─".repeat(WIDTH));
    let left = format!("{} ago", age(seconds));
    let _ = writeln!(out, "{:>14}{left:<width$}now", "", width = WIDTH - 3);
    if let Some(last) = history.points.last() {
        let least = history.points.iter().map(|p| p.min).fold(f64::INFINITY, f64::min);
        let most = history.points.iter().map(|p| p.max).fold(f64::NEG_INFINITY, f64::max);
        let all = [last.mean, least, most].map(|value| shown(value, unit));
        let _ = writeln!(out, "now {}, least {}, most {}", all[0], all[1], all[2]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::Point;
    use crate::metric::Limits;

    #[test]
    fn a_ramp_goes_from_the_lower_left_to_the_upper_right() {
        let point = |at: i32| {
            let value = f64::from(at);
            Point { ago_s: f64::from(60 - at), min: value, mean: value, max: value }
        };
        let mut history = HistoryReport {
            place: "1".to_owned(),
            metric: "t".to_owned(),
            unit: Unit::Celsius,
            limits: Limits::default(),
            points: (0..=60).map(point).collect(),
        };
        let text = plot(&history, 60.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 4, "{text}");
        let first_dot = |line: &str| line.chars().skip(14).position(|c| c != '\u{2800}');
        assert!(first_dot(lines[HEIGHT]) < Some(5) && first_dot(lines[1]) > Some(60), "{text}");
        assert!(text.ends_with("now 60.0 °C, least 0.0 °C, most 60.0 °C\n"), "{text}");
        history.points.clear();
        assert!(plot(&history, 60.0).contains("no values"));
    }
}
