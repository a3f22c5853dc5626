//! Plots, by hand: bars, ranges, and lines.

use std::fmt::Write;

/// What one peer gives for one group of bars.
#[derive(Clone, Copy)]
pub struct Bar {
    /// The solid part, and the pale part on top of it.
    pub parts: [f64; 2],
}

/// p50, p99 and p99.9.
pub type Range = [f64; 3];

/// A group has one entry a peer, in the order of the legend; `None` was not measured.
pub type Group<T> = (String, Vec<Option<T>>);

const COLOURS: [&str; 4] = ["#e8590c", "#2f9e44", "#1971c2", "#9c36b5"];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 200.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 16.0;
const TOP: f64 = 64.0;

/// Horizontal bars of two parts, from zero.
pub fn bars(title: &str, note: &str, peers: &[&str], groups: &[Group<Bar>]) -> String {
    let all = groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
    let most = all.map(|bar| bar.parts.iter().sum::<f64>()).fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    rows(title, note, peers, groups, |svg, y, colour, bar| {
        let [solid, pale] = bar.parts.map(|part| part * scale);
        svg.rect(LEFT, y + 2.0, solid, ROW - 4.0, colour, 1.0);
        svg.rect(LEFT + solid, y + 2.0, pale, ROW - 4.0, colour, 0.45);
        svg.text(LEFT + solid + pale + 5.0, y + 12.0, 11, "start", &short(bar.parts.iter().sum()));
    })
}

/// From p50 (a ring) over p99 (a dot) to p99.9 (a stroke), on a logarithmic scale.
pub fn ranges(title: &str, note: &str, peers: &[&str], groups: &[Group<Range>]) -> String {
    let all = || groups.iter().flat_map(|(_, ranges)| ranges.iter().flatten());
    let least = all().map(|range| range[0]).fold(f64::INFINITY, f64::min);
    let most = all().map(|range| range[2]).fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - 2.0 * RIGHT) / (most / least).ln();
    rows(title, note, peers, groups, |svg, y, colour, range| {
        let [p50, p99, p999] = range.map(|value| LEFT + 6.0 + (value / least).ln() * scale);
        let y = y + ROW / 2.0;
        svg.line(p50, y, p999, y, colour, 2.0);
        svg.line(p999, y - 5.0, p999, y + 5.0, colour, 2.0);
        svg.circle(p99, y, 4.0, colour, colour);
        svg.circle(p50, y, 4.0, colour, "#fff");
        let values = range.map(short).join(" · ");
        svg.text(p999 + 6.0, y + 4.0, 10, "start", &values);
    })
}

/// Lines over a few steps of growth, from zero.
pub fn lines(title: &str, note: &str, peers: &[&str], steps: &[Group<f64>]) -> String {
    const HEIGHT: f64 = 240.0;
    let most = steps.iter().flat_map(|(_, values)| values.iter().flatten()).copied().fold(0.0, f64::max);
    let mut svg = Svg::new(TOP + HEIGHT + 40.0, title, note, peers);
    let last = steps.len().saturating_sub(1).max(1) as f64;
    let x = |step: usize| 70.0 + step as f64 / last * (WIDTH - 70.0 - RIGHT);
    let y = |value: f64| TOP + HEIGHT - value / (most * 1.05) * HEIGHT;
    for quarter in 0..=4 {
        let value = most * f64::from(quarter) / 4.0;
        svg.line(60.0, y(value), WIDTH - RIGHT + 10.0, y(value), "#ddd", 1.0);
        svg.text(54.0, y(value) + 4.0, 11, "end", &short(value));
    }
    for (step, (label, _)) in steps.iter().enumerate() {
        svg.text(x(step), TOP + HEIGHT + 20.0, 12, "middle", label);
    }
    let mut ends = Vec::new();
    for (peer, colour) in COLOURS.iter().enumerate().take(peers.len()) {
        let values = steps.iter().enumerate();
        let points: Vec<_> = values.filter_map(|(step, (_, all))| Some((x(step), y(all[peer]?), all[peer]?))).collect();
        for pair in points.windows(2) {
            svg.line(pair[0].0, pair[0].1, pair[1].0, pair[1].1, colour, 2.5);
        }
        for (x, y, _) in &points {
            svg.circle(*x, *y, 3.5, colour, colour);
        }
        ends.extend(points.last().copied());
    }
    // From above, each below the one before it.
    ends.sort_by(|one, other| one.1.total_cmp(&other.1));
    let mut free = 0.0;
    for (x, y, value) in ends {
        let y = f64::max(y + 4.0, free);
        svg.text(x + 8.0, y, 11, "start", &short(value));
        free = y + 12.0;
    }
    svg.end()
}

/// A row for each peer of each group.
fn rows<T>(
    title: &str,
    note: &str,
    peers: &[&str],
    groups: &[Group<T>],
    mut draw: impl FnMut(&mut Svg, f64, &str, &T),
) -> String {
    let height_of = |group: &Group<T>| group.1.len() as f64 * ROW + 14.0;
    let mut svg = Svg::new(TOP + groups.iter().map(height_of).sum::<f64>(), title, note, peers);
    let mut y = TOP;
    for group in groups {
        let middle = y + group.1.len() as f64 * ROW / 2.0 + 4.0;
        svg.text(LEFT - 10.0, middle, 12, "end", &group.0);
        for (row, (value, colour)) in group.1.iter().zip(COLOURS).enumerate() {
            if let Some(value) = value {
                draw(&mut svg, y + row as f64 * ROW, colour, value);
            }
        }
        svg.line(LEFT, y - 2.0, LEFT, y + group.1.len() as f64 * ROW + 2.0, "#999", 1.0);
        y += height_of(group);
    }
    svg.end()
}

struct Svg(String);

impl Svg {
    /// With a title, a note under it, and a legend.
    fn new(height: f64, title: &str, note: &str, peers: &[&str]) -> Self {
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui, sans-serif\" fill=\"#222\">\n"
        ));
        svg.rect(0.0, 0.0, WIDTH, height, "#fff", 1.0);
        svg.text(16.0, 24.0, 15, "start", title);
        svg.text(16.0, 44.0, 11, "start", note);
        let mut x = WIDTH - 90.0 * peers.len() as f64;
        for (peer, colour) in peers.iter().zip(COLOURS) {
            svg.rect(x, 14.0, 12.0, 12.0, colour, 1.0);
            svg.text(x + 17.0, 24.0, 12, "start", peer);
            x += 90.0;
        }
        svg
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str, opacity: f64) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\" \
             fill-opacity=\"{opacity}\"/>"
        ));
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str, width: f64) {
        self.add(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/>"
        ));
    }

    fn circle(&mut self, x: f64, y: f64, radius: f64, stroke: &str, fill: &str) {
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" stroke=\"{stroke}\" stroke-width=\"2\" fill=\"{fill}\"/>"
        ));
    }

    fn text(&mut self, x: f64, y: f64, size: u32, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("a string takes all");
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Three digits, or whole numbers with commas.
pub fn short(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
