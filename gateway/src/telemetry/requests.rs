//! Requests answered, and how long they took, counted in nothing that workers share.
//!
//! A counter that all workers add to is a cache line that they take from one another with every request, and finding it
//! by the text of its labels costs more than the count. So each thread has counters of its own, and they are found by a
//! number, [`Series`], that a route's backend gets when the snapshot is built. Nobody but the thread writes to them: a
//! load and a store will do. A scrape reads everybody's, and adds up.
//!
//! Counters stay for as long as the process: counts go on across reloads, and never back. There is one a thread for each
//! route and upstream that it has answered for, with a place for each method and status that came up. Names come from
//! the file, methods are nine and "other", a status is below 1000: clients cannot make more of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, Metric, MetricFamily, MetricType};

use super::{describe, family, labelled};

const TOTAL: (&str, &str) = ("http_requests_total", "Requests answered.");
const DURATION: (&str, &str) = ("http_request_duration_seconds", "From the head to the answer's last byte.");
/// Upper bounds of the durations' buckets, in nanoseconds: from 0.5 ms to 30 s.
const BOUNDS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
/// Methods that are labels; any other is "other", so that clients cannot make labels.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
const STATUSES: u64 = 1000;
/// A place holds its kind in the bits above, and the count in these: enough for a million requests a second for years.
const COUNT_BITS: u32 = 48;

/// What a request is counted under: a route and an upstream. By default, neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Series(u32);

/// Every thread's counters.
#[derive(Debug)]
pub(crate) struct Requests {
    names: Mutex<Names>,
    counters: Mutex<Vec<Arc<Counters>>>,
    descriptions: [Desc; 2],
}

/// Route and upstream of each series, and the way back.
#[derive(Debug, Default)]
struct Names {
    of: Vec<[Arc<str>; 2]>,
    by_route: HashMap<Arc<str>, Vec<Series>>,
}

/// One thread's counters of one series. They are allocated by that thread, and so from memory of its own.
#[derive(Debug)]
struct Counters {
    series: Series,
    answers: Answers,
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Answers by method and status, in the order in which they first came up: of all that could be, there are few.
#[derive(Debug, Default)]
struct Answers {
    places: [AtomicU64; 7],
    more: OnceLock<Box<Answers>>,
}

/// What a thread has of one gateway's counters, by series.
struct Ours {
    whose: Weak<Requests>,
    counters: Vec<Option<Arc<Counters>>>,
}

thread_local!(static OURS: RefCell<Vec<Ours>> = const { RefCell::new(Vec::new()) });

impl Default for Requests {
    fn default() -> Self {
        let requests = Self {
            names: Mutex::default(),
            counters: Mutex::default(),
            descriptions: [
                describe(TOTAL, &["route", "upstream", "method", "status"]),
                describe(DURATION, &["route", "upstream"]),
            ],
        };
        requests.series("-", "-");
        requests
    }
}

impl Requests {
    /// The number for a route and an upstream, the same for the same names. "-" stands for none.
    pub(crate) fn series(&self, route: &str, upstream: &str) -> Series {
        let mut names = self.names.lock();
        let known = names.by_route.get(route).map(Vec::as_slice).unwrap_or_default();
        if let Some(known) = known.iter().find(|series| *names.of[series.0 as usize][1] == *upstream) {
            return *known;
        }
        let series = Series(u32::try_from(names.of.len()).expect("there is no memory for so many names"));
        let name: Arc<str> = names.by_route.get_key_value(route).map_or_else(|| route.into(), |(name, _)| name.clone());
        names.of.push([name.clone(), upstream.into()]);
        names.by_route.entry(name).or_default().push(series);
        series
    }

    /// Counts an answer, in this thread's counters.
    pub(crate) fn answered(self: &Arc<Self>, series: Series, method: &str, status: u16, duration: Duration) {
        OURS.with_borrow_mut(|all| {
            let ours = match all.iter().position(|ours| ours.whose.as_ptr() == Arc::as_ptr(self)) {
                Some(place) => &mut all[place],
                None => {
                    all.retain(|ours| ours.whose.strong_count() > 0);
                    all.push(Ours { whose: Arc::downgrade(self), counters: Vec::new() });
                    all.last_mut().expect("it was pushed")
                }
            };
            let place = series.0 as usize;
            if place >= ours.counters.len() {
                ours.counters.resize(place + 1, None);
            }
            ours.counters[place].get_or_insert_with(|| self.more(series)).count(kind(method, status), duration);
        });
    }

    fn more(&self, series: Series) -> Arc<Counters> {
        let counters = Arc::new(Counters {
            series,
            answers: Answers::default(),
            durations: Default::default(),
            nanoseconds: AtomicU64::new(0),
        });
        self.counters.lock().push(counters.clone());
        counters
    }
}

impl Counters {
    fn count(&self, kind: u64, duration: Duration) {
        self.answers.count(kind);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        add(&self.durations[BOUNDS.partition_point(|bound| *bound < nanoseconds)], 1);
        add(&self.nanoseconds, nanoseconds);
    }
}

impl Answers {
    fn count(&self, kind: u64) {
        let mut answers = self;
        loop {
            for place in &answers.places {
                let value = place.load(Ordering::Relaxed);
                if value == 0 || value >> COUNT_BITS == kind {
                    place.store(kind << COUNT_BITS | (value + 1), Ordering::Relaxed);
                    return;
                }
            }
            answers = answers.more.get_or_init(Box::default);
        }
    }

    fn each(&self, mut tell: impl FnMut(u64, u64)) {
        let mut answers = Some(self);
        while let Some(these) = answers {
            for value in these.places.iter().map(|place| place.load(Ordering::Relaxed)).filter(|value| *value > 0) {
                tell(value >> COUNT_BITS, value & ((1 << COUNT_BITS) - 1));
            }
            answers = these.more.get().map(|more| &**more);
        }
    }
}

/// By the only thread that writes to it.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// A number above zero for a method and a status.
fn kind(method: &str, status: u16) -> u64 {
    let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len());
    let status = if u64::from(status) < STATUSES { u64::from(status) } else { 0 };
    method as u64 * STATUSES + status + 1
}

/// The method and the status that a kind stands for.
fn of_kind(kind: u64) -> (&'static str, u64) {
    let (method, status) = ((kind - 1) / STATUSES, (kind - 1) % STATUSES);
    (METHODS.get(method as usize).copied().unwrap_or("other"), status)
}

/// What all threads have counted in one series.
#[derive(Default)]
struct Sum {
    answers: BTreeMap<u64, u64>,
    durations: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl Collector for Requests {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sums: BTreeMap<u32, Sum> = BTreeMap::new();
        for counters in self.counters.lock().iter() {
            let sum = sums.entry(counters.series.0).or_default();
            counters.answers.each(|kind, count| *sum.answers.entry(kind).or_default() += count);
            for (sum, counter) in sum.durations.iter_mut().zip(&counters.durations) {
                *sum += counter.load(Ordering::Relaxed);
            }
            sum.nanoseconds = sum.nanoseconds.wrapping_add(counters.nanoseconds.load(Ordering::Relaxed));
        }
        let names = self.names.lock();
        let (mut totals, mut durations) = (Vec::new(), Vec::new());
        for (series, sum) in sums {
            let [route, upstream] = &names.of[series as usize];
            durations.push(sum.durations(labelled([("route", route), ("upstream", upstream)])));
            for (kind, count) in sum.answers {
                let (method, status) = of_kind(kind);
                let status = &status.to_string();
                let mut metric =
                    labelled([("method", method), ("route", route), ("status", status), ("upstream", upstream)]);
                let mut counter = Counter::default();
                counter.set_value(count as f64);
                metric.set_counter(counter);
                totals.push(metric);
            }
        }
        vec![family(TOTAL, MetricType::COUNTER, totals), family(DURATION, MetricType::HISTOGRAM, durations)]
    }
}

impl Sum {
    fn durations(&self, mut metric: Metric) -> Metric {
        let mut so_far = 0;
        let buckets = BOUNDS.iter().zip(&self.durations).map(|(bound, count)| {
            so_far += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e9);
            bucket.set_cumulative_count(so_far);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(self.durations.iter().sum());
        histogram.set_sample_sum(self.nanoseconds as f64 / 1e9);
        metric.set_histogram(histogram);
        metric
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};
    use proptest::prelude::*;

    use super::*;

    const ROUTES: [(&str, &str); 4] = [("-", "-"), ("a", "-"), ("a", "blue"), ("b", "blue")];
    const ASKED: [&str; 4] = ["GET", "POST", "BREW", "get"];

    fn text(registry: &Registry) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn registered() -> (Arc<Requests>, Registry) {
        let (requests, registry) = (Arc::new(Requests::default()), Registry::new());
        registry.register(Box::new(super::super::Shared(requests.clone()))).unwrap();
        (requests, registry)
    }

    /// As the prometheus crate counts: what is told must be the same, to the letter.
    struct Plain(IntCounterVec, HistogramVec, Registry);

    impl Plain {
        fn new() -> Self {
            let labels = ["route", "upstream", "method", "status"];
            let total = IntCounterVec::new(Opts::new(TOTAL.0, TOTAL.1), &labels).unwrap();
            let buckets =
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
            let options = HistogramOpts::new(DURATION.0, DURATION.1).buckets(buckets);
            let duration = HistogramVec::new(options, &labels[..2]).unwrap();
            let registry = Registry::new();
            registry.register(Box::new(total.clone())).unwrap();
            registry.register(Box::new(duration.clone())).unwrap();
            Self(total, duration, registry)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_many_threads_count_is_told_as_one_counter_would(
            threads in prop::collection::vec(prop::collection::vec((0usize..4, 0usize..4, 195u16..1005, 0u64..12), 0..200), 1..5)
        ) {
            let ((requests, registry), plain) = (registered(), Plain::new());
            std::thread::scope(|scope| {
                for thread in &threads {
                    let (requests, plain) = (&requests, &plain);
                    scope.spawn(move || {
                        for (route, method, status, duration) in thread {
                            let (route, upstream) = ROUTES[*route];
                            // Eighths of a second: their sum is the same in any order.
                            let duration = Duration::from_millis(duration * 125);
                            let series = requests.series(route, upstream);
                            requests.answered(series, ASKED[*method], *status, duration);
                            let method = if *method < 2 { ASKED[*method] } else { "other" };
                            let status = if *status < 1000 { status.to_string() } else { "0".into() };
                            plain.0.with_label_values(&[route, upstream, method, &status]).inc();
                            plain.1.with_label_values(&[route, upstream]).observe(duration.as_secs_f64());
                        }
                    });
                }
            });
            prop_assert_eq!(text(&registry), text(&plain.2));
        }

        #[test]
        fn a_duration_is_in_the_bucket_it_would_be_in(nanoseconds in prop_oneof![
            0..40_000_000_000u64,
            (0..BOUNDS.len(), 0..3u64).prop_map(|(n, more)| BOUNDS[n] - 1 + more),
        ]) {
            let ((requests, registry), plain) = (registered(), Plain::new());
            let duration = Duration::from_nanos(nanoseconds);
            requests.answered(Series::default(), "GET", 200, duration);
            plain.0.with_label_values(&["-", "-", "GET", "200"]).inc();
            plain.1.with_label_values(&["-", "-"]).observe(duration.as_secs_f64());
            // The sum is exact here, which floating point is not.
            let counts = |text: String| text.lines().filter(|line| !line.contains("_sum")).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(counts(text(&registry)), counts(text(&plain.2)));
        }
    }

    #[test]
    fn counts_of_a_thread_that_has_ended_and_of_other_gateways_stay_apart_and_stay() {
        let ((one, registry), (other, of_other)) = (registered(), registered());
        std::thread::spawn({
            let (one, other) = (one.clone(), other.clone());
            move || {
                for _ in 0..3 {
                    one.answered(Series::default(), "GET", 200, Duration::ZERO);
                    other.answered(Series::default(), "GET", 404, Duration::ZERO);
                }
            }
        })
        .join()
        .unwrap();
        one.answered(Series::default(), "GET", 200, Duration::ZERO);
        let line = |status: u16, n: u64| {
            format!("http_requests_total{{method=\"GET\",route=\"-\",status=\"{status}\",upstream=\"-\"}} {n}\n")
        };
        assert!(text(&registry).contains(&line(200, 4)), "{}", text(&registry));
        assert!(text(&of_other).contains(&line(404, 3)) && !text(&of_other).contains("\"200\""), "{}", text(&of_other));
    }

    #[test]
    fn a_series_is_the_same_for_the_same_names() {
        let requests = Requests::default();
        assert_eq!(requests.series("-", "-"), Series::default());
        let series = requests.series("a", "blue");
        assert_ne!(series, requests.series("a", "-"));
        assert_ne!(series, requests.series("b", "blue"));
        assert_eq!(series, requests.series("a", "blue"));
    }
}
