//! A chart as SVG that follows the page's theme; every mark says what it is to those who hover, and to screen readers.

use super::{Axis, Chart, Mark};
use crate::figures::canvas::ticks;
use crate::html::{Html, clean, element, element_with, name, seq};
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 46.0;
/// Groups with a shape and colour of their own; the rest share the last.
const GROUPS: usize = 5;
/// The least that an axis spans, over its upper end.
const SPAN_MIN: f64 = 0.05;
/// Radius of a mark.
const RADIUS: f64 = 4.2;

/// One axis and the pixels that it covers.
struct Scale {
    low: f64,
    high: f64,
    log: bool,
    pixels: (f64, f64),
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Option<Self> {
        let log = axis.log;
        let on = move |value: f64| if log { value.log10() } else { value };
        let (mut low, mut high) = values
            .filter(|value| value.is_finite() && (!log || *value > 0.0))
            .map(on)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if !log && low >= 0.0 && low < 0.5 * high {
            low = 0.0;
        }
        // Values that differ by less than a few percent shall look like it, and equal ones stand in the middle.
        let least = if log { 0.1 } else { SPAN_MIN * high.abs() };
        let middle = f64::midpoint(low, high);
        if high - low < least {
            (low, high) = (middle - 0.5 * least, middle + 0.5 * least);
        }
        let margin = if high > low { 0.06 * (high - low) } else { 1.0 };
        (low, high) = (if low == 0.0 && !log { 0.0 } else { low - margin }, high + margin);
        Some(Self { low, high, log, pixels })
    }

    fn at(&self, value: f64) -> f64 {
        let on = if self.log { value.max(1e-300).log10() } else { value };
        let share = ((on - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            return ticks(self.low, self.high, 6);
        }
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let steps: &[f64] = if self.high - self.low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        all.filter(|value| (self.low..=self.high).contains(&value.log10())).take(24).collect()
    }
}

fn shown(value: f64) -> String {
    crate::show::number(value).unwrap_or_default()
}

fn text(svg: &mut String, class: &str, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = Html::from(clean(words)).into_string();
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// The outline of a mark: groups differ in shape, so that colour is not needed to tell them apart.
fn shape(group: usize, x: f64, y: f64) -> String {
    let r = RADIUS;
    match group {
        0 => format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0", x - r, d = 2.0 * r),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}z", x - r * 0.9, y - r * 0.9, d = 1.8 * r),
        2 => format!("M{x:.1} {:.1}l{:.1} {:.1}h{:.1}z", y - 1.2 * r, 1.2 * r, 2.1 * r, -2.4 * r),
        3 => format!("M{x:.1} {:.1}l{d:.1} {d:.1}l-{d:.1} {d:.1}l-{d:.1} -{d:.1}z", y - 1.3 * r, d = 1.3 * r),
        _ => format!("M{:.1} {:.1}h{d}v{h}h-{d}z", x - r, y - r * 0.35, d = 2.0 * r, h = 0.7 * r),
    }
}

fn axis_words(axis: &Axis) -> String {
    let scale = if axis.log { ", logarithmic" } else { "" };
    if axis.unit.is_empty() { format!("{}{scale}", axis.name) } else { format!("{}, {}{scale}", axis.name, axis.unit) }
}

/// The figure, its legend and caption; a sentence where there is nothing to draw.
pub(crate) fn figure(chart: &Chart) -> Html {
    let xs = chart.marks.iter().map(|mark| mark.x).chain(chart.line.iter().map(|p| p.0));
    let ends = |mark: &Mark| mark.interval.map_or([mark.y, mark.y], |(low, high)| [low, high]);
    let ys = chart.marks.iter().flat_map(|m| ends(m).into_iter().chain([m.y])).chain(chart.line.iter().map(|p| p.1));
    let x = Scale::of(&chart.x, xs, (LEFT, WIDTH - RIGHT));
    let y = Scale::of(&chart.y, ys, (HEIGHT - BOTTOM, TOP));
    let (Some(x), Some(y)) = (x, y) else {
        return element_with("p", &[("class", "absent")], "There is nothing to draw: no point has both figures.");
    };
    let mut groups: Vec<&str> = Vec::new();
    chart.marks.iter().for_each(|mark| {
        if !groups.contains(&mark.group.as_str()) {
            groups.push(&mark.group);
        }
    });
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         style=\"width:{WIDTH}px;max-width:100%\" role=\"img\">"
    );
    svg.push_str(&element("title", &chart.title).into_string());
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = write!(svg, "<path class=\"rule\" d=\"M{at:.1} {TOP}V{:.1}\"/>", HEIGHT - BOTTOM);
        text(&mut svg, "small", (at, HEIGHT - BOTTOM + 15.0), "middle", &shown(tick));
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(svg, "<path class=\"rule\" d=\"M{LEFT} {at:.1}H{:.1}\"/>", WIDTH - RIGHT);
        text(&mut svg, "small", (LEFT - 7.0, at + 3.5), "end", &shown(tick));
    }
    text(&mut svg, "word", ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0), "middle", &axis_words(&chart.x));
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = write!(svg, "<g transform=\"translate(14 {middle}) rotate(-90)\">");
    text(&mut svg, "word", (0.0, 0.0), "middle", &axis_words(&chart.y));
    svg.push_str("</g>");
    let corners: Vec<String> = chart.line.iter().map(|(a, b)| format!("{:.1} {:.1}", x.at(*a), y.at(*b))).collect();
    if !corners.is_empty() {
        let _ = write!(svg, "<path class=\"front\" d=\"M{}\"/>", corners.join("L"));
    }
    for mark in &chart.marks {
        let group = groups.iter().position(|g| *g == mark.group).unwrap_or(0).min(GROUPS - 1);
        let (px, py) = (x.at(mark.x), y.at(mark.y));
        if let Some((low, high)) = mark.interval {
            let _ = write!(svg, "<path class=\"thin\" d=\"M{px:.1} {:.1}V{:.1}\"/>", y.at(low), y.at(high));
        }
        let words = element("title", &mark.words).into_string();
        let path = shape(group, px, py);
        let _ = write!(svg, "<path class=\"mark g{group}\" data-row=\"{}\" d=\"{path}\">{words}</path>", mark.row);
    }
    svg.push_str("</svg>");
    let key = |(i, group): (usize, &&str)| {
        let i = i.min(GROUPS - 1);
        let swatch = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"14\" height=\"14\" style=\"display:inline-block\">\
             <path class=\"g{i}\" d=\"{}\"/></svg> ",
            shape(i, 7.0, 7.0)
        );
        element("span", seq![Html::drawing(swatch), name(group)])
    };
    let mut legend: Html = if groups.len() > 1 { groups.iter().enumerate().map(key).collect() } else { Html::none() };
    if !chart.line.is_empty() {
        legend.push(element("span", format!("- - {}", chart.line_name)));
    }
    let mut caption = Html::from(&chart.note);
    if !chart.source.is_empty() {
        caption.push(seq![" Made from ", element("code", &chart.source), "."]);
    }
    if !chart.remake.is_empty() {
        caption.push(element_with("span", &[("class", "remake")], seq!["Remake: ", element("code", &chart.remake)]));
    }
    element(
        "figure",
        seq![
            element_with("div", &[("class", "legend")], legend),
            element_with("div", &[("class", "scroll"), ("tabindex", "0")], Html::drawing(svg)),
            element("figcaption", caption)
        ],
    )
}
