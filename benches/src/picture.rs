//! The rows as a picture: one bar each, as long as ours is fast beside what it is set beside.

use std::fmt::Write as _;

use crate::measure::Row;

/// In pixels.
const WIDTH: f64 = 760.0;
const LINE: f64 = 18.0;
const HEAD: f64 = 30.0;
const LABELS: f64 = 300.0;
/// How long a bar of 1.0 is.
const ONE: f64 = 200.0;
const TITLE: &str = "how fast tenure is beside the bare call, by medians of one run (1 = as fast)";
/// Longer bars are cut here, and say how long they would be.
const RATIO_MAX: f64 = 2.0;

/// An SVG of all rows, one group for each store.
pub(crate) fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = HEAD;
    let mut store = "";
    for row in rows {
        if row.store != store {
            store = &row.store;
            y += LINE / 2.0;
            text(&mut body, 10.0, y + 13.0, "start", "bold", store);
            y += LINE;
        }
        let plural = if row.tasks == 1 { "task" } else { "tasks" };
        let label = format!("{}, {} {plural}", row.what, row.tasks);
        text(&mut body, LABELS - 8.0, y + 13.0, "end", "normal", &label);
        let colour = if row.ratio >= 0.9 { "#3b7a57" } else { "#b0793a" };
        let width = row.ratio.min(RATIO_MAX) * ONE;
        let height = LINE - 5.0;
        let _ = writeln!(
            body,
            r#"<rect x="{LABELS}" y="{:.0}" width="{width:.1}" height="{height}" fill="{colour}"/>"#,
            y + 2.0
        );
        let ratio = format!("{:.2}", row.ratio);
        text(&mut body, LABELS + width + 6.0, y + 13.0, "start", "normal", &ratio);
        y += LINE;
    }
    let (one, end) = (LABELS + ONE, y + 6.0);
    let height = end + 10.0;
    let mut svg = String::from(r#"<svg xmlns="http://www.w3.org/2000/svg" "#);
    let _ =
        writeln!(svg, r#"viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#);
    svg.push_str(r##"<rect width="100%" height="100%" fill="#ffffff"/>"##);
    text(&mut svg, 10.0, 20.0, "start", "bold", TITLE);
    let _ = writeln!(
        svg,
        r##"<line x1="{one}" y1="{HEAD}" x2="{one}" y2="{end}" stroke="#888" stroke-dasharray="3"/>"##
    );
    svg + &body + "</svg>\n"
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, weight: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        r#"<text x="{x:.0}" y="{y:.0}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>"#
    );
}
