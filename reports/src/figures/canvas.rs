//! Drawing: what every figure shares. Plotters draws; the colours are then exchanged for classes of the page's style
//! sheet, so that a figure follows the reader's light or dark theme and prints on white.

use crate::html::{Html, clean, element_with, seq};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

/// Plotters places everything on whole pixels; drawing twice as large and showing it at half size keeps curves smooth.
const SCALE: f64 = 2.0;
/// Plotters divides font sizes by this factor when it writes them.
const FONT_FACTOR: f64 = 1.24;
/// Mean width of a letter over its size, on the wide side: text that is thought to fit does fit.
const LETTER_WIDTH: f64 = 0.56;

/// A drawing failed; plotters says why.
pub(crate) type DrawError = DrawingAreaErrorKind<std::io::Error>;
/// A drawing that failed or not.
pub(crate) type Drawn = Result<(), DrawError>;

/// The inks of the page. Each has a colour for the light and one for the dark theme in `style.css`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text and strong lines.
    Text,
    /// Lesser text.
    Muted,
    /// Grid lines.
    Grid,
    /// What was predicted.
    Predicted,
    /// What was measured.
    Measured,
    /// Limits.
    Limit,
    /// The inside of a box.
    Soft,
}

impl Ink {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Text, "ink-text"),
        (Self::Muted, "ink-muted"),
        (Self::Grid, "ink-grid"),
        (Self::Predicted, "ink-predicted"),
        (Self::Measured, "ink-measured"),
        (Self::Limit, "ink-limit"),
        (Self::Soft, "ink-soft"),
    ];

    /// A colour that stands for the ink until the drawing is done.
    const fn token(self) -> RGBColor {
        RGBColor(self as u8 + 1, 0, 0)
    }
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The point is at its left.
    Start,
    /// The point is in its middle.
    Middle,
    /// The point is at its right.
    End,
}

/// A place to draw on, in pixels of the page.
pub(crate) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

fn px(value: f64) -> i32 {
    (value * SCALE).round() as i32
}

fn stroke(ink: Ink, width: f64) -> ShapeStyle {
    let width = (width * SCALE).round().max(1.0) as u32;
    ShapeStyle { color: ink.token().to_rgba(), filled: false, stroke_width: width }
}

impl Canvas<'_> {
    /// A straight line.
    pub(crate) fn line(&self, ink: Ink, width: f64, from: (f64, f64), to: (f64, f64)) -> Drawn {
        self.polyline(ink, width, [from, to])
    }

    /// A dashed straight line.
    pub(crate) fn dashed(&self, ink: Ink, width: f64, from: (f64, f64), to: (f64, f64)) -> Drawn {
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let dashes = (length / 9.0).ceil().clamp(1.0, 400.0);
        let at = |share: f64| (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
        for i in 0..dashes as u32 {
            self.line(ink, width, at(f64::from(i) / dashes), at((f64::from(i) + 0.6) / dashes))?;
        }
        Ok(())
    }

    /// A line through points.
    pub(crate) fn polyline(&self, ink: Ink, width: f64, points: impl IntoIterator<Item = (f64, f64)>) -> Drawn {
        let points: Vec<(i32, i32)> = points.into_iter().map(|(x, y)| (px(x), px(y))).collect();
        self.area.draw(&PathElement::new(points, stroke(ink, width)))
    }

    /// A filled area.
    pub(crate) fn polygon(&self, ink: Ink, points: impl IntoIterator<Item = (f64, f64)>) -> Drawn {
        let points: Vec<(i32, i32)> = points.into_iter().map(|(x, y)| (px(x), px(y))).collect();
        self.area.draw(&Polygon::new(points, ink.token().filled()))
    }

    /// A filled box.
    pub(crate) fn filled(&self, ink: Ink, from: (f64, f64), to: (f64, f64)) -> Drawn {
        self.area.draw(&Rectangle::new([(px(from.0), px(from.1)), (px(to.0), px(to.1))], ink.token().filled()))
    }

    /// The outline of a box.
    pub(crate) fn outlined(&self, ink: Ink, width: f64, from: (f64, f64), to: (f64, f64)) -> Drawn {
        let ((x0, y0), (x1, y1)) = (from, to);
        self.polyline(ink, width, [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
    }

    /// A round dot.
    pub(crate) fn dot(&self, ink: Ink, opacity: f64, at: (f64, f64), radius: f64) -> Drawn {
        let style = ShapeStyle { color: ink.token().mix(opacity), filled: true, stroke_width: 0 };
        self.area.draw(&Circle::new((px(at.0), px(at.1)), px(radius), style))
    }

    /// A diamond, hollow so that what it covers stays visible.
    pub(crate) fn diamond(&self, ink: Ink, at: (f64, f64), radius: f64) -> Drawn {
        let (x, y) = at;
        let corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y), (x, y - radius)];
        self.polyline(ink, 1.75, [corners.as_slice(), &corners[1..2]].concat())
    }

    /// A text, its vertical middle at the point. Foreign characters are escaped when the drawing is written.
    pub(crate) fn text(&self, ink: Ink, size: f64, at: (f64, f64), anchor: Anchor, text: &str) -> Drawn {
        let h = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let colour = ink.token();
        let style = TextStyle::from(("sans-serif", size * SCALE * FONT_FACTOR).into_font())
            .color(&colour)
            .pos(Pos::new(h, VPos::Center));
        self.area.draw_text(&clean(text), &style, (px(at.0), px(at.1)))
    }
}

/// Width of a text in pixels of the page, rather too wide than too narrow.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if (c as u32) < 0x1100 { LETTER_WIDTH } else { 1.0 }).sum::<f64>() * size
}

/// Text with its middle left out until it fits.
pub(crate) fn fit(text: &str, size: f64, width: f64) -> String {
    let mut chars = text.chars().count().min(200);
    loop {
        let short = crate::html::shorten(text, chars);
        if text_width(&short, size) <= width || chars <= 4 {
            return short.into_owned();
        }
        chars -= 1;
    }
}

/// A drawing `width` by `height` pixels of the page, with a title and a description for those who do not see it.
/// A drawing that fails is replaced by a sentence that says so.
pub(crate) fn drawing(
    (width, height): (f64, f64),
    title: &str,
    description: &str,
    draw: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Html {
    let mut svg = String::new();
    let size = ((width * SCALE).ceil() as u32, (height * SCALE).ceil() as u32);
    let result = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let canvas = Canvas { area };
        draw(&canvas).and_then(|()| canvas.area.present())
    };
    if let Err(error) = result {
        return element_with("p", &[("class", "absent")], format!("This figure could not be drawn: {error}"));
    }
    let Some(begin) = svg.find('>') else { return Html::none() };
    let inside = Html::drawing(themed(&svg[begin + 1..]));
    let (w, h) = (format!("0 0 {} {}", size.0, size.1), format!("width:{width}px;max-width:100%"));
    let mut all = Html::drawing(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{w}\" style=\"{h}\" role=\"img\" preserveAspectRatio=\"xMinYMin meet\">"
    ));
    all.push(seq![element_with("title", &[], title), element_with("desc", &[], description)]);
    all.push(inside);
    all
}

/// A finished drawing with classes in place of colours, and without what is the default anyway.
fn themed(svg: &str) -> String {
    let mut themed = svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "").replace(">\n", ">");
    for (ink, class) in Ink::ALL {
        let RGBColor(r, g, b) = ink.token();
        let token = format!("#{r:02X}{g:02X}{b:02X}");
        themed = themed.replace(&format!("fill=\"{token}\""), &format!("class=\"fill {class}\""));
        themed = themed.replace(&format!("stroke=\"{token}\""), &format!("class=\"line {class}\""));
    }
    themed.replace(" font-family=\"sans-serif\"", "").replace(" stroke-width=\"0\"", "")
}

/// Round values that cover a range: multiples of 1, 2 or 5 times a power of ten. Empty where the range is.
pub(crate) fn ticks(low: f64, high: f64, wanted: u32) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) || wanted == 0 {
        return Vec::new();
    }
    let rough = span / f64::from(wanted);
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(power * 10.0);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).take(100).map(|i| i as f64 * step).collect()
}

/// A range that shows these values: from zero where they are far apart, else with a margin around them.
pub(crate) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .into_iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return None;
    }
    let margin = if high > low { (high - low) * 0.15 } else { high.abs().max(1e-9) * 0.1 };
    Some(if low >= 0.0 && low < 0.5 * high { (0.0, high + margin) } else { (low - margin, high + margin) })
}

/// A time axis' unit: its name and size in seconds.
pub(crate) fn time_unit(seconds_max: f64) -> (&'static str, f64) {
    match seconds_max {
        s if s >= 1.0 => ("s", 1.0),
        s if s >= 1e-3 => ("ms", 1e-3),
        s if s >= 1e-6 => ("µs", 1e-6),
        _ => ("ns", 1e-9),
    }
}

/// An axis from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Values at both ends.
    pub(crate) values: (f64, f64),
    /// Pixels at both ends.
    pub(crate) pixels: (f64, f64),
}

impl Axis {
    /// The pixel of a value, kept within the axis.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = ((value - self.values.0) / (self.values.1 - self.values.0)).clamp(0.0, 1.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Horizontal grid lines with their values at the left.
    pub(crate) fn grid(&self, canvas: &Canvas<'_>, left: f64, right: f64, unit: f64, wanted: u32) -> Drawn {
        for tick in ticks(self.values.0 / unit, self.values.1 / unit, wanted) {
            let y = self.at(tick * unit);
            canvas.line(Ink::Grid, 0.5, (left, y), (right, y))?;
            let shown = crate::show::number(tick).unwrap_or_default();
            canvas.text(Ink::Muted, 11.0, (left - 6.0, y), Anchor::End, &shown)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.9, 3.1, 2), [2.0]);
        assert!(ticks(1.0, 1.0, 5).is_empty());
        assert!(ticks(f64::NAN, 1.0, 5).is_empty());
        assert!(ticks(0.0, f64::INFINITY, 5).is_empty());
    }

    #[test]
    fn a_range_of_one_value_is_not_empty() {
        let (low, high) = range([5.0]).expect("a value");
        assert!(low < 5.0 && high > 5.0);
        assert_eq!(range([f64::NAN]), None);
        let (low, high) = range([0.0]).expect("a value");
        assert!(low < high);
    }

    #[test]
    fn every_colour_becomes_a_class_and_text_is_escaped() {
        let svg = drawing((100.0, 50.0), "title", "description", |canvas| {
            for (ink, _) in Ink::ALL {
                canvas.line(ink, 1.0, (0.0, 0.0), (9.0, 9.0))?;
                canvas.filled(ink, (0.0, 0.0), (9.0, 9.0))?;
            }
            canvas.text(Ink::Text, 12.0, (1.0, 1.0), Anchor::Start, "<script>fill=\"#010000\"</script>")
        })
        .into_string();
        assert!(!svg.contains("\"#"), "{svg}");
        assert!(!svg.contains("<script"), "{svg}");
        assert_eq!(svg.matches("ink-limit").count(), 2);
    }

    #[test]
    fn a_fitted_text_is_no_wider_than_asked() {
        let long = "a device with a very long name indeed, longer than any box";
        assert!(text_width(&fit(long, 12.0, 100.0), 12.0) <= 100.0);
        assert_eq!(fit("short", 12.0, 100.0), "short");
    }
}
