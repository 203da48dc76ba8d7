//! A simulation as a picture (SVG 1.1), made of numbers only, so that the same outcomes give the same bytes.

use std::fmt::Write as _;

use crate::simulate::{MEASURES, Outcome, ratio};

/// Colours that most colour-blind people can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const WIDTH: u64 = 860;
const LEFT: u64 = 60;
const RIGHT: u64 = 840;
/// The chart of whole domains over time.
const TOP: u64 = 70;
const BOTTOM: u64 = 270;
/// The chart of ratios.
const RATIOS: u64 = 330;
const ROW: u64 = 18;
const NAMES: u64 = 230;
/// Points drawn of a line; more would not be seen.
const POINTS: u64 = 260;

/// Whole domains over time as lines, and below every measure as a ratio to the first policy.
pub fn svg(outcomes: &[Outcome], title: &str) -> String {
    let bars = outcomes.len().saturating_sub(1).max(1) as u64;
    let group = ROW * bars + 12;
    let height = RATIOS + 20 + group * MEASURES.len() as u64 + 10;
    let mut text = String::new();
    let out = &mut text;
    head(out, height, title);
    legend(out, outcomes);
    lines(out, outcomes);
    ratios(out, outcomes, group);
    line(out, "</svg>");
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Writing into a string cannot fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => { let _ = writeln!($out, $($format)*); };
}

fn head(out: &mut String, height: u64, title: &str) {
    put!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    );
    put!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>");
    put!(out, "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>", escaped(title));
}

fn legend(out: &mut String, outcomes: &[Outcome]) {
    let room = (RIGHT - LEFT) / outcomes.len().max(1) as u64;
    for ((at, one), colour) in (0u64..).zip(outcomes).zip(COLOURS.iter().cycle()) {
        let x = LEFT + at * room;
        put!(out, "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        put!(out, "<text x=\"{}\" y=\"48\">{}</text>", x + 18, escaped(&one.policy));
    }
}

fn lines(out: &mut String, outcomes: &[Outcome]) {
    let most =
        outcomes.iter().flat_map(|one| one.whole.iter().map(|(_, whole)| u64::from(*whole))).max().unwrap_or(0).max(1);
    let end = outcomes.iter().filter_map(|one| one.whole.last()).map(|(at, _)| *at).max().unwrap_or(0).max(1);
    put!(out, "<text x=\"{LEFT}\" y=\"{}\">domains without any claim, over {} days</text>", TOP - 6, end / 86_400);
    for step in 0..=4u64 {
        let y = BOTTOM - (BOTTOM - TOP) * step / 4;
        put!(out, "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{RIGHT}\" y2=\"{y}\" stroke=\"#dddddd\"/>");
        put!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 6,
            y + 4,
            tenths(most * step * 10 / 4)
        );
    }
    for (one, colour) in outcomes.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = sampled(&one.whole, end)
            .into_iter()
            .map(|(at, tenths)| {
                let x = LEFT + (RIGHT - LEFT) * at / POINTS;
                let y = BOTTOM - (BOTTOM - TOP) * tenths / (most * 10);
                format!("{x},{y}")
            })
            .collect();
        put!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>", points.join(" "));
    }
}

/// The average, in tenths, of each of [`POINTS`] equal pieces of the time.
fn sampled(whole: &[(u64, u32)], end: u64) -> Vec<(u64, u64)> {
    let piece = |at: u64| {
        let (from, to) = (
            u128::from(end) * u128::from(at) / u128::from(POINTS),
            u128::from(end) * u128::from(at + 1) / u128::from(POINTS),
        );
        let mut sum = 0;
        for (at, pair) in whole.iter().enumerate() {
            let until = whole.get(at + 1).map_or(u128::MAX, |next| u128::from(next.0));
            let overlap = until.min(to).saturating_sub(u128::from(pair.0).max(from));
            sum += overlap * u128::from(pair.1);
        }
        let tenths = (sum * 10).checked_div(to - from).unwrap_or(0);
        (at, u64::try_from(tenths).unwrap_or(u64::MAX))
    };
    (0..POINTS).map(piece).collect()
}

fn ratios(out: &mut String, outcomes: &[Outcome], group: u64) {
    let Some((first, others)) = outcomes.split_first() else { return };
    put!(out, "<text x=\"{LEFT}\" y=\"{}\">ratio to {} (the line is 1)</text>", RATIOS - 8, escaped(&first.policy));
    let hundredths = |value: u64, of: u64| (value * 100).checked_div(of);
    let all = MEASURES
        .iter()
        .flat_map(|measure| others.iter().filter_map(|one| hundredths((measure.value)(one), (measure.value)(first))));
    // A bar that is three times as long as the line's place would leave no room for the others.
    let most = all.max().unwrap_or(100).clamp(150, 400);
    let room = RIGHT - NAMES - 50;
    let one_x = NAMES + room * 100 / most;
    let bottom = RATIOS + group * MEASURES.len() as u64;
    for (at, measure) in (0u64..).zip(&MEASURES) {
        let top = RATIOS + group * at;
        put!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", NAMES - 8, top + group / 2, measure.name);
        for ((place, one), colour) in (0u64..).zip(others).zip(COLOURS.iter().cycle().skip(1)) {
            let (value, of) = ((measure.value)(one), (measure.value)(first));
            let length = room * hundredths(value, of).unwrap_or(0).min(most) / most;
            let y = top + ROW * place + 4;
            put!(out, "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{length}\" height=\"{}\" fill=\"{colour}\"/>", ROW - 4);
            put!(out, "<text x=\"{}\" y=\"{}\">{}</text>", NAMES + length + 6, y + 11, ratio(value, of));
        }
    }
    put!(
        out,
        "<line x1=\"{one_x}\" y1=\"{RATIOS}\" x2=\"{one_x}\" y2=\"{bottom}\" stroke=\"#333333\" stroke-dasharray=\"3 3\"/>"
    );
}

fn tenths(tenths: u64) -> String {
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_time_are_averaged() {
        // Two until half the time, then four.
        let sampled = sampled(&[(0, 2), (500, 4)], 1000);
        assert_eq!(
            (sampled[0], sampled[POINTS as usize - 1], sampled.len() as u64),
            ((0, 20), (POINTS - 1, 40), POINTS)
        );
    }

    #[test]
    fn names_cannot_break_the_picture() {
        assert_eq!(escaped("a{\"b\":1}<&>"), "a{&quot;b&quot;:1}&lt;&amp;&gt;");
        assert!(svg(&[], "nothing").ends_with("</svg>\n"));
    }
}
