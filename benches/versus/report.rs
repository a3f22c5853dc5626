//! What was measured, as people read it.
use crate::results::{Measure, Results, Run};
pub fn line(run: &Run) -> String {
    let mut line = format!(
        "{:8} {} {:9} answered, {:9.0}/s, {:7.1} us ({:.1} user), proxy {:3.0} %, load {:3.0} %, {:6.1} MB",
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
pub fn markdown(_: &Results) -> String { String::new() }
pub fn docs(_: &Results) { let _ = Measure::Idle; }
