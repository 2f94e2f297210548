//! Line plots as SVG.

use std::fmt::Write;

use crate::outcome::thousands;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Told apart by people who see colours differently, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a value becomes a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten.
    Log,
    /// Shares close to 1 drawn apart: 90 %, 99 %, 99.9 % at equal distances.
    Nines,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(1e-3).log10(),
            Self::Nines => -(1.0 - value).max(1e-5).log10(),
        }
    }

    fn ticks(self, low: f64, high: f64) -> Vec<(f64, String)> {
        match self {
            Self::Linear => {
                let step = round_step((high - low) / 5.0);
                let count = ((high - low) / step) as usize;
                let values = (0..=count).map(|at| low + at as f64 * step);
                values.map(|value| (value, short(value))).collect()
            }
            Self::Log => {
                // Within less than two powers of ten, steps between them as well.
                let steps = if high - low < 2.0 { &[1.0, 2.0, 5.0][..] } else { &[1.0] };
                let powers = low.floor() as i32..=high.ceil() as i32;
                let values =
                    powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
                values.map(|value| (value.log10(), short(value))).collect()
            }
            Self::Nines => [(0.0, "0"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
                .iter()
                .chain(&[(0.9999, "99.99 %"), (0.5, "50 %")])
                .map(|&(share, text)| (self.place(share), text.to_owned()))
                .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step);
    factor.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    if value >= 10_000.0 {
        let (unit, name) = if value >= 1e6 { (1e6, "M") } else { (1e3, "k") };
        return format!("{}{name}", trimmed(value / unit));
    }
    if value >= 100.0 { thousands(value) } else { trimmed(value) }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A plot with its axes and a legend.
pub(crate) fn plot(
    lines: &[Line],
    (x_name, x_scale): (&str, Scale),
    (y_name, y_scale): (&str, Scale),
) -> String {
    let places = |line: &Line| -> Vec<(f64, f64)> {
        let points = line.points.iter();
        points.map(|&(x, y)| (x_scale.place(x), y_scale.place(y))).collect()
    };
    let all: Vec<Vec<(f64, f64)>> = lines.iter().map(places).collect();
    let range = |pick: fn(&(f64, f64)) -> f64, scale: Scale| {
        let values = all.iter().flatten().map(pick);
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let low = if scale == Scale::Linear { 0.0 } else { low };
        // Something to divide by, and room above the line.
        (low, if high > low { high + (high - low) * 0.04 } else { low + 1.0 })
    };
    if all.iter().all(Vec::is_empty) {
        return String::new();
    }
    let (x_range, y_range) = (range(|p| p.0, x_scale), range(|p| p.1, y_scale));
    let x_at = |x: f64| LEFT + (x - x_range.0) / (x_range.1 - x_range.0) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| {
        HEIGHT - BOTTOM - (y - y_range.0) / (y_range.1 - y_range.0) * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_name} by {x_name}\">"
    );
    for (place, text) in x_scale.ticks(x_range.0, x_range.1) {
        if (x_range.0..=x_range.1).contains(&place) {
            let x = x_at(place);
            let (top, bottom) = (TOP, HEIGHT - BOTTOM);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                bottom + 16.0
            );
        }
    }
    for (place, text) in y_scale.ticks(y_range.0, y_range.1) {
        if (y_range.0..=y_range.1).contains(&place) {
            let y = y_at(place);
            let (left, right) = (LEFT, WIDTH - RIGHT);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left - 6.0,
                y + 4.0
            );
        }
    }
    for (number, points) in all.iter().enumerate() {
        let points: Vec<_> = points.iter().map(|&(x, y)| (x_at(x), y_at(y))).collect();
        svg.push_str(&path(number, &points));
    }
    let _ = write!(
        svg,
        "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text></svg>",
        (LEFT + WIDTH) / 2.0,
        HEIGHT - 8.0
    );
    format!("<figure><figcaption>{y_name}{}</figcaption>{svg}</figure>", legend(lines))
}

fn path(number: usize, points: &[(f64, f64)]) -> String {
    let colour = COLOURS[number % COLOURS.len()];
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{x:.1} {y:.1}");
    }
    format!("<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"/>")
}

fn legend(lines: &[Line]) -> String {
    if lines.len() < 2 {
        return String::new();
    }
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let _ =
            write!(text, " <span style=\"color:{colour}\">&#9632; {}</span>", escaped(&line.name));
    }
    text
}

/// Text that is safe between tags.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_path_for_each_line_and_stays_inside_its_frame() {
        let points = vec![(0.5, 0.0), (10.0, 0.5), (1000.0, 0.999)];
        let lines = ["a<b", "c"].map(|name| Line { name: name.into(), points: points.clone() });
        let svg = plot(&lines, ("ms", Scale::Log), ("share", Scale::Nines));
        assert_eq!(svg.matches("class=\"line\"").count(), 2);
        assert!(svg.contains("a&lt;b"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn one_point_and_none_can_be_drawn() {
        let line = |points| [Line { name: "x".into(), points }];
        let axis = ("s", Scale::Linear);
        assert!(plot(&line(vec![(0.0, 0.0)]), axis, axis).contains("<svg"));
        assert_eq!(plot(&line(Vec::new()), axis, axis), "");
    }

    #[test]
    fn steps_of_an_axis_are_round() {
        assert_eq!([0.13, 3.0, 70.0, 0.9].map(round_step), [0.2, 5.0, 100.0, 1.0]);
        assert_eq!(
            [0.25, 99.0, 1500.0, 20_000.0, 2.5e6].map(short),
            ["0.25", "99", "1,500", "20k", "2.5M"]
        );
    }
}
