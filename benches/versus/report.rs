//! What was measured, as people read it: a line a window, tables, plots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::peers::Peer;
use crate::results::{Measure, Middle, Results, Run};
use crate::svg::{self, Bar, Group, short};
use crate::template::{Context, render};
use crate::workloads::{ALL, Kind, Workload};

/// One window, while it goes on.
pub fn line(run: &Run) -> String {
    let mut line = format!(
        "{:8} {} {:7} answered, {:6.0}/s, {:6.1} us ({:.1} user), proxy {:3.0} %, load {:3.0} %, {:6.1} MB",
        run.peer,
        run.round + 1,
        run.answered,
        run.requests_per_second(),
        run.cpu(),
        run.cpu_user,
        run.proxy_busy * 100.0,
        run.load_busy * 100.0,
        run.proportional as f64 / 1e6
    );
    if let Some(latency) = run.latency {
        line += &format!(", p50 {:.0} p99 {:.0} p99.9 {:.0} us", latency.p50, latency.p99, latency.p999);
    }
    if let Some([full, resumed]) = run.handshakes {
        line += &format!(", {full} full, {resumed} resumed");
    }
    if let Some(each) = run.each_idle {
        line += &format!(", {:.1} KB each", each / 1e3);
    }
    if let Some(reload) = run.reload {
        line += &format!(
            ", reload {:.0} ms, p99 {:.0} before, {:.0} after, max {:.0} us",
            reload.milliseconds, reload.before.p99, reload.after.p99, reload.after.max
        );
    }
    if run.failed > 0 || run.first_failure.is_some() {
        line += &format!(", FAILED {}: {}", run.failed, run.first_failure.as_deref().unwrap_or("connections ended"));
    }
    line
}

/// All tables, one after another.
pub fn markdown(results: &Results) -> String {
    let tables = tables(results);
    tables.iter().map(|(name, table)| format!("## {name}\n\n{table}")).collect::<Vec<_>>().join("\n")
}

/// Writes versus.md and img/versus-*.svg into a folder.
pub fn write(results: &Results, folder: &Path) {
    let versions = Peer::ALL.iter().filter_map(|peer| {
        let version = results.versions.get(peer.name())?;
        Some(format!("{} {version}", peer.name()))
    });
    let mut context = Context::from([
        ("machine", results.machine.as_str().into()),
        ("date", results.date.as_str().into()),
        ("versions", versions.collect::<Vec<_>>().join(", ").into()),
    ]);
    context.extend(tables(results).into_iter().map(|(name, table)| (name, table.trim_end().into())));
    fs::write(folder.join("versus.md"), render(include_str!("docs.md"), &context)).expect("a folder of ours");
    fs::create_dir_all(folder.join("img")).expect("a folder of ours");
    for (name, plot) in plots(results) {
        fs::write(folder.join("img").join(format!("versus-{name}.svg")), plot).expect("a folder of ours");
    }
}

/// What [`failures`] says when there are none.
pub const NOTHING: &str = "None.\n";

type Figure = fn(&Run) -> Option<f64>;

fn tables(results: &Results) -> Vec<(&'static str, String)> {
    let is_requests = |kind: &Kind| matches!(kind, Kind::Requests { .. });
    let is_handshakes = |kind: &Kind| matches!(kind, Kind::Handshakes { .. });
    let is_routes = |kind: &Kind| matches!(kind, Kind::Routes(_));
    let is_keys = |kind: &Kind| matches!(kind, Kind::Keys(_));
    let cpu: Figure = |run| Some(run.cpu());
    let memory: Figure = |run| Some(run.proportional as f64 / 1e6);
    let saturated = Measure::Saturated;
    let table = |of: &dyn Fn(&Kind) -> bool, measure, what, less| {
        compared(results, ALL.iter().filter(|workload| of(&workload.kind)), measure, what, less)
    };
    vec![
        ("cpu", table(&is_requests, saturated, cpu, true)),
        ("cpu-split", split(results, ALL.iter().filter(|workload| is_requests(&workload.kind)))),
        ("throughput", table(&is_requests, saturated, |run| Some(run.requests_per_second()), false)),
        ("busy", busy(results)),
        ("latency", latency(results)),
        ("cpu-at-rate", table(&is_requests, Measure::FixedRate, cpu, true)),
        ("memory", table(&is_requests, saturated, memory, true)),
        ("syscalls", syscalls(results)),
        ("idle", table(&|kind| matches!(kind, Kind::Idle), Measure::Idle, |run| run.each_idle.map(|e| e / 1e3), true)),
        ("handshakes", table(&is_handshakes, saturated, cpu, true)),
        ("handshakes-a-second", table(&is_handshakes, saturated, |run| Some(1e6 / run.cpu()), false)),
        ("routes", table(&is_routes, saturated, cpu, true)),
        ("routes-memory", table(&is_routes, saturated, memory, true)),
        ("keys", table(&is_keys, saturated, cpu, true)),
        ("keys-memory", table(&is_keys, saturated, memory, true)),
        ("reload", reload(results)),
        ("failures", failures(results)),
    ]
}

/// A row a workload, a column a peer, and keygate's share of each. The best is bold.
fn compared<'a>(
    results: &Results,
    workloads: impl Iterator<Item = &'a Workload>,
    measure: Measure,
    what: Figure,
    less_is_better: bool,
) -> String {
    let mut table = header(&["", "keygate", "nginx", "HAProxy", "Envoy", "÷ nginx", "÷ HAProxy", "÷ Envoy"]);
    for workload in workloads {
        let of = |peer: &Peer| results.middle(workload.name, peer.name(), measure, what);
        let middles: Vec<Option<Middle>> = Peer::ALL.iter().map(of).collect();
        if middles.iter().all(Option::is_none) {
            continue;
        }
        let known = || middles.iter().flatten().map(|middle| middle.middle);
        let best = if less_is_better { known().fold(f64::INFINITY, f64::min) } else { known().fold(0.0_f64, f64::max) };
        let mut cells = vec![workload.title.to_owned()];
        cells.extend(middles.iter().map(|middle| middle.map_or("–".into(), |middle| cell(middle, best))));
        cells.extend(middles[1..].iter().map(|peer| match (middles[0], peer) {
            (Some(keygate), Some(peer)) => format!("{:.2}", keygate.middle / peer.middle),
            _ => "–".into(),
        }));
        table += &row(&cells);
    }
    table
}

/// The middle, bold if it is the best, and the least and greatest unless they are the same.
fn cell(Middle { middle, least, most }: Middle, best: f64) -> String {
    let bold = if middle == best { "**" } else { "" };
    let range = if least == most { String::new() } else { format!(" ({}–{})", short(least), short(most)) };
    format!("{bold}{}{bold}{range}", short(middle))
}

fn split<'a>(results: &Results, workloads: impl Iterator<Item = &'a Workload>) -> String {
    per_peer(results, workloads, |workload, peer| {
        let of = |what: Figure| results.middle(workload, peer, Measure::Saturated, what).map(|middle| middle.middle);
        Some(format!("{} + {}", short(of(|run| Some(run.cpu_user))?), short(of(|run| Some(run.cpu_system))?)))
    })
}

fn busy(results: &Results) -> String {
    per_peer(results, ALL.iter(), |workload, peer| {
        let of = |what: Figure| results.middle(workload, peer, Measure::Saturated, what).map(|middle| middle.middle);
        let (proxy, load) = (of(|run| Some(run.proxy_busy))?, of(|run| Some(run.load_busy))?);
        Some(format!("{:.0} % / {:.0} %", proxy * 100.0, load * 100.0))
    })
}

fn latency(results: &Results) -> String {
    let mut table = header(&["", "requests/s", "keygate", "nginx", "HAProxy", "Envoy"]);
    for workload in ALL {
        let rate = results.runs.iter().find(|run| run.workload == workload.name && run.measure == Measure::FixedRate);
        let Some(rate) = rate.and_then(|run| run.rate) else { continue };
        let mut cells = vec![workload.title.to_owned(), short(rate)];
        cells.extend(Peer::ALL.iter().map(|peer| {
            percentiles(results, workload, *peer).map_or("–".into(), |range| range.map(short).join(" / "))
        }));
        table += &row(&cells);
    }
    table
}

/// p50, p99 and p99.9: the middle of each over the rounds.
fn percentiles(results: &Results, workload: &Workload, peer: Peer) -> Option<svg::Range> {
    let figures: [Figure; 3] =
        [|run| Some(run.latency?.p50), |run| Some(run.latency?.p99), |run| Some(run.latency?.p999)];
    let [p50, p99, p999] =
        figures.map(|what| results.middle(workload.name, peer.name(), Measure::FixedRate, what).map(|m| m.middle));
    Some([p50?, p99?, p999?])
}

fn reload(results: &Results) -> String {
    let figures: [(&str, Figure); 6] = [
        ("until it is in force, ms", |run| Some(run.reload?.milliseconds)),
        ("p99 before, µs", |run| Some(run.reload?.before.p99)),
        ("p99 from then on, µs", |run| Some(run.reload?.after.p99)),
        ("p99.9 from then on, µs", |run| Some(run.reload?.after.p999)),
        ("the slowest, µs", |run| Some(run.reload?.after.max)),
        ("requests lost", |run| Some(run.failed as f64)),
    ];
    let mut table = header(&["", "keygate", "nginx", "HAProxy", "Envoy"]);
    for (name, what) in figures {
        let of = |peer: &Peer| results.middle("reload", peer.name(), Measure::Reload, what);
        let middles: Vec<Option<Middle>> = Peer::ALL.iter().map(of).collect();
        let best = middles.iter().flatten().map(|middle| middle.middle).fold(f64::INFINITY, f64::min);
        let cells = middles.iter().map(|middle| middle.map_or("–".into(), |middle| cell(middle, best)));
        table += &row(&[name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>());
    }
    table
}

/// System calls for a request: those that any peer makes for one in a hundred.
fn syscalls(results: &Results) -> String {
    let runs = Peer::ALL.map(|peer| {
        let is = |run: &&Run| run.measure == Measure::Syscalls && run.peer == peer.name();
        results.runs.iter().find(is).map(|run| &run.syscalls)
    });
    let of = |calls: &BTreeMap<String, f64>, name: &str| calls.get(name).copied().unwrap_or_default();
    let mut names: Vec<&String> = runs.iter().flatten().flat_map(|calls| calls.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| runs.iter().flatten().any(|calls| of(calls, name) >= 0.01));
    let line = |name: &str, what: &dyn Fn(&BTreeMap<String, f64>) -> f64| {
        let cells = runs.iter().map(|calls| calls.map_or("–".into(), |calls| format!("{:.2}", what(calls))));
        row(&[name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>())
    };
    let mut table = header(&["", "keygate", "nginx", "HAProxy", "Envoy"]);
    for name in names {
        table += &line(&format!("`{name}`"), &|calls| of(calls, name));
    }
    table + &line("all", &|calls| calls.values().sum())
}

/// What went wrong, in any window but those with a reload, whose table has it.
pub fn failures(results: &Results) -> String {
    let failed = results.runs.iter().filter(|run| run.measure != Measure::Reload);
    let failed = failed.filter(|run| run.failed > 0 || run.first_failure.is_some()).map(|run| {
        let why = run.first_failure.as_deref().unwrap_or("connections ended");
        format!("- {}, {}: {} of {} requests: {why}\n", run.workload, run.peer, run.failed, run.answered + run.failed)
    });
    let short = results.logs.iter().filter(|log| log.lines < log.requests).map(|log| {
        format!(
            "- {}, {}: {} lines in the access log for {} requests\n",
            log.workload, log.peer, log.lines, log.requests
        )
    });
    let all: String = failed.chain(short).collect();
    if all.is_empty() { NOTHING.into() } else { all }
}

fn per_peer<'a>(
    results: &Results,
    workloads: impl Iterator<Item = &'a Workload>,
    what: impl Fn(&str, &str) -> Option<String>,
) -> String {
    let mut table = header(&["", "keygate", "nginx", "HAProxy", "Envoy"]);
    for workload in workloads.filter(|workload| results.runs.iter().any(|run| run.workload == workload.name)) {
        let cells: Vec<_> = Peer::ALL.iter().map(|peer| what(workload.name, peer.name())).collect();
        if cells.iter().any(Option::is_some) {
            let title = match workload.kind {
                Kind::Routes(_) => format!("routes: {}", workload.title),
                Kind::Keys(_) => format!("keys: {}", workload.title),
                _ => workload.title.to_owned(),
            };
            let cells = cells.into_iter().map(|cell| cell.unwrap_or("–".into()));
            table += &row(&[title].into_iter().chain(cells).collect::<Vec<_>>());
        }
    }
    table
}

fn header(cells: &[&str]) -> String {
    let rule = cells.iter().enumerate().map(|(place, _)| if place == 0 { " --- |" } else { " ---: |" });
    format!("{}|{}\n", row(&cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()), rule.collect::<String>())
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn plots(results: &Results) -> Vec<(&'static str, String)> {
    let names = Peer::ALL.map(Peer::name);
    let bar = |workload: &Workload, peer: Peer| {
        let of = |what: Figure| results.middle(workload.name, peer.name(), Measure::Saturated, what);
        let parts = [of(|run| Some(run.cpu_user))?.middle, of(|run| Some(run.cpu_system))?.middle];
        Some(Bar { parts })
    };
    let cpu = |title: &str, of: &dyn Fn(&Workload) -> bool| {
        let note = "µs of processor time for each; solid: in the proxy, pale: in the kernel for it; less is better";
        svg::bars(title, note, &names, &groups(of, &bar))
    };
    let growth = |title: &str, of: &dyn Fn(&Workload) -> bool| {
        let all = groups(of, &|workload: &Workload, peer: Peer| {
            Some(results.middle(workload.name, peer.name(), Measure::Saturated, |run| Some(run.cpu()))?.middle)
        });
        svg::lines(title, "µs of processor time for a request; less is better", &names, &all)
    };
    let is_large = |workload: &Workload| workload.name.ends_with("-1m");
    let is_requests = |workload: &Workload| matches!(workload.kind, Kind::Requests { .. });
    vec![
        ("cpu", cpu("Small and middling requests", &|workload| is_requests(workload) && !is_large(workload))),
        ("cpu-1m", cpu("Bodies of 1 MiB", &is_large)),
        ("handshakes", cpu("Handshakes", &|workload| matches!(workload.kind, Kind::Handshakes { .. }))),
        (
            "latency",
            svg::ranges(
                "Latency at a fixed rate",
                "µs: p50, p99, p99.9, on a logarithmic scale; less is better",
                &names,
                &groups(&is_requests, &|workload, peer| percentiles(results, workload, peer)),
            ),
        ),
        ("routes", growth("More routes", &|workload| matches!(workload.kind, Kind::Routes(_)))),
        ("keys", growth("More rate-limited clients", &|workload| matches!(workload.kind, Kind::Keys(_)))),
    ]
}

fn groups<T>(of: &dyn Fn(&Workload) -> bool, value: &dyn Fn(&Workload, Peer) -> Option<T>) -> Vec<Group<T>> {
    let measured = ALL.iter().filter(|workload| of(workload)).map(|workload| {
        (workload.title.to_owned(), Peer::ALL.iter().map(|peer| value(workload, *peer)).collect::<Vec<_>>())
    });
    measured.filter(|(_, values)| values.iter().any(Option::is_some)).collect()
}
